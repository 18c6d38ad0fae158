/** Writes one block blob: a single PUT or staged blocks and one commit, metadata and conditions in the same request. */
import { createHash, randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { BlockBlobClient } from '@azure/storage-blob';
import { BlobError } from '../base/errors.js';
import { toBlobError } from './azure-errors.js';
import type { ByteBudget } from './byte-budget.js';
import type { BlobConnection } from './connection.js';
import { Deadline } from './deadline.js';
import { bareEtag } from './list-scanner.js';
import { uploadIdKey } from './metadata.js';
import { unaddressable } from './names.js';
import type { BlobVersion, WriteOptions } from './port.js';
import { versionOf } from './reader.js';

const defaultBlockBytes = 8 * 1024 ** 2;
const maxBlocks = 50_000;
const maxBlockBytes = 4000 * 1024 ** 2;
const maxMetadataBytes = 8 * 1024;
/** What all blocks in flight of one upload may hold in memory. */
const maxBytesInFlight = 64 * 1024 ** 2;
const slowestBytesPerMs = 16;

/**
 * The block size for a blob: `preferred` (8 MiB by default) if the blob then has at most 50,000 blocks, else doubled
 * from 8 MiB up to 4000 MiB, as AMLFS's copytool does.
 */
export function blockBytesFor(size: number, preferred = defaultBlockBytes): number {
  if (Math.ceil(size / preferred) <= maxBlocks && preferred <= maxBlockBytes) return preferred;
  let bytes = defaultBlockBytes;
  while (bytes < maxBlockBytes && Math.ceil(size / bytes) > maxBlocks)
    bytes = Math.min(bytes * 2, maxBlockBytes);
  if (Math.ceil(size / bytes) > maxBlocks) {
    const limit = `${maxBlocks.toLocaleString('en')} blocks of ${maxBlockBytes / 1024 ** 2} MiB`;
    throw new BlobError('unsupported', `${String(size)} bytes are more than a block blob can hold: ${limit}`);
  }
  return bytes;
}

export interface UploadOptions extends WriteOptions {
  readonly blockBytes?: number;
  readonly parallelBlocks?: number;
  /** What the upload's buffers come out of, where several share. */
  readonly memory?: ByteBudget;
  /** Bytes that the service has taken, so far. */
  readonly onProgress?: (bytes: number) => void;
  /** Asked when only the commit is left; `false` leaves the blob as it was and rejects with `aborted`. */
  readonly beforeCommit?: () => Promise<boolean>;
}

/** The bytes of an upload: must resolve with exactly `count` of them or reject. */
export type ReadAt = (offset: number, count: number) => Promise<Buffer>;

/**
 * Uploads `size` bytes as `name`. Every PUT carries its MD5, which the service checks before it stores anything; the
 * blob's Content-MD5 is that of the whole. Until the commit the old blob, if any, stays as it was.
 */
export async function uploadBlob(
  connection: BlobConnection,
  name: string,
  size: number,
  readAt: ReadAt,
  options: UploadOptions,
): Promise<BlobVersion> {
  const what = `write of ${name}`;
  checkWritable(name, options.metadata, what);
  const blockBytes = blockBytesFor(size, options.blockBytes);
  const upload = new Upload(connection, name, what, options);
  if (size > blockBytes) return upload.blocks(size, blockBytes, readAt);
  try {
    return await upload.single(size, readAt);
  } catch (error) {
    // Azurite's Put Blob, not its Put Block List, takes the blocks of an upload that was given up for a blob that exists.
    if (!upload.metNothing) throw error;
    return upload.blocks(size, blockBytes, readAt);
  }
}

/** The SDK's client; its errors while opening (no token) as a BlobError. */
export async function openClient(
  connection: BlobConnection,
  what: string,
): ReturnType<BlobConnection['client']> {
  try {
    return await connection.client();
  } catch (error) {
    throw toBlobError(error, what);
  }
}

/** Throws a BlobError for what no request can carry. */
export function checkWritable(name: string, metadata: Readonly<Record<string, string>>, what: string): void {
  const refused = unaddressable(name);
  if (refused !== undefined) throw new BlobError('unsupported', `${what}: ${refused}`);
  let bytes = 0;
  for (const [key, value] of Object.entries(metadata)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key))
      throw new BlobError('unsupported', `${what}: '${key}' is no metadata key`);
    if (!/^[\x20-\x7e]*$/.test(value))
      throw new BlobError('unsupported', `${what}: the metadata '${key}' is not plain ASCII`);
    bytes += key.length + value.length;
  }
  if (bytes > maxMetadataBytes) throw new BlobError('unsupported', `${what}: more than 8 KiB of metadata`);
}

export function metadataHeaders(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(metadata).map(([key, value]) => [`x-ms-meta-${key}`, value]));
}

class Upload {
  readonly #connection: BlobConnection;
  readonly #name: string;
  readonly #what: string;
  readonly #options: UploadOptions;
  /** It was refused because there is a blob, and there is none. */
  metNothing = false;
  #sent = 0;

  constructor(connection: BlobConnection, name: string, what: string, options: UploadOptions) {
    this.#connection = connection;
    this.#name = name;
    this.#what = what;
    this.#options = options;
  }

  async single(size: number, readAt: ReadAt): Promise<BlobVersion> {
    const { memory, onProgress } = this.#options;
    await memory?.acquire(size);
    try {
      const body = size === 0 ? Buffer.alloc(0) : await readAt(0, size);
      const md5 = createHash('md5').update(body).digest();
      await this.#askToCommit();
      const version = await this.#commit(size, md5, (signal) => this.#put(body, md5, signal));
      onProgress?.(size);
      return version;
    } finally {
      memory?.release(size);
    }
  }

  async blocks(size: number, blockBytes: number, readAt: ReadAt): Promise<BlobVersion> {
    const client = (await openClient(this.#connection, this.#what)).getBlockBlobClient(this.#name);
    const count = Math.ceil(size / blockBytes);
    const parallel = Math.max(
      1,
      Math.min(this.#options.parallelBlocks ?? 4, Math.floor(maxBytesInFlight / blockBytes), count),
    );
    const ids = blockIds(count);
    const { memory } = this.#options;
    const hash = createHash('md5');
    const inner = new AbortController();
    // Each block under way listens to it.
    setMaxListeners(0, inner.signal);
    const stop = (): void => {
      inner.abort();
    };
    const outer = this.#options.signal;
    if (outer?.aborted === true) stop();
    outer?.addEventListener('abort', stop, { once: true });
    let next = 0;
    // Blocks are read, and hashed into the whole, strictly in order; only their PUTs overlap.
    let turn: Promise<unknown> = Promise.resolve();
    const worker = async (): Promise<void> => {
      while (next < count && !inner.signal.aborted) {
        const index = next++;
        const offset = index * blockBytes;
        const length = Math.min(blockBytes, size - offset);
        const mine = turn.then(async () => {
          if (inner.signal.aborted) throw new BlobError('aborted', `${this.#what}: cancelled`);
          await memory?.acquire(length);
          try {
            const block = await readAt(offset, length);
            hash.update(block);
            return block;
          } catch (error) {
            memory?.release(length);
            throw error;
          }
        });
        turn = mine.catch(() => undefined);
        const block = await mine;
        try {
          await this.#stage(client, ids[index] ?? '', block, inner.signal);
        } finally {
          memory?.release(length);
        }
      }
    };
    try {
      const failures: unknown[] = [];
      await Promise.all(
        Array.from({ length: parallel }, () =>
          worker().catch((error: unknown) => {
            failures.push(error);
            stop();
          }),
        ),
      );
      if (failures.length > 0) throw this.#firstCause(failures);
      if (outer?.aborted === true) throw new BlobError('aborted', `${this.#what}: cancelled`);
    } finally {
      outer?.removeEventListener('abort', stop);
    }
    const md5 = hash.digest();
    await this.#askToCommit();
    return this.#commit(size, md5, (signal) => this.#commitBlocks(client, ids, md5, signal));
  }

  /** Put Blob, raw: the SDK's `upload` has no way to have the body checked against an MD5. */
  async #put(body: Buffer, md5: Buffer, signal: AbortSignal): Promise<CommitAnswer> {
    const { metadata, headers, tier, ifMatch, ifNoneMatch } = this.#options;
    const sent: Record<string, string> = {
      'x-ms-blob-type': 'BlockBlob',
      'x-ms-blob-content-type': headers?.contentType ?? 'application/octet-stream',
      'content-type': 'application/octet-stream',
      'content-md5': md5.toString('base64'),
      'content-length': String(body.length),
    };
    Object.assign(sent, metadataHeaders(metadata));
    if (headers?.contentEncoding !== undefined) sent['x-ms-blob-content-encoding'] = headers.contentEncoding;
    if (headers?.contentLanguage !== undefined) sent['x-ms-blob-content-language'] = headers.contentLanguage;
    if (headers?.contentDisposition !== undefined)
      sent['x-ms-blob-content-disposition'] = headers.contentDisposition;
    if (headers?.cacheControl !== undefined) sent['x-ms-blob-cache-control'] = headers.cacheControl;
    if (tier !== undefined) sent['x-ms-access-tier'] = tier;
    if (ifMatch !== undefined) sent['if-match'] = `"${ifMatch}"`;
    if (ifNoneMatch !== undefined) sent['if-none-match'] = ifNoneMatch;
    const answer = await this.#connection.call(
      { method: 'PUT', blob: this.#name, headers: sent, body, signal, what: this.#what },
      this.#deadline(body.length),
    );
    return {
      etag: answer.header('etag'),
      lastModifiedMs: Date.parse(answer.header('last-modified') ?? '') || 0,
    };
  }

  async #commitBlocks(
    client: BlockBlobClient,
    ids: string[],
    md5: Buffer,
    signal: AbortSignal,
  ): Promise<CommitAnswer> {
    const { metadata, headers, tier, ifMatch, ifNoneMatch } = this.#options;
    const answer = await client.commitBlockList(ids, {
      abortSignal: signal,
      metadata: { ...metadata },
      conditions: {
        ...(ifMatch !== undefined && { ifMatch: `"${ifMatch}"` }),
        ...(ifNoneMatch !== undefined && { ifNoneMatch }),
      },
      blobHTTPHeaders: {
        blobContentMD5: md5,
        ...(headers?.contentType !== undefined && { blobContentType: headers.contentType }),
        ...(headers?.contentEncoding !== undefined && { blobContentEncoding: headers.contentEncoding }),
        ...(headers?.contentLanguage !== undefined && { blobContentLanguage: headers.contentLanguage }),
        ...(headers?.contentDisposition !== undefined && {
          blobContentDisposition: headers.contentDisposition,
        }),
        ...(headers?.cacheControl !== undefined && { blobCacheControl: headers.cacheControl }),
      },
      ...(tier !== undefined && { tier }),
    });
    return { etag: answer.etag, lastModifiedMs: answer.lastModified?.getTime() ?? 0 };
  }

  /** Of several failures the one that stopped the others. */
  #firstCause(failures: readonly unknown[]): unknown {
    if (this.#options.signal?.aborted === true) return new BlobError('aborted', `${this.#what}: cancelled`);
    return failures[0];
  }

  async #stage(client: BlockBlobClient, id: string, block: Buffer, signal: AbortSignal): Promise<void> {
    using deadline = new Deadline(this.#deadline(block.length), signal);
    try {
      const md5 = createHash('md5').update(block).digest();
      await client.stageBlock(id, block, block.length, {
        transactionalContentMD5: md5,
        abortSignal: deadline.signal,
      });
    } catch (error) {
      throw toBlobError(error, this.#what, signal);
    }
    this.#sent += block.length;
    this.#options.onProgress?.(this.#sent);
  }

  async #askToCommit(): Promise<void> {
    if (this.#options.beforeCommit && !(await this.#options.beforeCommit())) {
      throw new BlobError('aborted', `${this.#what}: given up before the commit`);
    }
    if (this.#options.signal?.aborted === true) throw new BlobError('aborted', `${this.#what}: cancelled`);
  }

  #deadline(bytes: number): number {
    return this.#connection.callDeadlineMs + (5 * bytes) / slowestBytesPerMs;
  }

  async #commit(
    size: number,
    md5: Buffer,
    put: (signal: AbortSignal) => Promise<CommitAnswer>,
  ): Promise<BlobVersion> {
    const { signal } = this.#options;
    using deadline = new Deadline(this.#deadline(size), signal);
    try {
      const { etag, lastModifiedMs } = await put(deadline.signal);
      if (etag === undefined) throw new BlobError('other', `${this.#what}: the answer has no ETag`);
      return { etag: bareEtag(etag), size, lastModifiedMs, md5: md5.toString('base64') };
    } catch (error) {
      const failed = toBlobError(error, this.#what, signal);
      if (failed.kind === 'changed' || failed.kind === 'exists') {
        const own = await this.#ownCommit(size, failed.kind, deadline.signal);
        if (own) return { ...own, md5: md5.toString('base64') };
      }
      throw failed;
    }
  }

  /** A commit whose answer was lost is repeated by the retry policy and then meets itself: by its id it is known. */
  async #ownCommit(
    size: number,
    refusal: 'changed' | 'exists',
    signal: AbortSignal,
  ): Promise<BlobVersion | undefined> {
    const id = this.#options.metadata[uploadIdKey];
    if (id === undefined && refusal === 'changed') return undefined;
    try {
      const now = await this.#connection.call({ method: 'HEAD', blob: this.#name, signal, what: this.#what });
      if (id === undefined || now.header(`x-ms-meta-${uploadIdKey}`) !== id) return undefined;
      return Number(now.header('content-length')) === size ? versionOf(now, size) : undefined;
    } catch (error) {
      this.metNothing = refusal === 'exists' && error instanceof BlobError && error.kind === 'missing';
      return undefined; // then the first failure is what the caller sees
    }
  }
}

/**
 * Ids that no other upload of the blob has, 16 bytes as the copytool's are: the service refuses ids of another length
 * than those that an earlier upload left uncommitted.
 */
function blockIds(count: number): string[] {
  const id = randomBytes(16);
  return Array.from({ length: count }, (_, index) => {
    id.writeUInt32BE(index, 12);
    return id.toString('base64');
  });
}

interface CommitAnswer {
  readonly etag: string | undefined;
  readonly lastModifiedMs: number;
}
