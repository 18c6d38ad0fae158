/**
 * The changelog (lustre-hsm 6): what happened to files, for readers who are registered. As in Lustre nothing is recorded
 * while there is none, and a record stays until every reader has cleared it, or is among too many.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../base/clock.js';
import type { ChangelogReaderView } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { replaceFile } from '../store/atomic-file.js';
import type { NativeStore } from '../store/inodes.js';
import { NumberedLog } from '../store/numbered-log.js';
import { eventOfChange, noFid, type ChangelogEvent, type ChangelogRecord } from './changelog-record.js';

/** Records that are kept for readers who do not clear them. */
const mostRecords = 1 << 20;
/** Records that wait for the disk; what comes then waits in the store, which counts what it loses. */
const mostPending = 100_000;
const mostReaders = 256;

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
  #records: NumberedLog<ChangelogRecord> | undefined;
  #readers = new Map<string, number>();
  #lastReader = 0;
  #next = 1;
  #pending: ChangelogRecord[] = [];
  #scheduled = false;
  /** The last write failed. */
  #failing = false;
  /** Everything that touches the folder, one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #warned = new Set<string>();

  constructor(options: ChangelogOptions) {
    this.#options = options;
    this.#most = options.most ?? mostRecords;
    this.#file = join(options.folder, 'readers.json');
  }

  /** Goes on for the readers that there are. */
  async start(): Promise<void> {
    const saved = await readSaved(this.#file);
    if (saved === undefined) return;
    this.#lastReader = saved.lastReader;
    this.#readers = new Map(Object.entries(saved.readers));
    const records = await this.#log();
    this.#next = Math.max(saved.next, records.last + 1);
    if (!this.recording) return;
    await this.#save(false);
    this.#options.native.setTellChanges(true);
    if (!saved.clean) this.#mark('killed: records may be missing');
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
    this.#take();
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
      this.#readers.set(id, this.#next - 1);
      try {
        await this.#save(false);
      } catch (error) {
        this.#readers.delete(id);
        throw error;
      }
      this.#options.native.setTellChanges(true);
      return this.#reader(id);
    });
  }

  /** Rejects with NotFound. Without a reader there are no records. */
  deregister(id: string): Promise<void> {
    return this.#queue(async () => {
      this.#known(id);
      await this.#flush();
      this.#readers.delete(id);
      this.#warned.delete(id);
      if (!this.recording) this.#options.native.setTellChanges(false);
      await this.#save(!this.recording);
      await this.#drop();
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
      this.#readers.set(id, Math.max(before, end === 0 ? last : end));
      this.#warned.delete(id);
      await this.#save(false);
      await this.#drop();
      return { ...this.#reader(id), missing };
    });
  }

  async readers(): Promise<{ readonly last: number; readonly readers: readonly ChangelogReaderView[] }> {
    await this.#queue(() => this.#flush());
    return { last: this.#next - 1, readers: [...this.#readers.keys()].map((id) => this.#reader(id)) };
  }

  /** Those that some reader has not cleared; also what has just happened. They are durable: nobody is told them again as others. */
  async read(start: number, end: number, limit: number): Promise<ChangelogRead> {
    return this.#queue(async () => {
      await this.#flush();
      const records = this.#records;
      if (records === undefined || !this.recording) return { records: [], missing: 0 };
      await records.sync();
      const wanted = Math.max(start, Math.min(...this.#readers.values()) + 1);
      const from = Math.max(wanted, records.first);
      const to = Math.min(end, this.#next - 1);
      const found = await records.read(from, to, limit);
      const last = found.at(-1)?.index ?? to;
      const missing = Math.max(0, Math.min(from, to + 1) - wanted);
      return { records: found, missing, ...(last < to && { next: last + 1 }) };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue(async () => {
      if (this.#records === undefined) return;
      await this.#flush();
      this.#options.native.setTellChanges(false);
      const records = this.#records;
      this.#records = undefined;
      await records.sync();
      await this.#save(true);
      await records[Symbol.asyncDispose]();
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

  #take(): void {
    if (!this.recording) return;
    while (this.#pending.length < mostPending) {
      const { changes, lost } = this.#options.native.takeChanges();
      for (const change of changes) this.#push(eventOfChange(change));
      if (lost > 0) this.#mark(`${lost} records were lost`);
      if (changes.length === 0) return;
    }
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

  /** One write for whatever happens in a turn of the event loop. */
  #schedule(): void {
    if (this.#scheduled || this.#pending.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      void this.#queue(() => this.#flush());
    });
  }

  #queue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** Writes what there is, and gives up what is too much. Never rejects. */
  async #flush(): Promise<void> {
    this.#take();
    const records = this.#records;
    if (records === undefined || this.#pending.length === 0) return;
    const writing = this.#pending.splice(0);
    try {
      await records.append(writing);
      await records.dropBefore(this.#next - this.#most);
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        this.#options.log.warn({ cause: messageChain(error) }, 'the changelog cannot be written');
      this.#failing = true;
      // With the next ones that can be.
      this.#push(this.#marked('records could not be written'));
    }
    this.#warnIdle();
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

  /** What every reader has cleared. */
  async #drop(): Promise<void> {
    const cleared = this.recording ? Math.min(...this.#readers.values()) : this.#next - 1;
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

  async #save(clean: boolean): Promise<void> {
    const saved: Saved = {
      next: this.#next,
      lastReader: this.#lastReader,
      clean,
      readers: Object.fromEntries(this.#readers),
    };
    await mkdir(this.#options.folder, { recursive: true, mode: 0o700 });
    await replaceFile(this.#file, `${JSON.stringify(saved)}\n`, { durable: true });
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
