import { accessSync, constants, readFileSync } from 'node:fs';
import { run } from './run.js';

/** A line of /proc/self/mountinfo. */
export interface MountEntry {
  readonly mountPoint: string;
  readonly type: string;
  readonly device: string;
  readonly options: string;
}

/** What is mounted, in mount order. Touches no mount itself. */
export function mounts(): readonly MountEntry[] {
  return readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ');
      const [, , device = '', , mountPoint = '', options = ''] = before.split(' ');
      return { mountPoint: unescapeOctal(mountPoint), device, options, type: after.split(' ')[0] ?? '' };
    });
}

/** What the kernel escapes (blank, newline, backslash) and UTF-8, out of a line read as Latin-1. */
function unescapeOctal(text: string): string {
  const bytes = text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString();
}

/** The topmost mount at exactly this path. */
export function mountAt(path: string): MountEntry | undefined {
  return mounts().findLast((entry) => entry.mountPoint === path);
}

/** Takes away every mount at or below `path`, lazily; true when none is left. */
export async function detachAll(path: string): Promise<boolean> {
  const below = (): readonly MountEntry[] =>
    mounts().filter((entry) => entry.mountPoint === path || entry.mountPoint.startsWith(`${path}/`));
  for (const { mountPoint } of below().toReversed()) {
    await run('umount', ['--lazy', '--no-canonicalize', '--internal-only', mountPoint], {
      timeoutMs: 30_000,
    });
  }
  return below().length === 0;
}

/** Why a file system cannot be mounted here, for `{ skip: cannotMount }`; false where it can. */
export const cannotMount: string | false = (() => {
  if (process.getuid?.() !== 0) return 'mounting needs root';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return false;
  } catch {
    return 'there is no /dev/fuse';
  }
})();
