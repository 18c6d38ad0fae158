/** Which blobs an import takes, what it says of the others, and where its log is. */
import { appendFile, lstat, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ContainerSASPermissions } from '@azure/storage-blob';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { download } from '../helpers/copytool.js';
import { FaultServer } from '../helpers/fault-server.js';
import { openInStore } from '../helpers/gauges.js';
import { hsmFlags, states } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { readTree } from '../helpers/tree.js';

const azurite = await Azurite.start();
t.teardown(() => azurite[Symbol.asyncDispose]());
const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
const firstImport = 'importJobInitialAmlfsPut';

type Blobs = Readonly<
  Record<string, string | { readonly body: string; readonly metadata: Record<string, string> }>
>;

async function containerOf(blobs: Blobs): Promise<string> {
  const name = await azurite.newContainer('job');
  await Promise.all(
    Object.entries(blobs).map(async ([blob, what]) => {
      const { body, metadata } = typeof what === 'string' ? { body: what, metadata: {} } : what;
      await azurite.client(name).getBlockBlobClient(blob).upload(body, Buffer.byteLength(body), { metadata });
    }),
  );
  return name;
}

/** The container's listing as Azurite gives it, with some names changed: Azurite cannot hold those that Azure can. */
async function listingOf(container: string, renamed: ReadonlyMap<string, string>): Promise<Buffer> {
  const permissions = ContainerSASPermissions.parse('l');
  const url = await azurite
    .client(container)
    .generateSasUrl({ permissions, expiresOn: new Date(Date.now() + 3.6e6) });
  const answer = await fetch(`${url}&restype=container&comp=list&include=metadata`);
  let text = await answer.text();
  for (const [from, to] of renamed) text = text.replace(`<Name>${from}</Name>`, `<Name>${to}</Name>`);
  return Buffer.from(text);
}

async function pathsOf(root: string): Promise<readonly string[]> {
  return [...(await readTree(root, { content: false })).keys()];
}

const folder = { body: '', metadata: { hdi_isfolder: 'true', owner: '7', group: '8', permissions: '0700' } };
const good: Blobs = {
  plain: 'plain',
  'dir/file': 'in a directory',
  stub: folder,
  'stub/file': 'x',
  'marked/': '',
};
/** Blobs that no path can have -> a part of the reason. */
const refused: Readonly<Record<string, string>> = {
  '/leading': "starts with '/'",
  'a//b': "'//'",
  './dot': "component '.'",
  'dir/./dot': "component '.'",
  'dir/../up': "component '..'",
  'dir/..': "component '..'",
  '../../etc/passwd': "component '..'",
  'full/': "ends in '/'",
  'twice//': "more than one '/'",
  [`long/${'x'.repeat(256)}`]: 'longer than 255 bytes',
  [`long/${'ä'.repeat(128)}/file`]: 'longer than 255 bytes',
};
/** Blobs whose name is a directory because of others. */
const conflicting: Blobs = {
  both: 'a file',
  'both/below': 'b',
  'deep/er': 'a file',
  'deep/er/and/deeper': 'd',
};
const links = {
  link: { body: 'dir/file', metadata: { is_symlink: 'true' } },
  'link to nothing': { body: '', metadata: { ftype: 'LNK' } },
};

t.test('blobs that have no place', { skip: cannotMount }, async (t) => {
  const stand = (blob: string, at: number): string =>
    /(^|\/)\.\.?(\/|$)/.test(blob) ? `stands in ${String(at)}` : blob;
  const odd = Object.fromEntries(
    Object.keys(refused).map((blob, at) => [stand(blob, at), blob === 'twice//' ? '' : 'odd']),
  );
  const blobs = { ...good, ...odd, ...conflicting, ...links };
  const container = await containerOf(blobs);
  const logs = await azurite.newContainer('logs');
  await using proxy = await FaultServer.start(azurite.url);
  const renamed = new Map(Object.keys(refused).map((blob, at) => [stand(blob, at), blob]));
  const body = await listingOf(container, renamed);
  proxy.inject({ method: 'GET', blob: '', query: 'comp=list' }, { kind: 'body', body });
  const proxied = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(proxy.url) };
  await using mount = await TestMount.start(t, {
    container,
    env: proxied,
    flags: ['--logging-container', logs],
  });
  const [job] = await mount.jobs();
  const started = (job?.properties.status as { lastStartedTime?: string } | undefined)?.lastStartedTime ?? '';

  await t.test('are counted, and nothing of them is anywhere', async (t) => {
    t.match(job, {
      name: firstImport,
      properties: {
        conflictResolutionMode: 'Skip',
        maximumErrors: -1,
        status: {
          state: 'CompletedPartial',
          totalBlobsWalked: Object.keys(blobs).length,
          totalBlobsImported: 8,
          importedFiles: 5,
          importedDirectories: 2,
          importedSymlinks: 1,
          totalErrors: Object.keys(refused).length + 1,
          totalConflicts: 2,
        },
      },
    });
    t.same(
      await pathsOf(mount.path),
      ['both', 'both/below', 'deep', 'deep/er', 'deep/er/and', 'deep/er/and/deeper', 'dir', 'dir/file', 'link', 'marked', 'plain', 'stub', 'stub/file'], // prettier-ignore
    );
    t.equal(await readFile(mount.at('both/below'), 'utf8'), 'b');
    t.match((await readTree(mount.path, { content: false })).get('stub'), { uid: 7, gid: 8, mode: 0o700 });
    t.notOk(
      (await readdir(mount.path)).some((name) => name.startsWith('IMPORT_')),
      'no marker stays',
    );
  });

  await t.test('are in the log of the job by name, in the store and in the logging container', async (t) => {
    const stamp = started.replace(/[-:]|\.\d+/g, '');
    const blob = `${container}/import/${firstImport}/${stamp}.jsonl`;
    const { body } = await download(azurite.client(logs), blob);
    const folders = await readdir(join(mount.store, 'jobs'));
    t.equal(folders.length, 1);
    t.equal(
      body.toString(),
      await readFile(join(mount.store, 'jobs', folders[0] ?? '', 'log.jsonl'), 'utf8'),
    );
    const lines = body
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, string>);
    for (const line of lines) {
      t.match(line, {
        time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/,
        level: /^(info|warn|error)$/,
        code: /^\w+$/,
        message: String,
      });
    }
    const about = (name: string): readonly Record<string, string>[] =>
      lines.filter((line) => line['blob'] === name);
    for (const [name, reason] of Object.entries(refused)) {
      t.match(about(name), [{ level: 'error', code: 'InvalidName' }], name);
      t.match(about(name)[0]?.['message'], reason);
    }
    t.match(about('link to nothing'), [{ level: 'error', code: 'InvalidSymlink' }]);
    for (const name of ['both', 'deep/er'])
      t.match(about(name), [{ level: 'warn', code: 'Conflict', path: name }]);
    for (const name of Object.keys(good)) t.same(about(name), [], `nothing to say of ${name}`);
  });

  await t.test('a second import changes nothing and says the same', async (t) => {
    await readFile(mount.at('plain'));
    await appendFile(mount.at('stub/file'), ', changed');
    const status = await mount.status();
    if (status === undefined) throw new Error('no status');
    await until(() => openInStore(status).files.length === 0, { what: 'the record of what was changed' });
    const paths = await pathsOf(mount.path);
    /** When each inode of the store was written last. */
    const written = (): Promise<readonly (readonly [string, bigint])[]> =>
      Promise.all(
        paths.map(async (path) => {
          const { ctimeNs } = await lstat(join(mount.store, 'ns', path), { bigint: true });
          return [path, ctimeNs] as const;
        }),
      );
    const before = await written();
    const ended = await lustrite(['import', 'create', mount.path, '--name', 'again', '--wait', '--json'], {
      env,
    });
    t.equal(ended.code, 1, 'it is not complete');
    t.match(JSON.parse(ended.stdout), {
      properties: {
        status: {
          state: 'CompletedPartial',
          totalBlobsImported: 0,
          preexistingFiles: 4,
          preexistingDirectories: 2,
          preexistingSymlinks: 1,
          totalErrors: Object.keys(refused).length + 1,
          totalConflicts: 3,
        },
      },
    });
    t.same(await pathsOf(mount.path), paths);
    t.same(await written(), before, 'no inode was written');
    t.equal(await hsmFlags(mount.at('plain')), states.clean);
    t.equal(await hsmFlags(mount.at('stub/file')), states.dirty);
    t.equal(await readFile(mount.at('stub/file'), 'utf8'), 'x, changed');
  });

  await t.test('the log of an export lies beside it', async (t) => {
    const ended = await lustrite(['export', 'create', mount.path, '--name', 'ex-1', '--wait', '--json'], {
      env,
    });
    t.equal(ended.code, 0, ended.stderr);
    const names: string[] = [];
    for await (const { name } of azurite.client(logs).listBlobsFlat()) names.push(name);
    t.match(names.sort(), [
      new RegExp(`^${container}/export/ex-1/\\d{8}T\\d{6}Z\\.jsonl$`),
      new RegExp(`^${container}/import/again/\\d{8}T\\d{6}Z\\.jsonl$`),
      new RegExp(`^${container}/import/${firstImport}/\\d{8}T\\d{6}Z\\.jsonl$`),
    ]);
  });

  await t.test(
    'a job that is over can be deleted, the first import too, which does not come again',
    async (t) => {
      for (const name of ['again', firstImport]) {
        const { code, stdout } = await lustrite(['import', 'delete', mount.path, name], { env });
        t.equal(code, 0);
        t.match(stdout, `import ${name} is deleted`);
      }
      t.match(await lustrite(['import', 'delete', mount.path, 'again'], { env }), {
        code: 1,
        stderr: /no import job 'again'/,
      });
      t.match(await mount.jobs(), [{ name: 'ex-1' }]);
      await mount.unmount();
      await mount.remount({ ready: 'started' });
      t.match(await mount.jobs(), [{ name: 'ex-1' }]);
      t.equal((await mount.jobs()).length, 1);
    },
  );
});

t.test('times that no store can hold', { skip: cannotMount }, async (t) => {
  const of = (modtime: string): { readonly body: string; readonly metadata: Record<string, string> } => ({
    body: modtime,
    metadata: { owner: '0', group: '0', permissions: '0644', modtime },
  });
  const container = await containerOf({
    'zero of Go': of('0001-01-01 00:00:00 +0000'),
    1900: of('1900-01-01 00:00:00 +0000'),
    2500: of('2500-01-01 00:00:00 +0000'),
    9999: of('9999-12-31 23:59:59 +0000'),
    nanoseconds: of('-99999999999999999999'),
    usual: of('2020-01-01 00:00:00 +0000'),
  });
  await using mount = await TestMount.start(t, { container, env });
  t.match(await mount.jobs(), [{ properties: { status: { state: 'Completed', importedFiles: 6 } } }]);
  for (const name of await readdir(mount.path)) {
    const before = (await stat(mount.at(name), { bigint: true })).mtimeNs;
    t.ok(await readFile(mount.at(name), 'utf8'));
    t.equal((await stat(mount.at(name), { bigint: true })).mtimeNs, before, `${name}: shown as before`);
    t.equal(await hsmFlags(mount.at(name)), states.clean, `${name}: clean when it is here`);
  }
  const second = await lustrite(['import', 'create', mount.path, '--conflict', 'fail', '--wait']);
  t.equal(second.code, 0, 'an import again finds them as they are');
});

t.test('conflicts under --import-conflict fail', { skip: cannotMount }, async (t) => {
  const container = await containerOf({ ...conflicting, ...good });
  await using mount = await TestMount.start(t, { container, env, flags: ['--import-conflict', 'fail'] });
  t.match(await mount.jobs(), [
    {
      name: firstImport,
      properties: { status: { state: 'Failed', statusMessage: /'both'/, totalConflicts: 1 } },
    },
  ]);
  const markers = (await readdir(mount.path)).filter((name) => name.startsWith('IMPORT_'));
  t.match(markers, [/^IMPORT_Failed\.\d{8}T\d{6}Z$/], 'the root says so, and the mount is there');
  t.match((await mount.status())?.runningJob, null);
});

t.test('import prefixes', { skip: cannotMount }, async (t) => {
  const blobs = {
    'data/a': '1',
    'data/b/c': '2',
    data2: '3',
    'other/x': '4',
    'other/y/z': '5',
    otherwise: '6',
    root: '7',
  };
  const container = await containerOf(blobs);
  const flags = ['--import-prefix', '/data/', '--import-prefix', '/other'];
  await using mount = await TestMount.start(t, { container, env, flags });

  await t.test('only blobs whose names begin with one of them are there', async (t) => {
    t.same(await pathsOf(mount.path), ['data', 'data/a', 'data/b', 'data/b/c', 'other', 'other/x', 'other/y', 'other/y/z', 'otherwise']); // prettier-ignore
    t.match(await mount.jobs(), [
      {
        properties: {
          importPrefixes: ['/data/', '/other'],
          status: { state: 'Completed', totalBlobsWalked: 5, totalErrors: 0 },
        },
      },
    ]);
    t.equal(await readFile(mount.at('other/y/z'), 'utf8'), '5');
  });

  await t.test('prefixes that overlap are refused, both named', async (t) => {
    const more = await lustrite(['import', 'create', mount.path, '--prefix', '/data', '--prefix', '/data2'], {
      env,
    });
    t.match(more, { code: 1, stderr: /'\/data'.*'\/data2'/ });
    t.equal((await mount.jobs()).length, 1, 'there is no such job');
  });

  await t.test('other prefixes on a later mount are refused, old and new named', async (t) => {
    await mount.unmount();
    await t.rejects(
      mount.remount({ flags: ['--import-prefix', '/root'] }),
      /first mounted with --import-prefix \/data\/,\/other, not .*\/root/,
    );
  });
});

t.test('a first mount whose prefixes overlap is refused, both named', { skip: cannotMount }, async (t) => {
  const container = await containerOf(good);
  const flags = ['--import-prefix', '/data', '--import-prefix', '/data2'];
  await t.rejects(TestMount.start(t, { container, env, flags }), /'\/data'.*'\/data2'/);
});

t.test('--no-import', { skip: cannotMount }, async (t) => {
  const container = await containerOf(good);
  await using mount = await TestMount.start(t, { container, env, flags: ['--no-import'] });
  t.same(await pathsOf(mount.path), [], 'the namespace is empty');
  t.same(await mount.jobs(), [], 'without a job');
  await mount.unmount();
  await mount.remount();
  t.same(await pathsOf(mount.path), [], 'on the next mount, too');
  t.equal((await lustrite(['import', 'create', mount.path, '--wait'], { env })).code, 0);
  t.same(
    await pathsOf(mount.path),
    ['dir', 'dir/file', 'marked', 'plain', 'stub', 'stub/file'],
    'until one is asked for',
  );
});
