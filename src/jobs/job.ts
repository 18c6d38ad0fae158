/** Jobs of every kind: their records and the states these go through. */
import { z } from 'zod';
import { autoExportRecord, autoExportTransitions } from './export/auto-export-record.js';
import { autoImportRecord, autoImportTransitions } from './auto-import/auto-import-record.js';
import { exportRecord, exportTransitions } from './export/export-record.js';
import { importRecord, importTransitions } from './import/import-record.js';

export const jobRecord = z.discriminatedUnion('kind', [
  importRecord.unwrap(),
  exportRecord.unwrap(),
  autoImportRecord.unwrap(),
  autoExportRecord.unwrap(),
]);
export type JobRecord = Readonly<z.infer<typeof jobRecord>>;
export type JobKind = JobRecord['kind'];
export type JobState = JobRecord['properties']['status']['state'];
export type RecordOf<Kind extends JobKind> = Extract<JobRecord, { readonly kind: Kind }>;

/** State -> what may follow it. */
export const transitions: Readonly<Record<JobKind, Readonly<Record<string, readonly JobState[]>>>> = {
  import: importTransitions,
  export: exportTransitions,
  'auto-import': autoImportTransitions,
  'auto-export': autoExportTransitions,
};

export function stateOf(record: JobRecord): JobState {
  return record.properties.status.state;
}

/** Nothing will change any more. */
export function isFinal(record: JobRecord): boolean {
  return transitions[record.kind][stateOf(record)]?.length === 0;
}

/** When it was started, ISO 8601. */
export function startOf(record: JobRecord): string {
  return isAuto(record)
    ? record.properties.status.lastStartedTimeUTC
    : record.properties.status.lastStartedTime;
}

/** When it was over, ISO 8601; undefined: it is not. */
export function endOf(record: JobRecord): string | undefined {
  return isAuto(record)
    ? record.properties.status.lastCompletionTimeUTC
    : record.properties.status.lastCompletionTime;
}

/** It goes on until somebody disables it. */
export function isAuto(record: JobRecord): record is RecordOf<'auto-import' | 'auto-export'> {
  return record.kind === 'auto-import' || record.kind === 'auto-export';
}
