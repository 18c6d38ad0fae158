/** What is in the namespace, for `status`. */
import type { NativeStore } from '../native/binding.js';

/**
 * The census without the `markers` that are there: empty files that lustrite itself has put there, which nobody has to
 * save. A file of that name that somebody wrote to is counted.
 */
export async function censusWithout(
  native: Pick<NativeStore, 'census' | 'lookup'>,
  markers: readonly string[],
): Promise<Readonly<Record<string, number>>> {
  const [counts, found] = await Promise.all([native.census(), native.lookup(markers)]);
  const shown = found.filter(
    (state) => state?.type === 'file' && state.size === 0 && state.copy === undefined,
  ).length;
  const less = Object.fromEntries(
    ['files', 'resident', 'new'].map((name) => [name, Math.max(0, (counts[name] ?? 0) - shown)]),
  );
  return { ...counts, ...less };
}
