/**
 * Room on the store's disk: releases the least recently used clean files when the disk fills up, and before a restore
 * that would not fit. What only this store has is never touched.
 */
import { constants } from 'node:os';
import type { Clock } from '../base/clock.js';
import type { SpaceView } from '../base/control-api.js';
import { FsError, messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { unlessAborted } from '../base/unless-aborted.js';
import type { Fid, NativeStore } from '../store/inodes.js';
import { CleanFiles, type CleanFilesOptions, type Released, type ReleaseOrder } from './clean-files.js';
import { hasErrno } from './movers.js';
import { RestoredLately } from './restored-lately.js';
import {
  bytesBeyond,
  excess,
  shortage,
  usageOf,
  usedPercent,
  type Usage,
  type Watermarks,
} from './space-rules.js';

const { ENOSPC, EDQUOT } = constants.errno;

const checkEveryMs = 1_000;
/** A look that found too little is not repeated sooner than this, twice that, …; a restore in need looks itself. */
const [minPauseMs, maxPauseMs] = [10_000, 60_000];
const restorePauseMs = 500;
/** Who waits for room does not spend more than a part of the time on walks. */
const pausePerWalk = 4;
/** So long after a restore has ended its file may still be in use, and be released after all. */
const patienceMs = 30_000;
/** A restore does not wait for room longer, whatever others do. */
const maxWaitMs = 300_000;
/** What was used so recently is in use: only a restore that needs the room takes it. */
const graceMs = 60_000;
/** Times that the disk may refuse what it seems to have room for. */
const maxTries = 10;

export interface SpaceManagerOptions extends Pick<CleanFilesOptions, 'container'> {
  readonly native: CleanFilesOptions['native'] & Pick<NativeStore, 'statfs' | 'barrier'>;
  readonly log: Log;
  readonly clock: Clock;
  readonly watermarks: Watermarks;
  /** Whether a read of a released file brings its data back now: else nothing is released. */
  readonly mayRelease: () => boolean;
}

export interface RoomOptions {
  /**
   * Milliseconds since the epoch: nothing that was used since is released for it, nor is the middle of the watermarks
   * passed, at whose high one it would go again, nor waited. Undefined: whatever helps; asked again, as that may change.
   */
  readonly usedBefore?: () => number | undefined;
  /** Ends the wait for room. */
  readonly signal?: AbortSignal;
}

interface Need {
  readonly usedBefore: number | undefined;
  /** Milliseconds since the epoch: others get their turn then, whether there is room or not. */
  readonly until: number;
  readonly signal: AbortSignal;
}

/** A look at all files that found none, or too few, to release for a restore. */
interface FruitlessLook {
  readonly usedBefore: number | undefined;
  readonly begunMs: number;
  /** It holds for so long. */
  readonly untilMs: number;
  /** Of files that nobody need have open for ever. */
  readonly cleanBytes: number;
}

export class SpaceManager implements AsyncDisposable {
  readonly #options: SpaceManagerOptions;
  readonly #stop = new AbortController();
  readonly #restored = new RestoredLately();
  readonly #files: CleanFiles;
  readonly #released = { files: 0, bytes: 0 };
  /** Bytes of the restores that have room and go on. */
  readonly #holders = new Map<Fid, number>();
  #lastEndAt = Number.NEGATIVE_INFINITY;
  /** Bytes of restores that have been promised room and have not allocated it yet. */
  #reserved = 0;
  /** Whoever needs room makes it, one after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  #checks: Promise<void> | undefined;
  /** The last one for a restore. */
  #fruitless: FruitlessLook | undefined;
  #pauseMs = 0;
  #checkedAt = Number.NEGATIVE_INFINITY;
  #full = false;

  constructor(options: SpaceManagerOptions) {
    this.#options = options;
    this.#files = new CleanFiles({ ...options, restored: this.#restored });
  }

  start(): void {
    if (this.#isOff) return;
    this.#checks = this.#keepChecking();
  }

  get view(): SpaceView {
    const { watermarks } = this.#options;
    const usage = this.#usage();
    return {
      usedPercent: Math.round(usedPercent(usage) * 10) / 10,
      usedBytes: usage.used,
      freeBytes: usage.free,
      reservedBytes: this.#reserved,
      highWatermark: watermarks.high,
      lowWatermark: watermarks.low,
      releasedFiles: this.#released.files,
      releasedBytes: this.#released.bytes,
      full: this.#full && excess(usage, watermarks) > 0,
    };
  }

  /** When a file was restored, in milliseconds since the epoch, as far as this daemon remembers. */
  restoredAt(fid: Fid): number | undefined {
    return this.#restored.of(fid);
  }

  /**
   * Runs `allocate`, which takes `bytes` of the disk for the restore of `fid`, when there is room: makes room for it, and
   * waits for other restores where their files are all there is to release. `ended` must follow. Asked again before that,
   * it counts on what the restore has already, which `allocate` gives back first. Rejects with ENOSPC, or the signal's
   * reason.
   */
  async allocate<T>(
    fid: Fid,
    bytes: number,
    allocate: () => Promise<T>,
    { usedBefore = () => undefined, signal = this.#stop.signal }: RoomOptions = {},
  ): Promise<T> {
    if (this.#isOff || bytes === 0) return allocate();
    const { clock, native } = this.#options;
    const askedMs = clock.now();
    const until = askedMs + maxWaitMs;
    let own = this.#holders.get(fid) ?? 0;
    // It does not wait for itself.
    this.ended(fid, false);
    for (let tries = 1; ; tries++) {
      const before = usedBefore();
      const more = Math.max(0, bytes - own);
      const look = more === 0 ? undefined : await this.#reserve(more, { usedBefore: before, until, signal });
      const fits = look === undefined;
      let cause: unknown;
      try {
        if (fits) {
          const allocated = await allocate();
          this.#holders.set(fid, bytes);
          return allocated;
        }
      } catch (error) {
        if (!hasErrno(error, ENOSPC, EDQUOT)) throw error;
        cause = error;
        own = 0;
      } finally {
        if (fits) this.#reserved -= more;
      }
      if (before !== undefined) {
        // Somebody waits for it by now?
        if (usedBefore() === undefined) continue;
        throw new FsError(ENOSPC, 'the store has no room below space.highWatermark', { cause });
      }
      if (look !== undefined && look.begunMs < askedMs) {
        // There may be more since that look.
        await clock.sleep(Math.max(0, look.untilMs - clock.now()), signal);
        continue;
      }
      if (!(fits && tries < maxTries) && !(clock.now() < until && this.#mayFitLater(more, look))) {
        const message = 'no space left on the disk of the store, and nothing more can be released';
        throw new FsError(ENOSPC, message, { cause });
      }
      // What was released just now may come with the file system's next commit.
      if (fits) await native.barrier();
      await clock.sleep(restorePauseMs, signal);
    }
  }

  /** The restore of `fid` is over; `restored`: its data is here. */
  ended(fid: Fid, restored: boolean): void {
    const now = this.#options.clock.now();
    if (restored) this.#restored.add(fid, now);
    if (this.#holders.delete(fid)) this.#lastEndAt = now;
  }

  /** Looks at the watermarks. */
  async check(): Promise<void> {
    const { clock, watermarks, log } = this.#options;
    const wanted = excess(this.#usage(), watermarks);
    if (wanted === 0) {
      this.#pauseMs = 0;
      this.#full = false;
      return;
    }
    if (clock.now() - this.#checkedAt < this.#pauseMs) return;
    const { signal } = this.#stop;
    const released = await this.#release({ wanted, usedBefore: clock.now() - graceMs, signal });
    if (signal.aborted) return;
    this.#checkedAt = clock.now();
    const usage = this.#usage();
    const left = excess(usage, watermarks);
    // The rest may be in use, or be used in a moment.
    const full = left > released.cleanBytes;
    if (full && !this.#full) {
      const said = { usedPercent: Math.round(usedPercent(usage)), ...watermarks };
      log.warn(said, 'the disk of the store is full, and too little of what it holds can be released');
    }
    this.#full = full;
    if (left === 0 || released.bytes >= wanted / 2) this.#pauseMs = 0;
    else if (released.files > 0 || this.#pauseMs === 0) this.#pauseMs = minPauseMs;
    else this.#pauseMs = Math.min(2 * this.#pauseMs, maxPauseMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#checks;
    await this.#turn;
  }

  get #isOff(): boolean {
    return this.#options.watermarks.high === 0;
  }

  async #keepChecking(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    for (;;) {
      try {
        await clock.sleep(checkEveryMs, signal);
        await this.check();
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ err: error }, `space manager: ${messageChain(error)}`);
      }
    }
  }

  /** Makes room, and counts it as taken at the moment when it is there; else the look that found too little. */
  async #reserve(bytes: number, need: Need): Promise<FruitlessLook | undefined> {
    const { usedBefore, signal } = need;
    signal.throwIfAborted();
    if (this.#lacks(bytes, usedBefore).wanted === 0) {
      this.#reserved += bytes;
      return undefined;
    }
    const mine = this.#turn.then(async () => {
      signal.throwIfAborted();
      const look = await this.#makeRoom(bytes, need);
      if (look === undefined) this.#reserved += bytes;
      return look;
    });
    this.#turn = mine.catch(() => undefined);
    try {
      return await unlessAborted(() => mine, signal);
    } catch (error) {
      // Nobody takes it any more.
      const giveBack = (look: FruitlessLook | undefined): void => {
        if (look === undefined) this.#reserved -= bytes;
      };
      void mine.then(giveBack, () => undefined);
      throw error;
    }
  }

  async #makeRoom(bytes: number, { usedBefore, until, signal }: Need): Promise<FruitlessLook | undefined> {
    const { clock } = this.#options;
    for (;;) {
      signal.throwIfAborted();
      // Whoever came before may have made it.
      const lacking = this.#lacks(bytes, usedBefore);
      if (lacking.wanted === 0) return undefined;
      const begunMs = clock.now();
      if (begunMs >= until) return { usedBefore, begunMs, untilMs: begunMs, cleanBytes: 0 };
      const last = this.#fruitless;
      if (last !== undefined && last.usedBefore === usedBefore && begunMs < last.untilMs) return last;
      const order = { ...lacking, usedBefore: usedBefore ?? begunMs, signal };
      const { files, cleanBytes } = await this.#release(order);
      signal.throwIfAborted();
      if (files > 0 || this.#lacks(bytes, usedBefore).wanted === 0) continue;
      const now = clock.now();
      const untilMs = now + Math.max(restorePauseMs, pausePerWalk * (now - begunMs));
      return (this.#fruitless = { usedBefore, begunMs, untilMs, cleanBytes });
    }
  }

  /** Others are being restored, or were a moment ago: their files can be released when nobody uses them any more. */
  #mayFitLater(bytes: number, look: FruitlessLook | undefined): boolean {
    const now = this.#options.clock.now();
    if (look !== undefined && this.#lastEndAt < look.begunMs) {
      const held = [...this.#holders.values()].reduce((sum, one) => sum + one, 0);
      if (this.#lacks(bytes, undefined).least > look.cleanBytes + held) return false;
    }
    const { used, free } = this.#usage();
    return bytes <= used + free && (this.#holders.size > 0 || now - this.#lastEndAt < patienceMs);
  }

  /** What is to be released so that it fits; `least`: with less it would not. */
  #lacks(bytes: number, usedBefore: number | undefined): { readonly wanted: number; readonly least: number } {
    const { watermarks } = this.#options;
    const usage = this.#usage();
    const taken = bytes + this.#reserved;
    const beyond =
      usedBefore === undefined ? 0 : bytesBeyond(usage, (watermarks.high + watermarks.low) / 2) + taken;
    return {
      wanted: Math.max(shortage(usage, taken, watermarks), beyond, 0),
      least: Math.max(taken - usage.free, beyond, 0),
    };
  }

  #usage(): Usage {
    return usageOf(this.#options.native.statfs());
  }

  async #release(order: ReleaseOrder): Promise<Released> {
    const { native, log, mayRelease } = this.#options;
    if (!mayRelease()) return { files: 0, bytes: 0, cleanBytes: 0 };
    const { free } = this.#usage();
    const released = await this.#files.release(order);
    if (released.files === 0) return released;
    this.#released.files += released.files;
    this.#released.bytes += released.bytes;
    // Some file systems show what has become free with their next commit only.
    if (this.#usage().free - free < released.bytes / 2) await native.barrier();
    const { files, bytes } = released;
    const said = { files, bytes, usedPercent: Math.round(usedPercent(this.#usage())) };
    log.info(said, 'the least recently used clean files were released to make room');
    return released;
  }
}
