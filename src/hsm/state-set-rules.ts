/** hsm_set and hsm_clear: Lustre's checks in Lustre's order (mdt_hsm.c:mdt_hsm_state_set, lustre-hsm 2.2). */
import { constants } from 'node:os';
import type { Caller } from '../store/inodes.js';
import {
  HSM_FLAGS_MASK,
  HSM_USER_MASK,
  HS_ARCHIVED,
  HS_DIRTY,
  HS_EXISTS,
  HS_LOST,
  HS_RELEASED,
} from './flags.js';
import { CAP_FOWNER, hasCapability, isPrivileged } from './request-rules.js';

const { EINVAL, EPERM } = constants.errno;

export type StateChange =
  | { readonly kind: 'refused'; readonly errno: number }
  /** Answered with success, nothing changes. */
  | { readonly kind: 'nothing' }
  /** `archiveId` 0: stays as it is. */
  | { readonly kind: 'change'; readonly set: number; readonly clear: number; readonly archiveId: number };

/** Combinations of the resulting flags that Lustre refuses: all of `all` set and none of `none`. */
export const impossibleFlags: readonly { readonly all: number; readonly none: number }[] = [
  { all: HS_DIRTY, none: HS_EXISTS },
  { all: HS_RELEASED | HS_DIRTY, none: 0 },
  { all: HS_RELEASED, none: HS_ARCHIVED },
  { all: HS_LOST, none: HS_ARCHIVED },
];

/**
 * Decides a change of flags. RELEASED says where the data is: it can be neither set nor cleared here, though
 * Lustre's ioctl lets root do it.
 */
export function decideStateSet(
  file: { readonly flags: number; readonly archiveId: number; readonly uid: number },
  request: {
    readonly set: number;
    readonly clear: number;
    readonly archiveId?: number;
    readonly caller: Caller;
  },
): StateChange {
  const { set, clear, caller } = request;
  const refused = (errno: number): StateChange => ({ kind: 'refused', errno });
  const bits = set | clear;
  // Bits may arrive as 64-bit masks: what does not survive `|` is outside the mask as well.
  if ((bits & ~HSM_FLAGS_MASK) !== 0 || set > HSM_FLAGS_MASK || clear > HSM_FLAGS_MASK)
    return refused(EINVAL);
  if ((bits & ~HSM_USER_MASK) !== 0 && !isPrivileged(caller)) return refused(EPERM);
  const flags = (file.flags | set) & ~clear;
  const archiveId = request.archiveId ?? 0;
  if (archiveId !== 0 && (flags & HS_EXISTS) === 0) return { kind: 'nothing' };
  if (impossibleFlags.some(({ all, none }) => (flags & all) === all && (flags & none) === 0)) {
    return refused(EINVAL);
  }
  if (!hasCapability(caller, CAP_FOWNER) && caller.uid !== file.uid) return refused(EPERM);
  if (((flags ^ file.flags) & HS_RELEASED) !== 0) return refused(EPERM);
  if (flags === file.flags && (archiveId === 0 || archiveId === file.archiveId)) return { kind: 'nothing' };
  return { kind: 'change', set, clear, archiveId };
}
