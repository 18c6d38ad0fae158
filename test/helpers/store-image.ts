import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { detachAll } from './mounts.js';
import { ok, run } from './run.js';

export type ImageType = 'ext3' | 'ext4' | 'xfs' | 'btrfs' | 'tmpfs';

/** A file system of a test's own in a sparse file: for a small disk, or a type that is not the machine's. */
export class StoreImage implements AsyncDisposable {
  /** An empty directory on it, 0700. */
  readonly path: string;
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
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
    const image = new StoreImage(folder);
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
          env: { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` },
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

  async [Symbol.asyncDispose](): Promise<void> {
    await run('umount', [join(this.#folder, 'fs')]);
    if (!(await detachAll(this.#folder))) throw new Error(`cannot unmount ${this.#folder}`);
    await rm(this.#folder, { recursive: true, force: true });
  }
}
