/** The transfer threads. The only importer of piscina. */
import { MessageChannel } from 'node:worker_threads';
import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { BlobError, FsError } from '../base/errors.js';
import type { BlobErrorKind } from '../base/errors.js';
import type {
  Control,
  DownloadResult,
  DownloadTask,
  Progress,
  Ready,
  TransferFailure,
  TransferTask,
  UploadResult,
  UploadTask,
} from './messages.js';

export interface TransferHooks {
  readonly onProgress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface UploadHooks extends TransferHooks {
  /** Asked when only the commit is left; `false`, or a rejection, gives the upload up and leaves the blob as it was. */
  readonly beforeCommit?: () => Promise<boolean>;
}

export interface PoolOptions {
  /** Threads at most; 2 by default. */
  readonly workers?: number;
  /** Transfers that one thread runs at a time; 192 among all threads by default. */
  readonly tasksPerWorker?: number;
  /** Tests put their own in. */
  readonly workerFile?: string;
}

/** More than the coordinator admits of implicit and explicit requests together: no reader waits here behind a job. */
const defaultCapacity = 192;

interface Active {
  readonly cancel: () => void;
  readonly done: Promise<unknown>;
  /** Rejects the task when no thread is left that could run it. */
  readonly lost: (error: Error) => void;
}

/** Runs downloads and uploads on threads of their own; as many at a time as the threads take, the rest in order. */
export class TransferPool implements AsyncDisposable {
  readonly #piscina: Piscina<TransferTask, DownloadResult | UploadResult | TransferFailure>;
  readonly #capacity: number;
  readonly #active = new Set<Active>();
  readonly #waiting: ((place: boolean) => void)[] = [];
  /** Threads that may still touch a file, with the promise of their end. */
  readonly #threads = new Map<Worker, Promise<void>>();
  #running = 0;
  #closed = false;

  constructor(options: PoolOptions = {}) {
    const maxThreads = options.workers ?? 2;
    const concurrentTasksPerWorker = options.tasksPerWorker ?? Math.ceil(defaultCapacity / maxThreads);
    this.#capacity = maxThreads * concurrentTasksPerWorker;
    this.#piscina = new Piscina({
      filename: options.workerFile ?? new URL('./transfer.worker.js', import.meta.url).href,
      name: 'runTransfer',
      // All from the start: piscina would start the second one only when the first has all the tasks it takes.
      minThreads: maxThreads,
      maxThreads,
      concurrentTasksPerWorker,
      // An idle thread must go on serving its keep-alive sockets instead of parking in Atomics.wait.
      atomics: 'disabled',
    });
    this.#piscina.on('workerCreate', () => {
      this.#watchThreads();
    });
    this.#piscina.on('error', (error: Error) => {
      // A thread died before it took a task. With none left, what waits for one would wait for ever.
      if (this.#piscina.threads.length > 0) return;
      for (const active of this.#active) active.lost(error);
    });
    this.#watchThreads();
  }

  /** Transfers that run or wait. */
  get size(): number {
    return this.#running + this.#waiting.length;
  }

  /**
   * Downloads one blob into `task.fd`. Rejects with a BlobError, or an FsError with the errno when the file cannot
   * take it; settles only when no thread touches the fd any more, also after `signal` fired.
   */
  download(task: Omit<DownloadTask, 'kind' | 'port'>, hooks: TransferHooks = {}): Promise<DownloadResult> {
    return this.#run<DownloadResult>({ ...task, kind: 'download' }, hooks);
  }

  /** Uploads `task.fd` as one blob, under the same promises. */
  upload(task: Omit<UploadTask, 'kind' | 'port'>, hooks: UploadHooks = {}): Promise<UploadResult> {
    return this.#run<UploadResult>({ ...task, kind: 'upload' }, hooks);
  }

  /** Cancels what runs, waits for it, ends the threads. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const wake of this.#waiting.splice(0)) wake(false);
    for (const active of this.#active) active.cancel();
    await Promise.allSettled([...this.#active].map(({ done }) => done));
    await this.#piscina.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run<Result>(
    task: Omit<DownloadTask, 'port'> | Omit<UploadTask, 'port'>,
    hooks: UploadHooks,
  ): Promise<Result> {
    if (!(await this.#turn(hooks.signal))) {
      throw new BlobError('aborted', `${nameOf(task)}: cancelled before it began`);
    }
    try {
      // Again, since the pool may have been closed while the place was waited for.
      if (this.#closed) throw new BlobError('aborted', `${nameOf(task)}: cancelled before it began`);
      const result = await this.#transfer(task, hooks);
      return result as Result;
    } finally {
      const next = this.#waiting.shift();
      if (next) next(true);
      else this.#running--;
    }
  }

  /** Waits for one of the places that the threads have; `false` when the wait was cancelled. */
  #turn(signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#closed || signal?.aborted === true) return Promise.resolve(false);
    if (this.#running < this.#capacity) {
      this.#running++;
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const wake = (place: boolean): void => {
        signal?.removeEventListener('abort', leave);
        resolve(place);
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(wake), 1);
        resolve(false);
      };
      this.#waiting.push(wake);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }

  async #transfer(
    task: Omit<DownloadTask, 'port'> | Omit<UploadTask, 'port'>,
    hooks: UploadHooks,
  ): Promise<DownloadResult | UploadResult> {
    const { port1, port2 } = new MessageChannel();
    const send = (control: Control): void => {
      port1.postMessage(control);
    };
    const cancel = (): void => {
      send({ cancel: true });
    };
    let told = 0;
    port1.on('message', (message: Progress | Ready) => {
      if ('bytes' in message) {
        told = message.bytes;
        hooks.onProgress?.(told);
        return;
      }
      const asked = Promise.resolve().then(() => (hooks.beforeCommit ? hooks.beforeCommit() : true));
      asked.then(
        (proceed) => {
          send({ proceed });
        },
        () => {
          send({ proceed: false });
        },
      );
    });
    if (hooks.signal?.aborted === true) cancel();
    hooks.signal?.addEventListener('abort', cancel, { once: true });
    let lost: (error: Error) => void = () => undefined;
    const noThread = new Promise<never>((_, reject) => {
      lost = reject;
    });
    const done = Promise.race([
      this.#piscina.run({ ...task, port: port2 }, { transferList: [port2] }),
      noThread,
    ]);
    const active: Active = { cancel, done, lost };
    this.#active.add(active);
    try {
      const answer = await done;
      if ('failure' in answer) throw asError(answer.failure);
      // The last progress travels on another port than the answer and may be behind it.
      if (told < task.size) hooks.onProgress?.(task.size);
      return answer;
    } catch (error) {
      if (error instanceof BlobError || error instanceof FsError) throw error;
      // The thread crashed. It may still have a write under way until it is gone.
      await this.#deadThreads();
      throw new BlobError('other', `${nameOf(task)}: the transfer thread died`, { cause: error });
    } finally {
      this.#active.delete(active);
      hooks.signal?.removeEventListener('abort', cancel);
      port1.close();
    }
  }

  #watchThreads(): void {
    for (const thread of this.#piscina.threads) {
      if (this.#threads.has(thread)) continue;
      const ended = new Promise<void>((resolve) => {
        thread.once('exit', () => {
          this.#threads.delete(thread);
          resolve();
        });
      });
      this.#threads.set(thread, ended);
    }
  }

  /** The end of every thread that the pool has given up. */
  async #deadThreads(): Promise<void> {
    const alive = new Set(this.#piscina.threads);
    await Promise.all([...this.#threads].filter(([thread]) => !alive.has(thread)).map(([, ended]) => ended));
  }
}

function nameOf(task: { readonly kind: 'download' | 'upload'; readonly blob: string }): string {
  return `${task.kind === 'download' ? 'read' : 'write'} of ${task.blob}`;
}

function asError(failure: TransferFailure['failure']): BlobError | FsError {
  if (failure.errno !== undefined) return new FsError(failure.errno, failure.message);
  return new BlobError(failure.kind as BlobErrorKind, failure.message, {
    status: failure.status,
    serviceCode: failure.serviceCode,
  });
}
