/** What the command line and the daemon say to each other over STORE/daemon.sock, as JSON. */

/** A job as the daemon shows it: `properties` has the names of Azure Managed Lustre's REST API. */
export interface JobView {
  readonly kind: string;
  readonly name: string;
  readonly properties: { readonly status: { readonly state: string } };
  /** While the job is not over, and has to wait for that. */
  readonly storageOutage?: OutageView;
}

/** The storage has not answered any request since then; they are tried again. */
export interface OutageView {
  readonly since: string;
  readonly message: string;
}

/** What others see of a job's record: not what only the job itself needs. */
export function jobView({ kind, name, properties, storageOutage }: JobView): JobView {
  return { kind, name, properties, ...(storageOutage && { storageOutage }) };
}

export interface StatusReport {
  readonly version: string;
  readonly pid: number;
  readonly startedAt: string;
  readonly mountPoint: string;
  readonly store: string;
  /** Account and container. */
  readonly container: string;
  readonly loggingContainer: string | null;
  /** How the account keeps names, and who said so. Daemons that were started before an update may lack it. */
  readonly namespace?: {
    readonly hierarchical: boolean;
    readonly source: 'account' | 'setting' | 'nobody';
  };
  readonly frontEnd: string;
  readonly passthrough: boolean;
  readonly readOnly: boolean;
  /** Unmounted lazily, while files were open that are not closed yet. */
  readonly lingering?: boolean;
  /** Entries by type and files by state; names ending in `Bytes` are bytes. */
  readonly census: Readonly<Record<string, number>>;
  readonly runningJob: JobView | null;
  /** The job that ended last, in this daemon's life or before. Daemons that were started before an update may lack it. */
  readonly lastJob?: JobView | null;
  /** The newest failure in this daemon's life: of a transfer, of a job, or any other error in its log. */
  readonly lastError: { readonly time: string; readonly message: string } | null;
  readonly hsm: { readonly control?: string };
  readonly heldRequests: number;
  /**
   * What the front end holds (`nodes` that the kernel knows, `handles`, `backings`, `listings`, `directoryFds`, answers
   * that are `queued`), and the `requests.*` that it has answered. Daemons that were started before an update may lack it.
   */
  readonly counters?: Readonly<Record<string, number>>;
  /** Daemons that were started before an update may lack it. */
  readonly space?: SpaceView;
  readonly storageOutage?: OutageView;
}

/** The disk of the store, and what the space manager has released in this daemon's life. */
export interface SpaceView {
  readonly usedPercent: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  /** Promised to restores that have not taken it yet. */
  readonly reservedBytes: number;
  /** Percent; 0: off. */
  readonly highWatermark: number;
  readonly lowWatermark: number;
  readonly releasedFiles: number;
  readonly releasedBytes: number;
  /** Above the high watermark, and too little is left that can be released. */
  readonly full: boolean;
}

/** Files whose content the container does not have. */
export interface DirtyFiles {
  readonly count: number;
  /** The first ones in alphabetical order. U+FFFD stands for what is not UTF-8. */
  readonly first: readonly string[];
  /** The same for people, as pathText has them: unambiguous. Daemons that were started before an update may lack it. */
  readonly firstText?: readonly string[];
}

export interface UnmountReport {
  readonly dirty: DirtyFiles;
  /** Lazy only: files are still open, and the daemon serves them until they are closed. */
  readonly lingering: boolean;
  /** The job that was running, and ends with the daemon. Daemons that were started before an update may lack it. */
  readonly stoppedJob?: JobView | null;
}

/** Parameters of the HSM coordinator, by lctl's names. */
export interface HsmParameterList {
  readonly value: readonly { readonly name: string; readonly value: string }[];
}

/** A record of the changelog; FIDs in Lustre's notation, names as pathText has them. */
export interface ChangelogRecordView {
  readonly index: number;
  readonly type: string;
  readonly flags: number;
  /** Nanoseconds since the epoch, in decimal digits. */
  readonly time: string;
  readonly target: string;
  readonly parent?: string;
  readonly name?: string;
  readonly source?: string;
  readonly sourceParent?: string;
  readonly sourceName?: string;
  /** The line of `lfs changelog`. */
  readonly text: string;
}

export interface ChangelogView {
  readonly value: readonly ChangelogRecordView[];
  /** Where to go on; absent at the end. */
  readonly next?: number;
  /** Records of the range that were not cleared and are gone: there were too many. */
  readonly missing: number;
}

export interface ChangelogReaderView {
  readonly id: string;
  /** It wants no record up to this one. */
  readonly cleared: number;
  /** Records that it had not cleared and that are gone. */
  readonly missing: number;
}

export interface ChangelogReadersView {
  /** Of the last record. */
  readonly currentIndex: number;
  readonly value: readonly ChangelogReaderView[];
}

/** What `hydrate` or `release` of many files has come to. */
export interface BulkView {
  readonly verb: 'hydrate' | 'release';
  readonly dryRun: boolean;
  /** `Stopped`: it ended before it was through. */
  readonly state: 'Counting' | 'InProgress' | 'Done' | 'Stopped';
  /** To be done, as counted before it began; while it counts, so far. */
  readonly total: { readonly files: number; readonly bytes: number };
  readonly done: { readonly files: number; readonly bytes: number };
  /** Bytes that have come of files that are not whole yet. */
  readonly movedBytes: number;
  /** Files for which nothing was to do. */
  readonly there: number;
  /** Files that were left alone, by reason. */
  readonly kept: Readonly<Record<string, number>>;
  readonly failed: number;
  /** The first ones; `path` as pathText has it, relative to the mount's root. */
  readonly failures: readonly { readonly path: string; readonly cause: string }[];
  /** Why it stopped. */
  readonly error?: { readonly code: string; readonly message: string };
}

export interface ErrorEnvelope {
  readonly error: { readonly code: string; readonly message: string };
}

/** States in which a job stays. */
export const finalStates: readonly string[] = [
  'Completed',
  'CompletedPartial',
  'Failed',
  'Canceled',
  'Disabled',
  'DisableFailed',
];

/** The job that the first mount starts, named as Azure names it. */
export const firstImportName = 'importJobInitialAmlfsPut';

export const socketName = 'daemon.sock';
