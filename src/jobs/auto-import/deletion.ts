/** What auto-import does about a path whose blob was deleted: a pure function of what is there and the mode. */
import type { FileState } from '../../store/inodes.js';
import { isLost, isModified } from '../import/conflict.js';
import type { ConflictMode } from '../import/conflict-mode.js';

export type DeletionAction =
  /** It is deleted. */
  | 'delete'
  /** It is deleted unless somebody has it open; then later. */
  | 'delete-unused'
  /** It stays: a conflict. */
  | 'keep'
  /** A conflict: the job ends. */
  | 'fail';

export type Deleted =
  /** Content that no blob has: changed here, never exported, lost before, or come here from another name. */
  'modified' | 'unmodified' | 'directory';

/** Seed 001 "Here are best practices for deletions"; what it leaves open is in src/SEMANTICS.md. */
export const deletionActions: Readonly<Record<Deleted, Readonly<Record<ConflictMode, DeletionAction>>>> = {
  modified: { Fail: 'fail', Skip: 'keep', OverwriteIfDirty: 'delete', OverwriteAlways: 'delete' },
  unmodified: {
    Fail: 'delete-unused',
    Skip: 'delete-unused',
    OverwriteIfDirty: 'delete',
    OverwriteAlways: 'delete',
  },
  directory: { Fail: 'delete', Skip: 'delete', OverwriteIfDirty: 'delete', OverwriteAlways: 'delete' },
};

/** Whether it takes what is there. */
export function deletes(action: DeletionAction | 'disabled'): boolean {
  return action === 'delete' || action === 'delete-unused';
}

/** Undefined: nothing that the blob can have been. */
export function deletedOf(
  existing: Pick<FileState, 'type' | 'modified' | 'copy' | 'flags' | 'nlink'>,
  blob: string,
): Deleted | undefined {
  switch (existing.type) {
    case 'file':
    case 'symlink':
      // A marker has never been a file.
      if (blob.endsWith('/')) return undefined;
      if (isModified(existing) || isLost(existing)) return 'modified';
      // The record of a file with several names is that of one of them.
      return existing.copy?.blob === blob || existing.nlink > 1 ? 'unmodified' : 'modified';
    case 'directory':
      // `dir` and `dir/` are two blobs of one directory.
      return existing.copy === undefined || existing.copy.blob === blob ? 'directory' : undefined;
    case 'special':
      return undefined;
  }
}
