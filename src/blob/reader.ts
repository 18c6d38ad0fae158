/**
 * Reads blobs the short way. Every GET of one read is pinned to one ETag; a body that is cut or stalls is resumed
 * from its last byte; nothing that the answer says about itself is believed before it is checked.
 */
import { createHash } from 'node:crypto';
import { BlobError } from '../base/errors.js';
import { toBlobError } from './azure-errors.js';
import type { BlobConnection, RawResponse } from './connection.js';
import { Deadline } from './deadline.js';
import { bareEtag } from './list-scanner.js';
import type { BlobVersion } from './port.js';

const maxResumes = 5;
/** Slower than this on the whole and a transfer counts as stalled, however steadily it trickles. */
const slowestBytesPerMs = 16;

export interface ReadOptions {
  /** Without quotes; sent as If-Match. */
  readonly etag?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class FastBlobReader {
  readonly #connection: BlobConnection;

  constructor(connection: BlobConnection) {
    this.#connection = connection;
  }

  /**
   * A whole blob of at most `maxBytes` in one GET, its length and its Content-MD5 (where the service sends one)
   * checked. Rejects with `changed` when it is no longer `etag`.
   */
  async get(
    name: string,
    maxBytes: number,
    options: ReadOptions = {},
  ): Promise<{ body: Buffer; version: BlobVersion }> {
    const what = `read of ${name}`;
    using deadline = new Deadline(this.#deadline(maxBytes), options.signal);
    for (let resumes = 0; ; resumes++) {
      const response = await this.#send(name, what, options, deadline.signal, undefined);
      const version = versionOf(response, Number(response.header('content-length')));
      checkEtag(version, options.etag, what);
      if (version.size > maxBytes) {
        discard(response);
        throw new BlobError(
          'corrupt',
          `${what}: ${String(version.size)} bytes came where at most ${String(maxBytes)} were expected`,
        );
      }
      let body: Buffer;
      try {
        body = Buffer.from((await response.body?.arrayBuffer()) ?? new ArrayBuffer(0));
        if (body.length !== version.size) throw new BlobError('unreachable', `${what}: the body was cut`);
      } catch (error) {
        this.#resumable(error, what, resumes, options.signal, deadline.signal);
        await pause(resumes, deadline.signal);
        continue;
      }
      const md5 = response.header('content-md5');
      if (md5 !== undefined && createHash('md5').update(body).digest('base64') !== md5) {
        throw new BlobError('corrupt', `${what}: the content does not match its Content-MD5`);
      }
      return { body, version };
    }
  }

  /**
   * Bytes [offset, offset + count) of a blob of `size` bytes, in order, as `onChunk(bytes, at)`; the next chunk comes
   * when the promise of the last one has resolved. `count` must not be 0: the service refuses empty ranges.
   */
  async range(
    name: string,
    range: { readonly offset: number; readonly count: number; readonly size: number },
    onChunk: (chunk: Buffer, at: number) => Promise<void> | void,
    options: ReadOptions & { readonly etag: string },
  ): Promise<BlobVersion> {
    const what = `read of ${name}`;
    const end = range.offset + range.count;
    const whole = range.offset === 0 && range.count === range.size;
    let at = range.offset;
    let version: BlobVersion | undefined;
    using deadline = new Deadline(this.#deadline(range.count), options.signal);
    for (let resumes = 0; ; resumes++) {
      const asked = whole && at === 0 ? undefined : { from: at, to: end - 1 };
      const response = await this.#send(name, what, options, deadline.signal, asked);
      version = checkedAnswer(response, what, asked, range.size, options.etag);
      let sink: { error: unknown } | undefined;
      try {
        for await (const chunk of response.body ?? []) {
          if (at + chunk.length > end)
            throw new BlobError('corrupt', `${what}: more bytes came than were asked for`);
          const placed = onChunk(chunk, at);
          if (placed) {
            await placed.catch((error: unknown) => {
              sink = { error };
            });
          }
          if (sink) break;
          at += chunk.length;
        }
        if (!sink && at < end) throw new BlobError('unreachable', `${what}: the body was cut`);
      } catch (error) {
        if (error instanceof BlobError && error.kind === 'corrupt') throw error;
        if (at === end) return version; // broken off after its last byte
        this.#resumable(error, what, resumes, options.signal, deadline.signal);
        await pause(resumes, deadline.signal);
        continue;
      }
      if (sink) throw sink.error; // the file's error, not the blob's
      return version;
    }
  }

  /** Throws unless the failure of a body may be followed by another GET. */
  #resumable(
    error: unknown,
    what: string,
    resumes: number,
    caller: AbortSignal | undefined,
    deadline: AbortSignal,
  ): void {
    if (caller?.aborted === true) throw new BlobError('aborted', `${what}: cancelled`);
    if (deadline.aborted) throw new BlobError('unreachable', `${what}: too slow`);
    if (resumes >= maxResumes) {
      const last = toBlobError(error, what);
      throw last.kind === 'unreachable' ? last : new BlobError('unreachable', last.message, { cause: error });
    }
  }

  #deadline(bytes: number): number {
    return (
      this.#connection.callDeadlineMs +
      (maxResumes + 1) * this.#connection.stallMs +
      bytes / slowestBytesPerMs
    );
  }

  async #send(
    name: string,
    what: string,
    options: ReadOptions,
    signal: AbortSignal,
    range: { from: number; to: number } | undefined,
  ): Promise<RawResponse> {
    const headers: Record<string, string> = { accept: '*/*' };
    if (options.etag !== undefined) headers['if-match'] = `"${options.etag}"`;
    if (range) headers['x-ms-range'] = `bytes=${String(range.from)}-${String(range.to)}`;
    try {
      return await this.#connection.send({ method: 'GET', blob: name, headers, signal, what });
    } catch (error) {
      if (options.signal?.aborted === true) throw new BlobError('aborted', `${what}: cancelled`);
      if (signal.aborted) throw new BlobError('unreachable', `${what}: no answer in time`);
      throw error;
    }
  }
}

/** Size, ETag and dates of an answer; `size` is that of the whole blob. */
export function versionOf(response: Pick<RawResponse, 'header'>, size: number): BlobVersion {
  const md5 = response.header('x-ms-blob-content-md5') ?? response.header('content-md5');
  return {
    etag: bareEtag(response.header('etag') ?? ''),
    size,
    lastModifiedMs: Date.parse(response.header('last-modified') ?? '') || 0,
    ...(md5 !== undefined && { md5 }),
  };
}

function checkEtag(version: BlobVersion, etag: string | undefined, what: string): void {
  if (etag !== undefined && version.etag !== etag) {
    throw new BlobError('changed', `${what}: the service answered with another version`);
  }
}

/** The version that an answer carries, after its status, range, length and ETag were found to be what was asked for. */
function checkedAnswer(
  response: RawResponse,
  what: string,
  asked: { from: number; to: number } | undefined,
  size: number,
  etag: string,
): BlobVersion {
  try {
    const contentRange = response.header('content-range');
    if (asked) {
      const expected = `bytes ${String(asked.from)}-${String(asked.to)}/${String(size)}`;
      if (response.status !== 206 || contentRange !== expected) {
        throw new BlobError(
          'corrupt',
          `${what}: asked for ${expected}, got ${contentRange ?? `status ${String(response.status)}`}`,
        );
      }
    } else if (response.status !== 200) {
      throw new BlobError(
        'corrupt',
        `${what}: asked for the whole blob, got ${contentRange ?? `status ${String(response.status)}`}`,
      );
    }
    const version = versionOf(response, size);
    checkEtag(version, etag, what);
    const length = response.header('content-length');
    const expected = asked ? asked.to - asked.from + 1 : size;
    if (length !== undefined && Number(length) !== expected) {
      throw new BlobError(
        'corrupt',
        `${what}: ${length} bytes announced where ${String(expected)} were expected`,
      );
    }
    return version;
  } catch (error) {
    discard(response);
    throw error;
  }
}

function discard(response: RawResponse): void {
  response.body?.destroy();
}

/** A short wait before a resume, longer each time, cut short by the signal. */
function pause(resumes: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, 50 * 2 ** resumes);
    signal.addEventListener('abort', done, { once: true });
  });
}
