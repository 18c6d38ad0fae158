import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { HS_LOST, HUA_ARCHIVE, HUA_REMOVE, HUA_RESTORE } from '../../src/hsm/flags.js';
import type { AutoExportRecord } from '../../src/jobs/export/auto-export-record.js';
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import { Deletions } from '../../src/jobs/auto-import/deletions.js';
import { stateOf } from '../../src/jobs/job.js';
import { BlobError, FsError } from '../../src/base/errors.js';
import type { Copy, Fid } from '../../src/store/inodes.js';
import { Journal } from '../../src/store/journal.js';
import { root } from '../helpers/callers.js';
import { synced } from '../helpers/memory-auto-import.js';
import { gate } from '../helpers/memory-hsm.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

const { EBUSY } = constants.errno;

const auto = (jobs: MemoryJobs, name: string): AutoImportRecord['properties']['status'] =>
  (jobs.runner.get(name) as AutoImportRecord).properties.status;

const autoImport = async (
  jobs: MemoryJobs,
  options: {
    readonly mode?: 'Skip' | 'OverwriteIfDirty' | 'Fail';
    readonly deletions?: boolean;
    readonly maximumErrors?: number;
  } = {},
): Promise<void> => {
  await jobs.runner.create('auto-import', {
    name: 'auto',
    conflictResolutionMode: options.mode ?? 'Skip',
    enableDeletions: options.deletions ?? true,
    maximumErrors: options.maximumErrors,
    changeSource: 'listing',
    changeSourceReason: 'as asked for',
    pollIntervalMs: 1,
  });
  const isOver = (): boolean => auto(jobs, 'auto').state === 'Failed';
  await until(() => isOver() || auto(jobs, 'auto').scanEndTime !== undefined, {
    what: 'blob sync',
    intervalMs: 1,
  });
};

await t.test(
  'an auto-import brings in what is there, then what changes, and counts them apart',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.put('d/a', 'a');
    container.put('d/b', 'b');
    await autoImport(jobs);
    t.match(auto(jobs, 'auto'), {
      totalBlobsWalked: 2,
      importedFiles: 2,
      blobSyncEvents: { importedFiles: 0 },
    });
    container.put('d/c', 'c');
    await container.delete('d/a');
    await synced(jobs);
    t.same(
      store.paths().filter((path) => path.startsWith('d/')),
      ['d/b', 'd/c'],
    );
    t.match(auto(jobs, 'auto').blobSyncEvents, { importedFiles: 1, totalBlobsImported: 1, deletions: 1 });
    await t.rejects(jobs.runner.create('export', {}), {
      code: 'Conflict',
      message: /'auto' is running; disable it first: lustrite auto-import disable \/mnt\/data auto$/,
    });
    t.match(jobs.hsm.coordinator.status().blocked, /'auto' is enabled/);
    await jobs.runner.cancel('auto');
    t.equal(stateOf(await jobs.runner.wait('auto')), 'Disabled');
    t.equal(jobs.hsm.coordinator.status().blocked, null);
  },
);

await t.test(
  'an auto-import is refused while what changes copies is asked for, and then the other way',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    const fids = ['a', 'b'].map((path) => store.write(path, path));
    await (
      await jobs.runner.create('export', {})
    ).done;
    const ask = (action: number): Promise<number> =>
      coordinator.request({ action, fids, caller: root, archiveId: 0, data: Buffer.alloc(0) });
    const held = gate();
    container.before = (call) => (call === 'delete' ? held.opened : undefined);
    t.equal(await ask(HUA_REMOVE), 0);
    await t.rejects(autoImport(jobs), {
      code: 'Conflict',
      message: /not over: 2;.* lfs hsm_cancel,.* lustrite hsm set-param \/mnt\/data hsm_control=purge$/,
    });
    t.equal(coordinator.status().blocked, null);
    held.open();
    await until(() => coordinator.changing === 0, { what: 'the removes', intervalMs: 1 });

    const [looked, look] = [gate(), gate()];
    store.before = (call) => {
      looked.open();
      return call === 'state' ? look.opened : undefined;
    };
    const asked = ask(HUA_ARCHIVE);
    await looked.opened;
    const created = autoImport(jobs);
    t.equal(await ask(HUA_ARCHIVE), EBUSY, 'from the moment on that it has the slot');
    look.open();
    t.equal(await asked, EBUSY, 'also what was being looked at then');
    await created;
    await jobs.runner[Symbol.asyncDispose]();
    t.equal(await ask(HUA_ARCHIVE), EBUSY, 'it goes on with the next daemon');
    t.equal(coordinator.changing, 0);
  },
);

await t.test('removes that a daemon finds beside an auto-import are held until it is disabled', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  for (const name of ['removed', 'restored']) container.put(name, name);
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await jobs.hsm.coordinator.restore(store.fidOf('removed'));
  await jobs.remount(async () => {
    await using journal = await Journal.open(jobs.hsm.folder, () => undefined);
    const common = { archiveId: 0, uid: 0, at: 0 };
    await journal.add([
      { ...common, action: HUA_REMOVE, fid: store.fidOf('removed') },
      { ...common, action: HUA_RESTORE, fid: store.fidOf('restored') },
    ]);
  });
  const { coordinator } = jobs.hsm;
  await until(() => store.flags('restored') === 0x09, { what: 'the restore', intervalMs: 1 });
  for (let polls = 0; polls < 2; polls++) await synced(jobs);
  t.ok(container.blobs.has('removed'));
  t.equal(store.content('removed'), 'removed');
  t.equal(coordinator.changing, 1, 'nothing is forgotten');
  await jobs.runner.cancel('auto');
  await until(() => coordinator.changing === 0, { what: 'the remove', intervalMs: 1 });
  t.notOk(container.blobs.has('removed'));
  t.equal(store.content('removed'), 'removed');
});

await t.test(
  'removes of copies without a file and an auto-import keep out of each other’s way, too',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    const copyOf = (blob: string): Copy => {
      const { etag, lastModifiedMs, body } = container.get(blob);
      return { blob, etag, size: body.length, lastModifiedMs };
    };
    const gone = (blob: string, fid: string): void =>
      jobs.hsm.coordinator.fileGone(fid as Fid, copyOf(blob), 1);
    for (const name of ['first', 'left', 'later']) container.put(name, name);
    const [deleting, held] = [gate(), gate()];
    container.before = (call) => {
      if (call !== 'delete') return undefined;
      deleting.open();
      return held.opened;
    };
    gone('first', '[0x1:0x2:0x0]');
    await deleting.opened;
    await t.rejects(autoImport(jobs), { code: 'Conflict', message: /not over: 1;/ });
    held.open();
    await until(() => jobs.hsm.coordinator.changing === 0, { what: 'its end', intervalMs: 1 });

    await autoImport(jobs, { mode: 'OverwriteIfDirty' });
    gone('later', '[0x2:0x2:0x0]');
    await until(() => jobs.hsm.coordinator.changing === 1, { what: 'the request', intervalMs: 1 });
    await jobs.remount(async () => {
      await using journal = await Journal.open(jobs.hsm.folder, () => undefined);
      const entry = { action: HUA_REMOVE, fid: '[0x3:0x2:0x0]' as Fid, archiveId: 1, uid: 0, at: 0 };
      await journal.add([{ ...entry, copy: copyOf('left') }]);
    });
    for (let polls = 0; polls < 2; polls++) await synced(jobs);
    t.same([...container.blobs.keys()].sort(), ['later', 'left']);
    t.equal(jobs.hsm.coordinator.changing, 2);
    await jobs.runner.cancel('auto');
    await until(() => jobs.hsm.coordinator.changing === 0, { what: 'the removes', intervalMs: 1 });
    t.equal(container.blobs.size, 0);
    for (const name of ['later', 'left'])
      t.equal(store.content(name), name, 'a file of that name has its data');
  },
);

await t.test('what was deleted before an auto-import began stays', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('old', 'x');
  await (
    await jobs.runner.create('import', {})
  ).done;
  await container.delete('old');
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await synced(jobs);
  t.ok(store.paths().includes('old'));
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
});

await t.test('without deletions a file stays, and data that is only here is never released', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('f', 'x');
  container.put('stub', 'x');
  await autoImport(jobs, { deletions: false });
  await jobs.hsm.coordinator.restore(store.fidOf('f'));
  await container.delete('f');
  await container.delete('stub');
  await synced(jobs);
  const [f, stub] = await store.lookup(['f', 'stub']);
  t.equal((f?.flags ?? 0) & HS_LOST, HS_LOST);
  t.equal((stub?.flags ?? 0) & HS_LOST, 0);
  t.equal(auto(jobs, 'auto').blobSyncEvents.deletions, 0);
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
});

await t.test('a file whose blob is deleted is modified where it stays under another name', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.put('one', 'x');
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await coordinator.restore(store.fidOf('one'));
  await store.link('one', 'two');
  await container.delete('one');
  await synced(jobs);
  t.same(store.paths(), ['two']);
  t.match(await store.state(store.fidOf('two')), { modified: true, flags: 0x0b });
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
});

await t.test('a renamed file whose blob is deleted is modified: its data is only here', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('old-name', 'x');
  await autoImport(jobs);
  await jobs.hsm.coordinator.restore(store.fidOf('old-name'));
  await store.rename('old-name', 'new-name');
  await container.delete('old-name');
  await synced(jobs);
  const [renamed] = await store.lookup(['new-name']);
  t.equal(renamed?.modified, true);
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
});

await t.test(
  'a file that was changed here stays in mode Skip and goes in mode OverwriteIfDirty',
  async (t) => {
    for (const [mode, stays] of [
      ['Skip', true],
      ['OverwriteIfDirty', false],
    ] as const) {
      await using jobs = await MemoryJobs.start();
      const { container, store } = jobs.hsm;
      container.put('f', 'x');
      await autoImport(jobs, { mode });
      await jobs.hsm.coordinator.restore(store.fidOf('f'));
      store.write('f', 'mine');
      await container.delete('f');
      await synced(jobs);
      t.equal(store.paths().includes('f'), stays, mode);
      t.match(auto(jobs, 'auto').blobSyncEvents, { deletions: stays ? 0 : 1, totalConflicts: 1 });
      await jobs.runner.cancel('auto');
      await jobs.runner.wait('auto');
    }
  },
);

await t.test(
  'a deletion that cannot be judged now is an error, is tried again, and keeps no other',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    for (const name of ['a', 'b', 'c']) container.put(name, name);
    await autoImport(jobs);
    const withBlob = coordinator.withBlob.bind(coordinator);
    coordinator.withBlob = (name, owner, work) => {
      if (name === 'b') throw new Error('the disk is tired');
      return withBlob(name, owner, work);
    };
    for (const name of ['a', 'b', 'c']) await container.delete(name);
    await until(() => auto(jobs, 'auto').blobSyncEvents.totalErrors > 0, {
      what: 'the error',
      intervalMs: 1,
    });
    await until(() => store.paths().length === 1, { what: 'the others to go', intervalMs: 1 });
    t.same(store.paths(), ['b']);
    coordinator.withBlob = withBlob;
    await until(() => store.paths().length === 0, { what: 'it to go as well', intervalMs: 1 });
    t.match(auto(jobs, 'auto'), { state: 'InProgress', blobSyncEvents: { deletions: 3 } });
    await jobs.runner.cancel('auto');
    await jobs.runner.wait('auto');
    // The log follows the record.
    await until(() => jobs.lines('auto'), { what: 'the log', intervalMs: 1 });
    t.match(
      jobs.lines('auto').find(({ level }) => level === 'error'),
      { blob: 'b', message: /the disk is tired/ },
    );
  },
);

/** Errors of each phase, and how many the job tolerates -> its state. */
const errorRows: readonly (readonly [
  errors: { readonly scan?: number; readonly sync?: number; readonly deletions?: number },
  maximumErrors: number,
  state: 'InProgress' | 'Failed',
])[] = [
  [{ scan: 1 }, 0, 'Failed'],
  [{ scan: 1 }, 1, 'InProgress'],
  [{ scan: 2 }, 1, 'Failed'],
  [{ sync: 1 }, 0, 'Failed'],
  [{ sync: 1 }, 1, 'InProgress'],
  [{ sync: 2 }, 1, 'Failed'],
  [{ deletions: 1 }, 0, 'Failed'],
  [{ deletions: 1 }, 1, 'InProgress'],
  [{ deletions: 2 }, 1, 'Failed'],
  // Blob sync is one count, and the full sync another.
  [{ sync: 1, deletions: 1 }, 1, 'Failed'],
  [{ scan: 1, sync: 1 }, 1, 'InProgress'],
  [{ scan: 2, sync: 2, deletions: 2 }, -1, 'InProgress'],
];

await t.test('an auto-import ends with one error more in a phase than it tolerates', async (t) => {
  for (const [errors, maximumErrors, state] of errorRows) {
    const title = `${JSON.stringify(errors)}, ${maximumErrors} tolerated`;
    const { scan = 0, sync = 0, deletions = 0 } = errors;
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    for (let n = 0; n < scan; n++) container.put(`scan//${n}`, 'x');
    for (const name of ['good', 'gone0', 'gone1']) container.put(name, 'x');
    store.before = (call) => {
      if (call === 'remove') throw new Error('the disk is tired');
    };
    await autoImport(jobs, { maximumErrors });
    for (let n = 0; n < sync; n++) container.put(`sync//${n}`, 'x');
    for (let n = 0; n < deletions; n++) await container.delete(`gone${n}`);
    for (let polls = 0; polls < 2; polls++) await synced(jobs);
    const isOver = state === 'Failed';
    t.match(
      auto(jobs, 'auto'),
      {
        state,
        statusCode: isOver ? 'TooManyErrors' : undefined,
        statusMessage: isOver ? /(?:scan|sync)\/\/\d|gone\d/ : /^Auto-import: blob sync /,
        totalErrors: scan,
        blobSyncEvents: { totalErrors: sync + deletions },
      },
      title,
    );
    if (!isOver) await jobs.runner.cancel('auto');
    await jobs.runner.wait('auto');
    t.equal(coordinator.status().blocked, null, 'lfs is let');
  }
});

await t.test('lfs is kept out until the record says that an auto-import is over', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, coordinator } = jobs.hsm;
  await autoImport(jobs);
  const log = gate();
  jobs.logs.before = () => log.opened;
  container.before = () => Promise.reject(new BlobError('forbidden', 'no more'));
  await until(() => jobs.logs.calls.length > 0, { what: 'the log on its way', intervalMs: 1 });
  // A daemon that died here would go on with it, and take what has lost its blob.
  t.match(coordinator.status().blocked, /'auto' is enabled/);
  log.open();
  t.equal(stateOf(await jobs.runner.wait('auto')), 'Failed');
  t.equal(coordinator.status().blocked, null);
});

await t.test(
  'an auto-import goes on after a restart and waits for a container that does not answer',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.put('a', 'a');
    await autoImport(jobs);
    await jobs.runner[Symbol.asyncDispose]();
    container.put('b', 'b');
    container.before = (call) =>
      call === 'list' ? Promise.reject(new BlobError('unreachable', 'no answer')) : undefined;
    await jobs.restart();
    await until(() => /waits for the container: no answer/.test(auto(jobs, 'auto').statusMessage), {
      what: 'the message',
      intervalMs: 1,
    });
    container.before = () => undefined;
    await until(() => store.paths().includes('b'), { what: 'the new file', intervalMs: 1 });
    await synced(jobs);
    t.match(auto(jobs, 'auto'), {
      state: 'InProgress',
      importedFiles: 1,
      blobSyncEvents: { importedFiles: 1 },
    });
    container.before = (call) =>
      call === 'list' ? Promise.reject(new BlobError('forbidden', 'the SAS is expired')) : undefined;
    const over = await jobs.runner.wait('auto');
    t.match(over.properties.status, {
      state: 'Failed',
      statusMessage: /could not be read: the SAS is expired/,
    });
  },
);

await t.test(
  'an auto-export exports in every iteration what is new, and is disabled after one',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    store.write('a', 'a');
    await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
    await until(() => container.text('a') === 'a', { what: 'the first file', intervalMs: 1 });
    store.write('b', 'b');
    await until(() => container.text('b') === 'b', { what: 'the second file', intervalMs: 1 });
    await jobs.runner.cancel('out');
    const over = (await jobs.runner.wait('out')) as AutoExportRecord;
    const { exportIterationCount } = over.properties.status;
    t.match(over.properties, {
      adminStatus: 'Disable',
      status: { state: 'Disabled', totalFilesExported: 2 },
    });
    t.ok(exportIterationCount >= 2);
  },
);

const autoExport = (jobs: MemoryJobs): AutoExportRecord['properties']['status'] =>
  (jobs.runner.get('out') as AutoExportRecord).properties.status;

/** Lets the iteration that runs and a whole one behind it end. */
const iterated = async (jobs: MemoryJobs): Promise<void> => {
  const wanted = autoExport(jobs).exportIterationCount + 2;
  await until(() => autoExport(jobs).exportIterationCount >= wanted, {
    what: 'two iterations',
    intervalMs: 1,
  });
};

await t.test(
  'an auto-export exports new and changed directories, and an idle iteration asks nothing',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    const stub = { hdi_isfolder: 'true' };
    container.put('implied/file', 'x');
    container.put('there', 'x');
    container.put('theirs', '', { ...stub, by: 'blobfuse2' });
    container.put('chmodded', '', { ...stub, owner: '10', group: '20', permissions: '0700' });
    await (
      await jobs.runner.create('import', {})
    ).done;
    store.mkdir('empty/within', { mode: 0o711 });
    store.mkdir('bad.');
    store.mkdir('pipes');
    store.special('pipes/pipe');
    await store.setAttributes('chmodded', { mode: 0o755 });
    await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
    await iterated(jobs);
    t.match(container.metadata('empty/within'), { ...stub, permissions: '0711' });
    t.match(container.metadata('empty'), stub);
    t.match(container.metadata('pipes'), stub, 'what is in it goes nowhere');
    t.match(container.metadata('chmodded'), { permissions: '0755' });
    t.equal(container.metadata('theirs')?.['owner'], undefined, 'as it was imported');
    t.notOk(container.blobs.has('implied'), 'nobody asked for it');
    t.match(autoExport(jobs), {
      state: 'InProgress',
      currentIterationFilesFailed: 1,
      statusMessage: /bad\./,
    });

    container.calls.length = 0;
    await iterated(jobs);
    t.same(container.calls, [], 'idle');
    store.mkdir('later');
    store.mkdir('filled');
    await store.rename('there', 'filled/there');
    await store.setAttributes('implied', { uid: 5 });
    await store.rename('empty', 'moved');
    await iterated(jobs);
    t.match(container.metadata('later'), stub);
    t.match(container.metadata('filled'), stub, 'of a file that is renamed into it nothing is exported');
    t.match(container.metadata('implied'), { ...stub, owner: '5' });
    t.notOk(container.blobs.has('moved'), 'renames are not exported');
    await store.rename('moved', 'empty');

    container.before = (call, blob) => {
      if (call === 'write' && blob === 'later') throw new BlobError('forbidden', 'no');
    };
    await store.setAttributes('later', { gid: 6 });
    await iterated(jobs);
    t.match(autoExport(jobs), { state: 'InProgress', currentIterationFilesFailed: 2 });
    container.before = () => undefined;
    await iterated(jobs);
    t.match(container.metadata('later'), { group: '6' });
    t.match(autoExport(jobs), { state: 'InProgress', currentIterationFilesFailed: 1 });

    await jobs.runner[Symbol.asyncDispose]();
    container.calls.length = 0;
    await jobs.restart();
    await iterated(jobs);
    t.same(
      container.calls.filter((call) => call.startsWith('write')),
      [],
      'a restart looks again, and writes nothing',
    );
    await jobs.runner.cancel('out');
    t.equal(stateOf(await jobs.runner.wait('out')), 'DisableFailed');
    await until(() => jobs.lines('out'), { what: 'the log', intervalMs: 1 });
    t.equal(jobs.lines('out').filter(({ path }) => path === 'bad.').length, 2, 'said once a daemon');
  },
);

await t.test(
  'a deletion that comes again after a crash spares what was made under the name since',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { store, coordinator, container } = jobs.hsm;
    const counters = { deletions: 0, totalConflicts: 0 };
    const deletions = new Deletions({
      native: store,
      container,
      coordinator,
      signal: new AbortController().signal,
      mode: 'OverwriteIfDirty',
      enableDeletions: true,
      counters,
      log: { add: () => undefined, written: () => Promise.resolve() },
      later: { add: () => undefined, said: () => false },
      onLeft: () => undefined,
      onError: (_, error) => {
        throw error;
      },
    });
    const [planned, gone, others] = ['planned', 'gone', 'others'].map((path) => store.write(path, path));
    if (planned === undefined || gone === undefined || others === undefined) throw new Error('no files');
    await store.remove('gone', gone);
    await store.remove('others', others);
    store.write('others', 'made since');
    const plan = await deletions.plan(['planned', 'gone', 'others'], { planned, gone, others });
    t.same(
      plan.map(({ path }) => path),
      ['planned'],
    );
    await deletions.run(plan);
    t.same(store.paths(), ['others']);
    t.equal(counters.deletions, 3, 'each was deleted once');
  },
);

await t.test('what is in use shows its new version, or goes, when it is no more', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('changed', 'old');
  container.put('deleted', 'old');
  await (
    await jobs.runner.create('import', {})
  ).done;
  for (const path of ['changed', 'deleted']) await jobs.hsm.coordinator.restore(store.fidOf(path));
  const close = ['changed', 'deleted'].map((path) => store.hold(path));
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await synced(jobs);
  container.put('changed', 'newer');
  await container.delete('deleted');
  await synced(jobs);
  const { lastTimeFullySynchronized: before } = auto(jobs, 'auto').blobSyncEvents;
  for (let polls = 0; polls < 2; polls++) await synced(jobs);
  t.equal(store.content('changed'), 'old', 'not under a reader');
  t.match(auto(jobs, 'auto'), {
    statusMessage: /changes that wait for files in use: 1, tried last at \S+Z$/,
    blobSyncEvents: { lastTimeFullySynchronized: before },
  });
  t.match(auto(jobs, 'auto').blobSyncEvents, { totalConflicts: 0, totalErrors: 0 });
  for (const done of close) done();
  await synced(jobs);
  await synced(jobs);
  await jobs.hsm.coordinator.restore(store.fidOf('changed'));
  t.equal(store.content('changed'), 'newer');
  t.same(store.paths(), ['changed']);
  t.ok((auto(jobs, 'auto').blobSyncEvents.lastTimeFullySynchronized ?? '') > (before ?? ''));
  t.notMatch(auto(jobs, 'auto').statusMessage, /in use/);
  t.match(auto(jobs, 'auto').blobSyncEvents, { importedFiles: 1, deletions: 1, totalErrors: 0 });
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
  // The log follows the record.
  await until(() => jobs.lines('auto'), { what: 'the log', intervalMs: 1 });
  t.equal(jobs.lines('auto').filter(({ code }) => code === 'Busy').length, 1, 'said once');
});

await t.test('a directory goes with the last of what was in it, whichever was deleted first', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  const stub = { hdi_isfolder: 'true' };
  for (const path of ['gone', 'gone/below', 'back', 'kept']) container.put(path, '', stub);
  for (const path of ['gone/below/file', 'back/file', 'kept/file']) container.put(path, 'x');
  await autoImport(jobs);
  store.write('kept/mine', 'mine');
  for (const path of ['gone/below', 'gone', 'back', 'kept']) await container.delete(path);
  await synced(jobs);
  t.equal(auto(jobs, 'auto').blobSyncEvents.deletions, 0, 'something is in each');
  container.put('back', '', stub);
  await synced(jobs);
  for (const path of ['gone/below/file', 'back/file', 'kept/file']) await container.delete(path);
  await synced(jobs);
  t.same(store.paths(), ['back', 'kept', 'kept/mine']);
  t.equal(auto(jobs, 'auto').blobSyncEvents.deletions, 5);
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
});

await t.test(
  'what is below a directory that has no blob is written once, and again when it has one',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, pool } = jobs.hsm;
    const links = (): number =>
      container.calls.filter((call) => call === 'read d/l' || call === 'write d/l').length;
    store.mkdir('d', { uid: 7 });
    store.write('d/f', 'v1');
    store.symlink('d/l', 'f');
    container.before = (call, blob) => {
      if (call === 'write' && blob === 'd') throw new BlobError('forbidden', '403');
    };
    await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
    await iterated(jobs);
    await iterated(jobs);
    t.same([pool.calls.length, links()], [1, 1]);
    t.match(autoExport(jobs), {
      currentIterationFilesFailed: 1,
      currentIterationFilesExported: 0,
      lastSuccessfulIterationCompletionTimeUTC: undefined,
      statusMessage: /: d: .*403/,
    });
    store.write('d/f', 'v2');
    await iterated(jobs);
    await iterated(jobs);
    t.equal(container.text('d/f'), 'v2', 'what has changed does not wait');
    t.equal(pool.calls.length, 2);
    container.before = () => undefined;
    await iterated(jobs);
    t.match(container.metadata('d'), { owner: '7' });
    t.same([store.flags('d/f'), autoExport(jobs).totalFilesFailed], [0x09, 0]);
    t.ok((await store.lookup(['d/l']))[0]?.copy);
    await jobs.runner.cancel('out');
    t.equal(stateOf(await jobs.runner.wait('out')), 'Disabled');
  },
);

await t.test(
  'an auto-export that leaves out a name says so at each iteration, and writes the others once',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { store, pool } = jobs.hsm;
    store.write('a', 'x');
    await store.link('a', 'b\\');
    await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
    await iterated(jobs);
    await iterated(jobs);
    t.same(pool.calls, ['upload a']);
    t.match(autoExport(jobs), { currentIterationFilesFailed: 1, statusMessage: /b\\/ });
    await jobs.runner.cancel('out');
    t.equal(stateOf(await jobs.runner.wait('out')), 'DisableFailed');
  },
);

await t.test('an auto-export writes each name of a symlink, also one that it gets later', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  store.symlink('l', 'target');
  await store.link('l', 'm');
  container.before = (call, blob) => {
    if (call === 'write' && blob === 'm') throw new BlobError('throttled', '503');
  };
  await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
  await iterated(jobs);
  t.same([container.text('l'), container.text('m')], ['target', undefined]);
  t.match(autoExport(jobs), { currentIterationFilesFailed: 1 });
  container.before = () => undefined;
  await iterated(jobs);
  t.equal(container.text('m'), 'target', 'tried again');
  await store.link('l', 'n');
  await iterated(jobs);
  t.equal(container.text('n'), 'target', 'as new as it is');
  container.calls.length = 0;
  await iterated(jobs);
  t.same(container.calls, []);
  await jobs.runner.cancel('out');
  await jobs.runner.wait('out');
});

await t.test('a file that has names outside an auto-export is not written again and again', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, pool } = jobs.hsm;
  store.write('in/one', 'v1');
  await store.link('in/one', 'outside');
  await jobs.runner.create('auto-export', { name: 'out', prefixes: ['/in'], pollIntervalMs: 1 });
  await iterated(jobs);
  await iterated(jobs);
  t.equal(pool.calls.length, 1, 'once');
  t.equal(container.text('outside'), undefined);
  store.write('in/one', 'version 2');
  await iterated(jobs);
  t.equal(container.text('in/one'), 'version 2', 'but when it has changed');
  await store.link('in/one', 'in/two');
  await iterated(jobs);
  t.equal(container.text('in/two'), 'version 2', 'and when it has got a name');
  await jobs.runner.cancel('out');
  await jobs.runner.wait('out');
});

await t.test(
  'a file whose first name is no text is written again when it has changed, and only then',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, pool } = jobs.hsm;
    store.write('b', 'v1');
    store.linkRaw('b', Buffer.from([0x61, 0xff]));
    await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
    await iterated(jobs);
    await iterated(jobs);
    t.equal(container.text('b'), 'v1', 'under the name that a blob can have');
    t.equal(pool.calls.length, 1, 'once, though it stays dirty');
    store.write('b', 'version 2');
    await iterated(jobs);
    await iterated(jobs);
    t.equal(container.text('b'), 'version 2');
    t.equal(pool.calls.length, 2);
    t.same([...container.blobs.keys()], ['b'], 'and under no other');
    await jobs.runner.cancel('out');
    await jobs.runner.wait('out');
    t.match(autoExport(jobs), { state: 'DisableFailed' }, 'the other name has no blob');
  },
);

for (const kind of ['auto-import', 'auto-export'] as const) {
  await t.test(`what an ${kind} cannot do is in the logging container while it runs`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, clock } = jobs.hsm;
    if (kind === 'auto-import') {
      container.put('a//b', 'x');
      await autoImport(jobs);
    } else {
      store.write('a\\b', 'x');
      await jobs.runner.create('auto-export', { name: 'auto', pollIntervalMs: 1 });
    }
    const [name] = await until(
      () => {
        clock.ms += 60_000;
        return [...jobs.logs.logs].find(([, text]) => text.includes('InvalidName'));
      },
      { what: 'the log', intervalMs: 1 },
    );
    t.match(name, new RegExp(`^fs/${kind}/auto/.*\\.jsonl$`));
    t.equal(stateOf(jobs.runner.get('auto')), 'InProgress');
    await jobs.runner.cancel('auto');
    await jobs.runner.wait('auto');
  });
}

await t.test('a daemon that stops does not wait for the last iteration of an auto-export', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  store.symlink('l', 'target');
  container.before = (call) => (call === 'write' ? new Promise<void>(() => undefined) : undefined);
  await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
  await until(() => container.calls.includes('write l'), { what: 'the upload', intervalMs: 1 });
  await jobs.runner.cancel('out');
  t.equal(stateOf(jobs.runner.get('out')), 'Disabling');
  await jobs.runner[Symbol.asyncDispose]();
  container.before = () => undefined;
  await jobs.restart();
  t.match(autoExport(jobs), { state: 'DisableFailed', statusCode: 'Interrupted' }, 'the link is not there');
});

await t.test('an auto-export counts MiB over all its iterations, not in each', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store } = jobs.hsm;
  const status = (): AutoExportRecord['properties']['status'] =>
    (jobs.runner.get('out') as AutoExportRecord).properties.status;
  await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs: 1 });
  for (let n = 1; n <= 4; n++) {
    store.write(`f${n}`, 'x'.repeat(900 * 1024));
    await until(() => status().totalFilesExported === n, { what: 'the export', intervalMs: 1 });
  }
  await jobs.runner.cancel('out');
  await jobs.runner.wait('out');
  t.match(status(), { totalFilesExported: 4, totalMiBExported: 3 });
});

await t.test('what a deletion takes is in the log once, and changes that go with it are said', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  for (const name of ['clean', 'changed']) container.put(name, 'x');
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await coordinator.restore(store.fidOf('changed'));
  store.write('changed', 'mine');
  const close = [store.hold('clean'), store.hold('changed')];
  store.before = (call) => {
    if (call === 'remove' && close.length > 0) throw new FsError('EBUSY', 'open');
  };
  for (const name of ['clean', 'changed']) await container.delete(name);
  for (let polls = 0; polls < 3; polls++) await synced(jobs);
  t.match(auto(jobs, 'auto').blobSyncEvents, { deletions: 0, totalConflicts: 0 });
  for (const end of close.splice(0)) end();
  await synced(jobs);
  await synced(jobs);
  t.match(auto(jobs, 'auto').blobSyncEvents, { deletions: 2, totalConflicts: 1 });
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
  const log = await readFile(join(jobs.folder, 'jobs/auto/log.jsonl'), 'utf8');
  const lines = log.split('\n').filter((text) => text.includes('"Delete"'));
  t.match(
    lines.sort().map((text) => text.replace(/^.*"level"/, '"level"')),
    [/info.*"clean".*its blob is gone"/, /warn.*"changed".*new or changed here goes with it/],
  );
  t.equal(lines.length, 2);
});

await t.test('what waited for something else is in the log before it is deleted', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.put('f', 'one');
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await coordinator.restore(store.fidOf('f'));
  const close = store.hold('f');
  container.put('f', 'of another client');
  await synced(jobs);
  await synced(jobs);
  store.write('f', 'mine');
  await container.delete('f');
  close();
  await synced(jobs);
  await synced(jobs);
  t.same(store.paths(), []);
  const log = await readFile(join(jobs.folder, 'jobs/auto/log.jsonl'), 'utf8');
  t.match(log, /"warn".*"f".*"Delete".*new or changed here goes with it/);
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
});

await t.test('what is deleted again for the same reason is in the log again', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.put('f', 'one');
  store.write('f', 'mine');
  await autoImport(jobs, { mode: 'OverwriteIfDirty' });
  await coordinator.restore(store.fidOf('f'));
  store.write('f', 'mine again');
  container.put('f', 'version two');
  await synced(jobs);
  await synced(jobs);
  t.equal((await store.lookup(['f']))[0]?.size, 11);
  await jobs.runner.cancel('auto');
  await jobs.runner.wait('auto');
  const log = await readFile(join(jobs.folder, 'jobs/auto/log.jsonl'), 'utf8');
  t.equal(log.match(/"Delete"/g)?.length, 2);
});
