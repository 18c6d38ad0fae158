/** LUSTRITE_* variables that nothing reads, most likely misspelt. */
import { settings } from './config-keys.js';

/** Read by the command line, the daemon, the addon or `lfs`, and no settings. */
const others = [
  'LUSTRITE_CONFIG',
  'LUSTRITE_CRASH',
  'LUSTRITE_NATIVE',
  'LUSTRITE_LFS_COMPAT',
  'LUSTRITE_FUSE_DEBUG',
];

/** One sentence for each, with the nearest name that there is. */
export function unknownVariables(env: Readonly<Record<string, string | undefined>>): readonly string[] {
  const known = [...settings.map((setting) => setting.env), ...others];
  return Object.keys(env)
    .filter((name) => name.startsWith('LUSTRITE_') && !known.includes(name))
    .sort()
    .map((name) => {
      const [nearest] = [...known].sort((a, b) => distance(name, a) - distance(name, b));
      return `there is no variable ${name}, and it is ignored; the nearest is ${nearest ?? ''} (lustrite config show lists them)`;
    });
}

/** Levenshtein's: characters to insert, delete or replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
