/** Who waits for the next change of a job record. */
export class JobWatchers {
  readonly #waiting = new Map<string, Set<() => void>>();

  /** Resolves at the next change; rejects with the signal's reason. */
  next(name: string, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting.get(name) ?? new Set();
      this.#waiting.set(name, waiting);
      const wake = (): void => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const leave = (): void => {
        waiting.delete(wake);
        reject(signal?.reason as Error);
      };
      waiting.add(wake);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }

  wake(name: string): void {
    const waiting = this.#waiting.get(name);
    this.#waiting.delete(name);
    for (const wake of waiting ?? []) wake();
  }

  wakeAll(): void {
    for (const name of [...this.#waiting.keys()]) this.wake(name);
  }
}
