/** A native store in a directory of its own, and what stands behind its stubs. */
import { mkdtempSync, readFileSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  loadAddon,
  type ArchivePlan,
  type Copy,
  type Fid,
  type FileState,
  type NativeStore,
  type Stub,
} from '../../src/native/binding.js';

export const addon = loadAddon();
export const mtimeNs = 1_700_000_000n * 1_000_000_000n;
export const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs };

/** The bytes that the blob of an ETag has. */
export function content(etag: string, size: number): Buffer {
  return Buffer.alloc(size, `${etag}.`);
}

export function copyOf(blob: string, options: { etag?: string; size?: number } = {}): Copy {
  const { etag = '0x8DC0123456789AB', size = 8192 } = options;
  return { blob, etag, size, lastModifiedMs: 1_700_000_000_000 };
}

export function fileStub(path: string, options: { etag?: string; size?: number } = {}): Stub {
  const copy = copyOf(path, options);
  return { path, kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs, size: copy.size, copy };
}

export class TempStore implements AsyncDisposable {
  readonly path: string;
  readonly needed: Fid[] = [];
  #native: NativeStore | undefined;

  get native(): NativeStore {
    if (this.#native === undefined) throw new Error('the store is not open');
    return this.#native;
  }

  private constructor(within: string) {
    this.path = mkdtempSync(join(within, 'lustrite-store-'));
  }

  /** @param within - the directory to make it in */
  static async open(within = tmpdir()): Promise<TempStore> {
    const store = new TempStore(within);
    await store.reopen();
    return store;
  }

  /** As another daemon of the same boot would. */
  async reopen(): Promise<void> {
    await this.#native?.close();
    this.#native = await addon.openStore(this.path, {
      restoreNeeded: (fid) => {
        this.needed.push(fid);
      },
    });
  }

  backing(path: string): string {
    return join(this.path, 'ns', path);
  }

  read(path: string): Buffer {
    return readFileSync(this.backing(path));
  }

  /** The inode's blocks, in bytes. */
  allocated(path: string): number {
    return statSync(this.backing(path)).blocks * 512;
  }

  async stub(path: string, options: { etag?: string; size?: number } = {}): Promise<Fid> {
    const [result] = await this.native.createStubs([fileStub(path, options)], defaults);
    if (result?.kind !== 'created') throw new Error(`${path}: ${JSON.stringify(result)}`);
    return result.fid;
  }

  async state(path: string): Promise<FileState> {
    return await this.native.state(this.native.fidOf(path));
  }

  async flags(path: string): Promise<number> {
    return (await this.state(path)).flags;
  }

  /** Restores with the bytes of `copy`, the record's own by default. */
  async restore(fid: Fid, copy?: Copy): Promise<void> {
    const { copy: recorded } = await this.native.state(fid);
    const wanted = copy ?? recorded;
    if (wanted === undefined) throw new Error(`${fid} has no copy`);
    const plan = await this.native.beginRestore(fid, copy);
    writeAll(plan.fd, content(wanted.etag, wanted.size));
    await this.native.finishRestore(fid, wanted);
  }

  /** A clean, resident file. */
  async resident(path: string, options: { etag?: string; size?: number } = {}): Promise<Fid> {
    const fid = await this.stub(path, options);
    await this.restore(fid);
    return fid;
  }

  /** Opens for writing, as a front end would, does something and closes. */
  async writing(path: string, body: (fd: number) => void | Promise<void>): Promise<void> {
    const { handle, fd } = await this.native.openHandle(path, 0o2, 0);
    try {
      await body(fd);
    } finally {
      await this.native.closeHandle(handle);
    }
  }

  async archive(path: string, copy?: Partial<Copy>): Promise<string> {
    const plan = await this.native.beginArchive(this.native.fidOf(path), 1);
    return await this.native.finishArchive(plan.token, { ...archived(path, plan), ...copy });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#native?.close();
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** What a blob made from an archive plan would be. */
export function archived(path: string, plan: ArchivePlan): Copy {
  return copyOf(path, { etag: '0x8DCFFFFFFFFFFFF', size: plan.size });
}

export function writeAll(fd: number, bytes: Buffer, at = 0): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, at + done);
}

export function readAll(fd: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  return bytes.subarray(0, readSync(fd, bytes, 0, size, 0));
}

/** The error that a call must end with: its `code`. */
export async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'no error';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}
