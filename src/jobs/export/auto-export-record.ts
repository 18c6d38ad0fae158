/** Records of auto-export jobs, in ARM's words (autoExportJobs, amlfs 1.4), and how an end shows in them. */
import { z } from 'zod';
import { messageChain } from '../../base/errors.js';
import type { JobEnd } from '../job-end.js';
import { count, jobName, time } from '../record-fields.js';

export const autoExportStates = ['InProgress', 'Disabling', 'Disabled', 'DisableFailed', 'Failed'] as const;
export type AutoExportState = (typeof autoExportStates)[number];

/** State -> what may follow it. A final state is followed by nothing. */
export const autoExportTransitions: Readonly<Record<AutoExportState, readonly AutoExportState[]>> = {
  // A daemon that starts again goes on with it.
  InProgress: ['InProgress', 'Disabling', 'Failed'],
  // DisableFailed: the iteration that was waited for could not export everything, or its daemon ended first.
  Disabling: ['Disabled', 'DisableFailed', 'Failed'],
  Disabled: [],
  DisableFailed: [],
  Failed: [],
};

const counters = z
  .object({
    /** Of all iterations; a file that changes again and again counts each time. */
    totalFilesExported: count,
    totalMiBExported: count,
    /** Since the last iteration that exported everything. */
    totalFilesFailed: count,
    exportIterationCount: count,
    currentIterationFilesDiscovered: count,
    currentIterationMiBDiscovered: count,
    currentIterationFilesExported: count,
    currentIterationMiBExported: count,
    currentIterationFilesFailed: count,
  })
  .readonly();

export const autoExportRecord = z
  .object({
    kind: z.literal('auto-export'),
    name: jobName,
    properties: z
      .object({
        adminStatus: z.enum(['Enable', 'Disable']),
        /** One path prefix. */
        autoExportPrefixes: z.array(z.string()).readonly(),
        /** Not ARM's: the pause between two iterations in milliseconds. */
        pollIntervalMs: count,
        status: z
          .object({
            state: z.enum(autoExportStates),
            statusCode: z.string().exactOptional(),
            statusMessage: z.string(),
            ...counters.unwrap().shape,
            lastSuccessfulIterationCompletionTimeUTC: time.exactOptional(),
            lastStartedTimeUTC: time,
            lastCompletionTimeUTC: time.exactOptional(),
          })
          .readonly(),
      })
      .readonly(),
    /** By all iterations: its MiB are shown. */
    exportedBytes: count.exactOptional(),
  })
  .readonly();

export type AutoExportRecord = z.infer<typeof autoExportRecord>;
export type AutoExportStatus = AutoExportRecord['properties']['status'];
export type AutoExportCounters = z.infer<typeof counters>;

export const noAutoExportCounters: AutoExportCounters = {
  totalFilesExported: 0,
  totalMiBExported: 0,
  totalFilesFailed: 0,
  exportIterationCount: 0,
  currentIterationFilesDiscovered: 0,
  currentIterationMiBDiscovered: 0,
  currentIterationFilesExported: 0,
  currentIterationMiBExported: 0,
  currentIterationFilesFailed: 0,
};

export const autoExportRuns = 'Auto Export is in progress';

/** The final record: DisableFailed when the last iteration left, or may have left, files that the container lacks. */
export function endedAutoExport(
  record: AutoExportRecord,
  end: JobEnd<{ readonly firstProblem: string | undefined }>,
  at: string,
): AutoExportRecord {
  const { properties } = record;
  const { state } = properties.status;
  const status = { ...properties.status, ...autoExportEnd(end, state), lastCompletionTimeUTC: at };
  return { ...record, properties: { ...properties, status } };
}

function autoExportEnd(
  end: JobEnd<{ readonly firstProblem: string | undefined }>,
  before: AutoExportState,
): Pick<AutoExportStatus, 'state' | 'statusMessage'> & { readonly statusCode?: string } {
  switch (end.kind) {
    case 'done':
      return end.result.firstProblem === undefined
        ? { state: 'Disabled', statusMessage: 'Auto Export is disabled' }
        : {
            state: 'DisableFailed',
            statusCode: 'FilesFailed',
            statusMessage: `the last iteration could not export everything, the first: ${end.result.firstProblem}; the log of the job names all, an export job tries them again`,
          };
    case 'canceled':
      return { state: 'Disabled', statusMessage: 'Auto Export is disabled' };
    case 'failed':
      return { state: 'Failed', statusCode: end.failure.code, statusMessage: messageChain(end.failure) };
    case 'stopped':
      return {
        // Disabled says that the container has everything.
        state: before === 'Disabling' ? 'DisableFailed' : 'Failed',
        statusCode: 'Interrupted',
        statusMessage: 'the daemon ended before the last iteration was over; an export job copies the rest',
      };
  }
}
