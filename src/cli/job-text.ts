/** Jobs for people. */
import type { JobView, OutageView } from '../base/control-api.js';
import { counted } from './output.js';

/** Everything a part of a job has, beyond what its type promises. */
export function fieldsOf(part: object): Readonly<Record<string, unknown>> {
  return { ...part };
}

function number(job: JobView, name: string): number {
  const value = fieldsOf(job.properties.status)[name];
  return typeof value === 'number' ? value : 0;
}

/**
 * `importJobInitialAmlfsPut InProgress: 1200 of 1234 blobs imported, 0 errors, 3 conflicts`. An outage comes before the
 * counters: what does not fit on a terminal is cut off.
 */
export function jobLine(job: JobView): string {
  return `${job.name} ${job.properties.status.state}${outageText(job.storageOutage)}: ${countersText(job)}`;
}

/** `; the storage is unavailable since 2026-01-31T12:00:00.000Z: HTTP status 503`, or nothing. */
export function outageText(outage: OutageView | undefined): string {
  return outage === undefined ? '' : `; the storage is unavailable since ${outage.since}: ${outage.message}`;
}

/** Name, state, start and counters: a row of a table. */
export function jobRow(job: JobView): readonly string[] {
  return [job.name, job.properties.status.state, startedAt(job), countersText(job)];
}

/** `2026-01-31T12:00:00.000Z` */
export function startedAt(job: JobView): string {
  return timeOf(job, 'lastStartedTime') as string;
}

/** The same; undefined while it runs. */
export function endedAt(job: JobView): string | undefined {
  return timeOf(job, 'lastCompletionTime');
}

/** The auto kinds' times have UTC in their names. */
function timeOf(job: JobView, name: string): string | undefined {
  const status = fieldsOf(job.properties.status);
  return [status[name], status[`${name}UTC`]].find((time) => typeof time === 'string');
}

/** `percentComplete`, or `blobSyncEvents.deletions` for a part of a part, with its value. */
export function fieldRows(part: object, within = ''): readonly (readonly [string, string])[] {
  return Object.entries(fieldsOf(part)).flatMap(([name, value]) => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return fieldRows(value, `${within}${name}.`);
    return [[`${within}${name}`, typeof value === 'string' ? value : JSON.stringify(value)] as const];
  });
}

/** A job that ended well and found nothing: what nothing begins with, in case that was meant otherwise. */
export function nothingFound(job: JobView): string | undefined {
  const { importPrefixes, filesystemPath } = fieldsOf(job.properties);
  const quoted = (prefixes: unknown): string =>
    (Array.isArray(prefixes) ? prefixes : [prefixes]).map((prefix) => `'${String(prefix)}'`).join(' or ');
  switch (job.kind) {
    case 'import':
      if (number(job, 'totalBlobsWalked') > 0) return undefined;
      return String(importPrefixes) === '/'
        ? 'the container is empty'
        : `no blob has a name that begins with ${quoted(importPrefixes)}`;
    case 'export':
      return number(job, 'filesDiscovered') > 0 || filesystemPath === '/'
        ? undefined
        : `nothing whose path begins with ${quoted(filesystemPath)} is new or changed`;
    default:
      return undefined;
  }
}

function countersText(job: JobView): string {
  const { state } = job.properties.status;
  const quiet = (state === 'InProgress' && !tellsHow(job)) || state === 'Completed' || state === 'Disabled';
  const why = quiet ? undefined : causeOf(job);
  return `${countersOf(job).join(', ')}${why === undefined ? '' : ` (${why})`}`;
}

/** What auto-import does now, and what the running auto-export could not do, no counter says. */
function tellsHow(job: JobView): boolean {
  return job.kind === 'auto-import' || (job.kind === 'auto-export' && number(job, 'totalFilesFailed') > 0);
}

/** The counters of blob sync. */
function syncedOf(job: JobView): (name: string) => number {
  const { blobSyncEvents = {} } = fieldsOf(job.properties.status) as { readonly blobSyncEvents?: object };
  const synced = fieldsOf(blobSyncEvents);
  return (name) => (typeof synced[name] === 'number' ? synced[name] : 0);
}

function countersOf(job: JobView): readonly string[] {
  switch (job.kind) {
    case 'export':
      return [
        ...(job.properties.status.state === 'InProgress' ? [`${number(job, 'percentComplete')} %`] : []),
        ...exported(job),
        `${number(job, 'totalFilesFailed')} failed`,
        `${number(job, 'filesExportedPerSecond')} files/s`,
        `${number(job, 'mibExportedPerSecond')} MiB/s`,
      ];
    case 'auto-export':
      // A file that fails in every iteration is in the total as often.
      return [
        ...exported(job),
        `iteration ${number(job, 'exportIterationCount')}: ${number(job, 'currentIterationFilesFailed')} failed`,
      ];
    case 'auto-import': {
      const since = syncedOf(job);
      return [
        ...imported(job),
        `since then ${since('totalBlobsImported')} imported`,
        `${since('deletions')} deleted`,
        counted(since('totalErrors'), 'error'),
        counted(since('totalConflicts'), 'conflict'),
      ];
    }
    default:
      return imported(job);
  }
}

function exported(job: JobView): readonly string[] {
  return [
    `${counted(number(job, 'totalFilesExported'), 'file')} exported`,
    `${Math.round(number(job, 'totalMiBExported') * 10) / 10} MiB`,
  ];
}

function imported(job: JobView): readonly string[] {
  const there = ['Files', 'Directories', 'Symlinks'].map((type) => number(job, `preexisting${type}`));
  const preexisting = there.reduce((sum, count) => sum + count);
  return [
    `${number(job, 'totalBlobsImported')} of ${counted(number(job, 'totalBlobsWalked'), 'blob')} imported`,
    ...(preexisting === 0 ? [] : [`${preexisting} there already`]),
    counted(number(job, 'totalErrors'), 'error'),
    counted(number(job, 'totalConflicts'), 'conflict'),
  ];
}

function causeOf(job: JobView): string | undefined {
  const { errorMessage, statusMessage } = fieldsOf(job.properties.status);
  return [errorMessage, statusMessage].find((text) => typeof text === 'string' && text !== '') as
    string | undefined;
}
