// A process that serves a mount through the addon alone, for tests of the native front end: whoever tests a mount
// must not serve it. Restores are scripted: a file's data is the content of its blob's name below `source`.
//
// Spoken to over the fork's channel: {id, method, args} in, {id, value} or {id, error} out. It unmounts and ends when
// the channel closes.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { join } from 'node:path';

const addon = createRequire(import.meta.url)(
  process.env['LUSTRITE_ADDON'] ?? '../../build/Release/lustrite.node',
);

const { ENODATA } = constants.errno;
const stubDefaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 1_000_000_000n };

let store;
let session;
let source;
let held = false;
let failure = 0;
/** Restores that the store asked for and that the gate holds. */
const wanted = [];
let endsHeld = false;
/** Restores whose data has come and that are still to be finished. */
const ends = [];
/** Requests and flag changes that came by ioctl, as they came. */
const asked = [];
let answer = 0;

async function restore(fid) {
  if (failure !== 0) return store.failRestore(fid, failure);
  const { copy } = await store.state(fid);
  const plan = await store.beginRestore(fid);
  const from = openSync(join(source, copy.blob), 'r');
  try {
    const chunk = Buffer.alloc(256 * 1024);
    for (let done = 0; ;) {
      const size = readSync(from, chunk, 0, chunk.length, done);
      if (size === 0) break;
      writeSync(plan.fd, chunk, 0, size, done);
      done += size;
      store.restoreProgress(fid, done);
    }
  } finally {
    closeSync(from);
  }
  if (endsHeld) await new Promise((resolve) => ends.push(resolve));
  try {
    await store.finishRestore(fid, copy);
  } catch {
    await store.failRestore(fid, ENODATA);
  }
}

function runRestore(fid) {
  restore(fid).catch((error) => {
    if (error.code !== 'ENOENT') process.stderr.write(`rig: restore of ${fid}: ${error.stack}\n`);
  });
}

const answers = new Map();

const methods = {
  async start(options) {
    source = options.source;
    store = await addon.openStore(options.store, {
      restoreNeeded(fid) {
        if (held) wanted.push(fid);
        else runRestore(fid);
      },
    });
    const onAsked = (kind) => (id, request) => {
      asked.push({ kind, ...request });
      if (answer === 'later') answers.set(id, true);
      else session.answer(id, answer);
    };
    session = await addon.mount(
      store,
      {
        mountPoint: options.mountPoint,
        source: 'rig',
        readOnly: options.readOnly,
        passthrough: options.passthrough,
        threads: 2,
        maxHeld: options.maxHeld,
        partialReads: true,
      },
      {
        request: onAsked('request'),
        stateSet: onAsked('stateSet'),
        closed: () => process.connected && process.send({ closed: true }),
      },
    );
    return { passthrough: session.passthrough };
  },
  stubs: async (stubs) => store.createStubs(stubs, stubDefaults),
  remove: (path) => store.remove(path, store.fidOf(path)),
  hold() {
    held = true;
  },
  go() {
    held = false;
    for (const fid of wanted.splice(0)) runRestore(fid);
  },
  holdEnds() {
    endsHeld = true;
  },
  goEnds(count) {
    for (const go of ends.splice(0, count)) go();
  },
  heldEnds: () => ends.length,
  fail(errno) {
    failure = errno;
  },
  wanted: () => wanted.length,
  answerWith(errno) {
    answer = errno;
  },
  asked: () => asked.splice(0),
  state: (path) => store.state(store.fidOf(path)),
  async archive(path) {
    const plan = await store.beginArchive(store.fidOf(path), 1);
    const copy = {
      blob: path,
      etag: '0x8DC0000000000AC',
      size: plan.size,
      lastModifiedMs: 1_700_000_000_000,
    };
    return store.finishArchive(plan.token, copy);
  },
  release: (path) => store.release(store.fidOf(path)),
  stats: () => ({ ...session.stats(), ...prefixed('store.', store.stats()) }),
  unmount: (lazy) => session.unmount(lazy),
  end: () => store.close(),
};

function prefixed(prefix, values) {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}

process.on('message', async ({ id, method, args }) => {
  try {
    const value = await methods[method](...args);
    // No exit() at the end: the process has to end by itself once nothing is mounted.
    process.send({ id, value }, () => method === 'end' && process.disconnect());
  } catch (error) {
    process.send({ id, error: { message: error.stack, code: error.code, errno: error.errno } });
  }
});
process.on('disconnect', () => {
  if (session) session.unmount(true).catch(() => undefined);
});
