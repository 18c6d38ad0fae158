/** The stubs of a listing, made ahead of whoever counts them: the disk works while the next page is read. */
import type { ListedBlob } from '../../blob/port.js';
import type { NativeStore, Stub, StubDefaults, StubResult } from '../../store/inodes.js';

export interface WantedStub {
  readonly blob: ListedBlob;
  readonly stub: Stub;
}

/** What a blob asks for, or why it gets nothing. */
export type Wanted =
  WantedStub | { readonly blob: ListedBlob; readonly code: string; readonly refused: string };

export interface StubBatch {
  readonly wanted: readonly Wanted[];
  /** One for each stub in `wanted`, in their order. */
  readonly results: Promise<readonly StubResult[]>;
}

type Creator = Pick<NativeStore, 'createStubs'>;

/** Enough that a call costs little beside its stubs, few enough that a small container makes several batches. */
export const batchBlobs = 1000;

/**
 * Yields each batch of blobs as soon as its stubs have begun, so that as many are under way as the consumer lets this
 * run ahead. The directories of a batch are there before its other stubs begin and before the next batch does: what
 * lies below a directory's blob never makes it first, with attributes of its own. Ends when nothing is under way.
 */
export async function* stubBatches(
  pages: AsyncIterable<readonly ListedBlob[]>,
  want: (blobs: readonly ListedBlob[]) => Promise<readonly Wanted[]>,
  native: Creator,
  defaults: StubDefaults,
): AsyncGenerator<StubBatch, void, undefined> {
  const running = new Set<Promise<void>>();
  try {
    for await (const page of pages) {
      for (let at = 0; at < page.length; at += batchBlobs) {
        const wanted = await want(page.slice(at, at + batchBlobs));
        const results = (await begin(wanted, native, defaults))();
        // A failure is for the consumer, who may have gone.
        const over = results.then(nothing, nothing).finally(() => running.delete(over));
        running.add(over);
        yield { wanted, results };
      }
    }
  } finally {
    await Promise.all(running);
  }
}

function nothing(): void {
  return undefined;
}

/** Makes the directories; what it resolves with begins the rest. */
async function begin(
  wanted: readonly Wanted[],
  native: Creator,
  defaults: StubDefaults,
): Promise<() => Promise<readonly StubResult[]>> {
  const stubs = wanted.flatMap((one) => ('stub' in one ? [one.stub] : []));
  const directories = stubs.filter(({ kind }) => kind === 'directory');
  if (directories.length === 0) return () => native.createStubs(stubs, defaults);
  const made = await native.createStubs(directories, defaults);
  if (made.length === stubs.length) return () => Promise.resolve(made);
  return async () => {
    const others = await native.createStubs(
      stubs.filter(({ kind }) => kind !== 'directory'),
      defaults,
    );
    const [nextMade, nextOther] = [made.values(), others.values()];
    return stubs.flatMap(({ kind }) => (kind === 'directory' ? nextMade : nextOther).next().value ?? []);
  };
}
