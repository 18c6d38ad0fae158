/** Where a file is now: what an archive by FID names its blob after. */
import type { Fid, FileState, NativeStore } from '../store/inodes.js';

const walkBatch = 1024;

interface Search {
  readonly fid: Fid;
  readonly found: (path: string | Buffer | undefined) => void;
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

  /** One of the file's names, as text or, where it is not UTF-8, as bytes. Undefined: it has none any more. */
  async find(state: FileState): Promise<string | Buffer | undefined> {
    const native = this.#native;
    const candidates = [await native.pathOf?.(state.fid), state.copy?.blob];
    for (const path of candidates) {
      if (path === undefined) continue;
      if (typeof path !== 'string') return path;
      const [there] = await native.lookup([path]);
      if (there?.fid === state.fid) return path;
    }
    if (state.nlink === 0) return undefined;
    return new Promise((found, failed) => {
      this.#waiting.push({ fid: state.fid, found, failed });
      if (!this.#walking) void this.#walk();
    });
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
            wanted.delete(entry.fid);
            for (const { found } of searches) found(entry.pathBytes ?? entry.path);
          }
        }
        for (const searches of wanted.values()) for (const { found } of searches) found(undefined);
      } catch (error) {
        for (const searches of wanted.values()) for (const { failed } of searches) failed(error);
      } finally {
        walk.close();
      }
    }
    this.#walking = false;
  }
}
