/**
 * The log of one run of a job: one JSON object a line, under the store while it runs and in the logging container, as
 * `<fs>/<kind>/<job>/<start>.jsonl`, when it is over, however it ended.
 */
import { createReadStream } from 'node:fs';
import { appendFile, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Container } from '../blob/port.js';
import { compactTime } from './marker.js';

export interface JobLogLine {
  readonly level: 'info' | 'warn' | 'error';
  readonly path?: string;
  readonly blob?: string;
  readonly code: string;
  readonly message: string;
}

export interface JobLogOptions {
  readonly file: string;
  readonly container: Container | undefined;
  /** Name of the log in the container. */
  readonly blob: string;
  readonly log: Log;
  readonly now: () => number;
}

/** Lines in memory before `drained` makes the job wait. */
const bufferChars = 256 * 1024;
/** One append to the container. */
const appendChars = 1024 * 1024;

export function jobLogName(fsName: string, kind: string, job: string, startedTime: string): string {
  return `${fsName}/${kind}/${job}/${compactTime(startedTime)}.jsonl`;
}

export class JobLog {
  readonly #options: JobLogOptions;
  #buffer: string[] = [];
  #chars = 0;
  #writing: Promise<void> = Promise.resolve();
  #lastError: JobLogLine | undefined;

  private constructor(options: JobLogOptions) {
    this.#options = options;
  }

  /**
   * Begins a log; that of an earlier run of the job under the store is replaced, or goes on where the job is `resumed`:
   * it says what was deleted.
   */
  static async open(options: JobLogOptions, resumed = false): Promise<JobLog> {
    await writeFile(options.file, '', { mode: 0o600, flag: resumed ? 'a' : 'w' });
    return new JobLog(options);
  }

  /** The newest line that told an error in this daemon's life. */
  get lastError(): JobLogLine | undefined {
    return this.#lastError;
  }

  add(line: JobLogLine): void {
    if (line.level === 'error') this.#lastError = line;
    const text = JSON.stringify({ time: new Date(this.#options.now()).toISOString(), ...line });
    this.#buffer.push(`${text}\n`);
    this.#chars += text.length + 1;
  }

  /** Resolves when every line is in the file under the store. */
  written(): Promise<void> {
    return this.#flush();
  }

  /** Resolves when there is room for more. */
  async drained(): Promise<void> {
    if (this.#chars >= bufferChars) await this.#flush();
  }

  /**
   * Writes the rest and copies the log into the logging container; false, and a warning, where that fails. Only the
   * former when `signal` is aborted already.
   */
  async close(signal: AbortSignal): Promise<boolean> {
    const { container, blob, file, log } = this.#options;
    await this.#flush();
    if (container === undefined || signal.aborted) return true;
    try {
      for await (const chunk of chunks(file)) await container.appendLog(blob, chunk, signal);
      return true;
    } catch (error) {
      log.warn(
        { blob, container: container.name, cause: messageChain(error) },
        'the job log was not uploaded',
      );
      return false;
    }
  }

  #flush(): Promise<void> {
    const text = this.#buffer.join('');
    this.#buffer = [];
    this.#chars = 0;
    this.#writing = this.#writing.then(async () => {
      try {
        if (text !== '') await appendFile(this.#options.file, text);
      } catch (error) {
        this.#options.log.warn({ cause: messageChain(error) }, 'lines of a job log are lost');
      }
    });
    return this.#writing;
  }
}

/** The file in pieces of whole lines; one empty piece for an empty file, so that the log exists. */
async function* chunks(file: string): AsyncIterable<string> {
  let chunk = '';
  let any = false;
  for await (const text of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
    chunk += `${text}\n`;
    if (chunk.length < appendChars) continue;
    yield chunk;
    any = true;
    chunk = '';
  }
  if (chunk !== '' || !any) yield chunk;
}
