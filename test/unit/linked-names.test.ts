/** Files with several names, and files that were renamed, when the container changes under one of the names. */
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import type { ImportRequest } from '../../src/jobs/requests.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { auto, autoImport, end, synced } from '../helpers/memory-auto-import.js';
import { until } from '../helpers/poll.js';

/** `one` and `two` of one file, whose record is that of `one`; both are blobs with the content 'v1'. */
async function linked(jobs: MemoryJobs, { released = false } = {}): Promise<void> {
  const { store, coordinator } = jobs.hsm;
  const fid = store.write('one', 'v1');
  await store.link('one', 'two');
  await (
    await jobs.runner.create('export', {})
  ).done;
  if (released) await coordinator.release(fid);
}

async function imported(jobs: MemoryJobs, request: ImportRequest): Promise<void> {
  await (
    await jobs.runner.create('import', { maximumErrors: -1, ...request })
  ).done;
}

async function read(jobs: MemoryJobs, path: string): Promise<string> {
  const { store, coordinator } = jobs.hsm;
  const [state] = await store.lookup([path]);
  if (state === undefined) throw new Error(`no ${path}`);
  if ((state.flags & 4) !== 0) await coordinator.restore(state.fid);
  return store.content(path);
}

await t.test(
  'both blobs of a file are there already, also where its record has no room for an MD5',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    await linked(jobs);
    const node = store.names.get('one');
    if (node?.copy === undefined) throw new Error('no copy');
    const { md5: _, ...bare } = node.copy;
    node.copy = bare;
    const ended = async (): Promise<object> => {
      const job = await jobs.runner.create('import', { conflictResolutionMode: 'Skip', maximumErrors: -1 });
      await job.done;
      return jobs.runner.get(job.record.name).properties.status;
    };
    t.match(await ended(), { state: 'Completed', preexistingFiles: 2, totalConflicts: 0 });
    container.put('one', 'v2');
    t.match(await ended(), { state: 'CompletedPartial', preexistingFiles: 0, totalConflicts: 2 });
  },
);

for (const released of [false, true]) {
  const what = released ? 'released' : 'resident';

  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await t.test(
      `${mode}: one blob of a ${what} file is overwritten, the other name keeps its content`,
      async (t) => {
        await using jobs = await MemoryJobs.start();
        const { container, store } = jobs.hsm;
        await linked(jobs, { released });
        container.put('one', 'version 2');
        await imported(jobs, { conflictResolutionMode: mode });
        // Clean files are not overwritten by an import of this mode: seed 000.
        const kept = mode === 'OverwriteIfDirty' && !released;
        t.equal(await read(jobs, 'one'), kept ? 'v1' : 'version 2');
        t.equal(await read(jobs, 'two'), 'v1');
        await (
          await jobs.runner.create('export', {})
        ).done;
        t.equal(container.get('two').body.toString(), 'v1', 'and so does its blob');
        if (!kept) t.not(store.fidOf('one'), store.fidOf('two'));
      },
    );
  }

  for (const mode of ['Skip', 'Fail', 'OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await t.test(`${mode}: both blobs of a ${what} file are deleted, and so are both names`, async (t) => {
      await using jobs = await MemoryJobs.start();
      const { container, store } = jobs.hsm;
      await linked(jobs, { released });
      await autoImport(jobs, mode);
      await container.delete('one');
      await container.delete('two');
      await synced(jobs);
      await synced(jobs);
      t.same(store.paths(), []);
      await end(jobs);
    });

    await t.test(`${mode}: one blob of a ${what} file is deleted, and only that name`, async (t) => {
      await using jobs = await MemoryJobs.start();
      const { container, store } = jobs.hsm;
      await linked(jobs, { released });
      await autoImport(jobs, mode);
      await container.delete('one');
      await synced(jobs);
      await synced(jobs);
      t.same(store.paths(), ['two']);
      t.equal(await read(jobs, 'two'), 'v1');
      await end(jobs);
    });
  }

  await t.test(`one blob of a ${what} file after the other is deleted`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    await linked(jobs, { released });
    await autoImport(jobs, 'OverwriteIfDirty');
    for (const [name, left] of [
      ['one', ['two']],
      ['two', []],
    ] as const) {
      await container.delete(name);
      await synced(jobs);
      await synced(jobs);
      t.same(store.paths(), left);
    }
    await end(jobs);
  });

  await t.test(
    `auto-import: one blob of a ${what} file is overwritten, the other keeps its content`,
    async (t) => {
      await using jobs = await MemoryJobs.start();
      const { container } = jobs.hsm;
      await linked(jobs, { released });
      await autoImport(jobs, 'OverwriteIfDirty');
      container.put('one', 'version 2');
      await synced(jobs);
      await synced(jobs);
      await end(jobs);
      t.equal(await read(jobs, 'one'), 'version 2');
      t.equal(await read(jobs, 'two'), 'v1');
    },
  );
}

await t.test(
  'a released file all of whose blobs have gone reads nothing of the blob that came instead',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container } = jobs.hsm;
    await linked(jobs, { released: true });
    await container.delete('two');
    container.put('one', 'version 2');
    await imported(jobs, { conflictResolutionMode: 'OverwriteAlways' });
    t.equal(await read(jobs, 'one'), 'version 2');
    await t.rejects(read(jobs, 'two'), { code: 'ENODATA' });
  },
);

await t.test('such a file is lost in the very step that names another blob', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  await linked(jobs, { released: true });
  container.put('two', 'other');
  container.put('one', 'version 2');
  const fid = store.fidOf('two');
  const flags: number[] = [];
  const replaceCopy = store.replaceCopy.bind(store);
  store.replaceCopy = async (...args) => {
    await replaceCopy(...args);
    // What a daemon that dies here leaves.
    if (args[0] === fid) flags.push((await store.state(fid)).flags);
  };
  await imported(jobs, { conflictResolutionMode: 'OverwriteAlways' });
  t.equal(flags[0], 0x4d);
});

await t.test(
  'a third name may keep its record in the blob of the second, which is one more owner of it',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    const fid = store.write('one', 'v1');
    await store.link('one', 'two');
    await store.link('one', 'three');
    await (
      await jobs.runner.create('export', {})
    ).done;
    t.equal((await store.state(fid)).copy?.blob, 'one');
    await jobs.hsm.coordinator.release(fid);
    container.put('one', 'version 2');
    await imported(jobs, { conflictResolutionMode: 'OverwriteAlways' });
    const blob = (await store.state(fid)).copy?.blob ?? '';
    t.ok(['two', 'three'].includes(blob), blob);
    store.unlink(blob);
    store.write(blob, 'somebody else');
    await (
      await jobs.runner.create('export', {})
    ).done;
    t.equal(
      await read(jobs, blob === 'two' ? 'three' : 'two'),
      'v1',
      'saved before its blob was overwritten',
    );
  },
);

await t.test(
  'a renamed file whose former blob is another version now has the only data of its own',
  async (t) => {
    for (const mode of ['Skip', 'Fail', 'OverwriteIfDirty', 'OverwriteAlways'] as const) {
      await using jobs = await MemoryJobs.start();
      const { container, store, coordinator } = jobs.hsm;
      const fid = store.write('old', 'mine');
      await (
        await jobs.runner.create('export', {})
      ).done;
      await store.rename('old', 'new');
      container.put('old', 'theirs');
      await imported(jobs, { conflictResolutionMode: mode });
      await t.rejects(coordinator.release(fid), { code: 'EPERM' }, 'it is not released');
      await (
        await jobs.runner.create('export', {})
      ).done;
      t.equal(container.get('new').body.toString(), 'mine', 'and exported to a blob of its own');
      t.equal(await read(jobs, 'old'), 'theirs');
    }
  },
);

await t.test('a renamed file whose former blob is as it was stays clean', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store } = jobs.hsm;
  const fid = store.write('old', 'mine');
  await (
    await jobs.runner.create('export', {})
  ).done;
  await store.rename('old', 'new');
  await imported(jobs, { conflictResolutionMode: 'Skip' });
  t.equal((await store.state(fid)).modified, false);
});

await t.test('a file in use keeps its record and its blob, whatever an import would do', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  await linked(jobs);
  const close = store.hold('one');
  container.put('one', 'version 2');
  await imported(jobs, { conflictResolutionMode: 'OverwriteAlways' });
  close();
  t.match((await store.lookup(['one']))[0], { modified: false, nlink: 2 });
  await (
    await jobs.runner.create('export', {})
  ).done;
  t.equal(container.text('one'), 'version 2', 'the other client has it');
});

await t.test(
  'a released name gets only the record of a blob with its content, and its own attributes',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    await linked(jobs, { released: true });
    const fid = store.fidOf('two');
    container.put('two', 'other', { permissions: '0777' });
    await autoImport(jobs, 'Skip');
    await store.setAttributes('two', { mode: 0o600 });
    await container.delete('one');
    await synced(jobs);
    await end(jobs);
    t.same(store.paths(), ['two']);
    t.match(await store.state(fid), { mode: 0o600, copy: { blob: 'two' } });
    await t.rejects(read(jobs, 'two'), { code: 'ENODATA' }, 'and not what somebody else wrote');
  },
);

await t.test('data that hsm_set called dirty is modified when its blob is another file’s', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  await linked(jobs);
  const fid = store.fidOf('two');
  await store.changeFlags(fid, 0x02, 0, 0);
  container.put('one', 'version 2');
  await imported(jobs, { conflictResolutionMode: 'OverwriteIfDirty', prefixes: ['/one'] });
  await store.changeFlags(fid, 0, 0x02, 0);
  t.match(await store.state(fid), { modified: true });
});

await t.test('an account that does not answer puts a deletion off', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  await linked(jobs, { released: true });
  await autoImport(jobs, 'Skip');
  let fail = true;
  container.before = (call, blob) => {
    if (call === 'properties' && blob === 'two' && fail) throw new BlobError('unreachable', 'no answer');
  };
  await container.delete('one');
  await until(() => auto(jobs).statusMessage.includes('waits for the container'), {
    what: 'waiting',
    intervalMs: 1,
  });
  t.match(auto(jobs).blobSyncEvents, { totalErrors: 0, deletions: 0 });
  fail = false;
  await until(() => !store.paths().includes('one'), { what: 'the deletion', intervalMs: 1 });
  t.equal(await read(jobs, 'two'), 'v1');
  await end(jobs);
});

for (const mode of ['Skip', 'Fail', 'OverwriteIfDirty', 'OverwriteAlways'] as const) {
  await t.test(`${mode}: both blobs of a file go at once, whichever its record names`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    store.write('one', 'v1');
    await (
      await jobs.runner.create('export', {})
    ).done;
    await store.link('one', 'aaa');
    store.write('one', 'v2');
    await (
      await jobs.runner.create('export', {})
    ).done;
    t.equal((await store.state(store.fidOf('one'))).copy?.blob, 'one');
    await autoImport(jobs, mode);
    await container.delete('one');
    await container.delete('aaa');
    await synced(jobs);
    await synced(jobs);
    t.same(store.paths(), []);
    await end(jobs);
  });
}
