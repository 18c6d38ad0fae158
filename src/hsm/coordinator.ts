/**
 * The HSM coordinator: every transfer between an inode and its blob goes through here, whoever asks for it. Reads of a
 * stub, `lfs hsm_*` and jobs meet in one queue; one transfer serves any number of readers.
 */
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../base/clock.js';
import { BlobError, FsError, isOutage, messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { pathText } from '../base/path-text.js';
import { unlessAborted } from '../base/unless-aborted.js';
import { blobOfPath } from '../blob/names.js';
import type { Container } from '../blob/port.js';
import type { Copy, Fid, FileState, HsmRequest, HsmStateSet, ShownAction } from '../store/inodes.js';
import type { JournalEntry } from '../store/journal.js';
import type { Store } from '../store/store.js';
import { unlinkedCopy } from '../store/unlinked.js';
import { archiveFile, type ArchiveOutcome, type ArchiveRequest, type BlobNames } from './archive-mover.js';
import { BlobOwners } from './blob-owner.js';
import { callerOf } from './caller.js';
import { Changelog } from './changelog.js';
import { endWord } from './changelog-record.js';
import { DurableRequests, type NewRequest } from './durable-requests.js';
import { ExplicitRequests } from './explicit-requests.js';
import {
  actionName,
  HS_DIRTY,
  HS_NOARCHIVE,
  HUA_ARCHIVE,
  HUA_RESTORE,
  HUA_REMOVE,
  type RequestName,
} from './flags.js';
import { HsmControl } from './hsm-control.js';
import { errnoOf, hasErrno, type HsmConfig, type MoverContext, type Transfers } from './movers.js';
import { NameLocks } from './name-locks.js';
import { keepOtherNames } from './other-names.js';
import { defaultParameters, type RequestMasks } from './parameters.js';
import { PathFinder } from './paths.js';
import { removeCopy, removeUnlinkedCopy } from './remove-mover.js';
import { decideRequest, permitRequest, type QueuedAction } from './request-rules.js';
import { restoreFile } from './restore-mover.js';
import { strictName } from './strict-name.js';
import { causeErrno } from './transfer-errno.js';
import {
  Transfer,
  TransferTable,
  type ControlState,
  type FinishedTransfer,
  type TransferCounts,
} from './transfers.js';

const { EAGAIN, ECANCELED, EBUSY, EINTR, EPERM, ENOENT, EIO, ESTALE } = constants.errno;

/** Requests that stall are looked for so often. */
const housekeepingMs = 1000;

export interface CoordinatorOptions {
  readonly store: Pick<Store, 'native' | 'requestsDir' | 'unlinkedDir' | 'changelogDir' | 'meta'>;
  readonly container: Container;
  readonly pool: Transfers;
  readonly log: Log;
  readonly config: HsmConfig;
  readonly clock: Clock;
  readonly space?: MoverContext['space'];
}

export interface RestoreOptions {
  readonly signal?: AbortSignal;
  readonly size?: number;
  /** Milliseconds since the epoch: files that were used since do not make room for it. */
  readonly usedBefore?: number | undefined;
}

export interface HsmStatus extends TransferCounts {
  /** What `hsm_control` says; `stopped`: shutdown. */
  readonly control: ControlState;
  /** Why `lfs hsm_*` is refused, null when it is not. */
  readonly blocked: string | null;
  /** Explicit requests that a restart would take up again. */
  readonly durable: number;
  /** The last finished requests, newest last. */
  readonly recent: readonly FinishedTransfer[];
}

export class Coordinator implements AsyncDisposable {
  readonly #context: MoverContext;
  readonly #clock: Clock;
  readonly #unlinkedDir: string;
  readonly #table: TransferTable;
  readonly #locks = new NameLocks();
  readonly #owners: BlobOwners;
  readonly #paths: PathFinder;
  readonly #explicit: ExplicitRequests;
  readonly #durable: DurableRequests;
  /** The parameters, and who turns the coordinator on and off. */
  readonly control: HsmControl;
  /** It ends with the store, which tells of changes until it is closed: the coordinator does not dispose of it. */
  readonly changelog: Changelog;
  #housekeeping: NodeJS.Timeout | undefined;
  /** Files that have lost their last name, until the journal has them. */
  readonly #gone: NewRequest[] = [];
  #blocked: string | null = null;
  readonly #savedListeners = new Set<(fid: Fid) => void>();

  constructor({ store, container, pool, log, config, clock, space }: CoordinatorOptions) {
    const { native } = store;
    this.#context = { native, storeId: store.meta.fsId, container, pool, log, config, space };
    this.#clock = clock;
    this.#unlinkedDir = store.unlinkedDir;
    this.changelog = new Changelog({ folder: store.changelogDir, native, log, clock });
    this.#table = new TransferTable({
      native,
      log,
      clock,
      maxRequests: config.hsm.maxRequests,
      ended: (transfer, failure) => void this.#recordEnd(transfer, failure),
    });
    this.control = new HsmControl({
      native,
      table: this.#table,
      purge: () => this.cancelAll(),
      clock,
      log,
      fsName: store.meta.fsName,
      fsId: store.meta.fsId,
      file: join(store.requestsDir, 'parameters.json'),
      initial: {
        ...defaultParameters,
        maxRequests: config.hsm.maxRequests,
        defaultArchiveId: config.hsm.defaultArchiveId,
      },
    });
    this.#owners = new BlobOwners({
      native,
      log,
      restore: (fid) => this.#restore(fid, { recorded: true }),
      blobExists: (blob) => isFile(container, blob),
      saved: (fid) => {
        for (const listener of this.#savedListeners) listener(fid);
      },
    });
    this.#paths = new PathFinder(native);
    this.#durable = new DurableRequests({
      folder: store.requestsDir,
      log,
      clock,
      sizeOf: async (entry) => (await this.#copyLeft(entry))?.size ?? (await native.state(entry.fid)).size,
      held: () => this.#blocked !== null,
      queue: (entry, size) => {
        this.#queue(entry, size);
      },
    });
    this.#explicit = new ExplicitRequests({
      native,
      log,
      readOnly: config.readOnly,
      parameters: () => this.control.parameters,
      stopped: () => this.#table.control === 'stopped',
      unlinked: async (fid) => (await unlinkedCopy(this.#unlinkedDir, fid))?.copy,
      restoring: (fid) => this.#table.restoreOf(fid)?.asked !== undefined,
      restored: async (fid) => {
        const restore = this.#table.restores(fid).at(-1);
        // A reader has the file open: the release will be refused for that.
        if (restore?.asked === undefined || restore.wanted > 1) return;
        await this.#table.overOrHalted(restore).catch(() => undefined);
      },
      cancel: (fids) => {
        const ended = this.#durable.end((entry) => fids.includes(entry.fid));
        for (const fid of fids) this.#table.cancel(fid);
        return ended;
      },
      active: (fid) => this.#table.has(fid) || this.#durable.has(fid),
      enqueue: (requests) => this.#enqueue(requests),
    });
  }

  /** Opens the journal and takes up what the last daemon left: what had started waits again (lustre-hsm 5.3). */
  async start(): Promise<void> {
    const takeUp = await this.#durable.start();
    await this.control.start();
    await this.changelog.start();
    this.#housekeeping = setInterval(() => {
      this.housekeep();
    }, housekeepingMs).unref();
    takeUp();
  }

  /** Somebody waits for the data of `fid`: NativeStore's event of the same name. */
  restoreNeeded(fid: Fid, pid: number): void {
    const running = this.#table.restoreOf(fid);
    if (running !== undefined) {
      this.#table.join(running);
      return;
    }
    this.#context.log.debug({ fid, pid }, 'restore needed');
    if (!this.#mayRestore(fid, pid)) return;
    void this.#restore(fid).catch(() => undefined);
  }

  /** NativeStore's event: with remove_archive_on_last_unlink, what it was archived to goes, too (lustre-hsm 5.3). */
  fileGone(fid: Fid, copy: Copy, archiveId: number): void {
    if (this.#context.config.readOnly) return;
    if (this.#gone.length === 0) setImmediate(() => void this.#removeGone());
    this.#gone.push({ action: HUA_REMOVE, fid, archiveId, uid: 0, copy });
  }

  /** However many went at a time, with one write of the journal; also for a coordinator that is stopped. */
  async #removeGone(): Promise<void> {
    const gone = this.#gone.splice(0);
    try {
      await this.#durable.add(gone);
    } catch (error) {
      const cause = messageChain(error);
      this.#context.log.warn({ files: gone.length, cause }, 'the copies of deleted files are not removed');
    }
  }

  /**
   * Restores a file, or waits for the restore that runs; rejects with ENODATA when that fails. `signal` gives it up, and
   * cancels it where nobody else wants it. `size`: of the file, as far as known.
   */
  async restore(fid: Fid, { signal, size = 0, usedBefore }: RestoreOptions = {}): Promise<void> {
    const running = this.#table.restoreOf(fid);
    const transfer = running ?? this.#restoreTransfer(fid, 'restore', { size, usedBefore });
    if (running !== undefined) {
      running.wanted++;
      running.usedBefore = earlier(running.usedBefore, usedBefore);
    }
    const done = running?.done ?? this.#table.run(transfer);
    const leave = (): void => {
      this.#table.leave(transfer);
    };
    if (signal?.aborted === true) leave();
    signal?.addEventListener('abort', leave, { once: true });
    try {
      // Others may want it still.
      await (signal === undefined ? done : unlessAborted(() => done, signal));
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /**
   * Archives a file under its path; waits for its turn and its end. `path`: where it is, text or, where that is not
   * UTF-8, bytes; `links`: further names of it that get the same blob, those that it has no more are left out. Where it
   * has others, too, it is not clean. `complete` is asked with the blobs that were written, before the file is clean.
   * `signal` ends it, `unlessBegun` as long as it waits for its turn. Never rejects.
   */
  async archive(
    fid: Fid,
    options: {
      readonly path: string | Uint8Array;
      readonly links?: readonly (string | Uint8Array)[];
      readonly complete?: ArchiveRequest['complete'];
      readonly signal?: AbortSignal;
      readonly unlessBegun?: AbortSignal;
    },
  ): Promise<ArchiveOutcome> {
    const blobs: string[] = [];
    for (const path of [options.path, ...(options.links ?? [])]) {
      const name = blobOfPath(path);
      if ('refused' in name) return { kind: 'refused', code: 'InvalidName', reason: name.refused };
      blobs.push(name.name);
    }
    let state: FileState;
    try {
      state = await this.#context.native.state(fid);
    } catch (error) {
      return errnoOf(error) === ENOENT ? { kind: 'gone' } : { kind: 'failed', error };
    }
    if ((state.flags & HS_NOARCHIVE) !== 0) {
      return { kind: 'refused', code: 'NoArchive', reason: 'the file is marked never_archive' };
    }
    let outcome: ArchiveOutcome = { kind: 'canceled' };
    const transfer = new Transfer(fid, HUA_ARCHIVE, 'archive', state.size, async (self) => {
      options.unlessBegun?.throwIfAborted();
      outcome = await this.#archive(state, blobs, self, options.complete);
      throwUnlessArchived(outcome);
    });
    transfer.archiveId = state.archiveId || this.control.parameters.defaultArchiveId;
    await this.#table.run(transfer, options.signal).catch(() => undefined);
    return outcome;
  }

  /**
   * Runs `work`, which writes or deletes the blob `name`, when no other file's only copy is that blob and nobody else
   * writes it. Rejects without running it when another file's data cannot be saved first, or the signal is aborted before
   * that is done.
   */
  withBlob<T>(
    name: string,
    owner: Fid | undefined,
    work: () => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const claimed = async (): Promise<T> => {
      const claim = (): Promise<void> => this.#owners.claim(name, owner);
      await (signal === undefined ? claim() : unlessAborted(claim, signal));
      return work();
    };
    return this.#locks.hold(name, claimed, signal);
  }

  /** Before the blob of `path`, one of several names of a file, is another's: src/hsm/other-names.ts. */
  keepOtherNames(fid: Fid, path: string, copyAt: (name: string) => Promise<Copy | undefined>): Promise<void> {
    const { native } = this.#context;
    return keepOtherNames({ native, paths: this.#paths, owners: this.#owners }, fid, path, copyAt);
  }

  /** The blob is another file's now: where this one has data of it, that is modified. */
  disown(fid: Fid, blob: string): Promise<void> {
    return this.#owners.disown(fid, blob);
  }

  /** The container has these versions of blobs: whoever has the data of another one under another name is modified. */
  keepRenamed(copies: readonly Copy[]): Promise<void> {
    return this.#owners.keepRenamed(copies);
  }

  /** Releases a file: EPERM, EBUSY, … as lustre-hsm 3.3. */
  release(fid: Fid): Promise<void> {
    return this.#context.native.release(fid);
  }

  /** What `lfs hsm_archive`, `_restore`, `_release`, `_remove` and `_cancel` answer: 0 or an errno. */
  async request(request: HsmRequest): Promise<number> {
    if (this.#refusedByBlock(actionName(request.action))) return EBUSY;
    return this.#errnoOf(this.#explicit.request(request));
  }

  /** What `lfs hsm_set` and `hsm_clear` answer: 0 or an errno. */
  async stateSet(request: HsmStateSet): Promise<number> {
    if (this.#refusedByBlock('hsm_set')) return EBUSY;
    return this.#errnoOf(this.#explicit.stateSet(request));
  }

  /** What `lfs hsm_action` shows of a file, undefined for NOOP. */
  shownAction(fid: Fid): ShownAction | undefined {
    return this.#table.shown(fid);
  }

  /** Cancels everything that waits or runs; readers get ENODATA. No later daemon takes it up when it resolves. */
  cancelAll(): Promise<void> {
    const ended = this.#durable.end(() => true);
    this.#table.cancelAll();
    return ended;
  }

  status(): HsmStatus {
    return {
      ...this.#table.counts(),
      control: this.#table.control,
      blocked: this.#blocked,
      durable: this.#durable.size,
      recent: this.#table.recent(),
    };
  }

  /**
   * While there is a reason, `lfs hsm_*` that changes something is answered with EBUSY, and archives and removes that
   * start() has found, or a deleted file asks for, are held; reads still restore.
   */
  setBlocked(reason: string | null): void {
    this.#blocked = reason;
    if (reason === null) this.#durable.free();
  }

  /** Files that have changed as their blob was to get other content: what only they have now is here. */
  onSaved(listener: (fid: Fid) => void): Disposable {
    this.#savedListeners.add(listener);
    return { [Symbol.dispose]: () => void this.#savedListeners.delete(listener) };
  }

  /** Explicit archives and removes that are not over, of deleted files, too. */
  get changing(): number {
    return this.#durable.changing;
  }

  /** Every second: cancels what stalls (hsm.active_request_timeout). */
  housekeep(): void {
    this.#table.cancelStalled(this.control.parameters.activeRequestTimeout * 1000);
  }

  /** Whether everybody who needs the data of a released file gets it, or waits for it. */
  get servesReaders(): boolean {
    const { nonBlockingRestore, masks } = this.control.parameters;
    return this.#table.control === 'enabled' && !nonBlockingRestore && allMayRestore(masks);
  }

  /** Stops what runs. Explicit requests stay in the journal for the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#housekeeping);
    await this.#table.close();
    await this.#durable[Symbol.asyncDispose]();
  }

  /** For somebody who waits. `recorded`: from the blob of the record under `compat.strict`, too, where data would be lost. */
  #restore(fid: Fid, { recorded = false } = {}): Promise<void> {
    const running = this.#table.restoreOf(fid);
    if (running === undefined) return this.#table.run(this.#restoreTransfer(fid, 'implicit', { recorded }));
    this.#table.join(running);
    return running.done;
  }

  #restoreTransfer(
    fid: Fid,
    wanted: 'implicit' | 'restore',
    {
      size = 0,
      recorded = false,
      usedBefore,
    }: Omit<RestoreOptions, 'signal'> & { readonly recorded?: boolean } = {},
  ): Transfer {
    const transfer = new Transfer(fid, HUA_RESTORE, wanted, size, async (self) => {
      const { native } = this.#context;
      let state: FileState;
      try {
        state = await native.state(fid);
      } catch (error) {
        self.finishing = true;
        await native.failRestore(fid, this.#table.failureOf(self)).catch(() => undefined);
        throw error;
      }
      self.blob = state.copy?.blob;
      self.archiveId ||= state.archiveId;
      await restoreFile(this.#context, state, {
        signal: self.signal,
        lookFor: recorded ? undefined : this.#strictly(state, self),
        onProgress: (bytes) => this.#table.progress(self, bytes),
        onFinishing() {
          self.finishing = true;
        },
        failure: () => this.#table.failureOf(self),
        outage: (error) => this.#retries(self, error),
        usedBefore: () => self.usedBefore,
      });
      self.moved = state.copy?.size ?? 0;
    });
    transfer.usedBefore = usedBefore;
    return transfer;
  }

  async #archive(
    state: FileState,
    names: readonly string[],
    self: Transfer,
    complete?: ArchiveRequest['complete'],
  ): Promise<ArchiveOutcome> {
    const { native } = this.#context;
    const { fid } = state;
    self.blob = names[0];
    try {
      const archived = async (): Promise<ArchiveOutcome> => {
        const renames = native.renames();
        const before = await namesLeft(native, fid, names);
        if (typeof before === 'string') return { kind: before };
        for (const blob of before.blobs)
          await unlessAborted(() => this.#owners.claim(blob, fid, { replaced: true }), self.signal);
        // Again: the claim may have waited for a restore.
        const now = await namesLeft(native, fid, before.blobs);
        if (typeof now === 'string') return { kind: now };
        const { blobs, nlink } = now;
        const archiveId = self.archiveId || state.archiveId || this.control.parameters.defaultArchiveId;
        const named = { all: true };
        const whole = async (): Promise<boolean> => {
          if ((await complete?.(blobs)) === false) return false;
          if (native.renames() !== renames || nlink > blobs.length)
            named.all = await allNamed(native, fid, blobs);
          return named.all;
        };
        const outcome = await archiveFile(
          this.#context,
          { fid, blobs, archiveId, complete: whole },
          { signal: self.signal, onProgress: (bytes) => this.#table.progress(self, bytes) },
        );
        if (native.renames() !== renames) this.#owners.displaced();
        // Also where the file is dirty again: the copy may be recorded.
        if (nlink > 1) this.#owners.linked(blobs[0], fid);
        if (outcome.kind === 'archived' && !named.all) return { kind: 'more-names' };
        if (outcome.kind === 'archived') self.moved = outcome.copy.size * outcome.blobs.length;
        return outcome;
      };
      return await this.#locks.holdAll(names, archived, self.signal);
    } catch (error) {
      return self.signal.aborted ? { kind: 'canceled' } : { kind: 'failed', error };
    }
  }

  /** Journals explicit requests, then queues them. */
  async #enqueue(requests: readonly NewRequest[]): Promise<void> {
    if (!this.#durable.started || this.#table.full || this.#table.control === 'stopped')
      throw new FsError(EAGAIN, 'the coordinator takes no requests');
    // Since it was asked: who blocks has counted what is journaled.
    if (this.#blocked !== null) throw new FsError(EBUSY, this.#blocked);
    await this.#durable.add(requests);
  }

  #queue(entry: JournalEntry, size: number): void {
    const { log } = this.#context;
    const { fid, action, archiveId } = entry;
    const shared = action === HUA_RESTORE ? this.#table.restoreOf(fid) : undefined;
    const transfer =
      shared ??
      (action === HUA_RESTORE
        ? this.#restoreTransfer(fid, 'restore', { size })
        : this.#explicitTransfer(entry, size));
    transfer.asked ??= { data: entry.data };
    transfer.archiveId ||= archiveId;
    transfer.usedBefore = undefined;
    const done = shared?.done ?? this.#table.run(transfer);
    void done
      .catch((error: unknown) => {
        const said = {
          fid,
          action: actionName(action),
          archiveId,
          blob: transfer.blob,
          cause: messageChain(error),
        };
        log.warn(said, 'HSM request failed');
      })
      .finally(() => {
        if (!transfer.interrupted || transfer.succeeded)
          this.#durable.over(entry, { durable: action !== HUA_RESTORE });
      });
  }

  /** What a remove is about when its file has no name any more, perhaps only since it was asked for (lustre-hsm 3.1). */
  async #copyLeft({ fid, action, copy }: JournalEntry): Promise<Copy | undefined> {
    if (copy !== undefined || action !== HUA_REMOVE) return copy;
    try {
      await this.#context.native.state(fid);
      return undefined;
    } catch (error) {
      if (!hasErrno(error, ENOENT, ESTALE)) throw error;
      return (await unlinkedCopy(this.#unlinkedDir, fid))?.copy;
    }
  }

  /** The copy of a file that nobody can name any more. */
  async #removeUnlinked({ fid }: JournalEntry, copy: Copy, self: Transfer): Promise<void> {
    const { native, container } = this.#context;
    const { blob, etag } = copy;
    self.blob = blob;
    const state = await native.state(fid).catch(() => undefined);
    if (state !== undefined && state.nlink > 0) throw new FsError(EPERM, 'the file has a name again');
    await this.#untilItAnswers(self, async () => {
      // What is there by now may be a newer file's, which is not to be saved from us.
      if (!(await isThere(container, blob, etag, self.signal))) return;
      this.#table.progress(self, 0);
      const remove = (): Promise<void> => removeUnlinkedCopy(this.#context, copy, self.signal);
      await this.withBlob(blob, undefined, remove, self.signal);
    });
  }

  #explicitTransfer(entry: JournalEntry, size: number): Transfer {
    const { fid, archiveId } = entry;
    const action = entry.action as typeof HUA_ARCHIVE | typeof HUA_REMOVE;
    const named = action === HUA_ARCHIVE ? 'archive' : 'remove';
    return new Transfer(fid, action, named, size, async (self) => {
      const copy = await this.#copyLeft(entry);
      if (copy !== undefined) {
        await this.#removeUnlinked(entry, copy, self);
        return;
      }
      const state = await this.#checked(fid, action, archiveId);
      if (action === HUA_ARCHIVE) {
        await this.#untilItAnswers(self, async () => {
          const { blobs, refused } = await this.#blobsOf(state);
          const complete = (): Promise<boolean> => Promise.resolve(refused === '');
          throwUnlessArchived(await this.#archive(state, blobs, self, complete));
          if (refused !== '') throw new FsError('EINVAL', refused);
        });
        return;
      }
      await this.#untilItAnswers(self, async () => {
        const blob = state.copy && ((await this.#strictly(state, self)?.()) ?? state.copy.blob);
        self.blob = blob;
        const remove = (): Promise<void> => {
          this.#table.progress(self, 0);
          return removeCopy(this.#context, state, blob, self.signal);
        };
        await (blob === undefined ? remove() : this.withBlob(blob, fid, remove, self.signal));
      });
    });
  }

  /** Whoever waits for the file is told ENODATA where the coordinator is stopped or his mask has no RESTORE. */
  #mayRestore(fid: Fid, pid: number): boolean {
    const { log } = this.#context;
    if (allMayRestore(this.control.parameters.masks)) return true;
    void this.#permitsRestore(fid, pid).then((permitted) => {
      // One that runs by now serves everybody; what it works with is not for a refusal to close.
      if (permitted || this.#table.restoreOf(fid) !== undefined) {
        void this.#restore(fid).catch(() => undefined);
        return;
      }
      log.info({ fid, pid }, 'the request mask of the reader has no RESTORE');
      const refused = new FsError(EPERM, 'the request mask has no RESTORE');
      this.#table.refuse(this.#restoreTransfer(fid, 'implicit'), refused);
    });
    return false;
  }

  async #permitsRestore(fid: Fid, pid: number): Promise<boolean> {
    const { native, config } = this.#context;
    const { readOnly } = config;
    try {
      const [caller, state] = await Promise.all([callerOf(pid), native.state(fid)]);
      return (
        permitRequest(HUA_RESTORE, caller, state, { readOnly, masks: this.control.parameters.masks }) === 0
      );
    } catch {
      // Whoever asked is gone: nobody needs to be refused.
      return true;
    }
  }

  /** Waits where a failure is the storage's and the policy says to try again; false: it is final. */
  async #retries(self: Transfer, error: unknown): Promise<boolean> {
    const { noRetryAction, loopPeriod } = this.control.parameters;
    if (noRetryAction || !(isOutage(error) || (error instanceof FsError && isOutage(error.cause))))
      return false;
    await this.#clock.sleep(loopPeriod * 1000, self.signal);
    return true;
  }

  async #untilItAnswers<T>(self: Transfer, work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!(await this.#retries(self, error))) throw error;
      }
    }
  }

  /** What finds the blob as production does, where that is wanted. */
  #strictly(state: FileState, { asked }: Transfer): (() => Promise<string>) | undefined {
    if (!this.#context.config.compat.strict) return undefined;
    return () => strictName(asked?.data, async () => (await this.#blobsOf(state)).blobs);
  }

  /** Of a restore that succeeded the store says so, before its readers go on. */
  async #recordEnd(transfer: Transfer, failure: unknown): Promise<void> {
    const { fid, action, signal, interrupted } = transfer;
    if (!this.changelog.recording || (failure === undefined && action === HUA_RESTORE)) return;
    // What a stopping daemon interrupts goes on with the next one.
    if (failure !== undefined && interrupted) return;
    const errno = failure === undefined ? 0 : signal.aborted ? ECANCELED : causeErrno(failure);
    let dirty = false;
    if (action === HUA_ARCHIVE && failure !== undefined) {
      const state = await this.#context.native.state(fid).catch(() => undefined);
      dirty = ((state?.flags ?? 0) & HS_DIRTY) !== 0;
    }
    this.changelog.note({ type: 'HSM', flags: endWord(action, errno, dirty), target: fid });
  }

  /** A blob for each of the file's names that one can have, and why the others have none, '' where all have. */
  async #blobsOf(state: FileState): Promise<{ readonly blobs: readonly string[]; readonly refused: string }> {
    const paths = await this.#paths.find(state);
    if (paths.length === 0) throw new FsError(ENOENT, 'the file has no name any more');
    const names = paths.map((path) => ({ path, ...blobOfPath(path) }));
    const reasons = names.flatMap((name) =>
      'refused' in name ? [`${pathText(name.path)} cannot be the name of a blob: ${name.refused}`] : [],
    );
    const refused = reasons.join('; ');
    const blobs = names.flatMap((name) => ('name' in name ? [name.name] : []));
    if (blobs.length === 0) throw new FsError('EINVAL', refused);
    return { blobs, refused };
  }

  /** The state at dispatch; a request that no longer fits it fails there (lustre-hsm 3.1). */
  async #checked(fid: Fid, action: QueuedAction, archiveId: number): Promise<FileState> {
    const state = await this.#context.native.state(fid);
    // What belongs to no archive yet may go to any.
    if (decideRequest(action, state, state.archiveId && archiveId).kind !== 'queue') {
      throw new FsError(EPERM, 'the state of the file no longer allows or needs it');
    }
    return state;
  }

  #refusedByBlock(what: string): boolean {
    if (this.#blocked === null) return false;
    this.#context.log.info({ request: what, reason: this.#blocked }, 'HSM request refused');
    return true;
  }

  async #errnoOf(answer: Promise<number>): Promise<number> {
    try {
      return await answer;
    } catch (error) {
      const errno = errnoOf(error) ?? EIO;
      this.#context.log.info({ errno, cause: messageChain(error) }, 'HSM request refused');
      return errno;
    }
  }
}

/** Those of the paths that a file has; or whether it has lost them to another name, or is deleted. */
async function namesLeft(
  native: Store['native'],
  fid: Fid,
  paths: readonly string[],
): Promise<{ readonly blobs: BlobNames; readonly nlink: number } | 'moved' | 'gone'> {
  const there = await native.lookup(paths);
  const state = there.find((found) => found?.fid === fid);
  const [first, ...others] = paths.filter((_, at) => there[at]?.fid === fid);
  if (state !== undefined && first !== undefined) return { blobs: [first, ...others], nlink: state.nlink };
  try {
    return (await native.state(fid)).nlink > 0 ? 'moved' : 'gone';
  } catch (error) {
    if (hasErrno(error, ENOENT)) return 'gone';
    throw error;
  }
}

/**
 * Whether every name that a file has is among these, as far as it has several: the blob of the only one is as good under
 * the name that it had, as renames are not exported.
 */
async function allNamed(native: Store['native'], fid: Fid, names: readonly string[]): Promise<boolean> {
  const { nlink } = await native.state(fid);
  if (nlink <= 1) return true;
  const there = await native.lookup(names);
  return there.filter((found) => found?.fid === fid).length >= nlink;
}

function throwUnlessArchived(outcome: ArchiveOutcome): void {
  switch (outcome.kind) {
    case 'archived':
      return;
    case 'busy':
      throw new FsError(EBUSY, outcome.reason);
    case 'not-needed':
      throw new FsError(EPERM, outcome.reason);
    case 'gone':
      throw new FsError(ENOENT, 'the file is gone');
    case 'moved':
      throw new FsError(EINTR, 'the file was renamed meanwhile');
    case 'more-names':
      throw new FsError(EINTR, 'the file got another name meanwhile, which has no blob');
    case 'refused':
      throw new FsError(EPERM, outcome.reason);
    case 'failed':
      throw new FsError(EIO, 'the upload failed', { cause: outcome.error });
    case 'canceled':
      throw new FsError(ECANCELED, 'canceled');
  }
}

/** Whether a blob is in the container in this version; rejects where it is in another one. */
async function isThere(
  container: Container,
  blob: string,
  etag: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const found = await container.properties(blob, signal);
    if (found.etag === etag) return true;
  } catch (error) {
    if (error instanceof BlobError && error.kind === 'missing') return false;
    throw error;
  }
  throw new FsError(EPERM, `${blob} is not the version that the file was archived to: it stays`);
}

function allMayRestore(masks: RequestMasks): boolean {
  return Object.values(masks).every((mask: readonly RequestName[]) => mask.includes('RESTORE'));
}

/** Of two who want one restore; undefined: whatever room there is. */
function earlier(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? undefined : Math.min(one, other);
}

/** Whether a file could be restored from the blob, for all that is known. */
async function isFile(container: Container, blob: string): Promise<boolean> {
  try {
    return (await container.properties(blob)).kind === 'file';
  } catch (error) {
    return !(error instanceof BlobError && error.kind === 'missing');
  }
}
