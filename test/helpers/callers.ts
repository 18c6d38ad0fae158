/** Who asks for something, as the front ends tell it. */
import type { Caller } from '../../src/store/inodes.js';

/** Somebody without capabilities. */
export function caller(uid: number, gid = uid, groups: readonly number[] = []): Caller {
  return { uid, gid, groups, pid: 1, capabilities: 0n };
}

/** Root with all of them. */
export const root: Caller = { ...caller(0), capabilities: 2n ** 41n - 1n };
