/** Failures of commands that have been told already, or that are the caller's mistake. */

/** How the command was called is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Everything was said; only the exit code is left to set. */
export class Exit extends Error {
  override readonly name = 'Exit';
  readonly exitCode: number;
  constructor(exitCode: number) {
    super(`exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}
