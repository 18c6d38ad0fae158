/** What the coordinator's movers and the transfer workers say to each other: plain, structured-cloneable data. */
import type { MessagePort } from 'node:worker_threads';
import type { BlobHeaders, BlobVersion, ContainerConfig } from '../blob/port.js';

/**
 * Download one blob into an open file. Bytes land at their own offsets of `fd` (an fd of this process, borrowed: the
 * worker never closes it). Posts `Progress` to `port` as the contiguous prefix grows; that all of it is there is the answer.
 */
export interface DownloadTask {
  readonly kind: 'download';
  readonly container: ContainerConfig;
  readonly blob: string;
  readonly fd: number;
  readonly size: number;
  /** Every GET carries it as If-Match. */
  readonly etag: string;
  /** Base64; when given the whole content must hash to it. */
  readonly md5?: string | undefined;
  readonly port: MessagePort;
  readonly rangeBytes: number;
  readonly parallelRanges: number;
}

/** Upload an open file as one blob: a single PUT or staged blocks and one commit, metadata in the same request. */
export interface UploadTask {
  readonly kind: 'upload';
  readonly container: ContainerConfig;
  readonly blob: string;
  readonly fd: number;
  readonly size: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly headers?: BlobHeaders | undefined;
  readonly tier?: string | undefined;
  readonly ifMatch?: string | undefined;
  readonly ifNoneMatch?: '*' | undefined;
  readonly blockBytes: number;
  readonly parallelBlocks: number;
  readonly port: MessagePort;
}

export type TransferTask = DownloadTask | UploadTask;

/** Worker to main, before the answer. `bytes`: contiguous prefix on disk (download), bytes sent (upload). */
export interface Progress {
  readonly bytes: number;
}

/**
 * Main to worker, on the same port. `cancel`: stop and reject with a BlobError of kind `aborted`.
 * `proceed`: answer to `ready`.
 */
export type Control = { readonly cancel: true } | { readonly proceed: boolean };

/**
 * Worker to main, upload only: every block is staged (or the single PUT is about to be sent); the commit waits for
 * `proceed`, so that a file which changed under the upload is never committed torn.
 */
export interface Ready {
  readonly ready: true;
}

export interface DownloadResult {
  readonly version: BlobVersion;
}

export interface UploadResult {
  readonly version: BlobVersion;
}

/** BlobError does not survive structured clone as a class; workers reject with this shape in `message`-less form. */
export interface TransferFailure {
  readonly failure: {
    readonly kind: string;
    readonly message: string;
    readonly status?: number | undefined;
    readonly serviceCode?: string | undefined;
    readonly errno?: number | undefined;
  };
}
