/**
 * All names of a file share one record, which names the blob of one of them. Before that blob is another file's, a
 * released file gets the record of another of its names.
 */
import { constants } from 'node:os';
import { FsError } from '../base/errors.js';
import type { Copy, Fid, NativeStore } from '../store/inodes.js';
import type { BlobOwners } from './blob-owner.js';
import { HS_LOST, HS_RELEASED } from './flags.js';
import type { PathFinder } from './paths.js';

const { EBUSY } = constants.errno;

export interface OtherNamesContext {
  readonly native: NativeStore;
  readonly paths: Pick<PathFinder, 'find'>;
  readonly owners: Pick<BlobOwners, 'linked'>;
}

/**
 * `path`: the name that is about to be taken away. `copyAt`: what the container has under another name; undefined where
 * it has no file. Where none of them has the content of the file it is lost_from_hsm: it reads as ENODATA, not as
 * something else. Nothing happens to a resident file, which has its data. EBUSY: open, or its names change now.
 */
export async function keepOtherNames(
  { native, paths, owners }: OtherNamesContext,
  fid: Fid,
  path: string,
  copyAt: (name: string) => Promise<Copy | undefined>,
): Promise<void> {
  const state = await native.state(fid);
  const { copy, flags, mode, nlink, type } = state;
  if (type !== 'file' || nlink <= 1 || (flags & HS_RELEASED) === 0 || copy?.blob !== path) return;
  const names = await paths.find(state);
  if (names.length < nlink) throw new FsError(EBUSY, path);
  const others = names.filter((name) => typeof name === 'string').filter((name) => name !== path);
  const copies = await Promise.all(others.map(copyAt));
  const found = copies.find((other) => other !== undefined && isSame(other, copy));
  const kept = found ?? (others[0] === undefined ? undefined : { ...copy, blob: others[0] });
  if (kept === undefined) {
    await native.changeFlags(fid, HS_LOST, 0, 0);
    return;
  }
  // Before, and after: a walk that began in between may have seen the record before it changed.
  owners.linked(kept.blob, fid);
  try {
    // Its attributes are those that it has here.
    await native.replaceCopy(
      fid,
      { ...state, mode: mode & 0o7777, path: kept.blob, kind: 'file', copy: kept },
      { lost: found === undefined },
    );
  } finally {
    owners.linked(kept.blob, fid);
  }
}

function isSame(one: Copy, other: Copy): boolean {
  return one.size === other.size && one.md5 !== undefined && one.md5 === other.md5;
}
