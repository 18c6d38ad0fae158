/**
 * The changelog (lustre-hsm 6): what happened to files, for readers who are registered. As in Lustre nothing is recorded
 * while there is none, and a record stays until every reader has cleared it, or is among too many.
 */
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../base/clock.js';
import type { ChangelogReaderView } from '../base/control-api.js';
import { isDiskFull, messageChain, UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { replaceFile, syncDirectory } from '../store/atomic-file.js';
import type { NativeStore } from '../store/inodes.js';
import { NumberedLog } from '../store/numbered-log.js';
import { eventOfChange, noFid, type ChangelogEvent, type ChangelogRecord } from './changelog-record.js';

/** Records that are kept for readers who do not clear them. */
const mostRecords = 1 << 20;
/** Records that wait for the disk; what comes then waits in the store, which counts what it loses. */
const mostPending = 100_000;
const mostReaders = 256;
/** What could not be written is tried again. */
const retryMs = 1000;

export interface ChangelogOptions {
  readonly folder: string;
  readonly native: Pick<NativeStore, 'setTellChanges' | 'takeChanges'>;
  readonly log: Log;
  readonly clock: Pick<Clock, 'now'>;
  /** Records that are kept; the oldest go, some at a time. */
  readonly most?: number;
}

export interface ChangelogRead {
  readonly records: readonly ChangelogRecord[];
  /** Where to go on; absent at the end. */
  readonly next?: number;
  /** Records of the range that went because there were too many. */
  readonly missing: number;
}

interface Saved {
  readonly next: number;
  readonly lastReader: number;
  /** The daemon that had it has written everything. */
  readonly clean: boolean;
  readonly readers: Readonly<Record<string, number>>;
}

export class Changelog implements AsyncDisposable {
  readonly #options: ChangelogOptions;
  readonly #most: number;
  readonly #file: string;
  /** The same of a daemon that had no room to say in it that it may be killed. */
  readonly #unclean: string;
  #records: NumberedLog<ChangelogRecord> | undefined;
  #readers: ReadonlyMap<string, number> = new Map();
  #lastReader = 0;
  #next = 1;
  /** No later daemon gives this number, or a lower one, again. */
  #durable = 0;
  #pending: ChangelogRecord[] = [];
  #scheduled = false;
  #retry: NodeJS.Timeout | undefined;
  /** The last write failed. */
  #failing = false;
  /** Everything that touches the folder, one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #warned = new Set<string>();

  constructor(options: ChangelogOptions) {
    this.#options = options;
    this.#most = options.most ?? mostRecords;
    this.#file = join(options.folder, 'readers.json');
    this.#unclean = join(options.folder, 'readers.unclean.json');
  }

  /** Goes on for the readers that there are. */
  async start(): Promise<void> {
    const saved = (await readSaved(this.#file)) ?? (await this.#readUnclean());
    if (saved === undefined) return;
    this.#lastReader = saved.lastReader;
    this.#readers = new Map(Object.entries(saved.readers));
    const records = await this.#log();
    this.#next = Math.max(saved.next, records.last + 1);
    this.#durable = this.#next - 1;
    if (!this.recording) return;
    try {
      await this.#save(this.#readers, false);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      if (saved.clean) await this.#makeUnclean();
    }
    this.#options.native.setTellChanges(true);
    if (!saved.clean) this.#mark('killed: records may be missing');
    this.#schedule();
  }

  /** Somebody is registered. */
  get recording(): boolean {
    return this.#readers.size > 0;
  }

  /** NativeStore's event. */
  changed(): void {
    this.#take();
    this.#schedule();
  }

  /** Behind everything that the store has seen. */
  note(event: Omit<ChangelogEvent, 'time'>): void {
    if (!this.recording) return;
    this.#takeAll();
    this.#push({ ...event, time: this.#now() });
    this.#schedule();
  }

  /** A reader of what happens from now on. */
  register(): Promise<ChangelogReaderView> {
    return this.#queue(async () => {
      if (this.#readers.size >= mostReaders)
        throw new UserError('Conflict', `there are ${mostReaders} readers of the changelog already`);
      await this.#flush();
      const id = `cl${++this.#lastReader}`;
      await this.#log();
      await this.#goOn(new Map(this.#readers).set(id, this.#next - 1));
      this.#options.native.setTellChanges(true);
      return this.#reader(id);
    });
  }

  /** Rejects with NotFound. Without a reader there are no records. */
  deregister(id: string): Promise<void> {
    return this.#queue(async () => {
      this.#known(id);
      await this.#flush();
      await this.#goOn(new Map([...this.#readers].filter(([reader]) => reader !== id)));
      if (this.recording) return;
      this.#options.native.setTellChanges(false);
      this.#pending = [];
    });
  }

  /** Up to `end`, 0: all that there are. Rejects with NotFound, and with InvalidParameter beyond the last record. */
  clear(id: string, end: number): Promise<ChangelogReaderView> {
    return this.#queue(async () => {
      const before = this.#known(id);
      await this.#flush();
      const last = this.#next - 1;
      if (end > last) throw new UserError('InvalidParameter', `the last record of the changelog is ${last}`);
      const { missing } = this.#reader(id);
      await this.#goOn(new Map(this.#readers).set(id, Math.max(before, end === 0 ? last : end)));
      return { ...this.#reader(id), missing };
    });
  }

  /** `last`: a number that is given to no other record; of more, on a disk that is full, nobody is told. */
  async readers(): Promise<{ readonly last: number; readonly readers: readonly ChangelogReaderView[] }> {
    return this.#queue(async () => {
      await this.#flush();
      await this.#makeDurable().catch(() => undefined);
      return { last: this.#durable, readers: [...this.#readers.keys()].map((id) => this.#reader(id)) };
    });
  }

  /** Those that some reader has not cleared; also what has just happened. They are durable: nobody is told them again as others. */
  async read(start: number, end: number, limit: number): Promise<ChangelogRead> {
    return this.#queue(async () => {
      await this.#flush();
      const records = this.#records;
      if (records === undefined || !this.recording) return { records: [], missing: 0 };
      await this.#sync(records);
      const wanted = Math.max(start, Math.min(...this.#readers.values()) + 1);
      const from = Math.max(wanted, records.first);
      const to = Math.min(end, records.last);
      const found = await records.read(from, to, limit);
      const last = found.at(-1)?.index ?? to;
      const missing = Math.max(0, Math.min(from, to + 1) - wanted);
      return { records: found, missing, ...(last < to && { next: last + 1 }) };
    });
  }

  /** Behind NativeStore's close, which tells the last changes. Never rejects: the next daemon marks what may be missing. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue(async () => {
      if (this.#records === undefined) return;
      do await this.#flush();
      while (this.#pending.length > 0 && !this.#failing);
      this.#options.native.setTellChanges(false);
      clearTimeout(this.#retry);
      await using records = this.#records;
      this.#records = undefined;
      await this.#sync(records);
      await this.#save(this.#readers, !this.#failing);
    }).catch((error: unknown) => {
      this.#options.log.warn({ cause: messageChain(error) }, 'the changelog was not written to its end');
    });
  }

  async #log(): Promise<NumberedLog<ChangelogRecord>> {
    const { folder } = this.#options;
    this.#records ??= await NumberedLog.open<ChangelogRecord>(
      folder,
      Math.max(1, Math.ceil(this.#most / 64)),
    );
    return this.#records;
  }

  #takeAll(): void {
    while (this.#take());
  }

  /** A batch, so that a turn of the event loop stays short; false: there is no more, or no room. */
  #take(): boolean {
    if (!this.recording || this.#records === undefined || this.#pending.length >= mostPending) return false;
    const { changes, lost } = this.#options.native.takeChanges();
    for (const change of changes) this.#push(eventOfChange(change));
    if (lost > 0) this.#mark(`${lost} records were lost`);
    return changes.length > 0;
  }

  #mark(name: string): void {
    this.#push(this.#marked(name));
    this.#options.log.warn(`changelog: ${name}`);
  }

  #marked(name: string): ChangelogEvent {
    return { type: 'MARK', flags: 0, time: this.#now(), target: noFid, parent: noFid, name };
  }

  #now(): string {
    return String(BigInt(this.#options.clock.now()) * 1_000_000n);
  }

  #push(event: ChangelogEvent): void {
    this.#pending.push({ index: this.#next++, ...event });
  }

  /** One write for whatever happens in a turn of the event loop, or in a second where it fails. */
  #schedule(): void {
    if (this.#scheduled || this.#pending.length === 0) return;
    this.#scheduled = true;
    const write = (): void => {
      this.#scheduled = false;
      void this.#queue(() => this.#flush(() => this.#take()));
    };
    if (this.#failing) this.#retry = setTimeout(write, retryMs).unref();
    else setImmediate(write);
  }

  #queue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** Writes what there is, and gives up what is too much. Never rejects. */
  async #flush(take = (): unknown => this.#takeAll()): Promise<void> {
    const records = this.#records;
    if (records === undefined) return;
    take();
    if (this.#pending.length === 0) return;
    try {
      await records.append(this.#pending.splice(0));
      this.#failing = false;
    } catch (error) {
      this.#failed('records could not be written', error);
    }
    try {
      // Also where nothing can be written: that makes room.
      await records.dropBefore(this.#next - this.#most);
    } catch (error) {
      this.#options.log.warn({ cause: messageChain(error) }, 'old records of the changelog are not deleted');
    }
    this.#warnIdle();
    // The store tells only of the first that waits: what came meanwhile would not be told.
    this.#take();
    this.#schedule();
  }

  /** A mark, with the next records that can be written. */
  #failed(what: string, error: unknown): void {
    if (!this.#failing)
      this.#options.log.warn({ cause: messageChain(error) }, `the changelog cannot be written: ${what}`);
    this.#failing = true;
    this.#push(this.#marked(what));
    this.#schedule();
  }

  async #sync(records: NumberedLog<ChangelogRecord>): Promise<void> {
    try {
      await records.sync();
    } catch (error) {
      this.#failed('records may not be on the disk', error);
      throw error;
    }
  }

  /** No number that was written, or lost, comes again. */
  async #makeDurable(): Promise<void> {
    if (this.#records === undefined) return;
    const last = (this.#pending[0]?.index ?? this.#next) - 1;
    await this.#sync(this.#records);
    // The log does not have those that could not be written.
    if (this.#failing) await this.#save(this.#readers, false);
    this.#durable = last;
  }

  #warnIdle(): void {
    for (const id of this.#readers.keys()) {
      const { missing } = this.#reader(id);
      if (missing === 0 || this.#warned.has(id)) continue;
      this.#warned.add(id);
      this.#options.log.warn(
        { reader: id, missing },
        'a reader of the changelog is idle: its oldest records are gone',
      );
    }
  }

  /** Goes on with these readers and the records that they need, or, where that cannot be written, as before. */
  async #goOn(readers: ReadonlyMap<string, number>): Promise<void> {
    const clean = readers.size === 0;
    try {
      await this.#save(readers, clean);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      // Whoever asked gives up records: that makes room.
      await this.#drop(readers);
      await this.#save(readers, clean);
    }
    for (const [id, cleared] of this.#readers) if (readers.get(id) !== cleared) this.#warned.delete(id);
    this.#readers = readers;
    await this.#drop(readers);
  }

  /** What every reader has cleared. */
  async #drop(readers: ReadonlyMap<string, number>): Promise<void> {
    const cleared = readers.size > 0 ? Math.min(...readers.values()) : this.#next - 1;
    await this.#records?.dropBefore(cleared + 1);
  }

  #known(id: string): number {
    const cleared = this.#readers.get(id);
    if (cleared === undefined) throw new UserError('NotFound', `the changelog has no reader ${id}`);
    return cleared;
  }

  #reader(id: string): ChangelogReaderView {
    const cleared = this.#known(id);
    const first = this.#records?.first ?? this.#next;
    return { id, cleared, missing: Math.max(0, Math.min(first, this.#next) - 1 - cleared) };
  }

  /** The file says that all is written: without room for another one its name can say otherwise. */
  async #makeUnclean(): Promise<void> {
    try {
      await rename(this.#file, this.#unclean);
      await syncDirectory(this.#options.folder);
    } catch (error) {
      const cause = messageChain(error);
      this.#options.log.warn(
        { cause },
        'if this daemon is killed, the changelog does not tell what it lacks then',
      );
    }
  }

  async #readUnclean(): Promise<Saved | undefined> {
    const saved = await readSaved(this.#unclean);
    return saved && { ...saved, clean: false };
  }

  async #save(readers: ReadonlyMap<string, number>, clean: boolean): Promise<void> {
    const saved: Saved = {
      next: this.#next,
      lastReader: this.#lastReader,
      clean,
      readers: Object.fromEntries(readers),
    };
    await mkdir(this.#options.folder, { recursive: true, mode: 0o700 });
    await replaceFile(this.#file, `${JSON.stringify(saved)}\n`, { durable: true });
    await rm(this.#unclean, { force: true });
  }
}

async function readSaved(path: string): Promise<Saved | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Saved;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
