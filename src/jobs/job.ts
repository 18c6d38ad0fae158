/** Job records, named as ARM names them (importJobs, archiveStatus), and the states a job goes through. */

/** How an import treats what is in its way, in ARM's words. */
export const conflictModes = ['Fail', 'Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const;
export type ConflictMode = (typeof conflictModes)[number];

export const importStates = [
  'InProgress',
  'Cancelling',
  'Canceled',
  'Completed',
  'CompletedPartial',
  'Failed',
] as const;
export type ImportState = (typeof importStates)[number];
export const exportStates = ['InProgress', 'Cancelling', 'Canceled', 'Completed', 'Failed'] as const;
export type ExportState = (typeof exportStates)[number];
export type JobState = ImportState | ExportState;

export interface ImportCounters {
  readonly totalBlobsWalked: number;
  readonly totalBlobsImported: number;
  readonly importedFiles: number;
  readonly importedDirectories: number;
  readonly importedSymlinks: number;
  readonly preexistingFiles: number;
  readonly preexistingDirectories: number;
  readonly preexistingSymlinks: number;
  readonly totalErrors: number;
  readonly totalConflicts: number;
}

export interface ImportStatus extends ImportCounters {
  readonly state: ImportState;
  readonly statusMessage: string;
  /** ISO 8601. */
  readonly lastStartedTime: string;
  readonly lastCompletionTime?: string;
  /** Present once the job is over. */
  readonly blobsWalkedPerSecond?: number;
  readonly blobsImportedPerSecond?: number;
}

export interface ImportProperties {
  readonly adminStatus: 'Active' | 'Cancel';
  readonly importPrefixes: readonly string[];
  readonly conflictResolutionMode: ConflictMode;
  /** Errors that the job tolerates; -1: any number. */
  readonly maximumErrors: number;
  readonly status: ImportStatus;
}

export interface ExportCounters {
  /** Files and symlinks that were new or changed when the job met them. */
  readonly filesDiscovered: number;
  readonly totalFilesExported: number;
  readonly totalBytesExported: number;
  readonly totalMiBExported: number;
  readonly totalFilesFailed: number;
  /** Special files, files marked never_archive, and further names of a file that is exported. */
  readonly totalFilesSkipped: number;
  readonly totalDirectoriesExported: number;
}

export interface ExportStatus extends ExportCounters {
  readonly state: ExportState;
  /** ISO 8601. */
  readonly lastStartedTime: string;
  readonly lastCompletionTime?: string;
  readonly percentComplete: number;
  readonly errorCode?: string;
  readonly errorMessage?: string;
}

export interface ExportProperties {
  readonly adminStatus: 'Active' | 'Cancel';
  /** Everything whose path begins with it; `/` for all. */
  readonly filesystemPath: string;
  readonly status: ExportStatus;
}

export type ImportRecord = {
  readonly kind: 'import';
  readonly name: string;
  readonly properties: ImportProperties;
};
export type ExportRecord = {
  readonly kind: 'export';
  readonly name: string;
  readonly properties: ExportProperties;
};
export type JobRecord = ImportRecord | ExportRecord;
export type JobKind = JobRecord['kind'];

/** ARM's rule for names of jobs. */
export const jobNamePattern = /^[0-9a-zA-Z][-0-9a-zA-Z_]{0,78}[0-9a-zA-Z]$/;

/** The job that ARM shows for the import at creation. */
export const firstImportName = 'importJobInitialAmlfsPut';

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

export const exportTransitions: Readonly<Record<ExportState, readonly ExportState[]>> = {
  InProgress: ['Cancelling', 'Completed', 'Failed'],
  Cancelling: ['Canceled', 'Failed'],
  Canceled: [],
  Completed: [],
  Failed: [],
};

export function stateOf(record: JobRecord): JobState {
  return record.properties.status.state;
}

/** Nothing will change any more. */
export function isFinal(record: JobRecord): boolean {
  return record.kind === 'import'
    ? importTransitions[record.properties.status.state].length === 0
    : exportTransitions[record.properties.status.state].length === 0;
}

/** The mode that a word names, in ARM's spelling or the command line's (`overwrite-always`), in any case. */
export function conflictModeOf(word: string): ConflictMode | undefined {
  const plain = word.toLowerCase().replaceAll('-', '');
  const alias = plain === 'overwritedirty' ? 'overwriteifdirty' : plain;
  return conflictModes.find((mode) => mode.toLowerCase() === alias);
}

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

export const noExportCounters: ExportCounters = {
  filesDiscovered: 0,
  totalFilesExported: 0,
  totalBytesExported: 0,
  totalMiBExported: 0,
  totalFilesFailed: 0,
  totalFilesSkipped: 0,
  totalDirectoriesExported: 0,
};

/** A job cannot go on; the message is what its record says. */
export class JobFailure extends Error {
  override readonly name = 'JobFailure';
  /** ARM's errorCode. */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
