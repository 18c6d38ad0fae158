/** `lustrite import …`, `export …`, `auto-import …`, `auto-export …` and `lustrite jobs list`. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { finalStates, type JobView, type StatusReport } from '../base/control-api.js';
import { UserError } from '../base/errors.js';
import { isWithin, resolvedPath } from '../base/mount-table.js';
import { Exit, UsageError } from './failure.js';
import { fieldRows, jobLine, jobRow, nothingFound, startedAt } from './job-text.js';
import { note, say, sayJson, table } from './output.js';
import { targetAt, type Target } from './target.js';
import { untilFinal } from './wait.js';

export type Kind = 'import' | 'export' | 'auto-import' | 'auto-export';

export interface Shown {
  readonly json?: boolean;
}

export interface CreateImport extends Shown {
  readonly name?: string;
  readonly prefix?: readonly string[];
  readonly conflict?: string;
  readonly maxErrors?: string;
  readonly wait?: boolean;
}

export interface CreateExport extends Shown {
  readonly name?: string;
  readonly path?: string;
  readonly wait?: boolean;
}

export interface CreateAutoImport extends CreateImport {
  readonly enableDeletions?: boolean;
  readonly source?: string;
  readonly pollInterval?: string;
}

export interface CreateAutoExport extends CreateExport {
  readonly pollInterval?: string;
}

/** The CLI's names of conflict modes -> Azure's. */
const conflictModes: Readonly<Record<string, string>> = {
  fail: 'Fail',
  skip: 'Skip',
  'overwrite-dirty': 'OverwriteIfDirty',
  'overwrite-always': 'OverwriteAlways',
};

export async function createImport(path: string, options: CreateImport): Promise<void> {
  await create(path, 'import', importBody(options), options);
}

export async function createAutoImport(path: string, options: CreateAutoImport): Promise<void> {
  const { enableDeletions = false, pollInterval = '5s', source } = options;
  if (source !== undefined && source !== 'feed' && source !== 'listing')
    throw new UsageError(`--source: '${source}' is not one of feed, listing`);
  const body = {
    ...importBody(options),
    enableDeletions,
    ...(source !== undefined && { changeSource: source }),
    pollIntervalMs: milliseconds(pollInterval),
  };
  await create(path, 'auto-import', body, options);
}

export async function createAutoExport(path: string, options: CreateAutoExport): Promise<void> {
  const { name, path: prefix, pollInterval = '5s' } = options;
  refuseOutsidePath(path, prefix);
  const body = {
    ...(name !== undefined && { name }),
    ...(prefix !== undefined && { prefixes: [prefix] }),
    pollIntervalMs: milliseconds(pollInterval),
  };
  await create(path, 'auto-export', body, options);
}

/** Nothing would ever be exported for somebody who writes where the file is outside the mount. */
function refuseOutsidePath(mnt: string, path: string | undefined): void {
  const mountPoint = resolvedPath(mnt);
  if (path === undefined || mountPoint === '/' || !isWithin(path, mountPoint)) return;
  // Unless it has such a directory inside, too.
  if (existsSync(join(mountPoint, dirname(path)))) return;
  const inside = path.slice(mountPoint.length);
  throw new UsageError(
    `--path: '${path}' has the mount point in it; paths begin at the mount's root: ${inside === '' ? '/' : inside}`,
  );
}

function milliseconds(interval: string): number {
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3600_000 };
  const [, number = '', unit = ''] = /^(\d{1,9})(ms|s|m|h)$/.exec(interval) ?? [];
  const factor = units[unit];
  if (factor !== undefined) return Number(number) * factor;
  throw new UsageError(`--poll-interval: '${interval}' is not a time such as 500ms, 5s, 10m or 1h`);
}

/** What is not said is the daemon's to decide. */
function importBody(options: CreateImport): object {
  const { name, prefix, conflict, maxErrors } = options;
  const mode = conflict === undefined ? undefined : conflictModes[conflict];
  if (conflict !== undefined && mode === undefined)
    throw new UsageError(`--conflict: '${conflict}' is not one of ${Object.keys(conflictModes).join(', ')}`);
  if (maxErrors !== undefined && !/^(?:-1|\d{1,9})$/.test(maxErrors)) {
    throw new UsageError(`--max-errors: '${maxErrors}' is not a whole number from -1`);
  }
  return {
    ...(name !== undefined && { name }),
    ...(prefix !== undefined && { prefixes: prefix }),
    ...(mode !== undefined && { conflictResolutionMode: mode }),
    ...(maxErrors !== undefined && { maximumErrors: Number(maxErrors) }),
  };
}

export async function createExport(path: string, options: CreateExport): Promise<void> {
  const { name, path: filesystemPath } = options;
  refuseOutsidePath(path, filesystemPath);
  const body = {
    ...(name !== undefined && { name }),
    ...(filesystemPath !== undefined && { filesystemPath }),
  };
  await create(path, 'export', body, options);
}

async function create(
  path: string,
  kind: Kind,
  body: object,
  options: Shown & { wait?: boolean },
): Promise<void> {
  const target = targetAt(path);
  const job = await target.client.post<JobView>(`/v1/jobs/${kind}`, body).catch((error: unknown) => {
    throw byFlag(error, kind);
  });
  if (options.wait !== true) {
    if (options.json === true) sayJson(job);
    else say(`${kind} ${job.name} started`);
    return;
  }
  tellEnd(target, await untilFinal(target, job.name, kind === 'auto-import' ? syncs : undefined), options);
}

/** What was sent -> the flag that said it. */
const flags: Readonly<Record<string, string>> = {
  name: '--name',
  prefixes: '--prefix',
  filesystemPath: '--path',
  maximumErrors: '--max-errors',
  pollIntervalMs: '--poll-interval',
};

/** A refusal names what its reader wrote. */
function byFlag(error: unknown, kind: Kind): unknown {
  if (!(error instanceof UserError)) return error;
  const [sent = '', field = ''] = /^(\w+)(?:\.\d+)?: /.exec(error.message) ?? [];
  const flag = kind === 'auto-export' && field === 'prefixes' ? '--path' : flags[field];
  if (flag === undefined) return error;
  return new UserError(error.code, `${flag}: ${error.message.slice(sent.length)}`, { status: error.status });
}

/** Blob sync has begun: nothing ends an auto-import but somebody who disables it. */
function syncs(job: JobView): boolean {
  return 'scanEndTime' in job.properties.status;
}

/** Prints a job that was waited for; exit code 1 unless it is Completed, Disabled or syncs. */
export function tellEnd({ mount }: Target, job: JobView, { json }: Shown): void {
  const { state } = job.properties.status;
  const completed = state === 'Completed' || state === 'Disabled' || (state === 'InProgress' && syncs(job));
  if (json === true) sayJson(job);
  else say(`${job.kind} ${jobLine(job)}`);
  const nothing = state === 'Completed' ? nothingFound(job) : undefined;
  if (nothing !== undefined) note(nothing);
  if (json !== true) {
    if (!completed) note(`its log: ${join(mount.store, 'jobs', job.name, 'log.jsonl')}`);
  }
  if (!completed) throw new Exit(1);
}

export async function listJobs(path: string, kind: Kind | undefined, { json }: Shown): Promise<void> {
  const { client, mount } = targetAt(path);
  const jobs = await jobsOf(client, kind);
  if (json === true) {
    sayJson(jobs);
    return;
  }
  if (jobs.length === 0) say(`${mount.mountPoint} has had no ${kind ?? ''}${kind ? ' ' : ''}jobs`);
  else say(table(jobs.map((job) => [job.kind, ...jobRow(job)])));
}

async function jobsOf(client: Target['client'], kind: Kind | undefined): Promise<readonly JobView[]> {
  const query = kind === undefined ? '' : `?kind=${kind}`;
  return (await client.get<{ readonly value: readonly JobView[] }>(`/v1/jobs${query}`)).value;
}

export async function showJob(
  path: string,
  kind: Kind,
  name: string | undefined,
  { json }: Shown,
): Promise<void> {
  const job = await jobNamed(targetAt(path), kind, name);
  if (json === true) {
    sayJson(job);
    return;
  }
  say(`${job.kind} ${jobLine(job)}`);
  const { status, ...settings } = job.properties;
  const rows = [...fieldRows(settings), ...fieldRows(status)];
  say(table(rows.map(([name, value]) => [`  ${name}`, value])));
}

export async function cancelJob(
  path: string,
  kind: Kind,
  name: string | undefined,
  { json, wait }: Shown & { readonly wait?: boolean },
): Promise<void> {
  const target = targetAt(path);
  const job = await jobNamed(target, kind, name);
  const after = await target.client.post<JobView>(`/v1/jobs/${encodeURIComponent(job.name)}/cancel`);
  if (wait === true) {
    const ended = await untilFinal(target, job.name);
    const { state } = ended.properties.status;
    if (state === 'Canceled') show(ended, json);
    else tellEnd(target, ended, { ...(json !== undefined && { json }) });
    return;
  }
  show(after, json);
  if (json !== true && !finalStates.includes(after.properties.status.state))
    note(`it ends soon; --wait waits for that, lustrite ${kind} show ${path} ${job.name} tells how it ended`);
}

function show(job: JobView, json: boolean | undefined): void {
  if (json === true) sayJson(job);
  else say(`${job.kind} ${jobLine(job)}`);
}

export async function deleteJob(path: string, kind: Kind, name: string, { json }: Shown): Promise<void> {
  const target = targetAt(path);
  const job = await jobNamed(target, kind, name);
  await target.client.delete(`/v1/jobs/${encodeURIComponent(job.name)}`);
  if (json === true) sayJson(job);
  else {
    const { loggingContainer } = await target.client.get<StatusReport>('/v1/status');
    const log = loggingContainer === null ? '' : `; its log in the container ${loggingContainer} stays`;
    say(`${kind} ${job.name} is deleted${log}`);
  }
}

/** The job of that name, or else the one that is running, or else the latest. */
async function jobNamed({ client, mount }: Target, kind: Kind, name: string | undefined): Promise<JobView> {
  const jobs = await jobsOf(client, kind);
  if (name !== undefined) {
    const named = jobs.find((job) => job.name === name);
    if (named !== undefined) return named;
    throw new UserError(
      'NotFound',
      `${mount.mountPoint} has no ${kind} job '${name}'; lustrite ${kind} list ${mount.mountPoint} shows them`,
    );
  }
  const latest = jobs.toSorted((a, b) => (startedAt(a) < startedAt(b) ? -1 : 1)).at(-1);
  const job = jobs.find((one) => !finalStates.includes(one.properties.status.state)) ?? latest;
  if (job !== undefined) return job;
  throw new UserError('NotFound', `${mount.mountPoint} has had no ${kind} job`);
}
