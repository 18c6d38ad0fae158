/** What an import does with a blob whose path is taken: a pure function of what is there, the blob and the mode. */
import type { FileState, Stub } from '../store/inodes.js';
import type { ConflictMode } from './job.js';

export type ConflictAction =
  /** The same object with the same data and attributes: counted as preexisting. */
  | 'preexisting'
  /** A conflict: counted, logged, what is there stays. */
  | 'skip'
  /** A conflict: the job ends. */
  | 'fail';

/** What is there, as far as it matters. */
export type Existing = Pick<FileState, 'type' | 'modified' | 'copy' | 'mode' | 'uid' | 'gid' | 'mtimeNs'> & {
  /** Symlinks: where it leads. */
  readonly target?: string;
};

/** Modes that this version resolves by leaving alone or giving up; the overwriting ones are refused at creation. */
export const supportedModes: readonly ConflictMode[] = ['Fail', 'Skip'];

const permissionBits = 0o7777;

export function resolveConflict(existing: Existing, blob: Stub, mode: ConflictMode): ConflictAction {
  if (isSame(existing, blob)) return 'preexisting';
  return mode === 'Fail' ? 'fail' : 'skip';
}

/** Whether an import of the blob would make exactly what is there. */
export function isSame(existing: Existing, blob: Stub): boolean {
  if (existing.type !== blob.kind || existing.uid !== blob.uid || existing.gid !== blob.gid) return false;
  switch (blob.kind) {
    // Every entry that is made in a directory changes its mtime: no difference that counts.
    case 'directory':
      return sameMode(existing, blob);
    case 'symlink':
      return existing.target === blob.target;
    case 'file':
      return (
        !existing.modified &&
        existing.copy?.blob === blob.copy?.blob &&
        existing.copy?.etag === blob.copy?.etag &&
        existing.mtimeNs === blob.mtimeNs &&
        sameMode(existing, blob)
      );
  }
}

function sameMode(existing: Existing, blob: Stub): boolean {
  return (existing.mode & permissionBits) === (blob.mode & permissionBits);
}
