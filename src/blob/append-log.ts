/** Appends text to append blobs, each piece once even where an answer is lost. */
import { BlobError } from '../base/errors.js';
import { toBlobError } from './azure-errors.js';
import type { BlobConnection } from './connection.js';
import { Deadline } from './deadline.js';
import { openClient } from './upload.js';

/** The limit of one Append Block in every service version. */
const maxAppendBytes = 4 * 1024 ** 2;
/** Positions remembered; one that was dropped is asked for again. */
const maxRemembered = 256;

export class AppendLog {
  readonly #connection: BlobConnection;
  /** Length of each blob as this process knows it. */
  readonly #positions = new Map<string, number>();
  /** The last append of each blob: the next one waits for it, so that lines keep their order. */
  readonly #tails = new Map<string, Promise<void>>();

  constructor(connection: BlobConnection) {
    this.#connection = connection;
  }

  /** Appends `text` to the append blob `name`, created if need be, after every earlier append to it. */
  async append(name: string, text: string, signal?: AbortSignal): Promise<void> {
    const before = this.#tails.get(name) ?? Promise.resolve();
    const mine = before.then(() => this.#append(name, Buffer.from(text), signal));
    const tail = mine.catch(() => undefined);
    this.#tails.set(name, tail);
    try {
      await mine;
    } finally {
      if (this.#tails.get(name) === tail) this.#tails.delete(name);
    }
  }

  async #append(name: string, bytes: Buffer, signal: AbortSignal | undefined): Promise<void> {
    const what = `append to ${name}`;
    using deadline = new Deadline(2 * this.#connection.callDeadlineMs, signal);
    const abortSignal = deadline.signal;
    try {
      const blob = (await openClient(this.#connection, what)).getAppendBlobClient(name);
      let position = this.#positions.get(name);
      if (position === undefined) {
        const created = await blob.createIfNotExists({
          abortSignal,
          blobHTTPHeaders: { blobContentType: 'text/plain' },
        });
        position = created.succeeded ? 0 : ((await blob.getProperties({ abortSignal })).contentLength ?? 0);
      }
      for (let at = 0; at < bytes.length; at += maxAppendBytes) {
        const piece = bytes.subarray(at, at + maxAppendBytes);
        try {
          await blob.appendBlock(piece, piece.length, {
            abortSignal,
            conditions: { appendPosition: position },
          });
        } catch (error) {
          if ((error as { statusCode?: number }).statusCode !== 412) throw error;
          // Either our own append whose answer was lost, or another writer's.
          const length: number = (await blob.getProperties({ abortSignal })).contentLength ?? 0;
          const own =
            length === position + piece.length &&
            (await blob.downloadToBuffer(position, piece.length, { abortSignal })).equals(piece);
          if (!own) {
            position = length;
            await blob.appendBlock(piece, piece.length, {
              abortSignal,
              conditions: { appendPosition: position },
            });
          }
        }
        position += piece.length;
      }
      this.#remember(name, position);
    } catch (error) {
      this.#positions.delete(name);
      if (deadline.signal.aborted && signal?.aborted !== true) {
        throw new BlobError('unreachable', `${what}: no answer in time`);
      }
      throw toBlobError(error, what, signal);
    }
  }

  #remember(name: string, position: number): void {
    this.#positions.delete(name);
    this.#positions.set(name, position);
    if (this.#positions.size <= maxRemembered) return;
    const [oldest] = this.#positions.keys();
    if (oldest !== undefined) this.#positions.delete(oldest);
  }
}
