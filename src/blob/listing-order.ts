/** Which names an account lists for a prefix, and in which order. */

/**
 * Negative: `a` is listed before `b`. By code unit; an account with a hierarchical namespace lists what is below a
 * directory right behind it, as if '/' came before every other character (azurite 4).
 */
export function compareListed(a: string, b: string, hierarchical: boolean): number {
  const [one, two] = hierarchical ? [hierarchicalKey(a), hierarchicalKey(b)] : [a, b];
  return one < two ? -1 : one > two ? 1 : 0;
}

/** On a hierarchical account a prefix is a path without slashes at its ends, on a flat one a string; '' is the root. */
export function isUnderPrefix(name: string, prefix: string, hierarchical: boolean): boolean {
  if (!hierarchical || prefix === '') return name.startsWith(prefix);
  return name === prefix || name.startsWith(`${prefix}/`);
}

/** Whether all that is below the directory `path` has been listed when `name` is. */
export function isListedBehind(name: string, path: string, hierarchical: boolean): boolean {
  // What begins with `path/` comes before `path` and the character that follows '/' in the order.
  return hierarchical ? hierarchicalKey(name) >= `${hierarchicalKey(path)}\u0001` : name >= `${path}0`;
}

/** No name has a NUL. */
function hierarchicalKey(name: string): string {
  return name.includes('/') ? name.replaceAll('/', '\0') : name;
}
