/** Records of import jobs, in ARM's words (importJobs, amlfs 1.4), and how an end shows in them. */
import { z } from 'zod';
import { messageChain } from '../../base/errors.js';
import { conflictModes } from './conflict-mode.js';
import type { JobEnd } from '../job-end.js';
import { count, importedCounters, jobName, perSecond, time } from '../record-fields.js';

export const importStates = [
  'InProgress',
  'Cancelling',
  'Canceled',
  'Completed',
  'CompletedPartial',
  'Failed',
] as const;
export type ImportState = (typeof importStates)[number];

/** State -> what may follow it. A final state is followed by nothing. */
export const importTransitions: Readonly<Record<ImportState, readonly ImportState[]>> = {
  // A restarted import begins again.
  InProgress: ['InProgress', 'Cancelling', 'Completed', 'CompletedPartial', 'Failed'],
  Cancelling: ['Canceled', 'Failed'],
  Canceled: [],
  Completed: [],
  CompletedPartial: [],
  Failed: [],
};

const counters = z.object({ totalBlobsWalked: count, ...importedCounters }).readonly();

export const importRecord = z
  .object({
    kind: z.literal('import'),
    name: jobName,
    properties: z
      .object({
        adminStatus: z.enum(['Active', 'Cancel']),
        importPrefixes: z.array(z.string()).readonly(),
        conflictResolutionMode: z.enum(conflictModes),
        /** Errors that the job tolerates; -1: any number. */
        maximumErrors: z.int(),
        status: z
          .object({
            state: z.enum(importStates),
            statusMessage: z.string(),
            lastStartedTime: time,
            lastCompletionTime: time.exactOptional(),
            /** Present once the job is over. */
            blobsWalkedPerSecond: count.exactOptional(),
            blobsImportedPerSecond: count.exactOptional(),
            ...counters.unwrap().shape,
          })
          .readonly(),
      })
      .readonly(),
  })
  .readonly();

export type ImportRecord = z.infer<typeof importRecord>;
export type ImportStatus = ImportRecord['properties']['status'];
export type ImportCounters = z.infer<typeof counters>;

export const noImportCounters: ImportCounters = {
  totalBlobsWalked: 0,
  totalBlobsImported: 0,
  importedFiles: 0,
  importedDirectories: 0,
  importedSymlinks: 0,
  preexistingFiles: 0,
  preexistingDirectories: 0,
  preexistingSymlinks: 0,
  totalErrors: 0,
  totalConflicts: 0,
};

/** Whether an import brought everything in. */
export type ImportResult = {
  readonly state: 'Completed' | 'CompletedPartial';
  /** Why a blob was not imported, of the first one. */
  readonly firstProblem: string | undefined;
};

/** The record of an import that begins, or begins again. */
export function startedImport(
  record: Omit<ImportRecord, 'properties'> & {
    readonly properties: Omit<ImportRecord['properties'], 'status'>;
  },
  lastStartedTime: string,
): ImportRecord {
  const status = {
    ...noImportCounters,
    state: 'InProgress',
    statusMessage: 'Import job is running',
    lastStartedTime,
  } as const;
  return { ...record, properties: { ...record.properties, status } };
}

/** The final record of an import. */
export function endedImport(record: ImportRecord, end: JobEnd<ImportResult>, at: string): ImportRecord {
  const { status } = record.properties;
  return {
    ...record,
    properties: {
      ...record.properties,
      status: {
        ...status,
        ...importEnd(end),
        lastCompletionTime: at,
        blobsWalkedPerSecond: perSecond(status.totalBlobsWalked, status.lastStartedTime, at),
        blobsImportedPerSecond: perSecond(status.totalBlobsImported, status.lastStartedTime, at),
      },
    },
  };
}

function importEnd(end: JobEnd<ImportResult>): Pick<ImportStatus, 'state' | 'statusMessage'> {
  switch (end.kind) {
    case 'done':
      return end.result.state === 'Completed'
        ? { state: 'Completed', statusMessage: 'Import job completed successfully' }
        : {
            state: 'CompletedPartial',
            statusMessage: `some blobs were not imported, the first: ${end.result.firstProblem ?? '?'}; the log of the job names all of them`,
          };
    case 'failed':
      return { state: 'Failed', statusMessage: messageChain(end.failure) };
    case 'canceled':
      return { state: 'Canceled', statusMessage: 'Import job was canceled' };
    case 'stopped':
      return { state: 'Failed', statusMessage: 'the daemon was stopped while the job ran' };
  }
}
