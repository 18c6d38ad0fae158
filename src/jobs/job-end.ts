/** How the work of a job ends. */

/** A job cannot go on; the message is what its record says. */
export class JobFailure extends Error {
  override readonly name = 'JobFailure';
  /** ARM's errorCode. */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export type JobEnd<Result> =
  | { readonly kind: 'done'; readonly result: Result }
  | { readonly kind: 'failed'; readonly failure: JobFailure }
  /** Somebody asked for it. */
  | { readonly kind: 'canceled' }
  /** The daemon stopped. */
  | { readonly kind: 'stopped' };

/** Why a run was aborted. */
export const canceled = new JobFailure('Canceled', 'the job was canceled');
export const stopped = new JobFailure('Interrupted', 'the daemon was stopped while the job ran');
