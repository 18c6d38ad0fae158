/** Explicit requests from their entry in the journal to the queue, and out of the journal when they are over. */
import { constants } from 'node:os';
import type { Clock } from '../base/clock.js';
import { crashPoint } from '../base/crash.js';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Fid } from '../store/inodes.js';
import { Journal, type JournalEntry } from '../store/journal.js';
import { actionName, HUA_RESTORE } from './flags.js';
import { hasErrno } from './movers.js';

const { ENOENT, ESTALE } = constants.errno;

/** Not journaled yet. */
export type NewRequest = Omit<JournalEntry, 'id' | 'at'>;

export interface DurableRequestsOptions {
  readonly folder: string;
  readonly log: Log;
  readonly clock: Clock;
  /** Of what a request is about; rejects with ENOENT or ESTALE where that is gone. */
  readonly sizeOf: (entry: JournalEntry) => Promise<number>;
  /** Archives and removes wait for free(). */
  readonly held: () => boolean;
  /** Whoever has it queued says over() when it has ended. */
  readonly queue: (entry: JournalEntry, size: number) => void;
}

export class DurableRequests implements AsyncDisposable {
  readonly #options: DurableRequestsOptions;
  #journal: Journal | undefined;
  /** Journaled and not queued: their sizes are not known yet, or they are held. */
  readonly #adopting = new Set<JournalEntry>();
  readonly #queued = new Set<JournalEntry>();
  /** Out of the journal already, but not over. */
  readonly #canceled = new Set<JournalEntry>();
  readonly #held = new Set<JournalEntry>();

  constructor(options: DurableRequestsOptions) {
    this.#options = options;
  }

  /** Opens the journal; what it returns queues what the last daemon left (lustre-hsm 5.3). */
  async start(): Promise<() => void> {
    const { folder, log } = this.#options;
    const journal = await Journal.open(folder, (error) => {
      log.error(
        { cause: messageChain(error) },
        'accepted HSM requests do not outlive a power cut: cannot sync the journal',
      );
    });
    this.#journal = journal;
    const left = journal.entries();
    if (journal.damaged > 0) log.warn({ lines: journal.damaged }, 'the request journal had damaged lines');
    if (left.length > 0) log.info({ requests: left.length }, 'HSM requests of the last run wait again');
    return () => {
      void this.#take(left);
      const held = this.#held.size;
      if (held > 0)
        log.warn(
          { requests: held },
          'archives and removes of the last run are held while auto-import is enabled',
        );
    };
  }

  /** Queues what was held. */
  free(): void {
    const held = [...this.#held].filter((entry) => this.#adopting.has(entry));
    this.#held.clear();
    void this.#adopt(held);
  }

  /** Whether add() keeps what it is given. */
  get started(): boolean {
    return this.#journal !== undefined;
  }

  /** Those that a restart would take up again. */
  get size(): number {
    return this.#journal?.size ?? 0;
  }

  /** Archives and removes that are not over. */
  get changing(): number {
    return [...(this.#journal?.entries() ?? []), ...this.#canceled].filter(changesCopy).length;
  }

  /** Whether one about the file is not queued yet. */
  has(fid: Fid): boolean {
    return [...this.#adopting].some((entry) => entry.fid === fid);
  }

  /** Resolves when they are durable and queued, or held; rejects where they cannot be made durable, with none of them queued. */
  async add(requests: readonly NewRequest[]): Promise<void> {
    const journal = this.#journal;
    if (journal === undefined) return;
    const at = this.#options.clock.now();
    const entries = await journal.add(requests.map((request) => ({ ...request, at })));
    crashPoint('request.journaled');
    await this.#take(entries);
  }

  /**
   * What somebody cancels: none of them is queued any more, those that are have to be ended by whoever queued them. No
   * later daemon takes them up, after a power cut neither, when it resolves.
   */
  async end(which: (entry: JournalEntry) => boolean): Promise<void> {
    const ended = [...this.#adopting, ...this.#queued].filter(which);
    for (const entry of ended) {
      this.#adopting.delete(entry);
      if (this.#queued.delete(entry)) this.#canceled.add(entry);
    }
    await Promise.all(ended.map(async ({ id }) => this.#journal?.done(id, { durable: true })));
  }

  /** No later daemon takes the request up. */
  over(entry: JournalEntry, how: { readonly durable: boolean }): void {
    this.#queued.delete(entry);
    this.#canceled.delete(entry);
    void this.#journal?.done(entry.id, how).catch((error: unknown) => {
      const said = { fid: entry.fid, cause: messageChain(error) };
      this.#options.log.warn(said, 'a finished request stays in the journal');
    });
  }

  /** What is not over stays for the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#journal?.[Symbol.asyncDispose]();
  }

  #take(entries: readonly JournalEntry[]): Promise<void> {
    const held = this.#options.held() ? entries.filter(changesCopy) : [];
    for (const entry of held) {
      this.#held.add(entry);
      this.#adopting.add(entry);
    }
    return this.#adopt(entries.filter((entry) => !this.#held.has(entry)));
  }

  /** Queues requests in their order, whatever the store answers first; resolves when the last one is queued. */
  async #adopt(entries: readonly JournalEntry[]): Promise<void> {
    for (const entry of entries) this.#adopting.add(entry);
    const sized = entries.map(async (entry) => ({ entry, size: await this.#sizeOf(entry) }));
    for (const next of sized) {
      const { entry, size } = await next;
      if (size === undefined || !this.#adopting.delete(entry)) continue;
      this.#queued.add(entry);
      this.#options.queue(entry, size);
    }
  }

  /** Undefined where the file is gone, and with it the request, or nothing can be told of it now. */
  async #sizeOf(entry: JournalEntry): Promise<number | undefined> {
    const { log, sizeOf } = this.#options;
    const { fid, action } = entry;
    try {
      return await sizeOf(entry);
    } catch (error) {
      const said = { fid, action: actionName(action), cause: messageChain(error) };
      if (hasErrno(error, ENOENT, ESTALE)) {
        log.info(said, 'the file of a request is gone');
        this.#adopting.delete(entry);
        this.over(entry, { durable: false });
      } else {
        log.warn(said, 'an HSM request waits for the next start of the daemon');
      }
      return undefined;
    }
  }
}

/** Whether it changes what the container has: of a file that is gone, too, whose blob may be another file by now. */
function changesCopy({ action }: JournalEntry): boolean {
  return action !== HUA_RESTORE;
}
