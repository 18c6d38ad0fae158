/** What the first mount of a store decided, STORE/first-mount.json; a later mount may leave it out but not change it. */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { flagName, type SettingValue } from './config-keys.js';
import type { ResolvedSetting } from './config.js';
import { messageChain, UserError } from './errors.js';

/** By the path of the setting; null: not set. */
export type FirstMount = Readonly<Record<string, SettingValue | null>>;

const fileName = 'first-mount.json';

/** Undefined when no mount of this store has succeeded yet. */
export function readFirstMount(store: string): FirstMount | undefined {
  const file = join(store, fileName);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new UserError('InvalidParameter', `cannot read ${file}: ${messageChain(error)}`);
  }
  try {
    return JSON.parse(text) as FirstMount;
  } catch (error) {
    throw new UserError('InvalidParameter', `${file} is damaged: ${messageChain(error)}`);
  }
}

/** Remembers, atomically and durably, unless there is something to remember already. */
export function writeFirstMount(store: string, first: FirstMount): void {
  if (readFirstMount(store) !== undefined) return;
  const file = join(store, fileName);
  const fd = openSync(`${file}.new`, 'w', 0o600);
  try {
    writeSync(fd, `${JSON.stringify(first, null, 2)}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(`${file}.new`, file);
}

export function firstMountOf(resolved: readonly ResolvedSetting[]): FirstMount {
  return Object.fromEntries(
    resolved
      .filter(({ setting }) => setting.firstMount === true)
      .map(({ setting, value }) => [setting.path, value ?? null]),
  );
}

function shown(value: SettingValue | null | undefined): string {
  if (value === undefined || value === null) return 'none';
  return Array.isArray(value) ? value.join(',') : String(value);
}

/** The settings with those of the first mount in place of defaults. Throws a UserError naming old and new where one was said and differs. */
export function withFirstMount(
  resolved: readonly ResolvedSetting[],
  first: FirstMount | undefined,
  store: string,
): readonly ResolvedSetting[] {
  if (first === undefined) return resolved;
  return resolved.map((one) => {
    const { setting, value, source, origin } = one;
    const old = first[setting.path];
    if (setting.firstMount !== true || old === undefined) return one;
    const said = source !== 'default' && source !== 'strict default';
    if (said && JSON.stringify(value ?? null) !== JSON.stringify(old)) {
      throw new UserError(
        'Conflict',
        `the store ${store} was first mounted with ${flagName(setting) ?? setting.path} ${shown(old)}, not ${shown(value)} (${origin}): ` +
          'leave it out, or take another --store',
      );
    }
    return { ...one, value: old ?? undefined };
  });
}
