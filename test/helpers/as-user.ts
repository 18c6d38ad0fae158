import { run, type Ended, type RunOptions } from './run.js';

export interface User {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups; none by default. */
  readonly groups?: readonly number[];
}

/** Debian's `nobody`; owns nothing. */
export const nobody: User = { uid: 65534, gid: 65534 };

/** Why tests that change their user cannot run here, or undefined. */
export const notRoot: string | undefined = process.getuid?.() === 0 ? undefined : 'needs root';

/** Runs a program with exactly these ids and no capabilities (util-linux `setpriv`). Needs root. */
export function runAs(
  user: User,
  program: string,
  args: readonly string[] = [],
  options: Omit<RunOptions, 'uid' | 'gid'> = {},
): Promise<Ended> {
  const { uid, gid, groups = [] } = user;
  const groupFlag = groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups';
  return run(
    'setpriv',
    [`--reuid=${uid}`, `--regid=${gid}`, groupFlag, '--inh-caps=-all', '--', program, ...args],
    options,
  );
}
