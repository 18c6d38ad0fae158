/** `lustrite hydrate` and `release`: one verb for all the files below some paths, a bounded number of them at a time. */
import { constants } from 'node:os';
import type { Clock } from '../base/clock.js';
import type { BulkView } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { pathText } from '../base/path-text.js';
import type { Fid, FileState, NativeStore } from '../store/inodes.js';
import { filesBelow, rootsOf, type NamedFile, type Unreadable } from './bulk-files.js';
import { judgeHydrate, judgeRelease, type Verdict } from './bulk-rules.js';
import type { Coordinator } from './coordinator.js';
import { HPS_RUNNING, HUA_RESTORE } from './flags.js';
import { hasErrno } from './movers.js';

const { EBUSY, ENOENT, EPERM, ESTALE } = constants.errno;

/** A release that finds its file open occupies a thread of the addon for up to a second. */
const releasesAtOnce = 4;
/** Failures that are named. */
const maxNamed = 20;
const viewEveryMs = 200;

export interface HydrateRequest {
  /** Relative to the root. */
  readonly paths: readonly string[];
  /** Absent: as many as the coordinator runs. */
  readonly concurrency?: number;
  readonly dryRun: boolean;
}

export interface ReleaseRequest {
  readonly paths: readonly string[];
  /** What was used within this time stays. */
  readonly unusedForMs?: number;
  readonly dryRun: boolean;
}

export interface BulkVerbsOptions {
  readonly native: Pick<NativeStore, 'lookup' | 'walk'>;
  readonly coordinator: Pick<Coordinator, 'restore' | 'release' | 'status' | 'shownAction' | 'control'>;
  readonly log: Log;
  readonly clock: Clock;
  readonly readOnly: boolean;
}

interface Verb {
  readonly name: BulkView['verb'];
  readonly roots: readonly string[];
  readonly dryRun: boolean;
  readonly concurrency: number;
  readonly judge: (file: FileState) => Verdict | undefined;
  readonly act: (file: FileState, signal: AbortSignal) => Promise<void>;
}

export class BulkVerbs implements AsyncDisposable {
  readonly #options: BulkVerbsOptions;
  readonly #running = new Set<BulkWork>();

  constructor(options: BulkVerbsOptions) {
    this.#options = options;
  }

  /** Rejects with a UserError when it is refused; otherwise what it has come to, again and again, until it is over. */
  async hydrate({ paths, concurrency, dryRun }: HydrateRequest): Promise<AsyncIterable<BulkView>> {
    const { native, coordinator } = this.#options;
    this.#refuseWhileBlocked();
    return this.#follow({
      name: 'hydrate',
      roots: await rootsOf(native, paths),
      dryRun,
      concurrency: concurrency ?? coordinator.control.parameters.maxRequests,
      judge: judgeHydrate,
      act: ({ fid, size }, signal) => coordinator.restore(fid, { size, signal }),
    });
  }

  /** As `hydrate`. */
  async release({ paths, unusedForMs, dryRun }: ReleaseRequest): Promise<AsyncIterable<BulkView>> {
    const { native, coordinator, clock, readOnly } = this.#options;
    this.#refuseWhileBlocked();
    if (readOnly)
      throw new UserError('ReadOnly', 'the mount is read-only: nothing is released', { status: 403 });
    const before =
      unusedForMs === undefined ? undefined : BigInt(Math.round(clock.now() - unusedForMs)) * 1_000_000n;
    return this.#follow({
      name: 'release',
      roots: await rootsOf(native, paths),
      dryRun,
      concurrency: releasesAtOnce,
      judge: (file) => judgeRelease(file, before),
      act: ({ fid }) => coordinator.release(fid),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const work of this.#running) work.stop();
    await Promise.all([...this.#running].map(({ ended }) => ended));
  }

  #refuseWhileBlocked(): void {
    const { blocked } = this.#options.coordinator.status();
    if (blocked !== null) throw new UserError('Busy', `no HSM request is taken: ${blocked}`, { status: 409 });
  }

  /** Whoever stops listening stops the work. */
  async *#follow(verb: Verb): AsyncGenerator<BulkView> {
    const { clock } = this.#options;
    const work = new BulkWork(verb, this.#options);
    this.#running.add(work);
    const over = work.ended.then(() => true);
    try {
      for (let ended = false; !ended;) {
        yield work.view();
        ended = await Promise.race([over, clock.sleep(viewEveryMs).then(() => false)]);
      }
      yield work.view();
    } finally {
      work.stop();
      await work.ended;
      this.#running.delete(work);
    }
  }
}

interface Tally {
  readonly done: { files: number; bytes: number };
  there: number;
  readonly kept: Record<string, number>;
  failed: number;
  readonly failures: { readonly path: string; readonly cause: string }[];
}

class BulkWork {
  readonly ended: Promise<void>;
  readonly #verb: Verb;
  readonly #options: BulkVerbsOptions;
  readonly #stop = new AbortController();
  readonly #moving = new Set<Fid>();
  readonly #total = { files: 0, bytes: 0 };
  #tally: Tally = emptyTally();
  #state: BulkView['state'] = 'Counting';
  #error: BulkView['error'];

  constructor(verb: Verb, options: BulkVerbsOptions) {
    this.#verb = verb;
    this.#options = options;
    this.ended = this.#run();
  }

  stop(): void {
    this.#stop.abort();
  }

  view(): BulkView {
    const { name, dryRun } = this.#verb;
    const { done, there, kept, failed, failures } = this.#tally;
    const moved = [...this.#moving].reduce((sum, fid) => sum + this.#movedOf(fid), 0);
    return {
      verb: name,
      dryRun,
      state: this.#state,
      total: { ...this.#total },
      done: { files: done.files, bytes: done.bytes + moved },
      there,
      kept: { ...kept },
      failed,
      failures: [...failures],
      ...(this.#error && { error: this.#error }),
    };
  }

  async #run(): Promise<void> {
    const { native, log } = this.#options;
    const { name, roots, dryRun, concurrency } = this.#verb;
    try {
      for await (const file of filesBelow(native, roots)) {
        if (this.#stop.signal.aborted) break;
        this.#count(file);
      }
      if (!dryRun && !this.#stop.signal.aborted) {
        this.#state = 'InProgress';
        this.#tally = emptyTally();
        const files = filesBelow(native, roots);
        const workers = Array.from({ length: concurrency }, () => this.#work(files));
        for (const ended of await Promise.allSettled(workers))
          if (ended.status === 'rejected') throw ended.reason as Error;
      }
    } catch (error) {
      this.#error = {
        code: error instanceof UserError ? error.code : 'InternalError',
        message: messageChain(error),
      };
    }
    this.#state = this.#stop.signal.aborted || this.#error !== undefined ? 'Stopped' : 'Done';
    const { done, there, kept, failed } = this.#tally;
    const said = { verb: name, roots, dryRun, ...done, there, kept, failed, state: this.#state };
    log.info(this.#error === undefined ? said : { ...said, cause: this.#error.message }, 'a bulk verb ended');
  }

  /** What a walk finds now. Where it will be worked on, that decides again. */
  #count(file: NamedFile | Unreadable): void {
    const verdict = this.#judge(file);
    if (verdict?.kind !== 'do') return;
    this.#total.files++;
    this.#total.bytes += verdict.bytes;
  }

  async #work(files: AsyncGenerator<NamedFile | Unreadable>): Promise<void> {
    for (;;) {
      const next = await files.next();
      if (next.done === true || this.#stop.signal.aborted) {
        // Closes the walk, whoever comes first.
        await files.return(undefined);
        return;
      }
      const file = next.value;
      const verdict = this.#judge(file);
      if (verdict?.kind === 'do' && !('error' in file)) await this.#act(file, verdict.bytes);
    }
  }

  async #act({ path, state }: NamedFile, bytes: number): Promise<void> {
    const { fid } = state;
    const { blocked } = this.#options.coordinator.status();
    if (blocked !== null) {
      this.stop();
      throw new UserError('Busy', `no HSM request is taken: ${blocked}`);
    }
    this.#moving.add(fid);
    try {
      await this.#verb.act(state, this.#stop.signal);
      this.#tally.done.files++;
      this.#tally.done.bytes += bytes;
    } catch (error) {
      if (this.#stop.signal.aborted || hasErrno(error, ENOENT, ESTALE)) return;
      // What came in between: somebody opened it, or wrote.
      if (this.#verb.name === 'release' && hasErrno(error, EBUSY)) this.#keep('open');
      else if (this.#verb.name === 'release' && hasErrno(error, EPERM)) this.#keep('dirty');
      else this.#fail(pathText(path), messageChain(error));
    } finally {
      this.#moving.delete(fid);
    }
  }

  #judge(file: NamedFile | Unreadable): Verdict | undefined {
    if ('error' in file) {
      this.#fail('', `a directory could not be read: ${messageChain(file.error)}`);
      return undefined;
    }
    const verdict = this.#verb.judge(file.state);
    if (verdict?.kind === 'there') this.#tally.there++;
    else if (verdict?.kind === 'kept') this.#keep(verdict.reason);
    else if (verdict?.kind === 'failed') this.#fail(pathText(file.path), verdict.cause);
    return verdict;
  }

  #keep(reason: string): void {
    this.#tally.kept[reason] = (this.#tally.kept[reason] ?? 0) + 1;
  }

  #fail(path: string, cause: string): void {
    const { failures } = this.#tally;
    this.#tally.failed++;
    if (failures.length < maxNamed) failures.push({ path, cause });
  }

  #movedOf(fid: Fid): number {
    const shown = this.#options.coordinator.shownAction(fid);
    return shown?.state === HPS_RUNNING && shown.action === HUA_RESTORE ? Number(shown.length) : 0;
  }
}

function emptyTally(): Tally {
  return { done: { files: 0, bytes: 0 }, there: 0, kept: {}, failed: 0, failures: [] };
}
