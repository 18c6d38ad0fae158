/**
 * A blob name has one owner. Whoever is about to overwrite or delete blob N first makes sure that no other inode's
 * copy is N: logrotate's `mv A B`, a new A and an export would else destroy B's only copy.
 */
import { constants } from 'node:os';
import { crashPoint } from '../base/crash.js';
import { FsError, messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Copy, Fid, FileState, NativeStore, NativeWalk, WalkEntry } from '../store/inodes.js';
import { HS_LOST, HS_RELEASED } from './flags.js';
import { errnoOf, hasErrno } from './movers.js';

const { ENOENT, ENOTCONN, ESTALE, ENODATA } = constants.errno;

export interface BlobOwnersOptions {
  readonly native: NativeStore;
  /** Brings a file's data back, ahead of every explicit request; rejects when that is impossible now. */
  readonly restore: (fid: Fid) => Promise<void>;
  /** Whether the blob that a file stands for is still a file's: where it is gone, or a directory's, nothing is left to lose. */
  readonly blobExists: (blob: string) => Promise<boolean>;
  /** A file has changed by that: what it has is nowhere else from now on. */
  readonly saved: (fid: Fid) => void;
  readonly log: Log;
}

/** Blob -> files whose copy it is, and which have another path, too. */
type Displaced = Map<string, Fid[]>;

interface Index {
  /** BlobOwners.#changes() before the walk began. */
  readonly changes: number;
  readonly displaced: Displaced;
}

const walkBatch = 1024;

export class BlobOwners {
  readonly #options: BlobOwnersOptions;
  #index: Promise<Index> | undefined;
  #indexed: Index | undefined;
  #displaced = 0;
  /** That of the walk that runs. */
  #building: Displaced | undefined;

  constructor(options: BlobOwnersOptions) {
    this.#options = options;
  }

  /**
   * Makes `blob` free for `owner` (undefined: for nobody): every other holder is dirty when it resolves, with its
   * data on disk. Rejects when a holder's data cannot be saved; then the blob must not be touched. A holder whose blob
   * is gone has no data to save; `replaced`: the blob is about to be there again with another file's, which is not its
   * own, so that it is lost from now on.
   */
  async claim(blob: string, owner: Fid | undefined, { replaced = false } = {}): Promise<void> {
    const { native } = this.#options;
    const holders = new Set<Fid>();
    // Deleted, and still open somewhere: who reads on must not get the bytes of the next file of that name.
    for (const orphan of await native.orphans()) if (orphan.copy?.blob === blob) holders.add(orphan.fid);
    if (native.everRenamed()) {
      for (const fid of (await this.#current()).displaced.get(blob) ?? []) holders.add(fid);
    }
    // Whoever has the path now may be somebody else than the owner: renamed back to the name of its blob, or made anew
    // where the owner was deleted.
    const [there] = await native.lookup([blob]);
    if (there !== undefined) holders.add(there.fid);
    for (const fid of holders) if (fid !== owner) await this.#save(fid, blob, replaced);
  }

  /**
   * Blobs have these versions now: a renamed file with the data of another version has the only data there is, and is
   * dirty when this resolves. What is released has nothing left to lose.
   */
  async keepRenamed(copies: readonly Copy[]): Promise<void> {
    const { native } = this.#options;
    if (!native.everRenamed()) return;
    const { displaced } = await this.#current();
    if (displaced.size === 0) return;
    for (const { blob, etag } of copies) {
      for (const fid of displaced.get(blob) ?? []) {
        const state = await stateOrUndefined(native, fid);
        if (!holds(state, blob) || state.copy?.etag === etag) continue;
        // Where it has the blob's name, too, the import that asks sees it.
        if ((await native.lookup([blob]))[0]?.fid !== fid) await this.disown(fid, blob);
      }
    }
  }

  /** The blob is another file's now. What is released, or released at this moment, has no data of it. */
  async disown(fid: Fid, blob: string): Promise<void> {
    const { native } = this.#options;
    const state = await stateOrUndefined(native, fid);
    if (!holds(state, blob) || state.modified || (state.flags & HS_RELEASED) !== 0) return;
    try {
      await native.markModified(fid);
    } catch (error) {
      if (!hasErrno(error, ENOENT, ESTALE, ENODATA)) throw error;
    }
  }

  /** A copy was recorded of a file that may have lost its path meanwhile: no walk before this moment has seen that. */
  displaced(): void {
    this.#displaced++;
  }

  /** `blob` was recorded as the copy of a file that has further names; its caller holds the name of the blob. */
  linked(blob: string, fid: Fid): void {
    // Told rather than looked for: a walk for each such file would cost the whole tree each time.
    for (const displaced of [this.#indexed?.displaced, this.#building]) add(displaced, blob, fid);
  }

  /** Grows with everything that makes an index out of date. */
  #changes(): number {
    return this.#options.native.renames() + this.#displaced;
  }

  async #save(fid: Fid, blob: string, replaced: boolean, tries = 3): Promise<void> {
    const { native, log } = this.#options;
    let state = await stateOrUndefined(native, fid);
    if (!holds(state, blob)) return;
    if ((state.flags & HS_RELEASED) !== 0) {
      log.info({ fid, blob }, 'restoring a renamed file before its blob is overwritten');
      try {
        await this.#options.restore(fid);
      } catch (error) {
        if (!(await this.#options.blobExists(blob))) {
          if (!replaced) return;
          log.warn({ fid, blob }, 'the blob of a released file is gone: the file is lost');
          await native.changeFlags(fid, HS_LOST, 0, 0).catch(ignoreGone);
          return;
        }
        throw new FsError(ENODATA, `another file's only copy is ${blob}, and it cannot be restored`, {
          cause: error,
        });
      }
      crashPoint('owner.restored');
      state = await stateOrUndefined(native, fid);
      if (!holds(state, blob)) return;
    }
    if (state.modified) return;
    try {
      await native.markModified(fid);
      this.#options.saved(fid);
    } catch (error) {
      // Released meanwhile, to make room: it is restored again.
      if (hasErrno(error, ENODATA) && tries > 1) return this.#save(fid, blob, replaced, tries - 1);
      ignoreGone(error);
    }
  }

  /** An index that knows every rename and every copy of a renamed file up to now. Those who need one while a walk runs share the walk after it. */
  async #current(): Promise<Index> {
    while (this.#indexed?.changes !== this.#changes()) {
      const running = this.#index;
      if (running === undefined) {
        this.#index = this.#build();
        try {
          return await this.#index;
        } finally {
          this.#index = undefined;
        }
      }
      const wanted = this.#changes();
      const index = await running.catch(() => undefined);
      if (index !== undefined && index.changes >= wanted) return index;
    }
    return this.#indexed;
  }

  async #build(): Promise<Index> {
    const { native, log } = this.#options;
    const changes = this.#changes();
    const displaced: Displaced = new Map();
    this.#building = displaced;
    const walk = native.walk({ select: 'all', batch: walkBatch });
    try {
      for (;;) {
        const batch = await this.#batch(walk);
        if (batch === null) break;
        for (const entry of batch) {
          if (entry.type === 'directory' || entry.copy === undefined) continue;
          if (entry.copy.blob === entry.path) continue;
          add(displaced, entry.copy.blob, entry.fid);
        }
      }
      // Before it counts as built: what is told of linked files reaches one of the two.
      this.#indexed = { changes, displaced };
    } finally {
      this.#building = undefined;
      walk.close();
    }
    log.debug({ displaced: displaced.size, changes }, 'renamed files indexed by blob');
    return this.#indexed;
  }

  /** What cannot be read can be neither released nor restored. */
  async #batch(walk: NativeWalk): Promise<readonly WalkEntry[] | null> {
    try {
      return await walk.next();
    } catch (error) {
      if (errnoOf(error) === undefined || hasErrno(error, ENOTCONN)) throw error;
      this.#options.log.warn({ err: error }, `looking for renamed files: ${messageChain(error)}`);
      return [];
    }
  }
}

function add(displaced: Displaced | undefined, blob: string, fid: Fid): void {
  const known = displaced?.get(blob);
  if (known === undefined) displaced?.set(blob, [fid]);
  else if (!known.includes(fid)) known.push(fid);
}

function holds(state: FileState | undefined, blob: string): state is FileState {
  return state?.copy?.blob === blob && !(state.modified && (state.flags & HS_RELEASED) === 0);
}

async function stateOrUndefined(native: NativeStore, fid: Fid): Promise<FileState | undefined> {
  try {
    return await native.state(fid);
  } catch (error) {
    ignoreGone(error);
    return undefined;
  }
}

function ignoreGone(error: unknown): void {
  if (!hasErrno(error, ENOENT, ESTALE)) throw error;
}
