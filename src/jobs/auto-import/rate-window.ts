/** How fast a counter has grown lately. */
export class RateWindow {
  readonly #windowMs: number;
  #from: { readonly total: number; readonly ms: number } | undefined;
  #next: { readonly total: number; readonly ms: number } | undefined;

  constructor(windowMs: number) {
    this.#windowMs = windowMs;
  }

  /** Things a second over between one and two windows up to now; 0 at first. */
  of(total: number, ms: number): number {
    const now = { total, ms };
    this.#from ??= now;
    this.#next ??= now;
    if (ms - this.#next.ms >= this.#windowMs) {
      this.#from = this.#next;
      this.#next = now;
    }
    const seconds = (ms - this.#from.ms) / 1000;
    // What an outage cut off was counted, and counts again.
    const things = Math.max(0, total - this.#from.total);
    return seconds <= 0 ? 0 : Math.round(things / seconds);
  }
}
