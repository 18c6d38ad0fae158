/**
 * `lfs` where a mount has no ioctl: a Unix socket that takes one line of JSON and answers one. Node cannot ask the
 * kernel who is at the other end, so the socket is root's alone.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { constants } from 'node:os';
import { join, relative } from 'node:path';
import { z } from 'zod';
import { messageChain } from '../base/errors.js';
import { EXTENT_EOF, HUA_NONE } from '../hsm/flags.js';
import { errnoOf } from '../hsm/movers.js';
import type { Caller, Fid } from '../store/inodes.js';
import type { FrontEndOptions } from './front-end.js';
import { Links } from './links.js';

const { EINVAL, EIO, ENAMETOOLONG } = constants.errno;

/** sun_path without its NUL. */
const maxSocketPath = 107;
const maxLine = 64 * 1024;
/** LUSTRITE_PATH_BYTES of native/abi.h. */
const maxPath = 4096;

/** struct hsm_state_set: hss_valid. */
const HSS_SETMASK = 1;
const HSS_CLEARMASK = 2;
const HSS_ARCHIVE_ID = 4;

const root: Caller = { uid: 0, gid: 0, groups: [], pid: 0, capabilities: 2n ** 64n - 1n };

const u32 = z.number().int().nonnegative();
const fid = z
  .string()
  .regex(/^\[0x[0-9a-f]+:0x[0-9a-f]+:0x[0-9a-f]+\]$/i)
  .transform((text) => text as Fid);
const file = { path: z.string(), fid: fid.optional() };
const question = z.discriminatedUnion('op', [
  z.object({ op: z.literal('state'), ...file }),
  z.object({ op: z.literal('action'), ...file }),
  z.object({ op: z.literal('set'), ...file, valid: u32, archive_id: u32, setmask: u32, clearmask: u32 }),
  z.object({
    op: z.literal('request'),
    path: z.string(),
    action: u32,
    archive_id: u32,
    fids: z.array(fid).max(52),
    data: z.string().regex(/^(?:[0-9a-f]{2})*$/),
  }),
  z.object({ op: z.literal('fid2path'), path: z.string(), fid, link: u32 }),
]);

type Answer = Readonly<Record<string, number | string>>;

export interface LfsSocket extends AsyncDisposable {
  readonly path: string;
}

/** Listens beside the store; where that path is too long for a socket, in a folder of its own. */
export async function openLfsSocket(options: FrontEndOptions): Promise<LfsSocket> {
  const beside = join(options.store.path, 'lfs.sock');
  const own = Buffer.byteLength(beside) > maxSocketPath ? await mkdtemp('/run/lustrite-') : undefined;
  const path = own === undefined ? beside : join(own, 'lfs.sock');
  await rm(path, { force: true });
  const connections = new Set<Socket>();
  const server = createServer((connection) => {
    connections.add(connection);
    connection.on('close', () => connections.delete(connection));
    connection.on('error', () => connection.destroy());
    converse(connection, options);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // The folder is 0700, so that nobody can come before the chmod.
    server.listen(path, resolve);
  });
  await chmod(path, 0o600);
  return {
    path,
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.destroy();
      await new Promise((resolve) => server.close(resolve));
      if (own !== undefined) await rm(own, { recursive: true, force: true });
    },
  };
}

function converse(connection: Socket, options: FrontEndOptions): void {
  let text = '';
  connection.setEncoding('utf8');
  connection.on('data', (chunk: string) => {
    text += chunk;
    if (text.length > maxLine) {
      connection.destroy();
      return;
    }
    const end = text.indexOf('\n');
    if (end < 0) return;
    connection.removeAllListeners('data');
    void answerTo(text.slice(0, end), options).then((answer) =>
      connection.end(`${JSON.stringify(answer)}\n`),
    );
  });
}

/** The answer to one line; every failure is an errno in it. */
export async function answerTo(text: string, options: FrontEndOptions): Promise<Answer> {
  try {
    const asked = question.safeParse(JSON.parse(text));
    return asked.success ? await act(asked.data, options) : { errno: EINVAL };
  } catch (error) {
    if (error instanceof SyntaxError) return { errno: EINVAL };
    const errno = errnoOf(error) ?? EIO;
    options.log.info({ errno, cause: messageChain(error) }, 'a request of lfs was refused');
    return { errno };
  }
}

async function act(asked: z.infer<typeof question>, options: FrontEndOptions): Promise<Answer> {
  const { coordinator, store } = options;
  switch (asked.op) {
    case 'state': {
      const { flags, archiveId } = await store.native.state(fidFor(asked, options));
      return { errno: 0, states: flags, archive_id: archiveId };
    }
    case 'action': {
      const shown = coordinator.shownAction(fidFor(asked, options));
      const { state, action, offset, length } = shown ?? {
        state: 0,
        action: HUA_NONE,
        offset: 0n,
        length: EXTENT_EOF,
      };
      return { errno: 0, state, action, offset: Number(offset), length: Number(length) };
    }
    case 'set': {
      const has = (bit: number): boolean => (asked.valid & bit) !== 0;
      const errno = await coordinator.stateSet({
        fid: fidFor(asked, options),
        set: has(HSS_SETMASK) ? asked.setmask : 0,
        clear: has(HSS_CLEARMASK) ? asked.clearmask : 0,
        ...(has(HSS_ARCHIVE_ID) ? { archiveId: asked.archive_id } : {}),
        caller: root,
      });
      return { errno };
    }
    case 'request': {
      const { action, archive_id: archiveId, fids, data } = asked;
      const errno = await coordinator.request({
        action,
        archiveId,
        fids,
        data: Buffer.from(data, 'hex'),
        caller: root,
      });
      return { errno };
    }
    case 'fid2path': {
      const { links, path } = await new Links(store.native).find(asked.fid, asked.link);
      return { errno: path.length < maxPath ? 0 : ENAMETOOLONG, links, path: path.toString('hex') };
    }
  }
}

function fidFor(
  asked: { readonly path: string; readonly fid?: Fid | undefined },
  options: FrontEndOptions,
): Fid {
  return asked.fid ?? options.store.native.fidOf(relative(options.mountPoint, asked.path));
}
