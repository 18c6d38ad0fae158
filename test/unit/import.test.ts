import { constants } from 'node:os';
import t from 'tap';
import { BlobError, FsError } from '../../src/base/errors.js';
import type { ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import type { ImportStatus } from '../../src/jobs/import/import-record.js';
import type { ImportRequest } from '../../src/jobs/requests.js';
import { gate } from '../helpers/memory-hsm.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

/** Runs an import to its end. */
async function run(jobs: MemoryJobs, request: ImportRequest = {}): Promise<ImportStatus> {
  const job = await jobs.runner.create('import', {
    conflictResolutionMode: 'Skip',
    maximumErrors: -1,
    ...request,
  });
  const record = await job.done;
  if (record.kind !== 'import') throw new Error('not an import');
  return record.properties.status;
}

await t.test(
  'an import makes files, implied and explicit directories and symlinks, and counts what a blob names',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.pageSize = 2;
    container.put('plain', 'abc');
    container.put('dir', '', {
      hdi_isfolder: 'true',
      owner: '7',
      group: '8',
      permissions: '0700',
      modtime: '5000000000',
    });
    container.put('dir/file', 'data', {
      owner: '1',
      group: '2',
      permissions: '0604',
      modtime: '2020-01-01 00:00:00 +0000',
    });
    container.put('dir/link', '../plain', { is_symlink: 'true', owner: '3', group: '4' });
    container.put('implied/deep/file', '');
    container.put('marked/', '');
    container.put('unicode/ä ö', 'x');
    t.match(await run(jobs), {
      state: 'Completed',
      statusMessage: 'Import job completed successfully',
      totalBlobsWalked: 7,
      totalBlobsImported: 7,
      importedFiles: 4,
      importedDirectories: 2,
      importedSymlinks: 1,
      totalErrors: 0,
      totalConflicts: 0,
    });
    t.same(store.paths(), [
      'dir',
      'dir/file',
      'dir/link',
      'implied',
      'implied/deep',
      'implied/deep/file',
      'marked',
      'plain',
      'unicode',
      'unicode/ä ö',
    ]);
    const state = async (path: string) => (await store.lookup([path]))[0];
    const blob = container.blobs.get('plain');
    t.match(await state('plain'), {
      flags: 0x0d,
      size: 3,
      mode: 0o640,
      uid: 10,
      gid: 20,
      mtimeNs: BigInt(blob?.lastModifiedMs ?? 0) * 1_000_000n,
      copy: { blob: 'plain', etag: blob?.etag },
    });
    t.match(await state('dir'), { mode: 0o700, uid: 7, gid: 8, mtimeNs: 5_000_000_000n });
    t.match(await state('dir/file'), { mode: 0o604, uid: 1, gid: 2, mtimeNs: 1_577_836_800_000_000_000n });
    t.match(await state('dir/link'), { type: 'symlink', uid: 3, gid: 4 });
    t.equal(String(await store.readlink(store.fidOf('dir/link'))), '../plain');
    t.match(await state('implied/deep'), { type: 'directory', mode: 0o750, uid: 10, gid: 20 });
    t.same(
      container.calls.filter((call) => !call.startsWith('list')),
      ['read dir/link'],
      'nothing but the target of a symlink was read',
    );
  },
);

await t.test('only blobs under the prefixes are imported', async (t) => {
  await using jobs = await MemoryJobs.start();
  for (const name of ['a/1', 'a/2', 'ab', 'b/1', 'c']) jobs.hsm.container.put(name);
  t.match(await run(jobs, { prefixes: ['/a', 'b/'] }), { totalBlobsWalked: 4, importedFiles: 4 });
  t.same(jobs.hsm.store.paths(), ['a', 'a/1', 'a/2', 'ab', 'b', 'b/1']);
  t.same((jobs.runner.list()[0]?.properties as { importPrefixes: unknown }).importPrefixes, ['/a', 'b/']);
  t.match(await run(jobs, { prefixes: ['nothing'] }), { state: 'Completed', totalBlobsWalked: 0 });
});

await t.test(
  'names that no path can be, and symlinks without a target, are errors with their blob in the log',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container } = jobs.hsm;
    const names = ['/a', 'a//b', 'a/../b', './c', 'x'.repeat(256), 'e\0f'];
    for (const name of names) container.put(name, 'x');
    container.put('full/', 'not empty');
    container.put('long', 'x'.repeat(5000), { is_symlink: 'true' });
    container.put('none', '', { ftype: 'LNK' });
    container.put('nul', 'a\0b', { is_symlink: 'true' });
    container.put('unreadable', 'x', { is_symlink: 'true' });
    container.put('good', 'x');
    container.before = (call, blob) => {
      if (call === 'read' && blob === 'unreadable') throw new BlobError('forbidden', 'no');
    };
    const status = await run(jobs, { name: 'odd-names' });
    t.match(status, { state: 'CompletedPartial', totalErrors: 11, importedFiles: 1, totalConflicts: 0 });
    t.same(jobs.hsm.store.paths(), ['good']);
    const lines = jobs.lines('odd-names').filter(({ level }) => level === 'error');
    t.equal(lines.length, 11);
    t.same(new Set(lines.map(({ code }) => code)), new Set(['InvalidName', 'InvalidSymlink', 'forbidden']));
    for (const name of names)
      t.ok(
        lines.some(({ blob }) => blob === name),
        name,
      );
  },
);

await t.test('the job fails when there are more errors than it tolerates', async (t) => {
  const rows: readonly (readonly [number, number, string])[] = [
    [0, 1, 'Failed'],
    [1, 1, 'CompletedPartial'],
    [1, 2, 'Failed'],
    [-1, 5, 'CompletedPartial'],
    [0, 0, 'Completed'],
  ];
  for (const [maximumErrors, errors, state] of rows) {
    await using jobs = await MemoryJobs.start();
    for (let n = 0; n < errors; n++) jobs.hsm.container.put(`bad//${n}`, 'x');
    jobs.hsm.container.put('good');
    const status = await run(jobs, { maximumErrors, name: 'errors' });
    t.equal(status.state, state, `${errors} of ${maximumErrors}`);
    if (state === 'Failed') t.match(status.statusMessage, /^the blob 'bad\/\/\d' could not be imported: /);
    t.match(jobs.lines('errors').at(-1), { code: state }, 'the log is there, whatever came of the job');
  }
});

await t.test(
  'where a name is a file and a directory, the directory wins and the blob is the conflict',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.pageSize = 1;
    for (const name of ['a', 'a-b', 'a/x', 'a/y', 'l/x', 'm']) container.put(name, name);
    container.put('l', 'm', { is_symlink: 'true' });
    container.put('m/', '');
    const status = await run(jobs, { name: 'clash' });
    t.match(status, { state: 'CompletedPartial', totalConflicts: 3, totalErrors: 0 });
    t.match(status, { importedFiles: 4, importedSymlinks: 0, importedDirectories: 1, totalBlobsImported: 5 });
    t.same(store.paths(), ['a', 'a-b', 'a/x', 'a/y', 'l', 'l/x', 'm']);
    t.equal((await store.lookup(['m']))[0]?.type, 'directory');
    const conflicts = jobs.lines('clash').filter(({ code }) => code === 'Conflict');
    t.same(conflicts.map(({ blob }) => blob).sort(), ['a', 'l', 'm']);
  },
);

await t.test(
  'a clash in one page is resolved, too, and fails an import that fails on conflicts',
  async (t) => {
    const rows = { Fail: ['Failed', 'a'], Skip: ['CompletedPartial', 'a', 'a/x'] } as const;
    for (const [mode, [state, ...paths]] of Object.entries(rows)) {
      await using jobs = await MemoryJobs.start();
      for (const name of ['a', 'a/x']) jobs.hsm.container.put(name, name);
      const status = await run(jobs, { conflictResolutionMode: mode as ConflictMode });
      t.match(status, { state, totalConflicts: 1 }, mode);
      t.same(
        jobs.hsm.store.paths().filter((path) => !path.startsWith('IMPORT')),
        paths,
      );
    }
  },
);

await t.test('directories win against files on every level of a name', async (t) => {
  await using jobs = await MemoryJobs.start();
  for (const name of ['a', 'a/b', 'a/b/c', 'a/b/c/d']) jobs.hsm.container.put(name, name);
  t.match(await run(jobs), { state: 'CompletedPartial', totalConflicts: 3, importedFiles: 1 });
  t.same(jobs.hsm.store.paths(), ['a', 'a/b', 'a/b/c', 'a/b/c/d']);
});

await t.test(
  'a file that was there before an import makes way for a directory only where the mode overwrites',
  async (t) => {
    const left = ['Failed', 'there', 1] as const;
    const skipped = ['CompletedPartial', 'there', 1] as const;
    const directory = ['CompletedPartial', 'directory', 0] as const;
    const rows = { Fail: left, Skip: skipped, OverwriteIfDirty: directory, OverwriteAlways: directory };
    for (const [mode, [state, found, preexistingFiles]] of Object.entries(rows)) {
      for (const child of ['a/', 'a/x', 'a/b/x']) {
        await using jobs = await MemoryJobs.start();
        const { container, store } = jobs.hsm;
        container.put('a', 'a');
        await run(jobs);
        const fid = store.fidOf('a');
        container.put(child, '');
        const status = await run(jobs, { name: 'second', conflictResolutionMode: mode as ConflictMode });
        t.match(status, { state, preexistingFiles, totalConflicts: 1, totalErrors: 0 }, `${mode} ${child}`);
        const [now] = await store.lookup(['a']);
        t.equal(now?.fid === fid ? 'there' : now?.type, found, `${mode} ${child}`);
      }
    }
  },
);

await t.test('a file of an import that was interrupted is its own when it goes on', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.pageSize = 1;
  for (const name of ['a', 'a/x']) container.put(name, name);
  let pages = 0;
  container.before = () => (++pages > 1 ? new Promise(() => undefined) : undefined);
  await jobs.runner.create('import', { name: 'resumed', conflictResolutionMode: 'Skip', maximumErrors: -1 });
  await until(() => store.paths().includes('a'), { what: 'the file', intervalMs: 1 });
  await jobs.runner[Symbol.asyncDispose]();
  container.before = () => undefined;
  await jobs.restart();
  const { status } = (await jobs.runner.wait('resumed')).properties;
  t.match(status, { state: 'CompletedPartial', importedFiles: 1, preexistingFiles: 0, totalConflicts: 1 });
  t.same(store.paths(), ['a', 'a/x']);
});

await t.test(
  'an import leaves what is there alone: the same is preexisting, the rest a conflict',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    container.put('dir', '', { hdi_isfolder: 'true' });
    for (const name of ['same', 'restored', 'dirty', 'replaced', 'chmodded'])
      container.put(`dir/${name}`, name);
    container.put('link', 'dir', { is_symlink: 'true' });
    t.match(await run(jobs), { state: 'Completed', importedFiles: 5 });
    for (const name of ['restored', 'dirty']) await coordinator.restore(store.fidOf(`dir/${name}`));
    store.write('dir/dirty', 'ours');
    container.put('dir/replaced', 'theirs');
    await store.setAttributes('dir/chmodded', { mode: 0o600 });
    store.write('dir/new', 'ours');
    container.put('dir/new', 'theirs');
    await store.setAttributes('dir', { mtimeNs: 99n });
    t.match(await run(jobs, { name: 'second' }), {
      state: 'CompletedPartial',
      totalBlobsWalked: 8,
      totalBlobsImported: 0,
      preexistingFiles: 2,
      preexistingDirectories: 1,
      preexistingSymlinks: 1,
      totalConflicts: 4,
      totalErrors: 0,
    });
    t.equal(store.content('dir/dirty'), 'ours');
    t.equal(store.content('dir/new'), 'ours');
    t.equal((await store.lookup(['dir/chmodded']))[0]?.mode, 0o600);
    t.equal((await store.lookup(['dir']))[0]?.mtimeNs, 99n);
    const paths = jobs.lines('second').filter(({ code }) => code === 'Conflict');
    t.same(paths.map(({ path }) => path).sort(), ['dir/chmodded', 'dir/dirty', 'dir/new', 'dir/replaced']);
    const failed = await run(jobs, { conflictResolutionMode: 'Fail' });
    t.equal(failed.state, 'Failed');
    t.match(failed.statusMessage, /^the blob 'dir\/chmodded' is in conflict: /);
  },
);

await t.test('each cell of the conflict table is done, counted and logged', async (t) => {
  type Cell = readonly [
    left: string,
    imported: 0 | 1,
    conflicts: 0 | 1,
    state?: 'CompletedPartial' | 'Failed',
  ];
  const mine = ['mine', 0, 1, 'CompletedPartial'] as const;
  const none = ['stub', 0, 0] as const;
  const gone = ['stub', 1, 1] as const;
  /** What is there -> what is left under Skip, OverwriteIfDirty and OverwriteAlways. Fail is Skip that ends. */
  const cells: Readonly<Record<string, readonly [Cell, Cell, Cell]>> = {
    'same': [none, none, none],
    'same-resident': [['theirs', 0, 0], ['theirs', 0, 0], ['stub', 0, 1]],
    'other-type': [['directory', 0, 1, 'CompletedPartial'], gone, gone],
    'dirty': [mine, gone, gone],
    'new': [mine, gone, gone],
    'clean': [['theirs', 0, 1, 'CompletedPartial'], ['theirs', 1, 1], gone],
    'never-release': [
      ['theirs', 0, 1, 'CompletedPartial'],
      ['theirs', 1, 1],
      ['theirs', 0, 1, 'CompletedPartial'],
    ],
    'released': [['stub', 0, 1, 'CompletedPartial'], gone, gone],
  }; // prettier-ignore
  for (const [situation, row] of Object.entries(cells)) {
    for (const [at, mode] of (['Skip', 'OverwriteIfDirty', 'OverwriteAlways', 'Fail'] as const).entries()) {
      const [left, imported, conflicts, state = 'Completed'] = mode === 'Fail' ? row[0] : (row[at] ?? row[0]);
      const what = `${situation} ${mode}`;
      await using jobs = await MemoryJobs.start();
      const { container, store, coordinator } = jobs.hsm;
      container.put('f', 'theirs');
      if (situation === 'other-type') store.mkdir('f');
      else if (situation === 'new') store.write('f', 'mine');
      else await run(jobs);
      const fid = store.fidOf('f');
      if (!['other-type', 'new', 'same', 'released'].includes(situation)) await coordinator.restore(fid);
      if (situation === 'dirty') store.write('f', 'mine');
      if (situation === 'never-release') await store.changeFlags(fid, 0x10, 0, 0);
      if (['clean', 'never-release', 'released'].includes(situation)) container.put('f', 'theirs, newer');
      const status = await run(jobs, { name: 'second', conflictResolutionMode: mode });
      const failed = mode === 'Fail' && conflicts === 1;
      t.match(
        status,
        {
          state: failed ? 'Failed' : state,
          totalBlobsWalked: 1,
          totalBlobsImported: imported,
          importedFiles: imported,
          preexistingFiles: state === 'Completed' && imported === 0 ? 1 : 0,
          totalConflicts: conflicts,
          totalErrors: 0,
        },
        what,
      );
      const [now] = await store.lookup(['f']);
      const found = now?.type !== 'file' ? now?.type : (now.flags & 0x04) !== 0 ? 'stub' : store.content('f');
      t.equal(found, left, what);
      const lines = jobs.lines('second').filter(({ code }) => code === 'Conflict');
      t.equal(lines.filter(({ path }) => path === 'f').length, conflicts, `${what}: logged`);
    }
  }
});

await t.test('an import that fails at a conflict counts what it has made', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  for (const name of ['a', 'b', 'c', 'd/', 'd/e']) container.put(name, name.endsWith('/') ? '' : 'x');
  store.write('b', 'mine');
  t.match(await run(jobs, { conflictResolutionMode: 'Fail' }), {
    state: 'Failed',
    totalBlobsImported: 4,
    importedFiles: 3,
    importedDirectories: 1,
    totalConflicts: 1,
  });
  t.same(
    store.paths().filter((path) => !path.startsWith('IMPORT_')),
    ['a', 'b', 'c', 'd', 'd/e'],
  );
});

await t.test('what is in use when a mode would overwrite it stays, and is a conflict', async (t) => {
  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.put('f', 'theirs');
    container.put('d', 'a blob');
    store.write('f', 'mine');
    store.mkdir('d');
    store.write('d/inside', 'mine');
    const close = store.hold('f');
    t.match(await run(jobs, { name: 'one', conflictResolutionMode: mode }), {
      state: 'CompletedPartial',
      totalConflicts: 2,
      totalErrors: 0,
      totalBlobsImported: 0,
    });
    const lines = jobs.lines('one').filter(({ code }) => code === 'Conflict');
    t.match(lines.find(({ path }) => path === 'f')?.['message'], /new or changed, and it is open/);
    t.match(lines.find(({ path }) => path === 'd')?.['message'], /there is a directory .* not empty/);
    t.equal(store.content('f'), 'mine');
    t.equal(store.content('d/inside'), 'mine');
    close();
    t.match(await run(jobs, { conflictResolutionMode: mode }), { importedFiles: 1, totalConflicts: 2 });
  }
});

await t.test(
  'a directory keeps the owner and mode that it gets while an import lists what is in it',
  async (t) => {
    for (const mode of ['Skip', 'OverwriteIfDirty'] as const) {
      for (const there of [false, true]) {
        await using jobs = await MemoryJobs.start();
        const { container, store } = jobs.hsm;
        container.pageSize = 1;
        container.put('d', '', { hdi_isfolder: 'true', permissions: '0755', modtime: '5000000000' });
        for (const name of ['d/a', 'd/b', 'd/c']) container.put(name, 'x');
        if (there) store.mkdir('d', { mode: 0o711 });
        const held = gate();
        let pages = 0;
        container.before = () => (++pages > 3 ? held.opened : undefined);
        const running = run(jobs, { conflictResolutionMode: mode });
        await until(() => store.paths().includes('d/b'), { what: 'a file in it', intervalMs: 1 });
        await store.setAttributes('d', { mode: 0o700, uid: 7, mtimeNs: 1n });
        held.open();
        await running;
        const [now] = await store.lookup(['d']);
        const mtimeNs = there && mode === 'Skip' ? 1n : 5_000_000_000n;
        t.match(now, { mode: 0o700, uid: 7, mtimeNs }, `${mode} ${there ? 'there' : 'made'}`);
      }
    }
  },
);

await t.test('a directory that is counted as overwritten has the attributes of its blob', async (t) => {
  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.pageSize = 1;
    container.put('d', '', { hdi_isfolder: 'true', owner: '7', permissions: '0700', modtime: '5000000000' });
    container.put('d/a', 'x');
    store.mkdir('d', { mode: 0o711 });
    let pages = 0;
    container.before = () => {
      if (++pages > 1) throw new BlobError('forbidden', 'no more');
    };
    t.match(await run(jobs, { conflictResolutionMode: mode }), {
      state: 'Failed',
      importedDirectories: 1,
      totalConflicts: 1,
    });
    t.match((await store.lookup(['d']))[0], { mode: 0o700, uid: 7, mtimeNs: 5_000_000_000n }, mode);
  }
});

await t.test('a directory that cannot have the attributes of its blob is an error', async (t) => {
  for (const there of [false, true]) {
    for (const [maximumErrors, state] of [
      [-1, 'CompletedPartial'],
      [0, 'Failed'],
    ] as const) {
      await using jobs = await MemoryJobs.start();
      const { container, store } = jobs.hsm;
      container.put('d', '', { hdi_isfolder: 'true' });
      if (there) store.mkdir('d', { mode: 0o711 });
      store.before = (call) => {
        if (call === 'setAttributes') throw new FsError(constants.errno.EIO, 'EIO');
      };
      const status = await run(jobs, {
        name: 'one',
        conflictResolutionMode: 'OverwriteIfDirty',
        maximumErrors,
      });
      const imported = there ? 0 : 1;
      t.match(status, { state, totalErrors: 1, totalConflicts: 0, importedDirectories: imported });
      t.match(
        jobs.lines('one').find(({ level }) => level === 'error'),
        { blob: 'd', message: /EIO/ },
      );
    }
  }
});

await t.test('directories of an import that ends early have the times of their blobs', async (t) => {
  // A job that fails takes the time that it needs; whoever cancels waits for as many as there is time for.
  for (const [how, late] of [
    ['canceled', false],
    ['failed', false],
    ['failed', true],
    ['canceled', true],
  ] as const) {
    const original = Object.getOwnPropertyDescriptor(AbortSignal, 'timeout') ?? {};
    t.teardown(() => Object.defineProperty(AbortSignal, 'timeout', original));
    if (late) AbortSignal.timeout = () => AbortSignal.abort();
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    container.pageSize = 1;
    const modtime = '5000000000';
    for (const name of ['d', 'd/e', 'd/f'])
      container.put(name, '', { hdi_isfolder: 'true', permissions: '0755', modtime });
    container.put('d/g', 'x');
    const held = gate();
    // The batch of `d` is being counted, those behind it are made.
    coordinator.keepRenamed = () => held.opened;
    const running = run(jobs, { name: 'early', conflictResolutionMode: 'OverwriteIfDirty' });
    await until(() => store.paths().includes('d/e'), { what: 'the next directory', intervalMs: 1 });
    // As what is made in them does.
    for (const path of ['d', 'd/e']) await store.setAttributes(path, { mode: 0o700, mtimeNs: 1n });
    if (how === 'canceled') await jobs.runner.cancel('early');
    coordinator.keepRenamed = () => Promise.reject(new Error('no disk'));
    held.open();
    t.equal((await running).state, how === 'canceled' ? 'Canceled' : 'Failed');
    Object.defineProperty(AbortSignal, 'timeout', original);
    const mtimeNs = how === 'canceled' && late ? 1n : 5_000_000_000n;
    for (const path of ['d', 'd/e'])
      t.match((await store.lookup([path]))[0], { mode: 0o700, mtimeNs }, `${how}, late: ${late}: ${path}`);
  }
});

await t.test('a canceled import overwrites no more than what it is at', async (t) => {
  const some = Array.from({ length: 40 }, (_, n) => `f${n}`);
  type Row = readonly [what: string, call: string, most: number, make: (jobs: MemoryJobs) => void];
  const rows: readonly Row[] = [
    [
      'changed files',
      'replaceEntry',
      16,
      ({ hsm }) => {
        for (const name of some) hsm.store.write(name, 'mine');
        for (const name of some) hsm.container.put(name, 'theirs');
      },
    ],
    [
      'symlinks',
      'replaceEntry',
      1,
      ({ hsm }) => {
        for (const name of some) hsm.store.symlink(name, 'mine');
        for (const name of some) hsm.container.put(name, 'theirs', { is_symlink: 'true' });
      },
    ],
    [
      'directories',
      'setAttributes',
      1,
      ({ hsm }) => {
        for (const name of some) hsm.store.mkdir(name, { mode: 0o711 });
        for (const name of some) hsm.container.put(name, '', { hdi_isfolder: 'true' });
      },
    ],
    [
      'files in the way of directories',
      'remove',
      1,
      ({ hsm }) => {
        for (const name of some) for (const blob of [name, `${name}/x`]) hsm.container.put(blob, 'x');
      },
    ],
  ];
  for (const [what, call, most, make] of rows) {
    await using jobs = await MemoryJobs.start();
    make(jobs);
    const { store } = jobs.hsm;
    const begun = new Set<string>();
    let canceled: Promise<void> | undefined;
    store.before = (made, fid) => {
      if (made !== call || !some.some((name) => store.names.get(name)?.fid === fid)) return undefined;
      begun.add(fid);
      return (canceled ??= jobs.runner.cancel('cut'));
    };
    const { state } = await run(jobs, { name: 'cut', conflictResolutionMode: 'OverwriteIfDirty' });
    t.equal(state, 'Canceled', what);
    t.ok(begun.size > 0 && begun.size <= most, `${what}: ${begun.size}`);
  }
});

await t.test('a directory that is gone or moved when an import has left it is no error', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  for (const name of ['d', 'e', 'f']) container.put(name, '', { hdi_isfolder: 'true' });
  const createStubs = store.createStubs.bind(store);
  store.createStubs = async (stubs, defaults) => {
    const results = await createStubs(stubs, defaults);
    store.unlink('d');
    store.move('e', 'moved');
    store.mkdir('e', { mtimeNs: 1n });
    return results;
  };
  t.match(await run(jobs), { state: 'Completed', importedDirectories: 3, totalErrors: 0 });
  t.equal((await store.lookup(['e']))[0]?.mtimeNs, 1n);
});

await t.test('a file that took the path after the look at it gets nothing from the blob', async (t) => {
  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    container.put('f', 'old');
    await run(jobs, { name: 'first' });
    await coordinator.restore(store.fidOf('f'));
    const old = store.fidOf('f');
    container.put('f', 'other', { permissions: '4755' });
    const createStubs = store.createStubs.bind(store);
    store.createStubs = async (stubs, defaults) => {
      const results = await createStubs(stubs, defaults);
      await store.rename('f', 'kept');
      store.write('f', 'mine');
      return results;
    };
    t.match(await run(jobs, { name: 'second', conflictResolutionMode: mode }), {
      state: 'CompletedPartial',
      totalConflicts: 1,
      totalErrors: 0,
    });
    t.equal(store.content('kept'), 'old', `${mode}: what was moved away stays`);
    t.equal((await store.state(old)).flags, 0x0b, 'and is the only one with its data');
    t.not((await store.state(store.fidOf('f'))).mode & 0o7777, 0o4755);
    t.equal(store.content('f'), 'mine');
  }
});

await t.test('a blob below a file of the mount is a conflict, and the file stays', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.store.write('a', 'precious');
  jobs.hsm.container.put('a/x', 'x');
  t.match(await run(jobs), { state: 'CompletedPartial', totalConflicts: 1, totalErrors: 0 });
  t.equal(jobs.hsm.store.content('a'), 'precious');
});

await t.test('a file whose blob is gone makes no way for a directory: it may be the only copy', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.put('a', 'precious');
  t.match(await run(jobs), { state: 'Completed', importedFiles: 1 });
  await coordinator.restore(store.fidOf('a'));
  container.blobs.delete('a');
  container.put('a/x', 'x');
  t.match(await run(jobs, { name: 'second' }), {
    state: 'CompletedPartial',
    totalConflicts: 1,
    totalErrors: 0,
  });
  t.equal(store.content('a'), 'precious');
});

await t.test('a container that cannot be listed fails the job with the cause', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.container.put('a');
  jobs.hsm.container.before = (call) => {
    if (call === 'list') throw new BlobError('forbidden', 'the key is wrong');
  };
  const status = await run(jobs);
  t.match(status, { state: 'Failed', statusMessage: /could not be listed: the key is wrong/ });
});

await t.test('an import that has failed does not wait for the next page', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.pageSize = 1;
  for (const name of ['f', 'g', 'h']) container.put(name, 'theirs');
  store.write('f', 'mine');
  let pages = 0;
  container.before = () => (++pages > 2 ? new Promise(() => undefined) : undefined);
  t.match(await run(jobs, { conflictResolutionMode: 'Fail' }), { state: 'Failed', totalConflicts: 1 });
});

await t.test('an import that has failed does not wait for the symlinks of the next page', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container } = jobs.hsm;
  container.pageSize = 1;
  container.put('a//b', 'x');
  for (let n = 0; n < 5; n++) container.put(`link${n}`, 'target', { is_symlink: 'true' });
  container.before = (call) => (call === 'read' ? new Promise(() => undefined) : undefined);
  t.match(await run(jobs, { maximumErrors: 0 }), { state: 'Failed', totalErrors: 1 });
});

await t.test(
  'on a hierarchical account a directory is finished when everything below it is there',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.namespace = { hierarchical: true, source: 'account' };
    container.pageSize = 1;
    const directories = ['d', 'd/s', 'd-e', 'd-e/s'];
    for (const name of directories) container.put(name, '', { hdi_isfolder: 'true' });
    for (const name of ['d/0', 'd/s/1', 'd/z', 'd!', 'd-e/s/1', 'd.f', 'f', 'f!']) container.put(name, 'x');
    const order: string[] = [];
    const [createStubs, setAttributes] = [store.createStubs.bind(store), store.setAttributes.bind(store)];
    store.createStubs = (stubs, defaults) => {
      order.push(...stubs.map(({ path }) => path));
      return createStubs(stubs, defaults);
    };
    store.setAttributes = (path, attributes) => {
      order.push(`${path} done`);
      return setAttributes(path, attributes);
    };
    t.match(await run(jobs), { state: 'Completed', importedDirectories: 4, importedFiles: 8 });
    for (const directory of directories) {
      const done = order.indexOf(`${directory} done`);
      const last = order.findLastIndex((name) => name.startsWith(`${directory}/`) && !name.endsWith(' done'));
      t.ok(done > last, `${directory} after ${order[last] ?? '?'}`);
    }
    t.ok(order.indexOf('d done') < order.indexOf('f'), 'and not only at the end');
  },
);

const writingCalls = [
  'createStubs',
  'setAttributes',
  'replaceCopy',
  'replaceEntry',
  'remove',
  'release',
  'changeFlags',
  'markModified',
  'beginRemove',
  'forgetCopy',
  'beginRestore',
  'beginArchive',
  'openBeneath',
] as const;

await t.test('an import of what is there already writes nothing to the store', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.pageSize = 3;
  const attributes = { owner: '1', group: '2', permissions: '0604', modtime: '2020-01-01 00:00:00 +0000' };
  for (const name of ['file', 'implied/file', 'dir/file']) container.put(name, name, attributes);
  container.put('plain', 'without attributes');
  container.put('dir', '', { ...attributes, permissions: '0700', hdi_isfolder: 'true' });
  container.put('dir/link', '../file', { is_symlink: 'true', owner: '3', group: '4' });
  t.match(await run(jobs), { state: 'Completed', totalBlobsImported: 6 });

  for (const mode of ['Fail', 'Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await t.test(mode, async (t) => {
      const written: string[] = [];
      const asText = (value: unknown): string =>
        JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner));
      for (const call of writingCalls) {
        const original = Reflect.get(store, call) as (...args: unknown[]) => Promise<unknown>;
        t.intercept(store, call, {
          async value(...args: unknown[]) {
            const answer = await original.apply(store, args);
            const found = call === 'createStubs' && !asText(answer).includes('created');
            // The marker comes and goes with every import.
            if (!found && !asText(args).includes('IMPORT_')) written.push(`${call} ${asText(args)}`);
            return answer;
          },
        });
      }
      t.match(await run(jobs, { conflictResolutionMode: mode }), {
        state: 'Completed',
        preexistingFiles: 4,
        preexistingDirectories: 1,
        preexistingSymlinks: 1,
        totalBlobsImported: 0,
        totalConflicts: 0,
      });
      t.same(written, []);
    });
  }
});
