/** The kernel's mount table, and mount points as it spells them. Nothing here touches a mounted file system. */
import { readFileSync, readlinkSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

export interface MountedFileSystem {
  readonly mountPoint: string;
  /** `fuse.lustrite`, `ext4`, … */
  readonly type: string;
  readonly source: string;
}

/** What both front ends mount as. */
const ourType = 'fuse.lustrite';

function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** The lines of /proc/self/mountinfo (proc(5)); the last one of a mount point is the one that is seen. */
export function parseMountInfo(text: string): readonly MountedFileSystem[] {
  return text.split('\n').flatMap((line) => {
    const [left, right] = line.split(' - ');
    const mountPoint = left?.split(' ')[4];
    const [type, source] = right?.split(' ') ?? [];
    if (mountPoint === undefined || type === undefined || source === undefined) return [];
    return [{ mountPoint: fromBytes(unescape(mountPoint)), type, source: fromBytes(unescape(source)) }];
  });
}

/** mountinfo is read as Latin-1, since escapes are bytes of what is UTF-8 in the end. */
function fromBytes(latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString('utf8');
}

export function mountedFileSystems(): readonly MountedFileSystem[] {
  return parseMountInfo(readFileSync('/proc/self/mountinfo', 'latin1'));
}

/** Every lustrite mount that is seen: the topmost of each mount point, in mount order. */
export function lustriteMounts(): readonly MountedFileSystem[] {
  const all = mountedFileSystems();
  return all.filter(
    (one, at) =>
      one.type === ourType && !all.slice(at + 1).some(({ mountPoint }) => mountPoint === one.mountPoint),
  );
}

/** The lustrite mount that `path`, a resolved path, is the root of. */
export function lustriteMountAt(path: string): MountedFileSystem | undefined {
  const top = mountedFileSystems().findLast(({ mountPoint }) => mountPoint === path);
  return top?.type === ourType ? top : undefined;
}

/**
 * Absolute and free of symlinks as far as it exists. By readlink alone: stat of a mount point would ask the file system
 * that is mounted there, which may be dead or blocked.
 */
export function resolvedPath(path: string): string {
  let rest = resolve(path).split('/').filter(Boolean);
  let at = '/';
  for (let links = 0; rest.length > 0;) {
    const next = join(at, rest[0] ?? '');
    rest = rest.slice(1);
    const target = linkTarget(next);
    if (target === undefined || ++links > 40) {
      at = next;
      continue;
    }
    rest = [...resolve(dirname(next), target).split('/').filter(Boolean), ...rest];
    at = '/';
  }
  return at;
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Whether `inner` is `outer` or beneath it; both resolved. */
export function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`);
}
