/**
 * What an import does about a path that is taken: every situation under every conflict mode, on a real mount; by an import
 * job, by the full sync of an auto-import, and by its blob sync.
 */
import {
  chmod,
  link,
  lstat,
  mkdir,
  open,
  readFile,
  readlink,
  rename,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { dirname } from 'node:path';
import t, { type Test } from 'tap';
import { noBlobSyncCounters } from '../../src/jobs/auto-import/auto-import-record.js';
import { noImportCounters, type ImportStatus } from '../../src/jobs/import/import-record.js';
import { Application } from '../helpers/application.js';
import { AutoImport, importCounters, syncCounters } from '../helpers/auto-import.js';
import { HS, hsmFlags, lfsPath, states } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { until } from '../helpers/poll.js';
import { cannotMount } from '../helpers/mounts.js';
import { ok } from '../helpers/run.js';

/** How a cell ends: [state of an import job, counted as imported, as preexisting, conflicts, what is there afterwards]. */
const ends = {
  /** No conflict. */
  new: ['Completed', 1, 0, 0, 'the blob'],
  keep: ['Completed', 0, 1, 0, 'as it was'],
  made: ['Completed', 1, 0, 0, 'attributes'],
  /** Conflicts. */
  stay: ['CompletedPartial', 0, 0, 1, 'as it was'],
  fail: ['Failed', 0, 0, 1, 'as it was'],
  attr: ['Completed', 1, 0, 1, 'attributes'],
  free: ['Completed', 0, 1, 1, 'the blob'],
  blob: ['Completed', 1, 0, 1, 'the blob'],
  /** An auto-import waits until nobody has the file open, then `blob` or `keep`. */
  'wait, blob': ['Completed', 1, 0, 1, 'the blob'],
  'wait, keep': ['Completed', 0, 1, 0, 'as it was'],
} as const;
type Cell = keyof typeof ends;

/** As the command line calls them, and the API. */
const modes = {
  fail: 'Fail',
  skip: 'Skip',
  'overwrite-dirty': 'OverwriteIfDirty',
  'overwrite-always': 'OverwriteAlways',
} as const;
/** In the order of `modes`. */
type Cells = readonly [Cell, Cell, Cell, Cell];

type Kind = 'Files' | 'Directories' | 'Symlinks';

interface Situation {
  /** Of an import job, and of both phases of an auto-import unless they say otherwise. */
  readonly cells: Cells;
  readonly fullSync?: Cells;
  /** 'no change': there is nothing for a blob sync to see. */
  readonly blobSync?: Cells | 'no change';
  /** What the blob is. */
  readonly kind?: Kind;
  /** What it was when it was imported. */
  readonly was?: Kind;
  /** Made before any blob is there, so that it is not imported. */
  readonly local?: (at: string) => Promise<unknown>;
  /** Another blob that is imported in its place. */
  readonly other?: (name: string) => string;
  /** After the first import, before any job of the cell. */
  readonly setUp?: (lab: MountedContainer, name: string) => Promise<unknown>;
  /** The same; in blob sync, after the job has begun. */
  readonly then?: (at: string, lab: MountedContainer) => Promise<unknown>;
  /** Another client puts a newer blob there before the job; in blob sync, somebody always does. */
  readonly newer?: true;
  /** Who has it open while the job runs. */
  readonly holding?: 'a writer' | 'a reader' | 'a mapping';
  /** Another name of the file, which keeps what it has. */
  readonly alsoAt?: (at: string) => string;
}

const replaced: Cells = ['fail', 'stay', 'blob', 'blob'];
const made: Cells = ['new', 'new', 'new', 'new'];
const kept: Cells = ['keep', 'keep', 'keep', 'keep'];
const read = (at: string): Promise<unknown> => readFile(at);
const edit = (at: string): Promise<unknown> => writeFile(at, 'mine');
const readByOthers: Situation = {
  cells: ['fail', 'stay', 'attr', 'stay'],
  fullSync: ['fail', 'stay', 'wait, blob', 'wait, blob'],
  blobSync: ['fail', 'stay', 'wait, blob', 'wait, blob'],
  then: read,
  newer: true,
};
/** Under no prefix of a job. */
const elsewhere = (path: string): string => path.replace(/\/([^/]+)\.$/, '@elsewhere/$1');

const situations: Readonly<Record<string, Situation>> = {
  'nothing there': { cells: made, local: () => Promise.resolve() },
  'nothing there, for a symlink': { cells: made, kind: 'Symlinks', local: () => Promise.resolve() },
  'nothing there, for a directory': { cells: made, kind: 'Directories', local: () => Promise.resolve() },
  'a stub of the same blob': { cells: kept, blobSync: 'no change' },
  'a clean file of this blob': {
    cells: ['keep', 'keep', 'keep', 'free'],
    blobSync: 'no change',
    then: read,
  },
  'a stub of an older blob': { cells: replaced, newer: true },
  'a stub, chmodded': { cells: replaced, then: (at) => chmod(at, 0o600) },
  'a clean file of an older blob': {
    cells: ['fail', 'stay', 'attr', 'blob'],
    fullSync: replaced,
    blobSync: replaced,
    then: read,
    newer: true,
  },
  'a clean file, chmodded': {
    cells: ['fail', 'stay', 'attr', 'blob'],
    blobSync: replaced,
    then: async (at) => {
      await readFile(at);
      await chmod(at, 0o600);
    },
  },
  'a changed file': { cells: replaced, blobSync: 'no change', then: edit },
  'a changed file over a newer blob': { cells: replaced, then: edit, newer: true },
  'an open file, changed': {
    cells: ['fail', 'stay', 'stay', 'stay'],
    // The try after the full sync is one of blob sync, which is about newer blobs.
    fullSync: ['fail', 'stay', 'wait, keep', 'wait, keep'],
    blobSync: 'no change',
    then: edit,
    holding: 'a writer',
  },
  'an open file, changed, over a newer blob': {
    cells: ['fail', 'stay', 'stay', 'stay'],
    fullSync: ['fail', 'stay', 'wait, blob', 'wait, blob'],
    blobSync: ['fail', 'stay', 'wait, blob', 'wait, blob'],
    then: edit,
    newer: true,
    holding: 'a writer',
  },
  'a clean file of this blob that somebody reads': {
    cells: ['keep', 'keep', 'keep', 'stay'],
    // What waits is looked at as blob sync does.
    fullSync: ['keep', 'keep', 'keep', 'wait, keep'],
    blobSync: 'no change',
    then: read,
    holding: 'a reader',
  },
  'a clean file of an older blob that somebody reads': {
    ...readByOthers,
    holding: 'a reader',
  },
  'a clean file of an older blob that somebody has mapped': {
    ...readByOthers,
    holding: 'a mapping',
  },
  'a new file': { cells: replaced, local: edit },
  'a clean file, never to be released': {
    cells: ['fail', 'stay', 'attr', 'stay'],
    setUp: async ({ mount }, name) => {
      await readFile(mount.at(name));
      await ok(lfsPath, ['hsm_set', '--norelease', mount.at(name)]);
    },
    newer: true,
  },
  'a file that was moved here': {
    cells: ['fail', 'stay', 'attr', 'blob'],
    fullSync: replaced,
    blobSync: replaced,
    other: elsewhere,
    setUp: async ({ mount }, name) => {
      await readFile(mount.at(elsewhere(name)));
      await rename(mount.at(elsewhere(name)), mount.at(name));
    },
  },
  'a stub that was moved here': {
    cells: replaced,
    other: elsewhere,
    setUp: ({ mount }, name) => rename(mount.at(elsewhere(name)), mount.at(name)),
  },
  'a clean file with two names': {
    cells: ['fail', 'stay', 'attr', 'blob'],
    fullSync: replaced,
    blobSync: replaced,
    then: async (at) => {
      await readFile(at);
      await link(at, elsewhere(at));
    },
    newer: true,
    alsoAt: elsewhere,
  },
  'an empty directory': { cells: replaced, local: (at) => mkdir(at) },
  'a directory with a file': {
    cells: ['fail', 'stay', 'stay', 'stay'],
    local: async (at) => {
      await mkdir(at);
      await writeFile(`${at}/inside`, 'mine');
    },
  },
  'a symlink for a file': { cells: replaced, local: (at) => symlink('/elsewhere', at) },
  'a pipe for a file': { cells: replaced, local: (at) => ok('mkfifo', [at]) },
  'the same symlink': { cells: kept, kind: 'Symlinks' },
  'another symlink': { cells: replaced, kind: 'Symlinks', local: (at) => symlink('/elsewhere', at) },
  'a file for a symlink': { cells: replaced, kind: 'Symlinks', local: edit },
  'a directory for a symlink': { cells: replaced, kind: 'Symlinks', local: (at) => mkdir(at) },
  'a pipe for a symlink': { cells: replaced, kind: 'Symlinks', local: (at) => ok('mkfifo', [at]) },
  'the same directory': { cells: kept, kind: 'Directories' },
  'a directory, chmodded': {
    cells: ['fail', 'stay', 'attr', 'attr'],
    kind: 'Directories',
    then: (at) => chmod(at, 0o700),
  },
  'a directory that a name had implied': {
    cells: ['fail', 'stay', 'attr', 'attr'],
    fullSync: ['made', 'made', 'made', 'made'],
    blobSync: ['made', 'made', 'made', 'made'],
    kind: 'Directories',
    other: (name) => `${name}/inside`,
    setUp: async ({ container, mount }, name) => {
      await container.deleteBlob(`${name}/inside`);
      await unlink(mount.at(`${name}/inside`));
    },
  },
  'a file for a directory': { cells: replaced, kind: 'Directories', local: edit },
  'a symlink for a directory': {
    cells: replaced,
    kind: 'Directories',
    local: (at) => symlink('/elsewhere', at),
  },
  'a pipe for a directory': { cells: replaced, kind: 'Directories', local: (at) => ok('mkfifo', [at]) },
  'a stub whose blob is a symlink now': { cells: replaced, was: 'Files', kind: 'Symlinks' },
  'a clean file whose blob is a symlink now': { cells: replaced, was: 'Files', kind: 'Symlinks', then: read },
  'a changed file whose blob is a symlink now': {
    cells: replaced,
    was: 'Files',
    kind: 'Symlinks',
    then: edit,
  },
  'a stub whose blob is a directory now': { cells: replaced, was: 'Files', kind: 'Directories' },
  'a clean file whose blob is a directory now': {
    cells: replaced,
    was: 'Files',
    kind: 'Directories',
    then: read,
  },
  'a changed file whose blob is a directory now': {
    cells: replaced,
    was: 'Files',
    kind: 'Directories',
    then: edit,
  },
  'a symlink whose blob is a file now': { cells: replaced, was: 'Symlinks', kind: 'Files' },
};

const old = 'as it is in the container';
const newer = 'newer, and longer, in the container';
const owner = { uid: 1234, gid: 2345 };
const mtimeMs = Date.UTC(2020, 1, 2, 3, 4, 5);

type Column = 'import' | 'full sync' | 'blob sync';

interface TableCell {
  readonly what: string;
  readonly situation: Situation;
  readonly mode: keyof typeof modes;
  readonly name: string;
  readonly end: Cell;
}

function cellsOf(column: Column): readonly TableCell[] {
  const names = Object.keys(modes) as (keyof typeof modes)[];
  return names.flatMap((mode, at) =>
    Object.entries(situations).flatMap(([what, situation]) => {
      const { cells, fullSync = cells, blobSync = cells } = situation;
      const row = column === 'import' ? cells : column === 'full sync' ? fullSync : blobSync;
      const end = row === 'no change' ? undefined : row[at];
      // Prefixes are strings: no name begins with another.
      const name = `${column}/${mode}/${what}.`;
      return end === undefined ? [] : [{ what, situation, mode, name, end }];
    }),
  );
}

t.test('every cell of the conflict table', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  const [imports, fullSyncs, blobSyncs] = [cellsOf('import'), cellsOf('full sync'), cellsOf('blob sync')];
  const cells = [...imports, ...fullSyncs, ...blobSyncs];
  const folders = new Set(cells.flatMap(({ name }) => [dirname(name), dirname(elsewhere(name))]));
  for (const folder of folders) await mkdir(lab.at(folder), { recursive: true });
  await Promise.all(
    cells.map(async ({ name, situation }) => {
      const { local, other, kind, was = kind } = situation;
      if (local) await local(lab.at(name));
      else if (other) await put(lab, other(name), undefined, old);
      else await put(lab, name, was, old);
    }),
  );
  t.equal(await lab.import(), 'Completed');
  await Promise.all(
    cells.map(async ({ name, situation }) => {
      await situation.setUp?.(lab, name);
    }),
  );

  for (const cell of imports) {
    await t.test(`import, ${cell.mode}: ${cell.what}: ${cell.end}`, async (t) => {
      const { before, body, held } = await prepare(lab, cell);
      const request = {
        conflictResolutionMode: modes[cell.mode],
        prefixes: [`/${cell.name}`],
        maximumErrors: -1,
      };
      const status = (await lab.mount.job('import', request)).properties.status as ImportStatus;
      await held?.close();
      t.equal(status.state, ends[cell.end][0]);
      t.same(importCounters(status), { ...noImportCounters, totalBlobsWalked: 1, ...counted(cell) });
      await left(t, lab, cell, before, body);
    });
  }

  for (const [at, cell] of fullSyncs.entries()) {
    await t.test(`full sync, ${cell.mode}: ${cell.what}: ${cell.end}`, async (t) => {
      const { before, body, held } = await prepare(lab, cell);
      const request = { name: `full-${at}`, prefix: cell.name, mode: modes[cell.mode] };
      const job = await AutoImport.enable(lab.mount, request);
      const walked = { ...noImportCounters, totalBlobsWalked: 1 };
      const waits = cell.end.startsWith('wait');
      if (waits) t.same(importCounters(await job.status()), walked, 'while it waits');
      await held?.close();
      if (waits) await job.synced();
      const status = await job.status();
      t.equal(status.state, stateOf(cell));
      t.same(importCounters(status), waits ? walked : { ...walked, ...counted(cell) });
      t.same(syncCounters(status), { ...noBlobSyncCounters, ...(waits && counted(cell)) });
      await job.disable();
      await left(t, lab, cell, before, body);
    });
  }

  /** Of the mode; one that fails at its first conflict serves one cell. */
  let job: AutoImport | undefined;
  for (const [at, cell] of blobSyncs.entries()) {
    await t.test(`blob sync, ${cell.mode}: ${cell.what}: ${cell.end}`, async (t) => {
      const { mode, name } = cell;
      const prefix = mode === 'fail' ? name : `${dirname(name)}/`;
      job ??= await AutoImport.enable(lab.mount, { name: `sync-${at}`, prefix, mode: modes[mode] });
      const begun = await job.status();
      const before = syncCounters(begun);
      const { before: was, body, held } = await prepare(lab, cell, { newer: true });
      await job.synced();
      if (cell.end.startsWith('wait')) {
        t.same(syncCounters(await job.status(), before), noBlobSyncCounters, 'while it waits');
        await held?.close();
        await job.synced();
      }
      await held?.close();
      const status = await job.status();
      t.equal(status.state, stateOf(cell));
      t.same(syncCounters(status, before), { ...noBlobSyncCounters, ...counted(cell) });
      t.same(importCounters(status), importCounters(begun), 'the full sync is over');
      await left(t, lab, cell, was, body);
      if (mode !== 'fail' && blobSyncs[at + 1]?.mode === mode) return;
      await job.disable();
      job = undefined;
    });
  }
});

async function put(
  { container }: MountedContainer,
  name: string,
  kind: Kind | undefined,
  content: string,
): Promise<void> {
  const body = kind === 'Symlinks' ? 'target' : kind === 'Directories' ? '' : content;
  const metadata = {
    owner: String(owner.uid),
    group: String(owner.gid),
    modtime: '2020-02-02 03:04:05 +0000',
    permissions: kind === 'Directories' ? '0751' : '0640',
    ...(kind === 'Directories' && { hdi_isfolder: 'true' }),
    ...(kind === 'Symlinks' && { is_symlink: 'true' }),
  };
  await container.getBlockBlobClient(name).upload(body, body.length, { metadata });
}

/** Makes what is there and what is in the container before the job, or in blob sync the change that it is to see. */
async function prepare(
  lab: MountedContainer,
  { name, situation }: TableCell,
  change: { readonly newer?: true } = {},
): Promise<{
  readonly before: Seen;
  /** Of the blob. */
  readonly body: string;
  readonly held: { readonly close: () => Promise<unknown> } | undefined;
}> {
  const { then, local, other, was, kind, holding } = situation;
  const isNewer = change.newer ?? situation.newer ?? false;
  await then?.(lab.at(name), lab);
  const before = await look(lab.at(name));
  const held = holding && (await hold(lab.at(name), holding));
  const body = isNewer ? newer : old;
  if (isNewer || local || other || was) await put(lab, name, kind, body);
  return { before, body, held };
}

async function hold(
  at: string,
  who: NonNullable<Situation['holding']>,
): Promise<{ readonly close: () => Promise<unknown> }> {
  if (who !== 'a mapping') return open(at, who === 'a writer' ? 'r+' : 'r');
  const application = new Application();
  // mmap.mmap() would keep a descriptor of its own.
  await application.do(
    `libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
file = os.open(args[0], os.O_RDONLY)
memory = libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_SHARED, file, ctypes.c_long(0))
assert memory != ctypes.c_void_p(-1).value
os.close(file)`,
    at,
  );
  return { close: () => application[Symbol.asyncDispose]() };
}

function stateOf({ end }: TableCell): string {
  return ends[end][0] === 'Failed' ? 'Failed' : 'InProgress';
}

/** What the one blob of a cell counts as. */
function counted({ end, situation: { kind = 'Files' } }: TableCell) {
  const [, imported, preexisting, totalConflicts] = ends[end];
  return {
    [`imported${kind}`]: imported,
    [`preexisting${kind}`]: preexisting,
    totalBlobsImported: imported,
    totalConflicts,
  };
}

/** As imports make them. */
const modeOf = { Files: 0o100640, Directories: 0o40751, Symlinks: 0o120777 } as const;

async function left(
  t: Test,
  lab: MountedContainer,
  { name, situation, end }: TableCell,
  before: Seen,
  body: string,
): Promise<void> {
  const at = lab.at(name);
  const { kind = 'Files', alsoAt } = situation;
  const what = ends[end][4];
  // The kernel hears of a name a moment after the job has counted it.
  if (what !== 'as it was')
    await until(async () => (await lstat(at).catch(() => undefined))?.mode === modeOf[kind], {
      what: `${name} to be seen`,
    });
  if (what === 'as it was') {
    t.same(await look(at), before, 'as it was');
  } else if (kind === 'Directories') {
    t.match(await look(at), { ...owner, mode: modeOf[kind] });
  } else if (kind === 'Symlinks') {
    t.match(await look(at), { ...owner, mode: modeOf[kind], content: 'target' });
  } else if (what === 'attributes') {
    t.match(await look(at), { ...before, ...owner, mode: modeOf[kind], mtimeMs });
  } else {
    t.equal(await hsmFlags(at), states.stub, 'released');
    t.equal(await readFile(at, 'utf8'), body);
    t.match(await look(at), { ...owner, mode: modeOf[kind], flags: states.clean, mtimeMs });
  }
  if (alsoAt === undefined) return;
  t.equal(await readFile(alsoAt(at), 'utf8'), old, 'the other name has what it had');
  if (what === 'the blob') t.ok((await hsmFlags(alsoAt(at))) & HS.DIRTY, 'the only data of it');
}

interface Seen {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeMs?: number;
  readonly flags?: number;
  readonly content?: string;
}

/** What there is; reading a stub would change it. */
async function look(at: string): Promise<Seen> {
  const found = await lstat(at).catch(() => undefined);
  if (found === undefined) return {};
  const { mode, uid, gid, mtimeMs, size } = found;
  const shown = { mode, uid, gid, mtimeMs };
  if (found.isSymbolicLink()) return { ...shown, content: await readlink(at) };
  if (!found.isFile()) return shown;
  const flags = await hsmFlags(at);
  const content = (flags & HS.RELEASED) !== 0 ? `${size} bytes` : await readFile(at, 'utf8');
  return { ...shown, flags, content };
}
