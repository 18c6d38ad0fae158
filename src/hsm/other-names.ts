/**
 * All names of a file share one record, which names the blob of one of them. When that blob is somebody else's from now
 * on, the other names go on with what their own blobs have.
 */
import { constants } from 'node:os';
import { FsError } from '../base/errors.js';
import type { Fid, NativeStore, Stub } from '../store/inodes.js';
import type { BlobOwners } from './blob-owner.js';
import { HS_DIRTY, HS_RELEASED } from './flags.js';
import type { PathFinder } from './paths.js';

const { ESTALE } = constants.errno;

export interface OtherNamesContext {
  readonly native: NativeStore;
  readonly paths: Pick<PathFinder, 'find'>;
  readonly owners: Pick<BlobOwners, 'linked'>;
}

/**
 * `path`: the name that is about to be taken away. `stubAt`: what the container has under another name; undefined where
 * it has no file. A resident file is modified when this resolves, a released one has the record of another of its names;
 * where no blob of them is left it has that of a blob that is gone. EBUSY as replaceCopy; ESTALE: the names change now.
 */
export async function keepOtherNames(
  { native, paths, owners }: OtherNamesContext,
  fid: Fid,
  path: string,
  stubAt: (name: string) => Promise<Stub | undefined>,
): Promise<void> {
  const state = await native.state(fid);
  const { copy, flags, modified, nlink, type } = state;
  if (type !== 'file' || nlink <= 1 || modified || (flags & HS_DIRTY) !== 0) return;
  if (copy === undefined || copy.blob !== path) return;
  if ((flags & HS_RELEASED) === 0) {
    await native.markModified(fid);
    return;
  }
  const others = (await paths.find(state)).filter((name) => typeof name === 'string' && name !== path);
  const [first] = others;
  if (typeof first !== 'string') throw new FsError(ESTALE, path);
  const lost: Stub = { ...state, path: first, kind: 'file', copy: { ...copy, blob: first } };
  let stub = lost;
  for (const name of others) {
    const found = typeof name === 'string' ? await stubAt(name) : undefined;
    if (found === undefined) continue;
    stub = found;
    break;
  }
  await native.replaceCopy(fid, stub);
  if (others.length > 1) owners.linked(stub.path, fid);
}
