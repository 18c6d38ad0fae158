// Child process of test/unit/native-store-crash.test.ts: what an import does, a barrier, and a file that says so; then
// nothing, until it is killed.
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const [path = ''] = process.argv.slice(2);
const addon = createRequire(import.meta.url)('../../build/Release/lustrite.node');
const store = await addon.openStore(path, { restoreNeeded() {} });
const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 1n };
const stub = (name, etag, size) => ({
  path: name,
  kind: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs: 1n,
  size,
  copy: { blob: name, etag, size, lastModifiedMs: 1 },
});
const say = async (name) => {
  await store.barrier();
  for (const one of [join(path, name), dirname(join(path, name))]) {
    const fd = openSync(one, one === path ? 'r' : 'w');
    fsyncSync(fd);
    closeSync(fd);
  }
};

const [old] = await store.createStubs([stub('old', '0xA', 5), stub('gone', '0xA', 5)], defaults);
await say('first');
await store.createStubs([stub('d/new', '0xA', 5)], defaults);
await store.replaceCopy(old.fid, stub('old', '0xB', 77), { durable: false });
await store.remove('gone', store.fidOf('gone'));
await say('second');
writeSync(1, 'done\n');
process.stdin.resume();
