/** From a MNT argument to the daemon that serves it. */
import { isWithin, lustriteMountAt, lustriteMounts, resolvedPath } from '../base/mount-table.js';
import { UserError } from '../base/errors.js';
import {
  lingeringDaemons,
  registeredMount,
  registeredMounts,
  registryIsClosed,
  type RegisteredMount,
} from '../base/registry.js';
import { DaemonClient } from './client.js';

export interface Target {
  readonly mount: RegisteredMount;
  readonly client: DaemonClient;
}

/** Throws where another user than root would take mounts for dead or absent, because he cannot see their daemons. */
export function refuseWithoutRoot(): void {
  if (process.geteuid?.() === 0 || !(registryIsClosed() || lustriteMounts().length > 0)) return;
  throw new UserError(
    'Forbidden',
    'only root may ask and command what is mounted: run it again with sudo (the mounts themselves are not affected)',
  );
}

/** Throws a UserError that says what is wrong with MNT and what to do. */
export function targetAt(path: string): Target {
  refuseWithoutRoot();
  const mountPoint = resolvedPath(path);
  const mount = registeredMount(mountPoint);
  if (mount !== undefined) return { mount, client: new DaemonClient(mount) };
  if (lustriteMountAt(mountPoint) !== undefined) {
    throw new UserError('NotFound', deadText(mountPoint));
  }
  const lingering = lingeringDaemons().find((one) => one.mountPoint === mountPoint);
  if (lingering !== undefined) throw new UserError('NotFound', lingeringText(lingering));
  const outer = registeredMounts().find((one) => isWithin(mountPoint, one.mountPoint));
  const advice =
    outer === undefined ? 'lustrite status lists what is' : `it is inside the mount ${outer.mountPoint}`;
  throw new UserError('NotFound', `lustrite has not mounted ${mountPoint}; ${advice}`);
}

export function deadText(mountPoint: string): string {
  return `the daemon of ${mountPoint} is gone: mount it again, or remove the dead mount with lustrite umount ${mountPoint}`;
}

export function lingeringText({ mountPoint, pid }: RegisteredMount): string {
  return `${mountPoint} was unmounted lazily: its daemon (pid ${pid}) serves the files that are still open and ends when the last one is closed; kill ${pid} ends it at once`;
}
