/** Runs jobs, one at a time, each with a durable record that never stays InProgress without a job behind it. */
import type { Clock } from '../base/clock.js';
import type { Config } from '../base/config.js';
import { crashPoint } from '../base/crash.js';
import { messageChain, UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Container } from '../blob/port.js';
import type { Coordinator } from '../hsm/coordinator.js';
import type { Store } from '../store/store.js';
import { runExport, type MutableExportCounters } from './export.js';
import { runImport, type MutableImportCounters } from './import.js';
import {
  isFinal,
  JobFailure,
  jobNamePattern,
  noExportCounters,
  noImportCounters,
  stateOf,
  type ConflictMode,
  type ExportRecord,
  type ImportRecord,
  type JobKind,
  type JobRecord,
} from './job.js';
import { JobLog, jobLogName } from './job-log.js';
import { compactTime, Marker } from './marker.js';
import { endedExport, endedImport, interruptedExport, type JobEnd } from './outcome.js';
import { blobPrefixes } from './prefixes.js';
import { JobRecords } from './records.js';
import { JobWatchers } from './watchers.js';

export type RunnerConfig = Pick<Config, 'defaults' | 'hsm' | 'export' | 'compat'>;

export interface JobRunnerOptions {
  readonly store: Pick<Store, 'native' | 'jobsDir' | 'meta'>;
  readonly coordinator: Pick<Coordinator, 'archive' | 'withBlob'>;
  readonly container: Container;
  /** Undefined: logs stay under the store. */
  readonly loggingContainer?: Container | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly config: RunnerConfig;
}

export interface ImportRequest {
  readonly name?: string | undefined;
  /** Empty: the whole container. */
  readonly prefixes?: readonly string[] | undefined;
  readonly conflictResolutionMode?: ConflictMode | undefined;
  readonly maximumErrors?: number | undefined;
}

export interface ExportRequest {
  readonly name?: string | undefined;
  readonly filesystemPath?: string | undefined;
}

/** A job that was started. */
export interface Job {
  readonly name: string;
  readonly record: JobRecord;
  /** The final record; the record as it is when the daemon stops first. Never rejects. */
  readonly done: Promise<JobRecord>;
}

interface Run {
  readonly name: string;
  readonly abort: AbortController;
  readonly done: Promise<JobRecord>;
}

/** Why a run was aborted. */
const canceled = new JobFailure('Canceled', 'the job was canceled');
const stopped = new JobFailure('Interrupted', 'the daemon was stopped while the job ran');

const refreshMs = 500;
const logUploadMs = 60_000;

export class JobRunner implements AsyncDisposable {
  readonly #options: JobRunnerOptions;
  readonly #records: JobRecords;
  readonly #jobs = new Map<string, JobRecord>();
  readonly #watchers = new JobWatchers();
  /** Logs of canceled jobs on their way to the container. */
  readonly #uploads = new Set<Promise<unknown>>();
  #run: Run | undefined;
  /** The running job's end is decided and being written down: too late for a cancel. */
  #ending = false;
  #stopping = false;

  constructor(options: JobRunnerOptions) {
    this.#options = options;
    this.#records = new JobRecords(options.store.jobsDir);
  }

  /** Loads the records; an import that a dead daemon left begins again, an export has failed. */
  async start(): Promise<void> {
    const { log } = this.#options;
    for (const record of await this.#records.load(log)) this.#jobs.set(record.name, record);
    for (const record of [...this.#jobs.values()]) {
      if (isFinal(record)) continue;
      if (record.kind === 'import' && stateOf(record) === 'InProgress' && this.#run === undefined) {
        log.info({ job: record.name }, 'an interrupted import begins again');
        // Its record forgets when it began before.
        await this.#markerOf(record).removeOld([startOf(record)]);
        await this.#begin(restarted(record, this.#now()), true).recorded;
      } else {
        await this.#settleInterrupted(record);
      }
    }
  }

  /** Starts an import. UserError: `InvalidParameter`, or `Conflict` while another job runs. */
  async createImport(request: ImportRequest): Promise<Job> {
    const mode = request.conflictResolutionMode ?? 'Fail';
    const maximumErrors = request.maximumErrors ?? 0;
    if (!Number.isInteger(maximumErrors) || maximumErrors < -1) {
      throw new UserError('InvalidParameter', `maximumErrors must be -1 or more, not ${maximumErrors}`);
    }
    const prefixes = request.prefixes ?? [];
    blobPrefixes(prefixes);
    return this.#create(
      (name, lastStartedTime) => ({
        kind: 'import',
        name,
        properties: {
          adminStatus: 'Active',
          importPrefixes: prefixes.length === 0 ? ['/'] : prefixes,
          conflictResolutionMode: mode,
          maximumErrors,
          status: {
            state: 'InProgress',
            statusMessage: 'Import job is running',
            lastStartedTime,
            ...noImportCounters,
          },
        },
      }),
      'import',
      request.name,
    );
  }

  /** Starts an export of everything new or changed whose path begins with `filesystemPath`. */
  async createExport(request: ExportRequest): Promise<Job> {
    const filesystemPath = request.filesystemPath ?? '/';
    if (
      filesystemPath.includes('\0') ||
      filesystemPath.split('/').some((part) => part === '.' || part === '..')
    ) {
      throw new UserError('InvalidParameter', `not a path below the mount: '${filesystemPath}'`);
    }
    return this.#create(
      (name, lastStartedTime) => ({
        kind: 'export',
        name,
        properties: {
          adminStatus: 'Active',
          filesystemPath,
          status: { state: 'InProgress', lastStartedTime, percentComplete: 0, ...noExportCounters },
        },
      }),
      'export',
      request.name,
    );
  }

  /** Oldest first. */
  list(kind?: JobKind): readonly JobRecord[] {
    const all = [...this.#jobs.values()].filter((record) => kind === undefined || record.kind === kind);
    return all.sort((a, b) => startOf(a).localeCompare(startOf(b)));
  }

  /** UserError `NotFound` when there is none of this name. */
  get(name: string): JobRecord {
    const record = this.#jobs.get(name);
    if (record === undefined) throw new UserError('NotFound', `there is no job '${name}'`);
    return record;
  }

  has(name: string): boolean {
    return this.#jobs.has(name);
  }

  /** The job that runs now. */
  running(): JobRecord | undefined {
    return this.#run === undefined ? undefined : this.#jobs.get(this.#run.name);
  }

  /** Asks a job to end; it is Canceled within a second. A canceled one stays so, any other that is over: `Conflict`. */
  async cancel(name: string): Promise<void> {
    const record = this.get(name);
    const state = stateOf(record);
    if (state === 'Canceled' || state === 'Cancelling') return;
    const run = this.#run;
    if (isFinal(record) || run?.name !== name)
      throw new UserError('Conflict', `the job '${name}' is already ${state}`);
    if (this.#ending) throw new UserError('Conflict', `the job '${name}' is over`);
    this.#set(withState(record, 'Cancelling'));
    run.abort.abort(canceled);
    await this.#records.write(this.get(name), { durable: true });
  }

  /** Forgets a job that is over, its record and its local log. UserError `NotFound`, `Conflict` while it runs. */
  async delete(name: string): Promise<void> {
    const record = this.get(name);
    if (!isFinal(record) || this.#run?.name === name)
      throw new UserError('Conflict', `the job '${name}' is ${stateOf(record)}: cancel it first`);
    await Promise.all(this.#uploads);
    await this.#records.remove(name);
    this.#jobs.delete(name);
  }

  /** The final record. Rejects with the signal's reason, and when the runner stops first. */
  async wait(name: string, signal?: AbortSignal): Promise<JobRecord> {
    let last = this.get(name);
    for await (const record of this.watch(name, signal)) last = record;
    if (isFinal(last)) return last;
    throw new UserError('Interrupted', `the daemon stopped before the job '${name}' was over`);
  }

  /** The record now and whenever it changes, up to the final one. */
  async *watch(name: string, signal?: AbortSignal): AsyncGenerator<JobRecord, void, undefined> {
    for (;;) {
      signal?.throwIfAborted();
      const record = this.get(name);
      const changed = this.#watchers.next(name, signal);
      // Nobody may come back for it.
      changed.catch(() => undefined);
      yield record;
      if (isFinal(record) || (this.#stopping && this.#run === undefined)) return;
      if (this.get(name) === record) await changed;
    }
  }

  /** Stops the running job: an import goes on at the next start, an export has failed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    const run = this.#run;
    if (run !== undefined) {
      run.abort.abort(stopped);
      await run.done;
    }
    await Promise.all(this.#uploads);
    this.#watchers.wakeAll();
  }

  async #create(
    make: (name: string, startedTime: string) => JobRecord,
    kind: JobKind,
    wanted: string | undefined,
  ): Promise<Job> {
    const running = this.running();
    if (running !== undefined) {
      throw new UserError(
        'Conflict',
        `the ${running.kind} job '${running.name}' is running; wait for it or cancel it`,
      );
    }
    if (this.#stopping) throw new UserError('Conflict', 'the daemon is stopping');
    const startedTime = this.#now();
    const name = wanted ?? this.#freeName(kind, startedTime);
    if (!jobNamePattern.test(name)) {
      throw new UserError(
        'InvalidParameter',
        `not a job name: '${name}' (2 to 80 letters, digits, '-' and '_')`,
      );
    }
    if (this.has(name)) throw new UserError('Conflict', `there is a job '${name}' already`);
    const record = make(name, startedTime);
    const { recorded, done } = this.#begin(record, false);
    await recorded;
    return { name, record, done };
  }

  /** Takes the one slot at once, so that two requests cannot both get it. */
  #begin(
    record: JobRecord,
    resumed: boolean,
  ): { readonly recorded: Promise<void>; readonly done: Promise<JobRecord> } {
    const abort = new AbortController();
    const marker = record.kind === 'import' ? this.#markerOf(record) : undefined;
    this.#set(record);
    const recorded = this.#records.create(record);
    const done = this.#execute(record, recorded, resumed, abort.signal, marker);
    this.#run = { name: record.name, abort, done };
    return { recorded, done };
  }

  async #execute(
    record: JobRecord,
    recorded: Promise<void>,
    resumed: boolean,
    signal: AbortSignal,
    marker: Marker | undefined,
  ): Promise<JobRecord> {
    const { log } = this.#options;
    const { name, kind } = record;
    try {
      await recorded;
      crashPoint('job.created');
      log.info({ job: name, kind }, 'job started');
      const end = await (record.kind === 'import'
        ? this.#import(record, resumed, signal, marker)
        : this.#export(record, signal));
      if (end !== undefined) {
        this.#ending = true;
        await this.#records.write(end, { durable: true });
        // Whoever sees that it is over may start the next one: nobody else runs before the slot is free.
        this.#set(end);
      }
    } catch (error) {
      log.error({ job: name, cause: messageChain(error) }, 'the job could not be recorded');
      const now = this.get(name);
      this.#set(failed(now, error, this.#now()));
    }
    const last = this.get(name);
    log.info({ job: name, state: stateOf(last) }, 'job over');
    this.#run = undefined;
    this.#ending = false;
    this.#watchers.wake(name);
    return last;
  }

  /** Undefined: stopped, to be taken up at the next start. */
  async #import(
    record: ImportRecord,
    resumed: boolean,
    signal: AbortSignal,
    marker: Marker | undefined,
  ): Promise<ImportRecord | undefined> {
    const { store, container, config, clock } = this.#options;
    const { properties } = record;
    const { lastStartedTime } = properties.status;
    const counters: MutableImportCounters = { ...noImportCounters };
    const current = (): ImportRecord => {
      const now = this.get(record.name) as ImportRecord;
      return { ...now, properties: { ...now.properties, status: { ...now.properties.status, ...counters } } };
    };
    const jobLog = await this.#openLog(record, lastStartedTime, resumed);
    const onCancel = (): void => {
      if (signal.reason === canceled) void marker?.show('Cancelling');
    };
    signal.addEventListener('abort', onCancel, { once: true });
    const others = this.list('import').filter(({ name }) => name !== record.name || resumed);
    await marker?.removeOld(others.map(startOf));
    await marker?.show('Importing');
    const end = await this.#during(current, signal, () =>
      runImport({
        native: store.native,
        container,
        prefixes: blobPrefixes(properties.importPrefixes),
        mode: properties.conflictResolutionMode,
        maximumErrors: properties.maximumErrors,
        defaults: config.defaults,
        startedMs: clock.now(),
        resumed,
        counters,
        log: jobLog,
        signal,
      }),
    );
    if (end.kind === 'stopped') {
      await jobLog.close(AbortSignal.abort());
      return undefined;
    }
    const over = endedImport(current(), end, this.#now());
    await marker?.show(end.kind === 'canceled' ? 'Canceled' : end.kind === 'failed' ? 'Failed' : undefined);
    await this.#closeLog(jobLog, over, end);
    return over;
  }

  async #export(record: ExportRecord, signal: AbortSignal): Promise<ExportRecord> {
    const { store, container, coordinator, config, clock } = this.#options;
    const { lastStartedTime } = record.properties.status;
    const counters: MutableExportCounters = { ...noExportCounters };
    let all = 0;
    const current = (): ExportRecord => {
      const now = this.get(record.name) as ExportRecord;
      const { totalFilesExported, totalFilesFailed, totalFilesSkipped } = counters;
      const tried = totalFilesExported + totalFilesFailed + totalFilesSkipped;
      const percentComplete = all > 0 ? Math.min(99, Math.floor((tried / all) * 100)) : 0;
      const status = { ...now.properties.status, ...counters, percentComplete };
      return { ...now, properties: { ...now.properties, status } };
    };
    const jobLog = await this.#openLog(record, lastStartedTime);
    const end = await this.#during(current, signal, async () => {
      const firstProblem = await runExport({
        native: store.native,
        container,
        coordinator,
        clock,
        filesystemPath: record.properties.filesystemPath,
        parallel: 2 * config.hsm.maxRequests,
        extended: !config.compat.strict,
        ifMatch: config.export.ifMatch,
        counters,
        onCounted(files) {
          all = files;
        },
        log: jobLog,
        signal,
      });
      return { state: 'Completed' as const, firstProblem };
    });
    const over = endedExport(current(), end, this.#now());
    await this.#closeLog(jobLog, over, end);
    return over;
  }

  /** Runs the work and shows its counters meanwhile. */
  async #during<State extends string>(
    current: () => JobRecord,
    signal: AbortSignal,
    work: () => Promise<{ readonly state: State; readonly firstProblem: string | undefined }>,
  ): Promise<JobEnd<State>> {
    const refresh = setInterval(() => {
      const now = current();
      this.#set(now);
      void this.#records.write(now, { durable: false }).catch(() => undefined);
    }, refreshMs);
    try {
      return { kind: 'done', ...(await work()) };
    } catch (error) {
      if (signal.aborted) return { kind: signal.reason === canceled ? 'canceled' : 'stopped' };
      const failure =
        error instanceof JobFailure
          ? error
          : new JobFailure('InternalError', messageChain(error), { cause: error });
      return { kind: 'failed', failure };
    } finally {
      clearInterval(refresh);
    }
  }

  #openLog(record: JobRecord, startedTime: string, resumed = false): Promise<JobLog> {
    const { store, loggingContainer, log, clock } = this.#options;
    const options = {
      file: this.#records.logFile(record.name),
      container: loggingContainer,
      blob: jobLogName(store.meta.fsName, record.kind, record.name, startedTime),
      log,
      now: () => clock.now(),
    };
    return JobLog.open(options, resumed);
  }

  /** A final record means that the log is where it belongs; only a cancel does not wait for that, nor does the next job. */
  async #closeLog(jobLog: JobLog, record: JobRecord, end: JobEnd<string>): Promise<void> {
    if (end.kind === 'failed') {
      jobLog.add({ level: 'error', code: end.failure.code, message: messageChain(end.failure) });
    }
    jobLog.add({ level: 'info', code: stateOf(record), message: `the ${record.kind} job is over` });
    if (end.kind === 'canceled') this.#set(record);
    const uploaded = jobLog
      .close(AbortSignal.timeout(logUploadMs))
      .finally(() => this.#uploads.delete(uploaded));
    if (end.kind === 'canceled') this.#uploads.add(uploaded);
    else await uploaded;
    crashPoint('job.log-written');
  }

  async #settleInterrupted(record: JobRecord): Promise<void> {
    const at = this.#now();
    if (record.kind === 'import') {
      const end: JobEnd<'Completed'> =
        stateOf(record) === 'Cancelling' ? { kind: 'canceled' } : { kind: 'failed', failure: stopped };
      this.#set(endedImport(record, end, at));
      const marker = this.#markerOf(record);
      await marker.removeOld([startOf(record)]);
      await marker.show(end.kind === 'canceled' ? 'Canceled' : 'Failed');
    } else {
      this.#set(interruptedExport(record, stateOf(record) === 'Cancelling', at));
    }
    await this.#records.write(this.get(record.name), { durable: true });
  }

  #markerOf(record: JobRecord): Marker {
    const { store, log } = this.#options;
    return new Marker({ native: store.native, log, startedTime: startOf(record) });
  }

  #set(record: JobRecord): void {
    this.#jobs.set(record.name, record);
    this.#watchers.wake(record.name);
  }

  #freeName(kind: JobKind, startedTime: string): string {
    const base = `${kind}-${compactTime(startedTime)}`;
    for (let n = 1; ; n++) {
      const name = n === 1 ? base : `${base}-${n}`;
      if (!this.has(name)) return name;
    }
  }

  #now(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }
}

function startOf(record: JobRecord): string {
  return record.properties.status.lastStartedTime;
}

function restarted(record: ImportRecord, lastStartedTime: string): ImportRecord {
  const { properties, ...rest } = record;
  const status = {
    ...noImportCounters,
    state: 'InProgress',
    statusMessage: 'Import job is running',
    lastStartedTime,
  } as const;
  return { ...rest, properties: { ...properties, status } };
}

function withState(record: JobRecord, state: 'Cancelling'): JobRecord {
  return record.kind === 'import'
    ? {
        ...record,
        properties: {
          ...record.properties,
          adminStatus: 'Cancel',
          status: { ...record.properties.status, state },
        },
      }
    : {
        ...record,
        properties: {
          ...record.properties,
          adminStatus: 'Cancel',
          status: { ...record.properties.status, state },
        },
      };
}

function failed(record: JobRecord, error: unknown, at: string): JobRecord {
  const failure = new JobFailure('InternalError', messageChain(error), { cause: error });
  return record.kind === 'import'
    ? endedImport(record, { kind: 'failed', failure }, at)
    : endedExport(record, { kind: 'failed', failure }, at);
}
