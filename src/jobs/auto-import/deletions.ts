/** Takes away what the container has no more, as far as the mode lets it. */
import { constants } from 'node:os';
import { crashPoint } from '../../base/crash.js';
import { isOutage, messageChain } from '../../base/errors.js';
import { pathOfBlob } from '../../blob/names.js';
import type { Container } from '../../blob/port.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import { HS_LOST, HS_RELEASED } from '../../hsm/flags.js';
import { errnoOf, hasErrno } from '../../hsm/movers.js';
import type { Fid, FileState, NativeStore } from '../../store/inodes.js';
import { keepOtherNames } from '../import/conflict-resolution.js';
import type { ConflictMode } from '../import/conflict-mode.js';
import type { Later } from '../import/later.js';
import { deletedOf, deletes, deletionActions, type Deleted, type DeletionAction } from './deletion.js';
import { JobFailure } from '../job-end.js';
import type { JobLog, JobLogLine } from '../job-log.js';
import { Parallel } from '../parallel.js';

/** Deletions that one write of the log precedes. */
const groupSize = 256;
const parallelDeletions = 16;

const { EBUSY, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, ESTALE, ETXTBSY } = constants.errno;

export interface DeletionOptions {
  readonly native: NativeStore;
  readonly container: Pick<Container, 'properties'>;
  readonly coordinator: Pick<Coordinator, 'withBlob' | 'keepOtherNames'>;
  readonly signal: AbortSignal;
  readonly mode: ConflictMode;
  readonly enableDeletions: boolean;
  readonly log: Pick<JobLog, 'add' | 'written'>;
  readonly counters: { deletions: number; totalConflicts: number };
  /** Takes the blobs whose deletions have to be followed later. */
  readonly later: Pick<Later, 'add' | 'said'>;
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
  const deleted = planned.filter(({ action }) => deletes(action));
  return Object.fromEntries(deleted.map(({ path, state }) => [path, state.fid]));
}

const lineOf = {
  unmodified: ['info', 'its blob is gone'],
  modified: ['warn', 'its blob is gone, and what is new or changed here goes with it'],
  directory: ['info', 'its blob is gone'],
} as const;

function deletesFile({ state, action }: PlannedDeletion): boolean {
  return state.type !== 'directory' && deletes(action);
}

function namesTheRecord({ path, state }: PlannedDeletion): boolean {
  return state.nlink > 1 && state.copy?.blob === path;
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
    const { native, mode, enableDeletions, counters } = this.#options;
    const named = blobs.flatMap((blob) => {
      const name = pathOfBlob(blob, 0);
      return 'refused' in name ? [] : [{ blob, path: name.path }];
    });
    // Whatever lies below a directory sorts behind it.
    named.sort((a, b) => (a.path < b.path ? 1 : -1));
    const states = await native.lookup(named.map(({ path }) => path));
    const unsafe = await this.#saveOthers(named.map(({ blob }, at) => ({ blob, there: states[at] })));
    const planned = named.flatMap(({ blob, path }, at) => {
      const state = states[at];
      if (unsafe.has(blob)) return [];
      // Not what every object has: files may be called constructor.
      const before = Object.hasOwn(begun, path) ? begun[path] : undefined;
      if (before !== undefined && state?.fid !== before) {
        counters.deletions++;
        return [];
      }
      const what = state === undefined ? undefined : deletedOf(state, blob);
      if (state === undefined || what === undefined) return [];
      return [
        {
          blob,
          path,
          state,
          what,
          action: enableDeletions ? deletionActions[what][mode] : 'disabled',
        } as const,
      ];
    });
    // When the name of the record has gone, a file is changed to its other names.
    return planned.toSorted((a, b) => Number(namesTheRecord(a)) - Number(namesTheRecord(b)));
  }

  /** Does what was planned. */
  async run(planned: readonly PlannedDeletion[]): Promise<void> {
    const { log, mode, later } = this.#options;
    for (let at = 0; at < planned.length; at += groupSize) {
      const group = planned.slice(at, at + groupSize);
      // First: what a crash right behind it leaves says nothing of what was deleted.
      for (const one of group) {
        if (!deletesFile(one)) continue;
        const [level, message] = lineOf[one.what];
        if (!later.said(one.blob, `${one.state.fid} ${message}`)) this.#log(level, one, 'Delete', message);
      }
      await log.written();
      await using files = new Parallel(mode === 'Fail' ? 1 : parallelDeletions);
      for (const one of group) {
        if (one.state.type !== 'directory' && one.state.nlink === 1) {
          await files.start(() => this.#follow(one));
          continue;
        }
        // What was in a directory has been planned before it, and so may another name of the file have been.
        await files.finish();
        await this.#follow(one);
      }
      await files.finish();
    }
    await log.written();
  }

  async #follow(one: PlannedDeletion): Promise<void> {
    const { later, onError } = this.#options;
    const { blob, state, what, action } = one;
    // Each that is in use is waited for: somebody who disables the job waits for none behind those under way.
    this.#options.signal.throwIfAborted();
    try {
      switch (action) {
        case 'disabled':
          if (what === 'unmodified' && state.copy?.blob === blob) await this.#lost(blob, state);
          this.#log('info', one, 'Deleted', 'its blob is gone; deletions are not enabled');
          break;
        case 'keep':
        case 'fail':
          this.#conflict(one, action);
          break;
        case 'delete':
        case 'delete-unused':
          if (!(await this.#delete(one))) later.add(blob, 'its blob is gone, and it is in use');
      }
    } catch (error) {
      this.#options.signal.throwIfAborted();
      if (error instanceof JobFailure || isOutage(error)) throw error;
      onError(blob, error);
    }
  }

  /**
   * A renamed file whose copy was one of these blobs has the only data there is now: it is modified, whatever becomes of
   * the path. Resolves with the blobs of which that could not be made sure.
   */
  async #saveOthers(
    blobs: readonly { readonly blob: string; readonly there: FileState | undefined }[],
  ): Promise<ReadonlySet<string>> {
    const { coordinator, later, onError, signal } = this.#options;
    const unsafe = new Set<string>();
    await using claims = new Parallel(parallelDeletions);
    for (const { blob, there } of blobs) {
      await claims.start(async () => {
        try {
          await coordinator.withBlob(blob, there?.fid, () => Promise.resolve(), signal);
        } catch (error) {
          signal.throwIfAborted();
          // Its data could not be brought here because nobody answers.
          const cause = error instanceof Error && isOutage(error.cause) ? error.cause : error;
          if (isOutage(cause)) throw cause;
          const why = 'a file that came from it cannot be saved now';
          // It comes again at every poll, and is one error.
          if (!later.said(blob, why)) onError(blob, error);
          later.add(blob, why);
          unsafe.add(blob);
        }
      });
    }
    await claims.finish();
    return unsafe;
  }

  /** False: somebody has it open. */
  async #delete(one: PlannedDeletion): Promise<boolean> {
    const { native, counters, onLeft } = this.#options;
    const { path, state, action } = one;
    if (state.type === 'directory') {
      if (!(await this.#directory(path, state.fid))) onLeft(path, state.fid);
      return true;
    }
    try {
      if (state.nlink > 1) await keepOtherNames(this.#options, state.fid, path);
      await native.remove(path, state.fid, { onlyClean: action === 'delete-unused' });
      counters.deletions++;
      // One that the mode has ended.
      if (one.what === 'modified') counters.totalConflicts++;
      crashPoint('auto-import.deleted');
      await this.#saveRenamed(one);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === undefined) throw error;
      if (errno === EBUSY || errno === ETXTBSY) return false;
      await this.#saveRenamed(one);
      if (errno === ESTALE) return this.#changed(one);
      if (errno !== ENOENT) throw error;
    }
    return true;
  }

  /** The file that was spared as the owner may have got another name since the look at it. */
  async #saveRenamed({ blob }: PlannedDeletion): Promise<void> {
    const { coordinator, signal } = this.#options;
    await coordinator.withBlob(blob, undefined, () => Promise.resolve(), signal);
  }

  /** Changed or replaced since it was looked at: judged again by what is there now. */
  async #changed(one: PlannedDeletion): Promise<boolean> {
    const [state] = await this.#options.native.lookup([one.path]);
    if (state === undefined) return true;
    this.#conflict(one, this.#options.mode === 'Fail' ? 'fail' : 'keep');
    return true;
  }

  #conflict(one: PlannedDeletion, action: 'keep' | 'fail'): void {
    const message = 'its blob was deleted, and the file here is new or changed';
    this.#options.counters.totalConflicts++;
    this.#log(action === 'fail' ? 'error' : 'warn', one, 'Conflict', `${message}: it stays`);
    if (action === 'fail')
      throw new JobFailure('Conflict', `the blob '${one.blob}' is in conflict: ${message}`);
  }

  #log(
    level: JobLogLine['level'],
    { blob, path }: Pick<PlannedDeletion, 'blob' | 'path'>,
    code: string,
    message: string,
  ): void {
    this.#options.log.add({ level, blob, path, code, message });
  }

  /** Deletes, and takes from `left`, the directories that are empty now; resolves with their paths. */
  async emptied(left: Map<string, Fid>): Promise<readonly string[]> {
    const emptied: string[] = [];
    // Whatever lies below a directory sorts behind it.
    for (const [path, fid] of [...left].sort(([a], [b]) => (a < b ? 1 : -1))) {
      if (!(await this.#directory(path, fid))) continue;
      left.delete(path);
      emptied.push(path);
    }
    return emptied;
  }

  /** Deletes a directory whose blob is gone; false: something is in it. */
  async #directory(path: string, fid: Fid): Promise<boolean> {
    const { native, counters, log } = this.#options;
    try {
      await native.remove(path, fid);
      counters.deletions++;
      log.add({ level: 'info', path, code: 'Delete', message: 'its blob is gone' });
    } catch (error) {
      if (hasErrno(error, ENOTEMPTY)) return false;
      // A parent of it may be something else by now.
      if (!hasErrno(error, ENOENT, ESTALE, ENOTDIR, ELOOP)) throw error;
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
