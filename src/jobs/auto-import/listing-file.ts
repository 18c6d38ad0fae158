/** A listing on disk, in the order of the service: one line a blob, its ETag and its name. */
import { createReadStream } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';

export interface Known {
  readonly name: string;
  readonly etag: string;
}

const bufferChars = 1024 * 1024;

export class ListingWriter implements AsyncDisposable {
  readonly #file: FileHandle;
  #buffer = '';
  #bytes = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** An empty file, whatever was there. */
  static async create(path: string): Promise<ListingWriter> {
    return new ListingWriter(await open(path, 'w', 0o600));
  }

  async add({ name, etag }: Known): Promise<void> {
    this.#buffer += `${etag}\t${JSON.stringify(name)}\n`;
    if (this.#buffer.length >= bufferChars) await this.flush();
  }

  /** Makes everything so far durable. Resolves with its length in bytes. */
  async sync(): Promise<number> {
    await this.flush();
    await this.#file.datasync();
    return this.#bytes;
  }

  /** Writes everything so far, so that the end of this process cannot lose it. */
  async flush(): Promise<void> {
    const bytes = Buffer.from(this.#buffer);
    this.#buffer = '';
    await this.#file.appendFile(bytes);
    this.#bytes += bytes.length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** The first `bytes` bytes of a listing, or all of it. */
export async function* readListing(path: string, bytes = Infinity): AsyncGenerator<Known, void, undefined> {
  if (bytes === 0) return;
  let rest = '';
  const text = createReadStream(path, { encoding: 'utf8', end: bytes - 1, highWaterMark: 256 * 1024 });
  for await (const chunk of text as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const tab = line.indexOf('\t');
      yield { etag: line.slice(0, tab), name: JSON.parse(line.slice(tab + 1)) as string };
    }
  }
}
