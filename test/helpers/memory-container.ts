/** A blob container in memory, with the conditions of the real one and a failure for each call on demand. */
import { createHash } from 'node:crypto';
import { BlobError } from '../../src/base/errors.js';
import { compareListed, isUnderPrefix } from '../../src/blob/listing-order.js';
import { kindOf, lowerCaseKeys, posixOf } from '../../src/blob/metadata.js';
import type {
  BlobProperties,
  BlobVersion,
  Container,
  ContainerConfig,
  ListedBlob,
  ListOptions,
  Namespace,
  WriteOptions,
} from '../../src/blob/port.js';
import { MemoryFeed } from './memory-feed.js';

interface StoredBlob {
  readonly body: Buffer;
  readonly etag: string;
  readonly lastModifiedMs: number;
  readonly options: WriteOptions;
}

export type ContainerCall =
  'list' | 'properties' | 'read' | 'write' | 'setMetadata' | 'delete' | 'appendLog' | 'logLength';

export class MemoryContainer implements Container {
  readonly name: string;
  readonly identity: string;
  readonly workerConfig: ContainerConfig;
  /** What a hierarchical account does by itself, tests do: directories are put like blobs. */
  namespace: Namespace = { hierarchical: false, source: 'account' };
  readonly blobs = new Map<string, StoredBlob>();
  readonly logs = new Map<string, string>();
  readonly feed = new MemoryFeed();
  /** `read a/b`, in order. */
  readonly calls: string[] = [];
  /** Asked before each call; what it returns or rejects with is what the call fails with. */
  before: (call: ContainerCall, blob: string) => void | Promise<void> = () => undefined;
  pageSize = 100;
  #version = 0x8d0_0000;

  constructor(name = 'data') {
    this.name = name;
    this.identity = `memory/${name}`;
    const url = `http://memory/${name}`;
    this.workerConfig = { url, account: 'memory', container: name, auth: { kind: 'key', accountKey: '' } };
  }

  /** Puts a blob as another client would. */
  put(
    name: string,
    body: string | Buffer = '',
    metadata: Readonly<Record<string, string>> = {},
  ): BlobVersion {
    return this.store(name, Buffer.from(body), { metadata });
  }

  text(name: string): string | undefined {
    return this.blobs.get(name)?.body.toString();
  }

  metadata(name: string): Readonly<Record<string, string>> | undefined {
    return this.blobs.get(name)?.options.metadata;
  }

  store(name: string, body: Buffer, options: WriteOptions): BlobVersion {
    const found = this.blobs.get(name);
    if (options.ifNoneMatch === '*' && found !== undefined) throw new BlobError('exists', `${name} exists`);
    if (options.ifMatch !== undefined && options.ifMatch !== found?.etag) {
      throw new BlobError('changed', `${name} has changed`, { status: 412 });
    }
    const etag = `0x${(++this.#version).toString(16).toUpperCase()}`;
    const blob = { body, etag, lastModifiedMs: 1_700_000_000_000 + this.#version, options };
    this.blobs.set(name, blob);
    return versionOf(blob);
  }

  get(name: string, ifMatch?: string): StoredBlob {
    const found = this.blobs.get(name);
    if (found === undefined) throw new BlobError('missing', `${name} does not exist`, { status: 404 });
    if (ifMatch !== undefined && found.etag !== ifMatch) {
      throw new BlobError('changed', `${name} has changed`, { status: 412 });
    }
    if (found.options.tier === 'Archive') throw new BlobError('archived', `${name} is in the archive tier`);
    return found;
  }

  async check(): Promise<void> {
    await Promise.resolve();
  }

  async *list(options: ListOptions = {}): AsyncGenerator<readonly ListedBlob[], void, undefined> {
    const { prefix = '', signal } = options;
    const { hierarchical } = this.namespace;
    const names = [...this.blobs.keys()]
      .filter((name) => isUnderPrefix(name, prefix, hierarchical))
      .sort((a, b) => compareListed(a, b, hierarchical));
    const size = options.pageSize ?? this.pageSize;
    for (let at = 0; at === 0 || at < names.length; at += size) {
      await this.#called('list', prefix, signal);
      yield names.slice(at, at + size).map((name) => this.#listed(name));
    }
  }

  async properties(name: string, signal?: AbortSignal): Promise<BlobProperties> {
    await this.#called('properties', name, signal);
    const blob = this.blobs.get(name);
    if (blob === undefined) throw new BlobError('missing', `${name} does not exist`, { status: 404 });
    const metadata = lowerCaseKeys(blob.options.metadata);
    const { tier, headers = {} } = blob.options;
    const kind = kindOf(metadata, blob.body.length);
    return {
      ...versionOf(blob),
      kind,
      posix: posixOf(metadata),
      metadata,
      headers,
      ...(tier === undefined ? {} : { tier }),
    };
  }

  async read(
    name: string,
    options: { ifMatch?: string; signal?: AbortSignal } = {},
  ): Promise<{ body: Buffer; version: BlobVersion }> {
    await this.#called('read', name, options.signal);
    const blob = this.get(name, options.ifMatch);
    return { body: blob.body, version: versionOf(blob) };
  }

  async write(name: string, body: Buffer | string, options: WriteOptions): Promise<BlobVersion> {
    await this.#called('write', name, options.signal);
    return this.store(name, Buffer.from(body), options);
  }

  async setMetadata(
    name: string,
    metadata: Readonly<Record<string, string>>,
    options: { ifMatch?: string; signal?: AbortSignal } = {},
  ): Promise<void> {
    await this.#called('setMetadata', name, options.signal);
    const { body, options: old } = this.get(name, options.ifMatch);
    this.store(name, body, { ...old, metadata });
  }

  async appendLog(name: string, text: string, signal?: AbortSignal): Promise<void> {
    await this.#called('appendLog', name, signal);
    this.logs.set(name, (this.logs.get(name) ?? '') + text);
  }

  async logLength(name: string, signal?: AbortSignal): Promise<number> {
    await this.#called('logLength', name, signal);
    return Buffer.byteLength(this.logs.get(name) ?? '');
  }

  async delete(name: string, options: { ifMatch?: string; signal?: AbortSignal } = {}): Promise<void> {
    await this.#called('delete', name, options.signal);
    this.get(name, options.ifMatch);
    this.blobs.delete(name);
  }

  changeFeed(): MemoryFeed {
    return this.feed;
  }

  async #called(call: ContainerCall, blob: string, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.calls.push(`${call} ${blob}`);
    let abort = (): void => undefined;
    const aborted = new Promise<never>((_, reject) => {
      abort = () => reject(new BlobError('aborted', 'aborted'));
      signal?.addEventListener('abort', abort, { once: true });
    });
    aborted.catch(() => undefined);
    try {
      await Promise.race([Promise.resolve().then(() => this.before(call, blob)), aborted]);
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  #listed(name: string): ListedBlob {
    const blob = this.get(name);
    const metadata = lowerCaseKeys(blob.options.metadata);
    const { tier } = blob.options;
    return {
      ...versionOf(blob),
      name,
      metadata,
      kind: kindOf(metadata, blob.body.length),
      posix: posixOf(metadata),
      ...(tier === undefined ? {} : { tier }),
    };
  }
}

function versionOf({ etag, body, lastModifiedMs }: StoredBlob): BlobVersion {
  const md5 = createHash('md5').update(body).digest('base64');
  return { etag, size: body.length, lastModifiedMs, md5 };
}
