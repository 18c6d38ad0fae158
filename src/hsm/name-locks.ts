/** One writer a blob name: work on the same name runs in order, on different names at the same time. */
export class NameLocks {
  readonly #tails = new Map<string, Promise<unknown>>();

  async hold<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(name);
    const mine = before === undefined ? work() : before.then(work);
    const tail = mine.catch(() => undefined);
    this.#tails.set(name, tail);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(name) === tail) this.#tails.delete(name);
    }
  }

  /** Holds all of the names at once; taken in one order everywhere, so that nobody waits in a circle. */
  holdAll<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    return [...new Set(names)]
      .sort()
      .reduceRight<() => Promise<T>>((inner, name) => () => this.hold(name, inner), work)();
  }
}
