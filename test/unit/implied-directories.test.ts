/** Directories that only names of blobs imply, and the auto-import that takes the last of those blobs away. */
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { auto, autoImport, end, synced } from '../helpers/memory-auto-import.js';
import { MemoryJobs, testDefaults } from '../helpers/memory-jobs.js';

const folder = { hdi_isfolder: 'true' };

/** Behind an auto-import of the blobs `names`, whose directories are all implied. */
async function follow(names: readonly string[]): Promise<MemoryJobs> {
  const jobs = await MemoryJobs.start();
  for (const name of names) jobs.hsm.container.put(name, name);
  await autoImport(jobs);
  return jobs;
}

/** Two: the poll that runs may have listed already. */
async function followed(jobs: MemoryJobs): Promise<void> {
  await synced(jobs);
  await synced(jobs);
}

await t.test('implied directories go with the last blob below them, uncounted', async (t) => {
  await using jobs = await follow(['a/b/c/one', 'a/b/two', 'keep/x/y', 'keep/z']);
  const { container, store } = jobs.hsm;
  await container.delete('a/b/c/one');
  await container.delete('keep/x/y');
  await followed(jobs);
  t.same(store.paths(), ['a', 'a/b', 'a/b/two', 'keep', 'keep/z']);
  await container.delete('a/b/two');
  await followed(jobs);
  t.same(store.paths(), ['keep', 'keep/z']);
  t.match(auto(jobs).blobSyncEvents, { deletions: 3, totalErrors: 0 });
  await end(jobs);
});

await t.test('what is no implied directory, or holds anything, stays', async (t) => {
  const dirs = ['holds', 'chmod', 'chown', 'named', 'marked', 'shadows', 'new/in'];
  await using jobs = await follow(dirs.map((dir) => `${dir}/f`));
  const { container, store } = jobs.hsm;
  store.mkdir('holds/mine');
  store.chmod('chmod', 0o700);
  await store.setAttributes('chown', { uid: testDefaults.uid + 1 });
  // With the attributes that it has already.
  container.put('named', '', folder);
  container.put('marked/', '');
  // A conflict, because the directory is there.
  container.put('shadows', 'a file');
  await followed(jobs);
  const fid = store.fidOf('new/in');
  for (const dir of dirs) await container.delete(`${dir}/f`);
  container.put('new/in/g', 'g');
  await followed(jobs);
  const stay = ['chmod', 'chown', 'holds', 'holds/mine', 'marked', 'named', 'new', 'new/in', 'new/in/g'];
  t.same(store.paths(), [...stay, 'shadows']);
  t.equal(store.fidOf('new/in'), fid, 'it has not been made again');
  await end(jobs);
});

await t.test(
  'implied directories go with the directory of a blob, now or when that gets empty',
  async (t) => {
    await using jobs = await follow([]);
    const { container, store } = jobs.hsm;
    for (const name of ['a/named', 'b/named']) container.put(name, '', folder);
    await followed(jobs);
    store.write('b/named/mine', 'x');
    for (const name of ['a/named', 'b/named']) await container.delete(name);
    await followed(jobs);
    t.same(store.paths(), ['b', 'b/named', 'b/named/mine']);
    store.unlink('b/named/mine');
    await followed(jobs);
    t.same(store.paths(), []);
    t.match(auto(jobs).blobSyncEvents, { deletions: 2 });
    await end(jobs);
  },
);

await t.test('an account that does not answer for the name of a directory is waited for', async (t) => {
  await using jobs = await follow(['d/e/f']);
  const { container, store } = jobs.hsm;
  let outages = 2;
  container.before = (call, blob) => {
    if (call === 'properties' && blob === 'd' && outages-- > 0)
      throw new BlobError('unreachable', 'no answer');
  };
  await container.delete('d/e/f');
  await followed(jobs);
  t.ok(outages < 0, 'it was asked again');
  t.same(store.paths(), []);
  t.match(auto(jobs).blobSyncEvents, { deletions: 1 });
  await end(jobs);
});

await t.test('implied directories stay where deletions are off, and on a hierarchical account', async (t) => {
  for (const [hierarchical, enableDeletions, left] of [
    [false, false, ['d', 'd/f']],
    [true, true, ['d']],
  ] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.namespace = { hierarchical, source: 'account' };
    container.put('d/f', 'x');
    await autoImport(jobs, 'Skip', ['/d/f'], enableDeletions);
    await container.delete('d/f');
    await followed(jobs);
    t.same(store.paths(), left);
    await end(jobs);
  }
});
