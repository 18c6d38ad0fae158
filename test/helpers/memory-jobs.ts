/** A job runner over memory. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HsmConfig } from '../../src/hsm/movers.js';
import { JobRunner } from '../../src/jobs/runner.js';
import { MemoryContainer } from './memory-container.js';
import { MemoryHsm, quietLog, testConfig } from './memory-hsm.js';

export const testDefaults = { uid: 10, gid: 20, fileMode: 0o640, dirMode: 0o750 };

export class MemoryJobs implements AsyncDisposable {
  readonly hsm: MemoryHsm;
  readonly logs = new MemoryContainer('logs');
  readonly folder: string;
  runner: JobRunner;
  readonly #config: HsmConfig;

  private constructor(hsm: MemoryHsm, folder: string, config: HsmConfig) {
    this.hsm = hsm;
    this.folder = folder;
    this.#config = config;
    this.runner = this.#runner();
  }

  static async start(config: Partial<HsmConfig> = {}): Promise<MemoryJobs> {
    const folder = await mkdtemp(join(tmpdir(), 'lustrite-jobs-'));
    await mkdir(join(folder, 'jobs'));
    const jobs = new MemoryJobs(await MemoryHsm.start(config), folder, { ...testConfig, ...config });
    await jobs.runner.load();
    await jobs.runner.start();
    return jobs;
  }

  /** Another runner over the same records, as after a crash of the daemon. */
  async restart(): Promise<void> {
    this.runner = this.#runner();
    await this.runner.load();
    await this.runner.start();
  }

  /** The daemon ends, and another one begins in the order of src/daemon.ts; `between` the two. */
  async remount(between: () => Promise<void>): Promise<void> {
    await this.runner[Symbol.asyncDispose]();
    await this.hsm.restart(async () => {
      await between();
      this.runner = this.#runner();
      await this.runner.load();
    });
    await this.runner.start();
  }

  /** The lines of a job's log in the logging container. */
  lines(name: string): readonly Record<string, unknown>[] {
    const found = [...this.logs.logs].filter(([blob]) => blob.includes(`/${name}/`)).at(-1);
    if (found === undefined) throw new Error(`no log of ${name}`);
    return found[1]
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.runner[Symbol.asyncDispose]();
    await this.hsm[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }

  #runner(): JobRunner {
    const meta = { format: 1, fsId: 'id', fsName: 'fs', container: 'memory/data', bootId: 'boot' };
    return new JobRunner({
      store: { native: this.hsm.store, jobsDir: join(this.folder, 'jobs'), meta },
      coordinator: this.hsm.coordinator,
      container: this.hsm.container,
      loggingContainer: this.logs,
      log: quietLog,
      clock: this.hsm.clock,
      config: {
        ...this.#config,
        mountPoint: '/mnt/data',
        defaults: testDefaults,
        import: { maxPrefixes: 10 },
      },
    });
  }
}
