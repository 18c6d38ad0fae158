/** What the reference of the jobs says, done by the jobs, the coordinator and a store and a container in memory. */
import { BlobError } from '../../src/base/errors.js';
import { kindOf, posixOf } from '../../src/blob/metadata.js';
import { HS_DIRTY, HS_LOST, HS_RELEASED } from '../../src/hsm/flags.js';
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import type { AutoExportRecord } from '../../src/jobs/export/auto-export-record.js';
import type { ExportRecord } from '../../src/jobs/export/export-record.js';
import type { ImportRecord } from '../../src/jobs/import/import-record.js';
import { isMarker } from '../../src/jobs/marker.js';
import {
  iterations,
  type Interrupted,
  type Job,
  type LocalOp,
  type Op,
  type RemoteOp,
} from './jobs-operations.js';
import { ancestors, shownBlob, type Counts, type Picture } from './jobs-reference.js';
import type { TestClock } from './memory-hsm.js';
import { MemoryJobs } from './memory-jobs.js';
import { until } from './poll.js';

type AutoImportOp = Extract<Job, { readonly op: 'auto-import' }>;
type AutoExportOp = Extract<Job, { readonly op: 'auto-export' }>;

/** As no other pause of a job is. */
const pollIntervalMs = 4711;

const importCounters = [
  'totalBlobsImported',
  'importedFiles',
  'importedDirectories',
  'importedSymlinks',
  'preexistingFiles',
  'preexistingDirectories',
  'preexistingSymlinks',
  'totalErrors',
  'totalConflicts',
] as const;
/** Of an import that failed: whatever else it has done depends on how it goes through its batches. */
const failureCounters = ['totalErrors', 'totalConflicts'] as const;
const exportCounters = [
  'filesDiscovered',
  'totalFilesExported',
  'totalBytesExported',
  'totalFilesFailed',
  'totalFilesSkipped',
  'totalDirectoriesExported',
] as const;

const autoExportCounters = [
  'totalFilesExported',
  'totalFilesFailed',
  'exportIterationCount',
  'currentIterationFilesDiscovered',
  'currentIterationFilesExported',
  'currentIterationFilesFailed',
] as const;

/** Holds a job that polls between two polls. */
class Pauses {
  #polls = 0;
  /** Of them those that next() has waited for. */
  #known = 0;
  #letGo = (): void => undefined;
  #arrived = (): void => undefined;

  constructor(clock: TestClock) {
    const { sleep } = clock;
    clock.sleep = (ms, signal) => (ms === pollIntervalMs ? this.#hold(signal) : sleep(ms, signal));
  }

  /** Resolves when the job has polled once more, or is over. */
  async next(over: Promise<unknown>): Promise<void> {
    if (this.#polls === this.#known) {
      const arrived = new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
      this.#letGo();
      await Promise.race([arrived, over]);
    }
    this.#known = this.#polls;
  }

  #hold(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#polls++;
      this.#letGo = resolve;
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      this.#arrived();
    });
  }
}

export class JobsUnderTest implements AsyncDisposable {
  readonly #jobs: MemoryJobs;
  readonly #pauses: Pauses;
  /** Modification times by their names in the reference. */
  readonly #times = new Map<bigint, string>([[0n, 'local']]);

  private constructor(jobs: MemoryJobs) {
    this.#jobs = jobs;
    this.#pauses = new Pauses(jobs.hsm.clock);
  }

  static async start(): Promise<JobsUnderTest> {
    return new JobsUnderTest(await MemoryJobs.start());
  }

  async apply(op: Op): Promise<Counts | undefined> {
    const { store, coordinator } = this.#jobs.hsm;
    switch (op.op) {
      case 'read':
        await this.#restored(op.name);
        return undefined;
      case 'release':
        if (store.names.get(op.name)?.type === 'file')
          await coordinator.release(store.fidOf(op.name)).catch(() => undefined);
        return undefined;
      case 'write':
        await this.#restored(op.name);
        this.#change(op);
        return undefined;
      case 'import': {
        const { mode, prefixes } = op;
        const request = { prefixes, conflictResolutionMode: mode, maximumErrors: -1 };
        const { done } = await this.#jobs.runner.create('import', request);
        const { status } = ((await done) as ImportRecord).properties;
        if (status.state === 'Failed') return picked(status, ['state', ...failureCounters]);
        return picked(status, ['state', 'totalBlobsWalked', ...importCounters]);
      }
      case 'export': {
        const { done } = await this.#jobs.runner.create('export', { filesystemPath: op.prefix });
        const { status } = ((await done) as ExportRecord).properties;
        return picked(status, ['state', ...exportCounters]);
      }
      case 'interrupted':
        await this.#interrupt(op);
        for (let n = 0; n < iterations; n++) await this.apply(op.job);
        return undefined;
      case 'auto-import':
        return this.#autoImport(op);
      case 'auto-export':
        return this.#autoExport(op);
      default:
        this.#change(op);
        return undefined;
    }
  }

  async #restored(name: string): Promise<void> {
    const { store, coordinator } = this.#jobs.hsm;
    const found = store.names.get(name);
    if (found?.type !== 'file' || (found.flags & HS_RELEASED) === 0) return;
    await coordinator.restore(found.fid).catch(() => undefined);
  }

  /** At once, so that no poll sees a part of it. */
  #change(op: RemoteOp | LocalOp): void {
    const { container, store } = this.#jobs.hsm;
    const found = store.names.get(op.name);
    const isFull = (path: string): boolean =>
      [...store.names.keys()].some((other) => other.startsWith(`${path}/`));
    const canHold = (path: string): boolean =>
      ancestors(path).every((parent) => (store.names.get(parent)?.type ?? 'directory') === 'directory');
    switch (op.op) {
      case 'put': {
        const { lastModifiedMs } = container.put(op.name, op.data, metadataOf(op));
        this.#times.set(BigInt(lastModifiedMs) * 1_000_000n, `put ${this.#times.size}`);
        return;
      }
      case 'delete':
        container.blobs.delete(op.name);
        return;
      case 'write':
        if (found === undefined ? canHold(op.name) : isHere(found)) store.write(op.name, op.data);
        return;
      case 'symlink':
        if (found === undefined && canHold(op.name)) store.symlink(op.name, op.target);
        return;
      case 'mkdir':
        if (found === undefined && canHold(op.name)) store.mkdir(op.name);
        return;
      case 'chmod':
        if (found !== undefined && found.type !== 'symlink') store.chmod(op.name, op.mode);
        return;
      case 'rm':
        if (!isFull(op.name)) store.unlink(op.name);
        return;
      case 'mv': {
        const { name, to } = op;
        const there = store.names.get(to);
        if (found === undefined || name === to || to.startsWith(`${name}/`) || !canHold(to)) return;
        const isOther = (there?.type === 'directory') !== (found.type === 'directory');
        if (there !== undefined && (isFull(to) || isOther)) return;
        for (const parent of ancestors(to)) if (!store.names.has(parent)) store.mkdir(parent);
        store.unlink(to);
        store.move(name, to);
      }
    }
  }

  async #autoImport({ mode, prefixes, deletions, during }: AutoImportOp): Promise<Counts> {
    const { runner } = this.#jobs;
    const { name, done } = await runner.create('auto-import', {
      prefixes,
      conflictResolutionMode: mode,
      enableDeletions: deletions,
      changeSource: 'listing',
      changeSourceReason: 'as asked for',
      pollIntervalMs,
    });
    const statusNow = (): AutoImportRecord['properties']['status'] =>
      (runner.get(name) as AutoImportRecord).properties.status;
    for (const changes of [[], ...during]) {
      for (const change of changes) this.#change(change);
      await this.#pauses.next(done);
      if (statusNow().state !== 'Failed') continue;
      await this.#over(done);
      const { state, blobSyncEvents, ...scan } = statusNow();
      const both = failureCounters.map((counter) => [counter, scan[counter] + blobSyncEvents[counter]]);
      return { state, ...(Object.fromEntries(both) as Counts) };
    }
    await this.#disable(name, done);
    const status = statusNow();
    return {
      state: status.state,
      ...picked(status, ['totalBlobsWalked', ...importCounters], 'scan '),
      ...picked(status.blobSyncEvents, [...importCounters, 'deletions'], 'sync '),
    };
  }

  async #autoExport({ prefix, during }: AutoExportOp): Promise<Counts> {
    const { runner } = this.#jobs;
    const { name, done } = await runner.create('auto-export', { prefixes: [prefix], pollIntervalMs });
    for (const changes of [[], ...during]) {
      for (const change of changes) this.#change(change);
      for (let n = 0; n < iterations; n++) await this.#pauses.next(done);
    }
    await this.#disable(name, done);
    const { status } = (runner.get(name) as AutoExportRecord).properties;
    return picked(status, ['state', ...autoExportCounters]);
  }

  async #interrupt({ job, how, after }: Interrupted): Promise<void> {
    const { hsm, runner } = this.#jobs;
    const name = `interrupted-${runner.list().length}`;
    let [calls, stopped] = [0, Promise.resolve()];
    const called = (): void => {
      if (calls++ !== after) return;
      if (how === 'refuse') throw new BlobError('forbidden', 'refused once');
      stopped = how === 'cancel' ? runner.cancel(name).catch(() => undefined) : runner[Symbol.asyncDispose]();
    };
    hsm.container.before = called;
    if (how !== 'refuse') hsm.store.before = called;
    hsm.pool.gate = called;
    const { done } =
      job.op === 'import'
        ? await runner.create('import', {
            name,
            prefixes: job.prefixes,
            conflictResolutionMode: job.mode,
            maximumErrors: -1,
          })
        : await runner.create('export', { name, filesystemPath: job.prefix });
    await this.#over(done);
    await stopped;
    calls = after + 1;
    if (how !== 'restart') return;
    await hsm.restart();
    await this.#jobs.restart();
    await this.#jobs.runner.wait(name);
  }

  async #disable(name: string, done: Promise<unknown>): Promise<void> {
    await this.#jobs.runner.cancel(name);
    await this.#over(done);
  }

  /** Until the next job may begin. */
  async #over(done: Promise<unknown>): Promise<void> {
    await done;
    await until(() => this.#jobs.runner.running() === undefined, { what: 'the slot', intervalMs: 0 });
  }

  timeOf(path: string): string | undefined {
    const found = this.#jobs.hsm.store.names.get(path);
    return found === undefined ? undefined : this.#timeOf(found.mtimeNs);
  }

  #timeOf(ns: bigint): string {
    return this.#times.get(ns) ?? String(ns);
  }

  /** As Reference.picture() has it. */
  picture(): Picture {
    const { container, store } = this.#jobs.hsm;
    const entries = [...store.names].filter(([path]) => !isMarker(path));
    return {
      entries: Object.fromEntries(entries.map(([path, node]) => [path, this.#shown(node)])),
      blobs: Object.fromEntries(
        [...container.blobs].map(([name, { body, options }]) => {
          const kind = kindOf(options.metadata, body.length);
          const { mode, uid, gid, mtimeNs } = posixOf(options.metadata);
          const owner = uid === undefined ? undefined : `${uid}:${String(gid)}`;
          const mtime = mtimeNs === undefined ? undefined : this.#timeOf(mtimeNs);
          return [name, shownBlob({ kind, data: body.toString(), said: { mode, owner, mtime } })];
        }),
      ),
    };
  }

  #shown(node: Node): string {
    const { type, mode, uid, gid, mtimeNs, flags, copy, data, target } = node;
    const which = [type, ...(type === 'symlink' ? [] : [mode.toString(8)]), `${uid}:${gid}`];
    if (type === 'directory') return [...which, this.#timeOf(mtimeNs)].join(' ');
    const from = copy === undefined ? 'new' : `of ${copy.blob}`;
    if (type === 'symlink') return [...which, `-> ${target?.toString() ?? ''}`, from].join(' ');
    const released = (flags & HS_RELEASED) !== 0;
    const wrong = !node.modified && (flags & HS_DIRTY) !== 0;
    const state = wrong ? 'clean and dirty' : released ? 'released' : node.modified ? 'modified' : 'clean';
    const current = copy !== undefined && this.#jobs.hsm.container.blobs.get(copy.blob)?.etag === copy.etag;
    const lost = (flags & HS_LOST) === 0 ? '' : 'lost';
    const words = [...which, this.#timeOf(mtimeNs), state, from, current ? 'current' : 'old', lost];
    return [...words, released ? '' : data.toString()].join(' ');
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#jobs[Symbol.asyncDispose]();
  }
}

type Node = MemoryJobs['hsm']['store']['names'] extends ReadonlyMap<string, infer T> ? T : never;

function isHere({ type, flags }: Node): boolean {
  return type === 'file' && (flags & HS_RELEASED) === 0;
}

function metadataOf({ kind, said }: Extract<RemoteOp, { op: 'put' }>): Record<string, string> {
  const [owner = '', group = ''] = said?.owner.split(':') ?? [];
  return {
    ...(said && { owner, group, permissions: said.mode.toString(8).padStart(4, '0') }),
    ...(kind === 'directory' && { hdi_isfolder: 'true' }),
    ...(kind === 'symlink' && { is_symlink: 'true' }),
  };
}

function picked<Key extends string>(
  status: Readonly<Record<Key, number | string>>,
  keys: readonly Key[],
  prefix = '',
): Counts {
  return Object.fromEntries(keys.map((key) => [prefix + key, status[key]]));
}
