/**
 * The explicit HSM requests that are not done yet, on disk: one checked line a fact. A line that is damaged (a torn tail,
 * a lost page) is dropped, the others count.
 */
import { open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { isDiskFull } from '../base/errors.js';
import { syncDirectory } from './atomic-file.js';
import { checkedLine, checkedValue } from './checked-line.js';
import type { Copy, Fid } from './inodes.js';

export interface JournalEntry {
  readonly id: number;
  /** HUA_* */
  readonly action: number;
  readonly fid: Fid;
  readonly archiveId: number;
  readonly uid: number;
  /** Of a file that has no name any more. */
  readonly copy?: Copy;
  /** What `--data` had, in hexadecimal digits. */
  readonly data?: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

type Fact = { readonly add: JournalEntry } | { readonly done: number };

/** Below this size a journal is never rewritten. */
const compactBytes = 1 << 20;

export class Journal implements AsyncDisposable {
  readonly #path: string;
  /** Undefined where a full disk had no room for one. */
  #file: FileHandle | undefined;
  #size: number;
  #nextId: number;
  readonly #live: Map<number, JournalEntry>;
  #pending: string[] = [];
  /** The write that has not begun yet and takes what is pending; the last one that was started. */
  #next: Promise<void> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  /** The same for syncs: one for all who ask while another runs. */
  #nextSync: Promise<void> | undefined;
  #lastSync: Promise<unknown> = Promise.resolve();
  /** A write or a sync failed, perhaps in the middle of a line: the next write begins with a new file. */
  #torn: boolean;
  readonly #syncFailed: (error: unknown) => void;
  /** Lines that were dropped when the journal was read. */
  readonly damaged: number;

  private constructor(
    path: string,
    { file, size, torn }: JournalFile,
    replayed: Replayed,
    syncFailed: (error: unknown) => void,
  ) {
    this.#syncFailed = syncFailed;
    this.#path = path;
    this.#file = file;
    this.#size = size;
    this.#torn = torn;
    this.#live = replayed.live;
    this.#nextId = replayed.lastId + 1;
    this.damaged = replayed.damaged;
  }

  /**
   * Reads the journal of a folder, without its finished entries and damaged lines, and rewrites it so; on a full disk
   * with the next write: who has files there can still get at them, and make room.
   *
   * @param syncFailed is told when a sync fails that nobody waits for; the next write tries with a new file
   */
  static async open(folder: string, syncFailed: (error: unknown) => void): Promise<Journal> {
    const path = join(folder, 'journal');
    const text = await readFile(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0);
      throw error;
    });
    const replayed = replay(text);
    let file: JournalFile = { file: undefined, size: text.length, torn: true };
    try {
      file = await rewrite(path, replayed.live);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
    }
    return new Journal(path, file, replayed, syncFailed);
  }

  /** How many are not done. */
  get size(): number {
    return this.#live.size;
  }

  /** What is not done, oldest first. */
  entries(): readonly JournalEntry[] {
    return [...this.#live.values()];
  }

  /**
   * Adds requests; their ids count on from the last one. They outlive the process when it resolves, and a power cut as
   * soon as the sync is through that begins then: Lustre, too, answers before its log of actions is committed.
   */
  async add(entries: readonly Omit<JournalEntry, 'id'>[]): Promise<readonly JournalEntry[]> {
    const added = entries.map((entry) => ({ ...entry, id: this.#nextId++ }));
    for (const entry of added) this.#live.set(entry.id, entry);
    try {
      await this.#append(added.map((add) => line({ add })));
    } catch (error) {
      for (const entry of added) this.#live.delete(entry.id);
      throw error;
    }
    this.#sync().catch(this.#syncFailed);
    return added;
  }

  /** Drops a request. `durable`: on disk when it resolves; otherwise a power cut may bring it back. */
  async done(id: number, options: { readonly durable: boolean }): Promise<void> {
    if (!this.#live.delete(id)) return;
    await this.#append([line({ done: id })]);
    if (options.durable) await this.#sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last;
    await this.#lastSync;
    await this.#file?.close();
  }

  /** Everything pending goes in one write, also for those who come while another write runs. */
  #append(lines: readonly string[]): Promise<void> {
    this.#pending.push(...lines);
    if (this.#next === undefined) {
      this.#next = this.#last.then(() => this.#write());
      this.#last = this.#next.catch(() => undefined);
    }
    return this.#next;
  }

  async #write(): Promise<void> {
    const bytes = Buffer.from(this.#pending.join(''));
    this.#pending = [];
    this.#next = undefined;
    // What is pending is in `live` already, so that a new file holds it.
    if (this.#torn || (this.#size > compactBytes && this.#live.size * 512 < this.#size)) {
      await this.#renew();
      return;
    }
    try {
      await this.#file?.appendFile(bytes);
    } catch (error) {
      this.#torn = true;
      throw error;
    }
    this.#size += bytes.length;
  }

  /** What was written before is on disk when it resolves. */
  #sync(): Promise<void> {
    if (this.#nextSync === undefined) {
      this.#nextSync = this.#lastSync.then(async () => {
        this.#nextSync = undefined;
        const file = this.#file;
        try {
          await file?.datasync();
        } catch (error) {
          // A file that took this one's place meanwhile was on disk before it did.
          if (file !== this.#file) return;
          this.#torn = true;
          throw error;
        }
      });
      this.#lastSync = this.#nextSync.catch(() => undefined);
    }
    return this.#nextSync;
  }

  async #renew(): Promise<void> {
    const old = this.#file;
    const next = await rewrite(this.#path, this.#live);
    this.#file = next.file;
    this.#size = next.size;
    this.#torn = next.torn;
    await old?.close();
  }
}

interface JournalFile {
  readonly file: FileHandle | undefined;
  /** Bytes. */
  readonly size: number;
  readonly torn: boolean;
}

interface Replayed {
  readonly live: Map<number, JournalEntry>;
  readonly lastId: number;
  readonly damaged: number;
}

/** The entries that a journal's bytes leave open. */
export function replay(bytes: Buffer): Replayed {
  const live = new Map<number, JournalEntry>();
  const done = new Set<number>();
  let lastId = 0;
  let damaged = 0;
  for (const text of bytes.toString('utf8').split('\n')) {
    if (text === '') continue;
    const fact = checkedValue(text) as Fact | undefined;
    if (fact === undefined) {
      damaged++;
    } else if ('done' in fact) {
      done.add(fact.done);
      live.delete(fact.done);
      lastId = Math.max(lastId, fact.done);
    } else {
      if (!done.has(fact.add.id)) live.set(fact.add.id, fact.add);
      lastId = Math.max(lastId, fact.add.id);
    }
  }
  return { live, lastId, damaged };
}

/** One fact as a line. */
export function line(fact: Fact): string {
  return checkedLine(fact);
}

async function rewrite(path: string, live: ReadonlyMap<number, JournalEntry>): Promise<JournalFile> {
  const next = `${path}.new`;
  const bytes = Buffer.from([...live.values()].map((add) => line({ add })).join(''));
  const file = await open(next, 'w', 0o600);
  try {
    await file.appendFile(bytes);
    await file.datasync();
    await rename(next, path);
    await syncDirectory(join(path, '..'));
  } catch (error) {
    await file.close();
    await rm(next, { force: true });
    throw error;
  }
  return { file, size: bytes.length, torn: false };
}
