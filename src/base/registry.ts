/** Which mounts there are on this host: one small file each in /run/lustrite, believed only while its daemon runs. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isRunning, startTimeOf } from './processes.js';

export interface RegisteredMount {
  readonly mountPoint: string;
  readonly store: string;
  readonly socket: string;
  readonly container: string;
  readonly pid: number;
  /** Of `pid`: ids are reused. */
  readonly startTime: string;
  /** Unmounted lazily: the daemon has the store until the last open file is closed, and its mount point is free. */
  readonly lingering?: boolean;
}

const directory = '/run/lustrite';

/** The pid is in the name, so that who removes a dead daemon's file never removes its successor's. */
function ownFile(mountPoint: string): string {
  const id = createHash('sha256').update(mountPoint).digest('hex').slice(0, 16);
  return join(directory, `${id}.${process.pid}.json`);
}

const names = ['mountPoint', 'store', 'socket', 'container', 'startTime'] as const;

function parse(text: string): RegisteredMount | undefined {
  try {
    const value = JSON.parse(text) as Readonly<Record<string, unknown>>;
    const valid = names.every((name) => typeof value[name] === 'string') && Number.isInteger(value['pid']);
    return valid ? (value as unknown as RegisteredMount) : undefined;
  } catch {
    return undefined;
  }
}

/** A file to flock from looking whether a mount point is free until its mount is registered; it exists when this returns. */
export function mountingLockFile(): string {
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const file = join(directory, 'lock');
  closeSync(openSync(file, 'a', 0o600));
  return file;
}

/** Registers a mount of this process. */
export function register(mount: Omit<RegisteredMount, 'pid' | 'startTime'>): void {
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const file = ownFile(mount.mountPoint);
  const entry: RegisteredMount = { ...mount, pid: process.pid, startTime: startTimeOf(process.pid) ?? '' };
  const temporary = `${file}.new`;
  writeFileSync(temporary, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
  renameSync(temporary, file);
}

/** Forgets this process's mount. */
export function unregister(mountPoint: string): void {
  rmSync(ownFile(mountPoint), { force: true });
}

function read(file: string): RegisteredMount | 'closed' | undefined {
  try {
    return parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'EACCES' || code === 'EPERM' ? 'closed' : undefined;
  }
}

function entries(): readonly string[] {
  try {
    return readdirSync(directory).filter((name) => name.endsWith('.json'));
  } catch {
    return [];
  }
}

/** Whether mounts are on record that this user may not read: what registeredMounts() leaves out then is not gone. */
export function registryIsClosed(): boolean {
  return entries().some((name) => read(join(directory, name)) === 'closed');
}

/** All daemons that run, as far as we may read; what dead ones left is removed. */
function registered(): readonly RegisteredMount[] {
  return entries().flatMap((name) => {
    const file = join(directory, name);
    const mount = read(file);
    if (mount === 'closed') return [];
    if (mount !== undefined && isRunning(mount)) return [mount];
    try {
      rmSync(file, { force: true });
    } catch {
      // Not ours to remove; it is ignored all the same.
    }
    return [];
  });
}

/** All mounts whose daemons run, as far as we may read. */
export function registeredMounts(): readonly RegisteredMount[] {
  return registered().filter(({ lingering }) => lingering !== true);
}

/** Daemons that serve files of a mount that was taken away lazily. */
export function lingeringDaemons(): readonly RegisteredMount[] {
  return registered().filter(({ lingering }) => lingering === true);
}

export function registeredMount(mountPoint: string): RegisteredMount | undefined {
  return registeredMounts().find((mount) => mount.mountPoint === mountPoint);
}
