/** The clean files of a store as room on its disk: the least recently used ones are released, each judged when it is its turn. */
import type { Clock } from '../base/clock.js';
import { BlobError, isOutage, messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Container } from '../blob/port.js';
import type { Copy, Fid, NativeStore } from '../store/inodes.js';
import { filesBelow } from './bulk-files.js';
import type { RestoredLately } from './restored-lately.js';
import { candidateOf, LeastRecentlyUsed, mayBeReleased, type Candidate } from './space-rules.js';

/** A release that finds its file open occupies a thread of the addon for up to a second. */
const releasesAtOnce = 4;
/** What could not be released is not looked at again for so long. */
const busyPauseMs = 2_000;
const changedPauseMs = 600_000;
const maxPassedOver = 100_000;
/** Walks of one call that each found only what could not be released after all. */
const maxRounds = 10;

export interface CleanFilesOptions {
  readonly native: Pick<NativeStore, 'walk' | 'lookup' | 'state' | 'release'>;
  readonly container: Pick<Container, 'properties'>;
  readonly log: Log;
  readonly clock: Clock;
  readonly restored: RestoredLately;
}

export interface ReleaseOrder {
  readonly wanted: number;
  /** Where all there is has less, nothing is released. */
  readonly least?: number;
  /** Milliseconds since the epoch: what was used then or later stays. */
  readonly usedBefore: number;
  readonly signal: AbortSignal;
}

export interface Released {
  readonly files: number;
  readonly bytes: number;
  /** Of all clean files that the last walk met, also those that are open now; without what was released since. */
  readonly cleanBytes: number;
}

interface Chosen {
  readonly oldest: readonly Candidate[];
  /** Of all candidates. */
  readonly bytes: number;
  readonly cleanBytes: number;
}

export class CleanFiles {
  readonly #options: CleanFilesOptions;
  readonly #passedOver = new Map<Fid, { readonly untilMs: number; readonly busy: boolean }>();

  constructor(options: CleanFilesOptions) {
    this.#options = options;
  }

  /** Releases files of `wanted` bytes, as far as there are that many. Ends early when the signal is aborted. */
  async release(order: ReleaseOrder): Promise<Released> {
    const { restored } = this.#options;
    let cleanBytes = 0;
    // A file that was restored since would look like any other.
    const untold = order.usedBefore <= restored.forgottenMs;
    for (let round = 1; round <= maxRounds && !untold && !order.signal.aborted; round++) {
      const chosen = await this.#choose(order);
      ({ cleanBytes } = chosen);
      if (chosen.oldest.length === 0 || chosen.bytes < (order.least ?? 0)) break;
      const { files, bytes, refused } = await this.#releaseAll(chosen.oldest, order);
      if (files > 0 || refused) return { files, bytes, cleanBytes: cleanBytes - bytes };
    }
    return { files: 0, bytes: 0, cleanBytes };
  }

  async #choose({ wanted, usedBefore, signal }: ReleaseOrder): Promise<Chosen> {
    const { native, clock, restored } = this.#options;
    const oldest = new LeastRecentlyUsed(wanted);
    const now = clock.now();
    let [bytes, cleanBytes] = [0, 0];
    for await (const file of filesBelow(native, [''])) {
      if (signal.aborted) return { oldest: [], bytes: 0, cleanBytes: 0 };
      if ('error' in file) continue;
      const { state } = file;
      const passed = this.#passedOver.get(state.fid);
      const passedOver = passed !== undefined && passed.untilMs > now;
      if (mayBeReleased(state) && (!passedOver || passed.busy)) cleanBytes += state.allocated;
      const candidate = candidateOf(state, usedBefore, restored.of(state.fid));
      if (candidate === undefined || passedOver) continue;
      bytes += candidate.bytes;
      oldest.add(candidate);
    }
    return { oldest: oldest.files(), bytes, cleanBytes };
  }

  async #releaseAll(
    files: readonly Candidate[],
    { usedBefore, signal }: ReleaseOrder,
  ): Promise<Omit<Released, 'cleanBytes'> & { readonly refused: boolean }> {
    const { log } = this.#options;
    const released = { files: 0, bytes: 0, refused: false };
    const left = files.values();
    const isOver = (): boolean => signal.aborted || released.refused;
    const work = async (): Promise<void> => {
      for (const { fid } of left) {
        if (isOver()) return;
        try {
          const bytes = await this.#releaseOne(fid, usedBefore, signal);
          if (bytes === 0) continue;
          released.files++;
          released.bytes += bytes;
        } catch (error) {
          if (isOver()) return;
          log.debug({ fid, cause: messageChain(error) }, 'not released');
          if (isOutage(error) || (error instanceof BlobError && error.kind === 'forbidden')) {
            // None of them can be asked for.
            released.refused = true;
            return;
          }
          // Else somebody uses it, has changed it or deleted it: it stays.
          if (error instanceof BlobError) this.#passOver(fid, { forMs: changedPauseMs, busy: false });
          else this.#passOver(fid, { forMs: busyPauseMs, busy: true });
        }
      }
    };
    await Promise.all(Array.from({ length: releasesAtOnce }, work));
    return released;
  }

  /** How many bytes it was; 0: it stays. */
  async #releaseOne(fid: Fid, usedBefore: number, signal: AbortSignal): Promise<number> {
    const { native, restored, log } = this.#options;
    // Used since the walk came by?
    const state = await native.state(fid);
    const candidate = candidateOf(state, usedBefore, restored.of(fid));
    if (candidate === undefined || state.copy === undefined) return 0;
    if (!(await this.#canComeBack(state.copy, signal))) {
      const { blob } = state.copy;
      this.#passOver(fid, { forMs: changedPauseMs, busy: false });
      log.info({ fid, blob }, 'not released to make room: the container cannot give this version of it back');
      return 0;
    }
    await native.release(fid);
    return candidate.bytes;
  }

  /** Nobody asked for this release: what another client has deleted, replaced or moved to the Archive tier is only here. */
  async #canComeBack({ blob, etag }: Copy, signal: AbortSignal): Promise<boolean> {
    try {
      const found = await this.#options.container.properties(blob, signal);
      return found.etag === etag && found.tier !== 'Archive';
    } catch (error) {
      if (error instanceof BlobError && error.kind === 'missing') return false;
      throw error;
    }
  }

  #passOver(fid: Fid, { forMs, busy }: { readonly forMs: number; readonly busy: boolean }): void {
    const passed = this.#passedOver;
    passed.delete(fid);
    passed.set(fid, { untilMs: this.#options.clock.now() + forMs, busy });
    if (passed.size <= maxPassedOver) return;
    for (const oldest of passed.keys()) {
      passed.delete(oldest);
      return;
    }
  }
}
