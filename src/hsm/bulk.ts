/** `lustrite hydrate` and `release`: one verb for all the files below some paths, a bounded number of them at a time. */
import { setMaxListeners } from 'node:events';
import { constants } from 'node:os';
import type { Clock } from '../base/clock.js';
import type { BulkView } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { pathText } from '../base/path-text.js';
import type { Fid, FileState, NativeStore } from '../store/inodes.js';
import { filesBelow, rootsOf, type NamedFile, type Unreadable } from './bulk-files.js';
import { hydratesAtOnce, judgeHydrate, judgeRelease, type Verdict } from './bulk-rules.js';
import type { Coordinator } from './coordinator.js';
import { HPS_RUNNING, HUA_RESTORE } from './flags.js';
import { hasErrno } from './movers.js';
import type { SpaceManager } from './space-manager.js';
import { maxBytes } from './transfers.js';

const { EBUSY, EDQUOT, ENOENT, ENOSPC, EPERM, ESTALE } = constants.errno;

/** A release that finds its file open occupies a thread of the addon for up to a second. */
const releasesAtOnce = 4;
/** Archives and removes do not wait for bytes behind restores that nobody waits for. */
const bytesHydratedAtOnce = maxBytes / 2;
/** A file no smaller than one that has found no room is left for so long without asking. */
const noRoomForMs = 1000;
/** Failures that are named. */
const maxNamed = 20;
const viewEveryMs = 200;

export interface HydrateRequest {
  /** Relative to the root. */
  readonly paths: readonly string[];
  /** At most; absent: as many as the coordinator has room for. */
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
  /** Absent: nobody remembers what was restored. */
  readonly space?: Pick<SpaceManager, 'restoredAt'>;
  readonly log: Log;
  readonly clock: Clock;
  /** For what messages tell to run. */
  readonly mountPoint: string;
  readonly readOnly: boolean;
}

interface Verb {
  readonly name: BulkView['verb'];
  readonly roots: readonly string[];
  readonly dryRun: boolean;
  /** Files and bytes at a time. */
  readonly limits: () => { readonly files: number; readonly bytes: number };
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
    const { native, coordinator, clock } = this.#options;
    this.#refuseWhileBlocked();
    if (!dryRun) this.#refuseWhileStopped();
    // What it has restored itself does not make room for the rest.
    const usedBefore = clock.now();
    return this.#follow({
      name: 'hydrate',
      roots: await rootsOf(native, paths),
      dryRun,
      limits: () => ({
        files: hydratesAtOnce(coordinator.control.parameters.maxRequests, concurrency),
        bytes: bytesHydratedAtOnce,
      }),
      judge: judgeHydrate,
      act: ({ fid, size }, signal) =>
        coordinator.restore(fid, { size: Math.min(size, bytesHydratedAtOnce), signal, usedBefore }),
    });
  }

  /** As `hydrate`. */
  async release({ paths, unusedForMs, dryRun }: ReleaseRequest): Promise<AsyncIterable<BulkView>> {
    const { native, coordinator, space, clock, readOnly } = this.#options;
    this.#refuseWhileBlocked();
    if (readOnly)
      throw new UserError('ReadOnly', 'the mount is read-only: nothing is released', { status: 403 });
    const usedBefore = unusedForMs === undefined ? undefined : clock.now() - unusedForMs;
    return this.#follow({
      name: 'release',
      roots: await rootsOf(native, paths),
      dryRun,
      limits: () => ({ files: releasesAtOnce, bytes: Number.POSITIVE_INFINITY }),
      judge: (file) => judgeRelease(file, { usedBefore, restoredAt: space?.restoredAt(file.fid) }),
      act: ({ fid }) => coordinator.release(fid),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const work of this.#running) work.stop();
    await Promise.all([...this.#running].map(({ ended }) => ended));
  }

  /** Nothing would come: neither would it say so. */
  #refuseWhileStopped(): void {
    const { control } = this.#options.coordinator.status();
    if (control === 'enabled') return;
    const what = `no file is restored: hsm_control is ${control === 'stopped' ? 'shutdown' : control}`;
    const enable = `lustrite hsm set-param ${pathText(this.#options.mountPoint)} hsm_control=enabled`;
    throw new UserError('Busy', `${what}; ${enable}`, { status: 409 });
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
  #noRoom: { readonly bytes: number; readonly untilMs: number } | undefined;
  #state: BulkView['state'] = 'Counting';
  #error: BulkView['error'];

  constructor(verb: Verb, options: BulkVerbsOptions) {
    this.#verb = verb;
    this.#options = options;
    // As many as files at a time.
    setMaxListeners(0, this.#stop.signal);
    this.ended = this.#run();
  }

  stop(): void {
    this.#stop.abort();
  }

  view(): BulkView {
    const { name, dryRun } = this.#verb;
    const { done, there, kept, failed, failures } = this.#tally;
    const movedBytes = [...this.#moving].reduce((sum, fid) => sum + this.#movedOf(fid), 0);
    return {
      verb: name,
      dryRun,
      state: this.#state,
      total: { ...this.#total },
      done: { ...done },
      movedBytes,
      there,
      kept: { ...kept },
      failed,
      failures: [...failures],
      ...(this.#error && { error: this.#error }),
    };
  }

  async #run(): Promise<void> {
    const { native, log } = this.#options;
    const { name, roots, dryRun } = this.#verb;
    try {
      for await (const file of filesBelow(native, roots)) {
        if (this.#stop.signal.aborted) break;
        this.#count(file);
      }
      if (!dryRun && !this.#stop.signal.aborted) {
        this.#state = 'InProgress';
        this.#tally = emptyTally();
        await this.#work();
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

  /** As many files at a time as the verb's limits allow; rejects as the first of them does that may not go on. */
  async #work(): Promise<void> {
    const { native } = this.#options;
    const { roots, limits } = this.#verb;
    const acting = new Map<Promise<unknown>, number>();
    const failures: unknown[] = [];
    let wake = (): void => undefined;
    const isOver = (): boolean => this.#stop.signal.aborted;
    const isFull = (more: number): boolean => {
      const { files, bytes } = limits();
      const moving = [...acting.values()].reduce((sum, one) => sum + one, 0);
      return acting.size >= files || (acting.size > 0 && moving + more > bytes);
    };
    try {
      for await (const file of filesBelow(native, roots)) {
        if (isOver()) break;
        const verdict = this.#judge(file);
        if (verdict?.kind !== 'do' || 'error' in file) continue;
        const { bytes } = verdict;
        while (isFull(bytes)) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        if (isOver()) break;
        const one = this.#act(file, bytes)
          .catch((error: unknown) => failures.push(error))
          .finally(() => {
            acting.delete(one);
            wake();
          });
        acting.set(one, bytes);
      }
    } finally {
      await Promise.all(acting.keys());
    }
    const [failure] = failures;
    if (failure !== undefined) throw failure as Error;
  }

  async #act({ path, state }: NamedFile, bytes: number): Promise<void> {
    const { fid } = state;
    const { blocked } = this.#options.coordinator.status();
    if (blocked !== null) {
      this.stop();
      throw new UserError('Busy', `no HSM request is taken: ${blocked}`);
    }
    const { clock } = this.#options;
    if (this.#noRoom !== undefined && bytes >= this.#noRoom.bytes && clock.now() < this.#noRoom.untilMs) {
      this.#keep('no_room');
      return;
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
      else if (this.#verb.name === 'hydrate' && isBecauseOf(error, ENOSPC, EDQUOT)) {
        this.#noRoom = { bytes, untilMs: clock.now() + noRoomForMs };
        this.#keep('no_room');
      } else this.#fail(pathText(path), messageChain(error));
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

function isBecauseOf(error: unknown, ...errnos: readonly number[]): boolean {
  for (let cause = error; cause instanceof Error; { cause } = cause)
    if (hasErrno(cause, ...errnos)) return true;
  return false;
}

function emptyTally(): Tally {
  return { done: { files: 0, bytes: 0 }, there: 0, kept: {}, failed: 0, failures: [] };
}
