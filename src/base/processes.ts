/** Processes by id *and* start time, because ids are reused. */
import { readFileSync } from 'node:fs';

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
