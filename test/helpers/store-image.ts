import { mkdir, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { detachAll } from './mounts.js';
import { ok, run } from './run.js';

export type ImageType = 'ext3' | 'ext4' | 'xfs' | 'btrfs' | 'tmpfs';

const sbinPath = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** A file system of a test's own in a sparse file: for a small disk, or a type that is not the machine's. */
export class StoreImage implements AsyncDisposable {
  /** An empty directory on it, 0700. */
  readonly path: string;
  readonly #folder: string;
  readonly #type: ImageType;

  private constructor(folder: string, type: ImageType) {
    this.#folder = folder;
    this.#type = type;
    this.path = join(folder, 'fs', 'store');
  }

  /**
   * Needs root and loop devices; undefined where the machine has none, or no such mkfs.
   * @param options - of mkfs
   */
  static async create(
    type: ImageType,
    bytes = 512 * 2 ** 20,
    options: readonly string[] = [],
  ): Promise<StoreImage | undefined> {
    const folder = await mkdtemp(join(tmpdir(), 'lustrite-image-'));
    const image = new StoreImage(folder, type);
    const mountPoint = join(folder, 'fs');
    await mkdir(mountPoint);
    try {
      if (type === 'tmpfs') {
        await ok('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', mountPoint]);
      } else {
        const file = join(folder, 'image');
        await writeFile(file, '');
        await truncate(file, bytes);
        await ok(`mkfs.${type}`, ['-q', ...options, file], {
          env: { PATH: sbinPath },
        });
        // The loop device goes with its mount.
        await ok('mount', ['-o', 'loop', '-t', type, file, mountPoint]);
      }
    } catch {
      await image[Symbol.asyncDispose]();
      return undefined;
    }
    await mkdir(image.path, { mode: 0o700 });
    return image;
  }

  /** The power fails now: nothing will be there that the disk has not been told by now. `close` lets go of the file system. */
  async losePower(close: () => Promise<void>): Promise<void> {
    const [file, before] = [join(this.#folder, 'image'), join(this.#folder, 'before')];
    // What reaches the loop device is in its file, flushed or not.
    await ok('cp', ['--sparse=always', file, before]);
    await close();
    await ok('umount', [join(this.#folder, 'fs')]);
    await rename(before, file);
    // As at boot: what has no journal needs it. Code 1: mended.
    if (this.#type === 'ext4') await run('e2fsck', ['-p', file], { env: { PATH: sbinPath } });
    await ok('mount', ['-o', 'loop', file, join(this.#folder, 'fs')]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run('umount', [join(this.#folder, 'fs')]);
    if (!(await detachAll(this.#folder))) throw new Error(`cannot unmount ${this.#folder}`);
    await rm(this.#folder, { recursive: true, force: true });
  }
}
