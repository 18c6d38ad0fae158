/** A copy of a growing file of lines in an append blob: each line once, also where another daemon goes on with it. */
import { open, type FileHandle } from 'node:fs/promises';
import type { Container } from '../blob/port.js';

/** One append to the container. */
const pieceBytes = 1024 * 1024;
const newline = '\n'.charCodeAt(0);

export interface LogMirrorOptions {
  /** What is after its last newline is not copied. */
  readonly file: string;
  readonly container: Pick<Container, 'appendLog' | 'logLength'>;
  readonly blob: string;
}

export class LogMirror {
  readonly #options: LogMirrorOptions;
  /** Bytes of the file that may be in the blob. */
  #begun: number;
  /** And how many of them are; undefined: the blob has to tell. */
  #copied: number | undefined;
  #last: Promise<void> = Promise.resolve();

  /** `begun`: so much of the file may be in the blob already. */
  constructor(options: LogMirrorOptions, begun: number) {
    this.#options = options;
    this.#begun = begun;
    this.#copied = begun === 0 ? 0 : undefined;
  }

  /** Appends what the blob lacks, after every earlier copy; an empty file makes an empty blob. Rejects with a BlobError. */
  copy(signal: AbortSignal): Promise<void> {
    const copied = this.#last.then(() => this.#copy(signal));
    this.#last = copied.catch(() => undefined);
    return copied;
  }

  async #copy(signal: AbortSignal): Promise<void> {
    const { file, container, blob } = this.#options;
    await using handle = await open(file, 'r');
    // What the blob has is here, too, after a power failure: its length is a place in this file. What comes meanwhile is
    // for the next copy.
    const { size } = await handle.stat();
    await handle.datasync();
    let at = this.#copied ?? Math.min(this.#begun, await container.logLength(blob, signal));
    // Unknown again until all of it has been answered.
    this.#copied = undefined;
    this.#begun = size;
    for (let first = true; ; first = false) {
      const piece = await wholeLines(handle, at, size);
      if (piece.length === 0 && !(first && at === 0)) break;
      await container.appendLog(blob, piece.toString(), signal);
      at += piece.length;
    }
    this.#copied = at;
  }
}

/** Up to a piece of whole lines between two places; a line that is longer than that comes alone. */
async function wholeLines(handle: FileHandle, at: number, to: number): Promise<Buffer> {
  for (let most = pieceBytes; ; most *= 2) {
    const room = Math.min(most, to - at);
    const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(room), 0, room, at);
    const end = buffer.subarray(0, bytesRead).lastIndexOf(newline) + 1;
    if (end > 0 || bytesRead < most) return buffer.subarray(0, end);
  }
}
