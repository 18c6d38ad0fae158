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
  /** Bytes of the file that are in the blob; undefined: the blob has to tell. */
  #copied: number | undefined;
  #last: Promise<void> = Promise.resolve();

  /** `begun`: the blob may have a part of the file already. */
  constructor(options: LogMirrorOptions, begun: boolean) {
    this.#options = options;
    this.#copied = begun ? undefined : 0;
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
    const { size } = await handle.stat();
    let at = this.#copied ?? Math.min(size, await container.logLength(blob, signal));
    // Unknown again until all of it has been answered.
    this.#copied = undefined;
    for (let first = true; ; first = false) {
      const piece = await wholeLines(handle, at);
      if (piece.length === 0 && !(first && at === 0)) break;
      await container.appendLog(blob, piece.toString(), signal);
      at += piece.length;
    }
    this.#copied = at;
  }
}

/** Up to a piece of whole lines from `at` on; a line that is longer than that comes alone. */
async function wholeLines(handle: FileHandle, at: number): Promise<Buffer> {
  for (let room = pieceBytes; ; room *= 2) {
    const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(room), 0, room, at);
    const end = buffer.subarray(0, bytesRead).lastIndexOf(newline) + 1;
    if (end > 0 || bytesRead < room) return buffer.subarray(0, end);
  }
}
