/**
 * What becomes of an HSM request, from flags, archive id and caller: the truth tables of Lustre's coordinator
 * (mdt_hsm_cdt_client.c, mdt_coordinator.c: lustre-hsm 2.4 and 3.1) as data.
 */
import { constants } from 'node:os';
import type { Caller } from '../store/inodes.js';
import {
  actionName,
  HS_ARCHIVED,
  HS_DIRTY,
  HS_EXISTS,
  HS_LOST,
  HS_NOARCHIVE,
  HS_NORELEASE,
  HS_RELEASED,
  HUA_ARCHIVE,
  HUA_REMOVE,
  HUA_RESTORE,
} from './flags.js';
import type { RequestMasks } from './parameters.js';

const { EPERM, EROFS } = constants.errno;

export type QueuedAction = typeof HUA_ARCHIVE | typeof HUA_RESTORE | typeof HUA_REMOVE;

export type Decision =
  | { readonly kind: 'queue' }
  /** Answered with success at once. */
  | { readonly kind: 'not-needed' }
  | { readonly kind: 'refused'; readonly errno: number };

interface RequestRule {
  readonly action: QueuedAction;
  /** All of `all` set, none of `none` set. */
  readonly all?: number;
  readonly none?: number;
  /** The request names an archive id, and another one than the file's. */
  readonly otherArchive?: true;
  readonly then: 'not-needed' | 'refused';
}

/** The first row that matches decides; none: the request is queued. */
export const requestRules: readonly RequestRule[] = [
  { action: HUA_ARCHIVE, all: HS_ARCHIVED, none: HS_DIRTY, then: 'not-needed' },
  { action: HUA_ARCHIVE, all: HS_NOARCHIVE, then: 'refused' },
  { action: HUA_ARCHIVE, all: HS_EXISTS, otherArchive: true, then: 'refused' },
  { action: HUA_RESTORE, none: HS_RELEASED | HS_DIRTY, then: 'not-needed' },
  { action: HUA_RESTORE, all: HS_DIRTY, then: 'refused' },
  { action: HUA_RESTORE, all: HS_RELEASED, none: HS_ARCHIVED, then: 'refused' },
  { action: HUA_RESTORE, all: HS_RELEASED | HS_LOST, then: 'refused' },
  { action: HUA_REMOVE, none: HS_ARCHIVED | HS_EXISTS, then: 'not-needed' },
  { action: HUA_REMOVE, all: HS_RELEASED, then: 'refused' },
];

/** Decides a request when it arrives and again when it is dispatched. `requested` 0: no archive id was given. */
export function decideRequest(
  action: QueuedAction,
  file: { readonly flags: number; readonly archiveId: number },
  requested: number,
): Decision {
  const otherArchive = requested !== 0 && requested !== file.archiveId;
  const rule = requestRules.find((row) => row.action === action && matches(row, file.flags, otherArchive));
  if (rule === undefined) return { kind: 'queue' };
  return rule.then === 'refused' ? { kind: 'refused', errno: EPERM } : { kind: 'not-needed' };
}

function matches(rule: RequestRule, flags: number, otherArchive: boolean): boolean {
  const { all = 0, none = 0 } = rule;
  return (flags & all) === all && (flags & none) === 0 && (rule.otherArchive === undefined || otherArchive);
}

/** Of capabilities(7). */
export const CAP_FOWNER = 3;
const CAP_SYS_ADMIN = 21;

export function hasCapability({ capabilities }: Caller, capability: number): boolean {
  return ((capabilities >> BigInt(capability)) & 1n) === 1n;
}

/** Whom Lustre takes for an administrator, whatever the user id. */
export function isPrivileged(caller: Caller): boolean {
  return hasCapability(caller, CAP_SYS_ADMIN);
}

/** Whose file it is, as far as permissions go; undefined: the file is gone, and only the privileged may name it. */
export type Owned = { readonly uid: number; readonly gid: number } | undefined;

/**
 * The errno that refuses a queued action or a cancel to this caller, 0 when it may (lustre-hsm 2.4): CAP_SYS_ADMIN
 * may everything, others what the mask of the class they fall into says; a read-only mount allows restores only.
 */
export function permitRequest(
  action: number,
  caller: Caller,
  file: Owned,
  { readOnly, masks }: { readonly readOnly: boolean; readonly masks: RequestMasks },
): number {
  if (readOnly && action !== HUA_RESTORE) return EROFS;
  if (isPrivileged(caller)) return 0;
  return masks[classOf(caller, file)].some((name) => name === actionName(action)) ? 0 : EPERM;
}

function classOf(caller: Caller, file: Owned): keyof RequestMasks {
  if (file?.uid === caller.uid) return 'user';
  return file !== undefined && isMember(caller, file.gid) ? 'group' : 'other';
}

function isMember({ gid, groups }: Caller, group: number): boolean {
  return gid === group || groups.includes(group);
}

/**
 * The errno that refuses a release before the kernel is asked whether the caller may write the file (lustre-hsm 3.3):
 * what is not to be released at all comes first.
 */
export function permitRelease(flags: number, readOnly: boolean): number {
  const kept = (flags & (HS_DIRTY | HS_NORELEASE | HS_LOST)) !== 0 || (flags & HS_ARCHIVED) === 0;
  if (kept) return EPERM;
  return readOnly ? EROFS : 0;
}
