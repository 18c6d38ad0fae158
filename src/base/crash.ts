/**
 * Places where a test may end the daemon as a power cut would: `LUSTRITE_CRASH=name` or `name:n` (the n-th time), or
 * the absolute path of a file that says the same, as soon as it exists, of a daemon that runs already.
 * The counterpart of native/store/crash_points.def; the two share the variable and differ in their names.
 */
import { readFileSync, writeSync } from 'node:fs';

/** Every crash point of the TypeScript side and what has just become true there. */
export const CRASH_POINTS = {
  'meta.written': 'meta.json is on disk, the namespace is not open yet',
  'request.journaled': 'an explicit HSM request is durable, nothing has happened for it',
  'restore.downloaded': 'all bytes of a file are in its inode, RELEASED is still set',
  'archive.staged': 'all blocks are staged, the blob is the old one',
  'archive.linked': 'one of the blobs of a file with several names is committed, not all of them',
  'archive.uploaded': 'the blob is committed, the record does not know it',
  'remove.marked': 'the file counts as in no copy, its blob is still there',
  'remove.deleted': 'the blob is gone, the record still names it',
  'owner.restored': 'another holder of a blob name has its data back and is still clean',
  'export.file': 'an export job has exported a file and not counted it',
  'export.directory': 'an export job has written a directory stub',
  'import.batch': 'a batch of stubs is in the namespace, the job record does not count it',
  'auto-import.scanned': 'the full sync of an auto-import is over, the record does not know it',
  'auto-import.planned': 'the deletions of a batch are written down, none has happened',
  'auto-import.deleted': 'a file is deleted after its blob, and not counted',
  'auto-import.applied': 'a batch of changes is in the namespace, the cursor is before it',
  'job.created': 'the record of a new job is durable, the job has not started',
  'job.log-written': 'the log is in the logging container, the record is not final',
} as const;

export type CrashPointName = keyof typeof CRASH_POINTS;

const chosen = process.env['LUSTRITE_CRASH'] ?? '';
const inFile = chosen.startsWith('/');
let passages = 0;

/** Ends the process by SIGKILL when LUSTRITE_CRASH asks for this point; otherwise costs a comparison. */
export function crashPoint(name: CrashPointName): void {
  const [target, count = '1'] = (inFile ? textOf(chosen) : chosen).split(':');
  if (name !== target || ++passages < Number(count)) return;
  writeSync(2, `crash point ${name}\n`);
  process.kill(process.pid, 'SIGKILL');
  // The signal is ours and is delivered before kill() returns; nothing below may ever run.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

/** The text of the file, or nothing while there is none. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
