/** When files were restored: a use that no time of theirs shows (lustre-hsm 3.7, sanity-hsm 24a). */
import type { Fid } from '../store/inodes.js';

const maxFiles = 100_000;

/** The last restores in this daemon's life, in a bounded memory: newest last. */
export class RestoredLately {
  readonly #maxFiles: number;
  readonly #atMs = new Map<Fid, number>();
  /** Milliseconds since the epoch: of restores up to then some may be forgotten, later ones are all known. */
  forgottenMs = Number.NEGATIVE_INFINITY;

  constructor(limit = maxFiles) {
    this.#maxFiles = limit;
  }

  add(fid: Fid, atMs: number): void {
    this.#atMs.delete(fid);
    this.#atMs.set(fid, atMs);
    if (this.#atMs.size <= this.#maxFiles) return;
    for (const [oldest, endedMs] of this.#atMs) {
      this.#atMs.delete(oldest);
      this.forgottenMs = Math.max(this.forgottenMs, endedMs);
      return;
    }
  }

  /** Milliseconds since the epoch; undefined: not lately. */
  of(fid: Fid): number | undefined {
    return this.#atMs.get(fid);
  }
}
