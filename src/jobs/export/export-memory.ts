/**
 * What the iterations of an auto-export have looked at, so that one with nothing new asks the container nothing. Kept for
 * a run of the daemon: the first iteration after a restart looks at everything again. Some 200 bytes a directory.
 */
import type { Fid, WalkEntry } from '../../store/inodes.js';

/** How an entry stands to what was last exported of it. */
export type Novelty = 'new' | 'changed' | 'same';

export class ExportMemory {
  #last = new Map<Fid, string>();
  #now = new Map<Fid, string>();

  novelty(entry: WalkEntry): Novelty {
    const known = this.#last.get(entry.fid);
    if (known === undefined) return 'new';
    // Whatever fails is as changed the next time.
    this.#now.set(entry.fid, known);
    return known === attributesOf(entry) ? 'same' : 'changed';
  }

  /** The container has the entry as it was found. */
  exported(entry: WalkEntry): void {
    this.#now.set(entry.fid, attributesOf(entry));
  }

  /** Whether a file that stays dirty was exported with this content. */
  hasExported(fid: Fid, content: string): boolean {
    const same = this.#last.get(fid) === content;
    if (same) this.#now.set(fid, content);
    return same;
  }

  /** The container has this content of a file that stays dirty. */
  exportedPart(fid: Fid, content: string): void {
    this.#now.set(fid, content);
  }

  /** Everything was walked: what was not met is gone. */
  endIteration(): void {
    this.#last = this.#now;
    this.#now = new Map();
  }
}

/** Without the name: renames are not exported. */
function attributesOf({ mode, uid, gid, mtimeNs }: WalkEntry): string {
  return `${String(mode)} ${String(uid)} ${String(gid)} ${String(mtimeNs)}`;
}
