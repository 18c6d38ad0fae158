/** States that only a slow or broken store makes last: what a job in them says to each command. The others: integration/job-states.test.ts. */
import t from 'tap';
import { stateOf, type JobKind } from '../../src/jobs/job.js';
import type { JobRequest } from '../../src/jobs/requests.js';
import { autoImport } from '../helpers/memory-auto-import.js';
import { gate } from '../helpers/memory-hsm.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

const autoImportRequest: JobRequest<'auto-import'> = {
  changeSource: 'listing',
  changeSourceReason: 'as asked for',
  pollIntervalMs: 1,
};

/** Asks for one more job of each kind; rejects where all of them are refused. */
const creations: readonly (readonly [JobKind, (jobs: MemoryJobs) => Promise<unknown>])[] = [
  ['import', ({ runner }) => runner.create('import', {})],
  ['export', ({ runner }) => runner.create('export', {})],
  ['auto-import', ({ runner }) => runner.create('auto-import', autoImportRequest)],
  ['auto-export', ({ runner }) => runner.create('auto-export', { pollIntervalMs: 1 })],
];

interface Row {
  readonly kind: JobKind;
  readonly state: string;
  /** The call of the store in which the job is when somebody ends it. */
  readonly call: string;
  /** Starts the job 'auto', which gets into the call. */
  readonly start: (jobs: MemoryJobs) => Promise<unknown>;
  readonly ends: string;
  /** The file in the root by which the mount shows the state. */
  readonly shows?: RegExp;
}

const changed = (jobs: MemoryJobs): void => {
  jobs.hsm.store.write('taken', 'here');
  jobs.hsm.container.put('taken', 'in the container');
};

const rows: readonly Row[] = [
  {
    kind: 'import',
    state: 'Cancelling',
    call: 'replaceEntry',
    async start(jobs) {
      changed(jobs);
      await jobs.runner.create('import', { name: 'auto', conflictResolutionMode: 'OverwriteIfDirty' });
    },
    ends: 'Canceled',
    shows: /^IMPORT_Cancelling\.\d{8}T\d{6}Z$/,
  },
  {
    kind: 'export',
    state: 'Cancelling',
    call: 'beginArchive',
    async start(jobs) {
      jobs.hsm.store.write('new', 'here');
      await jobs.runner.create('export', { name: 'auto' });
    },
    ends: 'Canceled',
  },
  {
    kind: 'auto-import',
    state: 'Disabling',
    call: 'remove',
    async start(jobs) {
      jobs.hsm.container.put('deleted', 'x');
      await autoImport(jobs);
      jobs.hsm.container.blobs.delete('deleted');
    },
    ends: 'Disabled',
  },
];

for (const { kind, state, call, start, ends, shows } of rows) {
  await t.test(`${kind} ${state}`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { runner } = jobs;
    const held = gate();
    let arrived = false;
    jobs.hsm.store.before = (what) => {
      if (what !== call) return undefined;
      arrived = true;
      return held.opened;
    };
    await start(jobs);
    await until(() => arrived, { what: call, intervalMs: 1 });
    await runner.cancel('auto');
    t.equal(stateOf(runner.get('auto')), state);
    t.equal(runner.running()?.name, 'auto');
    await t.resolves(runner.cancel('auto'), 'once more');
    const ending = new RegExp(
      `the job 'auto' is ${state}: ${kind === 'auto-import' ? 'disable' : 'cancel'} it first`,
    );
    await t.rejects(runner.delete('auto'), { code: 'Conflict', message: ending });
    const inTheWay = new RegExp(`the ${kind} job 'auto' is running; `);
    for (const [another, create] of creations)
      await t.rejects(create(jobs), { code: 'Conflict', message: inTheWay }, `another job: ${another}`);
    t.equal(stateOf(runner.get('auto')), state, 'as it was');
    if (shows !== undefined) {
      const markers = () => jobs.hsm.store.paths().filter((path) => path.startsWith('IMPORT_'));
      await until(() => markers().length === 1 && shows.test(markers()[0] ?? ''), {
        what: `the marker of ${state}`,
        intervalMs: 1,
      });
    }
    held.open();
    t.equal(stateOf(await runner.wait('auto')), ends);
    await until(() => runner.running() === undefined, { what: 'the slot', intervalMs: 1 });
    await runner.delete('auto');
    t.notOk(runner.has('auto'));
  });
}

await t.test('auto-export Failed', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { runner } = jobs;
  jobs.hsm.store.before = (what) => {
    if (what === 'walk') throw new Error('the store is broken');
  };
  await runner.create('auto-export', { name: 'auto', pollIntervalMs: 1 });
  t.match((await runner.wait('auto')).properties.status, {
    state: 'Failed',
    statusCode: 'InternalError',
    statusMessage: /the store is broken/,
  });
  await until(() => runner.running() === undefined, { what: 'the slot', intervalMs: 1 });
  await t.rejects(runner.cancel('auto'), { code: 'Conflict', message: /the job 'auto' is already Failed/ });
  jobs.hsm.store.before = () => undefined;
  const next = await runner.create('export', {});
  t.equal(stateOf(await next.done), 'Completed', 'another job');
  await runner.delete('auto');
  t.notOk(runner.has('auto'));
});
