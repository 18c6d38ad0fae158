import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { finalStates, socketName, type JobView, type StatusReport } from '../../src/base/control-api.js';
import { nobody, runAs } from './as-user.js';
import { detachAll, mountAt } from './mounts.js';
import { until } from './poll.js';
import { environment, run, sanitized, type Ended, type RunOptions } from './run.js';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** `lustrite ARGS…` of a user who is not root and owns nothing. Only for root. */
export function lustriteAsNobody(args: readonly string[], env: RunOptions['env'] = {}): Promise<Ended> {
  // tap's own hook for child processes writes where only root may.
  return runAs(nobody, 'env', ['-u', 'NODE_OPTIONS', process.execPath, cli, ...args], { env });
}

/** `lustrite ARGS…` as it was built, to its end, whatever its exit code. */
export function lustrite(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return run(process.execPath, [cli, ...args], { ...options, env: { ...sanitized, ...options.env } });
}

export interface TestMountOptions {
  readonly container: string;
  /** Credentials (AZURE_STORAGE_*) and settings (LUSTRITE_*) of the daemon. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Further flags of `lustrite mount`. */
  readonly flags?: readonly string[];
  readonly frontEnd?: 'native' | 'fuse-native';
  /** A store to use instead of a new one, e.g. on a file system of its own; whoever made it removes it. */
  readonly store?: string;
  /** What `start` waits for: nothing but the process, a usable mount, or the end of the first import (default). */
  readonly ready?: 'started' | 'mounted' | 'imported';
}

/**
 * The real daemon on a real mount, in a directory of its own (never below `t.testdir()`: tap empties that before
 * teardown). `await using mount = await TestMount.start(t, {…})` unmounts, ends the daemon, and removes everything,
 * also when the test fails; then it prints the daemon's log.
 */
export class TestMount implements AsyncDisposable {
  /** Where the container is mounted. */
  readonly path: string;
  readonly store: string;
  readonly #folder: string;
  readonly #options: TestMountOptions;
  #daemon: Daemon | undefined;
  /** Logs of daemons that have ended. */
  #earlierLogs = '';

  private constructor(folder: string, options: TestMountOptions) {
    this.#folder = folder;
    this.#options = options;
    this.path = join(folder, 'mnt');
    this.store = options.store ?? join(folder, 'store');
  }

  /** Mounts and waits until the mount is `ready`. Rejects with the daemon's log when it is not. */
  static async start(t: Test, options: TestMountOptions): Promise<TestMount> {
    const mount = new TestMount(await mkdtemp(join(tmpdir(), 'lustrite-mount-')), options);
    // The log is printed in teardown, when the failure that made the test throw has been counted.
    t.teardown(async () => {
      await mount[Symbol.asyncDispose]();
      if (!t.passing()) process.stderr.write(`log of the daemon of ${mount.path}:\n${mount.log()}\n`);
    });
    await mkdir(mount.path);
    await mount.remount();
    return mount;
  }

  /** A path below the mount. */
  at(...parts: readonly string[]): string {
    return join(this.path, ...parts);
  }

  /** The daemon's process id. Throws when there is no daemon. */
  get pid(): number {
    const pid = this.#daemon?.child.pid;
    if (pid === undefined) throw new Error('the daemon is not running');
    return pid;
  }

  /** Whether there is no daemon any more, e.g. after a crash point. */
  get gone(): boolean {
    return this.#daemon?.alive !== true;
  }

  /** Everything all daemons of this mount have logged so far. */
  log(): string {
    return this.#earlierLogs + (this.#daemon?.log() ?? '');
  }

  /** Starts a daemon on the same store and mount point; the former one must be gone. `env` and `flags` are added. */
  async remount(extra: Partial<Pick<TestMountOptions, 'env' | 'flags' | 'ready'>> = {}): Promise<void> {
    if (this.#daemon !== undefined) throw new Error('unmount() or kill() the daemon first');
    const { container, flags = [], frontEnd = 'native', ready = 'imported' } = this.#options;
    const args = ['mount', this.path, '--foreground', '--container', container, '--store', this.store];
    args.push('--front-end', frontEnd, ...flags, ...(extra.flags ?? []));
    const daemon = new Daemon(args, { ...this.#options.env, ...extra.env }, this.#folder, this.path);
    this.#daemon = daemon;
    if ((extra.ready ?? ready) === 'started') return;
    try {
      await daemon.until(
        `${this.path} to be mounted`,
        () => mountAt(this.path)?.type.startsWith('fuse.') === true,
      );
      // Nobody else answers on the socket: the mount is usable and the first import is on record.
      await daemon.until('the daemon to answer', async () => (await this.status()) !== undefined);
      if ((extra.ready ?? ready) === 'imported') await this.untilJobsEnd();
    } catch (error) {
      const log = daemon.log().slice(-8000);
      await this[Symbol.asyncDispose]();
      throw new Error(`no usable mount\n${log}`, { cause: error });
    }
  }

  /** What `lustrite status --json` prints; undefined while nobody answers. */
  async status(): Promise<StatusReport | undefined> {
    return (await this.control('GET', '/v1/status').catch(() => undefined)) as StatusReport | undefined;
  }

  /** The control API, without starting a program for every question. Rejects with what it answers instead of success. */
  async control(method: string, path: string, body?: object): Promise<unknown> {
    const socketPath = join(this.store, socketName);
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    return new Promise((resolve, reject) => {
      const asking = request({ socketPath, method, path, headers, agent: false }, (answer) => {
        text(answer).then((said) => {
          if ((answer.statusCode ?? 500) < 300) resolve(said === '' ? undefined : JSON.parse(said));
          else reject(new Error(`${method} ${path}: ${answer.statusCode ?? '?'} ${said}`));
        }, reject);
      });
      asking.on('error', reject);
      asking.setTimeout(60_000, () => asking.destroy(new Error(`${method} ${path}: no answer`)));
      asking.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Runs a job to its end, without starting a program. */
  async job(kind: 'import' | 'export', request: object): Promise<JobView> {
    const { name } = (await this.control('POST', `/v1/jobs/${kind}`, request)) as JobView;
    return this.#running().until(`the ${kind} ${name} to end`, async () => {
      const job = (await this.control('GET', `/v1/jobs/${name}`)) as JobView;
      return finalStates.includes(job.properties.status.state) && job;
    });
  }

  /** The jobs of the store, as the daemon has recorded them. */
  async jobs(): Promise<readonly JobView[]> {
    const folder = join(this.store, 'jobs');
    const names = await readdir(folder);
    const texts = await Promise.all(names.map((name) => readFile(join(folder, name, 'record.json'), 'utf8')));
    return texts.map((text) => JSON.parse(text) as JobView);
  }

  /** Waits until every job is in a final state and its log is written. */
  async untilJobsEnd(): Promise<readonly JobView[]> {
    const ended = (job: JobView): boolean => finalStates.includes(job.properties.status.state);
    return this.#running().until('every job to end', async () => {
      const jobs = await this.jobs();
      return jobs.every(ended) && (await this.status())?.runningJob === null && jobs;
    });
  }

  /** Ends the daemon with `signal` (SIGKILL) and waits until it is gone. The dead mount stays, as in real life. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const daemon = this.#running();
    daemon.child.kill(signal);
    await this.ended();
  }

  /** Waits until the daemon ends by itself, e.g. at a crash point. */
  async ended(): Promise<Pick<Ended, 'code' | 'signal'>> {
    const daemon = this.#running();
    const how = await daemon.untilEnded(60_000);
    this.#forget(daemon);
    return how;
  }

  /** Unmounts through `lustrite umount`, which has to succeed; the daemon is gone then. Returns what it printed. */
  async unmount(flags: readonly string[] = []): Promise<string> {
    const daemon = this.#running();
    const result = await lustrite(['umount', this.path, ...flags], { env: this.#options.env });
    if (result.code !== 0)
      throw new Error(`${result.command}: exit code ${result.code ?? '?'}\n${result.stderr}`);
    await daemon.untilEnded(60_000);
    this.#forget(daemon);
    return result.stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined) {
      await daemon.stop();
      this.#forget(daemon);
    }
    // Nothing is removed through a mount that is still there.
    if (!(await detachAll(this.#folder))) throw new Error(`cannot unmount everything below ${this.#folder}`);
    await rm(this.#folder, { recursive: true, force: true });
  }

  #running(): Daemon {
    if (this.#daemon === undefined) throw new Error('the daemon is not running');
    return this.#daemon;
  }

  #forget(daemon: Daemon): void {
    this.#earlierLogs += daemon.log();
    this.#daemon = undefined;
  }
}

/** One run of the daemon in the foreground. */
class Daemon {
  readonly child: ChildProcess;
  readonly #guard: ChildProcess;
  readonly #logFile: string;
  readonly #ended: Promise<Pick<Ended, 'code' | 'signal'>>;
  /** The log, kept when its folder is about to go. */
  #kept: string | undefined;

  constructor(args: readonly string[], env: RunOptions['env'], folder: string, mountPoint: string) {
    // A file and not a pipe: a test that blocks must not block the daemon.
    this.#logFile = join(folder, 'daemon.log');
    const log = openSync(this.#logFile, 'w', 0o600);
    this.child = spawn(process.execPath, [cli, ...args], {
      stdio: ['ignore', log, log],
      env: environment({ ...sanitized, ...env }),
    });
    closeSync(log);
    this.#guard = guard(this.child, mountPoint);
    this.#ended = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('exit', (code, signal) => {
        this.#kept = this.#read();
        this.#guard.kill('SIGKILL');
        resolve({ code, signal });
      });
    });
    this.#ended.catch(() => undefined);
  }

  log(): string {
    return this.#kept ?? this.#read();
  }

  #read(): string {
    try {
      return readFileSync(this.#logFile, 'utf8');
    } catch {
      return '';
    }
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** As `until`, but gives up at once when the daemon ends. */
  async until<T>(
    what: string,
    condition: () => T | Promise<T>,
  ): Promise<Exclude<T, false | undefined | null | 0 | ''>> {
    const found = await until(
      async () => {
        if (!this.alive) return 'dead';
        const value = await condition();
        return value ? { value } : undefined;
      },
      { what, timeoutMs: 120_000 },
    );
    if (found !== 'dead') return found.value as Exclude<T, false | undefined | null | 0 | ''>;
    const how = this.child.signalCode ?? `exit code ${this.child.exitCode ?? '?'}`;
    throw new Error(`the daemon ended with ${how} while a test waited for ${what}`);
  }

  async untilEnded(timeoutMs: number): Promise<Pick<Ended, 'code' | 'signal'>> {
    await until(() => !this.alive, { what: `daemon ${this.child.pid ?? '?'} to end`, timeoutMs });
    return this.#ended;
  }

  /** SIGTERM, and SIGKILL when that does not help. */
  async stop(): Promise<void> {
    if (!this.alive) return;
    this.child.kill('SIGTERM');
    await this.untilEnded(30_000).catch(async () => {
      this.child.kill('SIGKILL');
      await this.untilEnded(30_000);
    });
  }
}

/** Ends the daemon and takes its mount away when the process of the test is gone, however that ended. */
function guard(daemon: ChildProcess, mountPoint: string): ChildProcess {
  const script = `
    read -r _
    kill -TERM "$1"
    for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" || break; sleep 0.5; done
    kill -KILL "$1"
    umount --lazy --no-canonicalize --internal-only "$2"`;
  const child = spawn('sh', ['-c', script, 'sh', String(daemon.pid), mountPoint], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  child.unref();
  return child;
}
