/** The settings of one invocation, and `lustrite config show`. */
import { join, resolve } from 'node:path';
import {
  readConfigFile,
  resolveSettings,
  toConfig,
  type Config,
  type ResolvedSetting,
} from '../base/config.js';
import { flagName, type Setting, type SettingValue } from '../base/config-keys.js';
import { UserError } from '../base/errors.js';
import { firstMountOf, readFirstMount, withFirstMount, type FirstMount } from '../base/first-mount.js';
import { standardStores, storesLastMountedAt } from '../base/last-mount.js';
import { unknownVariables } from '../base/variables.js';
import { UsageError } from './failure.js';
import { note, say, sayJson, table } from './output.js';
import type { Flags } from './settings.js';

/** A bad value is a mistake in the call wherever it was said. */
function invocation(flags: Flags, configFile: string | undefined): readonly ResolvedSetting[] {
  try {
    const path = configFile ?? process.env['LUSTRITE_CONFIG'];
    const file = path === undefined || path === '' ? undefined : readConfigFile(resolve(path));
    const resolved = resolveSettings({ flags, env: process.env, file });
    refuseContradictions(resolved);
    return resolved;
  } catch (error) {
    if (error instanceof UserError) throw new UsageError(error.message, { cause: error });
    throw error;
  }
}

function refuseContradictions(resolved: readonly ResolvedSetting[]): void {
  const none = resolved.find(({ setting }) => setting.path === 'import.none');
  const prefixes = resolved.find(({ setting }) => setting.path === 'import.prefixes');
  if (none?.value === true && prefixes?.source === 'flag' && none.source === 'flag') {
    throw new UserError('InvalidParameter', '--no-import and --import-prefix exclude each other');
  }
  const data = textOf(resolved, 'container');
  if (data !== undefined && data === textOf(resolved, 'loggingContainer')) {
    throw new UserError(
      'InvalidParameter',
      `--logging-container: '${data}' is the container to mount; logs need another`,
    );
  }
}

function textOf(resolved: readonly ResolvedSetting[], path: string): string | undefined {
  const value = resolved.find(({ setting }) => setting.path === path)?.value;
  return typeof value === 'string' ? value : undefined;
}

/** Everything `mount` has to know, with what the store's first mount decided. */
export async function mountConfiguration(
  mountPoint: string,
  flags: Flags,
  configFile: string | undefined,
): Promise<{ readonly config: Config; readonly firstMount: FirstMount }> {
  const said = invocation(flags, configFile);
  const named = textOf(said, 'store');
  const store = named === undefined ? await unnamedStore(said, mountPoint) : resolve(named);
  const resolved = withFirstMount(said, readFirstMount(store), store);
  const container = textOf(resolved, 'container');
  if (container === undefined) throw noContainer();
  return { config: toConfig(resolved, { mountPoint, container, store }), firstMount: firstMountOf(resolved) };
}

function noContainer(): UsageError {
  return new UsageError(
    'which container? --container NAME (or LUSTRITE_CONTAINER), or --store DIR of one that was mounted before',
  );
}

/** The container's own store, or where no container was named, the one that was mounted here last. */
async function unnamedStore(said: readonly ResolvedSetting[], mountPoint: string): Promise<string> {
  const container = textOf(said, 'container');
  if (container !== undefined) return standardStore(await accountOf(said), container);
  const [store, ...others] = storesLastMountedAt(mountPoint);
  if (store === undefined) throw noContainer();
  if (others.length === 0) return store;
  throw new UsageError(
    `which store? ${[store, ...others].join(' and ')} were mounted on ${mountPoint}: --store DIR, or --container NAME`,
  );
}

function standardStore(account: string, container: string): string {
  return join(standardStores, `${account}-${container}`);
}

/** Only the code that reads credentials knows the account. Throws a UserError when there are none. */
async function accountOf(said: readonly ResolvedSetting[]): Promise<string> {
  const { storageAccount } = await import('../daemon.js');
  return storageAccount({
    env: process.env,
    // An account has one whatever its container.
    container: textOf(said, 'container') ?? 'any',
    credentialsFile: textOf(said, 'credentialsFile'),
  });
}

/** A setting as `config show` shows it. */
interface ShownSetting {
  readonly value: SettingValue | null;
  readonly source: string;
  readonly origin: string;
  readonly flag: string | null;
  readonly variable: string | null;
}

export async function showConfig(flags: Flags, configFile: string | undefined, json: boolean): Promise<void> {
  const resolved = invocation(flags, configFile);
  for (const warning of unknownVariables(process.env)) note(warning);
  const account = await accountOf(resolved).catch(() => undefined);
  const container = textOf(resolved, 'container');
  const store =
    account === undefined || container === undefined ? undefined : standardStore(account, container);
  const shown = (one: ResolvedSetting): ShownSetting => ({
    value: one.value ?? (one.setting.path === 'store' ? store : undefined) ?? null,
    source: one.source,
    origin: one.origin,
    flag: flagName(one.setting) ?? null,
    variable: one.setting.env,
  });
  const credentials = account === undefined ? 'no usable AZURE_STORAGE_*' : 'credentials';
  const ofAccount = {
    value: account ?? null,
    source: 'credentials',
    origin: credentials,
    flag: null,
    variable: null,
  };
  if (json) {
    sayJson({
      ...Object.fromEntries(resolved.map((one) => [one.setting.path, shown(one)])),
      account: ofAccount satisfies ShownSetting,
    });
    return;
  }
  const row = (name: string, value: string, one: ShownSetting, description: string): readonly string[] => [
    name,
    value,
    one.origin,
    one.flag ?? '-',
    one.variable ?? '-',
    description,
  ];
  say(
    table([
      ['JSON KEY', 'VALUE', 'FROM', 'FLAG', 'VARIABLE', ''],
      ...resolved.map((one) =>
        row(one.setting.path, valueText(one.setting, shown(one).value), shown(one), one.setting.description),
      ),
      row('(account)', account ?? '-', ofAccount, 'storage account; credentials are no settings'),
    ]),
  );
}

function valueText({ kind }: Setting, value: SettingValue | null): string {
  if (value === null) return '-';
  return kind === 'mode' && typeof value === 'number' ? `0${value.toString(8)}` : JSON.stringify(value);
}
