// Child process of test/unit/native-store-crash.test.ts: one file through everything a store does with it. Each step is
// announced on stdout when it has returned, so that the parent knows what must have survived. Plain JavaScript, to start
// quickly.
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';

const [path] = process.argv.slice(2);
const addon = createRequire(import.meta.url)('../../build/Release/lustrite.node');
const store = await addon.openStore(path, { restoreNeeded() {} });
const mtimeNs = 1_700_000_000_000_000_000n;
const size = 8192;

const content = (etag, length) => Buffer.alloc(length, `${etag}.`);
const copy = (etag) => ({ blob: 'f', etag, size, lastModifiedMs: 1_700_000_000_000 });
const stub = (name, etag) => ({
  path: name,
  kind: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs,
  size,
  copy: copy(etag),
});
const did = (step) => writeSync(1, `${step}\n`);
const settled = async (fid) => {
  while (store.stats().suspended !== 0) await store.state(fid);
};

const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs };
const [{ fid }] = await store.createStubs([stub('f', '0xA1')], defaults);
did('stub');

await store.beginRestore(fid);
await store.failRestore(fid, 61);
did('failed');
const { fd } = await store.beginRestore(fid);
writeSync(fd, content('0xA1', size), 0, size, 0);
await store.finishRestore(fid, copy('0xA1'));
did('restored');

const idle = await store.openHandle('f', 2, 0);
await store.closeHandle(idle.handle);
await settled(fid);
did('opened');

const writer = await store.openHandle('f', 2, 0);
writeSync(writer.fd, content('mine', size), 0, size, 0);
did('written');
await store.closeHandle(writer.handle);
await settled(fid);
did('settled');

const archive = async (etag) => {
  const plan = await store.beginArchive(fid, 1);
  await store.finishArchive(plan.token, copy(etag));
};
await archive('0xA2');
did('archived');

const flagged = await store.openHandle('f', 2, 0);
writeSync(flagged.fd, content('mine', size), 0, size, 0);
await store.changeFlags(fid, 0x10, 0, 0);
await store.changeFlags(fid, 0, 0x10, 0);
await store.closeHandle(flagged.handle);
await settled(fid);
await archive('0xA2');
did('flagged');

await store.release(fid);
did('released');
await store.replaceCopy(fid, stub('f', '0xA3'));
did('replaced');
await store.truncate('f', 0);
did('truncated');
await store.replaceEntry(fid, stub('f', '0xA4'));
did('displaced');
await store.close();
