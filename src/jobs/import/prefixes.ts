/** Import prefixes: strings that blob names begin with, and paths on accounts with a hierarchical namespace. */
import { UserError } from '../../base/errors.js';
import { isUnderPrefix } from '../../blob/listing-order.js';
import { unaddressable } from '../../blob/names.js';

/**
 * The prefixes as listings take them, '' for the root; none: the whole container. Without the leading '/' that stands for
 * the root, on a hierarchical account without slashes at their ends. Refuses prefixes of which one begins with the other,
 * as AMLFS does on both kinds of account (`/data` and `/data2`, seed 000), and paths of which one lies below the other.
 */
export function blobPrefixes(prefixes: readonly string[], hierarchical: boolean): readonly string[] {
  if (prefixes.length === 0) return [''];
  const strings = prefixes.map((prefix) => prefix.replace(/^\/+/, ''));
  const listed = hierarchical ? prefixes.map(pathOf) : strings;
  for (const [at, one] of listed.entries()) {
    for (const [other, two] of listed.entries()) {
      if (at === other) continue;
      const begins = strings[other]?.startsWith(strings[at] ?? '') === true;
      if (!begins && !isUnderPrefix(two, one, hierarchical)) continue;
      const [first, second] = [prefixes[at] ?? '', prefixes[other] ?? ''];
      throw new UserError('InvalidParameter', `the import prefixes '${first}' and '${second}' overlap`);
    }
  }
  return listed;
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
