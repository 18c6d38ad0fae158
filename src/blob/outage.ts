/** Whether the storage answers, by every try of every request: a call that is tried again tells nobody for minutes. */
import type { StorageOutage } from './port.js';

/** Statuses that ask to try again. */
const unwell: ReadonlySet<number> = new Set([429, 500, 502, 503, 504]);
/** What a second try mends is not worth a word. */
const tellAfterMs = 5_000;

/** Told when an outage has lasted, and when it is over. */
export type OnOutage = (outage: StorageOutage | undefined) => void;

export class Outage {
  readonly #tell: OnOutage;
  #now: StorageOutage | undefined;
  #told = false;

  constructor(tell: OnOutage = () => undefined) {
    this.#tell = tell;
  }

  /** Undefined where the last try was answered. */
  get now(): StorageOutage | undefined {
    return this.#now;
  }

  failed(why: string, atMs = Date.now()): void {
    this.#now = { sinceMs: this.#now?.sinceMs ?? atMs, why };
    if (this.#told || atMs - this.#now.sinceMs < tellAfterMs) return;
    this.#told = true;
    this.#tell(this.#now);
  }

  answered(status: number): void {
    if (unwell.has(status)) {
      this.failed(`HTTP status ${status}`);
      return;
    }
    if (this.#now === undefined) return;
    this.#now = undefined;
    if (this.#told) this.#tell(undefined);
    this.#told = false;
  }
}
