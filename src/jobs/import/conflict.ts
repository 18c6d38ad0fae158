/** What an import does with a blob whose path is taken: pure functions of what is there, the blob and the mode. */
import { pathText } from '../../base/path-text.js';
import { HS_DIRTY, HS_LOST, HS_NORELEASE, HS_RELEASED } from '../../hsm/flags.js';
import type { FileState, Stub } from '../../store/inodes.js';
import type { ImportDefaults } from './blob-stub.js';
import type { ConflictMode } from './conflict-mode.js';

export type ConflictAction =
  /** Nothing is done: counted as preexisting. */
  | 'keep'
  /** It gets the attributes of the blob: no conflict. */
  | 'complete'
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
  'type' | 'flags' | 'modified' | 'copy' | 'mode' | 'uid' | 'gid' | 'mtimeNs' | 'nlink'
> & {
  /** Symlinks: where it leads. */
  readonly target?: Buffer;
};

/** How what is there stands to the blob. */
export type Situation =
  /** The same object with the same attributes, and its data in no other place than the container. */
  | 'same'
  /** The same, with its data here. */
  | 'same-resident'
  | 'other-type'
  /** What somebody has made or put here, in the place of the blob: it has none, or is a changed file of another one. */
  | 'new'
  /** A file with content that no blob has: changed from another version of this one, or from one that is lost. */
  | 'dirty'
  /** The same, and what was changed is this very version of the blob. */
  | 'dirty-current'
  /** A file with the data of another blob, or of another version of this one. */
  | 'clean'
  /** A file with the data of this version, and other attributes. */
  | 'attributes'
  /** Clean, and its data has to stay here: somebody said so, or that its blob is lost. */
  | 'never-release'
  | 'released'
  | 'symlink'
  | 'directory'
  /** As an import makes it of the names of blobs below it. */
  | 'implied-directory';

export type ConflictActions = Readonly<Record<Situation, Readonly<Record<ConflictMode, ConflictAction>>>>;

const replaced = {
  Fail: 'fail',
  Skip: 'skip',
  OverwriteIfDirty: 'replace',
  OverwriteAlways: 'replace',
} as const;
const released = {
  Fail: 'fail',
  Skip: 'skip',
  OverwriteIfDirty: 'release',
  OverwriteAlways: 'release',
} as const;
const updated = {
  Fail: 'fail',
  Skip: 'skip',
  OverwriteIfDirty: 'update',
  OverwriteAlways: 'release',
} as const;
const completed = {
  Fail: 'complete',
  Skip: 'complete',
  OverwriteIfDirty: 'complete',
  OverwriteAlways: 'complete',
} as const;
const skipped = { Fail: 'fail', Skip: 'skip', OverwriteIfDirty: 'skip', OverwriteAlways: 'skip' } as const;
const kept = { Fail: 'keep', Skip: 'keep', OverwriteIfDirty: 'keep', OverwriteAlways: 'keep' } as const;

/** Import jobs: seed 000 "Conflict resolution mode"; the cells it leaves open are in src/SEMANTICS.md. */
export const conflictActions: ConflictActions = {
  same: kept,
  'same-resident': { ...kept, OverwriteAlways: 'release' },
  'other-type': replaced,
  new: replaced,
  dirty: replaced,
  'dirty-current': replaced,
  clean: updated,
  attributes: updated,
  'never-release': { ...updated, OverwriteAlways: 'skip' },
  released,
  symlink: replaced,
  directory: { ...updated, OverwriteAlways: 'update' },
  'implied-directory': { ...updated, OverwriteAlways: 'update' },
};

/**
 * An import that a restart has begun again: what no blob has may have been made behind its first pass, and what was there
 * before the job cannot be told from that any more.
 */
export const resumedActions: ConflictActions = {
  ...conflictActions,
  'other-type': skipped,
  new: skipped,
  dirty: skipped,
  'dirty-current': skipped,
  symlink: skipped,
};

/**
 * The full sync of auto-import: what is changed in the container shows in the mount when it may. The blob of a directory
 * may come later than those below it.
 */
export const scanActions: ConflictActions = {
  ...conflictActions,
  clean: released,
  'implied-directory': completed,
};

/**
 * A full sync after the first, which nobody has asked for: what was changed or made here since is not what it is about.
 * Whether the blob came before or after what has no blob cannot be told.
 */
export const scanAgainActions: ConflictActions = { ...scanActions, new: skipped, 'dirty-current': kept };

/** Blob sync: a change may be told twice, and what it would make is there then. */
export const syncActions: ConflictActions = { ...scanActions, 'dirty-current': kept, 'same-resident': kept };

const permissionBits = 0o7777;

/** What a directory has that no blob describes. */
type ImpliedAttributes = Pick<ImportDefaults, 'uid' | 'gid' | 'dirMode'>;

export function situationOf(existing: Existing, blob: Stub, implied: ImpliedAttributes): Situation {
  if (existing.type !== blob.kind) return isNew(existing, blob, implied) ? 'new' : 'other-type';
  const same = differenceOf(existing, blob) === undefined;
  if (same && blob.kind !== 'file') return 'same';
  if (blob.kind === 'directory') return isImplied(existing, implied) ? 'implied-directory' : 'directory';
  if (blob.kind === 'symlink') return isNew(existing, blob, implied) ? 'new' : 'symlink';
  const isReleased = (existing.flags & HS_RELEASED) !== 0;
  const lost = isLost(existing);
  const neverRelease = lost || (existing.flags & HS_NORELEASE) !== 0;
  // The record of a file with several names is that of another one, and is not to become that of this one.
  const linked = existing.copy?.blob !== blob.copy?.blob;
  if (same) return isReleased || neverRelease || linked ? 'same' : 'same-resident';
  if (isReleased) return 'released';
  const current = isCopyOf(existing, blob);
  if (isModified(existing) && current) return 'dirty-current';
  if (isModified(existing)) return isNew(existing, blob, implied) ? 'new' : 'dirty';
  // A blob that came back as another version says nothing of the data that is here.
  if (lost && !current) return 'dirty';
  if (neverRelease) return 'never-release';
  return current ? 'attributes' : 'clean';
}

/**
 * What the mode does about it. All names of a file have one record, and this blob is the business of one of them: where
 * its content is not the one that they have, not the record changes but the name goes to the blob.
 */
export function actionOf(
  actions: ConflictActions,
  mode: ConflictMode,
  existing: Existing,
  blob: Stub,
  implied: ImpliedAttributes,
): ConflictAction {
  const action = actions[situationOf(existing, blob, implied)][mode];
  if (action !== 'release' || existing.nlink <= 1) return action;
  return existing.copy?.blob === blob.copy?.blob && isCopyOf(existing, blob) ? 'release' : 'replace';
}

/** Whether a directory is as an import makes it of the names of blobs below it. */
export function isImplied(
  { copy, uid, gid, mode }: Pick<Existing, 'copy' | 'uid' | 'gid' | 'mode'>,
  implied: ImpliedAttributes,
): boolean {
  const isDefault = uid === implied.uid && gid === implied.gid && (mode & permissionBits) === implied.dirMode;
  return copy === undefined && isDefault;
}

/** No blob has been it, and nothing that an import does makes it. */
function isNew(existing: Existing, blob: Stub, implied: ImpliedAttributes): boolean {
  const { type, copy } = existing;
  if (type === 'directory') return copy === undefined && !isImplied(existing, implied);
  return copy === undefined || (isModified(existing) && copy.blob !== blob.path);
}

/** Its content is in no blob. */
export function isModified({
  modified,
  copy,
  flags,
}: Pick<Existing, 'modified' | 'copy' | 'flags'>): boolean {
  return modified || copy === undefined || (flags & HS_DIRTY) !== 0;
}

/** Its data is here, and the blob that it was is gone: never released (lustre-hsm 3.3). */
export function isLost({ flags }: Pick<Existing, 'flags'>): boolean {
  return (flags & HS_LOST) !== 0 && (flags & HS_RELEASED) === 0;
}

function isCopyOf({ copy, nlink }: Existing, blob: Stub): boolean {
  if (copy === undefined || blob.copy === undefined) return false;
  if (copy.blob === blob.copy.blob) return copy.etag === blob.copy.etag;
  // An export wrote one for each name of the file, and the record keeps one.
  return nlink > 1 && copy.size === blob.copy.size && copy.md5 !== undefined && copy.md5 === blob.copy.md5;
}

function sameTarget(existing: Existing, blob: Stub): boolean {
  return existing.target?.equals(blob.target ?? Buffer.alloc(0)) === true;
}

/** In what they differ, for people; undefined: an import of the blob would make exactly what is there. */
export function differenceOf(existing: Existing, blob: Stub): string | undefined {
  const { type, copy, uid, gid } = existing;
  if (type !== blob.kind) return `there is a ${type} of this name`;
  if (blob.kind === 'symlink' && !sameTarget(existing, blob))
    return `the symlink here leads to '${pathText(existing.target ?? '')}'`;
  if (blob.kind === 'file') {
    if (copy === undefined || isModified(existing)) return 'the file here is new or changed';
    if (!isCopyOf(existing, blob)) {
      return copy.blob === blob.copy?.blob
        ? 'the file here came from another version of the blob'
        : `the file here came from the blob '${copy.blob}'`;
    }
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
