/**
 * What the rest of lustrite needs of a blob container. `azure-container.ts` is the implementation; tests wrap it
 * or replace it. Every call takes a signal, has a deadline of its own, and rejects with a BlobError.
 */

/** POSIX attributes as the blob's metadata or its account tells them; absent where both are silent (amlfs 3.4). */
export interface PosixAttributes {
  readonly uid?: number;
  readonly gid?: number;
  /** Permission bits incl. sticky (and setuid/setgid where `lustrite_stat` carried them), no file type. */
  readonly mode?: number;
  /** Nanoseconds since the epoch. */
  readonly mtimeNs?: bigint;
  /**
   * The ACLs that the account tells, as Linux keeps them in extended attributes; null where the mode says all. The default
   * ACL is one of directories.
   */
  readonly acls?: { readonly access: Buffer | null; readonly default: Buffer | null };
  /** An owner, a group or an ACL entry of the account that is none on Linux: it has a name, say an Entra object id. */
  readonly unmapped?: string;
}

export type BlobKind = 'file' | 'directory' | 'symlink';

/** One blob as a listing shows it. */
export interface ListedBlob {
  readonly name: string;
  readonly kind: BlobKind;
  readonly size: number;
  /** Without quotes. */
  readonly etag: string;
  /** Milliseconds since the epoch (the service's resolution is a second). */
  readonly lastModifiedMs: number;
  /** Content-MD5, base64, where the service keeps one. */
  readonly md5?: string;
  readonly posix: PosixAttributes;
  /** The blob's own, not the account's. `Archive` blobs can be listed and not read. */
  readonly tier?: string;
  /** Metadata keys in lower case. */
  readonly metadata: Readonly<Record<string, string>>;
}

export interface ListOptions {
  /** Names that begin with it. On a hierarchical account a path without slashes at its ends: what it is and all below it. */
  readonly prefix?: string;
  readonly pageSize?: number;
  readonly signal?: AbortSignal;
}

/** What a conditional read or write is pinned to and what came of it. ETags have no quotes. */
export interface BlobVersion {
  readonly etag: string;
  readonly size: number;
  readonly lastModifiedMs: number;
  readonly md5?: string;
}

export interface BlobProperties extends BlobVersion {
  readonly kind: BlobKind;
  readonly posix: PosixAttributes;
  readonly metadata: Readonly<Record<string, string>>;
  /** Absent where the blob has that of its account. */
  readonly tier?: string;
  readonly headers: BlobHeaders;
}

/** The HTTP headers of a blob that a re-export keeps. */
export interface BlobHeaders {
  readonly contentType?: string;
  readonly contentEncoding?: string;
  readonly contentLanguage?: string;
  readonly contentDisposition?: string;
  readonly cacheControl?: string;
}

export interface WriteOptions {
  readonly metadata: Readonly<Record<string, string>>;
  readonly headers?: BlobHeaders;
  readonly tier?: string;
  readonly ifMatch?: string;
  readonly ifNoneMatch?: '*';
  readonly signal?: AbortSignal;
}

/** How an account keeps names. */
export interface Namespace {
  /** ADLS Gen2: directories are real and first in listings, and have owners, permissions and ACLs, as files do. */
  readonly hierarchical: boolean;
  /** Who said so; nobody: the account does not tell these credentials, and a flat one is assumed. */
  readonly source: 'account' | 'setting' | 'nobody';
}

/** The storage has not answered any try since then, or only to say that it cannot now. */
export interface StorageOutage {
  readonly sinceMs: number;
  /** Of the last try. */
  readonly why: string;
}

export interface Container {
  readonly name: string;
  /** Account and container, without secrets: what meta.json remembers the store by. */
  readonly identity: string;
  /** Flat until `check` has asked the account, unless the configuration says which it is. */
  readonly namespace: Namespace;
  /** Of this thread's calls within the last minute, which are tried again meanwhile. */
  readonly outage?: StorageOutage | undefined;
  /**
   * Rejects with a BlobError that says what to do when the container cannot be used (missing, forbidden, wrong API
   * version). Learns its namespace.
   */
  check(signal?: AbortSignal): Promise<void>;
  /** Pages in the order of listing-order.ts; memory does not grow with the container. */
  list(options?: ListOptions): AsyncIterable<readonly ListedBlob[]>;
  properties(name: string, signal?: AbortSignal): Promise<BlobProperties>;
  /** A whole small blob. Pinned to `ifMatch` where given. */
  read(
    name: string,
    options?: { ifMatch?: string; signal?: AbortSignal },
  ): Promise<{ body: Buffer; version: BlobVersion }>;
  /** One PUT with the metadata in it. */
  write(name: string, body: Buffer | string, options: WriteOptions): Promise<BlobVersion>;
  /** Replaces the metadata of a blob, or of a directory of a hierarchical account, and nothing else of it. */
  setMetadata(
    name: string,
    metadata: Readonly<Record<string, string>>,
    options?: { ifMatch?: string; signal?: AbortSignal },
  ): Promise<void>;
  /** Appends lines to an append blob, creating it first: job logs. */
  appendLog(name: string, text: string, signal?: AbortSignal): Promise<void>;
  /** Bytes of such a blob; 0: there is none. */
  logLength(name: string, signal?: AbortSignal): Promise<number>;
  delete(name: string, options?: { ifMatch?: string; signal?: AbortSignal }): Promise<void>;
  /** The change feed of the container's account; nothing is asked before its first call. */
  changeFeed(): GrowingBlobs;
  /** What a Piscina worker needs to open the same container itself: structured-cloneable, secrets included, never logged. */
  readonly workerConfig: ContainerConfig;
}

/** Bytes of a blob to which others append. */
export interface Slice {
  readonly bytes: Buffer;
  /** Of the whole blob at that time. */
  readonly size: number;
  /** The service's time, ms since the epoch, in whole seconds. */
  readonly servedMs: number;
}

/** A container whose blobs are not overwritten but grow: the change feed's. */
export interface GrowingBlobs {
  /** Pages in name order. */
  list(options?: ListOptions): AsyncIterable<readonly Pick<ListedBlob, 'name' | 'size'>[]>;
  /** At most `count` bytes from `offset` on. Rejects with `changed` where the blob ends before `offset`. */
  slice(name: string, offset: number, count: number, signal?: AbortSignal): Promise<Slice>;
}

/** How to reach a container. `auth` is decided once (credentials.ts) and crosses to the workers as data. */
export interface ContainerConfig {
  /** `https://account.blob.core.windows.net/container`, no SAS in it. */
  readonly url: string;
  readonly account: string;
  readonly container: string;
  readonly auth:
    | { readonly kind: 'key'; readonly accountKey: string }
    | { readonly kind: 'sas'; readonly token: string }
    | { readonly kind: 'entra' };
  readonly retry?: {
    readonly maxTries?: number;
    readonly retryDelayInMs?: number;
    readonly maxRetryDelayInMs?: number;
  };
  /** Milliseconds without a byte after which a request counts as stalled. */
  readonly stallMs?: number;
  /** Whether the account has a hierarchical namespace; absent: it is asked. */
  readonly hierarchical?: boolean;
  /** What such an account says of owner, group and permissions goes before metadata, as in Azure Managed Lustre. */
  readonly accountFirst?: boolean;
}
