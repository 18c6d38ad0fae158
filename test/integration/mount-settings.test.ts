/** What a mount is told, through the real command line and a real mount. */
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { JobView } from '../../src/base/control-api.js';
import { Azurite } from '../helpers/azurite.js';
import { Host } from '../helpers/host.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

const aTime = 'a time';
const zeros = (names: string): object => Object.fromEntries(names.split(' ').map((name) => [name, 0]));
const imported = zeros(
  'totalBlobsImported importedFiles importedDirectories importedSymlinks preexistingFiles preexistingDirectories ' +
    'preexistingSymlinks totalErrors totalConflicts',
);

/** A job that is created without a flag, in the names of ARM: its properties, and what it has besides when it is over. */
const jobs: readonly {
  readonly kind: string;
  readonly properties: Readonly<Record<string, unknown>> & { readonly status: object };
  /** What differs under compat.strict. */
  readonly strict?: object;
  readonly atEnd: readonly string[];
  /** Whatever is in the status as soon as the job has done something. */
  readonly did?: RegExp;
}[] = [
  {
    kind: 'import',
    properties: {
      adminStatus: 'Active',
      importPrefixes: ['/'],
      conflictResolutionMode: 'Skip',
      maximumErrors: -1,
      status: {
        state: 'InProgress',
        statusMessage: 'Import job is running',
        lastStartedTime: aTime,
        totalBlobsWalked: 0,
        ...imported,
      },
    },
    strict: { conflictResolutionMode: 'Fail', maximumErrors: 0 },
    atEnd: ['lastCompletionTime', 'blobsWalkedPerSecond', 'blobsImportedPerSecond'],
  },
  {
    kind: 'export',
    properties: {
      adminStatus: 'Active',
      filesystemPath: '/',
      status: {
        state: 'InProgress',
        lastStartedTime: aTime,
        ...zeros(
          'percentComplete filesDiscovered totalBytesDiscovered totalFilesExported totalBytesExported totalMiBExported ' +
            'totalFilesFailed totalFilesSkipped totalDirectoriesExported filesExportedPerSecond mibExportedPerSecond',
        ),
      },
    },
    atEnd: ['lastCompletionTime'],
  },
  {
    kind: 'auto-import',
    properties: {
      adminStatus: 'Enable',
      autoImportPrefixes: ['/'],
      conflictResolutionMode: 'Skip',
      enableDeletions: false,
      maximumErrors: -1,
      changeSource: 'listing',
      changeSourceReason: 'the account has no change feed ($blobchangefeed)',
      pollIntervalMs: 5000,
      status: {
        state: 'InProgress',
        statusMessage: 'Auto-import: the full sync begins',
        totalBlobsWalked: 0,
        ...imported,
        rateOfBlobWalk: 0,
        rateOfBlobImport: 0,
        blobSyncEvents: { ...imported, deletions: 0, rateOfBlobImport: 0 },
        lastStartedTimeUTC: aTime,
      },
    },
    did: /"lastTimeFullySynchronized"/,
    atEnd: ['scanStartTime', 'scanEndTime', 'lastCompletionTimeUTC'],
  },
  {
    kind: 'auto-export',
    properties: {
      adminStatus: 'Enable',
      autoExportPrefixes: ['/'],
      pollIntervalMs: 5000,
      status: {
        state: 'InProgress',
        statusMessage: 'Auto Export is in progress',
        exportIterationCount: 1,
        ...zeros(
          'totalFilesExported totalMiBExported totalFilesFailed currentIterationFilesDiscovered ' +
            'currentIterationMiBDiscovered currentIterationFilesExported currentIterationMiBExported currentIterationFilesFailed',
        ),
        lastStartedTimeUTC: aTime,
      },
    },
    did: /"lastSuccessfulIterationCompletionTimeUTC"/,
    atEnd: ['lastSuccessfulIterationCompletionTimeUTC', 'lastCompletionTimeUTC'],
  },
];

t.test('settings of a mount', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  for (const name of ['data', 'logs', 'other']) await azurite.service.createContainer(name);
  const data = azurite.service.getContainerClient('data');
  const metadata = { owner: '1000', group: '100', permissions: '0640', modtime: '2023-03-17 15:00:11 +0000' };
  await data.getBlockBlobClient('a/b.txt').upload('content\n', 8, { metadata });

  t.test('what the first mount decided can be left out later, and not be changed', async (t) => {
    const host = await Host.create(t, env);
    const failed = await host.mount('--logging-container', 'missing', '--import-prefix', 'x/');
    t.equal(failed.code, 1, 'a mount that failed decides nothing');
    t.equal((await host.mount('--logging-container', 'logs', '--import-prefix', 'a/', '--wait')).code, 0);
    t.equal((await host.umount()).code, 0);
    const rows: readonly (readonly [readonly string[], RegExp])[] = [
      [['--container', 'other'], /--container data, not other/],
      [['--logging-container', 'other'], /--logging-container logs, not other/],
      [['--import-prefix', 'b/'], /--import-prefix a\/, not b\//],
      [['--no-import'], /--no-import false, not true/],
      [['--import-max-errors', '5'], /--import-max-errors -1, not 5/],
    ];
    for (const [flags, message] of rows) {
      t.match(await host.mount(...flags), { code: 1, stderr: message }, flags.join(' '));
    }
    t.equal((await host.lustrite('mount', host.mnt, '--store', host.store)).code, 0);
    t.equal((await host.status()).loggingContainer, 'logs');
    t.equal((await host.umount()).code, 0);
    const logs = [];
    for await (const blob of azurite.service.getContainerClient('logs').listBlobsFlat()) logs.push(blob.name);
    t.ok(
      logs.some((name) => name.includes('/import/importJobInitialAmlfsPut/')),
      'the log of the import',
    );
  });

  t.test(
    'a mount point alone finds the store that was mounted there last, unless there are two',
    async (t) => {
      const host = await Host.create(t, env);
      const mount = (...flags: readonly string[]) => host.lustrite('mount', host.mnt, ...flags);
      const id = randomUUID().slice(0, 8);
      const names = [`last-${id}-1`, `last-${id}-2`];
      const stores = names.map((name) => `/var/lib/lustrite/devstoreaccount1-${name}`);
      t.teardown(async () => {
        if (mountAt(host.mnt) !== undefined) await host.umount('--lazy');
        for (const store of stores) await rm(store, { recursive: true, force: true });
      });
      t.match(await mount(), { code: 2, stderr: /which container/ });
      for (const name of names) await azurite.service.createContainer(name);
      const [first = '', second = ''] = names;
      t.equal((await mount('--container', first)).code, 0);
      t.equal((await host.umount()).code, 0);
      t.match(await mount(), { code: 0, stdout: `${first} is mounted on ${host.mnt}` });
      t.equal((await host.umount()).code, 0);
      t.equal((await mount('--container', second)).code, 0);
      t.equal((await host.umount()).code, 0);
      t.match(await mount(), {
        code: 2,
        stderr: `which store? ${stores.join(' and ')} were mounted on ${host.mnt}`,
      });
    },
  );

  t.test('a job without flags has the defaults of its kind, and the fields that ARM has', async (t) => {
    const mount = await TestMount.start(t, { container: 'data', env, flags: ['--no-import'] });
    const withoutTimes = (key: string, value: unknown): unknown => (/^last.*Time/.test(key) ? aTime : value);
    for (const strict of [false, true]) {
      if (strict) {
        await mount.unmount();
        await mount.remount({ env: { LUSTRITE_COMPAT_STRICT: 'true' } });
      }
      for (const { kind, properties, strict: differs, did, atEnd } of jobs) {
        const title = `${kind}${strict ? ', compat.strict' : ''}`;
        const { stdout } = await lustrite([kind, 'create', mount.path, '--json']);
        const created = JSON.parse(stdout, withoutTimes) as JobView;
        t.same(created.properties, strict ? { ...properties, ...differs } : properties, title);
        const now = async (): Promise<JobView['properties']['status']> =>
          ((await mount.control('GET', `/v1/jobs/${created.name}`)) as JobView).properties.status;
        if (did !== undefined) {
          await until(async () => did.test(JSON.stringify(await now())), {
            what: `${title} to do something`,
          });
          await mount.control('POST', `/v1/jobs/${created.name}/cancel`, {});
        }
        await mount.untilJobsEnd();
        const fields = Object.keys(await now()).sort();
        t.same(fields, [...Object.keys(properties.status), ...atEnd].sort(), `${title}, over`);
      }
    }
  });

  t.test('--no-import starts empty, and --wait has nothing to wait for', async (t) => {
    const host = await Host.create(t, env);
    t.match(await host.mount('--no-import', '--wait'), { code: 0, stdout: /nothing was imported/ });
    t.same(await readdir(host.mnt), []);
    t.equal((await host.umount()).code, 0);
  });

  t.test('--wait exits 1 when the import is not Completed, and the mount stays', async (t) => {
    const odd = azurite.service.getContainerClient('other');
    await odd.getBlockBlobClient('fine').upload('1', 1);
    await odd.getBlockBlobClient('not//fine').upload('2', 1);
    const host = await Host.create(t, env);
    const ended = await host.mount('--container', 'other', '--wait');
    t.match(ended, { code: 1, stdout: /CompletedPartial/, stderr: /the mount stays/ });
    t.equal(await readFile(host.at('fine'), 'utf8'), '1');
    t.equal((await host.umount()).code, 0);
  });

  t.test('a read-only mount answers every change with EROFS, and reads', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--read-only', '--wait')).code, 0);
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n');
    await t.rejects(writeFile(host.at('a/b.txt'), 'x'), { code: 'EROFS' });
    await t.rejects(mkdir(host.at('dir')), { code: 'EROFS' });
    await t.rejects(rm(host.at('a/b.txt')), { code: 'EROFS' });
    await t.rejects(chmod(host.at('a/b.txt'), 0o600), { code: 'EROFS' });
    t.equal((await host.umount()).code, 0);
  });

  t.test('blobs without metadata get the owner and the modes that the mount names', async (t) => {
    const plain = azurite.service.getContainerClient('plain');
    await plain.create();
    await plain.getBlockBlobClient('dir/file').upload('1', 1);
    const host = await Host.create(t, env);
    const flags = ['--uid', '12', '--gid', '34', '--file-mode', '0604', '--dir-mode', '0701'];
    t.equal((await host.mount('--container', 'plain', '--wait', ...flags)).code, 0);
    t.match(await stat(host.at('dir/file')), { uid: 12, gid: 34, mode: 0o100604 });
    t.match(await stat(host.at('dir')), { uid: 12, gid: 34, mode: 0o40701 });
    t.equal((await host.umount()).code, 0);
  });

  t.test('secrets are in no argv, no environment and no log', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    const { pid } = await host.status();
    for (const file of ['cmdline', 'environ']) {
      t.notMatch(await readFile(`/proc/${pid}/${file}`, 'latin1'), /AccountKey|Eby8vdM/, file);
    }
    t.notMatch(await host.log(), /AccountKey=[^*]|Eby8vdM/, 'daemon.log');
    for (const file of ['first-mount.json', 'meta.json']) {
      t.notMatch(await readFile(join(host.store, file), 'utf8'), /Eby8vdM/, file);
    }
    t.equal((await stat(join(host.store, 'daemon.log'))).mode & 0o777, 0o600);
    t.equal((await stat(join(host.store, 'daemon.sock'))).mode & 0o777, 0o600);
    t.equal((await stat(host.store)).mode & 0o777, 0o700);
    t.equal((await host.umount()).code, 0);

    const secrets = join(host.folder, 'secrets');
    await writeFile(secrets, `AZURE_STORAGE_CONNECTION_STRING="${azurite.connectionString}"\n`, {
      mode: 0o600,
    });
    const ended = await lustrite(
      ['mount', host.mnt, '--container', 'data', '--store', host.store, '--credentials-file', secrets],
      { env: { AZURE_STORAGE_CONNECTION_STRING: undefined } },
    );
    t.equal(ended.code, 0, 'a credentials file does as well');
    t.equal((await host.umount()).code, 0);
  });
});
