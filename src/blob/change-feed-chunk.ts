/**
 * Chunks of the change feed: Avro object container files (Avro 1.8.2, "Object Container Files") to which blocks are
 * appended while they are read. A block is read whole or not at all.
 */
import avro from 'avsc';
import { BlobError } from '../base/errors.js';
import { eventOf, type ChangeEvent } from './change-event.js';
import type { GrowingBlobs } from './port.js';

export interface ChunkBlock {
  readonly events: readonly ChangeEvent[];
  /** Where it begins and where the next one does, in bytes. */
  readonly offset: number;
  readonly end: number;
}

export interface ChunkOptions {
  /** The first block that is wanted, where a former one ended; 0: the first there is. */
  readonly offset: number;
  /** Nothing is appended any more: it must end with a whole block. */
  readonly closed: boolean;
  readonly signal: AbortSignal;
}

/** A GET; the service's schemas take less than 10 KiB, its blocks some hundred events. */
const headerBytes = 64 * 1024;
const readBytes = 4 * 1024 ** 2;
/** What a block may ask this process to hold. */
const maxBlockBytes = 64 * 1024 ** 2;
const maxHeaderBytes = 4 * 1024 ** 2;

const magic = Buffer.from('Obj\u0001', 'latin1');
const header = avro.Type.forSchema({
  type: 'record',
  name: 'Header',
  fields: [
    { name: 'magic', type: { type: 'fixed', name: 'Magic', size: magic.length } },
    { name: 'meta', type: { type: 'map', values: 'bytes' } },
    { name: 'sync', type: { type: 'fixed', name: 'Sync', size: 16 } },
  ],
});
const long = avro.Type.forSchema('long');

interface Header {
  readonly meta: Readonly<Record<string, Buffer>>;
  readonly sync: Buffer;
}

interface ChunkFormat {
  readonly type: avro.Type;
  readonly sync: Buffer;
  /** Where the first block begins. */
  readonly end: number;
}

/** The blocks from `offset` on. BlobError `corrupt` where bytes are no block; `changed` where the chunk has shrunk. */
export async function* readChunk(
  blobs: GrowingBlobs,
  name: string,
  { offset, closed, signal }: ChunkOptions,
): AsyncGenerator<ChunkBlock, void, undefined> {
  const bytes = new ChunkBytes(blobs, name, signal);
  const format = await formatOf(bytes, closed);
  if (format === undefined) return;
  for (let at = Math.max(offset, format.end); ;) {
    const block = await blockAt(bytes, at, format);
    if (block === undefined) {
      if (closed && at < bytes.size) throw corrupt(name, at, 'its last block is not whole');
      return;
    }
    yield block;
    at = block.end;
  }
}

/** The bytes of a chunk around where it is read. */
class ChunkBytes {
  readonly name: string;
  /** Of the chunk when it was asked last. */
  size = 0;
  readonly #blobs: GrowingBlobs;
  readonly #signal: AbortSignal;
  #bytes: Buffer = Buffer.alloc(0);
  #start = 0;

  constructor(blobs: GrowingBlobs, name: string, signal: AbortSignal) {
    this.name = name;
    this.#blobs = blobs;
    this.#signal = signal;
  }

  /** What there is from `at` on: `count` bytes or more, but at the end of the chunk. */
  async from(at: number, count: number, ahead: number): Promise<Buffer> {
    const end = this.#start + this.#bytes.length;
    const kept = at >= this.#start && at <= end ? this.#bytes.subarray(at - this.#start) : Buffer.alloc(0);
    this.#bytes = kept;
    this.#start = at;
    const next = at + kept.length;
    if (kept.length >= count || (this.size > 0 && next >= this.size)) return kept;
    try {
      const wanted = Math.max(count - kept.length, ahead);
      const { bytes, size } = await this.#blobs.slice(this.name, next, wanted, this.#signal);
      this.size = size;
      this.#bytes = kept.length === 0 ? bytes : Buffer.concat([kept, bytes]);
    } catch (error) {
      // No range of an empty blob can be asked for.
      if (next > 0 || !(error instanceof BlobError) || error.kind !== 'changed') throw error;
    }
    return this.#bytes;
  }
}

/** Undefined: it is not all there yet. */
async function formatOf(bytes: ChunkBytes, closed: boolean): Promise<ChunkFormat | undefined> {
  for (let count = headerBytes; ; count *= 4) {
    const found = await bytes.from(0, count, count);
    if (found.length === 0) return undefined;
    const seen = found.subarray(0, magic.length);
    if (!magic.subarray(0, seen.length).equals(seen)) throw corrupt(bytes.name, 0, 'it is no Avro file');
    const decoded = decode(header, found, 0, bytes.name, 0);
    if (decoded !== undefined) return formatIn(decoded.value as Header, decoded.end, bytes.name);
    if (found.length < bytes.size && count < maxHeaderBytes) continue;
    if (closed || found.length < bytes.size) throw corrupt(bytes.name, 0, 'its header is not whole');
    return undefined;
  }
}

function formatIn({ meta, sync }: Header, end: number, name: string): ChunkFormat {
  const codec = meta['avro.codec']?.toString() ?? 'null';
  if (codec !== 'null') throw corrupt(name, 0, `its codec '${codec}' is not the feed's`);
  try {
    const schema = JSON.parse(meta['avro.schema']?.toString() ?? '') as avro.Schema;
    return { type: avro.Type.forSchema(schema), sync, end };
  } catch (error) {
    throw corrupt(name, 0, 'its schema cannot be understood', error);
  }
}

/** Undefined: it is not all there yet. */
async function blockAt(bytes: ChunkBytes, at: number, format: ChunkFormat): Promise<ChunkBlock | undefined> {
  const { name } = bytes;
  // Two numbers of at most ten bytes each.
  const start = await bytes.from(at, 20, readBytes);
  const count = longAt(start, 0, name, at);
  if (count === undefined) return undefined;
  const size = longAt(start, count.end, name, at);
  if (size === undefined) return undefined;
  if (count.value < 0 || size.value < 0 || size.value > maxBlockBytes)
    throw corrupt(name, at, `a block of ${count.value} events in ${size.value} bytes`);
  const dataEnd = size.end + size.value;
  const blockEnd = dataEnd + format.sync.length;
  const block = await bytes.from(at, blockEnd, readBytes);
  if (block.length < blockEnd) return undefined;
  if (!block.subarray(dataEnd, blockEnd).equals(format.sync))
    throw corrupt(name, at, "a block does not end with the chunk's sync marker");
  const events = eventsIn(block.subarray(size.end, dataEnd), count.value, format, name, at);
  return { events, offset: at, end: at + blockEnd };
}

function eventsIn(
  data: Buffer,
  count: number,
  { type }: ChunkFormat,
  name: string,
  at: number,
): readonly ChangeEvent[] {
  const events: ChangeEvent[] = [];
  let next = 0;
  while (events.length < count) {
    const decoded = decode(type, data, next, name, at);
    // An event takes a byte at least, or a count could keep this busy for ever.
    if (decoded === undefined || decoded.end === next)
      throw corrupt(name, at, 'a block has fewer events than it says');
    try {
      events.push(eventOf(decoded.value));
    } catch (error) {
      throw corrupt(name, at, 'a record is no event', error);
    }
    next = decoded.end;
  }
  if (next !== data.length) throw corrupt(name, at, 'a block has more bytes than its events');
  return events;
}

function longAt(
  bytes: Buffer,
  from: number,
  name: string,
  at: number,
): { readonly value: number; readonly end: number } | undefined {
  const decoded = decode(long, bytes, from, name, at);
  return decoded && { ...decoded, value: Number(decoded.value) };
}

/** Undefined: the value goes on behind the bytes. */
function decode(
  type: avro.Type,
  bytes: Buffer,
  from: number,
  name: string,
  at: number,
): { readonly value: unknown; readonly end: number } | undefined {
  try {
    const decoded: { readonly value: unknown; readonly offset: number } = type.decode(bytes, from);
    return decoded.offset < 0 ? undefined : { value: decoded.value, end: decoded.offset };
  } catch (error) {
    throw corrupt(name, at, 'a value cannot be decoded', error);
  }
}

function corrupt(name: string, at: number, why: string, cause?: unknown): BlobError {
  return new BlobError('corrupt', `the change feed's chunk ${name} is damaged at byte ${at}: ${why}`, {
    cause,
  });
}
