/** The transfers that wait or run, by file and in the order of the queue; what `lfs hsm_action` shows of them. */
import { constants } from 'node:os';
import type { Clock } from '../base/clock.js';
import { FsError, messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Fid, NativeStore, ShownAction } from '../store/inodes.js';
import { actionName, EXTENT_EOF, HPS_RUNNING, HPS_WAITING, HUA_RESTORE } from './flags.js';
import { errnoOf } from './movers.js';
import { RequestQueue, type Queued, type RequestClass } from './queue.js';

const { ECANCELED, ENODATA } = constants.errno;

/** Bytes in flight, implicit and explicit apart. */
const maxBytes = 4 * 2 ** 30;
/** Implicit restores that run at a time; what exceeds it waits in order. */
const maxImplicit = 64;
const maxWaiting = 1 << 20;
const maxRecent = 256;

/** One transfer of one file. */
export class Transfer implements Queued {
  readonly fid: Fid;
  /** HUA_* */
  readonly action: number;
  class: RequestClass;
  readonly bytes: number;
  readonly work: (self: Transfer) => Promise<void>;
  readonly done: Promise<void>;
  /** For the log and the history. */
  blob: string | undefined;
  moved = 0;
  running = false;
  /** The store has been told of the end: a new need for the data needs a new restore. */
  finishing = false;
  /** Such a need arrived. */
  again = false;
  succeeded = false;
  readonly #abort = new AbortController();
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

  abort(): void {
    this.#abort.abort(new FsError(ECANCELED, 'canceled'));
  }

  settle(error: unknown): void {
    if (error === undefined) this.#resolve();
    else this.#reject(error);
  }
}

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
}

export class TransferTable {
  readonly #options: TransferTableOptions;
  readonly #queue: RequestQueue<Transfer>;
  readonly #byFid = new Map<Fid, readonly Transfer[]>();
  readonly #recent: FinishedTransfer[] = [];
  readonly #totals = { restored: 0, archived: 0, removed: 0, failed: 0, bytesRestored: 0, bytesArchived: 0 };
  #lastError: FinishedTransfer | undefined;
  #closing = false;
  #size = 0;

  constructor(options: TransferTableOptions) {
    this.#options = options;
    this.#queue = new RequestQueue({ explicit: options.maxRequests, implicit: maxImplicit, bytes: maxBytes });
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

  /** The restore of a file that waits or runs. */
  restoreOf(fid: Fid): Transfer | undefined {
    return this.#byFid.get(fid)?.find(({ action }) => action === HUA_RESTORE);
  }

  /** Queues a transfer and settles as it does. `signal` cancels it. */
  async run(transfer: Transfer, signal?: AbortSignal): Promise<void> {
    const { fid } = transfer;
    this.#size++;
    this.#byFid.set(fid, [...(this.#byFid.get(fid) ?? []), transfer]);
    const leave = (): void => {
      this.#cancel(transfer);
    };
    signal?.addEventListener('abort', leave, { once: true });
    if (this.#closing || signal?.aborted === true) {
      this.#end(transfer, new FsError(ECANCELED, 'canceled'));
    } else {
      this.#queue.push(transfer);
      this.#pump();
      if (!transfer.running && this.#byFid.get(fid)?.length === 1) this.#show(fid);
    }
    try {
      await transfer.done;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /** A reader waits for this restore, too: it goes ahead of everything that nobody waits for. */
  join(transfer: Transfer): void {
    if (transfer.finishing) transfer.again = true;
    if (transfer.class === 'implicit' || transfer.running || !this.#queue.remove(transfer)) return;
    transfer.class = 'implicit';
    this.#queue.push(transfer);
    this.#pump();
  }

  progress(transfer: Transfer, bytes: number): void {
    transfer.moved = bytes;
    if (this.#byFid.get(transfer.fid)?.[0] === transfer) this.#show(transfer.fid);
  }

  /** Cancels what waits or runs for a file. */
  cancel(fid: Fid): void {
    for (const transfer of this.#byFid.get(fid) ?? []) this.#cancel(transfer);
  }

  cancelAll(): void {
    for (const transfers of [...this.#byFid.values()])
      for (const transfer of transfers) this.#cancel(transfer);
  }

  /** Cancels everything and waits until nothing runs. */
  async close(): Promise<void> {
    this.#closing = true;
    const all = [...this.#byFid.values()].flat();
    this.cancelAll();
    await Promise.allSettled(all.map(({ done }) => done));
  }

  counts(): TransferCounts {
    const waiting = {
      implicit: this.#queue.waiting('implicit'),
      restore: this.#queue.waiting('restore'),
      archive: this.#queue.waiting('archive'),
      remove: this.#queue.waiting('remove'),
    };
    return {
      waiting,
      running: this.#queue.running,
      ...this.#totals,
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
    };
  }

  recent(): readonly FinishedTransfer[] {
    return [...this.#recent];
  }

  #cancel(transfer: Transfer): void {
    transfer.abort();
    if (transfer.running || !this.#queue.remove(transfer)) return;
    const { native } = this.#options;
    const canceled = new FsError(ECANCELED, 'canceled');
    if (transfer.action !== HUA_RESTORE) {
      this.#end(transfer, canceled);
      return;
    }
    transfer.finishing = true;
    // Readers may have joined it; the store lets them go.
    void native
      .failRestore(transfer.fid, ENODATA)
      .catch(() => undefined)
      .then(() => {
        this.#end(transfer, canceled);
      });
  }

  #pump(): void {
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
    this.#end(transfer, failure);
    this.#pump();
  }

  #end(transfer: Transfer, failure: unknown): void {
    const { fid } = transfer;
    this.#size--;
    const others = (this.#byFid.get(fid) ?? []).filter((other) => other !== transfer);
    if (others.length === 0) this.#byFid.delete(fid);
    else this.#byFid.set(fid, others);
    this.#show(fid);
    this.#remember(transfer, failure);
    transfer.settle(failure);
    if (transfer.again && !this.#closing) {
      const next = new Transfer(fid, transfer.action, 'implicit', transfer.bytes, transfer.work);
      this.run(next).catch(() => undefined);
    }
  }

  #remember(transfer: Transfer, failure: unknown): void {
    const { fid, action, blob } = transfer;
    const errno = errnoOf(failure);
    const finished: FinishedTransfer = {
      fid,
      action: actionName(action),
      result: failure === undefined ? 'SUCCEED' : transfer.signal.aborted ? 'CANCELED' : 'FAILED',
      at: this.#options.clock.now(),
      ...(blob === undefined ? {} : { blob }),
      ...(errno === undefined ? {} : { errno }),
      ...(failure === undefined ? {} : { cause: messageChain(failure) }),
    };
    this.#recent.push(finished);
    if (this.#recent.length > maxRecent) this.#recent.splice(0, this.#recent.length - maxRecent);
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
