/** Auto-import and auto-export as users drive them: through the command line, on a real mount. */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { lfs } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { until } from '../helpers/poll.js';

const azurite = await Azurite.start();
t.teardown(() => azurite[Symbol.asyncDispose]());
const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };

const put = async (container: string, blob: string, body: string): Promise<void> => {
  await azurite.client(container).getBlockBlobClient(blob).upload(body, Buffer.byteLength(body));
};

const contentOf = (path: string): string | undefined =>
  existsSync(path) ? readFileSync(path, 'utf8') : undefined;

await t.test('the mount follows the container while an auto-import is enabled', async (t) => {
  const container = await azurite.newContainer('auto');
  await put(container, 'dir/first', 'one');
  await put(container, 'gone', 'x');
  await using mount = await TestMount.start(t, { container, env });
  const create = ['auto-import', 'create', mount.path, '--name', 'follow', '--conflict', 'overwrite-dirty'];
  const started = await lustrite([...create, '--enable-deletions', '--poll-interval', '100ms', '--wait']);
  t.equal(started.code, 0, started.stderr);
  t.match(started.stdout, /auto-import follow InProgress: 0 of 2 blobs imported/);
  t.equal(await readFile(mount.at('dir/first'), 'utf8'), 'one');

  await put(container, 'dir/second', 'two');
  await put(container, 'dir/first', 'another one');
  await azurite.client(container).deleteBlob('gone');
  await until(() => contentOf(mount.at('dir/second')) === 'two', { what: 'the new file' });
  await until(() => contentOf(mount.at('dir/first')) === 'another one', { what: 'the new version' });
  await until(() => !existsSync(mount.at('gone')), { what: 'the deletion' });

  const first = mount.at('dir/first');
  const before = await lfs(['hsm_state', first]);
  for (const verb of [
    'archive',
    'restore',
    'release',
    'remove',
    'cancel',
    'set --norelease',
    'clear --exists',
  ]) {
    const refused = await lfs([...`hsm_${verb}`.split(' '), first]);
    t.match(refused, { code: 16, stderr: /Device or resource busy/ }, verb);
  }
  t.match(await lfs(['hsm_action', first]), { code: 0, stdout: /NOOP/ }, 'who only asks is answered');
  t.same(await lfs(['hsm_state', first]), before);
  t.equal(before.code, 0);
  for (const verb of ['archive', 'restore', 'release'])
    await t.rejects(mount.control('POST', `/v1/hsm/${verb}`, { path: 'dir/first' }), /409 .* is enabled/);
  const second = await lustrite(['export', 'create', mount.path]);
  t.equal(second.code, 1);
  t.match(second.stderr, /the auto-import job 'follow' is running; disable it first/);

  await mount.kill();
  await put(container, 'while-away', 'three');
  await mount.remount({ ready: 'mounted' });
  await until(() => contentOf(mount.at('while-away')) === 'three', { what: 'what came meanwhile' });

  t.match(
    (await lustrite(['status', mount.path])).stdout,
    /lfs hsm_\* is answered EBUSY until it is disabled/,
  );
  const disabled = await lustrite(['auto-import', 'disable', mount.path, 'follow', '--wait']);
  t.match(disabled, { code: 0, stdout: /^auto-import follow Disabled/ });
  const shown = await lustrite(['auto-import', 'show', mount.path, 'follow', '--json']);
  t.match(JSON.parse(shown.stdout), {
    kind: 'auto-import',
    properties: {
      adminStatus: 'Disable',
      changeSource: 'listing',
      changeSourceReason: /^the account has no change feed/,
      status: {
        state: 'Disabled',
        preexistingFiles: 2,
        blobSyncEvents: { importedFiles: 3, deletions: 1, totalConflicts: 1, totalErrors: 0 },
      },
    },
  });
  await mount.control('POST', '/v1/hsm/archive', { path: 'dir/first' });
  t.equal((await lfs(['hsm_release', mount.at('dir/first')])).code, 0, 'allowed again');
});

await t.test('the container follows the mount while an auto-export is enabled', async (t) => {
  const container = await azurite.newContainer('auto');
  await using mount = await TestMount.start(t, { container, env });
  const created = await lustrite([
    ...[
      'auto-export',
      'create',
      mount.path,
      '--name',
      'out',
      '--path',
      '/results',
      '--poll-interval',
      '100ms',
    ],
  ]);
  t.equal(created.code, 0, created.stderr);
  await mkdir(mount.at('results'));
  await writeFile(mount.at('results/a'), 'first');
  await writeFile(mount.at('other'), 'not this');
  const blob = azurite.client(container).getBlobClient('results/a');
  const text = async (): Promise<string | undefined> =>
    (await blob.exists()) ? (await blob.downloadToBuffer()).toString() : undefined;
  await until(async () => (await text()) === 'first', { what: 'the file in the container' });
  await writeFile(mount.at('results/a'), 'second');
  await until(async () => (await text()) === 'second', { what: 'the changed file in the container' });
  await mkdir(mount.at('results/empty'), { mode: 0o750 });
  const empty = azurite.client(container).getBlobClient('results/empty');
  await until(() => empty.exists(), { what: 'the new directory in the container' });
  t.match((await empty.getProperties()).metadata, { hdi_isfolder: 'true', permissions: '0750' });
  const disabled = await lustrite(['auto-export', 'disable', mount.path, '--wait']);
  t.match(disabled, { code: 0, stdout: /^auto-export out Disabled: / });
  await mount.untilJobsEnd();
  const shown = await lustrite(['auto-export', 'show', mount.path, '--json']);
  t.match(JSON.parse(shown.stdout), { properties: { status: { state: 'Disabled', totalFilesFailed: 0 } } });
  t.notOk(await azurite.client(container).getBlobClient('other').exists());
  t.equal((await stat(mount.at('other'))).size, 8);
});

await t.test('what an auto job cannot mean is refused with the reason', async (t) => {
  const container = await azurite.newContainer('auto');
  await using mount = await TestMount.start(t, { container, env });
  const rows: readonly (readonly [readonly string[], RegExp])[] = [
    [['auto-import', 'create', mount.path, '--poll-interval', '5'], /--poll-interval: '5' is not a time/],
    [['auto-import', 'create', mount.path, '--prefix', 'a', '--prefix', 'ab'], /'a' and 'ab' overlap/],
    [['auto-import', 'create', mount.path, '--max-errors', '-2'], /--max-errors: '-2' is not a whole number/],
    [['auto-import', 'create', mount.path, '--source', 'both'], /--source: 'both' is not one of feed/],
    [['auto-import', 'create', mount.path, '--conflict', 'maybe'], /--conflict: 'maybe' is not one of/],
    [['auto-export', 'create', mount.path, '--path', '/a/../b'], /not a path below the mount/],
    [['auto-export', 'create', mount.path, '--path', '/a//b'], /an empty component \('\/\/'\): '\/a\/\/b'/],
    [['export', 'create', mount.path, '--path', 'a//b'], /an empty component \('\/\/'\): 'a\/\/b'/],
    [['auto-export', 'create', mount.path, '--path', ''], /--path: a path that is empty; \/ is everything/],
    [
      ['auto-export', 'create', mount.path, '--path', mount.at('a')],
      /--path: .* begin at the mount's root: \/a$/m,
    ],
    [['export', 'create', mount.path, '--path', mount.path], /--path: .* begin at the mount's root: \/$/m],
    [['export', 'create', mount.path, '--path', ''], /--path: a path that is empty/],
    [['auto-export', 'create', mount.path, '--name', '../x'], /--name: must be 2 to 80/],
    [
      ['auto-export', 'create', mount.path, '--poll-interval', '0s'],
      /--poll-interval: the shortest interval is 100ms/,
    ],
    [
      ['auto-import', 'create', mount.path, '--poll-interval', '25h'],
      /--poll-interval: the longest interval is 24h/,
    ],
    [
      ['auto-import', 'create', mount.path, '--prefix', 'x'.repeat(1025)],
      /--prefix: longer than a blob name/,
    ],
    [['import', 'create', mount.path, '--prefix', ''], /--prefix: a prefix that is empty/],
    [
      ['import', 'create', mount.path, '--conflict', 'skip', '--conflict', 'fail'],
      /A job has one: 'skip' or 'fail'\?/,
    ],
    [
      ['import', 'create', mount.path, '--max-errors', '1', '--max-errors', '2'],
      /A job has one: '1' or '2'\?/,
    ],
  ];
  for (const [args, message] of rows) {
    const { code, stderr } = await lustrite(args);
    t.not(code, 0);
    t.match(stderr, message);
  }
  t.equal((await mount.jobs()).length, 1, 'nothing was recorded');
});
