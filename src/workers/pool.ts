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
  /** Transfers that one thread runs at a time. */
  readonly tasksPerWorker?: number;
  /** Tests put their own in. */
  readonly workerFile?: string;
}

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
  readonly #waiting: (() => void)[] = [];
  /** Threads that may still touch a file, with the promise of their end. */
  readonly #threads = new Map<Worker, Promise<void>>();
  #running = 0;
  #closed = false;

  constructor(options: PoolOptions = {}) {
    const maxThreads = options.workers ?? 2;
    const concurrentTasksPerWorker = options.tasksPerWorker ?? 32;
    this.#capacity = maxThreads * concurrentTasksPerWorker;
    this.#piscina = new Piscina({
      filename: options.workerFile ?? new URL('./transfer.worker.js', import.meta.url).href,
      name: 'runTransfer',
      minThreads: 1,
      maxThreads,
      idleTimeout: 60_000,
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
    return this.#active.size + this.#waiting.length;
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
    for (const wake of this.#waiting.splice(0)) wake();
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
    await this.#turn(hooks.signal);
    try {
      if (this.#closed || hooks.signal?.aborted === true) {
        throw new BlobError('aborted', `${nameOf(task)}: cancelled before it began`);
      }
      return (await this.#transfer(task, hooks)) as Result;
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  /** Waits for room; whoever gets it has already been counted. */
  async #turn(signal: AbortSignal | undefined): Promise<void> {
    if (this.#running >= this.#capacity && !this.#closed && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal?.removeEventListener('abort', leave);
          resolve();
        };
        const leave = (): void => {
          const at = this.#waiting.indexOf(wake);
          if (at >= 0) this.#waiting.splice(at, 1);
          resolve();
        };
        this.#waiting.push(wake);
        signal?.addEventListener('abort', leave, { once: true });
      });
    }
    this.#running++;
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
    port1.on('message', (message: Progress | Ready) => {
      if ('bytes' in message) {
        hooks.onProgress?.(message.bytes);
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
