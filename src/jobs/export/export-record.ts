/** Records of export jobs, in the words of ARM's archiveStatus (amlfs 1.4), and how an end shows in them. */
import { z } from 'zod';
import { messageChain } from '../../base/errors.js';
import type { JobEnd } from '../job-end.js';
import { count, jobName, perSecond, time } from '../record-fields.js';

export const exportStates = ['InProgress', 'Cancelling', 'Canceled', 'Completed', 'Failed'] as const;
export type ExportState = (typeof exportStates)[number];

/** State -> what may follow it. A final state is followed by nothing. */
export const exportTransitions: Readonly<Record<ExportState, readonly ExportState[]>> = {
  InProgress: ['Cancelling', 'Completed', 'Failed'],
  Cancelling: ['Canceled', 'Failed'],
  Canceled: [],
  Completed: [],
  Failed: [],
};

const counters = z
  .object({
    /** Files and symlinks that were new or changed when the job met them; a file with several names counts for each. */
    filesDiscovered: count,
    /** Theirs. Records of older daemons lack it. */
    totalBytesDiscovered: count.default(0),
    totalFilesExported: count,
    totalBytesExported: count,
    totalMiBExported: count,
    totalFilesFailed: count,
    /** Special files and files marked never_archive. */
    totalFilesSkipped: count,
    totalDirectoriesExported: count,
  })
  .readonly();

export const exportRecord = z
  .object({
    kind: z.literal('export'),
    name: jobName,
    properties: z
      .object({
        adminStatus: z.enum(['Active', 'Cancel']),
        /** Everything whose path begins with it; `/` for all. */
        filesystemPath: z.string(),
        status: z
          .object({
            state: z.enum(exportStates),
            lastStartedTime: time,
            lastCompletionTime: time.exactOptional(),
            percentComplete: count,
            /** Not ARM's. Records of older daemons lack them. */
            filesExportedPerSecond: count.default(0),
            mibExportedPerSecond: count.default(0),
            errorCode: z.string().exactOptional(),
            errorMessage: z.string().exactOptional(),
            ...counters.unwrap().shape,
          })
          .readonly(),
      })
      .readonly(),
  })
  .readonly();

export type ExportRecord = z.infer<typeof exportRecord>;
export type ExportStatus = ExportRecord['properties']['status'];
export type ExportCounters = z.infer<typeof counters>;

export const noExportCounters: ExportCounters = {
  filesDiscovered: 0,
  totalBytesDiscovered: 0,
  totalFilesExported: 0,
  totalBytesExported: 0,
  totalMiBExported: 0,
  totalFilesFailed: 0,
  totalFilesSkipped: 0,
  totalDirectoriesExported: 0,
};

/** Over the time from the start to `at`. */
export function exportRates(
  { totalFilesExported, totalBytesExported }: ExportCounters,
  startedTime: string,
  at: string,
): Pick<ExportStatus, 'filesExportedPerSecond' | 'mibExportedPerSecond'> {
  return {
    filesExportedPerSecond: perSecond(totalFilesExported, startedTime, at),
    mibExportedPerSecond: perSecond((10 * totalBytesExported) / 2 ** 20, startedTime, at) / 10,
  };
}

export interface ExportResult {
  /** The first thing that the job could not do. */
  readonly firstProblem: string | undefined;
}

/** The final record of an export: Failed when a file could not be exported, as its data is not in the container. */
export function endedExport(record: ExportRecord, end: JobEnd<ExportResult>, at: string): ExportRecord {
  const { totalFilesFailed: lost } = record.properties.status;
  switch (end.kind) {
    case 'done': {
      if (lost === 0) return finish(record, at, { state: 'Completed', percentComplete: 100 });
      const first = end.result.firstProblem ?? '?';
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

function finish(record: ExportRecord, lastCompletionTime: string, end: Partial<ExportStatus>): ExportRecord {
  const { properties } = record;
  const { status } = properties;
  const rates = exportRates(status, status.lastStartedTime, lastCompletionTime);
  return {
    ...record,
    properties: { ...properties, status: { ...status, ...end, ...rates, lastCompletionTime } },
  };
}
