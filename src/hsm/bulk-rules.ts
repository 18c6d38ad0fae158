/** What becomes of a file that a bulk verb meets, as pure tables. */
import type { FileState } from '../store/inodes.js';
import { HS_ARCHIVED, HS_DIRTY, HS_LOST, HS_NORELEASE, HS_RELEASED } from './flags.js';

/** Why a file is left alone though its data is here. */
export const keptReasons = ['new', 'dirty', 'never_release', 'lost_from_hsm', 'recent', 'open'] as const;
export type KeptReason = (typeof keptReasons)[number];

export type Verdict =
  | { readonly kind: 'do'; readonly bytes: number }
  /** It is as the verb would have it. */
  | { readonly kind: 'there' }
  | { readonly kind: 'kept'; readonly reason: KeptReason }
  | { readonly kind: 'failed'; readonly cause: string };

type Judged = Pick<
  FileState,
  'type' | 'flags' | 'modified' | 'size' | 'allocated' | 'mtimeNs' | 'atimeNs' | 'writers' | 'readers'
>;

/** Undefined: not a regular file, which has no HSM state. */
export function judgeHydrate({ type, flags, size }: Judged): Verdict | undefined {
  if (type !== 'file') return undefined;
  if ((flags & HS_RELEASED) === 0) return { kind: 'there' };
  if ((flags & HS_ARCHIVED) === 0 || (flags & HS_LOST) !== 0)
    return { kind: 'failed', cause: 'the container does not have its data (lost_from_hsm)' };
  return { kind: 'do', bytes: size };
}

/** As lustre-hsm 3.3. `usedBeforeNs`: what was used later stays. */
export function judgeRelease(file: Judged, usedBeforeNs?: bigint): Verdict | undefined {
  const { type, flags, modified, allocated, writers, readers } = file;
  if (type !== 'file') return undefined;
  if ((flags & HS_RELEASED) !== 0) return { kind: 'there' };
  const reason = keptBecause();
  return reason === undefined ? { kind: 'do', bytes: allocated } : { kind: 'kept', reason };

  function keptBecause(): KeptReason | undefined {
    if ((flags & HS_ARCHIVED) === 0) return 'new';
    if (modified || (flags & HS_DIRTY) !== 0) return 'dirty';
    if ((flags & HS_LOST) !== 0) return 'lost_from_hsm';
    if ((flags & HS_NORELEASE) !== 0) return 'never_release';
    if (usedBeforeNs !== undefined && lastUsedNs(file) > usedBeforeNs) return 'recent';
    if (writers + readers > 0) return 'open';
    return undefined;
  }
}

/** When a file was read or changed last: relatime keeps the former no better than that a change is older. */
export function lastUsedNs({ atimeNs, mtimeNs }: Pick<FileState, 'atimeNs' | 'mtimeNs'>): bigint {
  return atimeNs > mtimeNs ? atimeNs : mtimeNs;
}
