/** Random operations on one file, as fsx does them, each checked against a model of the content. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { FsError, messageChain } from '../../src/base/errors.js';
import { Application } from './application.js';
import type { Dice } from './tree.js';

const program = fileURLToPath(new URL('fsx.py', import.meta.url));
const { O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, O_APPEND } = constants;
const maxSize = 320 * 1024;
const maxStep = 80 * 1024;

/** As fsx.py makes it. */
export function content(name: string, length: number): Buffer {
  return createHash('shake128', { outputLength: length }).update(name).digest();
}

const sha1 = (bytes: Buffer): string => createHash('sha1').update(bytes).digest('hex');

interface Operation {
  readonly name: string;
  readonly flags: number;
  readonly args: readonly unknown[];
  /** The content afterwards, of what changes it. */
  readonly next?: Buffer;
  /** The content that a read returns. */
  readonly read?: Buffer;
  /** Stored through a mapping and not synced: what was there before, and where. */
  readonly loose?: { readonly at: number; readonly before: Buffer };
}

/** A change that may have happened, or a part of it. */
interface Unsure {
  readonly next: Buffer;
  /** Emptied first. */
  readonly emptied: boolean;
}

/** What happens around an operation, and excuses some of its failures. */
export interface Surroundings {
  /** The daemon is being killed: any operation may fail. */
  readonly dying: boolean;
  /** Moves when a cancel begins and when it ends: who waits for a restore gets ENODATA. */
  readonly cancels: number;
  /** Cancels under way. */
  readonly cancelling: number;
  /** Another process, which has nothing open between two of its steps. */
  readonly reader: Application;
}

/** In an application that shall do steps. */
export async function learn(application: Application): Promise<Application> {
  await application.do('exec(open(args[0]).read())', program);
  return application;
}

export class FsxFile implements AsyncDisposable {
  readonly ino: number;
  /** What it may be called, more than one while somebody renames it. */
  names: readonly string[];
  steps = 0;
  /** The cancels that there had been when the last operation began that came to its end. */
  #calm = 0;
  /** Steps that only read: else no archive would ever find the file as it began, and nothing be released. */
  #reads = 0;
  readonly #id: string;
  readonly #dice: Dice;
  readonly #source: { readonly path: string; readonly content: Buffer };
  #content: Buffer;
  #unsure: Unsure | undefined;
  /** Bytes of the mapping that is kept. */
  #kept = 0;
  /** Stored through that mapping: a daemon that the kernel has not told of it yet can lose it. */
  #loose: { readonly at: number; readonly before: Buffer }[] = [];
  #application: Application | undefined;
  /** Who truncates by name or renames has the names for itself. */
  #names: Promise<unknown> = Promise.resolve();
  #trail: string[] = [];

  constructor(
    id: string,
    file: { readonly path: string; readonly ino: number; readonly content: Buffer },
    dice: Dice,
    source: { readonly path: string; readonly content: Buffer },
  ) {
    this.#id = id;
    this.ino = file.ino;
    this.names = [file.path];
    this.#content = file.content;
    this.#dice = dice;
    this.#source = source;
  }

  /** Of a file that nobody is changing. */
  get content(): Buffer {
    return this.#content;
  }

  get path(): string {
    return this.names[0] ?? '';
  }

  /** The last operations, the newest last. */
  get trail(): string {
    return this.#trail.join('\n  ');
  }

  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#names.then(work);
    this.#names = mine.catch(() => undefined);
    return mine;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#application?.[Symbol.asyncDispose]();
    this.#application = undefined;
    this.#kept = 0;
  }

  /** Closes and unmaps what is held, whatever that answers. */
  async close({ dying = false } = {}): Promise<void> {
    await this.#application?.do('drop()').catch(() => this[Symbol.asyncDispose]());
    this.#kept = 0;
    if (!dying) this.#loose = [];
  }

  /** One operation. Rejects when it fails for no good reason or finds other than the model has. */
  async step(around: Surroundings): Promise<void> {
    const dice = this.#dice;
    if (this.#reads > 0) this.#reads--;
    else if (dice.below(30) === 0) this.#reads = 5 + dice.below(30);
    if (dice.below(8) === 0 || this.#reads > 0) await this.close(around);
    const operation = this.#choose();
    const { flags, next } = operation;
    const truncates = (flags & O_TRUNC) !== 0;
    const how = [
      ...(!truncates && dice.below(4) === 0 ? ['hold'] : []),
      ...(!truncates && next !== undefined && dice.below(6) === 0 ? ['rewind'] : []),
      ...(operation.name === 'read' && dice.below(4) === 0 ? ['elsewhere'] : []),
    ];
    this.#note(operation, how);
    if (!truncates) return this.#do(operation, how, around);
    return this.exclusive(() => this.#do(operation, how, around));
  }

  async #do(operation: Operation, how: readonly string[], around: Surroundings): Promise<void> {
    const { name, flags, args, next, read, loose } = operation;
    const { cancels } = around;
    const calm = this.#calm;
    const elsewhere = how.includes('elsewhere');
    for (let moved = 0; ; moved++) {
      try {
        const application = elsewhere ? around.reader : await this.#running();
        const [size, found] = (await application.do(
          'step(*args)', this.names, this.ino, flags, elsewhere ? [] : how, name, ...args,
        )) as [number | null, unknown]; // prettier-ignore
        this.steps++;
        this.#calm = cancels;
        const want = next ?? this.#content;
        // What has returned has happened, whatever becomes of the daemon.
        this.#content = want;
        if (loose !== undefined) this.#loose.push(loose);
        if (name === 'keep') this.#kept = Number(found);
        if (name === 'keptSync' || name === 'fsync') this.#loose = [];
        if (size !== null && size !== want.length)
          throw new Wrong(`${name} leaves ${size} bytes instead of ${want.length}`);
        if (name === 'dataRanges') this.#checkHoles(found as readonly (readonly [number, number])[]);
        if (read !== undefined && found !== sha1(read))
          throw new Wrong(await this.#difference(application, read));
        return;
      } catch (error) {
        if (error instanceof Wrong) throw error;
        if (around.dying) {
          if (next !== undefined) this.#unsure = { next, emptied: (flags & O_TRUNC) !== 0 };
          return;
        }
        const code = error instanceof FsError ? error.code : undefined;
        if (code === 'ENOENT' && moved < 100) continue;
        const died = messageChain(error).includes('SIGBUS');
        if (died) await this[Symbol.asyncDispose]();
        // Who waits for a restore that is cancelled, or for the end of one that was; nothing has been changed by then.
        const cancelled = around.cancelling > 0 || around.cancels !== calm;
        if (cancelled && (code === 'ENODATA' || (died && name === 'mapRead'))) return;
        throw error;
      }
    }
  }

  /** The content is this from now on, if it may be. */
  settle(found: Buffer): void {
    if (!this.#allows(found)) throw new Wrong(differenceOf(this.#content, found));
    this.#content = found;
    this.#unsure = undefined;
    if (this.#kept === 0) this.#loose = [];
    this.#note({ name: 'settled', flags: 0, args: [found.length] });
  }

  /** The daemon has been killed, and everybody's mappings with it. */
  async killed(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#note({ name: 'killed', flags: 0, args: [] });
  }

  #allows(found: Buffer): boolean {
    const now = this.#content;
    if (found.equals(now)) return true;
    const { next, emptied } = this.#unsure ?? { next: now, emptied: false };
    const least = emptied ? 0 : Math.min(now.length, next.length);
    if (found.length < least || found.length > Math.max(now.length, next.length)) return false;
    return found.every(
      (byte, at) => byte === next[at] || (!emptied && (byte === now[at] || this.#wasLoose(at, byte))),
    );
  }

  #wasLoose(at: number, byte: number): boolean {
    // Lost only with the daemon, whose death ends the mapping, too.
    return this.#kept === 0 && this.#loose.some((loose) => loose.before[at - loose.at] === byte);
  }

  #checkHoles(ranges: readonly (readonly [number, number])[]): void {
    let end = 0;
    for (const [start, until] of [...ranges, [this.#content.length, 0] as const]) {
      if (this.#content.subarray(end, start).some((byte) => byte !== 0))
        throw new Wrong(`a hole from ${end} to ${start} has data`);
      end = until;
    }
  }

  #choose(): Operation {
    const dice = this.#dice;
    const now = this.#content;
    const size = now.length;
    const upTo = (most: number): number => 1 + dice.below(Math.max(1, most));
    const at = dice.below(Math.max(1, size));
    const within = size === 0 ? 0 : upTo(Math.min(maxStep, size - at));
    const label = `${this.#id}.${dice.below(1e9)}`;
    const reading = (): Operation => ({
      name: 'read', flags: O_RDONLY, args: [at, maxSize], read: now.subarray(at),
    }); // prettier-ignore
    const write = (
      name: string,
      flags: number,
      to: number,
      length: number,
      ...more: unknown[]
    ): Operation => ({
      name,
      flags,
      args: name === 'append' || name === 'rewrite' ? [label, length] : [to, label, length, ...more],
      next: patched(name === 'rewrite' ? Buffer.alloc(0) : now, to, content(label, length)),
    });
    const mapped = Math.min(this.#kept, size);
    const reads = [0, 2, 6, 15] as const;
    switch (this.#reads > 0 ? dice.pick(reads) : dice.below(20)) {
      case 0:
      case 1:
        return reading();
      case 2:
        return { name: 'read', flags: O_RDONLY, args: [at, within], read: now.subarray(at, at + within) };
      case 3:
      case 4: {
        const to = dice.below(Math.min(maxSize - maxStep, size + 20_000));
        return write('write', O_RDWR, to, upTo(maxStep));
      }
      case 5:
        if (size > maxSize - maxStep) return reading();
        return write('append', O_WRONLY | O_APPEND, size, upTo(maxStep));
      case 6:
      case 7:
        if (within === 0) return reading();
        return { name: 'mapRead', flags: O_RDONLY, args: [at, within], read: now.subarray(at, at + within) };
      case 8:
      case 9:
        if (within === 0) return reading();
        return write('mapWrite', O_RDWR, at, within, dice.below(2) === 0);
      case 10: {
        const to = dice.below(size + 1);
        return { name: 'truncate', flags: O_RDWR, args: [to], next: now.subarray(0, to) };
      }
      case 11: {
        const to = Math.min(maxSize, size + dice.below(maxStep));
        const name = dice.below(2) === 0 || to === size ? 'truncate' : 'allocate';
        const args = name === 'truncate' ? [to] : [size, to - size];
        return { name, flags: O_RDWR, args, next: patched(now, to, Buffer.alloc(0)) };
      }
      case 12: {
        if (within === 0) return reading();
        return {
          name: dice.below(2) === 0 ? 'punch' : 'zero',
          flags: O_RDWR,
          args: [at, within],
          next: patched(now, at, Buffer.alloc(within)),
        };
      }
      case 13: {
        // Two halves, so that the ranges do not overlap.
        const half = Math.floor(size / 2);
        if (half < 2) return reading();
        const length = upTo(Math.min(maxStep, half - 1));
        const from = dice.below(half - length + 1);
        const to = half + dice.below(half - length + 1);
        const next = patched(now, to, now.subarray(from, from + length));
        return { name: 'copy', flags: O_RDWR, args: [from, to, length], next };
      }
      case 14: {
        const source = this.#source;
        const length = upTo(maxStep);
        const from = dice.below(source.content.length - length);
        const to = dice.below(Math.min(maxSize - maxStep, size + 1));
        const next = patched(now, to, source.content.subarray(from, from + length));
        return { name: 'copyIn', flags: O_RDWR, args: [source.path, from, to, length], next };
      }
      case 15:
        return { name: 'dataRanges', flags: O_RDONLY, args: [] };
      case 16:
      case 17:
      case 18: {
        if (size === 0) return reading();
        if (this.#kept === 0) return { name: 'keep', flags: O_RDWR, args: [] };
        const to = dice.below(mapped);
        const length = upTo(Math.min(maxStep, mapped - to));
        const before = now.subarray(to, to + length);
        if (dice.below(4) === 0) return { name: 'keptSync', flags: 0, args: [] };
        if (dice.below(3) === 0) return { name: 'keptRead', flags: 0, args: [to, length], read: before };
        return { ...write('keptWrite', 0, to, length), loose: { at: to, before } };
      }
      default:
        if (dice.below(2) === 0) return { name: 'fsync', flags: O_RDWR, args: [] };
        return write('rewrite', O_RDWR | O_TRUNC, 0, upTo(maxStep));
    }
  }

  async #running(): Promise<Application> {
    this.#application ??= await learn(new Application());
    return this.#application;
  }

  async #difference(application: Application, want: Buffer): Promise<string> {
    const found = await application.do('base64.b64encode(last)');
    return differenceOf(want, Buffer.from(String(found), 'base64'));
  }

  #note(
    { name, flags, args }: Pick<Operation, 'name' | 'flags' | 'args'>,
    how: readonly string[] = [],
  ): void {
    const words = [`${name}(${args.join(', ')})`, `flags ${flags.toString(8)}`, ...how];
    this.#trail = [...this.#trail.slice(-30), words.join(' ')];
  }
}

/** The file is not what the model says. */
export class Wrong extends Error {
  override readonly name = 'Wrong';
}

/** `now` with `bytes` at an offset; zeros where neither had any. */
function patched(now: Buffer, at: number, bytes: Buffer): Buffer {
  const next = Buffer.alloc(Math.max(now.length, at + bytes.length));
  now.copy(next);
  bytes.copy(next, at);
  return next;
}

export function differenceOf(want: Buffer, found: Buffer): string {
  const end = Math.min(want.length, found.length);
  const differ = (at: number): boolean => want[at] !== found[at];
  let first = 0;
  while (first < end && !differ(first)) first++;
  let last = end - 1;
  while (last > first && !differ(last)) last--;
  const zeros = found.subarray(first, last + 1).every((byte) => byte === 0);
  return `${found.length} bytes instead of ${want.length}, other ones${zeros ? ' (zeros)' : ''} from ${first} to ${last}`;
}
