/** Jobs for people. */
import type { JobView } from '../base/control-api.js';
import { counted } from './output.js';

function number(job: JobView, name: string): number {
  const value = job.properties.status[name];
  return typeof value === 'number' ? value : 0;
}

/** `importJobInitialAmlfsPut InProgress: 1200 of 1234 blobs imported, 0 errors, 3 conflicts`. */
export function jobLine(job: JobView): string {
  const { state, statusMessage } = job.properties.status;
  const counters =
    job.kind === 'export'
      ? [
          ...(state === 'InProgress' ? [`${number(job, 'percentComplete')} %`] : []),
          `${counted(number(job, 'totalFilesExported'), 'file')} exported`,
          `${Math.round(number(job, 'totalMiBExported') * 10) / 10} MiB`,
          `${number(job, 'totalFilesFailed')} failed`,
        ]
      : [
          `${number(job, 'totalBlobsImported')} of ${counted(number(job, 'totalBlobsWalked'), 'blob')} imported`,
          counted(number(job, 'totalErrors'), 'error'),
          counted(number(job, 'totalConflicts'), 'conflict'),
        ];
  const why = state === 'InProgress' || state === 'Completed' ? undefined : causeOf(job, statusMessage);
  return `${job.name} ${state}: ${counters.join(', ')}${why === undefined ? '' : ` (${why})`}`;
}

function causeOf(job: JobView, statusMessage: string | undefined): string | undefined {
  const message = job.properties.status['errorMessage'];
  const text = typeof message === 'string' && message !== '' ? message : statusMessage;
  return text === '' ? undefined : text;
}
