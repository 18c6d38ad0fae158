/** What the control API needs of the daemon; daemon/control.ts is it. */
import type {
  BulkView,
  ChangelogReadersView,
  ChangelogReaderView,
  ChangelogView,
  DirtyFiles,
  HsmParameterList,
  JobView,
  StatusReport,
  UnmountReport,
} from '../base/control-api.js';
import type { HydrateRequest, ReleaseRequest } from '../hsm/bulk.js';

export interface ImportRequest {
  readonly name?: string;
  readonly prefixes: readonly string[];
  /** Absent: the daemon's choice, as for the next one. */
  readonly conflictResolutionMode?: 'Fail' | 'Skip' | 'OverwriteIfDirty' | 'OverwriteAlways';
  readonly maximumErrors?: number;
}

export interface ExportRequest {
  readonly name?: string;
  readonly filesystemPath: string;
}

export interface AutoImportRequest extends ImportRequest {
  readonly enableDeletions: boolean;
  /** Absent: the daemon's choice. */
  readonly changeSource?: 'feed' | 'listing';
  readonly pollIntervalMs: number;
}

export interface AutoExportRequest {
  readonly name?: string;
  readonly prefixes: readonly string[];
  readonly pollIntervalMs: number;
}

export type JobKind = 'import' | 'export' | 'auto-import' | 'auto-export';

export type HsmVerb = 'state' | 'archive' | 'restore' | 'release';

export interface Jobs {
  createImport(request: ImportRequest): Promise<JobView>;
  createExport(request: ExportRequest): Promise<JobView>;
  createAutoImport(request: AutoImportRequest): Promise<JobView>;
  createAutoExport(request: AutoExportRequest): Promise<JobView>;
  list(kind?: JobKind): readonly JobView[];
  /** Throws a UserError NotFound. */
  get(name: string): JobView;
  cancel(name: string): Promise<void>;
  /** Of a job that is over. */
  delete(name: string): Promise<void>;
  /** The record now and after every change, until it is final. */
  watch(name: string): AsyncIterable<JobView>;
}

export interface ChangelogControl {
  /** From `start` to `end`, at most so many as are given. */
  read(range: {
    readonly start: number;
    readonly end: number;
    readonly limit: number;
  }): Promise<ChangelogView>;
  readers(): Promise<ChangelogReadersView>;
  register(): Promise<ChangelogReaderView>;
  /** Rejects with NotFound. */
  deregister(id: string): Promise<void>;
  /** 0: everything. `missing`: before it. Rejects with NotFound, InvalidParameter. */
  clear(id: string, end: number): Promise<ChangelogReaderView>;
}

export interface Control {
  readonly jobs: Jobs;
  readonly changelog: ChangelogControl;
  status(): Promise<StatusReport>;
  dirty(limit: number): Promise<DirtyFiles>;
  /** Rejects with a UserError Busy while files are open, unless lazy. The daemon ends after `answered`. */
  unmount(lazy: boolean): Promise<UnmountReport>;
  /** The answer of an unmount has been sent, or nobody is there to read it. */
  answered(): void;
  /** Rejects with ENOENT for a pattern that names nothing. */
  parameters(patterns: readonly string[]): HsmParameterList;
  /** In order, up to the first that is refused: EINVAL, EACCES, ENOENT. */
  setParameters(
    assignments: readonly { readonly pattern: string; readonly value: string }[],
    persistent: boolean,
  ): Promise<HsmParameterList>;
  /** What it has come to, until it is over; whoever stops listening stops it. Rejects when it is refused. */
  hydrate(request: HydrateRequest): Promise<AsyncIterable<BulkView>>;
  release(request: ReleaseRequest): Promise<AsyncIterable<BulkView>>;
  /** On a path relative to the mount's root. */
  hsm(verb: HsmVerb, path: string): Promise<unknown>;
}
