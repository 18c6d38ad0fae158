/** What a container has under some names now. */
import { BlobError } from '../../base/errors.js';
import { listedBlob } from '../../blob/listed.js';
import { unaddressable } from '../../blob/names.js';
import type { Container, ListedBlob } from '../../blob/port.js';
import { Parallel } from '../parallel.js';
import type { Changes } from './change-source.js';

/** Look-ups in flight: amlfs 2.5 has 2,000 changes a second, and this many are 4,000 where an answer takes 30 ms. */
const parallelLooks = 128;

/**
 * Rejects with the BlobError of the first look-up that failed otherwise than with `missing`, and where the container
 * cannot be used: a blob is absent only from a container that is there.
 */
export async function lookAt(
  container: Pick<Container, 'properties' | 'check'>,
  names: Iterable<string>,
  signal: AbortSignal,
): Promise<Pick<Changes, 'present' | 'absent'>> {
  const present: ListedBlob[] = [];
  const absent: string[] = [];
  await using looks = new Parallel(parallelLooks);
  for (const name of names) {
    // Nobody can ask for these, and no path is theirs.
    if (unaddressable(name) !== undefined) {
      absent.push(name);
      continue;
    }
    await looks.start(async () => {
      try {
        present.push(listedBlob(name, await container.properties(name, signal)));
      } catch (error) {
        if (!(error instanceof BlobError) || error.kind !== 'missing') throw error;
        absent.push(name);
      }
    });
  }
  await looks.finish();
  // A look-up in a container that was deleted says no more than that there is no such blob.
  if (absent.length > 0) await container.check(signal);
  return { present, absent };
}
