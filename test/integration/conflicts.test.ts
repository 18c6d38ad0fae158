/** What an import does about a path that is taken: every situation under every conflict mode, on a real mount. */
import { chmod, lstat, mkdir, open, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import t from 'tap';
import { hsmFlags, lfsPath, states } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { ok } from '../helpers/run.js';

/** How a cell ends: [state, kind counted as imported, as preexisting, conflicts, what is there afterwards]. */
type End = readonly [string, 0 | 1, 0 | 1, 0 | 1, 'as it was' | 'attributes' | 'released' | 'the blob'];
const ends = {
  keep: ['Completed', 0, 1, 0, 'as it was'],
  stay: ['CompletedPartial', 0, 0, 1, 'as it was'],
  fail: ['Failed', 0, 0, 1, 'as it was'],
  attr: ['Completed', 1, 0, 1, 'attributes'],
  free: ['Completed', 0, 1, 1, 'released'],
  blob: ['Completed', 1, 0, 1, 'the blob'],
} as const satisfies Readonly<Record<string, End>>;
type Cell = keyof typeof ends;

/** As the command line calls them, and the API. */
const modes = {
  fail: 'Fail',
  skip: 'Skip',
  'overwrite-dirty': 'OverwriteIfDirty',
  'overwrite-always': 'OverwriteAlways',
} as const;
const columns = Object.keys(modes) as (keyof typeof modes)[];

interface Situation {
  /** In the order of `modes`, the columns. */
  readonly cells: readonly [Cell, Cell, Cell, Cell];
  readonly kind?: 'Files' | 'Directories' | 'Symlinks';
  /** Local before any blob is there, so that it is not imported. */
  readonly local?: (at: string) => Promise<unknown>;
  /** After the first import. */
  readonly then?: (at: string) => Promise<unknown>;
  /** Another client puts a newer blob there before the import of the cell. */
  readonly newer?: true;
  /** While the import of the cell runs. */
  readonly holding?: true;
}

const read = (at: string): Promise<unknown> => readFile(at);
const edit = (at: string): Promise<unknown> => ok('sh', ['-c', 'printf mine > "$1"', 'sh', at]);
const situations: Readonly<Record<string, Situation>> = {
  'a stub of the same blob': { cells: ['keep', 'keep', 'keep', 'keep'] },
  'a clean file of this blob': { cells: ['keep', 'keep', 'keep', 'free'], then: read },
  'a stub of an older blob': { cells: ['fail', 'stay', 'blob', 'blob'], newer: true },
  'a clean file of an older blob': { cells: ['fail', 'stay', 'attr', 'blob'], then: read, newer: true },
  'a clean file, chmodded': {
    cells: ['fail', 'stay', 'attr', 'blob'],
    then: async (at) => {
      await readFile(at);
      await chmod(at, 0o600);
    },
  },
  'a changed file': { cells: ['fail', 'stay', 'blob', 'blob'], then: edit },
  'an open file, changed': { cells: ['fail', 'stay', 'stay', 'stay'], then: edit, holding: true },
  'a new file': { cells: ['fail', 'stay', 'blob', 'blob'], local: edit },
  'a clean file, never to be released': {
    cells: ['fail', 'stay', 'attr', 'stay'],
    then: async (at) => {
      await readFile(at);
      await ok(lfsPath, ['hsm_set', '--norelease', at]);
    },
    newer: true,
  },
  'an empty directory': { cells: ['fail', 'stay', 'blob', 'blob'], local: (at) => mkdir(at) },
  'a directory with a file': {
    cells: ['fail', 'stay', 'stay', 'stay'],
    local: async (at) => {
      await mkdir(at);
      await writeFile(`${at}/inside`, 'mine');
    },
  },
  'a symlink for a file': {
    cells: ['fail', 'stay', 'blob', 'blob'],
    local: (at) => symlink('/elsewhere', at),
  },
  'the same symlink': { cells: ['keep', 'keep', 'keep', 'keep'], kind: 'Symlinks' },
  'another symlink': {
    cells: ['fail', 'stay', 'blob', 'blob'],
    kind: 'Symlinks',
    local: (at) => symlink('/elsewhere', at),
  },
  'a file for a symlink': { cells: ['fail', 'stay', 'blob', 'blob'], kind: 'Symlinks', local: edit },
  'the same directory': { cells: ['keep', 'keep', 'keep', 'keep'], kind: 'Directories' },
  'a directory, chmodded': {
    cells: ['fail', 'stay', 'attr', 'attr'],
    kind: 'Directories',
    then: (at) => chmod(at, 0o700),
  },
  'a file for a directory': { cells: ['fail', 'stay', 'blob', 'blob'], kind: 'Directories', local: edit },
};

const old = 'as it is in the container';
const newer = 'newer, and longer, in the container';

t.test('every cell of the conflict table', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  const put = async (name: string, { kind }: Situation, content: string): Promise<void> => {
    const body = kind === 'Symlinks' ? 'target' : kind === 'Directories' ? '' : content;
    const metadata = {
      permissions: kind === 'Directories' ? '0751' : '0640',
      ...(kind === 'Directories' && { hdi_isfolder: 'true' }),
      ...(kind === 'Symlinks' && { is_symlink: 'true' }),
    };
    await lab.container.getBlockBlobClient(name).upload(body, body.length, { metadata });
  };
  const cells = Object.entries(situations).flatMap(([what, situation]) =>
    columns.map((mode, at) => ({ what, situation, mode, name: `${mode}/${what}`, end: ends[situation.cells[at] ?? 'fail'] })),
  ); // prettier-ignore
  for (const mode of columns) await mkdir(lab.at(mode));
  for (const { name, situation } of cells) {
    if (situation.local) await situation.local(lab.at(name));
    else await put(name, situation, old);
  }
  t.equal(await lab.import(), 'Completed');
  for (const { name, situation } of cells) {
    await situation.then?.(lab.at(name));
    if (situation.local) await put(name, situation, old);
    if (situation.newer) await put(name, situation, newer);
  }

  for (const { what, situation, mode, name, end } of cells) {
    const [state, imported, preexisting, conflicts, left] = end;
    const { kind = 'Files', holding } = situation;
    await t.test(`${mode}: ${what} ends as ${left}`, async (t) => {
      const at = lab.at(name);
      const before = await look(at);
      const held = holding ? await open(at, 'r+') : undefined;
      const request = { conflictResolutionMode: modes[mode], prefixes: [`/${name}`], maximumErrors: -1 };
      const job = await lab.mount.job('import', request);
      await held?.close();
      t.match(job.properties.status, {
        state,
        totalBlobsWalked: 1,
        totalBlobsImported: imported,
        [`imported${kind}`]: imported,
        [`preexisting${kind}`]: preexisting,
        totalConflicts: conflicts,
        totalErrors: 0,
      });
      if (left === 'as it was') {
        t.same(await look(at), before);
      } else if (kind === 'Directories') {
        t.equal((await stat(at)).mode, 0o40751);
      } else if (kind === 'Symlinks') {
        t.equal(await readlink(at), 'target');
      } else if (left === 'attributes') {
        t.match(await look(at), { mode: 0o100640, content: old, flags: before.flags });
      } else {
        t.equal(await hsmFlags(at), states.stub, 'released');
        t.equal(await readFile(at, 'utf8'), situation.newer ? newer : old);
        t.match(await look(at), { mode: 0o100640, flags: states.clean });
      }
    });
  }
});

/** What there is; reading a stub would change it. */
async function look(
  at: string,
): Promise<{ readonly mode: number; readonly flags?: number; readonly content?: string }> {
  const { mode, size } = await lstat(at);
  const type = mode & 0o170000;
  if (type === 0o120000) return { mode, content: await readlink(at) };
  if (type === 0o040000) return { mode };
  const flags = await hsmFlags(at);
  const first = (flags & 0x04) !== 0 ? `${size} bytes` : await readFile(at, 'utf8');
  return { mode, flags, content: first };
}
