/** Whom a process runs as. */
import { readFile } from 'node:fs/promises';
import type { Caller } from '../store/inodes.js';

/** File system uid, gid and groups of a process; rejects when it is gone. */
export async function callerOf(pid: number): Promise<Caller> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1');
  const numbers = (name: string): readonly number[] =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm')
      .exec(status)?.[1]
      ?.trim()
      .split(/\s+/)
      .filter(Boolean)
      .map(Number) ?? [];
  // proc(5): real, effective, saved, file system.
  const [uid, gid] = [numbers('Uid')[3], numbers('Gid')[3]];
  if (uid === undefined || gid === undefined) throw new Error(`no ids in /proc/${pid}/status`);
  return { uid, gid, groups: numbers('Groups'), pid };
}
