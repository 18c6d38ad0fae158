/** Which files make room, and how much is needed: pure, for the space manager. */
import type { Fid, FileState } from '../store/inodes.js';
import { judgeRelease, lastUsedNs } from './bulk-rules.js';

/** Candidates that are kept at most, however many files there are: small files, too, make room in a few walks. */
const maxCandidates = 200_000;

/** Of the store's file system, in bytes. */
export interface Usage {
  /** As df has it: without what is kept for root. */
  readonly used: number;
  readonly free: number;
}

export interface Watermarks {
  /** Percent; 0: off. */
  readonly high: number;
  readonly low: number;
}

interface Statfs {
  readonly bsize: number;
  readonly blocks: bigint;
  readonly bfree: bigint;
  readonly bavail: bigint;
}

export function usageOf({ bsize, blocks, bfree, bavail }: Statfs): Usage {
  return { used: Number(blocks - bfree) * bsize, free: Number(bavail) * bsize };
}

/** As df prints it, but for the rounding. */
export function usedPercent({ used, free }: Usage): number {
  return used + free === 0 ? 0 : (100 * used) / (used + free);
}

/** How many bytes are used beyond so many percent; negative: so many are left below it. */
export function bytesBeyond({ used, free }: Usage, percent: number): number {
  return used - Math.floor(((used + free) * percent) / 100);
}

/** What to release now that the watermarks are looked at: nothing below the high one, down to the low one above it. */
export function excess(usage: Usage, { high, low }: Watermarks): number {
  if (high === 0 || usedPercent(usage) < high) return 0;
  return Math.max(0, bytesBeyond(usage, low));
}

/** So much more is released at once for whoever waits. */
const maxAhead = 2 ** 30;

/** What to release so that `bytes` find room: more than it takes, towards the low mark, so that the next one finds some, too. */
export function shortage(usage: Usage, bytes: number, { low }: Watermarks): number {
  const lacking = bytes - usage.free;
  if (lacking <= 0) return 0;
  return Math.max(lacking, Math.min(bytesBeyond(usage, low), lacking + maxAhead));
}

export interface Candidate {
  readonly fid: Fid;
  readonly bytes: number;
  readonly usedNs: bigint;
}

/**
 * A file whose release gives space back; undefined: it must stay, was used at `usedBefore` or later, or gives none.
 * `restoredAt`: when it was restored, where that is known; both in milliseconds since the epoch.
 */
export function candidateOf(file: FileState, usedBefore: number, restoredAt?: number): Candidate | undefined {
  const verdict = judgeRelease(file, { usedBefore, restoredAt });
  if (verdict?.kind !== 'do' || verdict.bytes === 0 || file.size === 0 || file.restoring) return undefined;
  return { fid: file.fid, bytes: verdict.bytes, usedNs: lastUsedNs(file, restoredAt) };
}

/** Now, or when nobody has it open any more. */
export function mayBeReleased(file: FileState): boolean {
  return judgeRelease({ ...file, readers: 0, writers: 0 })?.kind === 'do';
}

/**
 * The least recently used of any number of files, as few as have `wanted` bytes together: a heap with the most recently
 * used one on top, which goes when it is not needed.
 */
export class LeastRecentlyUsed {
  readonly #wanted: number;
  readonly #limit: number;
  readonly #heap: Candidate[] = [];
  #bytes = 0;

  constructor(wanted: number, limit = maxCandidates) {
    this.#wanted = wanted;
    this.#limit = limit;
  }

  add(candidate: Candidate): void {
    const [newest] = this.#heap;
    const enough = this.#bytes >= this.#wanted || this.#heap.length >= this.#limit;
    if (enough && newest !== undefined && candidate.usedNs >= newest.usedNs) return;
    this.#push(candidate);
    for (
      let top = this.#heap[0];
      top !== undefined &&
      this.#heap.length > 1 &&
      (this.#heap.length > this.#limit || this.#bytes - top.bytes >= this.#wanted);
      top = this.#heap[0]
    )
      this.#pop();
  }

  /** Least recently used first. */
  files(): readonly Candidate[] {
    return [...this.#heap].sort((a, b) => (a.usedNs < b.usedNs ? -1 : a.usedNs > b.usedNs ? 1 : 0));
  }

  #push(candidate: Candidate): void {
    const heap = this.#heap;
    this.#bytes += candidate.bytes;
    let at = heap.push(candidate) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#usedAt(parent) >= candidate.usedNs) break;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const [top] = heap;
    const last = heap.pop();
    if (top === undefined || last === undefined) return;
    this.#bytes -= top.bytes;
    if (heap.length === 0) return;
    heap[0] = last;
    for (let at = 0; ;) {
      const [left, right] = [2 * at + 1, 2 * at + 2];
      const child = right < heap.length && this.#usedAt(right) > this.#usedAt(left) ? right : left;
      if (child >= heap.length || this.#usedAt(child) <= this.#usedAt(at)) return;
      this.#swap(at, child);
      at = child;
    }
  }

  #usedAt(at: number): bigint {
    return this.#heap[at]?.usedNs ?? 0n;
  }

  #swap(a: number, b: number): void {
    const [one, other] = [this.#heap[a], this.#heap[b]];
    if (one === undefined || other === undefined) return;
    this.#heap[a] = other;
    this.#heap[b] = one;
  }
}
