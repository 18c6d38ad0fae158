/** Jobs for people. */
import type { JobView } from '../base/control-api.js';
import { counted } from './output.js';

/** Everything a part of a job has, beyond what its type promises. */
export function fieldsOf(part: object): Readonly<Record<string, unknown>> {
  return { ...part };
}

function number(job: JobView, name: string): number {
  const value = fieldsOf(job.properties.status)[name];
  return typeof value === 'number' ? value : 0;
}

/** `importJobInitialAmlfsPut InProgress: 1200 of 1234 blobs imported, 0 errors, 3 conflicts`. */
export function jobLine(job: JobView): string {
  const { state } = job.properties.status;
  const quiet = state === 'InProgress' || state === 'Completed' || state === 'Disabled';
  const counters = countersOf(job);
  const why = quiet ? undefined : causeOf(job);
  return `${job.name} ${state}: ${counters.join(', ')}${why === undefined ? '' : ` (${why})`}`;
}

function countersOf(job: JobView): readonly string[] {
  switch (job.kind) {
    case 'export':
      return [
        ...(job.properties.status.state === 'InProgress' ? [`${number(job, 'percentComplete')} %`] : []),
        ...exported(job),
      ];
    case 'auto-export':
      return [...exported(job), `iteration ${number(job, 'exportIterationCount')}`];
    case 'auto-import': {
      const { blobSyncEvents = {} } = fieldsOf(job.properties.status) as { readonly blobSyncEvents?: object };
      const synced = fieldsOf(blobSyncEvents);
      const since = (name: string): number => (typeof synced[name] === 'number' ? synced[name] : 0);
      return [
        ...imported(job),
        `since then ${since('totalBlobsImported')} imported`,
        `${since('deletions')} deleted`,
        counted(since('totalErrors'), 'error'),
        counted(since('totalConflicts'), 'conflict'),
        fieldsOf(job.properties)['changeSource'] === 'feed' ? 'from the change feed' : 'from listings',
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
    `${number(job, 'totalFilesFailed')} failed`,
  ];
}

function imported(job: JobView): readonly string[] {
  return [
    `${number(job, 'totalBlobsImported')} of ${counted(number(job, 'totalBlobsWalked'), 'blob')} imported`,
    counted(number(job, 'totalErrors'), 'error'),
    counted(number(job, 'totalConflicts'), 'conflict'),
  ];
}

function causeOf(job: JobView): string | undefined {
  const { errorMessage, statusMessage } = fieldsOf(job.properties.status);
  return [errorMessage, statusMessage].find((text) => typeof text === 'string' && text !== '') as
    string | undefined;
}
