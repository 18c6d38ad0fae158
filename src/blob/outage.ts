/** Whether the storage answers, by every try of every request: a call that is tried again tells nobody for minutes. */
import type { StorageOutage } from './port.js';

/** Statuses that ask to try again. */
const unwell: ReadonlySet<number> = new Set([429, 500, 502, 503, 504]);
/** What a second try mends is not worth a word. */
const tellAfterMs = 5_000;

/** Told when an outage has lasted, and when it is over. */
export type OnOutage = (outage: StorageOutage | undefined) => void;

/** Where nothing is asked any more nobody knows; a try that fails is not the last for so long. */
const forgetAfterMs = 60_000;

export class Outage {
  readonly #tell: OnOutage;
  #last: (StorageOutage & { readonly failedMs: number }) | undefined;
  #told = false;

  constructor(tell: OnOutage = () => undefined) {
    this.#tell = tell;
  }

  /** Undefined where the last try was answered, or is long ago. */
  at(nowMs = Date.now()): StorageOutage | undefined {
    if (this.#last === undefined || nowMs - this.#last.failedMs > forgetAfterMs) return undefined;
    const { sinceMs, why } = this.#last;
    return { sinceMs, why };
  }

  failed(why: string, atMs = Date.now()): void {
    const sinceMs = this.at(atMs)?.sinceMs ?? atMs;
    if (sinceMs === atMs) this.#told = false;
    this.#last = { sinceMs, why, failedMs: atMs };
    if (this.#told || atMs - sinceMs < tellAfterMs) return;
    this.#told = true;
    this.#tell({ sinceMs, why });
  }

  answered(status: number): void {
    if (unwell.has(status)) {
      this.failed(`HTTP status ${status}`);
      return;
    }
    this.#last = undefined;
    if (this.#told) this.#tell(undefined);
    this.#told = false;
  }
}
