/** From a MNT argument to the daemon that serves it. */
import { isWithin, lustriteMountAt, resolvedPath } from '../base/mount-table.js';
import { UserError } from '../base/errors.js';
import { registeredMount, registeredMounts, type RegisteredMount } from '../base/registry.js';
import { DaemonClient } from './client.js';

export interface Target {
  readonly mount: RegisteredMount;
  readonly client: DaemonClient;
}

/** Throws a UserError that says what is wrong with MNT and what to do. */
export function targetAt(path: string): Target {
  const mountPoint = resolvedPath(path);
  const mount = registeredMount(mountPoint);
  if (mount !== undefined) return { mount, client: new DaemonClient(mount) };
  if (lustriteMountAt(mountPoint) !== undefined) {
    throw new UserError(
      'NotFound',
      `the daemon of ${mountPoint} is gone: mount it again, or remove the dead mount with lustrite umount ${mountPoint}`,
    );
  }
  const outer = registeredMounts().find((one) => isWithin(mountPoint, one.mountPoint));
  const advice =
    outer === undefined ? 'lustrite status lists what is' : `it is inside the mount ${outer.mountPoint}`;
  throw new UserError('NotFound', `lustrite has not mounted ${mountPoint}; ${advice}`);
}
