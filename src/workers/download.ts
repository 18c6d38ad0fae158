/** Downloads one blob into an open file. */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { BlobError } from '../base/errors.js';
import type { BlobVersion } from '../blob/port.js';
import type { FastBlobReader } from '../blob/reader.js';
import { readFully, syncWriteBytes, writeFully, writeFullySync } from './file-io.js';
import type { DownloadResult, DownloadTask } from './messages.js';
import { Watermark } from './watermark.js';

/** Up to this size a body is collected and written in one go. */
const smallBytes = 256 * 1024;
/** Received bytes of a range that may wait for the disk. */
const maxPendingBytes = 1024 ** 2;
const readBackBytes = 1024 ** 2;

export interface DownloadHooks {
  /** The contiguous prefix that is in the file. */
  readonly onProgress: (bytes: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Writes `task.size` bytes of version `task.etag` into `task.fd` at their own offsets (the file must already have
 * its size and be open for reading too when `md5` is given and the blob has several ranges). Rejects with a BlobError,
 * or an FsError when the file cannot take them; no write is in flight any more when it settles.
 */
export async function download(
  task: Omit<DownloadTask, 'kind' | 'port' | 'container'>,
  reader: FastBlobReader,
  hooks: DownloadHooks,
): Promise<DownloadResult> {
  const { blob, etag, size, md5 } = task;
  if (hooks.signal.aborted) throw new BlobError('aborted', `read of ${blob}: cancelled`);
  if (size <= Math.min(smallBytes, task.rangeBytes)) return downloadSmall(task, reader, hooks);
  using watermark = new Watermark(hooks.onProgress);
  if (size <= task.rangeBytes) {
    const hash = md5 === undefined ? undefined : createHash('md5');
    const version = await downloadRange(task, reader, watermark, 0, hooks.signal, hash);
    checkMd5(blob, md5, hash);
    watermark.flush();
    return { version };
  }
  return await downloadRanges({ ...task, etag }, reader, watermark, hooks);
}

async function downloadSmall(
  task: Omit<DownloadTask, 'kind' | 'port' | 'container'>,
  reader: FastBlobReader,
  hooks: DownloadHooks,
): Promise<DownloadResult> {
  const { blob, etag, size, md5 } = task;
  const { body, version } = await reader.get(blob, size, { etag, signal: hooks.signal });
  if (body.length !== size) {
    throw new BlobError(
      'corrupt',
      `read of ${blob}: ${String(body.length)} bytes where ${String(size)} were expected`,
    );
  }
  checkMd5(blob, md5, md5 === undefined ? undefined : createHash('md5').update(body));
  if (size <= syncWriteBytes) writeFullySync(task.fd, body, 0);
  else await writeFully(task.fd, body, 0);
  if (size > 0) hooks.onProgress(size);
  return { version };
}

function checkMd5(blob: string, expected: string | undefined, hash: Hash | undefined): void {
  if (expected === undefined || hash === undefined) return;
  const found = hash.digest('base64');
  if (found !== expected) {
    throw new BlobError('corrupt', `read of ${blob}: the content's MD5 is ${found}, not ${expected}`);
  }
}

async function downloadRanges(
  task: Omit<DownloadTask, 'kind' | 'port' | 'container'>,
  reader: FastBlobReader,
  watermark: Watermark,
  hooks: DownloadHooks,
): Promise<DownloadResult> {
  const { blob, size, rangeBytes, md5 } = task;
  const count = Math.ceil(size / rangeBytes);
  const inner = new AbortController();
  // Each range under way listens to it.
  setMaxListeners(0, inner.signal);
  const stop = (): void => {
    inner.abort();
  };
  hooks.signal.addEventListener('abort', stop, { once: true });
  let next = 0;
  let version: BlobVersion | undefined;
  const failures: unknown[] = [];
  const hasher = md5 === undefined ? undefined : new PrefixHasher(task.fd, watermark);
  const worker = async (): Promise<void> => {
    while (next < count && !inner.signal.aborted) {
      const index = next++;
      version = await downloadRange(
        task,
        reader,
        watermark,
        index * rangeBytes,
        inner.signal,
        undefined,
        hasher,
      );
    }
  };
  try {
    await Promise.all(
      Array.from({ length: Math.max(1, Math.min(task.parallelRanges, count)) }, () =>
        worker().catch((error: unknown) => {
          failures.push(error);
          stop();
        }),
      ),
    );
  } finally {
    hooks.signal.removeEventListener('abort', stop);
    await hasher?.settled();
  }
  if (hooks.signal.aborted) throw new BlobError('aborted', `read of ${blob}: cancelled`);
  if (failures.length > 0) throw failures[0];
  if (version === undefined || watermark.bytes !== size) {
    throw new BlobError(
      'corrupt',
      `read of ${blob}: ${String(watermark.bytes)} of ${String(size)} bytes came`,
    );
  }
  if (hasher) checkMd5(blob, md5, await hasher.finish(size));
  watermark.flush();
  return { version };
}

/** One range, received and written at the same time; settles only when its last write has. */
async function downloadRange(
  task: Omit<DownloadTask, 'kind' | 'port' | 'container'>,
  reader: FastBlobReader,
  watermark: Watermark,
  offset: number,
  signal: AbortSignal,
  hash?: Hash,
  hasher?: PrefixHasher,
): Promise<BlobVersion> {
  const count = Math.min(task.rangeBytes, task.size - offset);
  const writer = new RangeWriter(task.fd, offset, (from, to) => {
    watermark.add(from, to);
    hasher?.advance();
  });
  try {
    const version = await reader.range(
      task.blob,
      { offset, count, size: task.size },
      (chunk) => {
        hash?.update(chunk);
        return writer.push(chunk);
      },
      { etag: task.etag, signal },
    );
    await writer.drained();
    return version;
  } catch (error) {
    await writer.drained().catch(() => undefined);
    throw error;
  }
}

/** Writes chunks in order while the next ones arrive; at most `maxPendingBytes` wait. */
class RangeWriter {
  readonly #fd: number;
  readonly #onWritten: (from: number, to: number) => void;
  #at: number;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #running: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(fd: number, at: number, onWritten: (from: number, to: number) => void) {
    this.#fd = fd;
    this.#at = at;
    this.#onWritten = onWritten;
  }

  /** Takes a chunk; a promise when the caller has to wait before the next. */
  push(chunk: Buffer): Promise<void> | undefined {
    if (this.#failure) return this.drained();
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    this.#running ??= this.#run();
    return this.#pendingBytes < maxPendingBytes ? undefined : this.drained();
  }

  /** Everything taken is in the file, or the first failure. */
  async drained(): Promise<void> {
    await this.#running;
    if (this.#failure) throw this.#failure.error;
  }

  async #run(): Promise<void> {
    try {
      while (this.#pending.length > 0) {
        const chunks = this.#pending;
        const bytes =
          chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks, this.#pendingBytes);
        this.#pending = [];
        this.#pendingBytes = 0;
        await writeFully(this.#fd, bytes, this.#at);
        const from = this.#at;
        this.#at += bytes.length;
        this.#onWritten(from, this.#at);
      }
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#running = undefined;
    }
  }
}

/** Hashes the file's contiguous prefix as it grows, by reading it back: it is in the page cache, and is what counts. */
class PrefixHasher {
  readonly #fd: number;
  readonly #watermark: Watermark;
  readonly #hash = createHash('md5');
  readonly #buffer = Buffer.allocUnsafe(readBackBytes);
  #at = 0;
  #running: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(fd: number, watermark: Watermark) {
    this.#fd = fd;
    this.#watermark = watermark;
  }

  /** Catches up with the watermark in the background, a whole buffer at a time. */
  advance(): void {
    if (this.#running || this.#failure || this.#watermark.bytes - this.#at < readBackBytes) return;
    this.#running = this.#catchUp(false);
  }

  async settled(): Promise<void> {
    await this.#running;
  }

  /** The hash of the first `size` bytes. */
  async finish(size: number): Promise<Hash> {
    await this.#running;
    await this.#catchUp(true);
    if (this.#failure) throw this.#failure.error;
    if (this.#at !== size) throw new BlobError('corrupt', 'the file became shorter while it was filled');
    return this.#hash;
  }

  async #catchUp(toTheEnd: boolean): Promise<void> {
    try {
      while (this.#watermark.bytes - this.#at >= (toTheEnd ? 1 : readBackBytes)) {
        const want = Math.min(readBackBytes, this.#watermark.bytes - this.#at);
        const count = await readFully(this.#fd, this.#buffer.subarray(0, want), this.#at);
        this.#hash.update(this.#buffer.subarray(0, count));
        this.#at += count;
        if (count < want) return;
      }
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#running = undefined;
    }
  }
}
