/** What a job says about a container, credentials or a log that do not do: a clear error, nothing lost, no job left running. */
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ContainerSASPermissions } from '@azure/storage-blob';
import t, { type Test } from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { FaultServer, type Fault } from '../helpers/fault-server.js';
import { Host } from '../helpers/host.js';
import { HS, hsmFlags } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';

const status = (code: string, message: string): Fault => ({ kind: 'status', status: 403, code, message });
const refused =
  'Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly';
const skewed = 'The date header in the request is older than 15 minutes';

t.test('a job over what it cannot use', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const faults = await FaultServer.start(azurite.url);
  t.teardown(() => faults[Symbol.asyncDispose]());
  const settings = {
    LUSTRITE_TRANSFER_TRIES: '1',
    AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(faults.url),
  };

  /** A mount with one file that the container has, and one that it has not. */
  const start = async (t: Test, env: object = {}, flags: readonly string[] = []): Promise<Rig> => {
    faults.clear();
    const container = await azurite.newContainer();
    await azurite.client(container).getBlockBlobClient('there').upload('in the container', 16);
    const mount = await TestMount.start(t, { container, env: { ...settings, ...env }, flags });
    await writeFile(mount.at('mine'), 'only here');
    return { container, mount };
  };

  /** The job has ended as it should, and what is only here is still here and dirty. */
  const survived = async (t: Test, mount: TestMount): Promise<void> => {
    const open = (await mount.jobs()).filter(({ properties }) =>
      /Progress|ing$/.test(properties.status.state),
    );
    t.same(open, [], 'no job is left running');
    t.equal(await readFile(mount.at('mine'), 'utf8'), 'only here');
    t.equal((await hsmFlags(mount.at('mine'))) & HS.ARCHIVED, 0, 'and no blob has it');
  };

  const importRows: readonly {
    readonly title: string;
    readonly fault?: Fault;
    readonly before?: (rig: Rig) => Promise<unknown>;
    readonly says: RegExp;
  }[] = [
    {
      title: 'a container that was deleted',
      before: ({ container }) => azurite.client(container).delete(),
      says: /container '.*' of account '.*' does not exist: create it, or check the name/,
    },
    {
      title: 'a key that was rotated',
      fault: status('AuthenticationFailed', refused),
      says: /access refused \(AuthenticationFailed\): the account key or this host's clock is wrong/,
    },
    {
      title: 'a clock that is wrong',
      fault: status('AuthenticationFailed', skewed),
      says: /this host's clock is wrong.*older than 15 minutes/,
    },
    {
      title: 'an account that is busy for good',
      fault: { kind: 'status', status: 503, code: 'ServerBusy', message: 'The server is busy' },
      says: /is throttling requests/,
    },
  ];
  for (const { title, fault, before, says } of importRows) {
    await t.test(`import: ${title}`, async (t) => {
      const rig = await start(t);
      await using mount = rig.mount;
      await before?.(rig);
      if (fault !== undefined) faults.inject({ blob: '', query: 'comp=list' }, fault);
      const ended = await lustrite(['import', 'create', mount.path, '--name', 'again', '--wait'], {
        env: settings,
      });
      faults.clear();
      t.equal(ended.code, 1, ended.stderr);
      t.match(`${ended.stdout}${ended.stderr}`, says);
      t.match((await mount.jobs()).find(({ name }) => name === 'again')?.properties.status.state, 'Failed');
      await survived(t, mount);
    });
  }

  await t.test('auto-import: credentials that expire under it end it with what to do', async (t) => {
    const { mount: started } = await start(t);
    await using mount = started;
    const create = ['auto-import', 'create', mount.path, '--name', 'auto', '--source', 'listing'];
    t.equal((await lustrite([...create, '--poll-interval', '100ms', '--wait'], { env: settings })).code, 0);
    faults.inject({ blob: '', query: 'comp=list' }, status('AuthenticationFailed', refused));
    await mount.untilJobsEnd();
    faults.clear();
    const shown = await lustrite(['auto-import', 'show', mount.path, 'auto'], { env: settings });
    t.match(shown.stdout, /Failed/);
    t.match(shown.stdout, /access refused \(AuthenticationFailed\)/);
    await survived(t, mount);
  });

  await t.test('export: a SAS that may not write fails each file, which the next export has', async (t) => {
    const container = await azurite.newContainer();
    await azurite.client(container).getBlockBlobClient('there').upload('in the container', 16);
    const sas = async (permissions: string): Promise<string> => {
      const url = await azurite.client(container).generateSasUrl({
        permissions: ContainerSASPermissions.parse(permissions),
        expiresOn: new Date(Date.now() + 3600_000),
      });
      return `BlobEndpoint=${azurite.url};SharedAccessSignature=${new URL(url).search.slice(1)}`;
    };
    const env = { ...settings, AZURE_STORAGE_CONNECTION_STRING: await sas('rl') };
    await using mount = await TestMount.start(t, { container, env });
    t.equal(await readFile(mount.at('there'), 'utf8'), 'in the container');
    await writeFile(mount.at('mine'), 'only here');
    const ended = await lustrite(['export', 'create', mount.path, '--wait'], { env });
    t.equal(ended.code, 1);
    t.match(`${ended.stdout}${ended.stderr}`, /mine: .*403/);
    await survived(t, mount);
    await mount.unmount();
    await mount.remount({ env: { AZURE_STORAGE_CONNECTION_STRING: await sas('rlwcda') } });
    const again = await lustrite(['export', 'create', mount.path, '--wait'], { env });
    t.equal(again.code, 0, again.stderr);
    const { length } = await azurite.client(container).getBlobClient('mine').downloadToBuffer();
    t.equal(length, 9);
  });

  await t.test('export: credentials that expire in the middle lose nothing', async (t) => {
    const { container, mount: started } = await start(t);
    await using mount = started;
    const names = Array.from({ length: 20 }, (_, n) => `file${n}`);
    await Promise.all(names.map((name) => writeFile(mount.at(name), name)));
    faults.inject({ method: 'PUT', skip: 7 }, status('AuthenticationFailed', refused));
    const ended = await lustrite(['export', 'create', mount.path, '--wait'], { env: settings });
    faults.clear();
    t.equal(ended.code, 1);
    t.match(`${ended.stdout}${ended.stderr}`, /403 AuthenticationFailed/);
    const again = await lustrite(['export', 'create', mount.path, '--wait'], { env: settings });
    t.equal(again.code, 0, again.stderr);
    for (const name of names) {
      const body = await azurite.client(container).getBlobClient(name).downloadToBuffer();
      t.equal(body.toString(), name);
    }
  });

  await t.test('a logging container that is gone costs the copy of the log, and no job', async (t) => {
    const logs = await azurite.newContainer('logs');
    const { mount: started } = await start(t, {}, ['--logging-container', logs]);
    await using mount = started;
    await azurite.client(logs).delete();
    const ended = await lustrite(['import', 'create', mount.path, '--name', 'again', '--wait'], {
      env: settings,
    });
    t.equal(ended.code, 0, ended.stderr);
    t.match(mount.log(), /the job log was not uploaded/);
    t.ok(existsSync(join(mount.store, 'jobs', 'again', 'log.jsonl')), 'it is in the store');
    await mount.kill();
    await mount.remount();
    t.match(mount.log(), /does not exist: .*; the logs of jobs stay in/, 'and no mount');
    await survived(t, mount);
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

interface Rig {
  readonly container: string;
  readonly mount: TestMount;
}
