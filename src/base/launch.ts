/** What the command line hands to the daemon it starts, and what the daemon answers, over their IPC channel. */
import type { Config } from './config.js';
import type { FirstMount } from './first-mount.js';

export interface Launch {
  readonly config: Config;
  /** What to remember in the store once the mount has succeeded. */
  readonly firstMount: FirstMount;
  /** AZURE_* variables: they never stand in the daemon's argv or in its initial environment. */
  readonly env: Readonly<Record<string, string>>;
}

export type LaunchReport =
  | { readonly kind: 'ready'; readonly notices: readonly string[] }
  | { readonly kind: 'failed'; readonly message: string };

/** The variables of `env` that may hold secrets or say which credentials to use. */
export function credentialVariables(env: NodeJS.ProcessEnv): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      name.startsWith('AZURE_') && value !== undefined ? [[name, value]] : [],
    ),
  );
}
