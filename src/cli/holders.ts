/** Which processes use a mount. Looks at links in /proc only, so a mount that hangs or is dead is no obstacle. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { isWithin, mountedFileSystems } from '../base/mount-table.js';
import { pathText } from '../base/path-text.js';

export interface Holder {
  readonly pid: number;
  readonly program: string;
  /** `open file`, `working directory`, … and the path. */
  readonly uses: string;
}

const links: readonly (readonly [string, string])[] = [
  ['cwd', 'working directory'],
  ['root', 'root directory'],
  ['exe', 'running program'],
];

/** Processes, besides this one, with a file, directory, program or mapping at or below `mountPoint`. */
export function holdersOf(mountPoint: string): readonly Holder[] {
  return entries('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((name) => {
      const uses = use(`/proc/${name}`, mountPoint);
      if (uses === undefined) return [];
      return [{ pid: Number(name), program: programOf(name), uses }];
    });
}

function use(process: string, mountPoint: string): string | undefined {
  const inside = (link: string): string | undefined => {
    const target = targetOf(link);
    return target !== undefined && isWithin(target, mountPoint) ? pathText(target) : undefined;
  };
  for (const [name, what] of links) {
    const path = inside(`${process}/${name}`);
    if (path !== undefined) return `${what} ${path}`;
  }
  for (const fd of entries(`${process}/fd`)) {
    const path = inside(`${process}/fd/${fd}`);
    if (path !== undefined) return `open file ${path}`;
  }
  for (const range of entries(`${process}/map_files`)) {
    const path = inside(`${process}/map_files/${range}`);
    if (path !== undefined) return `mapped file ${path}`;
  }
  return undefined;
}

function entries(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // the process ended meanwhile
  }
}

function targetOf(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined;
  }
}

function programOf(pid: string): string {
  try {
    return pathText(readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd());
  } catch {
    return '?';
  }
}

/** Why `mountPoint` cannot be unmounted, one line a reason; empty when nothing is in the way. */
export function obstacles(mountPoint: string): readonly string[] {
  const beneath = mountedFileSystems().filter(
    (other) => other.mountPoint !== mountPoint && isWithin(other.mountPoint, mountPoint),
  );
  return [
    ...holdersOf(mountPoint).map(({ pid, program, uses }) => `pid ${pid} (${program}): ${uses}`),
    ...beneath.map((other) => `a ${other.type} file system is mounted on ${pathText(other.mountPoint)}`),
  ];
}
