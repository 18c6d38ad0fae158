/** The contiguous prefix of a transfer whose pieces finish out of order, told at a bounded rate. */
export class Watermark implements Disposable {
  readonly #report: (bytes: number) => void;
  readonly #now: () => number;
  /** Finished pieces beyond the prefix: start to end. */
  readonly #ahead = new Map<number, number>();
  #bytes = 0;
  #reported = 0;
  #reportedAt: number;
  #timer: NodeJS.Timeout | undefined;

  /** At most every 4 MiB or 20 ms, whichever comes first. */
  static readonly everyBytes = 4 * 1024 ** 2;
  static readonly everyMs = 20;

  constructor(report: (bytes: number) => void, now: () => number = () => performance.now()) {
    this.#report = report;
    this.#now = now;
    this.#reportedAt = now();
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** [from, to) is on disk. Pieces of one range come in order; ranges come in any. */
  add(from: number, to: number): void {
    if (to <= from) return;
    if (from !== this.#bytes) {
      this.#addAhead(from, to);
      return;
    }
    this.#bytes = to;
    for (let end = this.#ahead.get(this.#bytes); end !== undefined; end = this.#ahead.get(this.#bytes)) {
      this.#ahead.delete(this.#bytes);
      this.#bytes = end;
    }
    const wait = this.#reportedAt + Watermark.everyMs - this.#now();
    if (wait <= 0 || this.#bytes - this.#reported >= Watermark.everyBytes) this.flush();
    // What is held back is told even if nothing more comes: a reader may be waiting for exactly these bytes.
    else this.#timer ??= setTimeout(() => this.flush(), wait);
  }

  /** Adjoining pieces of a range ahead are joined, so that there is one entry a range in flight. */
  #addAhead(from: number, to: number): void {
    for (const [start, end] of this.#ahead) {
      if (end !== from) continue;
      this.#ahead.set(start, to);
      return;
    }
    this.#ahead.set(from, to);
  }

  /** Tells the prefix if it grew since it was last told. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#bytes === this.#reported) return;
    this.#reported = this.#bytes;
    this.#reportedAt = this.#now();
    this.#report(this.#bytes);
  }

  /** Tells nothing more. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
