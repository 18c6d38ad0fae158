/** `-o` of mount(8) and the fourth field of fstab(5), as settings of lustrite and attributes of the mount. */
import { flagName, settings, type Setting } from '../base/config-keys.js';
import { UsageError } from './failure.js';
import type { Flags } from './settings.js';

export interface MountRequest {
  /** By the path of the setting. */
  readonly flags: Flags;
  /** `config=FILE`. */
  readonly config: string | undefined;
  readonly readOnly: boolean;
  /** `noexec`, `noatime`, …: the kernel's own, for the mount that is there. */
  readonly attributes: readonly string[];
  /** The mount is there; only `readOnly` and `attributes` are changed. */
  readonly remount: boolean;
}

/** For mount(8), systemd and fstab alone, or what a mount is anyway. */
const ignored =
  /^(?:defaults|auto|noauto|user(?:=.*)?|nouser|users|nousers|owner|group|nofail|_netdev|_rnetdev|async|silent|loud|[xX]-.*|comment=.*|nosuid|nodev)$/;

/** What the kernel shows of a FUSE mount: mount(8) hands it back when it remounts. */
const shown = /^(?:user_id=|group_id=|fd=|rootmode=|max_read=|blksize=|default_permissions$|allow_other$)/;

/** Of two that undo each other the last counts. */
const opposites: readonly (readonly [string, string])[] = [
  ['exec', 'noexec'],
  ['atime', 'noatime'],
  ['diratime', 'nodiratime'],
  ['relatime', 'norelatime'],
  ['strictatime', 'nostrictatime'],
  ['symfollow', 'nosymfollow'],
];
const attributes = new Map(
  opposites.flatMap(([one, other]) => [[one, other] as const, [other, one] as const]),
);

const refused = new Map([
  ['suid', 'a mount is always nosuid: who writes to the container must not give root away'],
  ['dev', 'a mount is always nodev: who writes to the container must not make devices'],
]);

/** `--store` without its dashes, or the key of the JSON file. */
const byName = new Map<string, Setting>(
  settings.flatMap((setting) => [
    [setting.path, setting] as const,
    ...(setting.flag === undefined ? [] : [[String(flagName(setting)).slice(2), setting] as const]),
  ]),
);

/**
 * Of an option that is said twice the last counts, and of prefixes each. Throws a UsageError that names an option which
 * nobody knows, unless `sloppy` (mount -s), or one that cannot be had.
 */
export function mountRequest(text: string, { sloppy = false } = {}): MountRequest {
  const flags: Record<string, unknown> = {};
  const set = new Set<string>();
  let [config, readOnly, remount]: [string | undefined, boolean, boolean] = [undefined, false, false];
  for (const option of text.split(',')) {
    const equals = option.indexOf('=');
    const [name, value] =
      equals < 0 ? [option, undefined] : [option.slice(0, equals), option.slice(equals + 1)];
    const opposite = attributes.get(option);
    const why = refused.get(option);
    const setting = byName.get(name);
    if (why !== undefined) throw new UsageError(`-o ${option}: ${why}`);
    if (option === '' || ignored.test(option) || shown.test(option)) continue;
    if (option === 'ro' || option === 'rw') readOnly = option === 'ro';
    else if (option === 'remount') remount = true;
    else if (name === 'config') config = needed(option, value);
    else if (opposite !== undefined) {
      set.delete(opposite);
      set.add(option);
    } else if (setting !== undefined)
      flags[setting.path] = valueOf(setting, { option, value, former: flags });
    else if (!sloppy)
      throw new UsageError(
        `-o ${option}: no such option; a setting is named as its flag (store=DIR) or its JSON key, and others go into a file: config=FILE`,
      );
  }
  if (flags['readOnly'] !== undefined) throw new UsageError('-o read-only: this is ro among mount options');
  return { flags, config, readOnly, attributes: [...set], remount };
}

function valueOf(
  setting: Setting,
  { option, value, former }: { option: string; value: string | undefined; former: Flags },
): unknown {
  if (setting.kind === 'switch') return value ?? true;
  const text = needed(option, value);
  if (setting.kind !== 'texts') return text;
  return [...((former[setting.path] as readonly string[] | undefined) ?? []), text];
}

function needed(option: string, value: string | undefined): string {
  if (value !== undefined && value !== '') return value;
  throw new UsageError(`-o ${option}: needs a value, ${option.replace(/=$/, '')}=…`);
}
