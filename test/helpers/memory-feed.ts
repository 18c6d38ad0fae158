/** The container of a change feed in memory, to be written and read. */
import { BlobError } from '../../src/base/errors.js';
import { unlessAborted } from '../../src/base/unless-aborted.js';
import type { GrowingBlobs, ListOptions, Slice } from '../../src/blob/port.js';
import type { FeedBlobs } from './change-feed-writer.js';

export class MemoryFeed implements GrowingBlobs, FeedBlobs {
  readonly blobs = new Map<string, Buffer>();
  /** The service's clock. */
  nowMs = Date.UTC(2026, 0, 31, 12, 0, 0);
  /** Added to it with each answer. */
  tickMs = 0;
  /** `list log/00/`, `slice log/00/…/00000.avro 0`, in order. */
  readonly calls: string[] = [];
  /** Asked before each call; what it throws is what the call fails with. */
  before: (call: string) => void | Promise<void> = () => undefined;
  pageSize = 5000;

  put(name: string, body: Buffer): Promise<void> {
    this.blobs.set(name, body);
    return Promise.resolve();
  }

  append(name: string, bytes: Buffer): Promise<void> {
    return this.put(name, Buffer.concat([this.blobs.get(name) ?? Buffer.alloc(0), bytes]));
  }

  async *list({ prefix = '', signal }: ListOptions = {}): AsyncGenerator<
    readonly { readonly name: string; readonly size: number }[],
    void,
    undefined
  > {
    await this.#called(`list ${prefix}`, signal);
    const names = [...this.blobs.keys()].filter((name) => name.startsWith(prefix)).sort();
    for (let at = 0; at < names.length; at += this.pageSize)
      yield names
        .slice(at, at + this.pageSize)
        .map((name) => ({ name, size: this.blobs.get(name)?.length ?? 0 }));
  }

  async slice(name: string, offset: number, count: number, signal?: AbortSignal): Promise<Slice> {
    await this.#called(`slice ${name} ${offset}`, signal);
    const blob = this.blobs.get(name);
    if (blob === undefined) throw new BlobError('missing', `${name} does not exist`, { status: 404 });
    if (offset >= blob.length)
      throw new BlobError('changed', `${name} ends before ${offset}`, { status: 416 });
    return { bytes: blob.subarray(offset, offset + count), size: blob.length, servedMs: this.nowMs };
  }

  async #called(call: string, signal = new AbortController().signal): Promise<void> {
    this.nowMs += this.tickMs;
    this.calls.push(call);
    await unlessAborted(() => Promise.resolve(this.before(call)), signal);
  }
}
