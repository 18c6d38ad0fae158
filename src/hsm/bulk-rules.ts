/** What becomes of a file that a bulk verb meets, as pure tables. */
import type { FileState } from '../store/inodes.js';
import { HS_ARCHIVED, HS_DIRTY, HS_LOST, HS_NORELEASE, HS_RELEASED } from './flags.js';

/** Why a release leaves a file alone whose data is here. */
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

/**
 * Restores of one hydrate at a time: `wanted`, or as many as there may be, of those that the coordinator runs; some of
 * these are left to archives and removes, which come behind all restores that wait.
 */
export function hydratesAtOnce(maxRequests: number, wanted = Number.POSITIVE_INFINITY): number {
  return Math.max(1, Math.min(wanted, maxRequests - Math.ceil(maxRequests / 8)));
}

/** Milliseconds since the epoch. */
export interface UseLimits {
  /** What was used then or later stays. */
  readonly usedBefore?: number | undefined;
  /** When it was restored last, where that is known. */
  readonly restoredAt?: number | undefined;
}

/** As lustre-hsm 3.3. */
export function judgeRelease(file: Judged, { usedBefore, restoredAt }: UseLimits = {}): Verdict | undefined {
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
    if (usedBefore !== undefined && lastUsedNs(file, restoredAt) >= nanoseconds(usedBefore)) return 'recent';
    if (writers + readers > 0) return 'open';
    return undefined;
  }
}

/**
 * When a file was read, changed or restored last: relatime keeps the first no better than that a change is older, and of
 * the last no time of the file tells (lustre-hsm 3.7).
 */
export function lastUsedNs(
  { atimeNs, mtimeNs }: Pick<FileState, 'atimeNs' | 'mtimeNs'>,
  restoredAt?: number,
): bigint {
  const shown = atimeNs > mtimeNs ? atimeNs : mtimeNs;
  const restoredNs = restoredAt === undefined ? 0n : nanoseconds(restoredAt);
  return restoredNs > shown ? restoredNs : shown;
}

function nanoseconds(ms: number): bigint {
  return BigInt(Math.floor(ms)) * 1_000_000n;
}
