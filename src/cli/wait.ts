/** Follows what takes its time, a job or a bulk verb, to its end. */
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
  const followed = await follow(
    (signal) => client.watch(name, signal),
    jobLine,
    (job) => finalStates.includes(job.properties.status.state) || enough(job),
  );
  if (followed.kind === 'over') return followed.last;
  if (followed.kind === 'interrupted') {
    const kind = followed.last?.kind ?? 'import';
    note(`${name} goes on; lustrite ${kind} show ${mount.mountPoint} ${name} tells how it is doing`);
    throw new Exit(130);
  }
  throw new UserError(
    'Unreachable',
    `the daemon of ${mount.mountPoint} ended before ${name} did: mount it again to see what became of the job`,
  );
}

export type Followed<T> =
  | { readonly kind: 'over'; readonly last: T }
  /** Ctrl-C or SIGTERM. */
  | { readonly kind: 'interrupted'; readonly last: T | undefined }
  /** The daemon has gone. */
  | { readonly kind: 'cut'; readonly last: T | undefined };

/** Shows the progress of `values` on stderr until one of them is the last. */
export async function follow<T>(
  values: (signal: AbortSignal) => AsyncIterable<T>,
  line: (value: T) => string,
  isLast: (value: T) => boolean,
): Promise<Followed<T>> {
  const stop = new AbortController();
  const onSignal = (): void => {
    stop.abort();
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  const progress = new Progress();
  let last: T | undefined;
  try {
    for await (const value of values(stop.signal)) {
      last = value;
      progress.show(line(value), isLast(value));
      if (isLast(value)) return { kind: 'over', last: value };
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    progress.end();
    process.removeListener('SIGINT', onSignal);
    process.removeListener('SIGTERM', onSignal);
  }
  return { kind: stop.signal.aborted ? 'interrupted' : 'cut', last };
}

class Progress {
  readonly #terminal = process.stderr.isTTY;
  #lastPlain = Date.now();
  #written = false;

  show(line: string, final: boolean): void {
    if (this.#terminal) {
      process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns || 80) - 1)}`);
      this.#written = true;
    } else if (!final && Date.now() - this.#lastPlain >= plainEveryMs) {
      this.#lastPlain = Date.now();
      note(line);
    }
  }

  /** The result itself is printed by the command. */
  end(): void {
    if (this.#written) process.stderr.write('\r\x1b[K');
  }
}
