/** What an import does with a blob whose path is taken: pure functions of what is there, the blob and the mode. */
import { HS_DIRTY, HS_NORELEASE, HS_RELEASED } from '../hsm/flags.js';
import type { FileState, Stub } from '../store/inodes.js';
import type { ConflictMode } from './job.js';

export type ConflictAction =
  /** Nothing is done: counted as preexisting. */
  | 'keep'
  /** A conflict: counted, logged, what is there stays. */
  | 'skip'
  /** A conflict: the job ends. */
  | 'fail'
  /** A conflict that ends with the blob's mode, owner and mtime over the data that is there. */
  | 'update'
  /** A conflict that ends with the file released, its record that of the blob. */
  | 'release'
  /** A conflict that ends with what is there deleted and the blob imported. */
  | 'replace';

/** What is there, as far as it matters. */
export type Existing = Pick<
  FileState,
  'type' | 'flags' | 'modified' | 'copy' | 'mode' | 'uid' | 'gid' | 'mtimeNs'
> & {
  /** Symlinks: where it leads. */
  readonly target?: string;
};

/** How what is there stands to the blob. */
export type Situation =
  /** The same object with the same attributes, and its data in no other place than the container. */
  | 'same'
  /** The same, with its data here. */
  | 'same-resident'
  | 'other-type'
  /** A file with content that no blob has: changed, or never exported. */
  | 'dirty'
  | 'clean'
  /** Clean, and somebody said that its data has to stay here. */
  | 'never-release'
  | 'released'
  | 'symlink'
  | 'directory';

/** Seed 000 "Conflict resolution mode"; the cells it leaves open are in src/SEMANTICS.md. */
export const conflictActions: Readonly<Record<Situation, Readonly<Record<ConflictMode, ConflictAction>>>> = {
  same: { Fail: 'keep', Skip: 'keep', OverwriteIfDirty: 'keep', OverwriteAlways: 'keep' },
  'same-resident': { Fail: 'keep', Skip: 'keep', OverwriteIfDirty: 'keep', OverwriteAlways: 'release' },
  'other-type': { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'replace', OverwriteAlways: 'replace' },
  dirty: { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'replace', OverwriteAlways: 'replace' },
  clean: { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'update', OverwriteAlways: 'release' },
  'never-release': { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'update', OverwriteAlways: 'skip' },
  released: { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'release', OverwriteAlways: 'release' },
  symlink: { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'replace', OverwriteAlways: 'replace' },
  directory: { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'update', OverwriteAlways: 'update' },
};

const permissionBits = 0o7777;

export function situationOf(existing: Existing, blob: Stub): Situation {
  if (existing.type !== blob.kind) return 'other-type';
  const same = differenceOf(existing, blob) === undefined;
  if (blob.kind !== 'file') return same ? 'same' : blob.kind;
  const released = (existing.flags & HS_RELEASED) !== 0;
  const neverRelease = (existing.flags & HS_NORELEASE) !== 0;
  if (same) return released || neverRelease ? 'same' : 'same-resident';
  if (released) return 'released';
  if (existing.modified || existing.copy === undefined || (existing.flags & HS_DIRTY) !== 0) return 'dirty';
  return neverRelease ? 'never-release' : 'clean';
}

/** In what they differ, for people; undefined: an import of the blob would make exactly what is there. */
export function differenceOf(existing: Existing, blob: Stub): string | undefined {
  const { type, copy, uid, gid } = existing;
  if (type !== blob.kind) return `there is a ${type} of this name`;
  if (blob.kind === 'symlink' && existing.target !== blob.target)
    return `the symlink here leads to '${existing.target ?? ''}'`;
  if (blob.kind === 'file') {
    if (existing.modified || copy === undefined || (existing.flags & HS_DIRTY) !== 0)
      return 'the file here is new or changed';
    if (copy.blob !== blob.copy?.blob) return `the file here came from the blob '${copy.blob}'`;
    if (copy.etag !== blob.copy.etag) return 'the file here came from another version of the blob';
  }
  if (uid !== blob.uid || gid !== blob.gid)
    return `the ${type} here belongs to ${uid}:${gid}, the blob's to ${blob.uid}:${blob.gid}`;
  if (blob.kind === 'symlink') return undefined;
  const [mode, wanted] = [existing.mode & permissionBits, blob.mode & permissionBits];
  if (mode !== wanted) return `the ${type} here has the mode ${octal(mode)}, the blob's has ${octal(wanted)}`;
  // Every entry that is made in a directory changes its mtime: no difference that counts.
  if (blob.kind === 'file' && existing.mtimeNs !== blob.mtimeNs)
    return 'the file here has another modification time';
  return undefined;
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}
