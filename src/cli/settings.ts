/** Settings as the command line's options, and back. */
import { Option, type Command } from 'commander';
import { settings } from '../base/config-keys.js';

/** By the path of the setting. */
export type Flags = Readonly<Record<string, unknown>>;

/** Adds an option for every setting that has a flag. Values stay texts; config.ts judges them wherever they come from. */
export function addSettings(command: Command): Command {
  for (const setting of settings) {
    if (setting.flag === undefined) continue;
    const option = new Option(setting.flag, describe(setting));
    if (setting.kind === 'texts') {
      option.argParser((value: string, former: readonly string[] | undefined) => [...(former ?? []), value]);
    }
    command.addOption(option);
  }
  return command;
}

function describe({ description, choices, default: standard, kind }: (typeof settings)[number]): string {
  const extra = [
    ...(choices === undefined ? [] : [choices.join('|')]),
    ...(standard === undefined || kind === 'switch' ? [] : [`default ${standardText(standard, kind)}`]),
  ];
  return extra.length === 0 ? description : `${description} (${extra.join(', ')})`;
}

function standardText(value: unknown, kind: string): string {
  if (kind === 'mode') return `0${(value as number).toString(8)}`;
  return Array.isArray(value) ? value.join(',') : String(value);
}

/** What was given on the command line itself. */
export function flagsOf(command: Command): Flags {
  return Object.fromEntries(
    settings.flatMap((setting) => {
      if (setting.flag === undefined) return [];
      const name = new Option(setting.flag).attributeName();
      if (command.getOptionValueSource(name) !== 'cli') return [];
      const value: unknown = command.getOptionValue(name);
      // `--no-import` sets `import` to false and the setting import.none to true.
      return [[setting.path, setting.flag.startsWith('--no-') ? value === false : value]];
    }),
  );
}
