/** Starts work as long as fewer than `limit` pieces run; the first failure stops the rest. Nothing runs once it is disposed of. */
export class Parallel implements AsyncDisposable {
  readonly #limit: number;
  readonly #running = new Set<Promise<void>>();
  /** Who waits for a piece to end. */
  readonly #waiting: (() => void)[] = [];
  #failure: { readonly error: unknown } | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Resolves when the work has started; rejects with the first failure of any work before it. */
  async start(work: () => Promise<void>): Promise<void> {
    // A race of all that runs would cost as many reactions for each piece of work.
    while (this.#running.size >= this.#limit) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
    this.#throwFailure();
    const running = work()
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#running.delete(running);
        for (const wake of this.#waiting.splice(0)) wake();
      });
    this.#running.add(running);
  }

  /** Resolves when nothing runs; rejects with the first failure. */
  async finish(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#throwFailure();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#running);
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
