/** What people ask of each kind of job, and the record that it begins with. */
import { UserError } from '../base/errors.js';
import { autoExportRuns, noAutoExportCounters } from './export/auto-export-record.js';
import { noProgress, startedAutoImport, type ChangeSourceKind } from './auto-import/auto-import-record.js';
import type { ConflictMode } from './import/conflict-mode.js';
import { noExportCounters } from './export/export-record.js';
import { startedImport } from './import/import-record.js';
import type { JobKind, JobRecord } from './job.js';
import { blobPrefixes } from './import/prefixes.js';

export interface ImportRequest {
  readonly name?: string | undefined;
  /** Empty: the whole container. */
  readonly prefixes?: readonly string[] | undefined;
  /** ARM's default: Fail. */
  readonly conflictResolutionMode?: ConflictMode | undefined;
  readonly maximumErrors?: number | undefined;
}

export interface ExportRequest {
  readonly name?: string | undefined;
  readonly filesystemPath?: string | undefined;
}

export interface AutoImportRequest {
  readonly name?: string | undefined;
  readonly prefixes?: readonly string[] | undefined;
  /** ARM's default: Skip. */
  readonly conflictResolutionMode?: ConflictMode | undefined;
  readonly enableDeletions?: boolean | undefined;
  /** -1, the default: any number. */
  readonly maximumErrors?: number | undefined;
  /** As chooseSource() gives them. */
  readonly changeSource: ChangeSourceKind;
  readonly changeSourceReason: string;
  readonly pollIntervalMs: number;
}

export interface AutoExportRequest {
  readonly name?: string | undefined;
  /** At most one. */
  readonly prefixes?: readonly string[] | undefined;
  readonly pollIntervalMs: number;
}

interface Requests {
  readonly import: ImportRequest;
  readonly export: ExportRequest;
  readonly 'auto-import': AutoImportRequest;
  readonly 'auto-export': AutoExportRequest;
}
export type JobRequest<Kind extends JobKind> = Requests[Kind];

/** What a request is judged by. */
export interface RequestContext {
  /** Prefixes are paths. */
  readonly hierarchical: boolean;
  readonly maxPrefixes: number;
}

type Make<Kind extends JobKind> = (
  request: Requests[Kind],
  name: string,
  startedTime: string,
  context: RequestContext,
) => JobRecord;

const make: { readonly [Kind in JobKind]: Make<Kind> } = {
  import: ({ prefixes, conflictResolutionMode = 'Fail', maximumErrors = 0 }, name, startedTime, context) => {
    const properties = {
      adminStatus: 'Active',
      importPrefixes: checkedPrefixes(prefixes, context),
      conflictResolutionMode,
      maximumErrors: checkedErrors(maximumErrors),
    } as const;
    return startedImport({ kind: 'import', name, properties }, startedTime);
  },

  export: ({ filesystemPath = '/' }, name, lastStartedTime) => ({
    kind: 'export',
    name,
    properties: {
      adminStatus: 'Active',
      filesystemPath: checkedPath(filesystemPath),
      status: {
        state: 'InProgress',
        lastStartedTime,
        percentComplete: 0,
        ...noExportCounters,
        filesExportedPerSecond: 0,
        mibExportedPerSecond: 0,
      },
    },
  }),

  'auto-import': (request, name, startedTime, context) => ({
    kind: 'auto-import',
    name,
    properties: {
      adminStatus: 'Enable',
      autoImportPrefixes: checkedPrefixes(request.prefixes, context),
      conflictResolutionMode: request.conflictResolutionMode ?? 'Skip',
      enableDeletions: request.enableDeletions ?? false,
      maximumErrors: checkedErrors(request.maximumErrors ?? -1),
      changeSource: request.changeSource,
      changeSourceReason: request.changeSourceReason,
      pollIntervalMs: checkedInterval(request.pollIntervalMs),
      status: startedAutoImport(startedTime),
    },
    progress: noProgress,
  }),

  'auto-export': ({ prefixes = [], pollIntervalMs }, name, lastStartedTimeUTC) => {
    if (prefixes.length > 1)
      throw new UserError('InvalidParameter', `an auto-export has one path prefix, not ${prefixes.length}`);
    return {
      kind: 'auto-export',
      name,
      properties: {
        adminStatus: 'Enable',
        autoExportPrefixes: [checkedPath(prefixes[0] ?? '/')],
        pollIntervalMs: checkedInterval(pollIntervalMs),
        status: {
          state: 'InProgress',
          statusMessage: autoExportRuns,
          ...noAutoExportCounters,
          // With the one that runs.
          exportIterationCount: 1,
          lastStartedTimeUTC,
        },
      },
    };
  },
};

/** The record of a job that begins. UserError `InvalidParameter` where the request makes no sense. */
export function newJob<Kind extends JobKind>(
  kind: Kind,
  request: JobRequest<Kind>,
  name: string,
  startedTime: string,
  context: RequestContext,
): JobRecord {
  return make[kind](request, name, startedTime, context);
}

function checkedPrefixes(
  prefixes: readonly string[] = [],
  { hierarchical, maxPrefixes }: RequestContext,
): readonly string[] {
  if (prefixes.length > maxPrefixes) {
    throw new UserError(
      'InvalidParameter',
      `a job has at most ${maxPrefixes} prefixes, not ${prefixes.length}; the setting import.maxPrefixes allows up to 100`,
    );
  }
  blobPrefixes(prefixes, hierarchical);
  return prefixes.length === 0 ? ['/'] : prefixes;
}

function checkedErrors(maximumErrors: number): number {
  if (Number.isInteger(maximumErrors) && maximumErrors >= -1) return maximumErrors;
  throw new UserError('InvalidParameter', `maximumErrors must be -1 or more, not ${maximumErrors}`);
}

function checkedPath(path: string): string {
  if (path.includes('\0') || path.split('/').some((part) => part === '.' || part === '..'))
    throw new UserError('InvalidParameter', `not a path below the mount: '${path}'`);
  // Slashes before the first component are the root's.
  if (/[^/]\/\//.test(path))
    throw new UserError('InvalidParameter', `a path with an empty component ('//'): '${path}'`);
  return path;
}

function checkedInterval(ms: number): number {
  if (Number.isInteger(ms) && ms >= 0) return ms;
  throw new UserError('InvalidParameter', `pollIntervalMs must be 0 or more, not ${ms}`);
}
