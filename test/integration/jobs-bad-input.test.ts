/** What a job of each kind makes of a container, credentials or a log that do not do: a clear error, nothing lost, no job left running. */
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ContainerSASPermissions } from '@azure/storage-blob';
import t, { type Test } from 'tap';
import { finalStates } from '../../src/base/control-api.js';
import type { AutoExportRecord } from '../../src/jobs/export/auto-export-record.js';
import { autoExportRuns } from '../../src/jobs/export/auto-export-record.js';
import type { JobKind, JobRecord } from '../../src/jobs/job.js';
import { Azurite } from '../helpers/azurite.js';
import { FaultServer, type Fault } from '../helpers/fault-server.js';
import { Host } from '../helpers/host.js';
import { HS, hsmFlags } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

const refusal = (code: string, message: string): Fault => ({ kind: 'status', status: 403, code, message });
const refused =
  'Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly';
const expired = 'Signature not valid in the specified time frame';
const skewed = 'The date header in the request is older than 15 minutes';

/** What becomes of a job, and what its record and the command line say; nothing of a job with nothing to complain of. */
type Wanted = readonly [state: string, says?: RegExp];

interface Rig {
  readonly container: string;
  readonly logs: string;
  readonly mount: TestMount;
  readonly env: Readonly<Record<string, string>>;
}

interface Trouble {
  readonly title: string;
  /** Permissions of a SAS in place of the account's key. */
  readonly sas?: string;
  /** Once, when the mount is there. */
  readonly once?: (rig: Rig) => Promise<unknown>;
  /** Before each job; taken back behind it. */
  readonly inject?: () => void;
  /** Blob sync of an auto-import has begun before. */
  readonly late?: boolean;
  /** It stays, whatever is taken back. */
  readonly lasting?: boolean;
  readonly wanted: Readonly<Record<JobKind, Wanted>>;
}

const healthy = {
  import: ['Completed'],
  export: ['Completed'],
  'auto-import': ['Disabled'],
  'auto-export': ['Disabled'],
} as const satisfies Trouble['wanted'];
const kinds = Object.keys(healthy) as readonly JobKind[];
/** An account that refuses everything ends both. */
const exportsNothing = (advice: string): Pick<Trouble['wanted'], 'export' | 'auto-export'> => ({
  export: ['Failed', new RegExp(`nothing more can be exported: .*${advice}`)],
  'auto-export': ['Failed', new RegExp(`nothing more can be exported: .*${advice}`)],
});
/** One that refuses writes may take the next; an auto-export goes on and says so. */
const refusesWrites = (advice: string): Pick<Trouble['wanted'], 'export' | 'auto-export'> => ({
  export: ['Failed', new RegExp(`files were not exported, the first: .*${advice}`)],
  'auto-export': [
    'DisableFailed',
    new RegExp(`(could not export everything|not everything could be exported), the first: .*${advice}`),
  ],
});
const wrongKey = "access refused .*: the account key or this host's clock is wrong";
const wrongSas = 'the SAS is wrong, expired, or lacks a permission';

t.test('a job over what it cannot use', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const faults = await FaultServer.start(azurite.url);
  t.teardown(() => faults[Symbol.asyncDispose]());
  const settings = {
    LUSTRITE_TRANSFER_TRIES: '1',
    AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(faults.url),
  };
  const list = { blob: '', query: 'comp=list' };

  const withSas = async (container: string, permissions: string): Promise<Rig['env']> => {
    const url = await azurite.client(container).generateSasUrl({
      permissions: ContainerSASPermissions.parse(permissions),
      expiresOn: new Date(Date.now() + 3600_000),
    });
    const { search } = new URL(url);
    const connection = `BlobEndpoint=${faults.url};SharedAccessSignature=${search.slice(1)}`;
    return { ...settings, AZURE_STORAGE_CONNECTION_STRING: connection };
  };

  /** A mount with a file that the container has, and some that it has not. */
  const start = async (t: Test, { sas }: Pick<Trouble, 'sas'>): Promise<Rig> => {
    faults.clear();
    const [container, logs] = [await azurite.newContainer(), await azurite.newContainer('logs')];
    await azurite.client(container).getBlockBlobClient('there').upload('in the container', 16);
    const env = sas === undefined ? settings : await withSas(container, sas);
    const flags = sas === undefined ? ['--logging-container', logs] : [];
    const mount = await TestMount.start(t, { container, env, flags });
    return { container, logs, mount, env };
  };

  /** Files that only the mount has, and, where somebody still may, blobs that only the container has. */
  const fill = async (
    { container, mount }: Rig,
    kind: JobKind,
    lasting: boolean,
  ): Promise<readonly string[]> => {
    const names = Array.from({ length: 6 }, (_, n) => `${kind}-${n}`);
    const here = kind === 'import' ? ['mine', ...names] : names;
    await Promise.all(here.map((name) => writeFile(mount.at(name), `${name}, here`)));
    if (!lasting)
      await Promise.all(
        names.map((name) => azurite.client(container).getBlockBlobClient(`${name}.blob`).upload('there', 5)),
      );
    return here;
  };

  const recordOf = async ({ mount }: Rig, name: string): Promise<JobRecord> =>
    (await mount.control('GET', `/v1/jobs/${name}`)) as JobRecord;

  /** Runs a job of that kind into the trouble, and disables it where it goes on. Resolves with its final record. */
  const met = async (t: Test, rig: Rig, kind: JobKind, trouble: Trouble): Promise<JobRecord> => {
    const { mount, env } = rig;
    const name = `${kind}-${trouble.title.replace(/\W/g, '')}`.slice(0, 60);
    const isAuto = kind.startsWith('auto');
    const args = [
      kind,
      'create',
      mount.path,
      '--name',
      name,
      ...(isAuto ? ['--poll-interval', '100ms'] : []),
    ];
    const late = kind === 'auto-import' && trouble.late === true;
    if (!late) trouble.inject?.();
    const [state, says] = trouble.wanted[kind];
    const wait = kind === 'auto-export' ? [] : ['--wait'];
    const ended = await lustrite([...args, ...wait], { env });
    const goesOn = kind === 'auto-export' || state.startsWith('Disable') || late;
    t.equal(ended.code, state === 'Completed' || goesOn ? 0 : 1, `${ended.stdout}${ended.stderr}`);
    if (says !== undefined && !goesOn)
      t.match(`${ended.stdout}${ended.stderr}`, says, 'the command says why');
    if (late) trouble.inject?.();
    const isDisabled = state.startsWith('Disable');
    if (kind === 'auto-export' && isDisabled) await iterates(t, rig, name, says);
    if (isDisabled) await mount.control('POST', `/v1/jobs/${name}/cancel`, {});
    return until(
      async () => {
        const record = await recordOf(rig, name);
        return finalStates.includes(record.properties.status.state) && record;
      },
      { what: `${name} to end` },
    );
  };

  /** The record says what the last iteration could not. */
  const iterates = async (t: Test, rig: Rig, name: string, says = /.*/): Promise<void> => {
    const after = async (iterations: number): Promise<AutoExportRecord['properties']['status']> =>
      until(
        async () => {
          const { status } = ((await recordOf(rig, name)) as AutoExportRecord).properties;
          return status.exportIterationCount > iterations && status;
        },
        { what: `iteration ${String(iterations)} of ${name} to end` },
      );
    const first = await after(1);
    t.match(first, { state: 'InProgress', statusMessage: autoExportRuns });
    t.match(first, { statusMessage: says });
    const second = await after(first.exportIterationCount + 1);
    t.match(second, { state: 'InProgress', statusMessage: says });
  };

  const troubles: readonly Trouble[] = [
    {
      title: 'a container that was deleted',
      once: ({ container }) => azurite.client(container).delete(),
      lasting: true,
      wanted: {
        import: ['Failed', /container '.*' of account '.*' does not exist: create it, or check the name/],
        'auto-import': [
          'Failed',
          /container '.*' of account '.*' does not exist: create it, or check the name/,
        ],
        ...exportsNothing('does not exist: create it, or check the name'),
      },
    },
    {
      title: 'a key that was rotated',
      inject: () => faults.inject({}, refusal('AuthenticationFailed', refused)),
      wanted: {
        import: [
          'Failed',
          /access refused \(AuthenticationFailed\): the account key or this host's clock is wrong/,
        ],
        'auto-import': [
          'Failed',
          /access refused \(AuthenticationFailed\): the account key or this host's clock is wrong/,
        ],
        ...exportsNothing(wrongKey),
      },
    },
    {
      title: 'a clock that is wrong',
      inject: () => faults.inject({}, refusal('AuthenticationFailed', skewed)),
      wanted: {
        import: ['Failed', /this host's clock is wrong.*older than 15 minutes/],
        'auto-import': ['Failed', /this host's clock is wrong.*older than 15 minutes/],
        ...exportsNothing(wrongKey),
      },
    },
    {
      title: 'a SAS that expires in the middle',
      sas: 'rlwcda',
      inject() {
        // The second page of a listing, which has more than two by then; some files of an export.
        faults.inject({ ...list, query: 'marker=' }, refusal('AuthenticationFailed', expired));
        faults.inject(list, { kind: 'small-pages', names: 5 });
        faults.inject({ method: 'PUT', skip: 4 }, refusal('AuthenticationFailed', expired));
      },
      late: true,
      wanted: {
        import: [
          'Failed',
          /the SAS is wrong, expired, or lacks a permission.*not valid in the specified time frame/,
        ],
        'auto-import': [
          'Failed',
          /the SAS is wrong, expired, or lacks a permission.*not valid in the specified time frame/,
        ],
        ...refusesWrites(`${wrongSas}.*not valid in the specified time frame`),
      },
    },
    {
      title: 'a SAS that may only read',
      sas: 'rl',
      wanted: { ...healthy, ...refusesWrites(wrongSas) },
      lasting: true,
    },
    {
      title: 'a logging container that is gone',
      once: ({ logs }) => azurite.client(logs).delete(),
      wanted: healthy,
    },
    {
      title: 'a logging container that is gone, and jobs that fail',
      once: ({ logs }) => azurite.client(logs).delete(),
      inject() {
        faults.inject(list, refusal('AuthorizationFailure', 'This request is not authorized'));
        faults.inject({ method: 'PUT' }, refusal('AuthorizationFailure', 'This request is not authorized'));
      },
      wanted: {
        import: ['Failed', /access refused \(AuthorizationFailure\)/],
        'auto-import': ['Failed', /access refused \(AuthorizationFailure\)/],
        ...exportsNothing(wrongKey),
      },
    },
  ];

  for (const trouble of troubles) {
    await t.test(trouble.title, async (t) => {
      const rig = await start(t, trouble);
      await using mount = rig.mount;
      const { container } = rig;
      await trouble.once?.(rig);
      const lasting = trouble.lasting === true;
      const files: string[] = [];
      for (const kind of kinds) {
        await t.test(`${kind} ends ${trouble.wanted[kind][0]}`, async (t) => {
          files.push(...(await fill(rig, kind, lasting)));
          const { name, properties } = await met(t, rig, kind, trouble);
          faults.clear();
          const [state, says = /./] = trouble.wanted[kind];
          t.equal(properties.status.state, state);
          t.match(JSON.stringify(properties), says, 'its record says what it could not do');
          t.ok(existsSync(join(mount.store, 'jobs', name, 'log.jsonl')), 'its log is in the store');
          await mount.untilJobsEnd();
          for (const file of files) t.equal(await readFile(mount.at(file), 'utf8'), `${file}, here`);
          if (lasting) t.equal((await hsmFlags(mount.at('mine'))) & HS.ARCHIVED, 0, 'no blob has it');
        });
      }
      if (!lasting) {
        const request = { conflictResolutionMode: 'Skip', maximumErrors: -1 };
        const ended = [await mount.job('export', {}), await mount.job('import', request)];
        for (const job of ended)
          t.match(job, { properties: { status: { state: 'Completed' } } }, `the next ${job.kind}`);
        for (const file of files) {
          const body = await azurite.client(container).getBlobClient(file).downloadToBuffer();
          t.equal(body.toString(), `${file}, here`, 'has everything');
          if (file !== 'mine') t.equal(await readFile(mount.at(`${file}.blob`), 'utf8'), 'there');
        }
      }
      if (trouble.title.startsWith('a logging container')) {
        t.match(mount.log(), /the job log was not uploaded/);
        await mount.kill();
        await mount.remount();
        t.match(mount.log(), /does not exist: .*; the logs of jobs stay in/, 'and costs no mount');
      }
      if (trouble.sas === 'rl') {
        await mount.unmount();
        await mount.remount({ env: await withSas(container, 'rlwcda') });
        const again = await mount.job('export', {});
        t.match(again, { properties: { status: { state: 'Completed' } } }, 'another SAS makes up for it');
        t.equal((await azurite.client(container).getBlobClient('mine').downloadToBuffer()).length, 10);
      }
    });
  }

  await t.test('an account that is busy for good fails an import', async (t) => {
    const { mount: started, env } = await start(t, {});
    await using mount = started;
    faults.inject(list, { kind: 'status', status: 503, code: 'ServerBusy', message: 'The server is busy' });
    const ended = await lustrite(['import', 'create', mount.path, '--name', 'again', '--wait'], { env });
    faults.clear();
    t.equal(ended.code, 1, ended.stderr);
    t.match(`${ended.stdout}${ended.stderr}`, /is throttling requests/);
    t.match((await mount.jobs()).find(({ name }) => name === 'again')?.properties.status.state, 'Failed');
  });

  await t.test('a mount over what cannot be mounted says what to do', async (t) => {
    faults.clear();
    const open = await azurite.newContainer('open');
    const closed = await azurite.newContainer('closed');
    await azurite.client(open).setAccessPolicy('container');
    const rows: readonly (readonly [string, readonly string[], Readonly<Record<string, string>>, RegExp])[] =
      [
        [
          'a container that is missing',
          ['--container', 'nobody'],
          settings,
          /does not exist: create it, or check the name/,
        ],
        [
          'the data container for logs',
          ['--container', open, '--logging-container', open],
          settings,
          /is the container to mount; logs need another/,
        ],
        [
          'a logging container that is missing',
          ['--container', closed, '--logging-container', 'nobody'],
          settings,
          /container 'nobody'.* does not exist: create it/,
        ],
        [
          'a public container',
          ['--container', open],
          settings,
          /can be read by everybody \(access level \w+\): set its access level to Private/,
        ],
        ['a public container and no credentials', ['--container', open], {}, /AZURE_STORAGE_/],
        ['a name that no container has', ['--container', 'Not_A_Name'], settings, /Not_A_Name/],
      ];
    for (const [what, flags, env, says] of rows) {
      const host = await Host.create(t, {});
      const ended = await lustrite(['mount', host.mnt, '--store', host.store, ...flags], { env });
      t.ok(ended.code, what);
      t.match(ended.stderr, says, what);
      t.notMatch(ended.stderr, /\n {4}at /, `${what}: no stack`);
    }
  });
});
