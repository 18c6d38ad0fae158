/** From how a job's work ended to what its record says: pure. */
import { messageChain } from '../base/errors.js';
import type { ExportRecord, ImportRecord, JobFailure } from './job.js';

export type JobEnd<State extends string> =
  | {
      readonly kind: 'done';
      readonly state: State;
      /** The first thing that the job could not do. */
      readonly firstProblem?: string | undefined;
    }
  | { readonly kind: 'failed'; readonly failure: JobFailure }
  | { readonly kind: 'canceled' }
  /** The daemon stopped. */
  | { readonly kind: 'stopped' };

/** The final record of an import. */
export function endedImport(
  record: ImportRecord,
  end: JobEnd<'Completed' | 'CompletedPartial'>,
  at: string,
): ImportRecord {
  const { status } = record.properties;
  const seconds = Math.max(0.001, (Date.parse(at) - Date.parse(status.lastStartedTime)) / 1000);
  return {
    ...record,
    properties: {
      ...record.properties,
      status: {
        ...status,
        ...importEnd(end),
        lastCompletionTime: at,
        blobsWalkedPerSecond: Math.round(status.totalBlobsWalked / seconds),
        blobsImportedPerSecond: Math.round(status.totalBlobsImported / seconds),
      },
    },
  };
}

function importEnd(end: JobEnd<'Completed' | 'CompletedPartial'>): {
  readonly state: ImportRecord['properties']['status']['state'];
  readonly statusMessage: string;
} {
  switch (end.kind) {
    case 'done':
      return end.state === 'Completed'
        ? { state: 'Completed', statusMessage: 'Import job completed successfully' }
        : {
            state: 'CompletedPartial',
            statusMessage: `some blobs were not imported, the first: ${end.firstProblem ?? '?'}; the log of the job names all of them`,
          };
    case 'failed':
      return { state: 'Failed', statusMessage: messageChain(end.failure) };
    case 'canceled':
      return { state: 'Canceled', statusMessage: 'Import job was canceled' };
    case 'stopped':
      return { state: 'Failed', statusMessage: 'the daemon was stopped while the job ran' };
  }
}

/** The final record of an export: Failed when a file could not be exported, as its data is not in the container. */
export function endedExport(record: ExportRecord, end: JobEnd<'Completed'>, at: string): ExportRecord {
  const { status } = record.properties;
  const { totalFilesFailed: lost } = status;
  if (end.kind === 'done' && lost === 0)
    return finish(record, at, { state: 'Completed', percentComplete: 100 });
  switch (end.kind) {
    case 'done': {
      const first = end.firstProblem ?? '?';
      const errorMessage =
        lost === 1
          ? `1 file was not exported: ${first}; the next export tries it again`
          : `${lost} files were not exported, the first: ${first}; the log of the job names all of them, the next export tries them again`;
      return finish(record, at, {
        state: 'Failed',
        errorCode: 'FilesFailed',
        errorMessage,
        percentComplete: 100,
      });
    }
    case 'failed':
      return finish(record, at, {
        state: 'Failed',
        errorCode: end.failure.code,
        errorMessage: messageChain(end.failure),
      });
    case 'canceled':
      return finish(record, at, { state: 'Canceled' });
    case 'stopped':
      return interruptedExport(record, false, at);
  }
}

/** What becomes of the export of a daemon that is no more. */
export function interruptedExport(record: ExportRecord, wasCanceled: boolean, at: string): ExportRecord {
  if (wasCanceled) return finish(record, at, { state: 'Canceled' });
  return finish(record, at, {
    state: 'Failed',
    errorCode: 'Interrupted',
    errorMessage: 'the daemon ended while the job ran; another export job copies what this one did not',
  });
}

function finish(
  record: ExportRecord,
  lastCompletionTime: string,
  end: Partial<ExportRecord['properties']['status']>,
): ExportRecord {
  const { properties } = record;
  return {
    ...record,
    properties: { ...properties, status: { ...properties.status, ...end, lastCompletionTime } },
  };
}
