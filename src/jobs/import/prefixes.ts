/** Import prefixes: strings that blob names begin with, and paths on accounts with a hierarchical namespace. */
import { UserError } from '../../base/errors.js';
import { isUnderPrefix } from '../../blob/listing-order.js';
import { unaddressable } from '../../blob/names.js';

/**
 * The prefixes as listings take them, '' for the root; none: the whole container. Without the leading '/' that stands for
 * the root, on a hierarchical account without slashes at their ends. Refuses prefixes of which one holds what the other
 * does: string-wise on flat accounts, as AMLFS does (`/data` and `/data2`), else path-wise (`/data` and `/data/x`).
 */
export function blobPrefixes(prefixes: readonly string[], hierarchical: boolean): readonly string[] {
  const stripped =
    prefixes.length === 0
      ? ['']
      : prefixes.map((prefix) => (hierarchical ? pathOf(prefix) : prefix.replace(/^\/+/, '')));
  for (const [at, one] of stripped.entries()) {
    for (const [other, two] of stripped.entries()) {
      if (at === other || !isUnderPrefix(two, one, hierarchical)) continue;
      const [first, second] = [prefixes[at] ?? '', prefixes[other] ?? ''];
      throw new UserError('InvalidParameter', `the import prefixes '${first}' and '${second}' overlap`);
    }
  }
  return stripped;
}

function pathOf(prefix: string): string {
  const path = prefix
    .split('/')
    .filter((part) => part !== '')
    .join('/');
  const refused = path === '' ? undefined : unaddressable(path);
  if (refused === undefined) return path;
  throw new UserError(
    'InvalidParameter',
    `the import prefix '${prefix}' is no path in the account: ${refused}`,
  );
}
