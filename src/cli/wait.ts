/** `--wait`: follows a job to its end. */
import { finalStates, type JobView } from '../base/control-api.js';
import { UserError } from '../base/errors.js';
import { Exit } from './failure.js';
import { jobLine } from './job-text.js';
import { note } from './output.js';
import type { Target } from './target.js';

/** Between two plain progress lines where nobody watches a terminal. */
const plainEveryMs = 10_000;

/**
 * The job once it is final, or as soon as `enough` says so. Ctrl-C leaves it running, says so and exits with 130. Progress goes to stderr: one line
 * rewritten on a terminal, else a line now and then.
 */
export async function untilFinal(
  { client, mount }: Target,
  name: string,
  enough: (job: JobView) => boolean = () => false,
): Promise<JobView> {
  const stop = new AbortController();
  const onSignal = (): void => {
    stop.abort();
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  const progress = new Progress();
  let last: JobView | undefined;
  try {
    for await (const job of client.watch(name, stop.signal)) {
      last = job;
      progress.show(job);
      if (finalStates.includes(job.properties.status.state) || enough(job)) return job;
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    progress.end();
    process.removeListener('SIGINT', onSignal);
    process.removeListener('SIGTERM', onSignal);
  }
  if (stop.signal.aborted) {
    const kind = last?.kind ?? 'import';
    note(`${name} goes on; lustrite ${kind} show ${mount.mountPoint} ${name} tells how it is doing`);
    throw new Exit(130);
  }
  throw new UserError(
    'Unreachable',
    `the daemon of ${mount.mountPoint} ended before ${name} did: mount it again to see what became of the job`,
  );
}

class Progress {
  readonly #terminal = process.stderr.isTTY;
  #lastPlain = Date.now();
  #written = false;

  show(job: JobView): void {
    const final = finalStates.includes(job.properties.status.state);
    if (this.#terminal) {
      process.stderr.write(`\r\x1b[K${jobLine(job).slice(0, (process.stderr.columns || 80) - 1)}`);
      this.#written = true;
    } else if (!final && Date.now() - this.#lastPlain >= plainEveryMs) {
      this.#lastPlain = Date.now();
      note(jobLine(job));
    }
  }

  /** The result itself is printed by the command. */
  end(): void {
    if (this.#written) process.stderr.write('\r\x1b[K');
  }
}
