import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { endOf, isFinal, stateOf, type JobRecord } from '../../src/jobs/job.js';
import { gate } from '../helpers/memory-hsm.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

const markers = (jobs: MemoryJobs): readonly string[] =>
  jobs.hsm.store.paths().filter((path) => path.startsWith('IMPORT_'));

const onDisk = async (jobs: MemoryJobs, name: string): Promise<JobRecord> =>
  JSON.parse(await readFile(join(jobs.folder, 'jobs', name, 'record.json'), 'utf8')) as JobRecord;

await t.test('one job runs at a time, and a second is refused by the name of the first', async (t) => {
  await using jobs = await MemoryJobs.start();
  const held = gate();
  jobs.hsm.container.before = () => held.opened;
  const job = await jobs.runner.create('import', { name: 'first-one' });
  t.equal(jobs.runner.running()?.name, 'first-one');
  for (const create of [() => jobs.runner.create('import', {}), () => jobs.runner.create('export', {})]) {
    await t.rejects(create(), {
      name: 'UserError',
      code: 'Conflict',
      message: /the import job 'first-one' is running/,
    });
  }
  const two = await Promise.allSettled([jobs.runner.create('import', {}), jobs.runner.create('export', {})]);
  t.same(
    two.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  held.open();
  t.equal(stateOf(await job.done), 'Completed');
  t.equal(jobs.runner.running(), undefined);
  const both = await Promise.allSettled([jobs.runner.create('export', {}), jobs.runner.create('export', {})]);
  t.same(
    both.map(({ status }) => status).sort(),
    ['fulfilled', 'rejected'],
    'two at once: one gets the slot',
  );
  const [, exported] = jobs.runner.list();
  await jobs.runner.wait(exported?.name ?? '');
});

await t.test('a read-only mount imports, and exports nothing', async (t) => {
  await using jobs = await MemoryJobs.start({ readOnly: true });
  jobs.hsm.container.put('a', 'a');
  for (const kind of ['export', 'auto-export'] as const)
    await t.rejects(jobs.runner.create(kind, {}), { code: 'ReadOnly', status: 403 });
  const job = await jobs.runner.create('import', {});
  t.equal(stateOf(await job.done), 'Completed');
  t.same(jobs.runner.list(), [await job.done], 'nothing else was recorded');
});

await t.test('requests that make no sense are refused before anything is recorded', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { runner } = jobs;
  await (
    await runner.create('import', { name: 'taken' })
  ).done;
  const rows: readonly (readonly [() => Promise<unknown>, string])[] = [
    [() => runner.create('import', { prefixes: ['/data', '/data2'] }), 'InvalidParameter'],
    [
      () => runner.create('import', { prefixes: Array.from({ length: 11 }, (_, n) => `/p${n}/`) }),
      'InvalidParameter',
    ],
    [() => runner.create('import', { maximumErrors: -2 }), 'InvalidParameter'],
    [() => runner.create('import', { maximumErrors: 0.5 }), 'InvalidParameter'],
    [() => runner.create('import', { name: '../x' }), 'InvalidParameter'],
    [() => runner.create('import', { name: 'taken' }), 'Conflict'],
    [() => runner.create('export', { filesystemPath: '/a/../b' }), 'InvalidParameter'],
    [() => runner.create('export', { filesystemPath: '/a//b' }), 'InvalidParameter'],
    [() => runner.create('export', { filesystemPath: 'a//' }), 'InvalidParameter'],
    [() => runner.create('auto-export', { prefixes: ['a//b'], pollIntervalMs: 1 }), 'InvalidParameter'],
    [() => runner.cancel('nobody'), 'NotFound'],
    [() => runner.cancel('taken'), 'Conflict'],
    [() => runner.delete('nobody'), 'NotFound'],
    [() => runner.wait('nobody'), 'NotFound'],
  ];
  for (const [ask, code] of rows) await t.rejects(ask(), { name: 'UserError', code });
  t.throws(() => runner.get('nobody'), { code: 'NotFound' });
  t.equal(runner.list().length, 1);
});

await t.test('a job that is over can be deleted, a running one cannot', async (t) => {
  await using jobs = await MemoryJobs.start();
  const held = gate();
  jobs.hsm.container.before = () => held.opened;
  const job = await jobs.runner.create('import', { name: 'one' });
  await t.rejects(jobs.runner.delete('one'), { code: 'Conflict', message: /'one' is InProgress: cancel it/ });
  held.open();
  await job.done;
  await jobs.runner.delete('one');
  t.throws(() => jobs.runner.get('one'), { code: 'NotFound' });
  t.same(await readdir(join(jobs.folder, 'jobs')), []);
  const again = await jobs.runner.create('import', { name: 'one' });
  t.equal(stateOf(await again.done), 'Completed', 'the name is free');
  await jobs.restart();
  t.same(
    jobs.runner.list().map(({ name }) => name),
    ['one'],
  );
});

await t.test('a canceled import is Canceled, has said so in the root, and its log is written', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.container.put('a');
  jobs.hsm.container.before = (call) => (call === 'list' ? new Promise(() => undefined) : undefined);
  const job = await jobs.runner.create('import', { name: 'to-cancel' });
  await until(() => markers(jobs).length === 1, { what: 'the marker', intervalMs: 1 });
  t.same(markers(jobs), ['IMPORT_Importing.20260131T120000Z']);
  await jobs.runner.cancel('to-cancel');
  t.ok(['Cancelling', 'Canceled'].includes(stateOf(jobs.runner.get('to-cancel'))));
  const record = await job.done;
  t.match(record.properties, { adminStatus: 'Cancel', status: { state: 'Canceled' } });
  t.same(await onDisk(jobs, 'to-cancel'), record);
  t.same(markers(jobs), ['IMPORT_Canceled.20260131T120000Z']);
  // The log follows the record.
  await until(() => jobs.lines('to-cancel'), { what: 'the log', intervalMs: 1 });
  t.match(jobs.lines('to-cancel').at(-1), { code: 'Canceled' });
  await jobs.runner.cancel('to-cancel');

  jobs.hsm.container.before = () => undefined;
  jobs.hsm.clock.ms += 5000;
  t.equal(stateOf(await (await jobs.runner.create('import', { name: 'the-next' })).done), 'Completed');
  t.same(markers(jobs), [], 'the next import takes the old marker away, and its own on success');
});

await t.test('a job can be canceled as soon as it is shown', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.container.before = (call) => (call === 'list' ? new Promise(() => undefined) : undefined);
  const creating = jobs.runner.create('import', { name: 'early' });
  t.equal(stateOf(jobs.runner.get('early')), 'InProgress');
  await jobs.runner.cancel('early');
  const record = await (await creating).done;
  t.equal(stateOf(record), 'Canceled');
  t.same(await onDisk(jobs, 'early'), record);
});

await t.test('a failed import leaves its marker', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.container.put('a//b', 'x');
  t.equal(stateOf(await (await jobs.runner.create('import', {})).done), 'Failed');
  t.same(markers(jobs), ['IMPORT_Failed.20260131T120000Z']);
  t.notOk(jobs.hsm.store.everRenamed(), 'a marker that changes is no rename');
});

await t.test('a canceled import does not wait for a walk of the store', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.hsm.container.put('a');
  let walks = false;
  jobs.hsm.coordinator.keepRenamed = () => {
    walks = true;
    return new Promise(() => undefined);
  };
  const job = await jobs.runner.create('import', { name: 'to-cancel' });
  await until(() => walks, { what: 'the walk', intervalMs: 1 });
  await jobs.runner.cancel('to-cancel');
  t.equal(stateOf(await job.done), 'Canceled');
});

await t.test('a canceled export is Canceled, and nothing of it goes on', async (t) => {
  await using jobs = await MemoryJobs.start();
  for (let n = 0; n < 20; n++) jobs.hsm.store.write(`f${n}`, 'x');
  jobs.hsm.pool.gate = () => new Promise(() => undefined);
  const job = await jobs.runner.create('export', { name: 'to-cancel' });
  await until(() => jobs.hsm.pool.calls.length === 4, { what: 'the uploads', intervalMs: 1 });
  await jobs.runner.cancel('to-cancel');
  t.match((await job.done).properties, { adminStatus: 'Cancel', status: { state: 'Canceled' } });
  t.equal(jobs.hsm.store.openFds, 0);
  t.equal(jobs.hsm.container.blobs.size, 0);
  t.match(jobs.hsm.coordinator.status(), { running: { explicit: 0 }, waiting: { archive: 0 } });
});

await t.test('watchers see every job to its end, and waiting ends with the final record', async (t) => {
  await using jobs = await MemoryJobs.start();
  const held = gate();
  jobs.hsm.container.before = () => held.opened;
  const job = await jobs.runner.create('import', { name: 'watched' });
  const states: string[] = [];
  const watching = (async () => {
    for await (const record of jobs.runner.watch('watched')) {
      states.push(stateOf(record));
      held.open();
    }
  })();
  const waited = await jobs.runner.wait('watched');
  await watching;
  t.same(waited, await job.done);
  t.equal(states.at(0), 'InProgress');
  t.equal(states.at(-1), 'Completed');
  t.same(await jobs.runner.wait('watched'), waited, 'also when it is over already');
  const stop = new AbortController();
  jobs.hsm.container.before = () => new Promise(() => undefined);
  await jobs.runner.create('import', { name: 'endless' });
  const endless = jobs.runner.wait('endless', stop.signal);
  stop.abort(new Error('enough'));
  await t.rejects(endless, { message: 'enough' });
  await jobs.runner.cancel('endless');
});

await t.test('an import that a stopped daemon left begins again under its name', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.pageSize = 1;
  container.put('dir', '', { hdi_isfolder: 'true', modtime: '5000000000' });
  container.put('dir/a', 'a');
  container.put('dir/b', 'b');
  let pages = 0;
  container.before = () => (++pages > 2 ? new Promise(() => undefined) : undefined);
  const job = await jobs.runner.create('import', { name: 'resumed', conflictResolutionMode: 'Fail' });
  await until(() => store.paths().includes('dir/a'), { what: 'the first stub', intervalMs: 1 });
  const waiting = jobs.runner.wait('resumed');
  waiting.catch(() => undefined);
  await jobs.runner[Symbol.asyncDispose]();
  t.equal(stateOf(await job.done), 'InProgress');
  await t.rejects(waiting, { code: 'Interrupted' });
  t.equal(stateOf(await onDisk(jobs, 'resumed')), 'InProgress');

  container.before = () => undefined;
  await store.setAttributes('dir', { mtimeNs: 1n });
  jobs.hsm.clock.ms += 60_000;
  await jobs.restart();
  const record = await jobs.runner.wait('resumed');
  t.match(record.properties.status, {
    state: 'Completed',
    totalBlobsWalked: 3,
    importedFiles: 1,
    preexistingFiles: 1,
    preexistingDirectories: 1,
    totalConflicts: 0,
  });
  t.equal((await store.lookup(['dir']))[0]?.mtimeNs, 5_000_000_000n, 'the time that children had changed');
  t.same(markers(jobs), [], 'also of the first beginning');
});

await t.test('what a dead daemon left otherwise ends honestly', async (t) => {
  await using jobs = await MemoryJobs.start();
  await (
    await jobs.runner.create('export', { name: 'exported' })
  ).done;
  await (
    await jobs.runner.create('import', { name: 'imported' })
  ).done;
  const follow = { changeSource: 'listing', changeSourceReason: 'as asked for', pollIntervalMs: 1 } as const;
  for (const create of [
    () => jobs.runner.create('auto-import', { name: 'followed', ...follow }),
    () => jobs.runner.create('auto-export', { name: 'sent', pollIntervalMs: 1 }),
  ]) {
    const { name, done } = await create();
    await jobs.runner.cancel(name);
    await done;
  }
  const rows = [
    ['exported', 'InProgress', 'Failed', /the daemon ended while the job ran/],
    ['exported', 'Cancelling', 'Canceled', undefined],
    ['imported', 'Cancelling', 'Canceled', undefined],
    ['followed', 'Disabling', 'Disabled', undefined],
    ['sent', 'Disabling', 'DisableFailed', /the daemon ended .* an export job copies the rest/],
  ] as const;
  for (const [name, before, after, message] of rows) {
    const record = await onDisk(jobs, name);
    const status = Object.entries(record.properties.status).filter(
      ([field]) => !field.startsWith('lastCompletionTime'),
    );
    const left = {
      ...record,
      properties: { ...record.properties, status: { ...Object.fromEntries(status), state: before } },
    };
    await writeFile(join(jobs.folder, 'jobs', name, 'record.json'), JSON.stringify(left));
    await jobs.restart();
    const now = jobs.runner.get(name);
    t.equal(stateOf(now), after, `${name} ${before}`);
    t.ok(isFinal(now));
    t.ok(endOf(now), 'with the time');
    if (message !== undefined) {
      const said =
        now.kind === 'export'
          ? { errorCode: 'Interrupted', errorMessage: message }
          : { statusCode: 'Interrupted', statusMessage: message };
      t.match(now.properties.status, said);
    }
    t.same(await onDisk(jobs, name), now);
    t.equal(jobs.runner.running(), undefined);
    const logged = (): string =>
      [...jobs.logs.logs]
        .find(([blob]) => blob.includes(`/${name}/`))?.[1]
        .split('\n')
        .at(-2) ?? '';
    const isEnd = (): boolean => logged().includes(`"code":"${after}"`) && logged().includes('had ended');
    await until(isEnd, { what: `the end of the log of ${name} in the container` });
  }
});

await t.test('a record that cannot be read does not keep the others from loading', async (t) => {
  await using jobs = await MemoryJobs.start();
  await (
    await jobs.runner.create('export', { name: 'broken' })
  ).done;
  await (
    await jobs.runner.create('export', { name: 'whole' })
  ).done;
  await writeFile(join(jobs.folder, 'jobs', 'broken', 'record.json'), '{"kind":"export"');
  await jobs.restart();
  t.same(
    jobs.runner.list().map(({ name }) => name),
    ['whole'],
  );
});

await t.test('a logging container that is down costs the job its log there, nothing else', async (t) => {
  await using jobs = await MemoryJobs.start();
  jobs.logs.before = () => Promise.reject(new BlobError('unreachable', 'down'));
  jobs.hsm.container.put('a//b', 'x');
  t.equal(
    stateOf(await (await jobs.runner.create('import', { name: 'unlogged', maximumErrors: -1 })).done),
    'CompletedPartial',
  );
  const local = await readFile(join(jobs.folder, 'jobs', 'unlogged', 'log.jsonl'), 'utf8');
  t.match(local, /"blob":"a\/\/b"/);
  jobs.logs.before = () => undefined;
  await (
    await jobs.runner.create('export', { name: 'logged' })
  ).done;
  t.match([...jobs.logs.logs.keys()], [/^fs\/export\/logged\/20260131T120000Z\.jsonl$/]);
});

await t.test('what an import deletes is in its log before, also when it is interrupted then', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.pageSize = 1;
  for (const name of ['f', 'g', 'h']) container.put(name, 'theirs');
  store.write('f', 'mine');
  let pages = 0;
  container.before = () => (++pages > 2 ? new Promise(() => undefined) : undefined);
  const log = join(jobs.folder, 'jobs/cut-off/log.jsonl');
  const reached = gate();
  let before = '';
  store.before = async (call) => {
    if (call !== 'replaceEntry') return;
    before = await readFile(log, 'utf8');
    reached.open();
  };
  const job = await jobs.runner.create('import', {
    name: 'cut-off',
    conflictResolutionMode: 'OverwriteIfDirty',
  });
  await reached.opened;
  await jobs.runner[Symbol.asyncDispose]();
  t.equal(stateOf(await job.done), 'InProgress');
  container.before = () => undefined;
  await jobs.restart();
  await jobs.runner.wait('cut-off');
  t.match(before, '"path":"f","code":"Delete"');
  t.ok((await readFile(log, 'utf8')).startsWith(before), 'and a resumed import goes on with it');
});

await t.test('an import that begins again keeps what was made here since it passed it', async (t) => {
  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    container.pageSize = 1;
    for (const name of ['changed', 'linked', 'saved']) container.put(name, 'theirs');
    container.put('link', 'theirs', { is_symlink: 'true' });
    for (const name of ['x', 'y', 'z']) container.put(name, 'theirs');
    const held = gate();
    let pages = 0;
    container.before = (call) => (call === 'list' && ++pages > 5 ? held.opened : undefined);
    await jobs.runner.create('import', { name: 'resumed', conflictResolutionMode: mode, maximumErrors: -1 });
    await until(() => store.paths().includes('saved'), { what: 'the stubs', intervalMs: 1 });
    await coordinator.restore(store.fidOf('changed'));
    store.write('changed', 'mine');
    // As most editors do.
    store.unlink('saved');
    store.write('saved', 'mine');
    store.unlink('linked');
    store.symlink('linked', 'mine');
    store.unlink('link');
    store.symlink('link', 'mine');
    await jobs.runner[Symbol.asyncDispose]();
    held.open();
    await jobs.restart();
    const { status } = (await jobs.runner.wait('resumed')).properties;
    t.match(status, { state: 'CompletedPartial', totalErrors: 0, totalConflicts: 4 }, mode);
    for (const name of ['changed', 'saved']) t.equal(store.content(name), 'mine', `${mode}: ${name}`);
    for (const name of ['linked', 'link'])
      t.equal(String(await store.readlink(store.fidOf(name))), 'mine', `${mode}: ${name}`);
  }
});

await t.test('a cancel of a job whose log is on its way lets the next one begin', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('f', 'x');
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  jobs.logs.before = () => gate;
  const job = await jobs.runner.create('import', { name: 'done' });
  await until(() => jobs.logs.calls.length > 0, { what: 'the log', intervalMs: 1 });
  await t.rejects(jobs.runner.cancel('done'), { code: 'Conflict', message: /is already Completed/ });
  t.equal(stateOf(await job.done), 'Completed');
  t.same(store.paths(), ['f'], 'no marker is left');
  const next = await jobs.runner.create('import', { name: 'next' });
  go();
  t.equal(stateOf(await next.done), 'Completed');
  await until(() => jobs.logs.logs.size === 2, { what: 'both logs', intervalMs: 1 });
  t.match(jobs.lines('done').at(-1), { code: 'Completed' });
});

await t.test('an import whose marker is taken away is over: no cancel is accepted and lost', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('f', 'x');
  let [go, arrived] = [(): void => undefined, false];
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  store.before = (call) => {
    if (call !== 'remove') return;
    arrived = true;
    return gate;
  };
  const job = await jobs.runner.create('import', { name: 'done' });
  await until(() => arrived, { what: 'the marker to go', intervalMs: 1 });
  const refused = t.rejects(jobs.runner.cancel('done'), { message: /is already Completed/ });
  t.equal(stateOf(jobs.runner.get('done')), 'InProgress');
  go();
  await refused;
  t.equal(stateOf(await job.done), 'Completed');
});

await t.test('the marker of a canceled import goes with the job', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('f', 'x');
  container.before = (call) => (call === 'list' ? new Promise<void>(() => undefined) : undefined);
  const job = await jobs.runner.create('import', { name: 'cut' });
  await until(() => container.calls.length > 0, { what: 'the listing', intervalMs: 1 });
  await jobs.runner.cancel('cut');
  await job.done;
  t.match(store.paths(), [/^IMPORT_Canceled\./]);
  await jobs.runner.delete('cut');
  t.same(store.paths(), []);
});

const follows = {
  name: 'follows',
  changeSource: 'listing',
  changeSourceReason: 'as asked for',
  pollIntervalMs: 1,
} as const;

await t.test('a job whose end the store does not take keeps its place until it does', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { runner, folder } = jobs;
  const { coordinator } = jobs.hsm;
  const job = await runner.create('auto-import', follows);
  const record = join(folder, 'jobs', 'follows', 'record.json');
  // A directory in the place of the record: nothing can be renamed over it.
  await until(() => 'scanEndTime' in runner.get('follows').properties.status, { what: 'its full sync' });
  await rm(record);
  await mkdir(join(record, 'in the way'), { recursive: true });
  await runner.cancel('follows').catch(() => undefined);
  await until(() => isFinal(runner.get('follows')), { what: 'the job to be over' });

  t.not(coordinator.status().blocked, null, 'what it keeps away would meet it again at the next start');
  const refusal = { code: 'Conflict', message: /'follows' is over.*cannot be written.*(?:EISDIR|ENOTEMPTY)/ };
  await t.rejects(runner.create('import', {}), refusal);
  await t.rejects(runner.delete('follows'), { code: 'Conflict' });
  await rm(record, { recursive: true });
  t.ok(isFinal(await job.done));
  t.ok(isFinal(await onDisk(jobs, 'follows')));
  t.equal(coordinator.status().blocked, null);
  t.equal(stateOf(await (await runner.create('import', {})).done), 'Completed');
});

await t.test('a job that is over for the store, too, keeps nothing away at a start', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { runner, folder } = jobs;
  const held = gate();
  await (
    await runner.create('import', { name: 'an-import' })
  ).done;
  await runner.create('auto-import', follows);
  await runner[Symbol.asyncDispose]();
  // A daemon that was killed twice has left two that run.
  const path = join(folder, 'jobs', 'an-import', 'record.json');
  const left = JSON.parse(await readFile(path, 'utf8')) as { properties: { status: { state: string } } };
  left.properties.status.state = 'InProgress';
  await writeFile(path, JSON.stringify(left));
  jobs.hsm.container.before = () => held.opened;
  await jobs.restart();
  t.equal(jobs.runner.running()?.name, 'an-import');
  t.ok(isFinal(jobs.runner.get('follows')), 'one goes on');
  t.equal(jobs.hsm.coordinator.status().blocked, null);
  held.open();
});

await t.test(
  'a cancel that comes too late waits for no store, and what was never recorded can be deleted',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { runner, folder } = jobs;
    const uploading = gate();
    jobs.logs.before = () => uploading.opened;
    const job = await runner.create('import', { name: 'late' });
    const record = join(folder, 'jobs', 'late', 'record.json');
    await until(() => jobs.logs.calls.length > 0, { what: 'its log to be on the way' });
    await rm(record);
    await mkdir(join(record, 'in the way'), { recursive: true });
    await t.rejects(runner.cancel('late'), { code: 'Conflict', message: /already Failed/ });
    await rm(record, { recursive: true });
    uploading.open();
    await job.done;

    await writeFile(join(folder, 'jobs', 'never'), 'no folder can be made here');
    await t.rejects(runner.create('import', { name: 'never' }));
    await until(() => runner.running() === undefined, { what: 'the slot to be free' });
    await rm(join(folder, 'jobs', 'never'));
    await runner.delete('never');
    t.notOk(runner.has('never'));
  },
);
