/** The settings of one invocation, and `lustrite config show`. */
import { resolve } from 'node:path';
import {
  readConfigFile,
  resolveSettings,
  toConfig,
  type Config,
  type ResolvedSetting,
} from '../base/config.js';
import { UserError } from '../base/errors.js';
import { firstMountOf, readFirstMount, withFirstMount, type FirstMount } from '../base/first-mount.js';
import { storesLastMountedAt } from '../base/last-mount.js';
import { UsageError } from './failure.js';
import { say, sayJson, table } from './output.js';
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
  return new UsageError('which container? --container NAME (or LUSTRITE_CONTAINER)');
}

/** The container's own store, or where no container was named, the one that was mounted here last. */
async function unnamedStore(said: readonly ResolvedSetting[], mountPoint: string): Promise<string> {
  if (textOf(said, 'container') !== undefined) return standardStore(said);
  const [store, ...others] = storesLastMountedAt(mountPoint);
  if (store === undefined) throw noContainer();
  if (others.length === 0) return store;
  throw new UsageError(
    `which store? ${[store, ...others].join(' and ')} were mounted on ${mountPoint}: --store DIR, or --container NAME`,
  );
}

/** /var/lib/lustrite/<account>-<container>. Only the code that reads credentials knows the account. */
async function standardStore(said: readonly ResolvedSetting[]): Promise<string> {
  const container = textOf(said, 'container');
  if (container === undefined) throw noContainer();
  const { standardStorePath } = await import('../daemon.js');
  return standardStorePath({ env: process.env, container, credentialsFile: textOf(said, 'credentialsFile') });
}

export function showConfig(flags: Flags, configFile: string | undefined, json: boolean): void {
  const resolved = invocation(flags, configFile);
  if (json) {
    sayJson(
      Object.fromEntries(
        resolved.map(({ setting, value, source, origin }) => [
          setting.path,
          { value: value ?? null, source, origin },
        ]),
      ),
    );
    return;
  }
  say(
    table(
      resolved.map(({ setting, value, origin }) => [
        setting.path,
        value === undefined ? '-' : setting.kind === 'mode' ? `0${value.toString(8)}` : JSON.stringify(value),
        origin,
        setting.description,
      ]),
    ),
  );
}
