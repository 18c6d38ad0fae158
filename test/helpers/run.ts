import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';

export interface RunOptions {
  readonly cwd?: string;
  /** Added to this process's environment; `undefined` removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string | Uint8Array;
  /** After which the program is killed and the promise rejects. Default 120 s. */
  readonly timeoutMs?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** How a program ended. Exactly one of `code` and `signal` is not null. */
export interface Ended {
  readonly command: string;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly stdoutBytes: Buffer;
}

/** A program that was started and not waited for. */
export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

/** Starts a program without a shell. `ended` rejects only when it cannot be started or its time is up. */
export function start(program: string, args: readonly string[] = [], options: RunOptions = {}): Running {
  const { timeoutMs = 120_000, input } = options;
  const command = [program, ...args].join(' ');
  const stdio: StdioOptions = [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'];
  const child = spawn(program, args, {
    stdio,
    env: environment(options.env),
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    ...(options.uid !== undefined && { uid: options.uid }),
    ...(options.gid !== undefined && { gid: options.gid }),
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
    let expired = false;
    const timer = setTimeout(() => {
      expired = true;
      child.kill('SIGKILL');
      // A process in an uninterruptible wait, or a grandchild with our pipe, must not keep the test.
      child.stdout?.destroy();
      child.stderr?.destroy();
    }, timeoutMs);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new Error(`cannot run ${command}: ${error.message}`, { cause: error }));
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const bytes = Buffer.concat(stdout);
      const result = {
        command,
        code,
        signal,
        stdout: bytes.toString(),
        stderr: Buffer.concat(stderr).toString(),
        stdoutBytes: bytes,
      };
      if (expired) reject(new Error(`${command} ran for more than ${timeoutMs / 1000} s\n${output(result)}`));
      else resolve(result);
    });
    // EPIPE: the program did not want its input.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
  // Whoever only kills the child need not look at how it ended.
  ended.catch(() => undefined);
  return { child, ended };
}

/** Runs a program to its end, whatever its exit code. */
export function run(program: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Ended> {
  return start(program, args, options).ended;
}

/** Runs a program that has to exit with 0; returns what it printed. The rejection shows its output. */
export async function ok(
  program: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<string> {
  const result = await run(program, args, options);
  if (result.code !== 0) {
    throw new Error(
      `${result.command}: ${result.signal ?? `exit code ${result.code ?? '?'}`}\n${output(result)}`,
    );
  }
  return result.stdout;
}

/** `ok('sh', ['-c', script])` with `set -eu`; `$1`… are `args`. */
export function shell(
  script: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<string> {
  return ok('sh', ['-euc', script, 'sh', ...args], options);
}

function output({ stdout, stderr }: Pick<Ended, 'stdout' | 'stderr'>): string {
  return `${stdout}${stderr}`.slice(-4000);
}

/** This process's environment without what belongs to tap and Node's own hooks, and with `changes`. */
export function environment(changes: RunOptions['env'] = {}): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(
    ([name]) => name !== 'NODE_OPTIONS' && name !== 'TAP' && !/^_?TAP(?:JS)?_/.test(name),
  );
  const merged = Object.entries({ ...Object.fromEntries(own), ...changes });
  return Object.fromEntries(merged.filter(([, value]) => value !== undefined));
}

/** For what loads the addon: a sanitizer's runtime has to be there first. `scripts/sanitize` names it. */
export const sanitized: RunOptions['env'] =
  process.env['TEST_PRELOAD'] === undefined ? {} : { LD_PRELOAD: process.env['TEST_PRELOAD'] };
