/**
 * What the iterations of an auto-export have looked at, so that one with nothing new asks the container nothing. Kept for
 * a run of the daemon: the first iteration after a restart looks at everything again. Some 250 bytes for a directory or a
 * symlink, and for a file that stays dirty.
 */
import type { WalkEntry } from '../../store/inodes.js';

/** How an entry stands to what was last exported of it; 'incomplete': it was, but not all directories above it. */
export type Novelty = 'new' | 'changed' | 'incomplete' | 'same';

interface Exported {
  /** Different after whatever is to be exported. */
  readonly seen: string;
  readonly complete: boolean;
}

export class ExportMemory {
  #last = new Map<string, Exported>();
  #now = new Map<string, Exported>();

  novelty(entry: WalkEntry, seen = attributesOf(entry)): Novelty {
    const key = keyOf(entry);
    const known = this.#last.get(key);
    if (known === undefined) return 'new';
    // Whatever fails is as changed the next time.
    this.#now.set(key, known);
    if (known.seen !== seen) return 'changed';
    return known.complete ? 'same' : 'incomplete';
  }

  /** The container has the entry as it was found. */
  exported(entry: WalkEntry, { complete = true, seen = attributesOf(entry) } = {}): void {
    this.#now.set(keyOf(entry), { seen, complete });
  }

  /** Everything was walked: what was not met is gone. */
  endIteration(): void {
    this.#last = this.#now;
    this.#now = new Map();
  }
}

/** Of a symlink each name is exported for itself; of a file all are at once. */
function keyOf({ type, fid, path }: WalkEntry): string {
  return type === 'symlink' ? `${fid} ${path}` : fid;
}

/** Without the name: renames are not exported. */
function attributesOf({ mode, uid, gid, mtimeNs }: WalkEntry): string {
  return `${String(mode)} ${String(uid)} ${String(gid)} ${String(mtimeNs)}`;
}
