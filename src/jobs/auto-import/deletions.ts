/** Takes away what the container has no more, as far as the mode lets it. */
import { constants } from 'node:os';
import { crashPoint } from '../../base/crash.js';
import { messageChain } from '../../base/errors.js';
import { pathOfBlob } from '../../blob/names.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import { HS_LOST, HS_RELEASED } from '../../hsm/flags.js';
import { errnoOf, hasErrno } from '../../hsm/movers.js';
import type { Fid, FileState, NativeStore } from '../../store/inodes.js';
import type { ConflictMode } from '../import/conflict-mode.js';
import { deletedOf, deletionActions, type Deleted, type DeletionAction } from './deletion.js';
import { JobFailure } from '../job-end.js';
import type { JobLog } from '../job-log.js';

const { EBUSY, ENOENT, ENOTEMPTY, ESTALE, ETXTBSY } = constants.errno;

export interface DeletionOptions {
  readonly native: NativeStore;
  readonly coordinator: Pick<Coordinator, 'withBlob'>;
  readonly mode: ConflictMode;
  readonly enableDeletions: boolean;
  readonly log: Pick<JobLog, 'add' | 'drained' | 'written'>;
  readonly counters: { deletions: number; totalConflicts: number };
  /** Takes the blobs whose deletions have to be followed later. */
  readonly onBusy: (blob: string, why: string) => void;
  /** Takes a directory whose blob is gone and in which something is left. */
  readonly onLeft: (path: string, fid: Fid) => void;
  /** Counts an error, and throws when that is one too many. */
  readonly onError: (blob: string, error: unknown) => void;
}

export interface PlannedDeletion {
  readonly blob: string;
  readonly path: string;
  readonly state: FileState;
  readonly what: Deleted;
  readonly action: DeletionAction | 'disabled';
}

/** Path -> what is there, to be deleted. */
export type DeletionPlan = Readonly<Record<string, Fid>>;

/** What of the plan is going to be deleted, as `plan` wants it after a crash. */
export function begunDeletions(planned: readonly PlannedDeletion[]): DeletionPlan {
  const deleted = planned.filter(({ action }) => action === 'delete' || action === 'delete-unused');
  return Object.fromEntries(deleted.map(({ path, state }) => [path, state.fid]));
}

export class Deletions {
  readonly #options: DeletionOptions;

  constructor(options: DeletionOptions) {
    this.#options = options;
  }

  /**
   * What is to become of the paths now that these blobs are gone, children first. `begun`: what was to be deleted when a
   * daemon died at it; what has come to a path since then is somebody's and stays, what is gone was deleted.
   */
  async plan(blobs: readonly string[], begun: DeletionPlan): Promise<readonly PlannedDeletion[]> {
    const { native, mode, enableDeletions, counters, onBusy } = this.#options;
    const named = blobs.flatMap((blob) => {
      const name = pathOfBlob(blob, 0);
      return 'refused' in name ? [] : [{ blob, path: name.path }];
    });
    // Whatever lies below a directory sorts behind it.
    named.sort((a, b) => (a.path < b.path ? 1 : -1));
    const states = await native.lookup(named.map(({ path }) => path));
    const planned: PlannedDeletion[] = [];
    for (const [at, { blob, path }] of named.entries()) {
      const state = states[at];
      try {
        await this.#saveOthers(blob, state);
      } catch (error) {
        this.#options.onError(blob, error);
        onBusy(blob, 'a file that came from it cannot be saved now');
        continue;
      }
      const before = begun[path];
      if (before !== undefined && state?.fid !== before) {
        counters.deletions++;
        continue;
      }
      const what = state === undefined ? undefined : deletedOf(state, blob);
      if (state === undefined || what === undefined) continue;
      const action = enableDeletions ? deletionActions[what][mode] : 'disabled';
      planned.push({ blob, path, state, what, action });
    }
    return planned;
  }

  /** Does what was planned. */
  async run(planned: readonly PlannedDeletion[]): Promise<void> {
    const { log, onBusy } = this.#options;
    for (const one of planned) {
      const { blob, path, state, what, action } = one;
      try {
        switch (action) {
          case 'disabled':
            if (what === 'unmodified') await this.#lost(blob, state);
            log.add({
              level: 'info',
              blob,
              path,
              code: 'Deleted',
              message: 'its blob is gone; deletions are not enabled',
            });
            break;
          case 'keep':
          case 'fail':
            this.#conflict(blob, path, action);
            break;
          case 'delete':
          case 'delete-unused':
            if (!(await this.#delete(one))) onBusy(blob, 'its blob is gone, and it is in use');
        }
        await log.drained();
      } catch (error) {
        if (error instanceof JobFailure) throw error;
        this.#options.onError(blob, error);
      }
    }
    await log.written();
  }

  /** A renamed file whose copy was this blob has the only data there is now: it is modified, whatever becomes of the path. */
  async #saveOthers(blob: string, there: FileState | undefined): Promise<void> {
    // Under another name it stays.
    const owner = there !== undefined && there.nlink > 1 ? undefined : there?.fid;
    await this.#options.coordinator.withBlob(blob, owner, () => Promise.resolve());
  }

  /** False: somebody has it open. */
  async #delete({ blob, path, state, action }: PlannedDeletion): Promise<boolean> {
    const { native, counters, log, onLeft } = this.#options;
    if (state.type === 'directory') {
      if (!(await this.directory(path, state.fid))) onLeft(path, state.fid);
      return true;
    }
    // First: what a crash right behind it leaves says nothing of what was deleted.
    log.add({ level: 'info', blob, path, code: 'Delete', message: 'its blob is gone' });
    await log.written();
    try {
      await native.remove(path, state.fid, { onlyClean: action === 'delete-unused' });
      counters.deletions++;
      crashPoint('auto-import.deleted');
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === EBUSY || errno === ETXTBSY) return false;
      if (errno === ESTALE) return this.#changed(blob, path);
      if (errno !== ENOENT) throw error;
    }
    return true;
  }

  /** Changed or replaced since it was looked at: judged again by what is there now. */
  async #changed(blob: string, path: string): Promise<boolean> {
    const [state] = await this.#options.native.lookup([path]);
    if (state === undefined) return true;
    this.#conflict(blob, path, this.#options.mode === 'Fail' ? 'fail' : 'keep');
    return true;
  }

  #conflict(blob: string, path: string, action: 'keep' | 'fail'): void {
    const { counters, log } = this.#options;
    const message = 'its blob was deleted, and the file here is new or changed';
    counters.totalConflicts++;
    log.add({
      level: action === 'fail' ? 'error' : 'warn',
      blob,
      path,
      code: 'Conflict',
      message: `${message}: it stays`,
    });
    if (action === 'fail') throw new JobFailure('Conflict', `the blob '${blob}' is in conflict: ${message}`);
  }

  /** Deletes a directory whose blob is gone; false: something is in it. */
  async directory(path: string, fid: Fid): Promise<boolean> {
    const { native, counters, log } = this.#options;
    try {
      await native.remove(path, fid);
      counters.deletions++;
      log.add({ level: 'info', path, code: 'Delete', message: 'its blob is gone' });
    } catch (error) {
      if (hasErrno(error, ENOTEMPTY)) return false;
      if (!hasErrno(error, ENOENT, ESTALE)) throw error;
    }
    return true;
  }

  /** The data that is here is the only there is: never released (lustre-hsm 3.3). */
  async #lost(blob: string, { fid, flags, type }: FileState): Promise<void> {
    if (type !== 'file' || (flags & HS_RELEASED) !== 0) return;
    await this.#options.native.changeFlags(fid, HS_LOST, 0, 0).catch((error: unknown) => {
      this.#options.log.add({ level: 'warn', blob, code: 'Lost', message: messageChain(error) });
    });
  }
}
