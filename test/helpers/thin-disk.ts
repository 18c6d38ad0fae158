import { mkdir, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { detachAll } from './mounts.js';
import { ok, run } from './run.js';

const MiB = 2 ** 20;
const sbinPath = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/**
 * A file system that promises more than its disk has, as thin volumes do: once that is used up, writes succeed, and their
 * writeback fails with ENOSPC.
 */
export class ThinDisk implements AsyncDisposable {
  /** An empty directory on it, 0700. */
  readonly path: string;
  readonly #folder: string;
  readonly #pool: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#pool = join(folder, 'pool');
    this.path = join(folder, 'fs', 'store');
  }

  /** Needs root and loop devices. */
  static async create(): Promise<ThinDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'lustrite-thin-'));
    const disk = new ThinDisk(folder);
    const [image, mountPoint] = [join(disk.#pool, 'image'), join(folder, 'fs')];
    try {
      await mkdir(disk.#pool);
      await mkdir(mountPoint);
      await ok('mount', ['-t', 'tmpfs', '-o', `size=${32 * MiB}`, 'tmpfs', disk.#pool]);
      await writeFile(image, '');
      await truncate(image, 256 * MiB);
      // A journal would need room of its own; a loop device takes part of a page for a whole write.
      await ok('mkfs.ext4', ['-q', '-b', '4096', '-O', '^has_journal', image], { env: { PATH: sbinPath } });
      await ok('mount', ['-o', 'loop', image, mountPoint]);
      await mkdir(disk.path, { mode: 0o700 });
    } catch (error) {
      await disk[Symbol.asyncDispose]();
      throw error;
    }
    return disk;
  }

  /** From here on no block gets its place that has none yet. */
  async useUp(): Promise<void> {
    await ok('sync', []);
    await using file = await open(join(this.#pool, 'full'), 'w');
    const block = Buffer.alloc(65536);
    for (;;) {
      try {
        await file.write(block);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return;
        throw error;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run('umount', [join(this.#folder, 'fs')]);
    await run('umount', [this.#pool]);
    if (!(await detachAll(this.#folder))) throw new Error(`cannot unmount ${this.#folder}`);
    await rm(this.#folder, { recursive: true, force: true });
  }
}
