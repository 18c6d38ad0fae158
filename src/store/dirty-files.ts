/** Files whose content the container does not have. */
import type { DirtyFiles } from '../base/control-api.js';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { NativeStore, NativeWalk, WalkEntry } from '../native/binding.js';

/** Counts them all and names the first `limit`, in the order of the walk. */
export async function dirtyFiles(
  native: Pick<NativeStore, 'walk'>,
  limit: number,
  log: Log,
): Promise<DirtyFiles> {
  const first: string[] = [];
  let count = 0;
  const walk = native.walk({ select: 'changed', batch: 1000 });
  try {
    for (;;) {
      const batch = await nextBatch(walk, log);
      if (batch === null) return { count, first };
      for (const { type, path } of batch) {
        if (type !== 'file') continue;
        count++;
        if (first.length < limit) first.push(path);
      }
    }
  } finally {
    walk.close();
  }
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
