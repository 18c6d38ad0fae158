import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { HS_LOST } from '../../src/hsm/flags.js';
import type { Fid } from '../../src/store/inodes.js';
import { gate, MemoryHsm } from '../helpers/memory-hsm.js';
import { until } from '../helpers/poll.js';

/** A file `a` whose content is only in the blob `a`, renamed to `b`; and a new file `a`. */
async function rotated(
  hsm: MemoryHsm,
  resident: boolean,
): Promise<{ readonly old: Fid; readonly fresh: Fid }> {
  const { etag, size, lastModifiedMs } = hsm.container.put('a', 'old content');
  const stub = { path: 'a', kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 5n, size } as const;
  const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n };
  await hsm.store.createStubs([{ ...stub, copy: { blob: 'a', etag, size, lastModifiedMs } }], defaults);
  const old = hsm.store.fidOf('a');
  if (resident) await hsm.coordinator.restore(old);
  await hsm.store.rename('a', 'b');
  return { old, fresh: hsm.store.write('a', 'new content') };
}

await t.test('rule 8: a renamed stub is restored and dirty before its blob is overwritten', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old, fresh } = await rotated(hsm, false);
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
  t.equal(hsm.pool.calls[0], 'download a', 'before any upload');
  t.notOk(hsm.pool.calls.includes('download a', 1));
  t.equal(hsm.store.content('b'), 'old content');
  t.match(await hsm.store.state(old), { flags: 0x0b, modified: true });
  t.equal(hsm.container.text('a'), 'new content');
});

await t.test('rule 8: a clean renamed file becomes dirty before its blob is overwritten', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old, fresh } = await rotated(hsm, true);
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
  t.match(await hsm.store.state(old), { flags: 0x0b, modified: true });
});

await t.test('rule 8: one that is released while it is saved is restored again', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old, fresh } = await rotated(hsm, true);
  let releases = 0;
  hsm.store.before = async (call, fid) => {
    if (call === 'markModified' && releases++ === 0) await hsm.store.release(fid);
  };
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
  t.equal(hsm.store.content('b'), 'old content');
  t.match(await hsm.store.state(old), { flags: 0x0b, modified: true });
});

await t.test('rule 8: nothing is overwritten when the only copy cannot be saved', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old, fresh } = await rotated(hsm, false);
  hsm.pool.gate = (kind) => {
    if (kind === 'download') throw new BlobError('unreachable', 'down');
  };
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'failed' });
  t.equal(hsm.container.text('a'), 'old content');
  t.equal((await hsm.store.state(old)).flags, 0x0d);
  hsm.container.blobs.delete('a');
  t.match(
    await hsm.coordinator.archive(fresh, { path: 'a' }),
    { kind: 'archived' },
    'nothing is left to lose',
  );
  t.equal((await hsm.store.state(old)).flags, 0x0d | HS_LOST, 'and what is there now is not its content');
  hsm.pool.gate = () => undefined;
  await t.rejects(hsm.coordinator.restore(old), { code: 'ENODATA' });
});

await t.test('rule 8: an unlinked file that is still open keeps its data', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old, fresh } = await rotated(hsm, false);
  const node = hsm.store.names.get('b');
  if (node !== undefined) node.readers = 1;
  hsm.store.unlink('b');
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
  t.equal((await hsm.store.state(old)).flags, 0x0b);
});

await t.test(
  'rule 8: a stub that is deleted and still open keeps its data, without any rename',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const { etag, size, lastModifiedMs } = hsm.container.put('a', 'old content');
    const stub = { path: 'a', kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 5n, size } as const;
    const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n };
    await hsm.store.createStubs([{ ...stub, copy: { blob: 'a', etag, size, lastModifiedMs } }], defaults);
    const old = hsm.store.fidOf('a');
    const node = hsm.store.names.get('a');
    if (node !== undefined) node.readers = 1;
    hsm.store.unlink('a');
    const fresh = hsm.store.write('a', 'new content');
    t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
    t.equal(hsm.pool.calls[0], 'download a', 'before any upload');
    t.equal((await hsm.store.state(old)).flags, 0x0b);
  },
);

await t.test('rule 8: a file that took the path of the one being archived is not overwritten', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old, fresh } = await rotated(hsm, false);
  await hsm.store.rename('a', 'c');
  await hsm.store.rename('b', 'a');
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'moved' });
  t.equal(hsm.container.text('a'), 'old content');
  t.match(await hsm.coordinator.archive(fresh, { path: 'c' }), { kind: 'archived' });
  t.equal(hsm.container.text('c'), 'new content');
  await hsm.coordinator.restore(old);
  t.equal(hsm.store.content('a'), 'old content');
});

await t.test('rule 8: a deleted file does not overwrite the one that took its name', async (t) => {
  await using hsm = await MemoryHsm.start();
  const old = hsm.store.write('a', 'old content');
  const node = hsm.store.names.get('a');
  if (node !== undefined) node.readers = 1;
  hsm.store.unlink('a');
  const fresh = hsm.store.write('a', 'new content');
  t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
  t.match(await hsm.coordinator.archive(old, { path: 'a' }), { kind: 'gone' });
  t.equal(hsm.container.text('a'), 'new content');
  t.match(await hsm.store.state(fresh), { flags: 0x09, modified: false });
});

await t.test(
  'rule 8: whoever has the path now keeps its data from every other writer of the blob',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const fresh = hsm.store.write('a', 'new content');
    t.match(await hsm.coordinator.archive(fresh, { path: 'a' }), { kind: 'archived' });
    await hsm.coordinator.withBlob('a', undefined, () => Promise.resolve());
    t.match(await hsm.store.state(fresh), { flags: 0x0b, modified: true });
  },
);

await t.test('rule 8: a file renamed during its first archive is a holder afterwards', async (t) => {
  await using hsm = await MemoryHsm.start();
  const held = gate();
  hsm.pool.gate = (kind, blob) => (blob === 'a' ? held.opened : undefined);
  const old = hsm.store.write('a', 'old content');
  const first = hsm.coordinator.archive(old, { path: 'a' });
  await until(() => hsm.pool.calls.includes('upload a'), { what: 'the upload', intervalMs: 1 });
  await hsm.store.rename('a', 'b');
  t.match(
    await hsm.coordinator.archive(hsm.store.write('z', 'z'), { path: 'z' }),
    { kind: 'archived' },
    'which has indexed the renamed file, without a copy yet',
  );
  held.open();
  t.match(await first, { kind: 'archived' });
  await hsm.coordinator.release(old);
  t.match(await hsm.coordinator.archive(hsm.store.write('a', 'new'), { path: 'a' }), { kind: 'archived' });
  t.equal(hsm.store.content('b'), 'old content');
  t.match(await hsm.store.state(old), { flags: 0x0b, modified: true });
});

await t.test('rule 8: hsm_remove saves the other holders of the blob first', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { old } = await rotated(hsm, false);
  const work = hsm.coordinator.withBlob('a', undefined, () => hsm.container.delete('a'));
  await work;
  t.equal(hsm.store.content('b'), 'old content');
  t.equal((await hsm.store.state(old)).flags, 0x0b);
});

await t.test('the tree is walked once a rename, not once an archive, and never without one', async (t) => {
  await using hsm = await MemoryHsm.start();
  const before = ['p', 'q'].map((path) => hsm.store.write(path, path));
  for (const [at, fid] of before.entries())
    await hsm.coordinator.archive(fid, { path: at === 0 ? 'p' : 'q' });
  t.equal(hsm.store.walks, 0);
  await hsm.store.rename('p', 'p2');
  const fids = ['r', 's', 't'].map((path) => [path, hsm.store.write(path, path)] as const);
  await Promise.all(fids.map(([path, fid]) => hsm.coordinator.archive(fid, { path })));
  t.equal(hsm.store.walks, 1);
  await hsm.store.rename('q', 'q2');
  await hsm.coordinator.archive(hsm.store.write('u', 'u'), { path: 'u' });
  t.equal(hsm.store.walks, 2);
});

await t.test('a file with several names is known to be a holder without another walk', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { store, coordinator, container } = hsm;
  const old = store.write('a', 'old');
  await store.link('a', 'b');
  t.match(await coordinator.archive(old, { path: 'a', links: ['b'] }), {
    kind: 'archived',
    copy: { blob: 'a' },
    blobs: ['a', 'b'],
  });
  t.equal(container.text('b'), 'old');
  const { walks } = store;
  store.unlink('a');
  t.match(await coordinator.archive(store.write('a', 'new'), { path: 'a' }), { kind: 'archived' });
  t.match(await store.state(old), { flags: 0x0b, modified: true });
  t.equal(store.walks, walks);
});

await t.test('two writers of one blob name take turns', async (t) => {
  await using hsm = await MemoryHsm.start();
  const held = gate();
  const order: string[] = [];
  const first = hsm.coordinator.withBlob('a', undefined, async () => {
    order.push('first begins');
    await held.opened;
    order.push('first ends');
  });
  const second = hsm.coordinator.withBlob('a', undefined, () => {
    order.push('second');
    return Promise.resolve();
  });
  const other = hsm.coordinator.withBlob('b', undefined, () => Promise.resolve(order.push('other')));
  await other;
  await until(() => order.length === 2, { what: 'the first', intervalMs: 1 });
  held.open();
  await Promise.all([first, second]);
  t.same(order.slice().sort(), ['first begins', 'first ends', 'other', 'second'].sort());
  t.equal(order.indexOf('second'), 3);
});

await t.test(
  'an archive that is canceled before it claims the name leaves no rejection behind',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const { fresh } = await rotated(hsm, false);
    hsm.pool.gate = (kind) => {
      if (kind === 'download') throw new BlobError('unreachable', 'down');
    };
    const unhandled: unknown[] = [];
    const onUnhandled = (error: unknown): void => {
      unhandled.push(error);
    };
    process.on('unhandledRejection', onUnhandled);
    t.teardown(() => process.off('unhandledRejection', onUnhandled));
    const cancel = new AbortController();
    const lookup = hsm.store.lookup.bind(hsm.store);
    hsm.store.lookup = (paths) => {
      cancel.abort();
      return lookup(paths);
    };
    t.match(await hsm.coordinator.archive(fresh, { path: 'a', signal: cancel.signal }), { kind: 'canceled' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.same(unhandled, []);
  },
);
