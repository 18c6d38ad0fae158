/** The files that the paths of a bulk verb name: each once, in memory for one batch at a time. */
import { UserError } from '../base/errors.js';
import type { Fid, FileState, NativeStore } from '../store/inodes.js';

const walkBatch = 256;

/** Text or, where it is not UTF-8, bytes; relative to the root. */
export interface NamedFile {
  readonly path: string | Buffer;
  readonly state: FileState;
}

/** A directory that cannot be read. */
export interface Unreadable {
  readonly error: unknown;
}

/** Of paths relative to the root ('': everything), those that lie in no other; throws a UserError for one that is not there. */
export async function rootsOf(
  native: Pick<NativeStore, 'lookup'>,
  paths: readonly string[],
): Promise<readonly string[]> {
  const clean = [...new Set(paths.map((path) => path.split('/').filter(Boolean).join('/')))];
  const named = clean.filter((path) => path !== '');
  const found = await native.lookup(named);
  const missing = named.find((_, at) => found[at] === undefined);
  if (missing !== undefined) throw new UserError('NotFound', `there is no /${missing} in the mount`);
  return clean.filter((path) => !clean.some((outer) => outer !== path && isWithin(path, outer)));
}

function isWithin(path: string, outer: string): boolean {
  return outer === '' || path.startsWith(`${outer}/`);
}

/** Everything that is no directory, below `roots`. A file with several names comes once. */
export async function* filesBelow(
  native: Pick<NativeStore, 'lookup' | 'walk'>,
  roots: readonly string[],
): AsyncGenerator<NamedFile | Unreadable> {
  const linked = new Set<Fid>();
  const isNew = ({ fid, nlink }: FileState): boolean => {
    if (nlink < 2) return true;
    if (linked.has(fid)) return false;
    linked.add(fid);
    return true;
  };
  for (const root of roots) {
    const [state] = root === '' ? [] : await native.lookup([root]);
    if (root === '' || state?.type === 'directory') {
      for await (const file of walked(native, root)) if ('error' in file || isNew(file.state)) yield file;
    } else if (state !== undefined && isNew(state)) {
      yield { path: root, state };
    }
  }
}

async function* walked(
  native: Pick<NativeStore, 'walk'>,
  root: string,
): AsyncGenerator<NamedFile | Unreadable> {
  const walk = native.walk({ ...(root === '' ? {} : { path: root }), select: 'all', batch: walkBatch });
  try {
    for (;;) {
      let batch;
      try {
        batch = await walk.next();
      } catch (error) {
        // The next call goes on behind it, unless the store was closed.
        yield { error };
        if ((error as NodeJS.ErrnoException).code === 'ENOTCONN') return;
        continue;
      }
      if (batch === null) return;
      for (const entry of batch) {
        if (entry.type !== 'directory') yield { path: entry.pathBytes ?? entry.path, state: entry };
      }
    }
  } finally {
    walk.close();
  }
}
