/** A mount whose daemon is made to die, a model of its files, and what must be true of them under the next daemon. */
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerClient } from '@azure/storage-blob';
import type { Test } from 'tap';
import { finalStates, type JobView, type StatusReport } from '../../src/base/control-api.js';
import type { Azurite } from './azurite.js';
import { HS, lfsPath, parseStates, reachable, states } from './lfs.js';
import { TestMount, type TestMountOptions } from './mount.js';
import { mountAt } from './mounts.js';
import { until } from './poll.js';
import { ok } from './run.js';
import { Dice } from './tree.js';

/** Small enough that a file of `stubBytes` is several ranges and several blocks. */
const transferBytes = 64 * 1024;
const stubBytes = 3 * transferBytes + 1000;

/** Bytes that nothing else in a test has. */
export function content(seed: string, size: number = stubBytes): Buffer {
  let hash = 0;
  for (const char of seed) hash = (Math.imul(hash, 31) + (char.codePointAt(0) ?? 0)) | 0;
  return new Dice(hash >>> 0).bytes(size);
}

export interface CrashLabOptions {
  /** Name of a blob -> its content. */
  readonly blobs?: Readonly<Record<string, Buffer>>;
  readonly env?: TestMountOptions['env'];
  /** 'nothing': the first daemon is not waited for, since it dies. */
  readonly await?: 'nothing';
}

export class CrashLab implements AsyncDisposable {
  readonly mount: TestMount;
  readonly client: ContainerClient;
  readonly logs: ContainerClient;
  /** Names the crash point of a daemon that runs already; see base/crash.ts. */
  readonly #crash: string;
  /** Path -> every content that the file may have. */
  readonly #allowed = new Map<string, readonly Buffer[]>();
  /** Path -> blob, where they differ. */
  readonly #blobs = new Map<string, string>();

  private constructor(mount: TestMount, client: ContainerClient, logs: ContainerClient, crash: string) {
    this.mount = mount;
    this.client = client;
    this.logs = logs;
    this.#crash = crash;
  }

  static async start(t: Test, azurite: Azurite, options: CrashLabOptions = {}): Promise<CrashLab> {
    const [container, logging] = [await azurite.newContainer('crash'), await azurite.newContainer('logs')];
    const client = azurite.client(container);
    const blobs = Object.entries(options.blobs ?? {});
    await Promise.all(blobs.map(([name, body]) => client.getBlockBlobClient(name).uploadData(body)));
    const crash = join(t.testdir({}), 'crash-point');
    const mount = await TestMount.start(t, {
      container,
      flags: ['--logging-container', logging],
      env: {
        AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString,
        LUSTRITE_HYDRATE_RANGE_BYTES: String(transferBytes),
        LUSTRITE_TRANSFER_BLOCK_BYTES: String(transferBytes),
        LUSTRITE_CRASH: crash,
        ...options.env,
      },
      ready: 'started',
    });
    const lab = new CrashLab(mount, client, azurite.client(logging), crash);
    for (const [name, body] of blobs) lab.expect(name, body);
    if (options.await === undefined) await lab.untilReady();
    return lab;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.mount[Symbol.asyncDispose]();
  }

  at(path: string): string {
    return this.mount.at(path);
  }

  /** The file has one of these contents from now on. */
  expect(path: string, ...allowed: readonly Buffer[]): void {
    this.#allowed.set(path, allowed);
  }

  /** What the file has, where that is certain. */
  sure(path: string): Buffer {
    const [one, ...others] = this.#allowed.get(path) ?? [];
    if (one === undefined || others.length > 0) throw new Error(`nobody knows the content of ${path}`);
    return one;
  }

  /**
   * Changes a file from a content that is certain: until `change` is done the file may have either, and whatever it
   * answered with success has happened.
   */
  async change(path: string, next: Buffer, change: () => Promise<unknown>): Promise<void> {
    const now = this.#allowed.get(path) ?? [];
    this.expect(path, ...now, next);
    await change();
    this.expect(path, next);
  }

  /** The file is gone for good, or may not have come yet. */
  gone(path: string): void {
    this.#allowed.delete(path);
    this.#blobs.delete(path);
  }

  /** `mv from to`, on the mount too. */
  moved(from: string, to: string): void {
    this.expect(to, this.sure(from));
    this.#blobs.set(to, this.#blobs.get(from) ?? from);
    this.#allowed.delete(from);
    this.#blobs.delete(from);
  }

  /** Brings the data here, so that the file is clean. */
  async restore(path: string): Promise<void> {
    const read = await readFile(this.at(path));
    if (!read.equals(this.sure(path))) throw new Error(`${path} was read wrong`);
  }

  /** Enables an auto-import of what is below a path, and waits until its blob sync has begun. */
  async follow(path: string): Promise<void> {
    const { name } = (await this.mount.control('POST', '/v1/jobs/auto-import', {
      prefixes: [`/${path}`],
      conflictResolutionMode: 'OverwriteIfDirty',
      enableDeletions: true,
      pollIntervalMs: 100,
    })) as JobView;
    await until(
      async () => {
        if (this.mount.gone) return true;
        const { properties } = (await this.mount.control('GET', `/v1/jobs/${name}`)) as AutoImportView;
        return properties.status.scanEndTime;
      },
      { what: 'blob sync', timeoutMs: 60_000 },
    );
    if (this.mount.gone) throw new Error(`the daemon has died under the auto-import ${name}`);
  }

  /** The daemon dies at its next passage of the point. */
  arm(point: string): Promise<void> {
    return writeFile(this.#crash, point);
  }

  /** Starts a daemon that does not die on the store and waits until it serves, an auto job has caught up, and no job runs. */
  async revive(env: TestMountOptions['env'] = {}): Promise<void> {
    await rm(this.#crash, { force: true });
    await this.mount.remount({ ready: 'started', env });
    await this.untilReady();
  }

  async untilReady(): Promise<void> {
    const { pid } = this.mount;
    const since = new Date().toISOString();
    await until(
      async () => {
        if (this.mount.gone) throw new Error(`the daemon has ended\n${this.mount.log().slice(-4000)}`);
        const status = (await this.mount.control('GET', '/v1/status')) as StatusReport;
        const { runningJob } = status;
        if (runningJob?.properties.status.state === 'InProgress' && hasCaughtUp(runningJob, since))
          await this.mount.control('POST', `/v1/jobs/${runningJob.name}/cancel`, {});
        if (status.pid !== pid || runningJob !== null) return false;
        return mountAt(this.mount.path) !== undefined;
      },
      { what: 'a daemon that serves', timeoutMs: 120_000 },
    );
  }

  async jobs(): Promise<readonly JobView[]> {
    return ((await this.mount.control('GET', '/v1/jobs')) as { readonly value: readonly JobView[] }).value;
  }

  /** Runs an export to its end; how many files it found. */
  async export(): Promise<number> {
    const job = (await this.mount.job('export', {})) as ExportView;
    const { name } = job;
    const { state, totalFilesFailed, filesDiscovered } = job.properties.status;
    if (state !== 'Completed' || totalFilesFailed !== 0) {
      const log = await readFile(join(this.mount.store, 'jobs', name, 'log.jsonl'), 'utf8');
      throw new Error(`the export ended ${JSON.stringify(job.properties.status)}\n${log}`);
    }
    return filesDiscovered;
  }

  async flags(...paths: readonly string[]): Promise<readonly number[]> {
    const output = await ok(lfsPath, ['hsm_state', ...paths.map((path) => this.at(path))]);
    return parseStates(output).map((state) => state.flags);
  }

  async flag(path: string): Promise<number> {
    const [flags] = await this.flags(path);
    if (flags === undefined) throw new Error(`no state of ${path}`);
    return flags;
  }

  /** Bytes that a file occupies in the store. */
  async allocated(path: string): Promise<number> {
    return (await stat(join(this.mount.store, 'ns', path))).blocks * 512;
  }

  /** The content of a blob, undefined when there is none. */
  async blob(name: string): Promise<Buffer | undefined> {
    try {
      return await this.client.getBlockBlobClient(name).downloadToBuffer();
    } catch (error) {
      if ((error as { statusCode?: number }).statusCode === 404) return undefined;
      throw error;
    }
  }

  /**
   * Asserts what holds after every crash, for the files below `prefix`: no job hangs, every file is in a state that
   * there is (lustre-hsm 3.9), has a content that it may have and the size of it, what is called clean is in the
   * container, and an export brings both to agreement.
   */
  async check(t: Test, prefix: string): Promise<void> {
    const paths = [...this.#allowed.keys()].filter((path) => path.startsWith(prefix));
    const open = (await this.jobs()).filter((job) => !finalStates.includes(job.properties.status.state));
    t.same(open, [], 'no job hangs');

    const shown = await this.flags(...paths);
    for (const [index, path] of paths.entries()) {
      const flags = shown[index] ?? -1;
      if (!reachable.includes(flags)) t.fail(`${path} is 0x${flags.toString(16)}: no such state`);
      const { size } = await stat(this.at(path));
      const read = await readFile(this.at(path));
      if (!this.#isAllowed(path, read))
        t.fail(`${path} (0x${flags.toString(16)}) has a content that it never had`);
      if (size !== read.length) t.fail(`${path} shows a size of ${size} and has ${read.length} bytes`);
      this.expect(path, read);
      const called = (flags & HS.ARCHIVED) !== 0 && (flags & HS.DIRTY) === 0;
      if (called && !read.equals((await this.blob(this.#blobs.get(path) ?? path)) ?? nothing)) {
        t.fail(`${path} is called 0x${flags.toString(16)} and is not what the container has`);
      }
    }
    // Whose name another file has taken is found by the export after.
    for (let round = 1; (await this.export()) > 0 && round < 4; round++);
    const after = await this.flags(...paths);
    for (const [index, path] of paths.entries()) {
      const flags = after[index] ?? -1;
      if (flags !== states.clean && flags !== states.stub)
        t.fail(`${path} is 0x${flags.toString(16)} after the export`);
      const blob = (await this.blob(path)) ?? (await this.blob(this.#blobs.get(path) ?? path));
      if (!this.sure(path).equals(blob ?? nothing))
        t.fail(`${path} is not in the container after the export`);
    }
    t.ok(paths.length > 0, `${paths.length} files are as they may be, and in the container after an export`);
  }

  #isAllowed(path: string, read: Buffer): boolean {
    return (this.#allowed.get(path) ?? []).some((one) => one.equals(read));
  }
}

/** No blob: equal to no content that a test writes. */
const nothing = Buffer.from('there is no such blob');

/** Whether an auto job has done since what was to do; other jobs end by themselves. */
function hasCaughtUp(job: JobView, since: string): boolean {
  switch (job.kind) {
    case 'auto-import':
      return (
        ((job as AutoImportView).properties.status.blobSyncEvents.lastTimeFullySynchronized ?? '') > since
      );
    case 'auto-export':
      // An iteration that runs is not cut off.
      return true;
    default:
      return false;
  }
}

interface AutoImportView extends JobView {
  readonly properties: {
    readonly status: {
      readonly state: string;
      readonly scanEndTime?: string;
      readonly blobSyncEvents: { readonly lastTimeFullySynchronized?: string };
    };
  };
}

interface ExportView extends JobView {
  readonly properties: {
    readonly status: {
      readonly state: string;
      readonly filesDiscovered: number;
      readonly totalFilesFailed: number;
    };
  };
}
