/** What `umount` says of the job that ran. */
import type { JobView } from '../base/control-api.js';

const goesOn: Readonly<Record<string, string>> = {
  import: 'the next mount begins it again, and keeps what is there',
  export: 'what it has not copied stays changed: create another export after the next mount',
  'auto-import': 'the next mount goes on with it',
  'auto-export': 'the next mount goes on with it',
};

/**
 * A line that says what becomes of it and what is to be done, by its state when the unmount came; `lingering`: the daemon
 * ends when the last file is closed. What the next daemon does is the `resume` and `interrupted` of each kind of job.
 */
export function fateOf({ kind, name, properties }: JobView, lingering: boolean): string {
  const { state } = properties.status;
  if (kind === 'auto-export' && state === 'Disabling') {
    const stops = lingering
      ? 'is being disabled, and its last iteration is stopped when the daemon ends'
      : 'was being disabled, and its last iteration was stopped';
    const rest = 'what that has not copied stays changed: create an export after the next mount';
    return `${kind} ${name} ${stops}; ${rest}, which shows this job as DisableFailed`;
  }
  if (state === 'Cancelling' || state === 'Disabling') {
    const asked = state === 'Disabling' ? 'disabled' : 'canceled';
    return `${kind} ${name} was being ${asked}; the next mount does not go on with it`;
  }
  const stops = lingering ? 'goes on until the daemon ends, and is stopped then' : 'was stopped';
  return `${kind} ${name} ${stops}; ${goesOn[kind] ?? ''}`;
}
