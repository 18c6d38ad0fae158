import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { blockBytesFor } from '../../src/blob/upload.js';
import type { ExportStatus } from '../../src/jobs/export/export-record.js';
import type { ExportRequest } from '../../src/jobs/requests.js';
import { gate } from '../helpers/memory-hsm.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import type { MemoryStore } from '../helpers/memory-store.js';
import { until } from '../helpers/poll.js';

async function run(jobs: MemoryJobs, request: ExportRequest = {}): Promise<ExportStatus> {
  const job = await jobs.runner.create('export', request);
  const record = await job.done;
  if (record.kind !== 'export') throw new Error('not an export');
  return record.properties.status;
}

/** Imports the container and restores the given files. */
async function imported(jobs: MemoryJobs, ...restored: readonly string[]): Promise<void> {
  await (
    await jobs.runner.create('import', { conflictResolutionMode: 'Skip', maximumErrors: -1 })
  ).done;
  for (const path of restored) await jobs.hsm.coordinator.restore(jobs.hsm.store.fidOf(path));
}

const uploads = (jobs: MemoryJobs): readonly string[] =>
  jobs.hsm.pool.calls.filter((call) => call.startsWith('upload')).map((call) => call.slice('upload '.length));

await t.test('exactly what is new or changed is exported', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  for (const name of ['same', 'read', 'changed', 'renamed', 'deleted', 'chmodded'])
    container.put(`d/${name}`, name);
  await imported(jobs, 'd/read', 'd/changed', 'd/chmodded');
  store.write('d/changed', 'changed content');
  store.write('d/new', 'new');
  store.write('d/empty', '');
  await store.rename('d/renamed', 'd/renamed away');
  store.unlink('d/deleted');
  await store.setAttributes('d/chmodded', { mode: 0o600 });
  store.write('IMPORT_Failed.20260131T000000Z', '');
  t.match(await run(jobs), {
    state: 'Completed',
    percentComplete: 100,
    filesDiscovered: 3,
    totalFilesExported: 3,
    totalBytesExported: 18,
    totalFilesFailed: 0,
    totalDirectoriesExported: 1,
  });
  t.same([...new Set(uploads(jobs))].sort(), ['d/changed', 'd/empty', 'd/new']);
  t.equal(container.text('d/changed'), 'changed content');
  t.equal(container.text('d/deleted'), 'deleted', 'deletions are not exported');
  t.equal(container.text('d/renamed'), 'renamed', 'neither are renames');
  t.notOk(container.blobs.has('d/renamed away'));
  t.notOk([...container.blobs.keys()].some((name) => name.startsWith('IMPORT')));
  t.equal(store.flags('d/new'), 0x09);
  jobs.hsm.pool.calls.length = 0;
  t.match(await run(jobs), { state: 'Completed', filesDiscovered: 0, percentComplete: 100 });
  t.same(uploads(jobs), []);
});

await t.test('the path of an export is a string that paths begin with', async (t) => {
  const rows: readonly (readonly [string, readonly string[]])[] = [
    ['/', ['a', 'res', 'res/a', 'res/b/c', 'results']],
    ['/res', ['res/a', 'res/b/c', 'results']],
    ['/res/', ['res/a', 'res/b/c']],
    ['res/b', ['res/b/c']],
    ['/nothing/here', []],
    ['/a/', []],
    ['/a/b', []],
    ['/link/', []],
  ];
  for (const [filesystemPath, wanted] of rows) {
    await using jobs = await MemoryJobs.start();
    for (const path of ['a', 'res/a', 'res/b/c', 'results']) jobs.hsm.store.write(path, path);
    if (filesystemPath.startsWith('/link')) jobs.hsm.store.symlink('link', 'res');
    t.equal((await run(jobs, { filesystemPath })).state, 'Completed');
    const files = wanted.filter((path) => path !== 'res');
    t.same([...new Set(uploads(jobs))].sort(), files, filesystemPath);
  }
});

await t.test(
  'the directories above an exported file get their stubs, once, when missing or different',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    store.mkdir('top', { mode: 0o1777, uid: 5, gid: 6 });
    store.mkdir('top/below', { mode: 0o2750, uid: 7, gid: 8, mtimeNs: 1_500_000_000_123_000_000n });
    store.mkdir('empty');
    for (const name of ['one', 'two', 'three']) store.write(`top/below/${name}`, name);
    t.match(await run(jobs), { totalDirectoriesExported: 2, totalFilesExported: 3 });
    t.same(container.calls.filter((call) => call.startsWith('write')).sort(), [
      'write top',
      'write top/below',
    ]);
    t.notOk(container.blobs.has('empty'));
    t.equal(container.text('top'), '');
    t.same(container.metadata('top/below'), {
      owner: '7',
      group: '8',
      permissions: '0750',
      modtime: '2017-07-14 02:40:00 +0000',
      hdi_isfolder: 'true',
      lustrite_stat: '2750 1500000000123000000',
    });
    t.match(container.metadata('top'), { permissions: '1777' });

    container.calls.length = 0;
    store.write('top/below/four', 'x');
    await store.setAttributes('top', { uid: 55 });
    t.match(await run(jobs), { totalDirectoriesExported: 1 });
    t.same(
      container.calls.filter((call) => call.startsWith('write')),
      ['write top'],
    );
    t.match(container.metadata('top'), { owner: '55' });
  },
);

await t.test('a directory never replaces a blob with content', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('a', 'precious');
  store.write('a/x', 'x');
  t.match(await run(jobs, { name: 'clash' }), {
    state: 'Completed',
    totalFilesExported: 1,
    totalDirectoriesExported: 0,
  });
  t.equal(container.text('a'), 'precious');
  t.match(jobs.lines('clash')[0], { level: 'warn', path: 'a', code: 'Conflict' });
});

await t.test(
  'rule 8: a directory that took the name of a renamed stub does not cost it its data',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.put('a', '');
    await imported(jobs);
    await store.rename('a', 'b');
    store.write('a/x', 'x');
    t.match(await run(jobs), { state: 'Completed' });
    t.match(container.metadata('a'), { hdi_isfolder: 'true' });
    t.ok(container.blobs.has('b'), 'it is exported itself');
    t.match(await store.state(store.fidOf('b')), { flags: 0x09, modified: false });
  },
);

await t.test('export.ifMatch: no blob of another client is overwritten by a symlink', async (t) => {
  for (const ifMatch of [true, false]) {
    await using jobs = await MemoryJobs.start({ export: { ifMatch } });
    const { container, store } = jobs.hsm;
    container.put('d/link', 'precious');
    store.symlink('d/link', 'target');
    store.symlink('d/free', 'target');
    t.match(await run(jobs), {
      state: ifMatch ? 'Failed' : 'Completed',
      totalFilesExported: ifMatch ? 1 : 2,
      totalFilesFailed: ifMatch ? 1 : 0,
    });
    t.equal(container.text('d/link'), ifMatch ? 'precious' : 'target');
    t.equal(container.text('d/free'), 'target');
  }
});

await t.test('what is found is counted with its bytes, what is exported with its rate', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.store.write('d/good', Buffer.alloc(1 << 20).toString());
  jobs.hsm.store.write('d/bad', Buffer.alloc(3 << 20).toString());
  jobs.hsm.pool.gate = (_kind, blob) => {
    jobs.hsm.clock.ms += 1000;
    return blob === 'd/bad' ? Promise.reject(new BlobError('forbidden', '403')) : undefined;
  };
  t.match(await run(jobs), {
    filesDiscovered: 2,
    totalBytesDiscovered: 4 << 20,
    totalBytesExported: 1 << 20,
    filesExportedPerSecond: 1,
    mibExportedPerSecond: 0.5,
  });
});

await t.test('a directory that cannot be written is one failure, whatever it is looked at for', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  store.mkdir('d', { uid: 7 });
  store.symlink('d/a', 'f');
  store.write('d/f', 'new');
  // What is there of the symlink does not need it for the same reason as the file that is written.
  container.put('d/a', 'f', { is_symlink: 'true' });
  container.before = (call, blob) => {
    if (call === 'write' && blob === 'd') throw new BlobError('throttled', '503');
  };
  t.match(await run(jobs, { name: 'out' }), { state: 'Failed', totalFilesFailed: 1 });
  t.equal(jobs.lines('out').filter(({ level }) => level === 'error').length, 1);
  t.equal(container.calls.filter((call) => call === 'write d').length, 1);
});

await t.test('what is below a directory without its blob is dirty, and exported again', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  store.mkdir('d', { uid: 7, mode: 0o750 });
  for (const path of ['d/one', 'd/e/two', 'beside']) store.write(path, path);
  await store.link('d/one', 'linked');
  store.symlink('d/symlink', 'one');
  const files = ['d/one', 'd/e/two', 'linked'];
  const wholly = async (): Promise<readonly boolean[]> =>
    (await store.lookup([...files, 'd/symlink'])).map(
      (state) => state?.modified === false && 'copy' in state,
    );

  container.before = (call, blob) => {
    if (call === 'write' && blob === 'd') throw new BlobError('throttled', '503');
  };
  t.match(await run(jobs, { name: 'first' }), {
    state: 'Failed',
    errorMessage: /^1 file was not exported: d: /,
    filesDiscovered: 5,
    totalFilesExported: 5,
    totalFilesFailed: 1,
    totalDirectoriesExported: 1,
  });
  t.equal(jobs.lines('first').filter(({ level }) => level === 'error').length, 1, 'the directory, once');
  for (const path of files) t.equal(container.text(path), path === 'linked' ? 'd/one' : path, 'is there');
  t.equal(container.text('d/symlink'), 'one');
  t.same(await wholly(), [false, false, false, false]);
  t.equal(store.flags('beside'), 0x09, 'nothing is above it');

  container.before = () => undefined;
  t.match(await run(jobs), { state: 'Completed', totalFilesFailed: 0, totalDirectoriesExported: 1 });
  t.match(container.metadata('d'), { owner: '7', permissions: '0750' });
  t.same(await wholly(), [true, true, true, true]);
  t.match(await run(jobs), { state: 'Completed', filesDiscovered: 0 });
});

await t.test('the stub of a directory never takes the place of content', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  store.write('d/f', 'f');
  let looks = 0;
  container.before = (call, blob) => {
    // Another client writes while the export makes up its mind.
    if (call === 'write' && blob === 'd' && looks++ === 0) container.put('d', 'precious');
  };
  t.match(await run(jobs), { state: 'Failed', totalFilesExported: 1 });
  t.equal(container.text('d'), 'precious');
  container.before = () => undefined;
  store.write('d/g', 'g');
  t.match(await run(jobs), { state: 'Completed' });
  t.equal(container.text('d'), 'precious');
});

await t.test(
  "a directory of a hierarchical account gets metadata, and keeps what is not lustrite's",
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.namespace = { hierarchical: true, source: 'account' };
    container.put('there', '', { hdi_isfolder: 'true', project: 'x', permissions: '0700' });
    container.put('file', '');
    for (const path of ['there/f', 'missing/f', 'file/f']) store.write(path, 'x');
    t.match(await run(jobs, { name: 'real' }), { totalFilesExported: 3, totalDirectoriesExported: 2 });
    t.same(
      container.calls.filter((call) => /^(?:write|setMetadata) (?:there|missing|file)$/.test(call)).sort(),
      ['setMetadata there', 'write missing'],
    );
    t.match(container.metadata('there'), { project: 'x', permissions: '0755' });
    t.notHas(container.metadata('there'), { hdi_isfolder: 'true' }, 'the service keeps that by itself');
    t.match(container.metadata('missing'), { hdi_isfolder: 'true' });
    t.match(jobs.lines('real')[0], { level: 'warn', path: 'file', code: 'Conflict' });
  },
);

await t.test('the percentage counts what is still to come, while the walk waits for uploads', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store, pool } = jobs.hsm;
  const held = gate();
  let uploads = 0;
  // More files than an export has under way at a time.
  for (let n = 0; n < 400; n++) store.write(`f${String(n).padStart(3, '0')}`, 'x');
  pool.gate = () => (++uploads > 100 ? held.opened : undefined);
  const job = await jobs.runner.create('export', {});
  const percents: number[] = [];
  for await (const { kind, properties } of jobs.runner.watch(job.name)) {
    if (kind !== 'export' || !('percentComplete' in properties.status)) continue;
    const { percentComplete, totalFilesExported } = properties.status;
    percents.push(percentComplete);
    if (totalFilesExported === 100 && percentComplete > 0) held.open();
  }
  t.ok(percents.includes(25), percents.join(' '));
  t.equal(percents.at(-1), 100);
});

await t.test('new symlinks are exported once, and come back as they were', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  store.symlink('d/new', '../target of it');
  container.put('d/there', 'same', { is_symlink: 'true', ftype: 'LNK' });
  store.symlink('d/there', 'same');
  t.match(await run(jobs), { totalFilesExported: 1, filesDiscovered: 1, totalFilesFailed: 0 });
  t.equal(container.text('d/new'), '../target of it');
  t.match(container.metadata('d/new'), { is_symlink: 'true', ftype: 'LNK' });
  container.calls.length = 0;
  t.match(await run(jobs), { totalFilesExported: 0, state: 'Completed' });
  t.same(container.calls, [], 'both are known now');
});

await t.test('a file with several names has a blob of each, or of none that its record knows', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, pool } = jobs.hsm;
  store.write('d/two', 'linked');
  store.mkdir('e');
  for (const name of ['d/one', 'e/three', 'outside']) await store.link('d/two', name);
  const blobs = ['d/one', 'd/two', 'e/three', 'outside'];

  pool.gate = (_kind, blob) => {
    if (blob === 'e/three') throw new BlobError('forbidden', 'no');
  };
  t.match(await run(jobs), { state: 'Failed', totalFilesFailed: 4, totalFilesExported: 0 });
  t.match(await store.state(store.fidOf('d/one')), { modified: true, copy: undefined });
  pool.gate = () => undefined;
  t.match(await run(jobs), {
    state: 'Completed',
    filesDiscovered: 4,
    totalFilesExported: 4,
    totalBytesExported: 24,
    totalFilesSkipped: 0,
    totalDirectoriesExported: 2,
  });
  for (const blob of blobs) t.equal(container.text(blob), 'linked', blob);
  t.match(await store.state(store.fidOf('d/one')), { modified: false, copy: { blob: 'd/one' } }, 'the first');

  store.write('e/three', 'changed');
  pool.calls.length = 0;
  t.match(await run(jobs, { name: 'some', filesystemPath: '/d/' }), { totalFilesExported: 2 });
  t.same([...new Set(uploads(jobs))], ['d/two', 'd/one'], 'the one that the record keeps is the last');
  t.match(jobs.lines('some')[0], { level: 'warn', path: 'd/one', code: 'HardLink', message: /^2 of/ });
  t.equal(container.text('outside'), 'linked');
  t.match(
    await store.state(store.fidOf('d/one')),
    { modified: true, copy: { blob: 'd/one' } },
    'still dirty',
  );
  t.match(await run(jobs), { totalFilesExported: 4 });
  t.equal(container.text('outside'), 'changed', 'no name is left behind');
  t.match(await store.state(store.fidOf('d/one')), { modified: false });

  store.unlink('d/one');
  store.write('d/two', 'once more');
  t.match(await run(jobs), { totalFilesExported: 3 });
  t.match(await store.state(store.fidOf('d/two')), { copy: { blob: 'd/two' } });
  t.equal(container.text('outside'), 'once more');
});

await t.test(
  'a name that comes while the file is exported has its blob before the file is clean',
  async (t) => {
    const changes: Readonly<Record<string, (store: MemoryStore) => Promise<void>>> = {
      'one name, and a link': (store) => store.link('one', 'new'),
      'two names, and a link': (store) => store.link('two', 'new'),
      'two names, and a rename': (store) => store.rename('two', 'new'),
      'two names, and a rename of the first': (store) => store.rename('one', 'new'),
    };
    for (const [what, change] of Object.entries(changes)) {
      await using jobs = await MemoryJobs.start();
      const { container, store, pool } = jobs.hsm;
      const fid = store.write('one', 'x');
      if (what.startsWith('two')) await store.link('one', 'two');
      let changed = false;
      pool.gate = async () => {
        if (changed) return;
        changed = true;
        await change(store);
      };
      const status = await run(jobs);
      const names = store.paths();
      t.ok(names.includes('new'), what);
      for (const name of names) t.equal(container.text(name), 'x', `${what}: ${name}`);
      t.match(await store.state(fid), { modified: false, flags: 0x09 }, what);
      const counts = { filesDiscovered: names.length, totalFilesExported: names.length, totalFilesFailed: 0 };
      t.match(status, { state: 'Completed', ...counts }, what);
    }
  },
);

await t.test('a file that gets one name after the other during its export stays dirty', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, pool } = jobs.hsm;
  const fid = store.write('a', 'x');
  let links = 0;
  pool.gate = () => store.link('a', `link ${links++}`);
  t.match(await run(jobs, { name: 'links' }), { state: 'Failed', totalFilesExported: 0 });
  t.match(jobs.lines('links')[0], { level: 'error', path: 'a', code: 'Renamed' });
  t.match(await store.state(fid), { modified: true });
  pool.gate = () => undefined;
  t.match(await run(jobs), { state: 'Completed' });
  for (const name of store.paths()) t.equal(container.text(name), 'x', name);
});

await t.test(
  'a name that is gone, and one that no blob can have, keep no other from being exported',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, pool } = jobs.hsm;
    store.write('a', 'x');
    for (const name of ['b\\', 'c', 'd']) await store.link('a', name);
    pool.gate = () => undefined;
    store.before = (call) => {
      if (call === 'state') store.unlink('c');
    };
    t.match(await run(jobs, { name: 'links' }), {
      state: 'Failed',
      totalFilesExported: 2,
      totalFilesFailed: 1,
    });
    t.same([...container.blobs.keys()].sort(), ['a', 'd']);
    const failed = jobs.lines('links').filter(({ level }) => level === 'error');
    t.match(failed, [{ path: 'b\\', code: 'InvalidName' }]);

    store.before = () => undefined;
    t.match(await store.state(store.fidOf('a')), { modified: true, copy: { blob: 'a' } }, 'not all is there');
    t.match(await run(jobs), { state: 'Failed', totalFilesFailed: 1 }, 'and the next export says so again');
    store.unlink('b\\');
    t.match(await run(jobs), { state: 'Completed', totalFilesFailed: 0 });
    t.equal(store.flags('a'), 0x09);
  },
);

await t.test('special and never_archive files are skipped and named', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store } = jobs.hsm;
  store.special('fifo');
  await store.changeFlags(store.write('private', 'x'), 0x20, 0, 0);
  store.write('file', 'x');
  t.match(await run(jobs, { name: 'special' }), {
    state: 'Completed',
    totalFilesSkipped: 2,
    totalFilesExported: 1,
  });
  const lines = jobs.lines('special').filter(({ level }) => level === 'warn');
  t.same(lines.map(({ path, code }) => [path, code]).sort(), [
    ['fifo', 'SpecialFile'],
    ['private', 'NoArchive'],
  ]);
});

await t.test('a busy file is tried three times, then the job has failed and the file is dirty', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store, clock, container } = jobs.hsm;
  store.write('busy', 'x');
  store.write('idle', 'x');
  const close = store.hold('busy');
  t.match(await run(jobs, { name: 'busy' }), {
    state: 'Failed',
    errorCode: 'FilesFailed',
    errorMessage: /^1 file was not exported/,
    totalFilesExported: 1,
    totalFilesFailed: 1,
  });
  t.same(clock.sleeps, [200, 400]);
  t.match(jobs.lines('busy')[0], { level: 'error', path: 'busy', code: 'Busy' });
  t.notOk(container.blobs.has('busy'));
  close();
  t.match(await run(jobs), { state: 'Completed', totalFilesExported: 1 });
  clock.sleep = () => {
    release();
    return Promise.resolve();
  };
  store.write('later', 'x');
  const release = store.hold('later');
  t.match(await run(jobs), { state: 'Completed', totalFilesExported: 1 }, 'it was free at the second try');
});

await t.test(
  'what cannot be exported fails, is named and stays dirty, and the rest is exported',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { store, pool } = jobs.hsm;
    for (const path of ['good', 'bad\\name', 'refused', 'huge']) store.write(path, 'x');
    pool.gate = (_kind, blob) => {
      if (blob === 'huge') blockBytesFor(2 ** 50);
      if (blob === 'refused') throw new BlobError('forbidden', 'no');
    };
    t.match(await run(jobs, { name: 'some' }), {
      state: 'Failed',
      totalFilesExported: 1,
      totalFilesFailed: 3,
    });
    const lines = jobs.lines('some').filter(({ level }) => level === 'error');
    t.same(lines.map(({ path, code }) => [path, code]).sort(), [
      ['bad\\name', 'InvalidName'],
      ['huge', 'unsupported'],
      ['refused', 'forbidden'],
    ]);
    t.match(lines.find(({ path }) => path === 'huge')?.['message'], /more than .* 50,000 blocks of 4000 MiB/);
    t.equal((await store.state(store.fidOf('huge'))).modified, true);
    t.equal((await store.state(store.fidOf('bad\\name'))).modified, true);
    t.equal(store.openFds, 0);
  },
);

await t.test('a file that is deleted during the export is no failure', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store } = jobs.hsm;
  store.write('a', 'x');
  store.before = (call) => {
    if (call === 'beginArchive') store.unlink('a');
    if (call === 'beginArchive') throw Object.assign(new Error('gone'), { errno: 2 });
  };
  t.match(await run(jobs), { state: 'Completed', filesDiscovered: 0, totalFilesFailed: 0 });
});

await t.test('a symlink that is renamed while it is exported is new where it is then', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store, container } = jobs.hsm;
  store.symlink('before', 'target');
  container.before = (call) => {
    if (call !== 'write' || !store.paths().includes('before')) return;
    return store.rename('before', 'after');
  };
  await (
    await jobs.runner.create('export', {})
  ).done;
  t.equal((await store.lookup(['after']))[0]?.copy, undefined);
  await (
    await jobs.runner.create('export', {})
  ).done;
  t.equal(container.text('after'), 'target');
});

await t.test('every name of a symlink is exported', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { store, container } = jobs.hsm;
  store.symlink('one', 'target');
  await (
    await jobs.runner.create('export', {})
  ).done;
  await store.link('one', 'two');
  await (
    await jobs.runner.create('export', {})
  ).done;
  t.same(
    ['one', 'two'].map((name) => container.text(name)),
    ['target', 'target'],
  );
});

await t.test('a file whose upload has begun when the job is canceled is exported and counted', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { clock, pool, store, container } = jobs.hsm;
  const [upload, moment] = [gate(), gate()];
  clock.sleep = () => moment.opened;
  pool.gate = () => upload.opened;
  store.write('d/begun', 'x');
  const job = await jobs.runner.create('export', { name: 'canceled' });
  await until(() => uploads(jobs).length > 0, { what: 'the upload', intervalMs: 1 });
  await jobs.runner.cancel('canceled');
  upload.open();
  const { properties } = await job.done;
  moment.open();
  t.match(properties.status, {
    state: 'Canceled',
    totalFilesExported: 1,
    totalFilesFailed: 0,
    totalDirectoriesExported: 1,
  });
  t.equal(store.flags('d/begun'), 0x09);
  t.ok(container.blobs.has('d'));
});

await t.test('what an export takes the blob from is exported by the same job', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.put('log', 'old');
  container.put('a', 'one');
  container.put('b', 'two');
  await imported(jobs);
  // Logs that were rotated, and two names that were swapped; released, all of them.
  await store.rename('log', 'log.1');
  store.write('log', 'new');
  for (const [from, to] of [
    ['a', 'swap'],
    ['b', 'a'],
    ['swap', 'b'],
  ] as const)
    await store.rename(from, to);
  await coordinator.restore(store.fidOf('a'));
  store.write('a', 'a has changed');
  t.match(await run(jobs, { filesystemPath: '/log' }), {
    state: 'Completed',
    filesDiscovered: 2,
    totalFilesExported: 2,
    percentComplete: 100,
  });
  t.equal(container.text('log'), 'new');
  t.equal(container.text('log.1'), 'old');
  t.match(await run(jobs), { state: 'Completed', totalFilesExported: 2 }, 'b lost its blob to a');
  t.equal(container.text('b'), 'one');
  t.equal(store.flags('log.1'), 0x09);
  t.equal(coordinator.status().waiting.archive, 0);
});

await t.test('one that cannot be exported is one failure', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, pool } = jobs.hsm;
  container.put('log', 'old');
  await imported(jobs);
  await store.rename('log', 'log.1');
  store.write('log', 'new');
  pool.gate = (_kind, blob) => {
    if (blob === 'log.1') throw new BlobError('forbidden', 'no');
  };
  t.match(await run(jobs), { state: 'Failed', totalFilesExported: 1, totalFilesFailed: 1 });
});
