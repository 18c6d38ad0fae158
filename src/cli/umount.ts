/** `lustrite umount MNT`: returns when the daemon is gone and the store is free. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { UnmountReport } from '../base/control-api.js';
import { UserError } from '../base/errors.js';
import { lustriteMountAt, resolvedPath } from '../base/mount-table.js';
import { pathText } from '../base/path-text.js';
import { flockHolders, isRunning } from '../base/processes.js';
import { registeredMount, type RegisteredMount } from '../base/registry.js';
import { DaemonClient } from './client.js';
import { detachDead } from './dead-mount.js';
import { obstacles } from './holders.js';
import { counted, note, say, sayJson } from './output.js';
import { fateOf } from './stopped-job.js';
import { refuseWithoutRoot, targetAt } from './target.js';

/** A daemon that has unmounted closes its store; a commit under way may take that long. */
const goneWithinMs = 120_000;

export interface UmountOptions {
  readonly lazy?: boolean;
  readonly json?: boolean;
}

export async function umount(path: string, { lazy = false, json = false }: UmountOptions): Promise<void> {
  refuseWithoutRoot();
  const mountPoint = resolvedPath(path);
  const mount = registeredMount(mountPoint);
  if (mount === undefined) {
    removeDeadMount(mountPoint);
    if (json) sayJson({ mountPoint, dead: true });
    else say(`${mountPoint} unmounted; its daemon was gone already`);
    return;
  }
  if (!lazy) refuseWhileUsed(mountPoint);
  const report = await unmount(mount, lazy);
  if (report.lingering) {
    if (json) sayJson({ mountPoint, ...report });
    else {
      tellJob(report);
      tellDirty(mount, report);
    }
    note(
      `files are still open: the daemon (pid ${mount.pid}) serves them and ends when the last one is closed`,
    );
    return;
  }
  await untilGone(mount);
  if (json) sayJson({ mountPoint, ...report });
  else {
    say(`${mountPoint} unmounted`);
    tellJob(report);
    tellDirty(mount, report);
  }
}

/** What a daemon that died left behind. */
function removeDeadMount(mountPoint: string): void {
  if (lustriteMountAt(mountPoint) === undefined) {
    // Says what is wrong; or else it was mounted just now.
    targetAt(mountPoint);
    throw new UserError('Conflict', `${mountPoint} has just been mounted`);
  }
  detachDead(mountPoint);
}

function refuseWhileUsed(mountPoint: string): void {
  const found = obstacles(mountPoint);
  if (found.length > 0) throw busy(mountPoint, found);
}

function busy(mountPoint: string, found: readonly string[]): UserError {
  return new UserError(
    'Busy',
    [`${mountPoint} is in use (--lazy unmounts it all the same):`, ...found.map((one) => `  ${one}`)].join(
      '\n',
    ),
  );
}

async function unmount(mount: RegisteredMount, lazy: boolean): Promise<UnmountReport> {
  try {
    return await new DaemonClient(mount).post<UnmountReport>('/v1/umount', { lazy });
  } catch (error) {
    if (!(error instanceof UserError) || error.code !== 'Busy') throw error;
    // Somebody came in between, or hides in another mount namespace or container.
    const found = obstacles(mount.mountPoint);
    throw busy(mount.mountPoint, found.length > 0 ? found : ['a process that cannot be seen from here']);
  }
}

async function untilGone(mount: RegisteredMount): Promise<void> {
  const lock = join(mount.store, 'lock');
  const end = Date.now() + goneWithinMs;
  while (Date.now() < end) {
    // Threads may outlive what looks like a process.
    if (!isRunning(mount) && !flockHolders(lock).includes(mount.pid)) return;
    await delay(20);
  }
  throw new UserError(
    'Internal',
    `${mount.mountPoint} is unmounted, but its daemon (pid ${mount.pid}) does not end`,
  );
}

function tellJob({ stoppedJob, lingering }: UnmountReport): void {
  if (stoppedJob !== undefined && stoppedJob !== null) say(fateOf(stoppedJob, lingering));
}

function tellDirty(mount: RegisteredMount, { dirty }: UnmountReport): void {
  if (dirty.count === 0) return;
  say(
    `${counted(dirty.count, 'file')} ${dirty.count === 1 ? 'has' : 'have'} changes that the container does not have; they are kept in ${mount.store}:`,
  );
  for (const path of dirty.firstText ?? dirty.first.map(pathText)) say(`  ${path}`);
  const more = dirty.count - dirty.first.length;
  if (more > 0) say(`  … and ${more} more`);
}
