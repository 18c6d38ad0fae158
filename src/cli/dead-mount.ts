/** Mounts whose daemon died: every access answers ENOTCONN until somebody takes them away. */
import { execFileSync } from 'node:child_process';
import { statfs } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { messageChain, UserError } from '../base/errors.js';
import { lustriteMountAt } from '../base/mount-table.js';

/** The kernel ends the connection of a killed daemon once its last thread is gone. */
const answerWithinMs = 20_000;

/** Takes away what is mounted at `mountPoint` without asking the file system behind it. */
export function detachDead(mountPoint: string): void {
  try {
    execFileSync('umount', ['--lazy', '--no-canonicalize', '--internal-only', mountPoint], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  } catch (error) {
    throw new UserError('Internal', `cannot remove the dead mount ${mountPoint}: ${messageChain(error)}`);
  }
}

/** Whether the file system at `mountPoint` has no daemon behind it any more. One that hangs counts as alive. */
export async function isDead(mountPoint: string): Promise<boolean> {
  const answer = await Promise.race([
    statfs(mountPoint).then(
      () => 'alive',
      (error: unknown) => (error as NodeJS.ErrnoException).code ?? 'alive',
    ),
    delay(answerWithinMs, 'silent', { ref: false }),
  ]);
  return answer === 'ENOTCONN' || answer === 'ECONNABORTED';
}

/**
 * Removes dead lustrite mounts from `mountPoint`; true when there was one. Throws a UserError when the one there is
 * alive, though no daemon is registered for it.
 */
export async function healMountPoint(mountPoint: string): Promise<boolean> {
  let healed = false;
  while (lustriteMountAt(mountPoint) !== undefined) {
    if (!(await isDead(mountPoint))) {
      throw new UserError(
        'Conflict',
        `${mountPoint} is mounted already, by a lustrite that this host does not list`,
      );
    }
    detachDead(mountPoint);
    healed = true;
  }
  return healed;
}
