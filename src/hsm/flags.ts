/** HSM flags, actions and progress states with Lustre's numbers and words (lustre_user.h). */

export const HS_EXISTS = 0x01;
export const HS_DIRTY = 0x02;
export const HS_RELEASED = 0x04;
export const HS_ARCHIVED = 0x08;
export const HS_NORELEASE = 0x10;
export const HS_NOARCHIVE = 0x20;
export const HS_LOST = 0x40;

/** What owners may change; everything else needs CAP_SYS_ADMIN. */
export const HSM_USER_MASK = HS_NORELEASE | HS_NOARCHIVE | HS_DIRTY;
export const HSM_FLAGS_MASK = 0x7f;

export const HUA_NONE = 1;
export const HUA_ARCHIVE = 10;
export const HUA_RESTORE = 11;
export const HUA_RELEASE = 12;
export const HUA_REMOVE = 13;
export const HUA_CANCEL = 14;

export const HPS_WAITING = 1;
export const HPS_RUNNING = 2;

/** "from 0 to EOF". */
export const EXTENT_EOF = 0xffff_ffff_ffff_ffffn;

/** The order of `lfs hsm_state`: scripts match on it. */
const words: readonly (readonly [number, string])[] = [
  [HS_RELEASED, 'released'],
  [HS_EXISTS, 'exists'],
  [HS_DIRTY, 'dirty'],
  [HS_ARCHIVED, 'archived'],
  [HS_NORELEASE, 'never_release'],
  [HS_NOARCHIVE, 'never_archive'],
  [HS_LOST, 'lost_from_hsm'],
];

const actions = new Map([
  [HUA_NONE, 'NOOP'],
  [HUA_ARCHIVE, 'ARCHIVE'],
  [HUA_RESTORE, 'RESTORE'],
  [HUA_RELEASE, 'RELEASE'],
  [HUA_REMOVE, 'REMOVE'],
  [HUA_CANCEL, 'CANCEL'],
]);

/** "released exists archived", '' for none: the words of `lfs hsm_state` (lustre-hsm 1.2). */
export function flagsText(flags: number): string {
  return words
    .filter(([bit]) => (flags & bit) !== 0)
    .map(([, word]) => word)
    .join(' ');
}

/** "ARCHIVE" for 10. */
export function actionName(action: number): string {
  return actions.get(action) ?? String(action);
}

/** The requests that a mask can allow, in Lustre's order (lustre-hsm 5.1). */
export const requestNames = ['NOOP', 'ARCHIVE', 'RESTORE', 'REMOVE', 'CANCEL'] as const;
export type RequestName = (typeof requestNames)[number];
