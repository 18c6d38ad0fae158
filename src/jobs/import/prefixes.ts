/** Import prefixes: strings that blob names begin with. */
import { UserError } from '../../base/errors.js';

/**
 * The prefixes as blob names know them, without the leading '/' that stands for the root; none: the whole container.
 * Refuses prefixes of which one begins with the other, string-wise, as AMLFS does (`/data` and `/data2`).
 */
export function blobPrefixes(prefixes: readonly string[]): readonly string[] {
  const stripped = prefixes.length === 0 ? [''] : prefixes.map((prefix) => prefix.replace(/^\/+/, ''));
  for (const [at, one] of stripped.entries()) {
    for (const [other, two] of stripped.entries()) {
      if (at === other || !two.startsWith(one)) continue;
      const [first, second] = [prefixes[at] ?? '', prefixes[other] ?? ''];
      throw new UserError('InvalidParameter', `the import prefixes '${first}' and '${second}' overlap`);
    }
  }
  return stripped;
}
