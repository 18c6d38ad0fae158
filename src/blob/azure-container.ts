/** The Container port on Azure Blob Storage or Azurite. */
import { setMaxListeners } from 'node:events';
import { BlobError, UserError } from '../base/errors.js';
import { accountAttributesOf, accountKindOf, accountPosixOf } from './account-attributes.js';
import { explained } from './advice.js';
import { AppendLog } from './append-log.js';
import { changeFeedContainer } from './change-feed-index.js';
import { BlobConnection } from './connection.js';
import { scanListPage } from './list-scanner.js';
import type { ListPage } from './list-scanner.js';
import { listedBlob } from './listed.js';
import { listing, type PageRequest } from './listing.js';
import { posixOf } from './metadata.js';
import type { Outage } from './outage.js';
import type {
  BlobHeaders,
  BlobProperties,
  BlobVersion,
  Container,
  ContainerConfig,
  GrowingBlobs,
  ListedBlob,
  ListOptions,
  Namespace,
  Slice,
  StorageOutage,
  WriteOptions,
} from './port.js';
import { FastBlobReader, versionOf } from './reader.js';
import type { RawResponse } from './connection.js';
import { checkWritable, metadataHeaders, uploadBlob } from './upload.js';

/** The service's own limit of a page. */
const defaultPageSize = 5000;
/** Answers that say nothing of the account, and that a later request would not change. */
const untold: ReadonlySet<string> = new Set(['forbidden', 'missing', 'unsupported', 'other']);
/** `read` holds the blob in memory. */
const maxReadBytes = 256 * 1024 ** 2;

/** Opens a container; nothing is sent before the first call. Close it, or its connections keep the process alive. */
export function openContainer(config: ContainerConfig, outage?: Outage): AzureContainer {
  return new AzureContainer(config, outage);
}

export class AzureContainer implements Container, GrowingBlobs, AsyncDisposable {
  readonly name: string;
  readonly identity: string;
  readonly #connection: BlobConnection;
  readonly #reader: FastBlobReader;
  readonly #log: AppendLog;
  #namespace: Namespace;
  #changeFeed: AzureContainer | undefined;

  constructor(config: ContainerConfig, outage?: Outage) {
    this.name = config.container;
    const { host, pathname } = new URL(config.url);
    this.identity = host + pathname;
    this.#connection = new BlobConnection(config, outage);
    this.#reader = new FastBlobReader(this.#connection);
    this.#log = new AppendLog(this.#connection);
    const { hierarchical } = config;
    this.#namespace =
      hierarchical === undefined
        ? { hierarchical: false, source: 'nobody' }
        : { hierarchical, source: 'setting' };
  }

  get #accountFirst(): boolean {
    return this.#connection.config.accountFirst === true;
  }

  get namespace(): Namespace {
    return this.#namespace;
  }

  get outage(): StorageOutage | undefined {
    return this.#connection.outage.at();
  }

  // A getter on the prototype: serialising a container never shows its secrets.
  get workerConfig(): ContainerConfig {
    return this.#connection.config;
  }

  async check(signal?: AbortSignal): Promise<void> {
    try {
      await this.#page({ prefix: '' }, { pageSize: 1 }, signal);
      if (this.#connection.config.hierarchical === undefined) await this.#learnNamespace(signal);
      await this.#refusePublic(signal);
    } catch (error) {
      throw explained(error, this.#connection.config);
    }
  }

  async *list(options: ListOptions = {}): AsyncGenerator<readonly ListedBlob[], void, void> {
    const stop = new AbortController();
    // Each request under way listens to it.
    setMaxListeners(0, stop.signal);
    const onAbort = (): void => {
      stop.abort();
    };
    if (options.signal?.aborted === true) stop.abort();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const { prefix = '' } = options;
    const isPath = this.#namespace.hierarchical && prefix !== '';
    const ask = (request: PageRequest): Promise<ListPage> => this.#page(request, options, stop.signal);
    try {
      if (isPath) yield* await this.#itself(prefix, stop.signal);
      // A hierarchical account that could not be asked would lose its directories.
      const sharded = !this.#namespace.hierarchical && this.#namespace.source !== 'nobody';
      yield* listing(ask, isPath ? `${prefix}/` : prefix, { sharded });
    } catch (error) {
      if (options.signal?.aborted === true)
        throw new BlobError('aborted', `listing of ${this.name}: cancelled`);
      throw explained(error, this.#connection.config);
    } finally {
      stop.abort();
      options.signal?.removeEventListener('abort', onAbort);
    }
  }

  async properties(name: string, signal?: AbortSignal): Promise<BlobProperties> {
    const response = await this.#connection.call({
      method: 'HEAD',
      blob: name,
      signal,
      what: `look-up of ${name}`,
    });
    const metadata: Record<string, string> = {};
    for (const [header, value] of response.headers) {
      if (header.startsWith('x-ms-meta-')) metadata[header.slice(10)] = value;
    }
    const version = versionOf(response, Number(response.header('content-length')));
    const account = accountAttributesOf((header) => response.header(header));
    // The tier of the account, which may be another one tomorrow, is nobody's wish for this blob.
    const inferred = response.header('x-ms-access-tier-inferred') === 'true';
    const tier = inferred ? undefined : response.header('x-ms-access-tier');
    return {
      ...version,
      kind: accountKindOf(account, metadata, version.size),
      // As in a listing, which is not asked for what a flat account does not have.
      posix: this.#namespace.hierarchical
        ? accountPosixOf(account, metadata, this.#accountFirst)
        : posixOf(metadata),
      metadata,
      ...(tier !== undefined && { tier }),
      headers: headersOf(response),
    };
  }

  read(
    name: string,
    options: { ifMatch?: string; signal?: AbortSignal } = {},
  ): Promise<{ body: Buffer; version: BlobVersion }> {
    return this.#reader.get(name, maxReadBytes, { etag: options.ifMatch, signal: options.signal });
  }

  write(name: string, body: Buffer | string, options: WriteOptions): Promise<BlobVersion> {
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    return uploadBlob(
      this.#connection,
      name,
      bytes.length,
      (offset, count) => Promise.resolve(bytes.subarray(offset, offset + count)),
      { ...options, blockBytes: Math.max(bytes.length, 1) },
    );
  }

  async setMetadata(
    name: string,
    metadata: Readonly<Record<string, string>>,
    options: { ifMatch?: string; signal?: AbortSignal } = {},
  ): Promise<void> {
    const what = `change of the metadata of ${name}`;
    checkWritable(name, metadata, what);
    await this.#connection.call({
      method: 'PUT',
      blob: name,
      query: 'comp=metadata',
      headers: {
        ...metadataHeaders(metadata),
        ...(options.ifMatch !== undefined && { 'if-match': `"${options.ifMatch}"` }),
      },
      signal: options.signal,
      what,
    });
  }

  appendLog(name: string, text: string, signal?: AbortSignal): Promise<void> {
    return this.#log.append(name, text, signal);
  }

  async logLength(name: string, signal?: AbortSignal): Promise<number> {
    try {
      const what = `look-up of ${name}`;
      const response = await this.#connection.call({ method: 'HEAD', blob: name, signal, what });
      return Number(response.header('content-length'));
    } catch (error) {
      if (error instanceof BlobError && error.kind === 'missing') return 0;
      throw error;
    }
  }

  async delete(name: string, options: { ifMatch?: string; signal?: AbortSignal } = {}): Promise<void> {
    await this.#connection.call({
      method: 'DELETE',
      blob: name,
      headers: {
        'x-ms-delete-snapshots': 'include',
        ...(options.ifMatch !== undefined && { 'if-match': `"${options.ifMatch}"` }),
      },
      signal: options.signal,
      what: `deletion of ${name}`,
    });
  }

  changeFeed(): GrowingBlobs {
    const { url, ...config } = this.#connection.config;
    const account = url.slice(0, url.lastIndexOf('/'));
    const container = changeFeedContainer;
    const reach = { ...config, url: `${account}/${container}`, container };
    // One account: what ails one ails the other.
    this.#changeFeed ??= openContainer(reach, this.#connection.outage);
    return this.#changeFeed;
  }

  async slice(name: string, offset: number, count: number, signal?: AbortSignal): Promise<Slice> {
    const what = `read of ${this.name}/${name}`;
    const headers = { 'x-ms-range': `bytes=${offset}-${offset + count - 1}` };
    const response = await this.#connection.call({ method: 'GET', blob: name, headers, signal, what });
    const { bytes } = response;
    const range = response.header('content-range') ?? `status ${response.status}`;
    const size = Number(/\/(\d+)$/.exec(range)?.[1]);
    // Azurite answers without bytes where the service answers 416.
    if (bytes.length === 0) throw new BlobError('changed', `${what}: it ends before byte ${offset}`);
    const end = Math.min(offset + count, size);
    if (range !== `bytes ${offset}-${end - 1}/${size}` || bytes.length !== end - offset)
      throw new BlobError('corrupt', `${what}: asked for ${count} bytes at ${offset}, got ${range}`);
    const servedMs = Date.parse(response.header('date') ?? '');
    if (Number.isNaN(servedMs)) throw new BlobError('corrupt', `${what}: the answer has no Date`);
    return { bytes, size, servedMs };
  }

  async close(): Promise<void> {
    await Promise.all([this.#connection.close(), this.#changeFeed?.close()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** amlfs 2.1: Azure Managed Lustre takes private containers only. */
  async #refusePublic(signal: AbortSignal | undefined): Promise<void> {
    let level: string | undefined;
    try {
      const what = `look-up of the container ${this.name}`;
      const answer = await this.#connection.call({
        method: 'HEAD',
        query: 'restype=container',
        signal,
        what,
      });
      level = answer.header('x-ms-blob-public-access');
    } catch (error) {
      if (!(error instanceof BlobError) || !untold.has(error.kind)) throw error;
    }
    if (level === undefined || level === '') return;
    const { container, account } = this.#connection.config;
    const where = `container '${container}' of account '${account}'`;
    throw new UserError(
      'PublicContainer',
      `${where} can be read by everybody (access level ${level}): set its access level to Private`,
    );
  }

  async #learnNamespace(signal: AbortSignal | undefined): Promise<void> {
    try {
      const answer = await this.#connection.call({
        method: 'GET',
        query: 'restype=account&comp=properties',
        signal,
        what: 'look-up of the account',
      });
      // Azurite and versions before 2019-07-07 do not have the header, nor such accounts.
      const hierarchical = answer.header('x-ms-is-hns-enabled')?.toLowerCase() === 'true';
      this.#namespace = { hierarchical, source: 'account' };
    } catch (error) {
      // Credentials that may do everything else need not be allowed this one.
      if (!(error instanceof BlobError) || !untold.has(error.kind)) throw error;
    }
  }

  /** What has exactly this path, as a page of a listing. */
  async #itself(path: string, signal: AbortSignal): Promise<readonly (readonly ListedBlob[])[]> {
    try {
      return [[listedBlob(path, await this.properties(path, signal))]];
    } catch (error) {
      if (error instanceof BlobError && error.kind === 'missing') return [];
      throw error;
    }
  }

  async #page(
    { prefix, marker, delimiter }: PageRequest,
    { pageSize = defaultPageSize }: ListOptions,
    signal: AbortSignal | undefined,
  ): Promise<ListPage> {
    const query = [
      // Flat accounts need not know `permissions`.
      `restype=container&comp=list&include=metadata${this.#namespace.hierarchical ? ',permissions' : ''}`,
      `maxresults=${String(pageSize)}`,
      ...(prefix === '' ? [] : [`prefix=${encodeURIComponent(prefix)}`]),
      ...(marker === undefined ? [] : [`marker=${encodeURIComponent(marker)}`]),
      ...(delimiter === undefined ? [] : [`delimiter=${encodeURIComponent(delimiter)}`]),
    ].join('&');
    const what = `listing of ${this.name}`;
    const response = await this.#connection.call({ method: 'GET', query, signal, what });
    return scanListPage(response.bytes, this.#accountFirst);
  }
}

function headersOf(response: RawResponse): BlobHeaders {
  const names = {
    contentType: 'content-type',
    contentEncoding: 'content-encoding',
    contentLanguage: 'content-language',
    contentDisposition: 'content-disposition',
    cacheControl: 'cache-control',
  } as const;
  const found = Object.entries(names).map(([key, header]) => [key, response.header(header)] as const);
  return Object.fromEntries(found.filter(([, value]) => value !== undefined && value !== ''));
}
