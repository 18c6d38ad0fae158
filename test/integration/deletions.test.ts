/** What auto-import does about a blob that is deleted: every situation under every conflict mode, on a real mount. */
import { lstat, mkdir, open, readFile, rename, unlink, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { JobView } from '../../src/base/control-api.js';
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import { HS, hsmFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

/** How a cell ends: [deletions, conflicts, errors, state of the job, whether the path is there]. */
const ends = {
  gone: [1, 0, 0, 'InProgress', false],
  /** A conflict that the mode has ended. */
  taken: [1, 1, 0, 'InProgress', false],
  none: [0, 0, 0, 'InProgress', true],
  stay: [0, 1, 0, 'InProgress', true],
  fail: [0, 1, 0, 'Failed', true],
} as const;
type Cell = keyof typeof ends;

/** Without deletions the mode has nothing to say. */
const columns = ['skip', 'fail', 'overwrite-dirty', 'overwrite-always', 'no deletions'] as const;
const modes = {
  skip: 'Skip',
  fail: 'Fail',
  'overwrite-dirty': 'OverwriteIfDirty',
  'overwrite-always': 'OverwriteAlways',
  'no deletions': 'OverwriteAlways',
} as const;

interface Situation {
  /** In the order of `columns`. */
  readonly cells: readonly [Cell, Cell, Cell, Cell, Cell];
  /** What the blob is; a file by default. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** When blob sync has begun, before the blob is deleted; resolves with what ends the use of the file. */
  readonly local?: (at: string) => Promise<unknown>;
  /** Somebody has it open meanwhile; then it is closed, and everything that has waited goes. */
  readonly open?: true;
  /** A cell that waits for the file to be closed, or for the directory to be empty. */
  readonly waits?: readonly (typeof columns)[number][];
}

const unmodified = ['gone', 'gone', 'gone', 'gone', 'none'] as const;
const modified = ['stay', 'fail', 'taken', 'taken', 'none'] as const;
const read = (at: string): Promise<unknown> => readFile(at);
const edit = (at: string): Promise<unknown> => writeFile(at, 'mine');
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
  'a file that was moved away': {
    cells: ['none', 'none', 'none', 'none', 'none'],
    local: async (at) => {
      await readFile(at);
      await rename(at, `${at} elsewhere`);
    },
  },
  'a symlink': { cells: unmodified, metadata: { is_symlink: 'true' } },
  'a directory': { cells: unmodified, metadata: { hdi_isfolder: 'true' } },
  'a directory with a new file': {
    cells: ['gone', 'gone', 'gone', 'gone', 'none'],
    metadata: { hdi_isfolder: 'true' },
    local: (at) => writeFile(`${at}/inside`, 'mine'),
    waits: ['skip', 'fail', 'overwrite-dirty', 'overwrite-always'],
  },
};

t.test('every cell of the deletion table', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  const cells = Object.entries(situations).flatMap(([what, situation]) =>
    columns.map((column, at) => ({ what, situation, column, end: situation.cells[at] ?? 'none' })),
  );
  for (const column of columns) await mkdir(lab.at(column));
  for (const [at, { what, situation, column, end }] of cells.entries()) {
    const path = `${column}/${what}`;
    const waits = situation.waits?.includes(column) === true;
    await t.test(`${column}: ${what}: ${waits ? 'waits, then ' : ''}${end}`, async (t) => {
      const { metadata = {}, local } = situation;
      const blob = lab.container.getBlockBlobClient(path);
      const body = metadata['hdi_isfolder'] === undefined ? 'target' : '';
      await blob.upload(body, body.length, { metadata });
      const job = await AutoImport.enable(lab, `job-${at}`, path, column);
      const file = lab.at(path);
      await local?.(file);
      const held = situation.open === true ? await open(file, 'r') : undefined;
      await blob.delete();
      await job.synced();
      if (waits) {
        await job.counts(t, 'none', 'while it waits');
        t.ok(await isThere(file), 'there while it waits');
        if (held === undefined) await unlink(`${file}/inside`);
        else await held.close();
        await job.synced();
      }
      await job.counts(t, end, 'at the end');
      const moved = what.includes('moved away') ? `${file} elsewhere` : file;
      t.equal(await isThere(moved), ends[end][4]);
      if (moved !== file) t.equal(await readFile(moved, 'utf8'), body, 'with its data');
      if (end === 'none' && what === 'a clean file')
        t.ok((await hsmFlags(file)) & HS.LOST, 'lost_from_hsm: never released');
      if (!waits) await held?.close();
      await job.disable();
    });
  }
});

/** A job that follows one path. */
class AutoImport {
  readonly #lab: MountedContainer;
  readonly #name: string;

  private constructor(lab: MountedContainer, name: string) {
    this.#lab = lab;
    this.#name = name;
  }

  static async enable(
    lab: MountedContainer,
    name: string,
    path: string,
    column: (typeof columns)[number],
  ): Promise<AutoImport> {
    await lab.mount.control('POST', '/v1/jobs/auto-import', {
      name,
      prefixes: [`/${path}`],
      conflictResolutionMode: modes[column],
      enableDeletions: column !== 'no deletions',
      changeSource: 'listing',
      pollIntervalMs: 100,
    });
    const job = new AutoImport(lab, name);
    await until(async () => (await job.#status()).scanEndTime, { what: 'blob sync', intervalMs: 10 });
    return job;
  }

  /** Resolves when the job has looked at all of the container since, or has ended. */
  async synced(): Promise<void> {
    const since = new Date().toISOString();
    await until(
      async () => {
        const { state, blobSyncEvents } = await this.#status();
        return state !== 'InProgress' || (blobSyncEvents.lastTimeFullySynchronized ?? '') > since;
      },
      { what: 'a look at the container', intervalMs: 10 },
    );
  }

  async counts(t: Test, end: Cell, when: string): Promise<void> {
    const [deletions, totalConflicts, totalErrors, state] = ends[end];
    t.match(
      await this.#status(),
      { state, blobSyncEvents: { deletions, totalConflicts, totalErrors, totalBlobsImported: 0 } },
      when,
    );
  }

  async disable(): Promise<void> {
    const { state } = await this.#status();
    if (state === 'InProgress') await this.#lab.mount.control('POST', `/v1/jobs/${this.#name}/cancel`, {});
    await this.#lab.mount.untilJobsEnd();
  }

  async #status(): Promise<AutoImportRecord['properties']['status']> {
    const job = (await this.#lab.mount.control('GET', `/v1/jobs/${this.#name}`)) as JobView;
    return job.properties.status as AutoImportRecord['properties']['status'];
  }
}

function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
