/** The names of an inode, for `lfs fid2path`. */
import { constants } from 'node:os';
import { FsError } from '../base/errors.js';
import { errnoOf } from '../hsm/movers.js';
import { PathFinder } from '../hsm/paths.js';
import type { Fid, FileState, NativeStore } from '../store/inodes.js';

const { EINVAL, ENODATA, ENOENT, ESTALE } = constants.errno;

export interface Link {
  /** How many there are. */
  readonly links: number;
  /** Relative to the root. */
  readonly path: Buffer;
}

export class Links {
  readonly #native: NativeStore;
  readonly #finder: PathFinder;

  constructor(native: NativeStore) {
    this.#native = native;
    this.#finder = new PathFinder(native);
  }

  /** The name with this number, from 0. ENOENT without any, ENODATA beyond the last. */
  async find(fid: Fid, link: number): Promise<Link> {
    const state = await this.#state(fid);
    if (fid === this.#native.fidOf('')) return numbered([''], link);
    // A directory's other links are those of its own and its children's making.
    const named = state.type === 'directory' && state.nlink > 0 ? { ...state, nlink: 1 } : state;
    const paths = await this.#finder.find(named);
    if (paths.length === 0) throw new FsError(ENOENT, fid);
    return numbered(paths, link);
  }

  async #state(fid: Fid): Promise<FileState> {
    try {
      return await this.#native.state(fid);
    } catch (error) {
      // EINVAL: no inode of ours can have such a FID.
      const errno = errnoOf(error);
      if (errno !== ESTALE && errno !== EINVAL) throw error;
      throw new FsError(ENOENT, fid, { cause: error });
    }
  }
}

function numbered(paths: readonly (string | Buffer)[], link: number): Link {
  const path = paths[link];
  if (path === undefined) throw new FsError(ENODATA, `there is no link ${link}`);
  return { links: paths.length, path: Buffer.from(path) };
}
