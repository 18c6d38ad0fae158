/** hsm_remove: deletes the blob of a resident file and makes the file a new one. */
import { crashPoint } from '../base/crash.js';
import { BlobError } from '../base/errors.js';
import type { Copy, FileState } from '../store/inodes.js';
import type { MoverContext } from './movers.js';

/**
 * Deletes the copy of a file that has no name any more, as the record knew it: another version of the blob is somebody
 * else's, and then this rejects.
 */
export async function removeUnlinkedCopy(
  { container }: Pick<MoverContext, 'container'>,
  { blob, etag }: Copy,
  signal: AbortSignal,
): Promise<void> {
  try {
    await container.delete(blob, { signal, ifMatch: etag });
  } catch (error) {
    if (!(await isGone(container, blob, error, signal))) throw error;
  }
}

/**
 * Deletes the copy of `state`, which is not released. The file durably counts as in no copy before its blob goes, so
 * that a crash in between cannot leave a file that may be released without a copy; a failed delete leaves it so, too.
 * Until the blob is gone the record names it and has EXISTS, so that the request can be repeated, and DIRTY is what it
 * was. The blob is deleted as the record knows it: another version of it is somebody else's and stays (not with
 * compat.strict, nor is it there the one of the record).
 *
 * @param blob the one to delete; undefined: there is no copy
 */
export async function removeCopy(
  context: MoverContext,
  state: FileState,
  blob: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { native, container, config } = context;
  const { fid, copy } = state;
  if (blob !== undefined) {
    const condition = config.compat.strict || copy === undefined ? {} : { ifMatch: copy.etag };
    // Whatever the state said: an archive may have ended since.
    await native.beginRemove(fid);
    crashPoint('remove.marked');
    try {
      await container.delete(blob, { signal, ...condition });
    } catch (error) {
      if (!(await isGone(container, blob, error, signal))) throw error;
    }
    crashPoint('remove.deleted');
  }
  await native.forgetCopy(fid);
}

/** Whether a deletion failed because there is nothing to delete: a condition on a missing blob may fail as such, too. */
async function isGone(
  container: MoverContext['container'],
  blob: string,
  error: unknown,
  signal: AbortSignal,
): Promise<boolean> {
  if (!(error instanceof BlobError)) return false;
  if (error.kind !== 'changed') return error.kind === 'missing';
  try {
    await container.properties(blob, signal);
    return false;
  } catch (failure) {
    return failure instanceof BlobError && failure.kind === 'missing';
  }
}
