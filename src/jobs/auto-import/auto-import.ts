/** Auto-import: a full sync, then whatever changes in the container, for as long as the job is enabled. */
import type { Clock } from '../../base/clock.js';
import { BlobError, messageChain } from '../../base/errors.js';
import type { Container } from '../../blob/port.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import type { NativeStore } from '../../store/inodes.js';
import type { AutoImportProgress, BlobSyncCounters } from './auto-import-record.js';
import { SourceGap, type Changes, type ChangeSource } from './change-source.js';
import { scanActions, syncActions } from '../import/conflict.js';
import type { ConflictMode } from '../import/conflict-mode.js';
import { Deletions } from './deletions.js';
import { importBlobs, runImport, type ImportDefaults, type MutableImportCounters } from '../import/import.js';
import { noImportCounters } from '../import/import-record.js';
import { JobFailure } from '../job-end.js';
import type { JobLog } from '../job-log.js';

export type MutableBlobSyncCounters = { -readonly [Key in keyof BlobSyncCounters]: BlobSyncCounters[Key] };

export interface AutoImportOptions {
  readonly native: NativeStore;
  readonly container: Container;
  readonly coordinator: Pick<Coordinator, 'withBlob'>;
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
  /** Everything that was known at that time is applied. */
  | { readonly kind: 'synchronized'; readonly atMs: number }
  /** The container cannot be asked now; the job tries again. */
  | { readonly kind: 'waiting'; readonly why: string };

/** The longest pause between two tries of a container that does not answer. */
const maxPauseMs = 60_000;

/** Runs until the signal: rejects with its reason, or with a JobFailure. */
export async function runAutoImport(options: AutoImportOptions): Promise<never> {
  return new AutoImport(options).run();
}

class AutoImport {
  readonly #options: AutoImportOptions;
  #progress: AutoImportProgress;
  /** The batch behind the cursor may have been begun by a daemon that died. */
  #again = true;
  /** As far as the cursor. */
  #counted: BlobSyncCounters;

  constructor(options: AutoImportOptions) {
    this.#options = options;
    this.#progress = options.progress;
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
        await onEvent({ kind: 'synchronized', atMs });
      } catch (error) {
        signal.throwIfAborted();
        // What comes again is counted then.
        Object.assign(this.#options.sync, this.#counted);
        this.#again = true;
        if (error instanceof SourceGap) {
          log.add({ level: 'warn', code: 'Gap', message: `${messageChain(error)}: a full sync follows` });
          await this.#move({ ...this.#progress, phase: 'scan', cursor: null });
          continue;
        }
        const why = transientCause(error);
        if (why === undefined) throw asFailure(error);
        failures++;
        log.add({ level: 'warn', code: 'Waiting', message: why });
        await onEvent({ kind: 'waiting', why });
      }
      await log.written();
      await clock.sleep(Math.min(maxPauseMs, pollIntervalMs * 2 ** Math.min(failures, 16)), signal);
    }
  }

  async #scan(): Promise<void> {
    const { source, scan, signal, log, clock, onEvent, mode } = this.#options;
    Object.assign(scan, noImportCounters);
    await onEvent({ kind: 'scan-started' });
    const cursor = await source.begin(signal);
    await runImport({
      ...this.#options,
      mode,
      actions: scanActions,
      startedMs: clock.now(),
      resumed: false,
      counters: scan,
      onPage: (page) => source.observe(page),
    });
    await log.written();
    this.#progress = { ...this.#progress, phase: 'sync', cursor: asJson(await source.observed(cursor)) };
    await onEvent({ kind: 'scan-ended' }, this.#progress);
  }

  async #poll(): Promise<void> {
    const { source, signal, onEvent } = this.#options;
    if (this.#progress.busy.length > 0) await this.#retryBusy();
    for await (const changes of source.poll(this.#progress.cursor, signal)) {
      signal.throwIfAborted();
      const busy = await this.#apply(changes);
      this.#again = false;
      this.#progress = {
        phase: 'sync',
        cursor: asJson(changes.cursor),
        deleting: {},
        busy: [...new Set([...this.#progress.busy, ...busy])],
      };
      this.#counted = { ...this.#options.sync };
      const { newestMs } = changes;
      await onEvent({ kind: 'applied', ...(newestMs !== undefined && { newestMs }) }, this.#progress);
    }
    this.#again = false;
  }

  /** Deletions first: what is new may need their names. Resolves with the blobs whose files are in use. */
  async #apply({ present, absent }: Pick<Changes, 'present' | 'absent'>): Promise<readonly string[]> {
    const { sync, clock } = this.#options;
    const busy = absent.length === 0 ? [] : await this.#delete(absent);
    if (present.length === 0) return busy;
    const counters: MutableImportCounters = { ...sync, totalBlobsWalked: 0 };
    try {
      const blobs = present.toSorted((a, b) => (a.name < b.name ? -1 : 1));
      await importBlobs(
        { ...this.#options, actions: syncActions, startedMs: clock.now(), resumed: false, counters },
        blobs,
      );
    } finally {
      const { totalBlobsWalked: _, ...counted } = counters;
      Object.assign(sync, counted);
    }
    return busy;
  }

  async #delete(absent: readonly string[]): Promise<readonly string[]> {
    const { sync, log, maximumErrors } = this.#options;
    const deletions = new Deletions({
      ...this.#options,
      counters: sync,
      onError: (blob, error) => {
        sync.totalErrors++;
        const message = `the deletion of the blob '${blob}' could not be followed: ${messageChain(error)}`;
        log.add({ level: 'error', blob, code: 'Deletion', message });
        if (maximumErrors !== -1 && sync.totalErrors > maximumErrors)
          throw new JobFailure('TooManyErrors', message);
      },
    });
    const planned = await deletions.plan(absent, this.#again ? this.#progress.deleting : {});
    if (planned.length === 0) return [];
    // A file that somebody makes under a name after it was deleted must not be deleted when this batch comes again.
    const deleting = Object.fromEntries(planned.map(({ path, state }) => [path, state.fid]));
    await this.#move({ ...this.#progress, deleting });
    return deletions.run(planned);
  }

  /** Deletions that waited for open files, as far as the blobs are still gone. */
  async #retryBusy(): Promise<void> {
    const { container, signal } = this.#options;
    const absent: string[] = [];
    for (const blob of this.#progress.busy) {
      try {
        await container.properties(blob, signal);
      } catch (error) {
        if (!(error instanceof BlobError) || error.kind !== 'missing') throw error;
        absent.push(blob);
      }
    }
    const busy = await this.#delete(absent);
    await this.#move({ ...this.#progress, deleting: {}, busy });
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
  if (!(cause instanceof BlobError)) return undefined;
  return cause.kind === 'unreachable' || cause.kind === 'throttled' ? messageChain(cause) : undefined;
}

/** The error as the end of the job. */
function asFailure(error: unknown): unknown {
  if (!(error instanceof BlobError)) return error;
  return new JobFailure('SyncFailed', `the container could not be read: ${messageChain(error)}`, {
    cause: error,
  });
}

/** A cursor as it will come back from the record. */
function asJson(cursor: unknown): AutoImportProgress['cursor'] {
  return JSON.parse(JSON.stringify(cursor)) as AutoImportProgress['cursor'];
}
