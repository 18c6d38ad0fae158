/** The configuration: flags over LUSTRITE_* over one JSON file over defaults, each value with its source. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { flagName, settings, type Setting, type SettingValue } from './config-keys.js';
import { messageChain, UserError } from './errors.js';

export interface Config {
  readonly container: string;
  readonly loggingContainer?: string | undefined;
  readonly store: string;
  readonly mountPoint: string;
  readonly credentialsFile?: string | undefined;
  readonly hierarchicalNamespace: 'auto' | 'on' | 'off';
  readonly import: {
    readonly prefixes: readonly string[];
    readonly maxPrefixes: number;
    readonly conflict: 'fail' | 'skip';
    readonly maxErrors: number;
    readonly none: boolean;
  };
  readonly defaults: {
    readonly uid: number;
    readonly gid: number;
    readonly fileMode: number;
    readonly dirMode: number;
  };
  readonly readOnly: boolean;
  readonly frontEnd: 'native' | 'fuse-native';
  readonly passthrough: boolean;
  readonly hydrate: {
    readonly partialReads: boolean;
    readonly verify: boolean;
    readonly rangeBytes: number;
    readonly parallelRanges: number;
  };
  readonly hsm: { readonly maxRequests: number; readonly defaultArchiveId: number };
  readonly space: { readonly highWatermark: number; readonly lowWatermark: number };
  readonly transfer: {
    readonly workers: number;
    readonly blockBytes: number;
    readonly parallelBlocks: number;
    readonly tries: number;
    readonly stallMs: number;
  };
  readonly export: { readonly ifMatch: boolean };
  readonly compat: { readonly strict: boolean };
  readonly log: { readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' };
}

export type Source = 'flag' | 'environment' | 'file' | 'default' | 'strict default';

export interface ResolvedSetting {
  readonly setting: Setting;
  readonly value: SettingValue | undefined;
  readonly source: Source;
  /** The flag, the variable or the file, as a message names it. */
  readonly origin: string;
}

export interface ConfigInput {
  /** By the path of the setting; texts as the command line had them, or what the flag stands for. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The JSON file, if one was named. */
  readonly file?: { readonly path: string; readonly content: unknown } | undefined;
}

const integer = (setting: Setting) => {
  const number = z.number().int();
  const above = setting.minimum === undefined ? number : number.min(setting.minimum);
  return setting.maximum === undefined ? above : above.max(setting.maximum);
};

/** What one setting may hold, however it was said. */
function valueSchema(setting: Setting): z.ZodType<SettingValue> {
  switch (setting.kind) {
    case 'text':
      return setting.choices === undefined ? z.string().min(1) : z.enum([...setting.choices]);
    case 'path':
      return z
        .string()
        .min(1)
        .refine((text) => !text.includes('\0'), 'must not hold a NUL');
    case 'texts':
      return z.array(z.string()).min(1);
    case 'integer':
      return integer(setting);
    case 'mode':
      return z.number().int().min(0).max(0o1777);
    case 'switch':
      return z.boolean();
  }
}

const truth: Readonly<Record<string, boolean>> = {
  true: true,
  yes: true,
  on: true,
  1: true,
  false: false,
  no: false,
  off: false,
  0: false,
};

/** Flags and variables are texts: numbers, octal modes, switches and lists out of them. What does not parse stays a text. */
function fromText(setting: Setting, text: string): unknown {
  switch (setting.kind) {
    case 'text':
    case 'path':
      return text;
    case 'texts':
      if (!text.startsWith('[')) return text.split(',');
      try {
        return JSON.parse(text);
      } catch {
        return text;
      }
    case 'integer':
      return /^-?\d{1,15}$/.test(text) ? Number(text) : text;
    case 'mode':
      return /^(?:0o)?[0-7]{1,5}$/.test(text) ? Number.parseInt(text.replace(/^0o/, ''), 8) : text;
    case 'switch':
      return truth[text.toLowerCase()] ?? text;
  }
}

function expectation(setting: Setting): string {
  const { minimum, maximum } = setting;
  switch (setting.kind) {
    case 'text':
      return setting.choices === undefined ? 'a text' : `one of ${setting.choices.join(', ')}`;
    case 'path':
      return 'a path';
    case 'texts':
      return 'a list of texts (separated by commas, or a JSON array)';
    case 'integer':
      return `a whole number${minimum === undefined ? '' : ` from ${minimum}`}${maximum === undefined ? '' : ` to ${maximum}`}`;
    case 'mode':
      return 'octal permissions such as 0644 (a text in JSON), at most 1777';
    case 'switch':
      return 'true or false';
  }
}

function shown(value: unknown): string {
  return typeof value === 'string' ? `'${value}'` : JSON.stringify(value);
}

function checked(setting: Setting, value: unknown, origin: string): SettingValue {
  const result = valueSchema(setting).safeParse(value);
  if (result.success) return result.data;
  throw refused(setting, value, origin);
}

function refused(setting: Setting, value: unknown, origin: string): UserError {
  return new UserError('InvalidParameter', `${origin}: ${shown(value)} is not ${expectation(setting)}`);
}

function valueAt(content: unknown, path: string): unknown {
  let at = content;
  for (const part of path.split('.')) {
    if (typeof at !== 'object' || at === null) return undefined;
    at = (at as Readonly<Record<string, unknown>>)[part];
  }
  return at;
}

/** Every leaf of the file that no setting has, so that a misspelt key is an error and not a silent default. */
function unknownKeys(content: unknown, prefix = ''): readonly string[] {
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    return [prefix || '(top level)'];
  return Object.entries(content).flatMap(([name, value]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (settings.some((setting) => setting.path === path)) return [];
    const group = settings.some((setting) => setting.path.startsWith(`${path}.`));
    return group ? unknownKeys(value, path) : [path];
  });
}

function resolveOne(setting: Setting, input: ConfigInput, strict: boolean): ResolvedSetting {
  const given = (value: unknown, source: Source, origin: string): ResolvedSetting => ({
    setting,
    value: checked(setting, typeof value === 'string' ? fromText(setting, value) : value, origin),
    source,
    origin,
  });
  const flag = input.flags[setting.path];
  if (flag !== undefined) return given(flag, 'flag', flagName(setting) ?? setting.path);
  const variable = input.env[setting.env];
  if (variable !== undefined && variable !== '') return given(variable, 'environment', setting.env);
  const inFile = valueAt(input.file?.content, setting.path);
  if (inFile !== undefined) {
    const origin = `${input.file?.path ?? ''}: ${setting.path}`;
    // In the file, numbers and switches are JSON's own; only modes are texts: JSON has no octal, and 600 would be 01130.
    if (setting.kind !== 'mode') {
      return { setting, value: checked(setting, inFile, origin), source: 'file', origin };
    }
    if (typeof inFile !== 'string') throw refused(setting, inFile, origin);
    return { setting, value: checked(setting, fromText(setting, inFile), origin), source: 'file', origin };
  }
  if (strict && setting.strict !== undefined) {
    return { setting, value: setting.strict, source: 'strict default', origin: 'strict default' };
  }
  return { setting, value: setting.default, source: 'default', origin: 'default' };
}

/** All settings in the table's order. Throws a UserError naming flag, variable or file of the first bad value. */
export function resolveSettings(input: ConfigInput): readonly ResolvedSetting[] {
  if (input.file !== undefined) {
    const [unknown] = unknownKeys(input.file.content);
    if (unknown !== undefined) {
      throw new UserError(
        'InvalidParameter',
        `${input.file.path}: there is no setting '${unknown}' (lustrite config show lists them)`,
      );
    }
  }
  const strictSetting = settings.find((setting) => setting.path === 'compat.strict');
  const strict = strictSetting !== undefined && resolveOne(strictSetting, input, false).value === true;
  return settings.map((setting) => resolveOne(setting, input, strict));
}

/** Reads the JSON file of settings. */
export function readConfigFile(path: string): { readonly path: string; readonly content: unknown } {
  try {
    return { path, content: JSON.parse(readFileSync(path, 'utf8')) as unknown };
  } catch (error) {
    throw new UserError('InvalidParameter', `cannot read the settings in ${path}: ${messageChain(error)}`);
  }
}

/** The nested form of resolved settings; `container` and `store` must have been decided by now. */
export function toConfig(
  resolved: readonly ResolvedSetting[],
  decided: { readonly mountPoint: string; readonly container: string; readonly store: string },
): Config {
  const tree: Record<string, unknown> = { mountPoint: decided.mountPoint };
  for (const { setting, value } of resolved) {
    const [group, name] = setting.path.split('.');
    if (group === undefined || value === undefined) continue;
    const actual = setting.kind === 'path' && typeof value === 'string' ? resolve(value) : value;
    if (name === undefined) tree[group] = actual;
    else tree[group] = { ...(tree[group] as object | undefined), [name]: actual };
  }
  // Every key of Config but mountPoint is a row of the table; test/unit/config.test.ts pins that.
  return { ...tree, container: decided.container, store: resolve(decided.store) } as unknown as Config;
}
