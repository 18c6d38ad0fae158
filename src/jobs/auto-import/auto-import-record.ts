/** Records of auto-import jobs, in ARM's words (autoImportJobs, amlfs 1.4), and how an end shows in them. */
import { z } from 'zod';
import { messageChain } from '../../base/errors.js';
import type { Fid } from '../../store/inodes.js';
import { conflictModes } from '../import/conflict-mode.js';
import { noImportCounters } from '../import/import-record.js';
import type { JobEnd } from '../job-end.js';
import { count, importedCounters, jobName, time } from '../record-fields.js';

export const autoImportStates = ['InProgress', 'Disabling', 'Disabled', 'Failed'] as const;
export type AutoImportState = (typeof autoImportStates)[number];

/** State -> what may follow it. A final state is followed by nothing. */
export const autoImportTransitions: Readonly<Record<AutoImportState, readonly AutoImportState[]>> = {
  // A daemon that starts again goes on with it.
  InProgress: ['InProgress', 'Disabling', 'Failed'],
  Disabling: ['Disabled', 'Failed'],
  Disabled: [],
  Failed: [],
};

/** How auto-import learns of changes. */
export const changeSources = ['feed', 'listing'] as const;
export type ChangeSourceKind = (typeof changeSources)[number];

const scanCounters = z.object({ totalBlobsWalked: count, ...importedCounters }).readonly();
const syncCounters = z.object({ ...importedCounters, deletions: count }).readonly();

const blobSyncEvents = z
  .object({
    ...syncCounters.unwrap().shape,
    rateOfBlobImport: count,
    lastChangeFeedEventConsumedTime: time.exactOptional(),
    lastTimeFullySynchronized: time.exactOptional(),
  })
  .readonly();

const fids = z
  .record(
    z.string(),
    z.custom<Fid>((fid) => typeof fid === 'string'),
  )
  .readonly();

/** How far the job has come; written in one step with the counters that belong to it. */
const progress = z
  .object({
    phase: z.enum(['scan', 'sync']),
    /** A full sync had begun before the one that runs or is to come. */
    again: z.boolean().default(false),
    /** The change source's; null before it has begun. */
    cursor: z.json(),
    /** Path -> FID of what the batch behind the cursor was about to delete. */
    deleting: fids,
    /** Path -> FID of the directories whose blobs are gone and in which something is left. */
    left: fids,
    /** Path -> FID of what keeps blobs of that name, or below it, from being imported. */
    contested: fids.default({}),
    /** Path -> when the blob of a contested file was seen to be gone, ms by the service's clock; null: its deletion never came. */
    awaited: z.record(z.string(), z.number().nullable()).readonly().default({}),
    /** Blobs whose changes wait for those who have the files open. */
    busy: z.array(z.string()).readonly(),
  })
  .readonly();

export const autoImportRecord = z
  .object({
    kind: z.literal('auto-import'),
    name: jobName,
    properties: z
      .object({
        adminStatus: z.enum(['Enable', 'Disable']),
        autoImportPrefixes: z.array(z.string()).readonly(),
        conflictResolutionMode: z.enum(conflictModes),
        enableDeletions: z.boolean(),
        /** Errors that the job tolerates; -1: any number. */
        maximumErrors: z.int(),
        /** Not ARM's: where changes come from and why, and the pause between two looks in milliseconds. */
        changeSource: z.enum(changeSources),
        changeSourceReason: z.string().default('no other source was known'),
        pollIntervalMs: count,
        status: z
          .object({
            state: z.enum(autoImportStates),
            statusCode: z.string().exactOptional(),
            statusMessage: z.string(),
            scanStartTime: time.exactOptional(),
            scanEndTime: time.exactOptional(),
            ...scanCounters.unwrap().shape,
            rateOfBlobWalk: count,
            rateOfBlobImport: count,
            blobSyncEvents,
            lastStartedTimeUTC: time,
            lastCompletionTimeUTC: time.exactOptional(),
          })
          .readonly(),
      })
      .readonly(),
    progress,
  })
  .readonly();

export type AutoImportRecord = z.infer<typeof autoImportRecord>;
export type AutoImportStatus = AutoImportRecord['properties']['status'];
export type AutoImportProgress = z.infer<typeof progress>;
export type BlobSyncEvents = z.infer<typeof blobSyncEvents>;
export type BlobSyncCounters = z.infer<typeof syncCounters>;

const { totalBlobsWalked: _, ...noSyncedCounters } = noImportCounters;
export const noBlobSyncCounters: BlobSyncCounters = { ...noSyncedCounters, deletions: 0 };

export const noProgress: AutoImportProgress = {
  phase: 'scan',
  again: false,
  cursor: null,
  deleting: {},
  left: {},
  contested: {},
  awaited: {},
  busy: [],
};

/** The status of a job that begins: every counter is there from the start (amlfs 1.3). */
export function startedAutoImport(lastStartedTimeUTC: string): AutoImportStatus {
  return {
    state: 'InProgress',
    statusMessage: 'Auto-import: the full sync begins',
    ...noImportCounters,
    rateOfBlobWalk: 0,
    rateOfBlobImport: 0,
    blobSyncEvents: { ...noBlobSyncCounters, rateOfBlobImport: 0 },
    lastStartedTimeUTC,
  };
}

/** The final record. */
export function endedAutoImport(record: AutoImportRecord, end: JobEnd<never>, at: string): AutoImportRecord {
  const { properties } = record;
  return {
    ...record,
    properties: {
      ...properties,
      status: { ...properties.status, ...autoImportEnd(end), lastCompletionTimeUTC: at },
    },
  };
}

function autoImportEnd(
  end: JobEnd<never>,
): Pick<AutoImportStatus, 'state' | 'statusMessage'> & { readonly statusCode?: string } {
  switch (end.kind) {
    case 'done':
      return end.result;
    case 'failed':
      return { state: 'Failed', statusCode: end.failure.code, statusMessage: messageChain(end.failure) };
    case 'canceled':
      return { state: 'Disabled', statusMessage: 'Auto-import is disabled' };
    case 'stopped':
      return { state: 'Failed', statusCode: 'Interrupted', statusMessage: 'the daemon was stopped' };
  }
}
