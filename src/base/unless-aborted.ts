/** Work that whoever asked for it need not wait for to its end. */

/** Rejects with the signal's reason when it is aborted first; work that has begun goes on. */
export async function unlessAborted<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const over = new AbortController();
  try {
    return await Promise.race([
      work(),
      new Promise<never>((_, reject) => {
        const abort = (): void => {
          reject(signal.reason as Error);
        };
        signal.addEventListener('abort', abort, { once: true, signal: over.signal });
      }),
    ]);
  } finally {
    over.abort();
  }
}
