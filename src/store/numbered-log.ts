/**
 * Numbered records on disk, oldest first, in files that are dropped as a whole. A file is named by its first number, and
 * begun anew by each daemon and after each failure: nothing is ever written behind a torn line.
 */
import { mkdir, open, readdir, readFile, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory } from './atomic-file.js';
import { checkedLine, checkedValue } from './checked-line.js';

export interface Numbered {
  readonly index: number;
}

interface Segment {
  readonly first: number;
  readonly name: string;
}

const nameOf = /^(\d{16})$/;

export class NumberedLog<T extends Numbered> implements AsyncDisposable {
  readonly #folder: string;
  readonly #segmentRecords: number;
  #segments: Segment[];
  #last: number;
  #file: FileHandle | undefined;
  #unsynced = false;
  /** Why something that was appended may not be on the disk: for the next `sync`. */
  #failure: Error | undefined;

  private constructor(folder: string, segmentRecords: number, segments: Segment[], last: number) {
    this.#folder = folder;
    this.#segmentRecords = segmentRecords;
    this.#segments = segments;
    this.#last = last;
  }

  /** What there is in a folder, made if need be. `segmentRecords`: in one file. */
  static async open<T extends Numbered>(folder: string, segmentRecords: number): Promise<NumberedLog<T>> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const segments = (await readdir(folder))
      .filter((name) => nameOf.test(name))
      .sort()
      .map((name) => ({ first: Number(name), name }));
    let last = (segments[0]?.first ?? 1) - 1;
    for (const { first, name } of segments.slice(-1)) {
      // Also where its only line was torn: a file has the name once.
      last = first;
      for (const record of await records<T>(join(folder, name))) last = Math.max(last, record.index);
    }
    return new NumberedLog(folder, segmentRecords, segments, last);
  }

  /** The lowest number that there can be. */
  get first(): number {
    return this.#segments[0]?.first ?? this.#last + 1;
  }

  /** The highest one that was appended. */
  get last(): number {
    return this.#last;
  }

  /** Whoever stops the daemon does not lose them; `sync` makes them durable. One call at a time, numbers that rise. */
  async append(added: readonly T[]): Promise<void> {
    try {
      for (let at = 0; at < added.length;) {
        const first = added[at]?.index ?? 0;
        const begun = this.#segments.at(-1)?.first ?? 0;
        const full = this.#file === undefined || first - begun >= this.#segmentRecords;
        if (full) await this.#begin(first);
        const room = full ? this.#segmentRecords : this.#segmentRecords - (first - begun);
        this.#unsynced = true;
        const text = added.slice(at, at + room).map((record) => checkedLine(record));
        await this.#file?.appendFile(text.join(''));
        at += room;
      }
    } catch (error) {
      await this.#giveUp();
      throw error;
    } finally {
      this.#last = Math.max(this.#last, added.at(-1)?.index ?? 0);
    }
  }

  /**
   * What was appended survives a loss of power. Rejects once for what may not: the kernel tells a failure once, and a second
   * try would succeed whatever is on the disk. What comes then is in another file.
   */
  async sync(): Promise<void> {
    if (!this.#unsynced) return;
    try {
      await this.#file?.datasync();
    } catch (error) {
      this.#failure = error as Error;
      await this.#close();
    }
    await syncDirectory(this.#folder);
    this.#unsynced = false;
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  /** The first `limit` with numbers in this range, in order. */
  async read(from: number, to: number, limit: number): Promise<readonly T[]> {
    const found: T[] = [];
    for (const [at, { first, name }] of this.#segments.entries()) {
      const next = this.#segments[at + 1]?.first ?? Infinity;
      if (next <= from) continue;
      if (first > to || found.length >= limit) break;
      for (const record of await records<T>(join(this.#folder, name)))
        if (record.index >= from && record.index <= to) found.push(record);
    }
    return found.slice(0, limit);
  }

  /** Forgets the files that have no number from `index` on. */
  async dropBefore(index: number): Promise<void> {
    for (;;) {
      const [oldest, next] = this.#segments;
      if (oldest === undefined || (next?.first ?? this.#last + 1) > index) return;
      if (next === undefined) await this.#end();
      this.#segments = this.#segments.slice(1);
      await rm(join(this.#folder, oldest.name), { force: true });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }

  async #begin(first: number): Promise<void> {
    await this.#end();
    const name = String(first).padStart(16, '0');
    this.#file = await open(join(this.#folder, name), 'ax', 0o600);
    this.#segments = [...this.#segments, { first, name }];
  }

  /** Nothing goes behind a torn line. A file that has no line at all is not kept: a full disk would make one a time. */
  async #giveUp(): Promise<void> {
    const newest = this.#segments.at(-1);
    const empty = this.#file !== undefined && (await this.#file.stat()).size === 0;
    await this.#end();
    if (!empty || newest === undefined) return;
    this.#segments = this.#segments.slice(0, -1);
    await rm(join(this.#folder, newest.name), { force: true });
  }

  /** Whether it is on the disk is `sync`'s to say. */
  async #end(): Promise<void> {
    try {
      if (this.#unsynced) await this.#file?.datasync();
    } catch (error) {
      this.#failure = error as Error;
    }
    await this.#close();
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

async function records<T extends Numbered>(path: string): Promise<readonly T[]> {
  let text;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    // Dropped meanwhile.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return text
    .split('\n')
    .map((line) => checkedValue(line) as T | undefined)
    .filter((record) => record !== undefined);
}
