/** The transfers that wait or run, by file and in the order of the queue; what `lfs hsm_action` shows of them. */
import { constants } from 'node:os';
import type { Clock } from '../base/clock.js';
import { FsError, messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Fid, NativeStore, ShownAction } from '../store/inodes.js';
import { actionName, EXTENT_EOF, HPS_RUNNING, HPS_WAITING, HUA_CANCEL, HUA_RESTORE } from './flags.js';
import { errnoOf } from './movers.js';
import { RequestQueue, type Queued, type RequestClass } from './queue.js';

const { EAGAIN, ECANCELED, ENODATA } = constants.errno;

/** Bytes in flight, implicit and explicit apart. */
export const maxBytes = 4 * 2 ** 30;
/** Implicit restores that run at a time; what exceeds it waits in order. */
const maxImplicit = 64;
const maxWaiting = 1 << 20;
/** Finished requests that are remembered, whatever the grace delay says. */
const maxFinished = 10_000;
const maxRecent = 256;
/** The first cookie of a daemon: Lustre's, too, begin with the time. */
let nextCookie = Math.floor(Date.now() / 1000);

/** One transfer of one file. */
export class Transfer implements Queued {
  readonly fid: Fid;
  /** HUA_* */
  readonly action: number;
  class: RequestClass;
  readonly bytes: number;
  readonly work: (self: Transfer) => Promise<void>;
  readonly done: Promise<void>;
  readonly cookie = nextCookie++;
  /** Where the data goes or comes from; 0: not known yet. */
  archiveId = 0;
  /** Of the journal, where somebody asked for it: it outlives a stop of the coordinator. */
  asked: AskedRequest | undefined;
  /** When it began to move bytes, or moved some last; what only waits for its turn does not stall. */
  progressMs = Number.POSITIVE_INFINITY;
  /** The coordinator was stopped under it: it waits for the next start. */
  parked = false;
  /** For the log and the history. */
  blob: string | undefined;
  moved = 0;
  running = false;
  /** The store has been told of the end: a new need for the data needs a new restore. */
  finishing = false;
  /** It ends without having begun. */
  refused = false;
  /** Such a need arrived. */
  again = false;
  /** A restore of the same file that has to be over before this one begins: its worker has the file. */
  before: Transfer | undefined;
  /** How many want it; readers stay among them. */
  wanted = 1;
  /** Of RoomOptions, for a restore; undefined from when anybody waits for it, also one who gives up. */
  usedBefore: number | undefined;
  succeeded = false;
  /** By a daemon that stops: the next one takes up what was asked for. */
  interrupted = false;
  /** By a request of its own (hsm_cancel), not by a purge or whoever gave it up. */
  cancelAsked = false;
  /** Of who waits for its end unless it has to wait for `enable` first. */
  readonly #halted: (() => void)[] = [];
  #abort = new AbortController();
  #resolve: () => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(
    fid: Fid,
    action: number,
    named: RequestClass,
    bytes: number,
    work: (self: Transfer) => Promise<void>,
  ) {
    this.fid = fid;
    this.action = action;
    this.class = named;
    this.bytes = bytes;
    this.work = work;
    this.done = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Most transfers have nobody who looks at their end.
    this.done.catch(() => undefined);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Nobody is served by it any more, over or not. */
  get givenUp(): boolean {
    return this.refused || (this.signal.aborted && !this.parked);
  }

  abort(cause = 'canceled'): void {
    this.#abort.abort(new FsError(ECANCELED, cause));
  }

  /** It waits again, as if it had not begun. */
  renew(): void {
    this.#abort = new AbortController();
    this.parked = this.running = this.finishing = false;
    this.moved = 0;
    this.progressMs = Number.POSITIVE_INFINITY;
  }

  /** Resolves when it is halted: it goes on, if at all, after the next `enable`. */
  untilHalted(): Promise<void> {
    return new Promise((resolve) => {
      this.#halted.push(resolve);
    });
  }

  halt(): void {
    for (const tell of this.#halted.splice(0)) tell();
  }

  settle(error: unknown): void {
    if (error === undefined) this.#resolve();
    else this.#reject(error);
  }
}

export interface AskedRequest {
  /** Hexadecimal digits. */
  readonly data?: string | undefined;
}

/** One request as listings show it. */
export interface ListedRequest {
  readonly fid: Fid;
  readonly action: string;
  readonly cookie: number;
  readonly archiveId: number;
  readonly data: string;
  readonly status: 'WAITING' | 'STARTED' | 'FAILED' | 'CANCELED' | 'SUCCEED';
  readonly moved: number;
  readonly canceled: boolean;
}

/** Of the coordinator: `disabled` lets requests wait, `stopped` takes none. */
export type ControlState = 'enabled' | 'disabled' | 'stopped';

export interface FinishedTransfer {
  readonly fid: Fid;
  readonly action: string;
  readonly result: 'SUCCEED' | 'FAILED' | 'CANCELED';
  readonly blob?: string;
  readonly errno?: number;
  readonly cause?: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

export interface TransferCounts {
  readonly waiting: Readonly<Record<RequestClass, number>>;
  readonly running: { readonly implicit: number; readonly explicit: number; readonly bytes: number };
  readonly restored: number;
  readonly archived: number;
  readonly removed: number;
  readonly failed: number;
  readonly bytesRestored: number;
  readonly bytesArchived: number;
  readonly lastError?: FinishedTransfer;
}

export interface TransferTableOptions {
  readonly native: NativeStore;
  readonly log: Log;
  readonly clock: Clock;
  /** Explicit transfers that run at a time. */
  readonly maxRequests: number;
  /** One that had begun is over; `failure`: undefined where it succeeded. */
  readonly ended?: (transfer: Transfer, failure: unknown) => void;
}

export class TransferTable {
  readonly #options: TransferTableOptions;
  readonly #queue: RequestQueue<Transfer>;
  /** What waits and is in no queue, as something else has to be over first. */
  readonly #aside = new Set<Transfer>();
  readonly #byFid = new Map<Fid, readonly Transfer[]>();
  readonly #finished: (FinishedTransfer & { readonly listed: readonly ListedRequest[] })[] = [];
  readonly #totals = { restored: 0, archived: 0, removed: 0, failed: 0, bytesRestored: 0, bytesArchived: 0 };
  #lastError: FinishedTransfer | undefined;
  #control: ControlState = 'enabled';
  #closing = false;
  #size = 0;

  constructor(options: TransferTableOptions) {
    this.#options = options;
    this.#queue = new RequestQueue({ explicit: options.maxRequests, implicit: maxImplicit, bytes: maxBytes });
  }

  get control(): ControlState {
    return this.#control;
  }

  set maxRequests(count: number) {
    this.#queue.limits.explicit = count;
    this.#pump();
  }

  /** What waits goes on. */
  enable(): void {
    this.#control = 'enabled';
    for (const transfers of [...this.#byFid.values()])
      for (const transfer of transfers) this.#unpark(transfer);
    this.#pump();
  }

  /** What runs ends; nothing starts. */
  disable(): void {
    if (this.#control === 'enabled') this.#control = 'disabled';
    this.#halt();
  }

  /** What nobody asked for by name is canceled, the rest waits for `enable`, also what ran. */
  stop(): void {
    this.#control = 'stopped';
    for (const transfers of [...this.#byFid.values()]) {
      for (const transfer of transfers) {
        if (transfer.asked === undefined) this.#cancel(transfer);
        else this.#park(transfer);
      }
    }
    this.#halt();
  }

  /** Settles as a transfer does; resolves where that cannot be before the next `enable`, as it does not run. */
  async overOrHalted(transfer: Transfer): Promise<void> {
    if (!transfer.running && this.#control !== 'enabled') return;
    await Promise.race([transfer.done, transfer.untilHalted()]);
  }

  #halt(): void {
    for (const transfer of [...this.#byFid.values()].flat()) if (!transfer.running) transfer.halt();
  }

  /** Cancels what has run for so long without moving a byte. */
  cancelStalled(timeoutMs: number): void {
    const before = this.#options.clock.now() - timeoutMs;
    for (const transfers of [...this.#byFid.values()])
      for (const transfer of transfers)
        if (transfer.running && transfer.progressMs <= before)
          this.#abort(transfer, `no progress for ${timeoutMs / 1000} s (hsm.active_request_timeout)`);
  }

  /** What waits and runs, oldest first, and what has ended since `sinceMs`. */
  listed(sinceMs: number): readonly ListedRequest[] {
    const ended = this.#finished.filter(({ at }) => at >= sinceMs).flatMap(({ listed }) => listed);
    const active = [...this.#byFid.values()].flat().map((transfer) => listedRequest(transfer));
    return [...ended, ...active].sort((a, b) => a.cookie - b.cookie);
  }

  get closing(): boolean {
    return this.#closing;
  }

  /** No more explicit requests, please. */
  get full(): boolean {
    return this.#closing || this.#size >= maxWaiting;
  }

  has(fid: Fid): boolean {
    return this.#byFid.has(fid);
  }

  /** The restore of a file that waits or runs, for whoever needs the data now. */
  restoreOf(fid: Fid): Transfer | undefined {
    return this.restores(fid).find(({ givenUp }) => !givenUp);
  }

  /** Each begins when the one before it is over; all but the last are given up. */
  restores(fid: Fid): readonly Transfer[] {
    return (this.#byFid.get(fid) ?? []).filter(({ action }) => action === HUA_RESTORE);
  }

  /** What whoever waits for this restore is told when it fails; 0: to ask anew, as it goes on or one is behind it. */
  failureOf(transfer: Transfer): number {
    // What was stopped goes on by itself, unless the coordinator is stopped still.
    const goesOn = ({ parked }: Transfer): boolean => parked && this.#control !== 'stopped';
    if (!transfer.givenUp) return goesOn(transfer) ? 0 : ENODATA;
    const others = this.restores(transfer.fid).filter((other) => other !== transfer);
    return others.some((other) => !other.finishing || goesOn(other)) ? 0 : ENODATA;
  }

  /** Queues a transfer and settles as it does. `signal` cancels it. */
  async run(transfer: Transfer, signal?: AbortSignal): Promise<void> {
    const { fid } = transfer;
    this.#enter(transfer);
    const leave = (): void => {
      this.#cancel(transfer);
    };
    signal?.addEventListener('abort', leave, { once: true });
    transfer.interrupted = this.#closing;
    if (this.#closing || signal?.aborted === true) {
      this.#end(transfer, new FsError(ECANCELED, 'canceled'));
    } else if (this.#control === 'stopped' && transfer.asked === undefined) {
      this.#endWaiting(transfer, new FsError(EAGAIN, 'the coordinator is stopped (hsm_control)'));
    } else {
      this.#line(transfer);
      if (!transfer.running && this.#byFid.get(fid)?.length === 1) this.#show(fid);
    }
    try {
      await transfer.done;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /** Nothing is done: whoever waits for it is told that there is no data. */
  refuse(transfer: Transfer, failure: FsError): void {
    this.#enter(transfer);
    this.#endWaiting(transfer, failure);
  }

  #enter(transfer: Transfer): void {
    const { fid } = transfer;
    this.#size++;
    if (transfer.action === HUA_RESTORE) transfer.before = this.restores(fid).at(-1);
    this.#byFid.set(fid, [...(this.#byFid.get(fid) ?? []), transfer]);
  }

  /** A reader waits for this restore, too: it goes ahead of everything that nobody waits for. */
  join(transfer: Transfer): void {
    transfer.wanted++;
    transfer.usedBefore = undefined;
    if (transfer.finishing) transfer.again = true;
    else if (this.#control === 'stopped' && this.#takeBack(transfer)) {
      this.#letGoAndWait(transfer);
      return;
    }
    if (transfer.class === 'implicit' || !this.#takeBack(transfer)) return;
    transfer.class = 'implicit';
    this.#line(transfer);
  }

  /** Into the queue, where nothing has to be over first. */
  #line(transfer: Transfer): void {
    if (transfer.before !== undefined) {
      this.#aside.add(transfer);
      return;
    }
    this.#push(transfer);
    this.#pump();
  }

  #push(transfer: Transfer): void {
    this.#aside.delete(transfer);
    this.#queue.push(transfer);
  }

  /** False where it runs, or is ending. */
  #takeBack(transfer: Transfer): boolean {
    if (transfer.running || transfer.finishing) return false;
    this.#queue.remove(transfer);
    this.#aside.delete(transfer);
    return true;
  }

  /** One who wanted it gives it up: it is canceled where he was the last, and nobody asked for it by name. */
  leave(transfer: Transfer): void {
    if (--transfer.wanted === 0 && transfer.asked === undefined) this.#cancel(transfer);
  }

  progress(transfer: Transfer, bytes: number): void {
    transfer.moved = bytes;
    transfer.progressMs = this.#options.clock.now();
    if (this.#byFid.get(transfer.fid)?.[0] === transfer) this.#show(transfer.fid);
  }

  /** Somebody asks to cancel what waits or runs for a file. */
  cancel(fid: Fid): void {
    for (const transfer of this.#byFid.get(fid) ?? []) {
      transfer.cancelAsked = true;
      this.#cancel(transfer);
    }
  }

  cancelAll(): void {
    for (const transfers of [...this.#byFid.values()])
      for (const transfer of transfers) this.#cancel(transfer);
  }

  /** Cancels everything and waits until nothing runs. */
  async close(): Promise<void> {
    this.#closing = true;
    const all = [...this.#byFid.values()].flat();
    for (const transfer of all) transfer.interrupted = !transfer.givenUp;
    this.cancelAll();
    await Promise.allSettled(all.map(({ done }) => done));
  }

  counts(): TransferCounts {
    const aside = [...this.#aside];
    const waiting = (name: RequestClass): number =>
      this.#queue.waiting(name) + aside.filter((transfer) => transfer.class === name).length;
    return {
      waiting: {
        implicit: waiting('implicit'),
        restore: waiting('restore'),
        archive: waiting('archive'),
        remove: waiting('remove'),
      },
      running: this.#queue.running,
      ...this.#totals,
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
    };
  }

  recent(): readonly FinishedTransfer[] {
    return this.#finished.slice(-maxRecent).map(({ listed: _, ...finished }) => finished);
  }

  /** Its readers are told that there is no data; what was asked for stays, but for what somebody has canceled. */
  #park(transfer: Transfer): void {
    if (transfer.givenUp) return;
    transfer.parked = true;
    if (transfer.running) {
      transfer.abort('the coordinator was stopped');
      return;
    }
    if (transfer.class === 'implicit' && this.#takeBack(transfer)) this.#letGoAndWait(transfer);
  }

  /** Of one that is in no queue. Who needs the data meanwhile comes too late for that, and is let go behind it. */
  #letGoAndWait(transfer: Transfer): void {
    transfer.parked = transfer.finishing = true;
    this.#aside.add(transfer);
    void this.#letGo(transfer).then(() => {
      if (transfer.signal.aborted) this.#end(transfer, new FsError(ECANCELED, 'canceled'));
      else this.#waitAgain(transfer);
    });
  }

  #unpark(transfer: Transfer): void {
    if (!transfer.running && !transfer.finishing) transfer.parked = false;
  }

  #waitAgain(transfer: Transfer): void {
    const { again } = transfer;
    transfer.renew();
    transfer.again = false;
    if (this.#control !== 'enabled') transfer.halt();
    if (again && this.#control === 'stopped') {
      this.#letGoAndWait(transfer);
      return;
    }
    if (transfer.action === HUA_RESTORE) transfer.class = again ? 'implicit' : 'restore';
    this.#push(transfer);
    this.#show(transfer.fid);
    this.#pump();
  }

  /** Who reads from now on is none of those that it fails: he gets a restore of his own. */
  #abort(transfer: Transfer, cause?: string): void {
    transfer.abort(cause);
    if (transfer.action === HUA_RESTORE) this.#options.native.restoreCanceled(transfer.fid);
  }

  #cancel(transfer: Transfer): void {
    transfer.parked = false;
    this.#abort(transfer);
    if (!this.#takeBack(transfer)) return;
    this.#endWaiting(transfer, new FsError(ECANCELED, 'canceled'));
  }

  /** Of what has not started. Readers may have joined a restore; the store lets them go. */
  #endWaiting(transfer: Transfer, failure: FsError): void {
    transfer.refused = transfer.finishing = true;
    void this.#letGo(transfer).then(() => {
      this.#end(transfer, failure);
    });
  }

  async #letGo(transfer: Transfer): Promise<void> {
    const { fid, action, before } = transfer;
    if (action !== HUA_RESTORE) return;
    await before?.done.catch(() => undefined);
    await this.#options.native.failRestore(fid, this.failureOf(transfer)).catch(() => undefined);
  }

  #pump(): void {
    if (this.#control !== 'enabled') return;
    for (let next = this.#queue.next(); next !== undefined; next = this.#queue.next()) void this.#start(next);
  }

  async #start(transfer: Transfer): Promise<void> {
    transfer.running = true;
    this.#show(transfer.fid);
    let failure: unknown;
    try {
      await transfer.work(transfer);
      transfer.succeeded = true;
    } catch (error) {
      failure = error ?? new Error('unknown');
    }
    this.#queue.finished(transfer);
    if (transfer.parked && failure !== undefined && !this.#closing) this.#waitAgain(transfer);
    else this.#end(transfer, failure);
    this.#pump();
  }

  #end(transfer: Transfer, failure: unknown): void {
    const { fid } = transfer;
    this.#size--;
    this.#aside.delete(transfer);
    const others = (this.#byFid.get(fid) ?? []).filter((other) => other !== transfer);
    if (others.length === 0) this.#byFid.delete(fid);
    else this.#byFid.set(fid, others);
    this.#show(fid);
    this.#remember(transfer, failure);
    if (transfer.running) this.#options.ended?.(transfer, failure);
    const behind = others.find(({ before }) => before === transfer);
    if (behind !== undefined) {
      behind.before = undefined;
      if (!behind.finishing) this.#line(behind);
    }
    transfer.settle(failure);
    if (!transfer.again || this.#closing) return;
    const joined = this.restoreOf(fid);
    if (joined !== undefined) {
      this.join(joined);
      return;
    }
    const next = new Transfer(fid, transfer.action, 'implicit', transfer.bytes, transfer.work);
    this.run(next).catch(() => undefined);
  }

  #remember(transfer: Transfer, failure: unknown): void {
    const { fid, action, blob, signal } = transfer;
    const cause: unknown = signal.aborted ? signal.reason : failure;
    const errno = errnoOf(failure);
    const finished: FinishedTransfer = {
      fid,
      action: actionName(action),
      result: failure === undefined ? 'SUCCEED' : signal.aborted ? 'CANCELED' : 'FAILED',
      at: this.#options.clock.now(),
      ...(blob === undefined ? {} : { blob }),
      ...(errno === undefined ? {} : { errno }),
      ...(failure === undefined ? {} : { cause: messageChain(cause) }),
    };
    const listed = [listedRequest(transfer, finished.result)];
    if (transfer.cancelAsked && finished.result === 'CANCELED') listed.push(cancelOf(transfer));
    this.#finished.push({ ...finished, listed });
    if (this.#finished.length > 2 * maxFinished) this.#finished.splice(0, maxFinished);
    const totals = this.#totals;
    if (finished.result === 'FAILED') {
      totals.failed++;
      this.#lastError = finished;
    } else if (finished.result === 'SUCCEED') {
      if (finished.action === 'RESTORE') {
        totals.restored++;
        totals.bytesRestored += transfer.moved;
      } else if (finished.action === 'ARCHIVE') {
        totals.archived++;
        totals.bytesArchived += transfer.moved;
      } else {
        totals.removed++;
      }
    }
  }

  /** What is shown of a file: its oldest transfer, a running one first. */
  shown(fid: Fid): ShownAction | undefined {
    const transfers = this.#byFid.get(fid);
    const shown = transfers?.find(({ running }) => running) ?? transfers?.[0];
    if (shown === undefined) return undefined;
    const { running, action, moved } = shown;
    return running
      ? { state: HPS_RUNNING, action, offset: 0n, length: BigInt(moved) }
      : { state: HPS_WAITING, action, offset: 0n, length: EXTENT_EOF };
  }

  #show(fid: Fid): void {
    this.#options.native.showAction(fid, this.shown(fid));
  }
}

/** The record of the cancel itself, which has the cookie of what it has ended (lustre-hsm 3.1, 5.3). */
function cancelOf(transfer: Transfer): ListedRequest {
  return { ...listedRequest(transfer, 'SUCCEED'), action: actionName(HUA_CANCEL), data: '', canceled: false };
}

function listedRequest(
  { fid, action, cookie, archiveId, asked, running, moved, signal }: Transfer,
  ended?: 'SUCCEED' | 'FAILED' | 'CANCELED',
): ListedRequest {
  return {
    fid,
    action: actionName(action),
    cookie,
    archiveId,
    data: asked?.data ?? '',
    status: ended ?? (running ? 'STARTED' : 'WAITING'),
    moved,
    canceled: signal.aborted,
  };
}
