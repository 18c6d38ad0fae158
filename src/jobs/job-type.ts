/** What the runner needs of each kind of job, and what a job gets to run with. */
import type { Clock } from '../base/clock.js';
import type { Config } from '../base/config.js';
import type { Log } from '../base/log.js';
import type { Container } from '../blob/port.js';
import type { Coordinator } from '../hsm/coordinator.js';
import type { Store } from '../store/store.js';
import type { JobRecord } from './job.js';
import type { JobEnd, JobFailure } from './job-end.js';
import type { JobLog } from './job-log.js';

export type JobsConfig = Pick<
  Config,
  'mountPoint' | 'readOnly' | 'defaults' | 'hsm' | 'export' | 'compat'
> & {
  readonly import: Pick<Config['import'], 'maxPrefixes'>;
};

export interface JobContext {
  readonly store: Pick<Store, 'native' | 'jobsDir' | 'meta'>;
  readonly coordinator: Pick<
    Coordinator,
    | 'archive'
    | 'withBlob'
    | 'keepOtherNames'
    | 'onSaved'
    | 'keepRenamed'
    | 'disown'
    | 'setBlocked'
    | 'changing'
  >;
  readonly container: Container;
  /** Undefined: logs stay under the store. */
  readonly loggingContainer?: Container | undefined;
  readonly log: Log;
  readonly clock: Clock;
  readonly config: JobsConfig;
}

export interface JobRun<R extends JobRecord> {
  /** The same job was interrupted before. */
  readonly resumed: boolean;
  /** Aborted with `canceled` or `stopped` as its reason. */
  readonly signal: AbortSignal;
  /** Aborted when the daemon stops, also where the job was canceled before. */
  readonly stop: AbortSignal;
  readonly log: JobLog;
  /** The job's own, under STORE/jobs. */
  readonly folder: string;
  /** From here on it is too late for a cancel: how it ends is decided. */
  decided(): void;
  /** The other jobs there are. */
  readonly history: readonly JobRecord[];
  /** The record as it is shown. */
  now(): R;
  /** Shows a record without writing it down. */
  show(record: R): void;
  /** Shows a record and writes it down durably. */
  commit(record: R): Promise<void>;
  /**
   * Runs the work and shows its counters meanwhile; `persist` writes them down, too, without a promise. `signal`: what
   * ends it, when that is not every cancel.
   */
  during<T>(
    current: () => R,
    options: { readonly persist: boolean; readonly signal?: AbortSignal },
    work: () => Promise<T>,
  ): Promise<JobEnd<T>>;
}

export interface JobType<R extends JobRecord> {
  /** Why no `lfs hsm_*` is taken beside it, nor it beside an archive or remove; absent: both are. */
  blocks?(context: JobContext, record: R): string;
  /** The record of a job that was asked to end. */
  ending(record: R): R;
  /** With what an interrupted job goes on after a restart; undefined: it does not. */
  resume(context: JobContext, record: R, at: string): Promise<R | undefined>;
  /** The final record of an interrupted job that does not go on. */
  interrupted(context: JobContext, record: R, at: string): Promise<R>;
  failed(record: R, failure: JobFailure, at: string): R;
  /** Takes away what the mount shows of a job that is deleted. */
  forget?(context: JobContext, record: R): Promise<void>;
  /** Does the job. The final record; undefined: stopped, to be taken up at the next start. */
  run(context: JobContext, run: JobRun<R>): Promise<R | undefined>;
}

/** ISO 8601. */
export function timeOf(clock: Clock): string {
  return new Date(clock.now()).toISOString();
}
