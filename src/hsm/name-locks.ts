import { unlessAborted } from '../base/unless-aborted.js';

/** One writer a blob name: work on the same name runs in order, on different names at the same time. */
export class NameLocks {
  readonly #tails = new Map<string, Promise<void>>();

  /** Rejects without running `work` when the signal is aborted while others have the name. */
  async hold<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#tails.get(name);
    const turn = (): Promise<T> => {
      signal?.throwIfAborted();
      return work();
    };
    const mine = before === undefined ? work() : before.then(turn);
    const tail = mine.then(ignore, ignore);
    this.#tails.set(name, tail);
    void tail.then(() => {
      if (this.#tails.get(name) === tail) this.#tails.delete(name);
    });
    if (before !== undefined && signal !== undefined) await unlessAborted(() => before, signal);
    return mine;
  }

  /** Holds all of the names at once; taken in one order everywhere, so that nobody waits in a circle. */
  holdAll<T>(names: readonly string[], work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return [...new Set(names)]
      .sort()
      .reduceRight<() => Promise<T>>((inner, name) => () => this.hold(name, inner, signal), work)();
  }
}

function ignore(): void {
  // Whoever asked for the work sees its end.
}
