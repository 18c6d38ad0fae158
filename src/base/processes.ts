/** Processes by id *and* start time, because ids are reused. */
import { readFileSync, statSync } from 'node:fs';

/** Clock ticks after boot at which process `pid` started (proc(5), stat field 22); undefined when it is gone or a zombie. */
export function startTimeOf(pid: number): string | undefined {
  try {
    // The program's name may hold anything, so fields are counted behind its closing parenthesis.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\)\s/s, '')
      .split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Whether the process that had this id and start time still runs. */
export function isRunning(process: { readonly pid: number; readonly startTime: string }): boolean {
  return startTimeOf(process.pid) === process.startTime;
}

/** The processes that /proc/locks shows with a flock on `file`; also one that is about to end. */
export function flockHolders(file: string): readonly number[] {
  try {
    const inode = String(statSync(file).ino);
    return readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .flatMap((line) => {
        // `1: FLOCK ADVISORY WRITE 4711 08:01:123456 0 EOF`; whoever only waits has `->` after the colon.
        const [, type, , , pid, locked] = line.split(/\s+/);
        return type === 'FLOCK' && locked?.split(':').at(-1) === inode ? [Number(pid)] : [];
      });
  } catch {
    return [];
  }
}
