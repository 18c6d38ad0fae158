/** The native front end: the session in C++ serves the kernel, HSM requests come here. */
import { constants, availableParallelism } from 'node:os';
import { messageChain } from '../base/errors.js';
import type { Fid, NativeSession } from '../native/binding.js';
import { errnoOf } from '../hsm/movers.js';
import type { FrontEnd, FrontEndOptions } from './front-end.js';
import { Links } from './links.js';

const { EIO } = constants.errno;

/** Requests held for restores over all inodes: each holds a slot of the kernel's queue. */
const maxHeld = 16_384;
const minThreads = 2;
const maxThreads = 8;

/** Mounts the store; rejects with the cause when the kernel or our rights do not allow it. */
export async function mountNative(options: FrontEndOptions): Promise<FrontEnd> {
  const { store, coordinator, addon, mountPoint, config, log } = options;
  let onClosed: () => void = () => undefined;
  const closed = new Promise<void>((resolve) => {
    onClosed = resolve;
  });
  // The kernel may ask before mount() has resolved.
  let onSession: (session: NativeSession) => void = () => undefined;
  const session = new Promise<NativeSession>((resolve) => {
    onSession = resolve;
  });
  const answer = (id: number, errno: Promise<number>): void => {
    void errno
      .catch((error: unknown) => {
        log.error({ cause: messageChain(error) }, 'an HSM request ended unexpectedly');
        return EIO;
      })
      .then(async (value) => (await session).answer(id, value));
  };
  const links = new Links(store.native);
  const answerLink = async (id: number, fid: Fid, link: number): Promise<void> => {
    const answering = await session;
    try {
      const found = await links.find(fid, link);
      answering.answerLink(id, found.links, found.path);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === undefined) log.error({ cause: messageChain(error) }, 'no path was found for a FID');
      answering.answer(id, errno ?? EIO);
    }
  };
  const mounted = await addon.mount(
    store.native,
    {
      mountPoint,
      source: store.meta.container,
      readOnly: config.readOnly,
      passthrough: config.passthrough,
      threads: Math.min(maxThreads, Math.max(minThreads, availableParallelism())),
      maxHeld,
      // With `verify` nobody sees a byte before the whole content was hashed.
      partialReads: config.hydrate.partialReads && !config.hydrate.verify,
    },
    {
      request: (id, request) => answer(id, coordinator.request(request)),
      stateSet: (id, request) => answer(id, coordinator.stateSet(request)),
      linkAsked: (id, fid, link) => void answerLink(id, fid, link),
      closed: onClosed,
    },
  );
  onSession(mounted);
  log.info({ mountPoint, passthrough: mounted.passthrough }, 'mounted by the native front end');
  return {
    name: 'native',
    passthrough: mounted.passthrough,
    closed,
    unmount: ({ lazy }) => mounted.unmount(lazy),
    stats: () => mounted.stats(),
  };
}
