/** Directories and files that only their owner may touch. */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { messageChain, UserError } from './errors.js';

/**
 * Creates `path` 0700, or makes sure that it is a directory of ours that nobody else may write to. Returns the topmost
 * directory that had to be made.
 */
export function ensurePrivateDirectory(path: string, what: string): string | undefined {
  try {
    const made = mkdirSync(path, { recursive: true, mode: 0o700 });
    const stat = lstatSync(path);
    if (!stat.isDirectory()) throw new UserError('InvalidParameter', `${what} ${path} is not a directory`);
    if (stat.uid !== process.geteuid?.()) {
      throw new UserError('InvalidParameter', `${what} ${path} belongs to uid ${stat.uid}, not to you`);
    }
    if ((stat.mode & 0o022) !== 0) {
      throw new UserError('InvalidParameter', `others may write to ${what} ${path}: chmod 700 ${path}`);
    }
    return made;
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError('InvalidParameter', `cannot use ${what} ${path}: ${messageChain(error)}`);
  }
}

/** Takes away `path` and what is above it up to `made`, as far as they hold nothing; `files` in `path` go, too. */
export function removeMade(path: string, made: string, files: readonly string[]): void {
  try {
    if (readdirSync(path).some((name) => !files.includes(name))) return;
    for (const name of files) rmSync(join(path, name), { force: true });
    for (let at = path; at.length >= made.length; at = dirname(at)) rmdirSync(at);
  } catch {
    // Somebody else uses it already.
  }
}

/** An fd to append to a regular file of ours, created 0600; a symlink in its place is refused. */
export function openPrivateLog(path: string): number {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  try {
    const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    const stat = fstatSync(fd);
    if (stat.isFile() && stat.nlink === 1) return fd;
    closeSync(fd);
    throw new UserError('InvalidParameter', `${path} is not a regular file`);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError('InvalidParameter', `cannot write the log ${path}: ${messageChain(error)}`);
  }
}
