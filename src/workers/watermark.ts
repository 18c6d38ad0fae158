/** The contiguous prefix of a transfer whose pieces finish out of order, told at a bounded rate. */
export class Watermark {
  readonly #report: (bytes: number) => void;
  readonly #now: () => number;
  /** Finished pieces beyond the prefix: start to end. */
  readonly #ahead = new Map<number, number>();
  #bytes = 0;
  #reported = 0;
  #reportedAt: number;

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
      // Adjoining pieces of a range ahead are joined, so that this holds one entry a range in flight.
      for (const [start, end] of this.#ahead) {
        if (end === from) {
          this.#ahead.set(start, to);
          return;
        }
      }
      this.#ahead.set(from, to);
      return;
    }
    this.#bytes = to;
    for (let end = this.#ahead.get(this.#bytes); end !== undefined; end = this.#ahead.get(this.#bytes)) {
      this.#ahead.delete(this.#bytes);
      this.#bytes = end;
    }
    this.#maybeReport();
  }

  #maybeReport(): void {
    if (
      this.#bytes - this.#reported < Watermark.everyBytes &&
      this.#now() - this.#reportedAt < Watermark.everyMs
    )
      return;
    this.flush();
  }

  /** Tells the prefix if it grew since it was last told. */
  flush(): void {
    if (this.#bytes === this.#reported) return;
    this.#reported = this.#bytes;
    this.#reportedAt = this.#now();
    this.#report(this.#bytes);
  }
}
