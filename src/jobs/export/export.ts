/** Export: every file whose content is new or changed goes to the blob of its path; deletions and renames do not. */
import { setMaxListeners } from 'node:events';
import type { Clock } from '../../base/clock.js';
import { crashPoint } from '../../base/crash.js';
import { messageChain } from '../../base/errors.js';
import { unlessAborted } from '../../base/unless-aborted.js';
import { pathText } from '../../base/path-text.js';
import { explained, isRefused } from '../../blob/advice.js';
import { blobOfPath } from '../../blob/names.js';
import type { Container } from '../../blob/port.js';
import type { ArchiveOutcome } from '../../hsm/archive-mover.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import { errnoOf } from '../../hsm/movers.js';
import { recordedFirst, type FilePath } from '../../hsm/paths.js';
import type { Fid, NativeStore, WalkEntry } from '../../store/inodes.js';
import type { ExportMemory } from './export-memory.js';
import { exportDirectory, exportSymlink, type DirectoryResult, type DirectoryRule } from './export-stubs.js';
import { ancestors } from '../import/import.js';
import type { ExportCounters } from './export-record.js';
import { JobFailure } from '../job-end.js';
import type { JobLog } from '../job-log.js';
import { isMarker } from '../marker.js';
import { Parallel } from '../parallel.js';

export type MutableExportCounters = { -readonly [Key in keyof ExportCounters]: ExportCounters[Key] };

export interface ExportOptions {
  readonly native: NativeStore;
  readonly container: Container;
  readonly coordinator: Pick<Coordinator, 'archive' | 'withBlob' | 'onSaved'>;
  readonly clock: Clock;
  /** Everything whose path begins with it; a leading '/' is the root. */
  readonly filesystemPath: string;
  /** Files in the coordinator's queue at a time. */
  readonly parallel: number;
  /** Write the private metadata keys, too. */
  readonly extended: boolean;
  /** Do not overwrite a blob that somebody else wrote. */
  readonly ifMatch: boolean;
  readonly counters: MutableExportCounters;
  /** Called when it is known how many files and symlinks the job will try. */
  readonly onCounted?: (files: number) => void;
  /** Export directories on their own, too, as far as it does not know them. */
  readonly memory?: ExportMemory;
  readonly log: Pick<JobLog, 'add' | 'drained'>;
  readonly signal: AbortSignal;
}

const walkBatch = 512;
const tries = 3;
const firstPauseMs = 200;
/** What has begun may end for so long when the job is canceled: its blob may be there already. */
const finishingMs = 400;
/** Files that an account refuses before it is asked whether it refuses everything. */
const manyRefused = 100;

/** Of a directory, to see whether blobs imply it. */
const enoughEntries = 512;

/**
 * Resolves when everything was tried, with the first thing that failed; the counters say how many did. Rejects with a
 * JobFailure where the account refuses every request, or the signal's reason.
 */
export async function runExport(options: ExportOptions): Promise<string | undefined> {
  return new Export(options).run();
}

/** The directory to walk for a path prefix, and the prefix as walked paths know it. */
export function exportScope(filesystemPath: string): { readonly directory: string; readonly prefix: string } {
  const prefix = filesystemPath.replace(/^\/+/, '');
  const slash = prefix.lastIndexOf('/');
  return { directory: slash < 0 ? '' : prefix.slice(0, slash), prefix };
}

/** Of several names nobody knows which of them have a blob: each is compared. */
function isNewSymlink({ copy, nlink }: WalkEntry): boolean {
  return copy === undefined || nlink > 1;
}

class Export {
  readonly #options: ExportOptions;
  readonly #late = new AbortController();
  /** For what has begun: its signal is later than the job's. */
  readonly #begun: ExportOptions;
  /** Rule and path of the directories that were looked at, or are being; each once a job. */
  readonly #directories = new Map<string, Promise<DirectoryResult | undefined>>();
  /** New or changed files with several names: exported behind the walk, which has met all of their names then. */
  readonly #linked = new Map<Fid, WalkEntry[]>();
  /**
   * Files that got names while they were exported, and those that the export has changed, as it wrote other content to the
   * blob that they came from: behind everything else, when they are met by another walk.
   */
  readonly #left = new Set<Fid>();
  #again = false;

  #firstProblem: string | undefined;
  #refused = 0;
  #refusedAtNextCheck = manyRefused;

  constructor(options: ExportOptions) {
    this.#options = options;
    this.#begun = { ...options, signal: this.#late.signal };
    // Each transfer and request under way listens to it.
    setMaxListeners(0, this.#late.signal);
  }

  async run(): Promise<string | undefined> {
    const { native, coordinator, memory, filesystemPath, parallel, log, clock, signal } = this.#options;
    const { directory, prefix } = exportScope(filesystemPath);
    await using files = new Parallel(parallel);
    let counted: Promise<void> | undefined;
    const over = new AbortController();
    const end = (): void => {
      void clock.sleep(finishingMs).then(() => {
        this.#late.abort(signal.reason);
      });
    };
    signal.addEventListener('abort', end, { once: true });
    // An iteration of an auto-export leaves them to the next one.
    using _ = memory === undefined ? coordinator.onSaved((fid) => this.#left.add(fid)) : undefined;
    try {
      if (!(await isDirectory(native, directory))) return undefined;
      for await (const entry of this.#changed(directory, prefix)) {
        signal.throwIfAborted();
        counted ??= this.#count(directory, prefix, over.signal);
        if (this.#refused >= this.#refusedAtNextCheck) await this.#check();
        await files.start(() => this.#entry(entry));
        await log.drained();
      }
      await this.#several(files);
      while (this.#left.size > 0) {
        this.#again = true;
        this.#linked.clear();
        const left = new Set(this.#left);
        this.#left.clear();
        for await (const entry of this.#changed(directory, prefix)) {
          if (!left.has(entry.fid)) continue;
          if (entry.type === 'file') this.#collect(entry);
          else await files.start(() => this.#entry(entry));
        }
        await this.#several(files);
      }
      signal.throwIfAborted();
      if (this.#refused > 0) await this.#check();
      return this.#firstProblem;
    } finally {
      signal.removeEventListener('abort', end);
      over.abort();
      await counted;
    }
  }

  /** Files of which all names are known by now; resolves when nothing is left to do. */
  async #several(files: Parallel): Promise<void> {
    const { log, signal } = this.#options;
    for (const entries of this.#linked.values()) {
      signal.throwIfAborted();
      if (this.#refused >= this.#refusedAtNextCheck) await this.#check();
      await files.start(() => this.#names(entries));
      await log.drained();
    }
    await files.finish();
  }

  /** What an export may have to write, in the order of the directories. */
  async *#changed(directory: string, prefix: string): AsyncGenerator<WalkEntry, void, undefined> {
    const { native, signal } = this.#options;
    const walk = native.walk({
      select: 'changed',
      batch: walkBatch,
      ...(directory === '' ? {} : { path: directory }),
    });
    try {
      for (let batch; (batch = await this.#batch(() => unlessAborted(() => walk.next(), signal))) !== null;) {
        for (const entry of batch) if (entry.path.startsWith(prefix) && !isMarker(entry.path)) yield entry;
      }
    } finally {
      walk.close();
    }
  }

  /** The walk that exports goes no faster than its uploads: another one knows how many there will be. */
  async #count(directory: string, prefix: string, over: AbortSignal): Promise<void> {
    const { native, onCounted } = this.#options;
    if (onCounted === undefined) return;
    const walk = native.walk({
      select: 'changed',
      batch: walkBatch,
      ...(directory === '' ? {} : { path: directory }),
    });
    let files = 0;
    try {
      for (let batch; (batch = await unlessAborted(() => walk.next(), over)) !== null;) {
        for (const entry of batch) {
          const wanted = entry.type === 'file' || (entry.type === 'symlink' && isNewSymlink(entry));
          if (wanted && entry.path.startsWith(prefix) && !isMarker(entry.path)) files++;
        }
      }
      onCounted(files);
    } catch {
      // The other walk meets it, too, and says so.
    } finally {
      walk.close();
    }
  }

  /** A directory that cannot be read is a failure of the job's result, not its end. */
  async #batch(next: () => Promise<readonly WalkEntry[] | null>): Promise<readonly WalkEntry[] | null> {
    try {
      return await next();
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      // Once, however often it is walked.
      if (!this.#again) this.#fail(undefined, 'Unreadable', messageChain(error));
      return [];
    }
  }

  #entry(entry: WalkEntry): Promise<void> {
    switch (entry.type) {
      case 'file':
        return this.#file(entry);
      case 'symlink':
        return isNewSymlink(entry) ? this.#symlink(entry) : Promise.resolve();
      case 'directory':
        return this.#ownDirectory(entry);
      case 'special':
        this.#options.counters.totalFilesSkipped++;
        this.#log('warn', pathOf(entry), 'SpecialFile', 'blobs cannot hold devices, pipes and sockets');
        return Promise.resolve();
    }
  }

  async #file(entry: WalkEntry): Promise<void> {
    if (entry.nlink <= 1) {
      await this.#names([entry]);
      return;
    }
    // As long as none of its names is exported the walk shows them all.
    this.#collect(entry);
  }

  #collect(entry: WalkEntry): void {
    const known = this.#linked.get(entry.fid);
    if (known === undefined) this.#linked.set(entry.fid, [entry]);
    else known.push(entry);
  }

  /** Every name in what is exported gets a blob, all of them with the same content. */
  async #names(entries: readonly WalkEntry[]): Promise<void> {
    const { memory } = this.#options;
    const [first] = entries;
    if (first === undefined) return;
    // What comes to be left from here on is not what this walk has met.
    this.#left.delete(first.fid);
    const others = first.nlink - entries.length;
    if (others > 0) {
      const message = `${String(others)} of the file's names are not below the path of the export: they get no blob, and the file stays dirty`;
      this.#log('warn', pathOf(first), 'HardLink', message);
    }
    const possible: WalkEntry[] = [];
    for (const path of recordedFirst(entries.map(pathOf), first.copy)) {
      const entry = entries.find((one) => pathOf(one) === path);
      if (entry === undefined) continue;
      const name = blobOfPath(path);
      if (!('refused' in name)) possible.push(entry);
      else {
        this.#discovered(entry.size, 1);
        this.#fail(path, 'InvalidName', name.refused);
      }
    }
    const [leading, ...links] = possible;
    if (leading === undefined) return;
    const partly = others > 0 || possible.length < entries.length;
    if (memory === undefined) {
      await this.#archive([leading, ...links], partly);
      return;
    }
    // What stays dirty is met again in each iteration: it is written again when it has changed, or is clean by that.
    const seen = await this.#contentOf(leading, entries);
    const novelty = memory.novelty(first, seen);
    if (novelty === 'same' || novelty === 'incomplete') {
      const complete = novelty === 'same' || (await this.#above(possible.map(({ path }) => path)));
      memory.exported(first, { complete, seen });
      if (partly || !complete) return;
    }
    const dirty = await this.#archive([leading, ...links], partly);
    if (dirty !== undefined) memory.exported(first, { ...dirty, seen });
  }

  /** Different after whatever may have changed the content, and where it is exported to. */
  async #contentOf({ path, fid }: WalkEntry, entries: readonly WalkEntry[]): Promise<string> {
    const names = entries.map((entry) => pathText(pathOf(entry))).sort();
    try {
      const { ctimeNs, mtimeNs, size } = await this.#options.native.stat(path);
      return [ctimeNs, mtimeNs, size, ...names].map(String).join('\0');
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      return `${fid} is not there`;
    }
  }

  /**
   * Archives one file under these names, of which it keeps the first; `partly`: not under all that it has. Where its blobs
   * are there, and it is dirty all the same: whether that is so with all directories above them.
   */
  async #archive(
    [entry, ...links]: readonly [WalkEntry, ...WalkEntry[]],
    partly: boolean,
  ): Promise<{ readonly complete: boolean } | undefined> {
    const { clock, coordinator, signal } = this.#options;
    const names = [entry, ...links];
    this.#discovered(entry.size, names.length);
    let complete = true;
    const wanted = {
      path: pathOf(entry),
      links: links.map(pathOf),
      // Before the file is clean: no later export would come to what is above it.
      complete: async (blobs: readonly string[]) => {
        complete = await this.#above(blobs);
        return complete && !partly;
      },
      signal: this.#late.signal,
      unlessBegun: signal,
    };
    let outcome: ArchiveOutcome = { kind: 'canceled' };
    for (let attempt = 1; attempt <= tries; attempt++) {
      outcome = await coordinator.archive(entry.fid, wanted);
      // What is done counts all the same.
      if (outcome.kind !== 'archived') signal.throwIfAborted();
      if (outcome.kind !== 'busy' || attempt === tries) break;
      await clock.sleep(firstPauseMs * 2 ** (attempt - 1), signal);
    }
    crashPoint('export.file');
    if (outcome.kind === 'more-names' && !this.#again) this.#left.add(entry.fid);
    for (const name of names) this.#tally(name, outcome);
    return outcome.kind === 'archived' && outcome.partly ? { complete } : undefined;
  }

  #tally(entry: WalkEntry, outcome: ArchiveOutcome): void {
    const { counters } = this.#options;
    const path = pathOf(entry);
    switch (outcome.kind) {
      case 'archived':
        if (!outcome.blobs.includes(entry.path)) {
          this.#discovered(entry.size, -1);
          return;
        }
        this.#exported(outcome.copy.size);
        return;
      case 'gone':
      case 'not-needed':
        this.#discovered(entry.size, -1);
        return;
      case 'moved':
        this.#fail(path, 'Renamed', 'the file was renamed during the export');
        return;
      case 'more-names':
        if (this.#again) this.#fail(path, 'Renamed', 'the file got another name during the export');
        else this.#discovered(entry.size, -1);
        return;
      case 'busy':
        this.#fail(path, 'Busy', outcome.reason);
        return;
      case 'refused':
        if (outcome.code !== 'NoArchive') {
          this.#fail(path, outcome.code, outcome.reason);
          return;
        }
        counters.totalFilesSkipped++;
        this.#log('warn', path, outcome.code, outcome.reason);
        return;
      case 'failed':
        this.#failed(path, outcome.error);
        return;
      case 'canceled':
        this.#fail(path, 'Canceled', 'the transfer was canceled');
        return;
    }
  }

  async #symlink(entry: WalkEntry): Promise<void> {
    const { memory, signal } = this.#options;
    const novelty = memory?.novelty(entry);
    if (novelty === 'same') return;
    if (novelty === 'incomplete' && !(await this.#above([entry.path]))) return;
    try {
      const above = (rule: DirectoryRule): Promise<boolean> => this.#above([entry.path], rule);
      const { written, complete } = await exportSymlink(this.#begun, entry, above);
      memory?.exported(entry, { complete });
      if (written === undefined) return;
      this.#discovered(written, 1);
      this.#exported(written);
    } catch (error) {
      signal.throwIfAborted();
      this.#discovered(0, 1);
      this.#failed(pathOf(entry), error);
    }
  }

  /** `files` of that size, each; negative: they were none. */
  #discovered(size: number, files: number): void {
    const { counters } = this.#options;
    counters.filesDiscovered += files;
    counters.totalBytesDiscovered += files * size;
  }

  #exported(bytes: number): void {
    const { counters } = this.#options;
    counters.totalFilesExported++;
    counters.totalBytesExported += bytes;
    counters.totalMiBExported = Math.floor(counters.totalBytesExported / 2 ** 20);
  }

  /** Whether all directories above these blobs are in the container. */
  async #above(blobs: readonly string[], rule: DirectoryRule = 'changed'): Promise<boolean> {
    const directories = new Set(blobs.flatMap((blob) => ancestors(blob)));
    const results = [...directories].map((directory) => this.#directory(directory, rule));
    return !(await Promise.all(results)).includes(undefined);
  }

  /**
   * A directory that no blob below it implies, or whose attributes have changed. One that only names of blobs imply gets
   * no blob because somebody looked at it.
   */
  async #ownDirectory(entry: WalkEntry): Promise<void> {
    const { memory, native } = this.#options;
    const novelty = memory?.novelty(entry) ?? 'same';
    if (novelty === 'same') return;
    const name = blobOfPath(pathOf(entry));
    if ('refused' in name) {
      // So is each name below it.
      if (novelty !== 'new' || (await isEmpty(native, entry)))
        this.#fail(pathOf(entry), 'InvalidName', name.refused);
      return;
    }
    const rule = novelty !== 'new' ? 'changed' : (await isImplied(native, entry.path)) ? 'implied' : 'found';
    const result = await this.#directory(entry.path, rule);
    if (result === undefined) return;
    // As many as there are directories, and nobody else looks for this.
    this.#directories.delete(`implied ${entry.path}`);
    const complete = (result !== 'written' && novelty !== 'incomplete') || (await this.#above([entry.path]));
    memory?.exported(entry, { complete });
  }

  /** Undefined: that failed, and is counted, once for all that it is looked at for. */
  #directory(path: string, rule: DirectoryRule): Promise<DirectoryResult | undefined> {
    // Whatever it was looked at for, a file in it may still have something to say.
    const known = this.#directories.get(`changed ${path}`) ?? this.#directories.get(`${rule} ${path}`);
    if (known !== undefined) return known;
    const look = (): Promise<DirectoryResult | undefined> => this.#exportDirectory(path, rule);
    const before = this.#directories.get(`found ${path}`) ?? this.#directories.get(`implied ${path}`);
    const done = before === undefined ? look() : before.then((result) => result && look());
    this.#directories.set(`${rule} ${path}`, done);
    return done;
  }

  async #exportDirectory(path: string, rule: DirectoryRule): Promise<DirectoryResult | undefined> {
    const { counters, signal } = this.#options;
    try {
      const result = await exportDirectory(this.#begun, path, rule);
      if (result === 'written') counters.totalDirectoriesExported++;
      if (result === 'file') {
        const message =
          'a blob that is a file has the name of this directory: its attributes are not exported';
        this.#log('warn', path, 'Conflict', message);
      }
      crashPoint('export.directory');
      return result;
    } catch (error) {
      signal.throwIfAborted();
      this.#failed(path, error);
      return undefined;
    }
  }

  /** A refusal may be about one blob, or about every request: then the job is over. */
  async #check(): Promise<void> {
    const { container, signal } = this.#options;
    this.#refusedAtNextCheck *= 10;
    try {
      await container.check(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isRefused(error)) return;
      const message = `nothing more can be exported: ${messageChain(error)}`;
      throw new JobFailure('StorageRefused', message, { cause: error });
    }
  }

  #failed(path: FilePath, error: unknown): void {
    if (isRefused(error)) this.#refused++;
    const { workerConfig } = this.#options.container;
    this.#fail(path, codeOf(error), messageChain(isRefused(error) ? explained(error, workerConfig) : error));
  }

  #fail(path: FilePath | undefined, code: string, message: string): void {
    this.#options.counters.totalFilesFailed++;
    this.#firstProblem ??= path === undefined ? message : `${pathText(path)}: ${message}`;
    this.#log('error', path, code, message);
  }

  #log(level: 'info' | 'warn' | 'error', path: FilePath | undefined, code: string, message: string): void {
    const named = path === undefined ? {} : { path: typeof path === 'string' ? path : pathText(path) };
    this.#options.log.add({ level, ...named, code, message });
  }
}

/** True, too, where its name cannot be walked to: that cannot be a blob's name in any case. */
async function isEmpty(native: NativeStore, { path, pathBytes }: WalkEntry): Promise<boolean> {
  if (pathBytes !== undefined) return true;
  for await (const _ of below(native, path, 1)) return false;
  return true;
}

/**
 * Whether there are blobs below a directory, by what is in it: not where that is new, or was renamed into it. That of
 * many entries none came from such a blob is answer enough.
 */
async function isImplied(native: NativeStore, path: string): Promise<boolean> {
  let looked = 0;
  for await (const entries of below(native, path, 32)) {
    if (entries.some(({ copy }) => copy?.blob.startsWith(`${path}/`))) return true;
    looked += entries.length;
    if (looked >= enoughEntries) break;
  }
  return false;
}

/** What is below a directory; nothing where it is gone or not to be read: the export of it says so. */
async function* below(
  native: NativeStore,
  path: string,
  batch: number,
): AsyncGenerator<readonly WalkEntry[]> {
  const walk = native.walk({ path, select: 'all', batch });
  try {
    for (let entries = await walk.next(); entries !== null; entries = await walk.next()) yield entries;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  } finally {
    walk.close();
  }
}

/** As text or, where the name is not UTF-8, as bytes. */
function pathOf({ path, pathBytes }: WalkEntry): FilePath {
  return pathBytes ?? path;
}

/** False, too, of a name that leads to nothing: no path begins with it. */
async function isDirectory(native: NativeStore, path: string): Promise<boolean> {
  if (path === '') return true;
  try {
    const [state] = await native.lookup([path]);
    return state?.type === 'directory';
  } catch (error) {
    throw new JobFailure('InvalidPath', `the path cannot be exported: /${path}`, { cause: error });
  }
}

function codeOf(error: unknown): string {
  if (error instanceof Error) {
    if ('kind' in error && typeof error.kind === 'string') return error.kind;
    if ('code' in error && typeof error.code === 'string') return error.code;
  }
  return 'Failed';
}
