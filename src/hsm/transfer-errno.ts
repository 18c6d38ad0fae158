/** What a copytool would have answered: the errno of a transfer that failed, for the changelog (lustre-hsm 3.8). */
import { constants } from 'node:os';
import { BlobError, type BlobErrorKind } from '../base/errors.js';
import { errnoOf } from './movers.js';

const { EACCES, EAGAIN, EBUSY, ECANCELED, EEXIST, EIO, ENODATA, ENOENT, EOPNOTSUPP, ESTALE, ETIMEDOUT } =
  constants.errno;

const ofBlob: Readonly<Record<BlobErrorKind, number>> = {
  missing: ENOENT,
  changed: ESTALE,
  exists: EEXIST,
  archived: ENODATA,
  leased: EBUSY,
  forbidden: EACCES,
  throttled: EAGAIN,
  unreachable: ETIMEDOUT,
  unsupported: EOPNOTSUPP,
  corrupt: EIO,
  aborted: ECANCELED,
  other: EIO,
};

/** Of the innermost cause that has one; EIO. */
export function causeErrno(failure: unknown): number {
  let errno = EIO;
  for (let at = failure; at instanceof Error; at = at.cause) {
    if (at instanceof BlobError) return ofBlob[at.kind];
    errno = errnoOf(at) ?? errno;
  }
  return errno;
}
