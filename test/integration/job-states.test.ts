/** What each command says to a job in each state that it can be met in: states x commands, through the command line. */
import { writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { JobView } from '../../src/base/control-api.js';
import { transitions, type JobKind } from '../../src/jobs/job.js';
import { lustrite } from '../helpers/mount.js';
import type { Match } from '../helpers/fault-server.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

/** What a command answers: nothing but success, or what it says with exit code 1. */
type Answer = 'done' | RegExp;

interface Row {
  readonly kind: JobKind;
  readonly state: string;
  /** Before the job is created; resolves with what lets held requests go. */
  readonly prepare?: (lab: MountedContainer, name: string) => Promise<(() => void) | undefined>;
  /** Once it is created. */
  readonly then?: (lab: MountedContainer, name: string) => Promise<unknown>;
  /** `cancel`, or `disable` of an auto job; `delete`; the creation of another job. */
  readonly stop: Answer;
  readonly delete: Answer;
  readonly create: Answer;
  /** What it is when nothing holds it any more. */
  readonly ends: string;
}

const listing: Match = { query: 'comp=list' };
const holdListing = (lab: MountedContainer): Promise<() => void> => Promise.resolve(lab.hold(listing));
const refuseListing = async (lab: MountedContainer): Promise<undefined> => {
  await Promise.resolve();
  lab.storage.inject(listing, { kind: 'status', status: 403, code: 'AuthorizationFailure', message: 'no' });
};
/** Also whoever asks whether it is only one blob. */
const refuseExport = async (lab: MountedContainer, name: string): Promise<undefined> => {
  lab.storage.inject({}, { kind: 'status', status: 403, code: 'AuthorizationFailure', message: 'no' });
  await writeFile(lab.at(name), 'new');
};
/** Nobody can import it, and no blob can have the other one's name. */
const badBlob = async (lab: MountedContainer, name: string): Promise<undefined> => {
  await lab.upload({ [`${name}//bad`]: 'no path' });
};
const badFile = async (lab: MountedContainer, name: string): Promise<undefined> => {
  await writeFile(lab.at(`${name}.`), 'no blob');
};
const holdUpload = async (lab: MountedContainer, name: string): Promise<() => void> => {
  const open = lab.hold({ method: 'PUT', blob: name });
  await writeFile(lab.at(name), 'new');
  return open;
};
const uploading = (lab: MountedContainer, name: string): Promise<void> =>
  lab.arrived({ method: 'PUT', blob: name });
const stop = async (lab: MountedContainer, name: string): Promise<void> => {
  await lab.mount.control('POST', `/v1/jobs/${name}/cancel`, {});
};

const uploadingAndStop = async (lab: MountedContainer, name: string): Promise<void> => {
  await uploading(lab, name);
  await stop(lab, name);
};

const already = (state: string) => ({
  stop: new RegExp(`the job '.*' is already ${state}`),
  delete: 'done' as const,
  create: 'done' as const,
  ends: state,
});
/** Whoever asks for what has happened gets it. */
const stopped = (state: string) => ({ ...already(state), stop: 'done' as const });
const running = (kind: JobKind, state: string, ends: string) => ({
  kind,
  state,
  stop: 'done' as const,
  delete: new RegExp(`the job '.*' is ${state}: ${kind.startsWith('auto') ? 'disable' : 'cancel'} it first`),
  create: new RegExp(`the ${kind} job '.*' is running; `),
  ends,
});

const rows: readonly Row[] = [
  { ...running('import', 'InProgress', 'Canceled'), prepare: holdListing },
  { kind: 'import', state: 'Completed', ...already('Completed') },
  { kind: 'import', state: 'CompletedPartial', ...already('CompletedPartial'), prepare: badBlob },
  { kind: 'import', state: 'Failed', ...already('Failed'), prepare: refuseListing },
  { kind: 'import', state: 'Canceled', ...stopped('Canceled'), prepare: holdListing, then: stop },
  { ...running('export', 'InProgress', 'Canceled'), prepare: holdUpload, then: uploading },
  { kind: 'export', state: 'Completed', ...already('Completed') },
  { kind: 'export', state: 'Failed', ...already('Failed'), prepare: badFile },
  {
    kind: 'export',
    state: 'Canceled',
    ...stopped('Canceled'),
    prepare: holdUpload,
    then: uploadingAndStop,
  },
  running('auto-import', 'InProgress', 'Disabled'),
  { kind: 'auto-import', state: 'Disabled', ...stopped('Disabled'), then: stop },
  { kind: 'auto-import', state: 'Failed', ...already('Failed'), prepare: refuseListing },
  running('auto-export', 'InProgress', 'Disabled'),
  { kind: 'auto-export', state: 'Failed', ...already('Failed'), prepare: refuseExport },
  {
    ...running('auto-export', 'Disabling', 'Disabled'),
    prepare: holdUpload,
    then: uploadingAndStop,
  },
  { kind: 'auto-export', state: 'Disabled', ...stopped('Disabled'), then: stop },
  {
    kind: 'auto-export',
    state: 'DisableFailed',
    ...already('DisableFailed'),
    prepare: badFile,
    then: stop,
  },
];

/** A request for a job of each kind, that for a short one first. */
const others: readonly (readonly [JobKind, object])[] = [
  ['export', { filesystemPath: '/nowhere' }],
  ['import', { prefixes: ['/nowhere/'] }],
  ['auto-import', { prefixes: ['/nowhere/'], pollIntervalMs: 100 }],
  ['auto-export', { prefixes: ['/nowhere'], pollIntervalMs: 100 }],
];

/** A store that is slow or broken leads there: unit/job-states.test.ts. */
const elsewhere = ['import Cancelling', 'export Cancelling', 'auto-import Disabling'];

t.test('the table has every state of every kind', (t) => {
  const all = Object.entries(transitions).flatMap(([kind, states]) =>
    Object.keys(states).map((state) => `${kind} ${state}`),
  );
  const here = [...rows.map(({ kind, state }) => `${kind} ${state}`), ...elsewhere];
  t.same(here.sort(), all.sort());
  t.end();
});

/** How a job ends for whoever waits, with the exit code of `create --wait`. */
const waits: readonly (Pick<Row, 'kind' | 'state' | 'prepare' | 'then'> & { readonly code: 0 | 1 })[] = [
  { kind: 'import', state: 'Canceled', prepare: holdListing, then: stop, code: 1 },
  { kind: 'export', state: 'Completed', code: 0 },
  { kind: 'export', state: 'Canceled', prepare: holdUpload, then: uploadingAndStop, code: 1 },
  // Its blob sync goes on.
  { kind: 'auto-import', state: 'InProgress', code: 0 },
  { kind: 'auto-import', state: 'Failed', prepare: refuseListing, code: 1 },
  { kind: 'auto-export', state: 'Disabled', then: stop, code: 0 },
  { kind: 'auto-export', state: 'DisableFailed', prepare: badFile, then: stop, code: 1 },
];

t.test('jobs on a mount', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  await t.test('every command in every state of a job', (t) => commands(t, lab));
  await t.test('--wait ends with the job, its exit code and its ARM object', (t) => waiting(t, lab));
});

async function commands(t: Test, lab: MountedContainer): Promise<void> {
  for (const [at, row] of rows.entries()) {
    const { kind, state, ends } = row;
    await t.test(`${kind} ${state}`, async (t) => {
      const name = `job-${String(at)}`;
      const verb = kind.startsWith('auto') ? 'disable' : 'cancel';
      const command = (what: string, ...args: readonly string[]) =>
        lustrite([kind, what, lab.mount.path, ...args]);
      const answers = async (answer: Answer, what: string, ...args: readonly string[]): Promise<void> => {
        const ended = await command(what, ...args);
        if (answer === 'done') t.match(ended, { code: 0 }, `${what}: ${ended.stderr}`);
        else t.match(ended, { code: 1, stderr: answer }, what);
      };
      const letGo = await row.prepare?.(lab, name);
      const below = kind.endsWith('import') ? ['--prefix', `/${name}`] : ['--path', `/${name}`];
      const pause = kind.startsWith('auto') ? ['--poll-interval', '100ms'] : [];
      await answers('done', 'create', '--name', name, ...below, ...pause);
      await row.then?.(lab, name);
      const now = async (): Promise<string> =>
        ((await lab.mount.control('GET', `/v1/jobs/${name}`)) as JobView).properties.status.state;
      await until(async () => (await now()) === state, { what: `${name} to be ${state}` });

      t.match((await command('show', name)).stdout, new RegExp(`^${kind} ${name} ${state}: `));
      t.match((await command('list')).stdout, new RegExp(`^${kind} +${name} +${state} `, 'm'));
      for (const [another, request] of others) {
        const body = { name: `${name}-other`, ...request };
        const created = lab.mount.control('POST', `/v1/jobs/${another}`, body);
        if (row.create !== 'done') {
          await t.rejects(created, { message: row.create }, `another job: ${another}`);
          continue;
        }
        await t.resolves(created, 'another job');
        break;
      }
      if (row.delete !== 'done') await answers(row.delete, 'delete', name);
      await answers(row.stop, verb, name);
      lab.storage.clear();
      letGo?.();
      await until(async () => (await now()) === ends, { what: `${name} to be ${ends}` });
      await lab.mount.untilJobsEnd();
      t.equal((await command('delete', name)).stdout, `${kind} ${name} is deleted\n`, 'no log is elsewhere');
      await t.rejects(lab.mount.control('GET', `/v1/jobs/${name}`), { message: /there is no job/ });
    });
  }
}

async function waiting(t: Test, lab: MountedContainer): Promise<void> {
  for (const [at, { kind, state, code, prepare, then }] of waits.entries()) {
    const name = `wait-${String(at)}`;
    const seen = async (): Promise<JobView> =>
      (await lab.mount.control('GET', `/v1/jobs/${name}`)) as JobView;
    const letGo = await prepare?.(lab, name);
    const below = kind.endsWith('import') ? ['--prefix', `/${name}`] : ['--path', `/${name}`];
    const pause = kind.startsWith('auto') ? ['--poll-interval', '100ms'] : [];
    const flags = ['--name', name, ...below, ...pause, '--wait', '--json'];
    const created = lustrite([kind, 'create', lab.mount.path, ...flags]);
    if (then !== undefined) {
      await until(async () => (await seen().catch(() => undefined)) !== undefined, { what: name });
      await then(lab, name);
    }
    const ended = await created;
    t.equal(ended.code, code, `${kind} ${state}: ${ended.stderr}`);
    const told = JSON.parse(ended.stdout) as JobView;
    t.match(told, { kind, name, properties: { status: { state } } });
    if (state === 'InProgress') {
      t.match(told.properties.status, { scanEndTime: /^\d{4}-/ }, 'it imported what there was');
      const canceled = await lustrite([kind, 'cancel', lab.mount.path, name, '--wait', '--json']);
      t.equal(canceled.code, 0, 'which is disable by another name');
      t.match(JSON.parse(canceled.stdout), { properties: { status: { state: 'Disabled' } } });
    } else {
      t.same(told, await seen(), `${kind} ${state}: as it is shown from now on`);
    }
    lab.storage.clear();
    letGo?.();
    await lab.mount.untilJobsEnd();
  }
}
