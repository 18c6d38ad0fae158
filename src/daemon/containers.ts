/** The containers of a mount: its own, and the one that keeps the logs of its jobs. */
import { join } from 'node:path';
import type { Config } from '../base/config.js';
import { BlobError, UserError } from '../base/errors.js';
import { readFirstMount } from '../base/first-mount.js';
import type { Launch } from '../base/launch.js';
import { Outage } from '../blob/outage.js';
import type { Container, StorageOutage } from '../blob/port.js';

export interface ContainersOptions {
  readonly config: Config;
  /** With the secrets, which are in no other environment. */
  readonly env: Launch['env'];
  /** Disposes of it at the daemon's end. */
  readonly own: <T extends AsyncDisposable>(resource: T) => T;
  /** What goes to the log. */
  readonly warn: (text: string) => void;
  /** What whoever mounts should know. */
  readonly notice: (text: string) => void;
  readonly onOutage: (outage: StorageOutage | undefined) => void;
  readonly signal: AbortSignal;
}

export interface Containers {
  readonly container: Container;
  readonly loggingContainer: Container | undefined;
}

/** Resolves when both can be used. Rejects with a UserError or BlobError that says what is wrong with one of them. */
export async function openContainers(options: ContainersOptions): Promise<Containers> {
  const { config, env, own, warn, notice, onOutage, signal } = options;
  const { container: name, loggingContainer: logs, credentialsFile, transfer } = config;
  const { hierarchicalNamespace, compat } = config;
  const [{ resolveContainer }, { openContainer }] = await Promise.all([
    import('../blob/credentials.js'),
    import('../blob/azure-container.js'),
  ]);
  const source = { env, credentialsFile };
  const patience = { retry: { maxTries: transfer.tries }, stallMs: transfer.stallMs };
  const reach = { ...resolveContainer({ ...source, container: name }), ...patience };
  // Only the variables of Entra ID are needed later, by its library.
  if (reach.auth.kind === 'entra') {
    for (const [variable, value] of Object.entries(env)) {
      if (!variable.startsWith('AZURE_STORAGE_')) process.env[variable] = value;
    }
  }
  const known = hierarchicalNamespace === 'auto' ? {} : { hierarchical: hierarchicalNamespace === 'on' };
  const container = own(
    openContainer({ ...reach, ...known, accountFirst: compat.strict }, new Outage(onOutage)),
  );
  const isFirst = readFirstMount(config.store) === undefined;
  try {
    await container.check(signal);
  } catch (error) {
    // A store that has data nobody else has is not kept from its users for that.
    if (isFirst || !isPublic(error)) throw error;
    warn(error.message);
    notice(error.message);
  }
  const { hierarchical, source: said } = container.namespace;
  if (said === 'nobody') {
    const assumed =
      'these credentials may not ask whether the account has a hierarchical namespace: it is taken for a flat one; ' +
      '--hierarchical-namespace on or off says which it is';
    warn(assumed);
    if (isFirst) notice(assumed);
  }
  const local = join(config.store, 'jobs');
  if (logs === undefined) {
    if (isFirst) notice(`no --logging-container: the logs of jobs stay in ${local}`);
    return { container, loggingContainer: undefined };
  }
  const logged = { ...resolveContainer({ ...source, container: logs }), ...patience, hierarchical };
  const loggingContainer = own(openContainer(logged));
  try {
    await loggingContainer.check(signal);
  } catch (error) {
    const isMissing = error instanceof BlobError && error.kind === 'missing';
    if (isFirst || !(isPublic(error) || isMissing)) throw error;
    const told = `${error.message}${isMissing ? `; the logs of jobs stay in ${local} until it does` : ''}`;
    warn(told);
    notice(told);
  }
  return { container, loggingContainer };
}

function isPublic(error: unknown): error is UserError {
  return error instanceof UserError && error.code === 'PublicContainer';
}
