/**
 * The log of one run of a job: one JSON object a line, under the store while it runs and in the logging container, as
 * `<fs>/<kind>/<job>/<start>.jsonl`, when it is over, however it ended. That of a job that goes on until somebody disables
 * it is there before, and grows.
 */
import { appendFile, open, writeFile } from 'node:fs/promises';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Container } from '../blob/port.js';
import { LogMirror } from './log-mirror.js';
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
  /** When the job began. */
  readonly startedMs: number;
  readonly now: () => number;
}

/** Lines in memory before `drained` makes the job wait. */
const bufferChars = 256 * 1024;
/** A path, twice, and what is said of it. */
const longestLine = 256 * 1024;
/** Between two copies of a running job's log, at least. */
const copyEveryMs = 60_000;
const copiesBeforeRarer = 5000;

/**
 * How long after a copy the next one is made while a job of that age runs, in ms: an append blob takes 50,000, so that
 * they become rarer when a job is some days old.
 */
export function copyPauseMs(ageMs: number): number {
  return Math.max(copyEveryMs, ageMs / copiesBeforeRarer);
}

export function jobLogName(fsName: string, kind: string, job: string, startedTime: string): string {
  return `${fsName}/${kind}/${job}/${compactTime(startedTime)}.jsonl`;
}

export class JobLog {
  readonly #options: JobLogOptions;
  #buffer: string[] = [];
  #chars = 0;
  #writing: Promise<void> = Promise.resolve();
  #lastError: JobLogLine | undefined;
  readonly #mirror: LogMirror | undefined;
  /** When `follow` copied last, and whether it does so now. */
  #followedMs: number;
  #following = false;
  #copyFails = false;
  /** Ends a copy that `follow` makes. */
  readonly #closing = new AbortController();
  /** Lines that no copy has. */
  #news: boolean;

  /** `size`: of the file, as it is found. */
  private constructor(options: JobLogOptions, size: number) {
    const { file, container, blob, now } = options;
    this.#options = options;
    if (container !== undefined) this.#mirror = new LogMirror({ file, container, blob }, size);
    this.#followedMs = now();
    this.#news = size > 0;
  }

  /**
   * Begins a log; that of an earlier run of the job under the store is replaced, or goes on where the job is `resumed`:
   * it says what was deleted.
   */
  static async open(options: JobLogOptions, resumed = false): Promise<JobLog> {
    await writeFile(options.file, '', { mode: 0o600, flag: resumed ? 'a' : 'w' });
    return new JobLog(options, await cutHalfLine(options.file));
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
    this.#news = true;
  }

  /** Resolves when every line is in the file under the store. */
  written(): Promise<void> {
    return this.#flush();
  }

  /** Resolves when there is room for more. */
  async drained(): Promise<void> {
    if (this.#chars >= bufferChars) await this.#flush();
  }

  /** To be called again and again while the job runs: copies what is new into the logging container now and then. */
  follow(signal: AbortSignal): void {
    const now = this.#options.now();
    const pause = copyPauseMs(now - this.#options.startedMs);
    if (this.#mirror === undefined || signal.aborted) return;
    if (!this.#news || this.#following || now - this.#followedMs < pause) return;
    this.#following = true;
    this.#followedMs = now;
    const copied = this.#copy(this.#mirror, AbortSignal.any([signal, this.#closing.signal]));
    void copied.then((failure) => {
      this.#following = false;
      // Once, not every minute; the copy that ends it is still to come.
      const told = this.#copyFails || signal.aborted || this.#closing.signal.aborted;
      if (failure !== undefined && !told) this.#warn(failure);
      this.#copyFails = failure !== undefined;
    });
  }

  /**
   * Writes the rest and copies the log into the logging container; false, and a warning, where that fails. Only the
   * former when `signal` is aborted already.
   */
  async close(signal: AbortSignal): Promise<boolean> {
    this.#closing.abort();
    await this.#flush();
    if (this.#mirror === undefined || signal.aborted) return true;
    const failure = await this.#copy(this.#mirror, signal);
    if (failure !== undefined) this.#warn(failure);
    return failure === undefined;
  }

  /** Resolves with why it failed. */
  async #copy(mirror: LogMirror, signal: AbortSignal): Promise<{ readonly cause: unknown } | undefined> {
    this.#news = false;
    await this.#flush();
    try {
      await mirror.copy(signal);
      return undefined;
    } catch (cause) {
      this.#news = true;
      return { cause };
    }
  }

  #warn({ cause }: { readonly cause: unknown }): void {
    const { container, blob, log } = this.#options;
    log.warn(
      { blob, container: container?.name, cause: messageChain(cause) },
      'the job log was not uploaded',
    );
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

/** Takes away what a daemon that died had written of a line; resolves with the size that is left. */
async function cutHalfLine(file: string): Promise<number> {
  await using handle = await open(file, 'r+');
  const { size } = await handle.stat();
  const from = Math.max(0, size - longestLine);
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(size - from), 0, size - from, from);
  const end = from + buffer.subarray(0, bytesRead).lastIndexOf('\n') + 1;
  if (end < size) await handle.truncate(end);
  return end;
}
