/** Auto-import: a full sync, then whatever changes in the container, for as long as the job is enabled. */
import type { Clock } from '../../base/clock.js';
import { crashPoint } from '../../base/crash.js';
import { BlobError, isOutage, messageChain } from '../../base/errors.js';
import { compareListed, isUnderPrefix } from '../../blob/listing-order.js';
import type { Container, ListedBlob } from '../../blob/port.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import type { Fid, FileState, NativeStore } from '../../store/inodes.js';
import type { AutoImportProgress, BlobSyncCounters } from './auto-import-record.js';
import { SourceGap, type Changes, type ChangeSource } from './change-source.js';
import { scanActions, scanAgainActions, syncActions } from '../import/conflict.js';
import type { ConflictMode } from '../import/conflict-mode.js';
import { deletedOf, deletes, deletionActions } from './deletion.js';
import { begunDeletions, Deletions, type DeletionPlan } from './deletions.js';
import { isEmpty, removeImplied } from './implied-directories.js';
import { lookAt } from './look.js';
import type { ImportDefaults } from '../import/blob-stub.js';
import { importBlobs, runImport, type MutableImportCounters } from '../import/import.js';
import { noImportCounters } from '../import/import-record.js';
import { readAhead } from '../import/read-ahead.js';
import { JobFailure } from '../job-end.js';
import type { Later } from '../import/later.js';
import type { JobLog } from '../job-log.js';

export type MutableBlobSyncCounters = { -readonly [Key in keyof BlobSyncCounters]: BlobSyncCounters[Key] };

export interface AutoImportOptions {
  readonly native: NativeStore;
  readonly container: Container;
  readonly coordinator: Pick<Coordinator, 'withBlob' | 'keepOtherNames' | 'keepRenamed' | 'disown'>;
  readonly source: ChangeSource;
  /** As blobPrefixes() gives them. */
  readonly prefixes: readonly string[];
  readonly mode: ConflictMode;
  readonly enableDeletions: boolean;
  readonly maximumErrors: number;
  readonly defaults: ImportDefaults;
  readonly clock: Clock;
  readonly pollIntervalMs: number;
  readonly progress: AutoImportProgress;
  readonly scan: MutableImportCounters;
  readonly sync: MutableBlobSyncCounters;
  readonly log: JobLog;
  readonly signal: AbortSignal;
  /** What happened, for the record; `progress` makes it durable with the counters as they are. */
  readonly onEvent: (event: AutoImportEvent, progress?: AutoImportProgress) => Promise<void>;
}

export type AutoImportEvent =
  | { readonly kind: 'scan-started' }
  | { readonly kind: 'scan-ended' }
  | { readonly kind: 'applied'; readonly newestMs?: number }
  /** Everything that was known at that time is applied, but for so many blobs whose files are in use. */
  | { readonly kind: 'polled'; readonly atMs: number; readonly busy: number }
  /** The container cannot be asked now; the job tries again. */
  | { readonly kind: 'waiting'; readonly why: string };

/** Directories whose blobs are gone, to be tried again; the oldest stay behind more. */
const maxLeft = 10_000;
/** Names that are a file here and a directory there, or the other way; the oldest stay so. */
const maxContested = 10_000;
/** The longest pause between two tries of a container that does not answer. */
const maxPauseMs = 60_000;

/** The service tells whole seconds. */
const clockStepMs = 1000;

/** As `awaited` of the progress. */
type Awaited = Map<string, number | null>;

/** Runs until the signal: rejects with its reason, or with a JobFailure. */
export async function runAutoImport(options: AutoImportOptions): Promise<never> {
  return new AutoImport(options).run();
}

class AutoImport {
  readonly #options: AutoImportOptions;
  #progress: AutoImportProgress;
  /** What a batch that was cut off was about to delete, as far as it has not come again. */
  #begun: DeletionPlan;
  /** As far as the cursor. */
  #counted: BlobSyncCounters;
  /** What the log says of blobs that wait, so that it says it once. */
  readonly #said = new Map<string, string>();

  constructor(options: AutoImportOptions) {
    this.#options = options;
    this.#progress = options.progress;
    this.#begun = options.progress.deleting;
    this.#counted = { ...options.sync };
  }

  async run(): Promise<never> {
    const { clock, pollIntervalMs, signal, log, onEvent } = this.#options;
    for (let failures = 0; ;) {
      try {
        if (this.#progress.phase === 'scan') await this.#scan();
        const atMs = clock.now();
        await this.#poll();
        failures = 0;
        await onEvent({ kind: 'polled', atMs, busy: this.#progress.busy.length });
      } catch (error) {
        signal.throwIfAborted();
        const gap = error instanceof SourceGap;
        const why = gap ? messageChain(error) : transientCause(error);
        if (why === undefined) throw asFailure(error);
        // What comes again is counted then.
        Object.assign(this.#options.sync, this.#counted);
        this.#begun = this.#progress.deleting;
        if (gap) {
          log.add({ level: 'warn', code: 'Gap', message: `${why}: a full sync follows` });
          await this.#move({ ...this.#progress, phase: 'scan', again: true, cursor: null, deleting: {} });
          continue;
        }
        failures++;
        log.add({ level: 'warn', code: 'Waiting', message: why });
        await onEvent({ kind: 'waiting', why });
      }
      await log.written();
      const pauseMs = pollIntervalMs * 2 ** Math.min(failures, 16);
      await clock.sleep(Math.min(Math.max(pollIntervalMs, maxPauseMs), pauseMs), signal);
    }
  }

  async #scan(): Promise<void> {
    const { source, scan, signal, log, clock, onEvent } = this.#options;
    Object.assign(scan, noImportCounters);
    await onEvent({ kind: 'scan-started' });
    const resumed = this.#progress.cursor !== null;
    // What was changed here since the first one began is no conflict with the version that it was changed from.
    const actions = resumed || this.#progress.again ? scanAgainActions : scanActions;
    const cursor = asJson(await source.begin(this.#progress.cursor, signal));
    await this.#move({ ...this.#progress, cursor });
    const busy = new Set(this.#progress.busy);
    const left = new Map(Object.entries(this.#progress.left));
    const contested = new Map(Object.entries(this.#progress.contested));
    await runImport({
      ...this.#options,
      actions,
      startedMs: clock.now(),
      resumed,
      counters: scan,
      // Nobody tells of what was deleted before it began.
      later: this.#importsLater(busy, contested, () => Promise.resolve(false)),
      async onPage(page) {
        for (const { name } of page) left.delete(directoryOf(name));
        await source.observe(page);
      },
    });
    this.#forgetSaid(busy);
    await log.written();
    crashPoint('auto-import.scanned');
    this.#begun = {};
    this.#progress = {
      phase: 'sync',
      again: true,
      cursor: asJson(await source.observed(cursor)),
      deleting: {},
      left: Object.fromEntries(left),
      contested: newest(contested, maxContested),
      awaited: {},
      busy: [...busy],
    };
    await onEvent({ kind: 'scan-ended' }, this.#progress);
  }

  async #poll(): Promise<void> {
    const { source, signal, onEvent } = this.#options;
    if (this.#progress.busy.length > 0) await this.#retryBusy();
    await this.#retryLeft();
    const isAwaited = Object.values(this.#progress.awaited).some((goneMs) => goneMs !== null);
    const horizon = isAwaited ? await source.horizon?.(signal) : undefined;
    // The next names are asked for while this batch is applied.
    for await (const changes of readAhead(source.poll(this.#progress.cursor, signal), 1)) {
      signal.throwIfAborted();
      const progress = await this.#apply(changes);
      crashPoint('auto-import.applied');
      this.#progress = { ...progress, cursor: asJson(changes.cursor) };
      this.#counted = { ...this.#options.sync };
      const { newestMs } = changes;
      await onEvent({ kind: 'applied', ...(newestMs !== undefined && { newestMs }) }, this.#progress);
    }
    this.#begun = {};
    await this.#retryContested(horizon?.toldMs ?? 0);
  }

  /**
   * Deletions first: what is new may need their names. Resolves behind a barrier, with what is left to do; `before` that
   * was.
   */
  async #apply(
    { present, absent }: Pick<Changes, 'present' | 'absent'>,
    before = this.#progress,
  ): Promise<AutoImportProgress> {
    const busy = new Set(before.busy);
    const left = new Map(Object.entries(before.left));
    const contested = new Map(Object.entries(before.contested));
    const awaited = new Map(Object.entries(before.awaited));
    const gone = absent.length > 0 ? await this.#delete(absent, busy, left) : [];
    for (const { name } of present) {
      left.delete(directoryOf(name));
      // Another deletion of it is told.
      awaited.delete(name);
    }
    if (present.length > 0) await this.#import(present, busy, contested, awaited);
    // Behind what is new, which keeps the directories that it lies in.
    await this.#removeImplied(gone);
    await this.#options.native.barrier();
    this.#forgetSaid(busy);
    const names = new Set([...absent, ...present.map(({ name }) => name)].map(directoryOf));
    this.#begun = Object.fromEntries(Object.entries(this.#begun).filter(([path]) => !names.has(path)));
    return {
      ...before,
      deleting: this.#begun,
      left: newest(left, maxLeft),
      contested: newest(contested, maxContested),
      awaited: Object.fromEntries(awaited),
      busy: [...busy],
    };
  }

  #forgetSaid(busy: ReadonlySet<string>): void {
    for (const blob of this.#said.keys()) if (!busy.has(blob)) this.#said.delete(blob);
  }

  async #import(
    present: readonly ListedBlob[],
    busy: Set<string>,
    contested: Map<string, Fid>,
    awaited: Awaited,
  ): Promise<void> {
    const { sync, clock, container } = this.#options;
    const counters: MutableImportCounters = { ...sync, totalBlobsWalked: 0 };
    try {
      const { hierarchical } = container.namespace;
      const blobs = present.toSorted((a, b) => compareListed(a.name, b.name, hierarchical));
      await importBlobs(
        {
          ...this.#options,
          actions: syncActions,
          startedMs: clock.now(),
          resumed: false,
          counters,
          later: this.#importsLater(busy, contested, (path, state) => this.#isGoing(path, state, awaited)),
        },
        blobs,
      );
    } finally {
      const { totalBlobsWalked: _, ...counted } = counters;
      Object.assign(sync, counted);
    }
  }

  /** Resolves with the paths that no blob has any more, gone or not. */
  async #delete(
    absent: readonly string[],
    busy: Set<string>,
    left: Map<string, Fid>,
  ): Promise<readonly string[]> {
    const deletions = this.#deletions(busy, left);
    const planned = await deletions.plan(absent, this.#begun);
    const deleting = begunDeletions(planned);
    if (Object.keys(deleting).length > 0) {
      // A file that somebody makes under a name after it was deleted must not be deleted when this batch comes again.
      await this.#move({ ...this.#progress, deleting: { ...this.#begun, ...deleting } });
      crashPoint('auto-import.planned');
    }
    await deletions.run(planned);
    // What was in them may be gone now.
    const emptied = await deletions.emptied(left);
    return [...absent.map(directoryOf), ...emptied];
  }

  async #removeImplied(gone: readonly string[]): Promise<void> {
    if (this.#options.enableDeletions && gone.length > 0) await removeImplied(this.#options, gone);
  }

  #deletions(busy: Set<string>, left: Map<string, Fid>): Deletions {
    const { sync, log, maximumErrors } = this.#options;
    return new Deletions({
      ...this.#options,
      counters: sync,
      later: this.#later(busy),
      onLeft: (path, fid) => left.set(path, fid),
      onError: (blob, error) => {
        sync.totalErrors++;
        const message = `the deletion of the blob '${blob}' could not be followed: ${messageChain(error)}`;
        log.add({ level: 'error', blob, code: 'Deletion', message });
        if (maximumErrors !== -1 && sync.totalErrors > maximumErrors)
          throw new JobFailure('TooManyErrors', message);
      },
    });
  }

  /** Directories that were not empty when their blobs were deleted. */
  async #retryLeft(): Promise<void> {
    const left = new Map(Object.entries(this.#progress.left));
    const emptied = await this.#deletions(new Set(), left).emptied(left);
    if (emptied.length === 0) return;
    await this.#options.native.barrier();
    // They are counted, and what is above them is not done: only that comes again.
    await this.#move(this.#progress);
    await this.#removeImplied(emptied);
    await this.#options.native.barrier();
    await this.#move({ ...this.#progress, left: Object.fromEntries(left) });
  }

  /** What had to wait, by what the container has now. */
  async #retryBusy(): Promise<void> {
    const { container, signal } = this.#options;
    const found = await lookAt(container, this.#progress.busy, signal);
    await this.#move(await this.#apply(found, { ...this.#progress, busy: [] }));
  }

  /**
   * Names that what was there has given up, or does not give up because no deletion came that had happened before
   * `toldMs`: by what the container has of them now.
   */
  async #retryContested(toldMs: number): Promise<void> {
    const { native, signal } = this.#options;
    const contested = Object.entries(this.#progress.contested);
    const states = await native.lookup(contested.map(([path]) => path));
    for (const [at, [path, fid]] of contested.entries()) {
      signal.throwIfAborted();
      const state = states[at];
      const stays = state?.fid === fid && !(state.type === 'directory' && (await isEmpty(native, path)));
      // Not what every object has: files may be called constructor.
      const since = this.#progress.awaited;
      const goneMs = (Object.hasOwn(since, path) ? since[path] : null) ?? Infinity;
      if (stays && goneMs >= toldMs) continue;
      const { [path]: _contested, ...contested } = this.#progress.contested;
      const { [path]: _awaited, ...awaited } = this.#progress.awaited;
      let progress: AutoImportProgress = stays
        ? { ...this.#progress, awaited: { ...awaited, [path]: null } }
        : { ...this.#progress, contested, awaited };
      for await (const present of this.#of(path))
        if (present.length > 0) progress = await this.#apply({ present, absent: [] }, progress);
      await this.#move(progress);
    }
  }

  /** The blob of a name, together with the first of those below it. */
  async *#of(path: string): AsyncGenerator<readonly ListedBlob[], void, undefined> {
    const { container, prefixes, signal } = this.#options;
    const { hierarchical } = container.namespace;
    const isWanted = ({ name }: ListedBlob): boolean =>
      prefixes.some((prefix) => isUnderPrefix(name, prefix, hierarchical));
    // There, it is the first that is listed.
    let itself = hierarchical ? [] : (await lookAt(container, [path], signal)).present;
    for await (const page of container.list({ prefix: hierarchical ? path : `${path}/`, signal })) {
      yield [...itself, ...page].filter(isWanted);
      itself = [];
    }
    yield itself.filter(isWanted);
  }

  /**
   * Whether a deletion may still be told of the blob that a file comes from, and takes it. Of one from before the job
   * began nobody tells: when the source has told all of the time when the blob was seen to be gone, none comes.
   */
  async #isGoing(path: string, state: FileState, awaited: Awaited): Promise<boolean> {
    const { source, mode, container, signal } = this.#options;
    const goneMs = awaited.get(path);
    if (source.horizon === undefined || goneMs === null) return false;
    const what = deletedOf(state, path);
    if (what === undefined || state.copy?.blob !== path || !deletes(deletionActions[what][mode]))
      return false;
    if ((await lookAt(container, [path], signal)).absent.length === 0) return false;
    if (goneMs === undefined) awaited.set(path, (await source.horizon(signal)).nowMs + clockStepMs);
    return true;
  }

  /** Takes what has to wait, and says so the first time. */
  #later(busy: Set<string>): Omit<Later, 'contested'> {
    const waited = new Set(this.#progress.busy);
    const said = new Set(waited);
    return {
      has: (blob) => busy.has(blob),
      said: (blob, line) => {
        const before = waited.has(blob) && this.#said.get(blob) === line;
        this.#said.set(blob, line);
        return before;
      },
      add: (blob, why) => {
        busy.add(blob);
        if (said.has(blob)) return;
        said.add(blob);
        this.#options.log.add({ level: 'info', blob, code: 'Busy', message: `${why}: tried again later` });
      },
    };
  }

  /** The same for imports, which names may be contested for. */
  #importsLater(
    busy: Set<string>,
    contested: Map<string, Fid>,
    isGoing: (path: string, state: FileState) => Promise<boolean>,
  ): Later {
    const going = new Map<string, Promise<boolean>>();
    return {
      ...this.#later(busy),
      contested: (path, state) => {
        if (!this.#options.enableDeletions) return Promise.resolve(false);
        contested.set(path, state.fid);
        const known = going.get(path) ?? isGoing(path, state);
        going.set(path, known);
        return known;
      },
    };
  }

  async #move(progress: AutoImportProgress): Promise<void> {
    this.#progress = progress;
    this.#counted = { ...this.#options.sync };
    await this.#options.onEvent({ kind: 'applied' }, progress);
  }
}

/** Why a container cannot be asked now; undefined: trying again does not help. */
function transientCause(error: unknown): string | undefined {
  const cause = error instanceof JobFailure ? error.cause : error;
  return isOutage(cause) ? messageChain(cause) : undefined;
}

/** The error as the end of the job. */
function asFailure(error: unknown): unknown {
  if (!(error instanceof BlobError)) return error;
  return new JobFailure('SyncFailed', `the container could not be read: ${messageChain(error)}`, {
    cause: error,
  });
}

function newest(map: ReadonlyMap<string, Fid>, count: number): Readonly<Record<string, Fid>> {
  return Object.fromEntries([...map].slice(-count));
}

/** The path of a directory's blob, with or without the '/' of a marker. */
function directoryOf(blob: string): string {
  return blob.replace(/\/$/, '');
}

/** A cursor as it will come back from the record. */
function asJson(cursor: unknown): AutoImportProgress['cursor'] {
  return JSON.parse(JSON.stringify(cursor)) as AutoImportProgress['cursor'];
}
