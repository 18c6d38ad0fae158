/** The stub that a blob asks for. */
import { BlobError, isOutage, messageChain } from '../../base/errors.js';
import type { Container, ListedBlob, PosixAttributes } from '../../blob/port.js';
import type { Stub } from '../../store/inodes.js';

/** Attributes of what no blob describes. */
export interface ImportDefaults {
  readonly uid: number;
  readonly gid: number;
  readonly fileMode: number;
  readonly dirMode: number;
}

/** PATH_MAX without its NUL. */
const maxTargetBytes = 4095;
const msToNs = 1_000_000n;
/** What ext4, xfs and btrfs can all hold, from 1901 to 2242: else a restored file had another time than its record. */
const earliestNs = -(2n ** 31n) * 1_000_000_000n;
const latestNs = 2n ** 33n * 1_000_000_000n;

/** Without the target of a symlink. */
export function blobStub(
  { name, posix, size, etag, lastModifiedMs, md5 }: ListedBlob,
  path: string,
  kind: Stub['kind'],
  defaults: ImportDefaults,
): Stub {
  const otherMode = kind === 'directory' ? defaults.dirMode : defaults.fileMode;
  return {
    path,
    kind,
    mode: kind === 'symlink' ? 0o777 : (posix.mode ?? otherMode),
    uid: posix.uid ?? defaults.uid,
    gid: posix.gid ?? defaults.gid,
    mtimeNs: storable(posix.mtimeNs ?? BigInt(lastModifiedMs) * msToNs),
    size: kind === 'file' ? size : 0,
    ...extendedOf(posix, kind),
    copy:
      md5 === undefined
        ? { blob: name, etag, size, lastModifiedMs }
        : { blob: name, etag, size, lastModifiedMs, md5 },
  };
}

/**
 * Where the symlink leads, or why the blob cannot be one. Rejects with the signal's reason, and where an account that does
 * not answer is `waited` for.
 */
export async function symlinkTarget(
  container: Pick<Container, 'read'>,
  blob: ListedBlob,
  { signal, waited }: { readonly signal: AbortSignal; readonly waited: boolean },
): Promise<{ readonly target: Buffer } | { readonly code: string; readonly refused: string }> {
  const refuse = (refused: string, code = 'InvalidSymlink') => ({ code, refused });
  if (blob.size === 0 || blob.size > maxTargetBytes)
    return refuse(`no symlink can have a target of ${blob.size} bytes`);
  try {
    const { body } = await container.read(blob.name, { ifMatch: blob.etag, signal });
    return body.includes(0) ? refuse('no path has a NUL') : { target: body };
  } catch (error) {
    signal.throwIfAborted();
    if (waited && isOutage(error)) throw error;
    return refuse(messageChain(error), error instanceof BlobError ? error.kind : 'Unreadable');
  }
}

/** The ACLs of a stub; nothing where the account tells none, so that those of its directory are inherited. */
function extendedOf({ acls }: PosixAttributes, kind: Stub['kind']): Pick<Stub, 'extended'> {
  if (acls === undefined || kind === 'symlink') return {};
  const extended = { 'system.posix_acl_access': acls.access };
  if (kind === 'file') return { extended };
  // The one that shows in the mode comes last: a directory with it was not cut off.
  return { extended: { 'system.posix_acl_default': acls.default, ...extended } };
}

/** The time, or the nearest that a store can hold, as utimes would set it. */
function storable(ns: bigint): bigint {
  return ns < earliestNs ? earliestNs : ns > latestNs ? latestNs : ns;
}
