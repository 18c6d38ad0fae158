/** Runs a source ahead of its consumer by at most `depth` items. */
export async function* readAhead<T>(
  source: AsyncIterable<T> | Iterable<T>,
  depth: number,
): AsyncGenerator<T, void, undefined> {
  const queue: T[] = [];
  let ended = false;
  let failure: { readonly error: unknown } | undefined;
  let stopped = false;
  let wakeConsumer: () => void = () => undefined;
  let wakeProducer: () => void = () => undefined;

  const producer = (async () => {
    try {
      for await (const item of source) {
        queue.push(item);
        wakeConsumer();
        while (queue.length >= depth && !isStopped()) {
          await new Promise<void>((resolve) => {
            wakeProducer = resolve;
          });
        }
        if (isStopped()) return;
      }
    } catch (error) {
      failure = { error };
    } finally {
      ended = true;
      wakeConsumer();
    }
  })();

  function isStopped(): boolean {
    return stopped;
  }
  function isEnded(): boolean {
    return ended;
  }

  try {
    for (;;) {
      const item = queue.shift();
      if (item !== undefined) {
        wakeProducer();
        yield item;
      } else if (isEnded()) {
        break;
      } else {
        await new Promise<void>((resolve) => {
          wakeConsumer = resolve;
        });
      }
    }
    if (failure !== undefined) throw failure.error;
  } finally {
    stopped = true;
    wakeProducer();
    await producer;
  }
}
