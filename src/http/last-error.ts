/** What `status` says about the past: the job that ended last, and the newest failure of whatever kind. */
import type { StatusReport } from '../base/control-api.js';
import type { FinishedTransfer } from '../hsm/transfers.js';
import { endOf, isFinal, stateOf, type JobRecord } from '../jobs/job.js';

type LastError = NonNullable<StatusReport['lastError']>;

export interface Past {
  /** ISO 8601: jobs that ended before belong to another daemon's life. */
  readonly since: string;
  /** The last line of level `error` in the log. */
  readonly logged: LastError | null;
  readonly transfer: FinishedTransfer | undefined;
  readonly jobs: readonly JobRecord[];
}

function timeOf(job: JobRecord): string {
  return endOf(job) ?? '';
}

export function lastJobOf(jobs: readonly JobRecord[]): JobRecord | null {
  return jobs.filter(isFinal).reduce<JobRecord | null>(
    // Equal times: the one that began later.
    (last, job) => (last === null || timeOf(job) >= timeOf(last) ? job : last),
    null,
  );
}

/** The newest of what failed; a job that was canceled did not. */
export function lastErrorOf({ since, logged, transfer, jobs }: Past): LastError | null {
  const failures = [
    ...(logged === null ? [] : [logged]),
    ...(transfer === undefined ? [] : [transferError(transfer)]),
    ...jobs.flatMap((job) => (timeOf(job) >= since ? jobError(job) : [])),
  ];
  return failures.reduce<LastError | null>(
    (last, one) => (last === null || one.time >= last.time ? one : last),
    null,
  );
}

function transferError({ action, blob, fid, cause, at }: FinishedTransfer): LastError {
  const what = `${action.toLowerCase()} of ${blob ?? fid} failed`;
  const message = cause === undefined ? what : cause.startsWith(what) ? cause : `${what}: ${cause}`;
  return { time: new Date(at).toISOString(), message };
}

function jobError(job: JobRecord): readonly LastError[] {
  const state = stateOf(job);
  if (state !== 'Failed' && state !== 'CompletedPartial' && state !== 'DisableFailed') return [];
  const why =
    job.kind === 'export' ? job.properties.status.errorMessage : job.properties.status.statusMessage;
  return [
    { time: timeOf(job), message: `${job.kind} ${job.name} ${state}${why === undefined ? '' : `: ${why}`}` },
  ];
}
