/** Auto-import from the change feed as users drive it: a real mount, and a feed beside the container in Azurite. */
import { existsSync, readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { ContainerSASPermissions } from '@azure/storage-blob';
import t from 'tap';
import type { JobView } from '../../src/base/control-api.js';
import type { AutoImportRecord, BlobSyncEvents } from '../../src/jobs/auto-import/auto-import-record.js';
import { Azurite } from '../helpers/azurite.js';
import { FeedAccount } from '../helpers/feed-account.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

const hour = 3600_000;
/** What Azurite is asked at the same time. */
const parallel = 16;

const contentOf = (path: string): string | undefined =>
  existsSync(path) ? readFileSync(path, 'utf8') : undefined;

const create = async (mount: TestMount, ...flags: readonly string[]): Promise<void> => {
  const args = ['auto-import', 'create', mount.path, '--name', 'follow', '--conflict', 'overwrite-dirty'];
  const done = await lustrite([
    ...args,
    '--enable-deletions',
    '--poll-interval',
    '100ms',
    '--wait',
    ...flags,
  ]);
  if (done.code !== 0) throw new Error(done.stderr);
};

const shown = async (mount: TestMount): Promise<JobView> =>
  JSON.parse((await lustrite(['auto-import', 'show', mount.path, 'follow', '--json'])).stdout) as JobView;

const synced = async (mount: TestMount): Promise<BlobSyncEvents> =>
  ((await shown(mount)) as AutoImportRecord).properties.status.blobSyncEvents;

/** What a daemon that starts now finds: status shows a record before it is on disk. */
const untilRecorded = async (
  mount: TestMount,
  test: (record: AutoImportRecord) => boolean,
): Promise<unknown> =>
  until(
    async () => (await mount.jobs()).some((job) => job.name === 'follow' && test(job as AutoImportRecord)),
    { what: 'the record' },
  );

async function each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      for (const item of left) await work(item);
    }),
  );
}

await t.test(
  'the mount follows the change feed where the account has one',
  { skip: cannotMount },
  async (t) => {
    await using account = await FeedAccount.start();
    for (const name of ['dir/a', 'old-name', 'gone', 'kept']) await account.put(name, 'one');
    await using mount = await TestMount.start(t, { container: account.container, env: account.env });
    await create(mount);
    t.match((await shown(mount)).properties, {
      changeSource: 'feed',
      status: { statusMessage: /^Auto-import: blob sync reads the change feed \(the account has one\)$/ },
    });
    t.match((await lustrite(['auto-import', 'list', mount.path])).stdout, /blob sync reads the change feed/);
    t.equal(await readFile(mount.at('dir/a'), 'utf8'), 'one');

    await account.put('dir/a', 'another one');
    await account.put('dir/b/blobs/c', 'two');
    await account.put('new-name', 'renamed');
    await account.delete('old-name');
    await account.delete('gone');
    await account.tell();
    await until(() => contentOf(mount.at('dir/b/blobs/c')) === 'two', { what: 'the new file' });
    await until(() => contentOf(mount.at('new-name')) === 'renamed', { what: 'the new name' });
    await until(() => contentOf(mount.at('dir/a')) === 'another one', { what: 'the new version' });
    await until(() => !existsSync(mount.at('old-name')) && !existsSync(mount.at('gone')), {
      what: 'the deletions',
    });
    t.ok(existsSync(mount.at('kept')), "another container's blob of this name was deleted");

    await untilRecorded(mount, ({ properties }) => properties.status.blobSyncEvents.importedFiles === 3);
    await mount.kill();
    await account.put('while-away', 'three');
    await account.tell();
    await mount.remount({ ready: 'mounted' });
    await until(() => contentOf(mount.at('while-away')) === 'three', { what: 'what came meanwhile' });
    t.equal((await lustrite(['auto-import', 'disable', mount.path])).code, 0);
    await mount.untilJobsEnd();
    t.match((await shown(mount)).properties, {
      changeSource: 'feed',
      status: {
        state: 'Disabled',
        blobSyncEvents: {
          importedFiles: 4,
          deletions: 2,
          totalErrors: 0,
          lastChangeFeedEventConsumedTime: /^\d{4}-/,
          lastTimeFullySynchronized: /^\d{4}-/,
        },
      },
    });
  },
);

await t.test(
  'a source that the account cannot have is refused, and not taken by itself',
  { skip: cannotMount },
  async (t) => {
    await using bare = await Azurite.start();
    const container = await bare.newContainer('auto');
    await using account = await FeedAccount.start();
    const client = account.azurite.client(account.container);
    const sas = await client.generateSasUrl({
      permissions: ContainerSASPermissions.parse('racwdl'),
      expiresOn: new Date(Date.now() + hour),
    });
    const rows = [
      {
        what: 'no change feed',
        container,
        env: { AZURE_STORAGE_CONNECTION_STRING: bare.connectionString },
        refusal:
          /--source feed: the account has no change feed.*changeFeed\.enabled.*retentionInDays.*--source listing/,
        reason: /compares listings \(the account has no change feed/,
      },
      {
        what: 'a SAS of the container',
        container: account.container,
        env: {
          AZURE_STORAGE_SERVICE_ENDPOINT: account.azurite.url,
          AZURE_STORAGE_SAS_TOKEN: new URL(sas).search,
        },
        refusal:
          /--source feed: the credentials do not reach the account's change feed.*a SAS of the account/,
        reason: /compares listings \(the credentials do not reach/,
      },
    ];
    for (const { what, refusal, reason, ...options } of rows) {
      await using mount = await TestMount.start(t, options);
      const refused = await lustrite(['auto-import', 'create', mount.path, '--source', 'feed']);
      t.equal(refused.code, 1, what);
      t.match(refused.stderr, refusal, what);
      t.equal((await mount.jobs()).length, 1, 'nothing was recorded');
      await create(mount);
      t.match((await shown(mount)).properties, {
        changeSource: 'listing',
        status: { statusMessage: reason },
      });
    }
  },
);

await t.test(
  'kill -9 between any two batches of the feed loses and doubles no change',
  { skip: cannotMount },
  async (t) => {
    await using account = await FeedAccount.start();
    const numbered = (prefix: string, count: number): readonly string[] =>
      Array.from({ length: count }, (_, n) => `${prefix}${n % 7}/${n}`);
    const old = numbered('old', 300);
    const changed = numbered('changed', 150);
    await each([...old, ...changed], (name) => account.put(name, 'one'));
    await using mount = await TestMount.start(t, { container: account.container, env: account.env });
    await create(mount);
    await untilRecorded(mount, ({ progress }) => progress.phase === 'sync');
    await mount.kill();

    const made = numbered('made', 700);
    await each(old, (name) => account.delete(name));
    await each(changed, (name) => account.put(name, 'two!'));
    await each(made, (name) => account.put(name, 'three'));
    await account.tell();
    for (const nth of [1, 2]) {
      await mount.remount({ ready: 'started', env: { LUSTRITE_CRASH: `import.batch:${nth}` } });
      t.match(await mount.ended(), { signal: 'SIGKILL' });
    }
    await mount.remount({ ready: 'mounted' });
    const before = new Date().toISOString();
    await until(async () => ((await synced(mount)).lastTimeFullySynchronized ?? '') > before, {
      what: 'everything to be applied',
    });

    const found = await readdir(mount.path, { recursive: true, withFileTypes: true });
    const files = found.filter((one) => one.isFile() && !one.name.startsWith('IMPORT_'));
    const paths = files.map((one) => `${one.parentPath}/${one.name}`.slice(mount.path.length + 1));
    t.strictSame(paths.sort(), [...changed, ...made].sort());
    for (const name of [...changed.slice(0, 5), ...changed.slice(-5)])
      t.equal(await readFile(mount.at(name), 'utf8'), 'two!', name);
    t.match(await synced(mount), { deletions: old.length, totalErrors: 0 });
  },
);
