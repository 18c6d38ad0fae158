/** `lfs hsm_*` as the coordinator's own rules see it: who may, what is needed, what is refused, item by item. */
import { constants } from 'node:os';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Caller, Copy, Fid, FileState, HsmRequest, HsmStateSet, NativeStore } from '../store/inodes.js';
import type { NewRequest } from './durable-requests.js';
import { actionName, HUA_ARCHIVE, HUA_CANCEL, HUA_RELEASE, HUA_REMOVE, HUA_RESTORE } from './flags.js';
import { errnoOf, hasErrno } from './movers.js';
import type { HsmParameters } from './parameters.js';
import {
  decideRequest,
  isPrivileged,
  permitRelease,
  permitRequest,
  type Owned,
  type QueuedAction,
} from './request-rules.js';
import { decideStateSet } from './state-set-rules.js';

const { EAGAIN, EINVAL, EIO, ENODATA, ENOENT, EROFS, ESTALE } = constants.errno;

export interface ExplicitRequestsOptions {
  readonly native: NativeStore;
  readonly log: Log;
  readonly readOnly: boolean;
  readonly parameters: () => HsmParameters;
  /** Nobody takes requests; a release asks nobody. */
  readonly stopped: () => boolean;
  /** The copy of a file that has no name any more, where that is known. */
  readonly unlinked: (fid: Fid) => Promise<Copy | undefined>;
  /** A restore of the file waits or runs that somebody has asked for by name. */
  readonly restoring: (fid: Fid) => boolean;
  /**
   * Resolves when no restore of the file waits or runs but for those who have the file open, and for what waits until the
   * coordinator is enabled.
   */
  readonly restored: (fid: Fid) => Promise<void>;
  /** Anything of the file waits or runs. */
  readonly active: (fid: Fid) => boolean;
  /** They do not begin again, with a later daemon neither, when it resolves. */
  readonly cancel: (fids: readonly Fid[]) => Promise<void>;
  /** Durable and queued when it resolves. */
  readonly enqueue: (requests: readonly NewRequest[]) => Promise<void>;
}

export class ExplicitRequests {
  readonly #options: ExplicitRequestsOptions;

  constructor(options: ExplicitRequestsOptions) {
    this.#options = options;
  }

  /** Items in order; at the first refused one it stops with that errno, what came before it stays (lustre-hsm 2.3). */
  request(request: HsmRequest): Promise<number> {
    // Before anybody looks at what is needed (lustre-hsm 3.1).
    if (request.action !== HUA_RELEASE && this.#options.stopped()) return Promise.resolve(EAGAIN);
    switch (request.action) {
      case HUA_ARCHIVE:
      case HUA_RESTORE:
      case HUA_REMOVE:
        return this.#queue(request, request.action);
      case HUA_RELEASE:
        return this.#release(request);
      case HUA_CANCEL:
        return this.#cancel(request);
      default:
        return Promise.resolve(EINVAL);
    }
  }

  async stateSet(request: HsmStateSet): Promise<number> {
    const { native, readOnly } = this.#options;
    const { fid } = request;
    const state = await native.state(fid);
    if (state.type !== 'file') return EINVAL;
    if (readOnly) return EROFS;
    // lustre-hsm 2.2. `lfs` has the file open for reading: for writing it would end an archive.
    await native.mayWrite(fid, request.caller);
    const change = decideStateSet(state, request);
    switch (change.kind) {
      case 'refused':
        return change.errno;
      case 'nothing':
        return 0;
      case 'change':
        await native.changeFlags(fid, change.set, change.clear, change.archiveId);
        return 0;
    }
  }

  async #queue(request: HsmRequest, action: QueuedAction): Promise<number> {
    const { caller, archiveId } = request;
    const { log, parameters } = this.#options;
    const data = request.data.toString('hex');
    const asked = (fid: Fid, file?: FileState): NewRequest => ({
      action,
      fid,
      archiveId: archiveId || file?.archiveId || parameters().defaultArchiveId,
      uid: caller.uid,
      ...(data !== '' && { data }),
    });
    const accepted: NewRequest[] = [];
    let refusal = 0;
    for (const fid of new Set(request.fids)) {
      const state = await this.#state(fid);
      if (typeof state === 'number') {
        if (state === ENOENT && action === HUA_REMOVE && isPrivileged(caller)) {
          const copy = await this.#options.unlinked(fid);
          if (copy !== undefined) accepted.push({ ...asked(fid), copy });
          else log.info({ fid, action: actionName(action) }, 'no such file: nothing to remove');
          continue;
        }
        refusal = state;
        break;
      }
      refusal = state.type === 'file' ? this.#permit(action, caller, state) : EINVAL;
      if (refusal !== 0) break;
      const decision = decideRequest(action, state, archiveId);
      if (decision.kind === 'refused') {
        refusal = decision.errno;
        break;
      }
      if (decision.kind === 'not-needed') continue;
      if (action === HUA_RESTORE && this.#options.restoring(fid)) continue;
      accepted.push(asked(fid, state));
    }
    if (accepted.length === 0) return refusal;
    await this.#options.enqueue(accepted);
    // Queued all the same (lustre-hsm 3.1).
    const nonBlocking = action === HUA_RESTORE && parameters().nonBlockingRestore;
    return refusal === 0 && nonBlocking ? ENODATA : refusal;
  }

  async #release({ fids, caller }: HsmRequest): Promise<number> {
    const { native, log, readOnly } = this.#options;
    for (const fid of new Set(fids)) {
      const state = await this.#state(fid);
      if (typeof state === 'number') return state;
      const refusal = state.type === 'file' ? permitRelease(state.flags, readOnly) : EINVAL;
      if (refusal !== 0) return refusal;
      try {
        await native.mayWrite(fid, caller);
        // lustre-hsm 3.3, step 5.
        await this.#options.restored(fid);
        await native.release(fid);
      } catch (error) {
        log.debug({ fid, cause: messageChain(error) }, 'release refused');
        return errnoOf(error) ?? EIO;
      }
    }
    return 0;
  }

  /** A cancel with nothing to cancel is dropped before anybody asks who sent it (lustre-hsm 2.4). */
  async #cancel({ fids, caller }: HsmRequest): Promise<number> {
    const accepted: Fid[] = [];
    let refusal = 0;
    for (const fid of new Set(fids)) {
      if (!this.#options.active(fid)) continue;
      const state = await this.#state(fid);
      refusal = this.#permit(HUA_CANCEL, caller, typeof state === 'number' ? undefined : state);
      if (refusal !== 0) break;
      accepted.push(fid);
    }
    await this.#options.cancel(accepted);
    return refusal;
  }

  #permit(action: number, caller: Caller, file: Owned): number {
    const { readOnly, parameters } = this.#options;
    return permitRequest(action, caller, file, { readOnly, masks: parameters().masks });
  }

  /** The state of a file, or the errno for one that is not there. */
  async #state(fid: Fid): Promise<FileState | number> {
    try {
      return await this.#options.native.state(fid);
    } catch (error) {
      if (hasErrno(error, ENOENT, ESTALE)) return ENOENT;
      throw error;
    }
  }
}
