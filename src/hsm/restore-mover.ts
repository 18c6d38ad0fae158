/** Brings the data of one released file back from its blob. */
import { constants } from 'node:os';
import { crashPoint } from '../base/crash.js';
import { BlobError, FsError, messageChain } from '../base/errors.js';
import type { Copy, Fid, FileState, RestorePlan } from '../store/inodes.js';
import { HS_ARCHIVED, HS_LOST, HS_RELEASED } from './flags.js';
import { hasErrno, type MoverContext, type TransferHooks } from './movers.js';

const { EALREADY, EBUSY, ENODATA, ENOSPC } = constants.errno;

/** Downloads of one restore at most: of the recorded version, of the one found instead, and once more. */
const maxDownloads = 3;

export interface RestoreHooks extends TransferHooks {
  /** The next call ends the restore in the store: a request that comes after it needs a new one. */
  readonly onFinishing: () => void;
  /** What whoever waits is told when it fails; 0: to ask again. */
  readonly failure: () => number;
  /** Of RoomOptions: what may be released to make room. */
  readonly usedBefore?: () => number | undefined;
  /** The download failed: resolves with true, perhaps later, where it is to be tried again. */
  readonly outage?: (error: unknown) => Promise<boolean>;
  /** The name of the blob to take, in the version that is there; undefined: the recorded one. */
  readonly lookFor?: (() => Promise<string>) | undefined;
}

/**
 * Resolves when the data is durable and RELEASED is cleared, or nothing was to do. On any failure the file stays
 * released, whoever waits for it gets `failure`, the log names blob and cause, and this rejects with ENODATA.
 */
export async function restoreFile(
  context: MoverContext,
  state: FileState,
  hooks: RestoreHooks,
): Promise<void> {
  const { native, log } = context;
  const { fid } = state;
  let restored = false;
  try {
    await move(context, state, hooks);
    restored = true;
  } catch (error) {
    if (hasErrno(error, EALREADY)) {
      log.debug({ fid }, 'restore: nothing to do');
      return;
    }
    const stopped = hooks.signal.aborted || (error instanceof BlobError && error.kind === 'aborted');
    // Nobody waits for it: whoever asked is told.
    const spared = hasErrno(error, ENOSPC) && hooks.usedBefore?.() !== undefined;
    const level = stopped || spared ? 'info' : 'warn';
    log[level]({ fid, blob: state.copy?.blob, cause: messageChain(error) }, 'restore failed');
    hooks.onFinishing();
    await native.failRestore(fid, hooks.failure()).catch((failure: unknown) => {
      log.debug({ fid, cause: messageChain(failure) }, 'the file of a failed restore is gone');
    });
    throw new FsError(ENODATA, `restore of ${state.copy?.blob ?? fid} failed`, { cause: error });
  } finally {
    context.space?.ended(fid, restored);
  }
}

async function move(context: MoverContext, state: FileState, hooks: RestoreHooks): Promise<void> {
  const { native, container, pool, log, config } = context;
  const { fid, flags } = state;
  if ((flags & HS_RELEASED) === 0) throw new FsError(EALREADY, 'not released');
  if ((flags & HS_ARCHIVED) === 0 || (flags & HS_LOST) !== 0 || state.copy === undefined) {
    throw new FsError(ENODATA, 'the file has no copy in the container');
  }
  const blob = (await hooks.lookFor?.()) ?? state.copy.blob;
  const isRecorded = blob === state.copy.blob;
  let copy = isRecorded ? state.copy : await currentCopy(context, blob, hooks.signal);
  let plan = await withRoom(context, { fid, size: copy.size }, hooks, () =>
    native.beginRestore(fid, isRecorded ? undefined : copy),
  );
  for (let download = 1; ; download++) {
    hooks.signal.throwIfAborted();
    try {
      hooks.onProgress(0);
      const { version } = await pool.download(
        {
          container: container.workerConfig,
          blob: copy.blob,
          fd: plan.fd,
          size: copy.size,
          etag: copy.etag,
          md5: config.hydrate.verify ? await expectedMd5(context, copy, hooks.signal) : undefined,
          rangeBytes: config.hydrate.rangeBytes,
          parallelRanges: config.hydrate.parallelRanges,
        },
        {
          signal: hooks.signal,
          onProgress(bytes) {
            native.restoreProgress(fid, bytes);
            hooks.onProgress(bytes);
          },
        },
      );
      crashPoint('restore.downloaded');
      hooks.onFinishing();
      await native.finishRestore(fid, { ...copy, ...version });
      return;
    } catch (error) {
      if ((await hooks.outage?.(error)) === true) {
        download--;
        continue;
      }
      if (!(error instanceof BlobError) || error.kind !== 'changed' || download === maxDownloads) throw error;
      copy = await currentCopy(context, copy.blob, hooks.signal);
      log.info(
        { fid, blob: copy.blob, etag: copy.etag, size: copy.size },
        'the blob has changed: restoring the new one',
      );
      plan = await withRoom(context, { fid, size: copy.size }, hooks, () => beginAgain(context, fid, copy));
    }
  }
}

/** The disk space of a restore is reserved before a byte is fetched. */
function withRoom(
  { space }: MoverContext,
  { fid, size }: { readonly fid: Fid; readonly size: number },
  { usedBefore, signal }: RestoreHooks,
  begin: () => Promise<RestorePlan>,
): Promise<RestorePlan> {
  if (space === undefined) return begin();
  return space.allocate(fid, size, begin, { signal, ...(usedBefore !== undefined && { usedBefore }) });
}

/** Starts a running restore again with another version. Where the store cannot, its readers get ENODATA before. */
async function beginAgain({ native }: MoverContext, fid: Fid, copy: Copy): Promise<RestorePlan> {
  try {
    return await native.beginRestore(fid, copy);
  } catch (error) {
    if (hasErrno(error, EBUSY)) {
      throw new FsError(ENODATA, 'open readers have been given bytes of another version', { cause: error });
    }
    if (!hasErrno(error, EALREADY)) throw error;
    await native.failRestore(fid, ENODATA);
    return native.beginRestore(fid, copy);
  }
}

/** The MD5 that a copy must have; records leave it out where it would cost a disk block. Undefined: the service keeps none. */
async function expectedMd5(
  context: MoverContext,
  copy: Copy,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (copy.md5 !== undefined) return copy.md5;
  const current = await currentCopy(context, copy.blob, signal);
  return current.etag === copy.etag ? current.md5 : undefined;
}

/** The version of a blob that is in the container now. */
async function currentCopy({ container }: MoverContext, blob: string, signal: AbortSignal): Promise<Copy> {
  const { etag, size, lastModifiedMs, md5, kind } = await container.properties(blob, signal);
  if (kind !== 'file')
    throw new BlobError('unsupported', `${blob} is a ${kind} in the container now, not a file`);
  return { blob, etag, size, lastModifiedMs, ...(md5 === undefined ? {} : { md5 }) };
}
