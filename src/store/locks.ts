/** Locks that end with the process that holds them. */
import type { Clock } from '../base/clock.js';
import { UserError } from '../base/errors.js';
import { mountingLockFile } from '../base/registry.js';
import type { Addon } from '../native/binding.js';

export interface Locked {
  unlock(): void;
}

/** A daemon that was killed a moment ago may still hold its locks, and a busy machine mounts slowly. */
const leavingForMs = 20_000;

/** One daemon at a time mounts: of two on the same mount point at the same moment, one finds the other's mount. */
export async function lockMounting(addon: Addon): Promise<Locked> {
  try {
    return await Promise.resolve(addon.lockFile(mountingLockFile()));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EWOULDBLOCK' && code !== 'EAGAIN') throw error;
    throw new UserError('Conflict', 'another lustrite is mounting; try again', { cause: error });
  }
}

/**
 * Retries what another daemon's lock refuses for as long as a killed one may take to be gone. `stays`: the one that has
 * it lives, so that waiting is in vain.
 */
export async function whileOthersLeave<T>(
  attempt: () => Promise<T>,
  {
    stays,
    clock,
    signal,
  }: { readonly stays: () => boolean; readonly clock: Clock; readonly signal: AbortSignal },
): Promise<T> {
  const end = clock.now() + leavingForMs;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      const held = error instanceof UserError && error.code === 'Conflict';
      if (!held || stays() || clock.now() >= end) throw error;
      await clock.sleep(50, signal);
    }
  }
}
