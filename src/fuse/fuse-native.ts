/**
 * The front end of the npm package fuse-native: through JavaScript, by path, with what libfuse 2.9 can do
 * (src/SEMANTICS.md lists what it cannot). Same store, same rules.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { FsError, messageChain } from '../base/errors.js';
import type { FrontEnd, FrontEndOptions } from './front-end.js';
import { loadFuseNative } from './fuse-native-loader.js';
import { fuseOperations } from './fuse-operations.js';
import { openLfsSocket } from './lfs-socket.js';
import { isMounted } from './mountinfo.js';

const { EBUSY, EIO } = constants.errno;

/** The package tells nobody when its mount goes away. */
const watchMs = 500;

/** Mounts the store through the package. Needs root, as it answers with everybody's data. */
export async function mountFuseNative(options: FrontEndOptions): Promise<FrontEnd> {
  const { store, addon, mountPoint, config, log } = options;
  const Fuse = loadFuseNative();
  const socket = await openLfsSocket(options);
  const served = fuseOperations({ native: store.native, log, socketPath: socket.path });
  // The kernel's 12 reads ahead would all be those of readers who wait for a restore, and nobody else's would be sent.
  const background = 'max_background=65535';
  // The package knows no option for these; they pass in the name of the source.
  const smuggled = ['big_writes', 'max_write=131072', background, ...(config.readOnly ? ['ro'] : [])];
  const fuse = new Fuse(mountPoint, served.operations, {
    timeout: false,
    allowOther: true,
    defaultPermissions: true,
    fsname: [store.meta.container.replaceAll(',', '_'), ...smuggled].join(','),
    subtype: 'lustrite',
    attrTimeout: '0',
  });
  try {
    await new Promise<void>((resolve, reject) => {
      fuse.mount((error) => {
        if (error === null) resolve();
        else reject(new FsError(EIO, `fuse-native could not mount ${mountPoint}`, { cause: error }));
      });
    });
  } catch (error) {
    await socket[Symbol.asyncDispose]();
    throw error;
  }
  log.info({ mountPoint }, 'mounted by the fuse-native front end');

  let onClosed: () => void = () => undefined;
  const closed = new Promise<void>((resolve) => {
    onClosed = resolve;
  });
  let over: Promise<void> | undefined;
  const end = (): Promise<void> => {
    over ??= (async () => {
      clearInterval(watch);
      await served.closeAll();
      await socket[Symbol.asyncDispose]();
      onClosed();
    })();
    return over;
  };
  const watch = setInterval(() => {
    void mountedNow(mountPoint).then((mounted) => (mounted ? undefined : end()));
  }, watchMs);

  return {
    name: 'fuse-native',
    passthrough: false,
    closed,
    async unmount({ lazy }) {
      // What is there behind our own end is another's.
      if (over === undefined && (await mountedNow(mountPoint))) {
        if (lazy) addon.detach(mountPoint);
        else await umount(mountPoint);
      }
      await end();
    },
    stats: () => served.stats(),
  };
}

async function mountedNow(mountPoint: string): Promise<boolean> {
  return isMounted(await readFile('/proc/self/mountinfo', 'utf8'), mountPoint);
}

/** In a process of its own: this one serves the mount and must never look at it. */
function umount(mountPoint: string): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile('umount', [mountPoint], (error, _stdout, stderr) => {
      if (error === null) resolve();
      else {
        const busy = stderr.includes('busy');
        reject(new FsError(busy ? EBUSY : EIO, stderr.trim() || messageChain(error), { cause: error }));
      }
    });
  });
}
