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
  const why = state === 'InProgress' || state === 'Completed' ? undefined : causeOf(job);
  return `${job.name} ${state}: ${counters.join(', ')}${why === undefined ? '' : ` (${why})`}`;
}

function causeOf(job: JobView): string | undefined {
  const { errorMessage, statusMessage } = fieldsOf(job.properties.status);
  return [errorMessage, statusMessage].find((text) => typeof text === 'string' && text !== '') as
    string | undefined;
}
