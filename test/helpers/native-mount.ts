import { fork, type ChildProcess } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Copy, FileState, HsmRequest, HsmStateSet, Stub, StubResult } from '../../src/native/binding.js';
import { detachAll } from './mounts.js';
import { until } from './poll.js';
import { environment, sanitized } from './run.js';

export interface NativeMountOptions {
  readonly passthrough?: boolean;
  readonly readOnly?: boolean;
  readonly maxHeld?: number;
  /** An empty directory of somebody else's, 0700; the mount's own by default. */
  readonly store?: string;
}

export type Asked =
  ({ readonly kind: 'request' } & HsmRequest) | ({ readonly kind: 'stateSet' } & HsmStateSet);

interface Methods {
  start(options: Record<string, unknown>): { readonly passthrough: boolean };
  stubs(stubs: readonly Stub[]): readonly StubResult[];
  remove(path: string): void;
  /** Restores wait until go(). */
  hold(): void;
  go(): void;
  /** Restores whose data has come are finished by goEnds() only, so many at once. */
  holdEnds(): void;
  goEnds(count: number): void;
  /** How many holdEnds() keeps back. */
  heldEnds(): number;
  /** Restores fail with this errno; 0 ends that. */
  fail(errno: number): void;
  /** How many restores hold() keeps back. */
  wanted(): number;
  /** What requests by ioctl are answered with from now on; 'later' never answers. */
  answerWith(errno: number | 'later'): void;
  asked(): readonly Asked[];
  state(path: string): FileState;
  archive(path: string): 'clean' | 'partly' | 'dirty';
  release(path: string): void;
  stats(): Readonly<Record<string, number>>;
  unmount(lazy: boolean): void;
  end(): void;
}

const script = fileURLToPath(new URL('native-rig.mjs', import.meta.url));

/**
 * A store mounted by the addon alone, in a process of its own. Blobs are files below `source`. Leaves nothing behind when
 * disposed.
 */
export class NativeMount implements AsyncDisposable {
  readonly path: string;
  readonly source: string;
  readonly store: string;
  readonly child: ChildProcess;
  readonly #folder: string;
  readonly #waiting = new Map<
    number,
    { readonly resolve: (value: never) => void; readonly reject: (error: Error) => void }
  >();
  readonly #exit: Promise<number | NodeJS.Signals | null>;
  #passthrough = false;
  #last = 0;
  #closed = false;
  #stderr = '';

  private constructor(folder: string, store = join(folder, 'store')) {
    this.#folder = folder;
    this.path = join(folder, 'mount');
    this.source = join(folder, 'source');
    this.store = store;
    const child = fork(script, [], {
      serialization: 'advanced',
      env: environment(sanitized),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      execArgv: [],
    });
    this.child = child;
    child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    child.on('message', (message) => this.#receive(message as Answer));
    this.#exit = new Promise((resolve) => {
      child.on('exit', (code, signal) => {
        for (const { reject } of this.#waiting.values()) reject(new Error(`the rig ended\n${this.#stderr}`));
        this.#waiting.clear();
        resolve(signal ?? code);
      });
    });
  }

  static async start(options: NativeMountOptions = {}): Promise<NativeMount> {
    const mount = new NativeMount(await mkdtemp(join(tmpdir(), 'lustrite-native-')), options.store);
    // Other users get to the mount.
    await chmod(mount.#folder, 0o755);
    await mkdir(mount.path);
    await mkdir(mount.source);
    if (options.store === undefined) await mkdir(mount.store, { mode: 0o700 });
    try {
      const { passthrough } = await mount.call('start', {
        store: mount.store,
        mountPoint: mount.path,
        source: mount.source,
        readOnly: options.readOnly ?? false,
        passthrough: options.passthrough ?? true,
        maxHeld: options.maxHeld ?? 4096,
      });
      mount.#passthrough = passthrough;
    } catch (error) {
      await mount[Symbol.asyncDispose]();
      throw error;
    }
    return mount;
  }

  get passthrough(): boolean {
    return this.#passthrough;
  }
  /** The session has said that it is over. */
  get closed(): boolean {
    return this.#closed;
  }
  get stderr(): string {
    return this.#stderr;
  }

  call<M extends keyof Methods>(method: M, ...args: Parameters<Methods[M]>): Promise<ReturnType<Methods[M]>> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.child.send({ id, method, args }, (error) => {
        if (error) reject(error);
      });
    });
  }

  /** Released files, each with the content of a blob of the same name that exists below `source`. */
  async stubs(paths: readonly string[], size: number): Promise<void> {
    const results = await this.call(
      'stubs',
      paths.map((path) => stub(path, size)),
    );
    const bad = results.find(({ kind }) => kind !== 'created');
    if (bad) throw new Error(`a stub was not created: ${bad.kind}`);
  }

  /** Unmounts and waits until the process has ended by itself; its exit code or signal. */
  async end(): Promise<number | NodeJS.Signals | null> {
    if (!this.#closed) await this.call('unmount', false);
    await this.call('end');
    return this.exited();
  }

  exited(): Promise<number | NodeJS.Signals | null> {
    return this.#exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.connected) this.child.disconnect();
    this.child.kill('SIGKILL');
    await this.#exit;
    await until(() => detachAll(this.#folder), { what: `nothing to be mounted below ${this.#folder}` });
    await rm(this.#folder, { recursive: true, force: true });
  }

  #receive(message: Answer): void {
    if (message.closed) {
      this.#closed = true;
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error) {
      waiting?.reject(Object.assign(new Error(message.error.message), { code: message.error.code }));
    } else {
      waiting?.resolve(message.value as never);
    }
  }
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly message: string; readonly code?: string };
  readonly closed?: boolean;
}

function stub(path: string, size: number): Stub {
  const copy: Copy = { blob: path, etag: '0x8DC0000000000AB', size, lastModifiedMs: 1_700_000_000_000 };
  return { path, kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 1_600_000_000_123_456_700n, size, copy };
}

/** The checks of a Python program in test/helpers: one JSON line each. */
export interface Check {
  readonly title: string;
  /** What went wrong; absent when it is right. */
  readonly detail?: string;
}

export function checksProgram(name: string): string {
  return join(dirname(script), name);
}
