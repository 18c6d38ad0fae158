/** Import: one stub for each blob of a listing; what is there already is touched only as the conflict mode says. */
import { setMaxListeners } from 'node:events';
import { constants } from 'node:os';
import { crashPoint } from '../../base/crash.js';
import { BlobError, messageChain } from '../../base/errors.js';
import { unlessAborted } from '../../base/unless-aborted.js';
import { isListedBehind } from '../../blob/listing-order.js';
import { specialFileOf } from '../../blob/metadata.js';
import { pathOfBlob } from '../../blob/names.js';
import type { Container, ListedBlob } from '../../blob/port.js';
import { hasErrno } from '../../hsm/movers.js';
import type { Fid, FileState, Stub, StubDefaults, StubResult } from '../../store/inodes.js';
import { blobStub, symlinkTarget } from './blob-stub.js';
import { resolveConflict, type ConflictOptions } from './conflict-resolution.js';
import type { ImportCounters, ImportResult } from './import-record.js';
import { JobFailure } from '../job-end.js';
import type { Later } from './later.js';
import type { JobLog } from '../job-log.js';
import { Parallel } from '../parallel.js';
import { readAhead } from './read-ahead.js';
import { stubBatches, type StubBatch, type Wanted, type WantedStub } from './stub-batches.js';

const { ELOOP, ENOENT, ENOTDIR, ESTALE } = constants.errno;

export type MutableImportCounters = { -readonly [Key in keyof ImportCounters]: ImportCounters[Key] };

type Pages = AsyncIterable<readonly ListedBlob[]> | Iterable<readonly ListedBlob[]>;

export interface ImportOptions extends ConflictOptions {
  readonly container: Container;
  readonly maximumErrors: number;
  readonly startedMs: number;
  /** The same job was interrupted before: what it had made so far is its own. */
  readonly resumed: boolean;
  readonly counters: MutableImportCounters;
  readonly log: JobLog;
  /** Has the blobs that are imported again later; without it they are conflicts. */
  readonly later?: Later;
}

/** Pages that the listing runs ahead. */
const pagesAhead = 4;
/** Batches of stubs under way behind the one that is being counted. */
const batchesAhead = 2;
const parallelReads = 16;
/** Conflicts that are resolved at a time: each waits for the disk. */
const parallelConflicts = 16;
/** How long after a cancel directories are still given their times: it is over within a second. */
const leaveMs = 750;
const msToNs = 1_000_000n;

/**
 * Imports every blob under the prefixes, which are as blobPrefixes() gives them. Resolves behind a barrier, with the state
 * the job ends in; rejects with a JobFailure, or with the signal's reason.
 */
export async function runImport(
  options: ImportOptions & {
    readonly prefixes: readonly string[];
    /** Sees each page of the listing, in order. */
    readonly onPage?: (page: readonly ListedBlob[]) => Promise<void>;
  },
): Promise<ImportResult> {
  const { container, prefixes, onPage, signal } = options;
  const run = new Import(options);
  for (const prefix of prefixes) {
    await run.pages((wanted) => {
      const pages = container.list({ prefix, signal: wanted });
      return onPage === undefined ? pages : shown(pages, onPage);
    });
  }
  // Seconds, where the file system has a lot to write.
  await unlessAborted(() => options.native.barrier(), signal);
  run.tellUnmapped();
  return run.result();
}

async function* shown<T>(
  items: AsyncIterable<T>,
  show: (item: T) => Promise<void>,
): AsyncGenerator<T, void, undefined> {
  for await (const item of items) {
    await show(item);
    yield item;
  }
}

/** The same for blobs that are known already, in the order of a listing; the barrier is the caller's. */
export async function importBlobs(
  options: ImportOptions,
  blobs: readonly ListedBlob[],
): Promise<ImportResult> {
  const run = new Import(options);
  await run.pages(() => [blobs]);
  return run.result();
}

class Import {
  readonly #options: ImportOptions;
  readonly #stubDefaults: StubDefaults;
  /** Directories whose mtime is set when the listing has passed all their children. */
  readonly #directories = new Set<Stub & { readonly fid: Fid }>();
  /** Files and symlinks of which a directory of the same name may still come, and how they were counted. */
  readonly #leaves = new Map<string, keyof MutableImportCounters>();
  /** Names of files that a directory has taken in this batch. */
  readonly #taken = new Set<string>();
  #firstProblem: string | undefined;
  /** Aborted when a cancel has waited long enough. */
  #late: AbortSignal | undefined;
  /** Blobs of which the account says something that is nothing on Linux. */
  readonly #unmapped = { blobs: 0, first: '' };

  constructor(options: ImportOptions) {
    this.#options = options;
    const { dirMode, uid, gid } = options.defaults;
    this.#stubDefaults = { dirMode, uid, gid, mtimeNs: BigInt(options.startedMs) * msToNs };
  }

  result(): ImportResult {
    const firstProblem = this.#firstProblem;
    return { state: firstProblem === undefined ? 'Completed' : 'CompletedPartial', firstProblem };
  }

  /** Says once that owners, groups and ACLs are not all those of the account. */
  tellUnmapped(): void {
    const { blobs, first } = this.#unmapped;
    if (blobs === 0) return;
    const message =
      `blobs with an owner, a group or an ACL entry that is no number: ${blobs}, the first is ${first}; ` +
      'such owners and groups are those of defaults.uid and defaults.gid, such entries are left out';
    this.#options.log.add({ level: 'warn', code: 'UnmappedIdentity', message });
  }

  /** Imports what a listing gives; its signal is aborted as soon as no more is wanted. */
  async pages(list: (wanted: AbortSignal) => Pages): Promise<void> {
    const { mode, counters, log, signal } = this.#options;
    const stop = new AbortController();
    const wanted = AbortSignal.any([signal, stop.signal]);
    const over = new AbortController();
    const onAbort = (): void => {
      this.#late = AbortSignal.timeout(leaveMs);
    };
    signal.addEventListener('abort', onAbort, { once: true, signal: over.signal });
    // Each symlink that is read listens.
    setMaxListeners(0, wanted);
    const batches = stubBatches(
      readAhead(list(wanted), pagesAhead),
      (blobs) => this.#wanted(blobs, wanted),
      { createStubs: (stubs) => this.#make(stubs) },
      this.#stubDefaults,
    );
    try {
      // What fails at the first conflict makes nothing behind the batch that has it.
      for await (const batch of mode === 'Fail' ? batches : readAhead(batches, batchesAhead)) {
        try {
          signal.throwIfAborted();
          counters.totalBlobsWalked += batch.wanted.length;
          await this.#batch(batch).finally(() => this.#keepRenamed(batch));
          crashPoint('import.batch');
          const last = batch.wanted.at(-1);
          if (last !== undefined) await this.#passed(last.blob.name);
          await log.drained();
        } catch (error) {
          // Before the loop is left, which waits for what is being read ahead.
          stop.abort();
          throw error;
        }
      }
      await this.#passed(undefined);
    } catch (error) {
      await this.#leave();
      signal.throwIfAborted();
      if (!(error instanceof BlobError)) throw error;
      throw new JobFailure('ListFailed', `the container could not be listed: ${messageChain(error)}`, {
        cause: error,
      });
    } finally {
      stop.abort();
      over.abort();
    }
  }

  /** A batch that nobody comes to count has made its directories, too. */
  async #make(stubs: readonly Stub[]): Promise<readonly StubResult[]> {
    const results = await this.#options.native.createStubs(stubs, this.#stubDefaults);
    for (const [at, stub] of stubs.entries()) {
      const result = results[at];
      if (result?.kind === 'created') this.#finishLater(stub, result.fid);
    }
    return results;
  }

  /** Behind what is done about those that have the names of the blobs: that is judged by what they were. */
  #keepRenamed({ wanted }: StubBatch): Promise<void> {
    const copies = wanted.flatMap((one) => ('stub' in one ? (one.stub.copy ?? []) : []));
    const { coordinator, signal } = this.#options;
    const kept = coordinator.keepRenamed(copies);
    // It walks the whole store where names were changed; somebody who cancels need not wait for that.
    kept.catch(() => undefined);
    return unlessAborted(() => kept, signal);
  }

  async #batch({ wanted, results }: StubBatch): Promise<void> {
    let made = await results;
    // Those that something has made way for: each round takes away what was in the way of one level.
    for (let left = await this.#made(wanted, made); left.length > 0; left = await this.#made(left, made)) {
      made = await this.#make(left.map(({ stub }) => stub));
    }
    await this.#contest();
  }

  /** The files come when the directories that have their names now are empty. */
  async #contest(): Promise<void> {
    const { native, later } = this.#options;
    const taken = [...this.#taken];
    this.#taken.clear();
    if (later === undefined || taken.length === 0) return;
    const states = await native.lookup(taken);
    for (const [at, path] of taken.entries()) {
      const state = states[at];
      if (state !== undefined) await later.contested(path, state);
    }
  }

  /** Counts what was made, and does what is to be done about the rest; resolves with what can be made now. */
  async #made(wanted: readonly Wanted[], results: readonly StubResult[]): Promise<readonly WantedStub[]> {
    const { signal } = this.#options;
    const made = results.values();
    const again: WantedStub[] = [];
    await using alone = new Parallel(parallelConflicts);
    let failure: { readonly error: unknown } | undefined;
    for (const one of wanted) {
      const result = 'refused' in one ? undefined : made.next().value;
      try {
        // Behind a failure nothing is done any more; what is made is counted.
        if ('refused' in one) {
          if (failure === undefined) this.#refused(one);
        } else if (result?.kind === 'created') this.#created(one.stub);
        else if (result === undefined || failure !== undefined) continue;
        else if (this.#concernsNobodyElse(one, result)) await alone.start(() => this.#count(one, result));
        else {
          await alone.finish();
          signal.throwIfAborted();
          if (await this.#madeWay(one, result)) again.push(one);
          else await this.#count(one, result);
        }
      } catch (error) {
        failure = { error };
      }
    }
    await alone.finish().catch((error: unknown) => {
      failure ??= { error };
    });
    if (failure !== undefined) throw failure.error;
    return again;
  }

  /** A file where there is a file with no other name; in mode Fail the first conflict is the last. */
  #concernsNobodyElse({ stub }: WantedStub, result: StubResult): boolean {
    if (this.#options.mode === 'Fail' || result.kind !== 'exists' || stub.kind !== 'file') return false;
    return result.state.type === 'file' && result.state.nlink === 1;
  }

  /** What each of some blobs asks for; symlinks are read for their targets. */
  async #wanted(blobs: readonly ListedBlob[], signal: AbortSignal): Promise<readonly Wanted[]> {
    const wanted: Wanted[] = [];
    await using reads = new Parallel(parallelReads);
    for (const [at, blob] of blobs.entries()) {
      const name = pathOfBlob(blob.name, blob.size);
      if ('refused' in name) {
        wanted[at] = { blob, code: 'InvalidName', refused: name.refused };
        continue;
      }
      const special = blob.size === 0 ? specialFileOf(blob.metadata) : undefined;
      if (special !== undefined) {
        const refused = `the blob stands for a ${special}, which an import does not make`;
        wanted[at] = { blob, code: 'SpecialFile', refused };
        continue;
      }
      const kind = name.directoryMarker ? 'directory' : blob.kind;
      const stub = blobStub(blob, name.path, kind, this.#options.defaults);
      this.#noteUnmapped(blob);
      if (kind === 'symlink') {
        await reads.start(async () => {
          const { container, later } = this.#options;
          const target = await symlinkTarget(container, blob, { signal, waited: later !== undefined });
          wanted[at] = 'refused' in target ? { blob, ...target } : { blob, stub: { ...stub, ...target } };
        });
      } else {
        wanted[at] = { blob, stub };
      }
    }
    await reads.finish();
    return wanted;
  }

  #noteUnmapped({ name, posix }: ListedBlob): void {
    if (posix.unmapped !== undefined && this.#unmapped.blobs++ === 0)
      this.#unmapped.first = `${posix.unmapped} of ${name}`;
  }

  /**
   * Where a name is both a file and a directory, the directory wins: true when the file's stub was taken away, so
   * that the item can be made now.
   */
  async #madeWay({ stub }: WantedStub, result: StubResult): Promise<boolean> {
    if (result.kind === 'exists' && stub.kind === 'directory' && result.state.type !== 'directory') {
      return this.#remove(stub.path, result.state);
    }
    if (result.kind !== 'failed' || (result.errno !== ENOTDIR && result.errno !== ELOOP)) return false;
    const obstacle = await this.#obstacle(stub.path);
    // None: an item before this one has made way.
    return obstacle === undefined || this.#remove(obstacle.path, obstacle.state);
  }

  /** What is above a path and no directory. */
  async #obstacle(below: string): Promise<{ readonly path: string; readonly state: FileState } | undefined> {
    const parents = ancestors(below);
    const states = await this.#options.native.lookup(parents);
    const at = states.findIndex((state) => state !== undefined && state.type !== 'directory');
    const [path, state] = [parents[at], states[at]];
    return path === undefined || state === undefined ? undefined : { path, state };
  }

  /**
   * Takes the file of the blob `path` away and counts that blob as the conflict; only where this listing has shown that
   * the container has exactly this blob still: else the bytes that are here may be the only ones.
   */
  async #remove(path: string, state: FileState): Promise<boolean> {
    const { native, counters, mode, resumed } = this.#options;
    const counted = this.#leaves.get(path);
    if (counted === undefined || state.modified || state.copy?.blob !== path) return false;
    // A file that was there before the job is kept; of a job that goes on nobody knows any more which were.
    if (mode === 'Skip' && counted.startsWith('preexisting') && !resumed) return false;
    const why = 'other blobs lie below this name, so that it is a directory';
    // The job ends: what was there before it stays.
    if (mode === 'Fail') this.#conflict(path, path, why);
    try {
      await native.remove(path, state.fid, { onlyClean: true });
    } catch {
      return false;
    }
    counters[counted]--;
    if (counted === 'importedFiles' || counted === 'importedSymlinks') counters.totalBlobsImported--;
    this.#leaves.delete(path);
    // In the modes in which a file takes the place of a directory.
    if (mode !== 'Skip') this.#taken.add(path);
    this.#conflict(path, path, why);
    return true;
  }

  async #count({ blob, stub }: WantedStub, result: StubResult): Promise<void> {
    switch (result.kind) {
      case 'created':
        this.#created(stub);
        return;
      case 'exists':
        await this.#resolve(blob.name, stub, result.state);
        return;
      case 'failed':
        if (result.errno === ENOTDIR || result.errno === ELOOP) await this.#hidden(blob.name, stub.path);
        else this.#error(blob.name, result.code, `the stub could not be made: ${result.code}`);
    }
  }

  /** A directory above it is something else here. */
  async #hidden(blob: string, path: string): Promise<void> {
    const { later, log } = this.#options;
    const why = 'a directory above it is something else here';
    const obstacle = later && (await this.#obstacle(path));
    if (later === undefined || obstacle === undefined) this.#conflict(blob, path, why);
    else if (ancestors(path).some((above) => later.has(above))) later.add(blob, `${why}, which is in use`);
    else if (await later.contested(obstacle.path, obstacle.state))
      log.add({
        level: 'info',
        blob,
        code: 'Busy',
        message: `${why}, whose blob is gone: it waits for that`,
      });
    else this.#conflict(blob, path, why);
  }

  #created(stub: Stub): void {
    this.#options.counters.totalBlobsImported++;
    this.#tally(stub, 'imported');
  }

  #tally(stub: Stub, how: 'imported' | 'preexisting'): void {
    const kind = { file: 'Files', directory: 'Directories', symlink: 'Symlinks' } as const;
    const counter = `${how}${kind[stub.kind]}` as const;
    this.#options.counters[counter]++;
    if (stub.kind !== 'directory') this.#leaves.set(stub.path, counter);
  }

  /** Does what the mode says about a path that is taken, and counts it. */
  async #resolve(blob: string, stub: Stub, seen: FileState): Promise<void> {
    const { resumed, later } = this.#options;
    const resolution = await resolveConflict(this.#options, blob, stub, seen);
    switch (resolution.kind) {
      case 'same':
        this.#tally(stub, 'preexisting');
        if (resumed) this.#finishLater(stub, resolution.fid);
        return;
      case 'completed':
        this.#created(stub);
        this.#finishLater(stub, resolution.fid);
        return;
      case 'busy':
        if (later === undefined) this.#conflict(blob, stub.path, resolution.message);
        else later.add(blob, resolution.message);
        return;
      case 'filled':
        await later?.contested(stub.path, seen);
        this.#conflict(blob, stub.path, resolution.message);
        return;
      case 'conflict':
        this.#conflict(blob, stub.path, resolution.message);
        return;
      case 'failed':
        this.#error(blob, 'Overwrite', resolution.message);
        return;
      case 'resolved':
        this.#resolved(blob, stub.path, resolution.message);
        if (resolution.resident) this.#tally(stub, 'preexisting');
        else this.#created(stub);
        this.#finishLater(stub, resolution.fid);
    }
  }

  #finishLater(stub: Stub, fid: Fid): void {
    if (stub.kind === 'directory') this.#directories.add({ ...stub, fid });
  }

  /** Whatever lies below the names before `name` has been listed (undefined: everything has). */
  async #passed(name: string | undefined): Promise<void> {
    const { container, signal } = this.#options;
    const { hierarchical } = container.namespace;
    const isPassed = (path: string): boolean =>
      name === undefined || isListedBehind(name, path, hierarchical);
    for (const path of this.#leaves.keys()) if (isPassed(path)) this.#leaves.delete(path);
    for (const directory of this.#directories) {
      const { path, copy } = directory;
      if (!isPassed(path)) continue;
      signal.throwIfAborted();
      this.#directories.delete(directory);
      try {
        await this.#finish(directory);
      } catch (error) {
        // Moved, replaced or gone.
        if (hasErrno(error, ENOENT, ENOTDIR, ELOOP, ESTALE)) continue;
        const message = `the modification time of the directory could not be set: ${messageChain(error)}`;
        this.#error(copy?.blob ?? path, 'Attributes', message);
      }
    }
  }

  /** It got its owner and mode when it was judged: what they are now is what somebody wants. */
  #finish({ path, fid, mtimeNs }: Stub & { readonly fid: Fid }): Promise<void> {
    return this.#options.native.setAttributes(path, { fid, mtimeNs });
  }

  /** The job ends early: no other import gives the directories their times, and who cancels is not to wait for many. */
  async #leave(): Promise<void> {
    for (const directory of this.#directories) {
      if (this.#late?.aborted === true) return;
      await this.#finish(directory).catch(() => undefined);
    }
  }

  /** A conflict that the mode has ended: the job may still be Completed. */
  #resolved(blob: string, path: string, message: string): void {
    const { counters, log } = this.#options;
    counters.totalConflicts++;
    log.add({ level: 'info', blob, path, code: 'Conflict', message });
  }

  #conflict(blob: string, path: string, message: string): void {
    const { counters, log, mode } = this.#options;
    counters.totalConflicts++;
    this.#firstProblem ??= `${blob}: ${message}`;
    log.add({ level: mode === 'Fail' ? 'error' : 'warn', blob, path, code: 'Conflict', message });
    if (mode === 'Fail') throw new JobFailure('Conflict', `the blob '${blob}' is in conflict: ${message}`);
  }

  /** A symlink that was changed since it was listed is no error where another look comes. */
  #refused({ blob, code, refused }: Exclude<Wanted, WantedStub>): void {
    const { later } = this.#options;
    if (later !== undefined && (code === 'changed' || code === 'missing')) later.add(blob.name, refused);
    else this.#error(blob.name, code, refused);
  }

  #error(blob: string, code: string, message: string): void {
    const { counters, log, maximumErrors } = this.#options;
    counters.totalErrors++;
    this.#firstProblem ??= `${blob}: ${message}`;
    log.add({ level: 'error', blob, code, message });
    if (maximumErrors === -1 || counters.totalErrors <= maximumErrors) return;
    throw new JobFailure('TooManyErrors', `the blob '${blob}' could not be imported: ${message}`);
  }
}

/** `a`, `a/b` of `a/b/c`. */
export function ancestors(path: string): readonly string[] {
  const found: string[] = [];
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) found.push(path.slice(0, at));
  return found;
}
