/** A coordinator over a container and a store in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { BlobError } from '../../src/base/errors.js';
import { Coordinator } from '../../src/hsm/coordinator.js';
import type { HsmConfig, MoverContext, Transfers } from '../../src/hsm/movers.js';
import { MemoryContainer } from './memory-container.js';
import { MemoryStore } from './memory-store.js';

export const quietLog = pino({ level: 'silent' });

/** Time that passes only when somebody sleeps. */
export class TestClock {
  ms = Date.UTC(2026, 0, 31, 12, 0, 0);
  readonly sleeps: number[] = [];
  now = (): number => this.ms;
  sleep = async (ms: number, signal?: AbortSignal): Promise<void> => {
    signal?.throwIfAborted();
    this.sleeps.push(ms);
    this.ms += ms;
    await Promise.resolve();
  };
}

export const testConfig: HsmConfig = {
  readOnly: false,
  hydrate: { partialReads: true, verify: false, rangeBytes: 1 << 20, parallelRanges: 2 },
  hsm: { maxRequests: 4, defaultArchiveId: 1 },
  transfer: { workers: 1, blockBytes: 1 << 20, parallelBlocks: 2, tries: 1, stallMs: 30_000 },
  export: { ifMatch: false },
  compat: { strict: false },
};

export type TransferGate = (
  kind: 'download' | 'upload',
  blob: string,
  signal?: AbortSignal,
) => void | Promise<void>;

/** Moves bytes between the two memories; `gate` holds or fails a transfer before its bytes move. */
export class MemoryTransfers implements Transfers {
  gate: TransferGate = () => undefined;
  readonly calls: string[] = [];
  readonly #container: MemoryContainer;
  readonly #store: MemoryStore;

  constructor(container: MemoryContainer, store: MemoryStore) {
    this.#container = container;
    this.#store = store;
  }

  download: Transfers['download'] = async (task, hooks) => {
    await this.#pass('download', task.blob, hooks?.signal);
    const { body, etag, lastModifiedMs } = this.#container.get(task.blob, task.etag);
    this.#store.dataOf(task.fd).write(body);
    hooks?.onProgress?.(body.length);
    return { version: { etag, lastModifiedMs, size: body.length } };
  };

  upload: Transfers['upload'] = async (task, hooks) => {
    const body = Buffer.from(this.#store.dataOf(task.fd).read());
    await this.#pass('upload', task.blob, hooks?.signal);
    hooks?.onProgress?.(body.length);
    if ((await hooks?.beforeCommit?.()) === false)
      throw new BlobError('aborted', `${task.blob} is not committed`);
    const { metadata, headers, tier, ifMatch, ifNoneMatch } = task;
    const version = this.#container.store(task.blob, body, {
      metadata,
      ...(headers === undefined ? {} : { headers }),
      ...(tier === undefined ? {} : { tier }),
      ...(ifMatch === undefined ? {} : { ifMatch }),
      ...(ifNoneMatch === undefined ? {} : { ifNoneMatch }),
    });
    return { version };
  };

  async #pass(kind: 'download' | 'upload', blob: string, signal?: AbortSignal): Promise<void> {
    this.calls.push(`${kind} ${blob}`);
    const aborted = new Promise<never>((_, reject) => {
      const abort = (): void => reject(new BlobError('aborted', 'aborted'));
      if (signal?.aborted === true) abort();
      signal?.addEventListener('abort', abort, { once: true });
    });
    aborted.catch(() => undefined);
    await Promise.race([Promise.resolve().then(() => this.gate(kind, blob, signal)), aborted]);
  }
}

export class MemoryHsm implements AsyncDisposable {
  readonly container = new MemoryContainer();
  readonly store = new MemoryStore();
  readonly pool = new MemoryTransfers(this.container, this.store);
  readonly clock = new TestClock();
  readonly folder: string;
  coordinator: Coordinator;
  readonly #config: HsmConfig;
  readonly #space: MoverContext['space'];

  private constructor(folder: string, config: HsmConfig, space: MoverContext['space']) {
    this.folder = folder;
    this.#config = config;
    this.#space = space;
    this.coordinator = this.#coordinator();
  }

  static async start(config: Partial<HsmConfig> = {}, space?: MoverContext['space']): Promise<MemoryHsm> {
    const folder = await mkdtemp(join(tmpdir(), 'lustrite-hsm-'));
    const hsm = new MemoryHsm(folder, { ...testConfig, ...config }, space);
    await hsm.coordinator.start();
    return hsm;
  }

  /** Stops the coordinator and starts another one over the same store and journal; `before` that. */
  async restart(before: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    await this.#stop();
    this.coordinator = this.#coordinator();
    await before();
    await this.coordinator.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  async #stop(): Promise<void> {
    await this.coordinator[Symbol.asyncDispose]();
    await this.coordinator.changelog[Symbol.asyncDispose]();
  }

  #coordinator(): Coordinator {
    return new Coordinator({
      store: {
        native: this.store,
        requestsDir: this.folder,
        unlinkedDir: join(this.folder, 'unlinked'),
        changelogDir: join(this.folder, 'changelog'),
        meta: testMeta,
      },
      container: this.container,
      pool: this.pool,
      log: quietLog,
      config: this.#config,
      clock: this.clock,
      space: this.#space,
    });
  }
}

const testMeta = {
  format: 1,
  fsId: 'store-1',
  fsName: 'test',
  container: 'account/container',
  bootId: 'boot',
} as const;

/** A promise that a test opens by hand. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
