/** Runs jobs, one at a time, each with a durable record that never stays InProgress without a job behind it. */
import { setMaxListeners } from 'node:events';
import { constants } from 'node:os';
import { crashPoint } from '../base/crash.js';
import { isDiskFull, messageChain, UserError } from '../base/errors.js';
import { pathText } from '../base/path-text.js';
import { unlessAborted } from '../base/unless-aborted.js';
import { hasErrno } from '../hsm/movers.js';
import { autoExportJob } from './export/auto-export-job.js';
import { autoImportJob } from './auto-import/auto-import-job.js';
import { exportJob } from './export/export-job.js';
import { importJob } from './import/import-job.js';
import { isAuto, isFinal, startOf, stateOf, type JobKind, type JobRecord, type RecordOf } from './job.js';
import { canceled, JobFailure, stopped, type JobEnd } from './job-end.js';
import { JobLog, jobLogName } from './job-log.js';
import { timeOf, type JobContext, type JobRun, type JobType } from './job-type.js';
import { compactTime } from './marker.js';
import { jobNamePattern } from './record-fields.js';
import { JobRecords } from './records.js';
import { newJob, type JobRequest } from './requests.js';
import { JobWatchers } from './watchers.js';

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
  readonly stop: AbortController;
  /** Aborted when nobody shall wait for its log on the way to the container. */
  readonly logless: AbortController;
  /** Its record is on disk. */
  readonly recorded: Promise<void>;
  readonly done: Promise<JobRecord>;
}

const types: { readonly [Kind in JobKind]: JobType<RecordOf<Kind>> } = {
  import: importJob,
  export: exportJob,
  'auto-import': autoImportJob,
  'auto-export': autoExportJob,
};

const { ENOENT } = constants.errno;

const refreshMs = 500;
/** How long a job that is over waits for its log to be in the container, and a daemon that stops for all of them. */
const logUploadMs = 60_000;
/** How often a store that has not taken the last record of a job is asked again. */
const againMs = 1000;

export class JobRunner implements AsyncDisposable {
  readonly #context: JobContext;
  readonly #records: JobRecords;
  readonly #jobs = new Map<string, JobRecord>();
  readonly #watchers = new JobWatchers();
  /** Logs of jobs that are over, on their way to the container. */
  readonly #uploads = new Map<string, Promise<unknown>>();
  readonly #uploading = new AbortController();
  #run: Run | undefined;
  /** The running job's end is decided: too late for a cancel. */
  #ending = false;
  #stopping = false;
  /** Why the store did not take the last record of the job that has the slot. */
  #unwritten: string | undefined;

  constructor(context: JobContext) {
    this.#context = context;
    this.#records = new JobRecords(context.store.jobsDir);
    // Each log under way listens to it.
    setMaxListeners(0, this.#uploading.signal);
  }

  /** Loads the records. What may not run beside a job that start() takes up is kept from it from here on. */
  async load(): Promise<void> {
    for (const record of await this.#records.load(this.#context.log)) {
      this.#jobs.set(record.name, record);
      if (!isFinal(record)) this.#block(record);
    }
  }

  /** What a dead daemon left goes on where its kind can, or ends honestly. */
  async start(): Promise<void> {
    const { log, coordinator } = this.#context;
    for (const record of [...this.#jobs.values()]) {
      if (isFinal(record)) continue;
      const type = typeOf(record);
      const at = timeOf(this.#context.clock);
      const again = this.#run === undefined ? await type.resume(this.#context, record, at) : undefined;
      if (again === undefined) {
        const over = await type.interrupted(this.#context, record, at);
        this.#set(over);
        await unlessDiskFull(this.#records.write(over, { durable: true }));
        await this.#endLog(over);
      } else {
        log.info({ job: record.name, kind: record.kind }, 'an interrupted job goes on');
        await this.#begin(again, true).recorded;
      }
    }
    const running = this.running();
    if (running === undefined || typeOf(running).blocks === undefined) coordinator.setBlocked(null);
  }

  /** Starts a job. UserError: `InvalidParameter`, or `Conflict` while another job runs. */
  async create<Kind extends JobKind>(kind: Kind, request: JobRequest<Kind>): Promise<Job> {
    const running = this.running();
    if (running !== undefined) {
      const cause = this.#unwritten;
      throw new UserError(
        'Conflict',
        isFinal(running) && cause !== undefined
          ? `the ${running.kind} job '${running.name}' is over, and its record cannot be written, which is tried again: ${cause}`
          : isInTheWay(running, this.#context.config.mountPoint),
      );
    }
    if (this.#stopping) throw new UserError('Conflict', 'the daemon is stopping');
    if (this.#context.config.readOnly && (kind === 'export' || kind === 'auto-export')) {
      throw new UserError('ReadOnly', 'the mount is read-only: nothing is exported', { status: 403 });
    }
    const startedTime = timeOf(this.#context.clock);
    const name = request.name ?? this.#freeName(kind, startedTime);
    if (!jobNamePattern.test(name)) {
      throw new UserError(
        'InvalidParameter',
        `not a job name: '${name}' (2 to 80 letters, digits, '-' and '_')`,
      );
    }
    if (this.has(name)) throw new UserError('Conflict', `there is a job '${name}' already`);
    const { container, config } = this.#context;
    const { hierarchical } = container.namespace;
    const { maxPrefixes } = config.import;
    const record = newJob(kind, request, name, startedTime, { hierarchical, maxPrefixes });
    const { changing } = this.#context.coordinator;
    if (typeOf(record).blocks !== undefined && changing > 0)
      throw new UserError('Conflict', areInTheWay(kind, changing, config.mountPoint));
    const { recorded, done } = this.#begin(record, false);
    await recorded;
    return { name, record, done };
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

  /**
   * Asks a job to end: it is Canceled or Disabled within a second, an auto-export after its iteration. One that has ended
   * so or is about to stays as it is; any other that is over: `Conflict`, and its log arrives behind it.
   */
  async cancel(name: string): Promise<void> {
    // A job is shown as soon as it has the slot; why it could not be recorded is its creator's to hear.
    if (this.#run?.name === name) await this.#run.recorded.catch(() => undefined);
    const record = this.get(name);
    const state = stateOf(record);
    if (state === 'Canceled' || state === 'Cancelling' || state === 'Disabled' || state === 'Disabling')
      return;
    const run = this.#run;
    if (isFinal(record) || run?.name !== name)
      throw new UserError('Conflict', `the job '${name}' is already ${state}`);
    if (this.#ending) {
      run.logless.abort();
      throw new UserError('Conflict', `the job '${name}' is already ${stateOf(await this.wait(name))}`);
    }
    this.#set(typeOf(record).ending(record));
    run.abort.abort(canceled);
    await this.#records.write(this.get(name), { durable: true });
  }

  /** Forgets a job that is over, its record and its local log. UserError `NotFound`, `Conflict` while it runs. */
  async delete(name: string): Promise<void> {
    const record = this.get(name);
    if (!isFinal(record) || this.#run?.name === name)
      throw new UserError(
        'Conflict',
        `the job '${name}' is ${stateOf(record)}: ${stopVerb(record)} it first`,
      );
    await this.#uploads.get(name);
    // What two jobs of one second show has one name.
    const isTwin = (other: JobRecord): boolean =>
      other.name !== name && compactTime(startOf(other)) === compactTime(startOf(record));
    if (!this.list(record.kind).some(isTwin)) await typeOf(record).forget?.(this.#context, record);
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

  /** Stops the running job: one that can goes on at the next start, an export has failed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    const run = this.#run;
    if (run !== undefined) {
      run.abort.abort(stopped);
      run.stop.abort(stopped);
      await run.done;
    }
    const late = setTimeout(() => {
      this.#uploading.abort();
    }, logUploadMs);
    await Promise.all(this.#uploads.values());
    clearTimeout(late);
    this.#watchers.wakeAll();
  }

  /** Takes the one slot at once, so that two requests cannot both get it. */
  #begin(
    record: JobRecord,
    resumed: boolean,
  ): { readonly recorded: Promise<void>; readonly done: Promise<JobRecord> } {
    const [abort, stop, logless] = [new AbortController(), new AbortController(), new AbortController()];
    // Each request in flight listens; Node takes more than ten for a leak and says so.
    setMaxListeners(0, abort.signal, stop.signal);
    this.#set(record);
    this.#block(record);
    const recorded = resumed ? unlessDiskFull(this.#records.create(record)) : this.#records.create(record);
    const signals = { signal: abort.signal, stop: stop.signal };
    const done = this.#execute(record, recorded, resumed, signals, logless.signal);
    this.#run = { name: record.name, abort, stop, logless, recorded, done };
    return { recorded, done };
  }

  async #execute(
    record: JobRecord,
    recorded: Promise<void>,
    resumed: boolean,
    signals: Pick<JobRun<JobRecord>, 'signal' | 'stop'>,
    logless: AbortSignal,
  ): Promise<JobRecord> {
    const { log, clock } = this.#context;
    const { name, kind } = record;
    let isRecorded = false;
    try {
      await recorded;
      isRecorded = true;
      crashPoint('job.created');
      log.info({ job: name, kind }, 'job started');
      const jobLog = await this.#openLog(record, resumed);
      // Nobody waits for months to see what went wrong.
      const following = isAuto(record)
        ? setInterval(() => jobLog.follow(signals.signal), refreshMs)
        : undefined;
      const over = await typeOf(record)
        .run(this.#context, this.#runOf(name, resumed, signals, jobLog))
        .finally(() => clearInterval(following));
      // Also while its log is on the way: what it was is decided.
      this.#ending = true;
      if (over === undefined) {
        // It goes on at the next start, and may not find what was asked for meanwhile.
        await jobLog.close(AbortSignal.abort());
      } else {
        await this.#closeLog(jobLog, over, logless);
        await this.#records.write(over, { durable: true });
        // Not before: a daemon that finds it running goes on with it.
        this.#unblock(record);
        // Whoever sees that it is over may start the next one: nobody else runs before the slot is free.
        this.#set(over);
      }
    } catch (error) {
      log.error({ job: name, cause: messageChain(error) }, 'the job could not be recorded');
      const failure = new JobFailure('InternalError', messageChain(error), { cause: error });
      this.#set(typeOf(record).failed(this.get(name), failure, timeOf(clock)));
      if (await this.#isWritten(name, isRecorded, signals.stop)) this.#unblock(record);
    }
    const last = this.get(name);
    log.info({ job: name, state: stateOf(last) }, 'job over');
    this.#run = undefined;
    this.#ending = false;
    this.#unwritten = undefined;
    this.#watchers.wake(name);
    return last;
  }

  /**
   * That a job is over. Else it would be found as running by every daemon after this one, beside what has begun since: it
   * keeps its place until the store takes the record, or the daemon stops, and then nothing else has begun. Where its
   * creator has heard that it could not be recorded, there is none to be found but by a store that took half of it.
   */
  async #isWritten(name: string, isRecorded: boolean, stop: AbortSignal): Promise<boolean> {
    for (;;) {
      try {
        await this.#records.write(this.get(name), { durable: true });
        return true;
      } catch (error) {
        // No folder, no record.
        if (!isRecorded || hasErrno(error, ENOENT)) return true;
        this.#unwritten = messageChain(error);
      }
      if (stop.aborted) return false;
      await this.#context.clock.sleep(againMs, stop).catch(() => undefined);
    }
  }

  #block(record: JobRecord): void {
    const reason = typeOf(record).blocks?.(this.#context, record);
    if (reason !== undefined) this.#context.coordinator.setBlocked(reason);
  }

  #unblock(record: JobRecord): void {
    if (typeOf(record).blocks !== undefined) this.#context.coordinator.setBlocked(null);
  }

  #runOf(
    name: string,
    resumed: boolean,
    signals: Pick<JobRun<JobRecord>, 'signal' | 'stop'>,
    log: JobLog,
  ): JobRun<JobRecord> {
    return {
      resumed,
      ...signals,
      log,
      folder: this.#records.folder(name),
      decided: () => {
        this.#ending = true;
      },
      history: this.list().filter((record) => record.name !== name),
      now: () => this.get(name),
      show: (record) => {
        this.#set(record);
      },
      commit: async (record) => {
        this.#set(record);
        await this.#records.write(record, { durable: true });
      },
      during: (current, { persist, signal = signals.signal }, work) =>
        this.#during(current, persist, signal, log, work),
    };
  }

  /** Runs the work and shows its counters meanwhile. */
  async #during<T>(
    current: () => JobRecord,
    persist: boolean,
    signal: AbortSignal,
    log: JobLog,
    work: () => Promise<T>,
  ): Promise<JobEnd<T>> {
    const ended = (): JobEnd<T> => ({ kind: signal.reason === canceled ? 'canceled' : 'stopped' });
    const refresh = setInterval(() => {
      // A daemon that is killed has told what it did so far.
      void log.written();
      const now = current();
      this.#set(now);
      if (persist) void this.#records.write(now, { durable: false }).catch(() => undefined);
    }, refreshMs);
    try {
      const result = await work();
      return signal.aborted ? ended() : { kind: 'done', result };
    } catch (error) {
      if (signal.aborted) return ended();
      const failure =
        error instanceof JobFailure
          ? error
          : new JobFailure('InternalError', messageChain(error), { cause: error });
      log.add({ level: 'error', code: failure.code, message: messageChain(failure) });
      return { kind: 'failed', failure };
    } finally {
      clearInterval(refresh);
    }
  }

  #openLog(record: JobRecord, resumed: boolean): Promise<JobLog> {
    const { store, loggingContainer, log, clock } = this.#context;
    const options = {
      file: this.#records.logFile(record.name),
      container: loggingContainer,
      blob: jobLogName(store.meta.fsName, record.kind, record.name, startOf(record)),
      log,
      startedMs: Date.parse(startOf(record)),
      now: () => clock.now(),
    };
    return JobLog.open(options, resumed);
  }

  /**
   * A final record means that the log is where it belongs, unless that takes long. A cancel does not wait for it, whether
   * it ends the job or finds it over.
   */
  async #closeLog(jobLog: JobLog, record: JobRecord, logless: AbortSignal): Promise<void> {
    const state = stateOf(record);
    const wasCanceled = state === 'Canceled' || state === 'Disabled' || state === 'DisableFailed';
    jobLog.add({ level: 'info', code: state, message: `the ${record.kind} job is over` });
    const uploaded = this.#upload(record.name, jobLog);
    const enough = AbortSignal.any([logless, AbortSignal.timeout(logUploadMs)]);
    if (!wasCanceled) await unlessAborted(() => uploaded, enough).catch(() => undefined);
    crashPoint('job.log-written');
  }

  /** Of a job that a daemon before this one has left: with what that had written of it. */
  async #endLog(record: JobRecord): Promise<void> {
    const { log } = this.#context;
    try {
      const jobLog = await this.#openLog(record, true);
      const message = `the ${record.kind} job is over: the daemon had ended while it ran`;
      jobLog.add({ level: 'info', code: stateOf(record), message });
      void this.#upload(record.name, jobLog);
    } catch (error) {
      const cause = messageChain(error);
      log.warn({ job: record.name, cause }, 'the log of an interrupted job has no end');
    }
  }

  /** As long as its pieces arrive: however long a log is, each has a deadline. Never rejects. */
  #upload(name: string, jobLog: JobLog): Promise<unknown> {
    const uploaded = jobLog.close(this.#uploading.signal).finally(() => this.#uploads.delete(name));
    this.#uploads.set(name, uploaded);
    return uploaded;
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
}

/** A record decides its type, which the compiler cannot follow. */
function typeOf(record: JobRecord): JobType<JobRecord> {
  return types[record.kind];
}

function stopVerb(record: JobRecord): string {
  return isAuto(record) ? 'disable' : 'cancel';
}

function isInTheWay(record: JobRecord, mountPoint: string): string {
  const { kind, name } = record;
  const verb = stopVerb(record);
  const how = verb === 'cancel' ? 'wait for it or cancel it' : 'disable it first';
  return `the ${kind} job '${name}' is running; ${how}: lustrite ${kind} ${verb} ${pathText(mountPoint)} ${name}`;
}

function areInTheWay(kind: JobKind, requests: number, mountPoint: string): string {
  const mount = pathText(mountPoint);
  return (
    `archives and removes of 'lfs hsm_*' that are not over: ${requests}; no ${kind} runs beside them. ` +
    'Wait for them, or end them with lfs hsm_cancel, or all of them with: ' +
    `lustrite hsm set-param ${mount} hsm_control=purge`
  );
}

/** At a start: whoever has files in the store shall get at them, and can make room. */
async function unlessDiskFull(written: Promise<void>): Promise<void> {
  try {
    await written;
  } catch (error) {
    if (!isDiskFull(error)) throw error;
  }
}
