/** Files whose content the container does not have. */
import type { DirtyFiles } from '../base/control-api.js';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { pathText } from '../base/path-text.js';
import type { NativeStore, NativeWalk, WalkEntry } from '../native/binding.js';

export interface DirtyFilesOptions {
  /** How many are named. */
  readonly limit: number;
  readonly log: Log;
  /** Files that are nobody's data. */
  readonly ignore: (path: string) => boolean;
}

/** Counts them all and names the first `limit` in alphabetical order. */
export async function dirtyFiles(
  native: Pick<NativeStore, 'walk'>,
  { limit, log, ignore }: DirtyFilesOptions,
): Promise<DirtyFiles> {
  let named: readonly Named[] = [];
  let count = 0;
  const walk = native.walk({ select: 'changed', batch: 1000 });
  try {
    for (;;) {
      const batch = await nextBatch(walk, log);
      if (batch === null) break;
      const files = batch.filter(({ type, path }) => type === 'file' && !ignore(path));
      count += files.length;
      named = [...named, ...files.map(withKey)].sort((a, b) => Buffer.compare(a.key, b.key)).slice(0, limit);
    }
  } finally {
    walk.close();
  }
  return {
    count,
    first: named.map(({ path }) => path),
    firstText: named.map(({ key }) => pathText(key)),
  };
}

interface Named {
  readonly path: string;
  /** The path as bytes. */
  readonly key: Buffer;
}

function withKey({ path, pathBytes }: WalkEntry): Named {
  return { path, key: pathBytes ?? Buffer.from(path) };
}

/** An unreadable directory is passed over: what is in it cannot be told. A store that was closed is the end. */
async function nextBatch(walk: NativeWalk, log: Log): Promise<readonly WalkEntry[] | null> {
  for (;;) {
    try {
      return await walk.next();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOTCONN') throw error;
      log.warn({ err: error }, `looking for dirty files: ${messageChain(error)}`);
    }
  }
}
