/** Takes away what the container has no more, as far as the mode lets it. */
import { constants } from 'node:os';
import { messageChain } from '../../base/errors.js';
import { pathOfBlob } from '../../blob/names.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import { HS_LOST, HS_RELEASED } from '../../hsm/flags.js';
import { errnoOf } from '../../hsm/movers.js';
import type { Fid, FileState, NativeStore } from '../../store/inodes.js';
import type { ConflictMode } from '../import/conflict-mode.js';
import { deletedOf, deletionActions } from './deletion.js';
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
  /** Counts an error, and throws when that is one too many. */
  readonly onError: (blob: string, error: unknown) => void;
}

interface Planned {
  readonly blob: string;
  readonly path: string;
  readonly state: FileState;
}

/** Paths and what is there, to be deleted. */
export type Plan = Readonly<Record<string, Fid>>;

export class Deletions {
  readonly #options: DeletionOptions;

  constructor(options: DeletionOptions) {
    this.#options = options;
  }

  /**
   * What is to go now that these blobs are gone, children first. `begun`: the same was planned before a crash; what has
   * come to a path since then is somebody's and stays, what is gone was deleted.
   */
  async plan(blobs: readonly string[], begun: Plan): Promise<readonly Planned[]> {
    const { native, counters } = this.#options;
    const named = blobs.flatMap((blob) => {
      const name = pathOfBlob(blob, 0);
      return 'refused' in name ? [] : [{ blob, path: name.path }];
    });
    // Whatever lies below a directory sorts behind it.
    named.sort((a, b) => (a.path < b.path ? 1 : -1));
    const states = await native.lookup(named.map(({ path }) => path));
    for (const [at, { blob }] of named.entries()) await this.#saveOthers(blob, states[at]?.fid);
    return named.flatMap(({ blob, path }, at) => {
      const state = states[at];
      const before = begun[path];
      if (before !== undefined && state?.fid !== before) {
        counters.deletions++;
        return [];
      }
      return state === undefined ? [] : [{ blob, path, state }];
    });
  }

  /** Deletes what was planned. Resolves with the blobs whose files are in use: to be tried again. */
  async run(planned: readonly Planned[]): Promise<readonly string[]> {
    const { mode, enableDeletions, log } = this.#options;
    const busy: string[] = [];
    for (const { blob, path, state } of planned) {
      const what = deletedOf(state, blob);
      if (what === undefined) continue;
      const action = enableDeletions ? deletionActions[what][mode] : 'disabled';
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
            if (!(await this.#delete(blob, path, state, action === 'delete-unused'))) busy.push(blob);
        }
        await log.drained();
      } catch (error) {
        if (error instanceof JobFailure) throw error;
        this.#options.onError(blob, error);
      }
    }
    await log.written();
    return busy;
  }

  /** A renamed file whose copy was this blob has the only data there is now: it is modified, whatever becomes of the path. */
  async #saveOthers(blob: string, owner: Fid | undefined): Promise<void> {
    await this.#options.coordinator.withBlob(blob, owner, () => Promise.resolve());
  }

  /** False: somebody has it open. */
  async #delete(blob: string, path: string, state: FileState, onlyClean: boolean): Promise<boolean> {
    const { native, counters, log } = this.#options;
    if (state.type === 'directory') {
      // With what lies below it: a directory is there as long as its children are.
      if (await this.#removed(path, state.fid)) {
        counters.deletions++;
        log.add({ level: 'info', blob, path, code: 'Delete', message: 'its blob is gone' });
      }
      return true;
    }
    // First: what a crash right behind it leaves says nothing of what was deleted.
    log.add({ level: 'info', blob, path, code: 'Delete', message: 'its blob is gone' });
    await log.written();
    try {
      await native.remove(path, state.fid, { onlyClean });
      counters.deletions++;
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

  /** False: it is not empty, or gone already. */
  async #removed(path: string, fid: Fid): Promise<boolean> {
    try {
      await this.#options.native.remove(path, fid);
      return true;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === ENOTEMPTY || errno === ENOENT || errno === ESTALE) return false;
      throw error;
    }
  }

  /** The data that is here is the only there is: never released (lustre-hsm 3.3). */
  async #lost(blob: string, { fid, flags, type }: FileState): Promise<void> {
    if (type !== 'file' || (flags & HS_RELEASED) !== 0) return;
    await this.#options.native.changeFlags(fid, HS_LOST, 0, 0).catch((error: unknown) => {
      this.#options.log.add({ level: 'warn', blob, code: 'Lost', message: messageChain(error) });
    });
  }
}
