/** Where a file is now: what an archive by FID names its blobs after. */
import type { Copy, Fid, FileState, NativeStore } from '../store/inodes.js';

const walkBatch = 1024;

/** Relative to the root: text or, where it is not UTF-8, bytes. */
export type FilePath = string | Buffer;

interface Search {
  readonly fid: Fid;
  readonly names: number;
  readonly paths: FilePath[];
  readonly found: (paths: readonly FilePath[]) => void;
  readonly failed: (error: unknown) => void;
}

/** Finds paths by FID: by asking the kernel, by the name of the copy, at last by a walk that many requests share. */
export class PathFinder {
  readonly #native: NativeStore;
  #waiting: Search[] = [];
  #walking = false;

  constructor(native: NativeStore) {
    this.#native = native;
  }

  /** All of the file's names, as `recordedFirst` has them. Empty: it has none any more. */
  async find(state: FileState): Promise<readonly FilePath[]> {
    const { fid, nlink, copy } = state;
    if (nlink === 0) return [];
    const one = nlink === 1 ? await this.#findOne(state) : undefined;
    if (one !== undefined) return [one];
    const paths = await new Promise<readonly FilePath[]>((found, failed) => {
      this.#waiting.push({ fid, names: nlink, paths: [], found, failed });
      if (!this.#walking) void this.#walk();
    });
    return recordedFirst(paths, copy);
  }

  async #findOne({ fid, copy }: FileState): Promise<FilePath | undefined> {
    const native = this.#native;
    const candidates = [await native.pathOf?.(fid), copy?.blob];
    for (const path of candidates) {
      if (path === undefined) continue;
      if (typeof path !== 'string') return path;
      const [there] = await native.lookup([path]);
      if (there?.fid === fid) return path;
    }
    return undefined;
  }

  async #walk(): Promise<void> {
    this.#walking = true;
    while (this.#waiting.length > 0) {
      const wanted = new Map<Fid, Search[]>();
      for (const search of this.#waiting) wanted.set(search.fid, [...(wanted.get(search.fid) ?? []), search]);
      this.#waiting = [];
      const walk = this.#native.walk({ select: 'all', batch: walkBatch });
      try {
        for (let batch = await walk.next(); batch !== null && wanted.size > 0; batch = await walk.next()) {
          for (const entry of batch) {
            const searches = wanted.get(entry.fid);
            if (searches === undefined) continue;
            for (const { paths } of searches) paths.push(entry.pathBytes ?? entry.path);
            if (searches.some(({ paths, names }) => paths.length < names)) continue;
            wanted.delete(entry.fid);
            for (const { paths, found } of searches) found(paths);
          }
        }
        for (const searches of wanted.values()) for (const { paths, found } of searches) found(paths);
      } catch (error) {
        for (const searches of wanted.values()) for (const { failed } of searches) failed(error);
      } finally {
        walk.close();
      }
    }
    this.#walking = false;
  }
}

/** The names of a file in the order in which they become blobs: that of its copy or, without one, the first in byte order leads. */
export function recordedFirst(paths: readonly FilePath[], copy: Copy | undefined): readonly FilePath[] {
  const [first, ...others] = [...paths].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  if (first === undefined) return [];
  if (copy === undefined || !paths.includes(copy.blob)) return [first, ...others];
  return [copy.blob, ...[first, ...others].filter((path) => path !== copy.blob)];
}
