/** An account with a hierarchical namespace, through real mounts: what is asked of it and what is shown of it. */
import {
  chmod,
  chown,
  lchown,
  lstat,
  mkdir,
  readdir,
  readFile,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { openContainer } from '../../src/blob/azure-container.js';
import { listedBlob } from '../../src/blob/listed.js';
import type { ListedBlob } from '../../src/blob/port.js';
import { aclOf } from '../helpers/acl.js';
import { nobody, runAs } from '../helpers/as-user.js';
import { Azurite } from '../helpers/azurite.js';
import { HierarchicalServer, type Access } from '../helpers/hierarchical-server.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { Dice, readTree } from '../helpers/tree.js';

const azurite = await Azurite.start();
t.teardown(() => azurite[Symbol.asyncDispose]());
const account = await HierarchicalServer.start(azurite);
t.teardown(() => account[Symbol.asyncDispose]());
const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(account.url) };
const options = { skip: cannotMount };

const objectId = '5d0c4b1f-8d47-4a3c-9d0e-0f1c2b3a4d5e';

type Metadata = Readonly<Record<string, string>>;

async function put(container: string, blob: string, body = 'x', metadata: Metadata = {}): Promise<void> {
  const client = account.client(container).getBlockBlobClient(blob);
  await client.upload(body, Buffer.byteLength(body), { metadata });
}

async function containerOf(blobs: readonly string[]): Promise<string> {
  const container = await azurite.newContainer('hns');
  for (const blob of blobs) await put(container, blob);
  return container;
}

async function pathsOf(mount: TestMount): Promise<readonly string[]> {
  return [...(await readTree(mount.path, { content: false })).keys()];
}

async function importOf(mount: TestMount, ...flags: readonly string[]): ReturnType<typeof lustrite> {
  return lustrite(['import', 'create', mount.path, '--wait', ...flags]);
}

const folder: Metadata = { hdi_isfolder: 'true' };

/** Where it is, what the account says, what the metadata says -> what `stat` shows. */
const shown: readonly (readonly [path: string, access: Partial<Access>, metadata: Metadata, stat: string])[] =
  [
    ['d', { owner: '7', group: '8', permissions: 'rwxr-x--T' }, folder, 'directory 7:8 1750'],
    ['d/plain', { owner: '1000', group: '100', permissions: 'rw-r--r--' }, {}, 'file 1000:100 0644'],
    ['d/sticky', { permissions: 'rwxrwxrwt' }, {}, 'file 0:0 1777'],
    ['d/untouched', {}, {}, 'file 0:0 0640'],
    ['d/entra', { owner: objectId, group: objectId, permissions: 'rwx------' }, {}, 'file 11:22 0700'],
    ['d/marked', { permissions: 'rw-rw----+' }, {}, 'file 0:0 0660'],
    [
      'd/exported',
      { owner: '7', group: '8', permissions: 'rw-------' },
      { owner: '5', group: '6', permissions: '0755' },
      'file 5:6 0755',
    ],
    ['d/deep/er', { owner: '9', permissions: 'rwx--x--x' }, folder, 'directory 9:0 0711'],
  ];

async function statOf(path: string): Promise<string> {
  const stat = await lstat(path);
  const kind = stat.isDirectory() ? 'directory' : stat.isSymbolicLink() ? 'symlink' : 'file';
  return `${kind} ${stat.uid}:${stat.gid} ${(stat.mode & 0o7777).toString(8).padStart(4, '0')}`;
}

await t.test('owners, groups and permissions of the account are those of the mount', options, async (t) => {
  const container = await azurite.newContainer('hns');
  for (const [path, access, metadata] of shown) {
    await put(container, path, metadata === folder ? '' : path, metadata);
    account.setAccess(container, path, access);
  }
  account.listings.length = 0;
  await using mount = await TestMount.start(t, { container, env, flags: ['--uid', '11', '--gid', '22'] });
  for (const [path, , , expected] of shown) t.equal(await statOf(mount.at(path)), expected, path);
  t.equal(await statOf(mount.at('d/deep')), 'directory 0:0 0750', 'a directory that nobody put');
  t.equal(await readFile(mount.at('d/plain'), 'utf8'), 'd/plain');
  for (const path of ['d', 'd/deep', 'd/deep/er']) {
    const { lastModified } = await account.client(container).getBlobClient(path).getProperties();
    t.equal((await lstat(mount.at(path))).mtimeMs, lastModified?.getTime(), `mtime of ${path}`);
  }
  t.match(account.listings.at(-1), /include=metadata,permissions/);
  t.match(await mount.status(), { namespace: { hierarchical: true, source: 'account' } });
  const { stdout } = await lustrite(['status', mount.path]);
  t.match(stdout, /namespace +hierarchical, as the account says/);
  const log = await readFile(`${mount.store}/jobs/importJobInitialAmlfsPut/log.jsonl`, 'utf8');
  const told = log.split('\n').filter((line) => line.includes('UnmappedIdentity'));
  t.equal(told.length, 1, 'said once');
  t.match(told[0], `that is no number: 1, the first is ${objectId} of d/entra`);
  t.match(await importOf(mount, '--conflict', 'fail'), { code: 0 }, 'a second import finds the same');
  await mount.unmount();
  await mount.remount({ env: { LUSTRITE_COMPAT_STRICT: 'true' } });
  t.match(await importOf(mount, '--conflict', 'overwrite-dirty'), { code: 0 });
  t.equal(await statOf(mount.at('d/exported')), 'file 7:8 0600', 'strict: the account alone');
});

await t.test('ACLs of the account decide who may read, and are inherited', options, async (t) => {
  const container = await containerOf(['open/secret', 'open/plain']);
  const named = `user::rwx,user:${nobody.uid}:r-x,user:${objectId}:rwx,group::---,mask::r-x,other::---`;
  const inherited = `default:user::rwx,default:user:${nobody.uid}:rwx,default:group::---,default:mask::rwx,default:other::---`;
  account.setAccess(container, 'open', { permissions: 'rwxr-x---+', acl: `${named},${inherited}` });
  account.setAccess(container, 'open/secret', { permissions: 'rwxr-x---+', acl: named });
  await using mount = await TestMount.start(t, { container, env });
  await chmod(dirname(mount.path), 0o711);
  const [directory, secret, plain] = [mount.at('open'), mount.at('open/secret'), mount.at('open/plain')];
  t.equal(aclOf(directory, 'default'), `u=7 u${nobody.uid}=7 g=0 m=7 o=0`);
  for (const path of [directory, secret]) t.equal(aclOf(path), `u=7 u${nobody.uid}=5 g=0 m=5 o=0`, path);
  t.equal(aclOf(plain), null, 'the account gave it none, whatever its directory hands on');
  t.equal(await statOf(secret), 'file 0:0 0750');
  t.equal((await runAs(nobody, 'cat', [secret])).stdout, 'x');
  t.match((await runAs(nobody, 'cat', [plain])).stderr, 'Permission denied');
  const log = await readFile(`${mount.store}/jobs/importJobInitialAmlfsPut/log.jsonl`, 'utf8');
  t.match(log, `that is no number: 2, the first is user:${objectId}:rwx of open`);

  await put(container, 'open/secret', 'new');
  account.setAccess(container, 'open/secret', {
    permissions: 'rw-r-----',
    acl: 'user::rw-,group::r--,other::---',
  });
  t.match(await importOf(mount, '--conflict', 'overwrite-always'), { code: 0 });
  t.equal(aclOf(secret), null);
  t.equal(await statOf(secret), 'file 0:0 0640');
  t.match((await runAs(nobody, 'cat', [secret])).stderr, 'Permission denied');
  await writeFile(mount.at('open/local'), 'made here');
  t.match(aclOf(mount.at('open/local')), `u${nobody.uid}=7`, 'and what is made here inherits');
});

await t.test('the account says whether its namespace is hierarchical, or somebody for it', async (t) => {
  const container = await azurite.newContainer('hns');
  t.teardown(() => {
    account.tellsNothing = false;
  });
  const rows = [
    [account.url, {}, { hierarchical: true, source: 'account' }],
    [azurite.url, {}, { hierarchical: false, source: 'account' }],
    ['silent', {}, { hierarchical: false, source: 'nobody' }],
    ['silent', { hierarchical: true }, { hierarchical: true, source: 'setting' }],
    [account.url, { hierarchical: false }, { hierarchical: false, source: 'setting' }],
  ] as const;
  for (const [url, said, expected] of rows) {
    account.tellsNothing = url === 'silent';
    const config = azurite.config(container, { url: account.tellsNothing ? account.url : url });
    await using opened = openContainer({ ...config, ...said });
    await opened.check();
    t.same(opened.namespace, expected, JSON.stringify([url, said]));
  }
});

await t.test('a listing, a look-up and the SDK say the same of every blob', async (t) => {
  const container = await azurite.newContainer('hns');
  for (const [path, access, metadata] of shown) {
    await put(container, path, metadata === folder ? '' : path, metadata);
    account.setAccess(container, path, access);
  }
  const acl =
    'user::rwx,user:5:r-x,group::r-x,mask::rwx,other::---,default:user::rwx,default:group::---,default:other::---';
  account.setAccess(container, 'd', { permissions: 'rwxrwx---+', acl });
  await using opened = openContainer(azurite.config(container, { url: account.url }));
  await opened.check();
  const listed: ListedBlob[] = [];
  for await (const page of opened.list({ pageSize: 2 })) listed.push(...page);
  const names = [
    'd',
    'd/deep',
    'd/deep/er',
    'd/entra',
    'd/exported',
    'd/marked',
    'd/plain',
    'd/sticky',
    'd/untouched',
  ];
  t.same(
    listed.map(({ name }) => name),
    names,
  );
  for (const blob of listed)
    t.same(listedBlob(blob.name, await opened.properties(blob.name)), blob, blob.name);
  t.match(listed[0], {
    kind: 'directory',
    posix: { mode: 0o770, acls: { access: Buffer, default: Buffer } },
  });

  // Guards the helper: what it answers is what a service answers.
  const client = account.client(container);
  const theirs = [];
  for await (const page of client.listBlobsFlat({ includeMetadata: true }).byPage({ maxPageSize: 4 }))
    theirs.push(...page.segment.blobItems);
  t.same(
    theirs.map(({ name, properties }) => [name, properties.etag, properties.contentLength]),
    listed.map(({ name, etag, size }) => [name, etag, size]),
  );
  t.match(await client.getAccountInfo(), { isHierarchicalNamespaceEnabled: true });
  await t.rejects(client.deleteBlob('d'), { code: 'DirectoryIsNotEmpty' });
});

await t.test(
  'an account that must not be asked is taken for a flat one, and that is said',
  options,
  async (t) => {
    const container = await containerOf(['a/b']);
    account.tellsNothing = true;
    t.teardown(() => {
      account.tellsNothing = false;
    });
    await using mount = await TestMount.start(t, { container, env });
    t.match(await mount.status(), { namespace: { hierarchical: false, source: 'nobody' } });
    t.match(mount.log(), /it is taken for a flat one; --hierarchical-namespace on or off says which it is/);
  },
);

await t.test('prefixes are paths, and overlap as strings', options, async (t) => {
  const container = await containerOf(['data/x/1', 'data/y', 'data-2/z', 'data2', 'data2.d/1', 'other']);
  const flags = ['--no-import', '--hierarchical-namespace', 'on'];
  await using mount = await TestMount.start(t, { container, env, flags });
  t.match(await mount.status(), { namespace: { hierarchical: true, source: 'setting' } });
  /** How many blobs an import walks, or why it does not begin. */
  const walked = async (prefixes: readonly string[]): Promise<unknown> => {
    const wanted = prefixes.flatMap((prefix) => ['--prefix', prefix]);
    const { code, stdout, stderr } = await importOf(mount, '--json', ...wanted);
    if (code !== 0) return stderr.trim();
    const { properties } = JSON.parse(stdout) as { properties: { status: { totalBlobsWalked: number } } };
    return properties.status.totalBlobsWalked;
  };
  t.equal(await walked(['/nothing']), 0);
  t.same(await pathsOf(mount), []);
  t.match(await walked(['/data', '/data2']), "the import prefixes '/data' and '/data2' overlap");
  t.equal(await walked(['/data/', '/data2']), 5);
  t.same(await pathsOf(mount), ['data', 'data/x', 'data/x/1', 'data/y', 'data2']);
  t.equal(await walked(['data/x/']), 2);
  t.equal(await walked(['/']), 10);
  t.match(await walked(['/data', '/data/x']), "the import prefixes '/data' and '/data/x' overlap");
  t.match(await walked(['/data/../other']), 'is no path in the account');
});

await t.test('the mount follows a hierarchical account by its listings', options, async (t) => {
  const container = await containerOf(['dir/a', 'dir/sub/b', 'dir-x', 'dir.d/c']);
  await using mount = await TestMount.start(t, { container, env, flags: ['--no-import'] });
  const create = ['auto-import', 'create', mount.path, '--name', 'follow', '--conflict', 'overwrite-dirty'];
  const started = await lustrite([...create, '--enable-deletions', '--poll-interval', '100ms', '--wait']);
  t.equal(started.code, 0, started.stderr);
  await put(container, 'dir/sub/new', 'new');
  account.setAccess(container, 'dir/sub/new', { owner: '77', permissions: 'rwx--x---' });
  await put(container, 'dir/a', 'changed');
  await account.client(container).deleteBlob('dir/sub/b');
  await account.client(container).deleteBlob('dir-x');
  await until(async () => (await readdir(mount.path)).join(' ') === 'dir dir.d', { what: 'dir-x to go' });
  await until(async () => (await readdir(mount.at('dir/sub'))).join(' ') === 'new', { what: 'b to go' });
  t.equal(await readFile(mount.at('dir/sub/new'), 'utf8'), 'new');
  await until(async () => (await readFile(mount.at('dir/a'), 'utf8')) === 'changed', { what: 'a to change' });
  const shown = await lustrite(['auto-import', 'show', mount.path, 'follow', '--json']);
  t.match(JSON.parse(shown.stdout), {
    properties: { status: { totalErrors: 0, blobSyncEvents: { deletions: 2, totalErrors: 0 } } },
  });
});

await t.test(
  'what is exported is imported again as it was, whoever owns it in the account',
  options,
  async (t) => {
    const container = await containerOf(['old/file']);
    account.setAccess(container, 'old', { owner: '7', permissions: 'rwxr-xr-x' });
    await using mount = await TestMount.start(t, { container, env });
    await mkdir(mount.at('new/deep'), { recursive: true });
    await writeFile(mount.at('new/deep/file'), 'data');
    await writeFile(mount.at('old/file'), 'changed');
    await symlink('deep/file', mount.at('new/link'));
    await chmod(mount.at('new/deep/file'), 0o751);
    await chown(mount.at('new/deep/file'), 1000, 100);
    await lchown(mount.at('new/link'), 5, 6);
    await chmod(mount.at('new'), 0o1777);
    await chown(mount.at('old'), 8, 9);
    for (const path of ['new/deep', 'new', 'old']) await utimes(mount.at(path), 1.5e9, 1.5e9);
    const exported = await lustrite(['export', 'create', mount.path, '--wait', '--json']);
    t.equal(exported.code, 0, exported.stderr);
    t.match(JSON.parse(exported.stdout), {
      properties: { status: { totalFilesExported: 3, totalDirectoriesExported: 3, totalFilesFailed: 0 } },
    });
    const { metadata } = await account.client(container).getBlobClient('old').getProperties();
    t.match(metadata, { owner: '8', group: '9', permissions: '0755', hdi_isfolder: 'true' });
    const again = await lustrite(['export', 'create', mount.path, '--wait', '--json']);
    t.match(JSON.parse(again.stdout), { properties: { status: { totalDirectoriesExported: 0 } } });

    await using other = await TestMount.start(t, { container, env, flags: ['--uid', '3', '--gid', '4'] });
    t.same(await readTree(other.path), await readTree(mount.path));
  },
);

await t.test('a file and a directory of one name are an error that says so', options, async (t) => {
  const container = await azurite.newContainer('hns');
  await using mount = await TestMount.start(t, { container, env });
  await put(container, 'dir/x');
  await put(container, 'link/x');
  await put(container, 'file');
  await put(container, 'empty', '');
  await writeFile(mount.at('dir'), 'a file here');
  await symlink('dir', mount.at('link'));
  for (const name of ['file', 'empty']) {
    await mkdir(mount.at(name));
    await writeFile(mount.at(name, 'below'), 'x');
  }
  await writeFile(mount.at('good'), 'x');
  const { code, stdout } = await lustrite([
    'export',
    'create',
    mount.path,
    '--name',
    'clash',
    '--wait',
    '--json',
  ]);
  t.equal(code, 1);
  t.match(JSON.parse(stdout), { properties: { status: { totalFilesExported: 1, totalFilesFailed: 4 } } });
  const log = await readFile(`${mount.store}/jobs/clash/log.jsonl`, 'utf8');
  for (const name of ['dir', 'link']) t.match(log, `the container has a directory ${name}: rename the file`);
  for (const name of ['file', 'empty']) t.match(log, `write of ${name}/below: 409 PathConflict`);
  t.equal(await readFile(mount.at('dir'), 'utf8'), 'a file here', 'and nothing is lost');
  t.match(await account.client(container).getBlobClient('file').getProperties(), { contentLength: 1 });
});

await t.test(
  'kill -9 in the middle of an import: the next mounts finish it, with owners and permissions',
  options,
  async (t) => {
    const dice = new Dice();
    t.comment(`seed ${dice.seed}`);
    const container = await azurite.newContainer('hns');
    const expected = new Map<string, string>();
    for (let n = 0; n < 15; n++) {
      const directory = `d${n % 7}/e${n}`;
      await put(container, directory, '', folder);
      account.setAccess(container, directory, { owner: String(n), permissions: 'rwxr-x--t' });
      expected.set(directory, `directory ${n}:0 1751`);
      await Promise.all(
        Array.from({ length: 20 }, async (_, m) => {
          const path = `${directory}/f${m}`;
          await put(container, path, path);
          account.setAccess(container, path, { owner: String(m), group: '5', permissions: 'rw-r-----' });
          expected.set(path, `file ${m}:5 0640`);
        }),
      );
    }
    await using mount = await TestMount.start(t, { container, env, ready: 'started' });
    let cut = 0;
    for (let kills = 0; kills < 6; kills++) {
      // Not before the store and the job are there; then anywhere.
      const running = async (): Promise<boolean> => ((await mount.status())?.runningJob ?? null) !== null;
      await until(async () => kills > 0 || (await running()), { what: 'an import', intervalMs: 1 });
      await delay(dice.below(kills === 0 ? 200 : 1200));
      if ((await mount.jobs()).some(({ properties }) => properties.status.state === 'InProgress')) cut++;
      await mount.kill();
      await mount.remount({ ready: 'started' });
    }
    t.comment(`${cut} daemons were killed while the import ran`);
    await until(async () => (await mount.status()) !== undefined, { what: 'a daemon' });
    const [job] = await mount.untilJobsEnd();
    t.match(job?.properties.status, { state: 'Completed' });
    for (const [path, stat] of expected) {
      const shown = await statOf(mount.at(path));
      if (shown !== stat) t.fail(`${path} is ${shown}, not ${stat}`);
    }
    t.equal((await pathsOf(mount)).length, expected.size + 7);
    t.equal(await readFile(mount.at('d0/e0/f0'), 'utf8'), 'd0/e0/f0');
  },
);
