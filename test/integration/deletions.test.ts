/**
 * What auto-import does about a blob that is deleted: every situation under every conflict mode, on a real mount; told by
 * listings and by the change feed.
 */
import { link, lstat, mkdir, open, readFile, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { noBlobSyncCounters, type BlobSyncCounters } from '../../src/jobs/auto-import/auto-import-record.js';
import { noImportCounters, type ImportCounters } from '../../src/jobs/import/import-record.js';
import { AutoImport, importCounters, syncCounters } from '../helpers/auto-import.js';
import { FeedAccount } from '../helpers/feed-account.js';
import { HS, hsmFlags, lfsPath } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok } from '../helpers/run.js';

/** How a cell ends: [deletions, conflicts, state of the job, whether the path is there]. */
const ends = {
  gone: [1, 0, 'InProgress', false],
  /** A conflict that the mode has ended. */
  taken: [1, 1, 'InProgress', false],
  none: [0, 0, 'InProgress', true],
  stay: [0, 1, 'InProgress', true],
  fail: [0, 1, 'Failed', true],
} as const;
type Cell = keyof typeof ends;

/** Without deletions the mode has nothing to say. */
const modes = {
  skip: 'Skip',
  fail: 'Fail',
  'overwrite-dirty': 'OverwriteIfDirty',
  'overwrite-always': 'OverwriteAlways',
  'no deletions': 'OverwriteAlways',
} as const;
type Column = keyof typeof modes;
const columns = Object.keys(modes) as readonly Column[];

interface Situation {
  /** In the order of `columns`. */
  readonly cells: readonly [Cell, Cell, Cell, Cell, Cell];
  /** What the blob is. */
  readonly kind?: 'Files' | 'Directories' | 'Symlinks';
  /** Behind the path. */
  readonly blob?: '/' | '/inside';
  /** When blob sync has begun, before the blob is deleted. */
  readonly local?: (at: string) => Promise<unknown>;
  /** Somebody has it open meanwhile; then it is closed, and everything that has waited goes. */
  readonly open?: true;
  /** Cells that wait for the file to be closed, or for the directory to be empty. */
  readonly waits?: readonly Column[];
  /** Where its data is in every cell, changed; but in those without deletions. */
  readonly keptAt?: (at: string) => string;
}

const unmodified = ['gone', 'gone', 'gone', 'gone', 'none'] as const;
const modified = ['stay', 'fail', 'taken', 'taken', 'none'] as const;
const untouched = ['none', 'none', 'none', 'none', 'none'] as const;
const read = (at: string): Promise<unknown> => readFile(at);
const edit = (at: string): Promise<unknown> => writeFile(at, 'mine');
const elsewhere = (at: string): string => `${at} elsewhere`;
const situations: Readonly<Record<string, Situation>> = {
  'a stub': { cells: unmodified },
  'a clean file': { cells: unmodified, local: read },
  'a clean file, open': { cells: unmodified, open: true, waits: ['skip', 'fail'] },
  'a changed file': { cells: modified, local: edit },
  'a changed file, open': { cells: modified, local: edit, open: true },
  'a file made anew': {
    cells: modified,
    local: async (at) => {
      await unlink(at);
      await writeFile(at, 'mine');
    },
  },
  'a symlink made in its place': {
    cells: modified,
    local: async (at) => {
      await unlink(at);
      await symlink('/mine', at);
    },
  },
  'a pipe made in its place': {
    cells: untouched,
    local: async (at) => {
      await unlink(at);
      await ok('mkfifo', [at]);
    },
  },
  'a file that was moved away': {
    cells: untouched,
    local: async (at) => {
      await readFile(at);
      await rename(at, elsewhere(at));
    },
    keptAt: elsewhere,
  },
  'a file that was moved here': {
    cells: modified,
    local: async (at) => {
      await writeFile(elsewhere(at), 'mine');
      await rename(elsewhere(at), at);
    },
  },
  'a file with two names': {
    cells: unmodified,
    local: async (at) => {
      await readFile(at);
      await link(at, elsewhere(at));
    },
    keptAt: elsewhere,
  },
  'a changed file with two names': {
    cells: modified,
    local: async (at) => {
      await writeFile(at, 'mine');
      await link(at, elsewhere(at));
    },
  },
  'a symlink': { cells: unmodified, kind: 'Symlinks' },
  'a symlink that was made anew': {
    cells: modified,
    kind: 'Symlinks',
    local: async (at) => {
      await unlink(at);
      await symlink('/mine', at);
    },
  },
  'a directory': { cells: unmodified, kind: 'Directories' },
  'a directory of a marker': { cells: unmodified, kind: 'Directories', blob: '/' },
  'a directory with a new file': {
    cells: unmodified,
    kind: 'Directories',
    local: (at) => writeFile(`${at}/inside`, 'mine'),
    waits: ['skip', 'fail', 'overwrite-dirty', 'overwrite-always'],
  },
};

const body = 'as it was in the container';

interface TableCell {
  readonly what: string;
  readonly situation: Situation;
  readonly path: string;
  readonly blob: string;
  readonly end: Cell;
}

/** Who changes the container, and how the mount gets to know. */
interface Other {
  readonly mount: TestMount;
  readonly source: 'listing' | 'feed';
  put(blob: string, body: string, metadata: Readonly<Record<string, string>>): Promise<unknown>;
  delete(blob: string): Promise<unknown>;
}

t.test('every cell of the deletion table', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  const other: Other = {
    mount: lab.mount,
    source: 'listing',
    put: (blob, body, metadata) =>
      lab.container.getBlockBlobClient(blob).upload(body, body.length, { metadata }),
    delete: (blob) => lab.container.deleteBlob(blob),
  };
  for (const column of columns) await everyCell(t, other, column);

  await t.test('skip: a file that hsm_set called dirty: stay', async (t) => {
    await lab.upload({ 'called dirty': body });
    t.equal(await lab.import(), 'Completed');
    await readFile(lab.at('called dirty'));
    await ok(lfsPath, ['hsm_set', '--dirty', lab.at('called dirty')]);
    const request = { name: 'called-dirty', prefix: 'called dirty', enableDeletions: true } as const;
    const job = await AutoImport.enable(lab.mount, { ...request, mode: 'Skip' });
    await lab.container.deleteBlob('called dirty');
    await job.synced();
    const conflict = { totalConflicts: 1 };
    const status = await job.status();
    t.same(importCounters(status), { ...noImportCounters, totalBlobsWalked: 1, ...conflict });
    t.same(syncCounters(status), { ...noBlobSyncCounters, ...conflict });
    t.equal(await readFile(lab.at('called dirty'), 'utf8'), body);
    await job.disable();
  });
});

t.test('the same by the change feed', { skip: cannotMount }, async (t) => {
  await using account = await FeedAccount.start();
  await using mount = await TestMount.start(t, { container: account.container, env: account.env });
  const other: Other = {
    mount,
    source: 'feed',
    put: (blob, body, metadata) => account.put(blob, body, metadata),
    async delete(blob) {
      await account.delete(blob);
      await account.tell();
    },
  };
  for (const column of columns) await everyCell(t, other, column);
});

/** A job that fails is followed by another one. */
async function everyCell(t: Test, other: Other, column: Column): Promise<void> {
  const { mount, source } = other;
  const all = Object.entries(situations).map(([what, situation]): TableCell => {
    // Names of blobs are prefixes of each other only where that is meant.
    const path = `${column}/${what}.`;
    const end = situation.cells[columns.indexOf(column)] ?? 'none';
    return { what, situation, path, blob: `${path}${situation.blob ?? ''}`, end };
  });
  // The next job by the feed waits for a new second of the service's clock: one that fails is enough.
  const cells = all.filter(
    ({ end }, at) => source !== 'feed' || end !== 'fail' || all.findIndex((one) => one.end === 'fail') === at,
  );
  await mkdir(mount.at(column));
  await Promise.all(
    cells.map(async ({ blob, situation: { kind = 'Files' } }) => {
      const metadata = {
        ...(kind === 'Symlinks' && { is_symlink: 'true' }),
        ...(kind === 'Directories' && { hdi_isfolder: 'true' }),
      };
      await other.put(blob, kind === 'Directories' ? '' : body, metadata);
    }),
  );

  let job: AutoImport | undefined;
  let scanned: ImportCounters = noImportCounters;
  for (const [at, cell] of cells.entries()) {
    const { what, situation, path, blob, end } = cell;
    const waits = situation.waits?.includes(column) === true;
    await t.test(`${source}, ${column}: ${what}: ${waits ? 'waits, then ' : ''}${end}`, async (t) => {
      if (job === undefined) {
        scanned = counted(cells.slice(at), at === 0 ? 'imported' : 'preexisting');
        job = await AutoImport.enable(mount, {
          name: `${source}-${columns.indexOf(column)}-${at}`,
          prefix: `${column}/`,
          mode: modes[column],
          enableDeletions: column !== 'no deletions',
          source,
        });
      }
      const before = syncCounters(await job.status());
      const counts = async (wanted: Cell, when: string): Promise<void> => {
        const [deletions, totalConflicts, state] = ends[wanted];
        const status = await job?.status();
        if (status === undefined) return;
        const expected: BlobSyncCounters = { ...noBlobSyncCounters, deletions, totalConflicts };
        t.same(syncCounters(status, before), expected, when);
        t.same(importCounters(status), scanned, 'the full sync is over');
        t.equal(status.state, state);
      };

      const file = mount.at(path);
      await situation.local?.(file);
      const held = situation.open === true ? await open(file, 'r') : undefined;
      await other.delete(blob);
      await job.synced();
      if (waits) {
        await counts('none', 'while it waits');
        t.ok(await isThere(file), 'there while it waits');
        if (held === undefined) await unlink(`${file}/inside`);
        else await held.close();
        await job.synced();
      }
      await counts(end, 'at the end');
      const kept = situation.keptAt?.(file);
      const stays = ends[end][3] && !what.includes('moved away');
      // The kernel is told behind what is counted.
      await until(async () => (await isThere(file)) === stays, { what: `${path} to be as the table says` });
      if (kept !== undefined) {
        t.equal(await readFile(kept, 'utf8'), body, 'its data is under the other name');
        t.ok((await hsmFlags(kept)) & (column === 'no deletions' ? HS.DIRTY | HS.LOST : HS.DIRTY));
      }
      if (end === 'none' && what === 'a clean file')
        t.ok((await hsmFlags(file)) & HS.LOST, 'lost_from_hsm: never released');
      if (!waits) await held?.close();
      if (end !== 'fail' && at < cells.length - 1) return;
      await job.disable();
      job = undefined;
    });
  }
}

/** What a full sync counts. */
function counted(cells: readonly TableCell[], how: 'imported' | 'preexisting'): ImportCounters {
  const counters: Record<string, number> & ImportCounters = { ...noImportCounters };
  const tally = (name: string): void => {
    counters[name] = (counters[name] ?? 0) + 1;
  };
  for (const { situation } of cells) {
    tally('totalBlobsWalked');
    if (how === 'imported') tally('totalBlobsImported');
    tally(`${how}${situation.kind ?? 'Files'}`);
  }
  return counters;
}

function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
