/** A job log for work that is done again and again: what fails each time in the same way is said once. */
import type { JobLog, JobLogLine } from './job-log.js';

/** More than these are said again. */
const maxRemembered = 10_000;

export class RepeatedLines implements Pick<JobLog, 'add' | 'drained'> {
  readonly #log: Pick<JobLog, 'add' | 'drained'>;
  #last = new Set<string>();
  #now = new Set<string>();

  constructor(log: Pick<JobLog, 'add' | 'drained'>) {
    this.#log = log;
  }

  add(line: JobLogLine): void {
    const key = `${line.code}\0${line.path ?? ''}\0${line.message}`;
    if (!this.#last.has(key) && !this.#now.has(key)) this.#log.add(line);
    if (this.#now.size < maxRemembered) this.#now.add(key);
  }

  drained(): Promise<void> {
    return this.#log.drained();
  }

  endIteration(): void {
    this.#last = this.#now;
    this.#now = new Set();
  }
}
