/** Whom a process runs as. */
import { readFile, readlink } from 'node:fs/promises';
import type { Caller } from '../store/inodes.js';

/** File system uid, gid, groups and capabilities of a process; rejects when it is gone, or may not be looked at. */
export async function callerOf(pid: number): Promise<Caller> {
  const [status, theirs, ours] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'latin1'),
    readlink(`/proc/${pid}/ns/user`).catch((error: unknown) => (error as NodeJS.ErrnoException).code),
    readlink('/proc/self/ns/user'),
  ]);
  const words = (name: string): readonly string[] =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]?.trim().split(/\s+/).filter(Boolean) ?? [];
  const numbers = (name: string): readonly number[] => words(name).map(Number);
  // proc(5): real, effective, saved, file system.
  const [uid, gid] = [numbers('Uid')[3], numbers('Gid')[3]];
  if (uid === undefined || gid === undefined) throw new Error(`no ids in /proc/${pid}/status`);
  const effective = BigInt(`0x${words('CapEff')[0] ?? '0'}`);
  // A daemon with fewer capabilities than its caller may not look.
  const closed = theirs === 'EACCES' || theirs === 'EPERM';
  // Anybody has all of them in a user namespace that he makes.
  const capabilities = theirs === ours || (closed && uid === 0) ? effective : 0n;
  return { uid, gid, groups: numbers('Groups'), pid, capabilities };
}
