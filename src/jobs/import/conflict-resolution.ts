/** Does what the conflict mode says about a path that is taken. */
import { constants } from 'node:os';
import { BlobError, FsError, isOutage, messageChain } from '../../base/errors.js';
import type { Container } from '../../blob/port.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import { errnoOf } from '../../hsm/movers.js';
import type { Fid, FileState, NativeStore, Stub } from '../../store/inodes.js';
import { JobFailure } from '../job-end.js';
import type { JobLog } from '../job-log.js';
import type { ImportDefaults } from './blob-stub.js';
import { actionOf, differenceOf, situationOf, type ConflictActions, type Existing } from './conflict.js';
import type { ConflictMode } from './conflict-mode.js';
import type { Later } from './later.js';

const { EBUSY, ENOENT, ENOTEMPTY, ESTALE, ETXTBSY } = constants.errno;

export interface ConflictOptions {
  readonly native: NativeStore;
  readonly container: Pick<Container, 'properties'>;
  readonly coordinator: Pick<Coordinator, 'keepOtherNames' | 'keepRenamed' | 'disown'>;
  readonly mode: ConflictMode;
  readonly later?: Pick<Later, 'said'>;
  /** What the mode does about what is there. */
  readonly actions: ConflictActions;
  readonly defaults: ImportDefaults;
  readonly log: Pick<JobLog, 'add' | 'written'>;
  readonly signal: AbortSignal;
}

export type Resolution =
  /** What is there is what the import would make. */
  | { readonly kind: 'same'; readonly fid: Fid }
  /** What is there is a directory that names of blobs had implied; it has the attributes of its blob now. */
  | { readonly kind: 'completed'; readonly fid: Fid }
  /** A conflict that stays. */
  | { readonly kind: 'conflict'; readonly message: string }
  /** The same: the directory that is there is not empty. */
  | { readonly kind: 'filled'; readonly message: string }
  /** A conflict that the mode has ended. `resident`: by taking the data away of what was the blob already. */
  | { readonly kind: 'resolved'; readonly message: string; readonly fid: Fid; readonly resident: boolean }
  /** The mode's action is not possible now. */
  | { readonly kind: 'busy'; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string };

/** What became of a conflict, for the log. */
const done = {
  update: 'it has the attributes of the blob now',
  release: 'it is released',
  replace: 'it was deleted and imported again',
} as const;

/** Why a mode could not do what it should, where that is no error: it may be able to later. */
const busy: Readonly<Record<number, string>> = {
  [EBUSY]: 'it is open, mapped or in a transfer',
  [ETXTBSY]: 'it is being executed',
  [ESTALE]: 'it changed meanwhile',
  [ENOENT]: 'it is gone meanwhile',
};

/** Rejects only with what ends the job. */
export async function resolveConflict(
  options: ConflictOptions,
  blob: string,
  stub: Stub,
  seen: FileState,
): Promise<Resolution> {
  const { native, mode, actions, defaults, log, signal } = options;
  // Another name of the same file may have been resolved since the look at this one.
  const state = seen.nlink > 1 ? ((await native.lookup([stub.path]))[0] ?? seen) : seen;
  const existing = await withTarget(native, await withMd5(options, stub, state));
  const situation = situationOf(existing, stub, defaults);
  const action = actionOf(actions, mode, existing, stub, defaults);
  const reason = differenceOf(existing, stub) ?? 'its data is here';
  let { fid } = state;
  // Somebody who cancels wants no more overwritten, be it one of a thousand that are at hand.
  signal.throwIfAborted();
  try {
    switch (action) {
      case 'keep':
        return { kind: 'same', fid };
      case 'skip':
      case 'fail':
        return { kind: 'conflict', message: reason };
      case 'complete':
        await native.setAttributes(stub.path, attributesOf(stub, fid));
        return { kind: 'completed', fid };
      case 'update':
        await native.setAttributes(stub.path, attributesOf(stub, fid));
        break;
      case 'release':
        // The look at it may be a whole batch old, and a file that was moved away, or got a name, keeps what it has.
        if (!isStill((await native.lookup([stub.path]))[0], state)) throw new FsError(ESTALE, stub.path);
        // Durable with all that the import does: it ends at a barrier.
        // And may be moved while that waits for whoever has it open.
        await native.replaceCopy(fid, stub, { durable: false, links: state.nlink });
        break;
      case 'replace':
        if (state.nlink > 1 && state.type === 'file') await keepOtherNames(options, fid, stub.path);
        // First: what a crash right behind it leaves says nothing of what was deleted.
        const way = `${reason}: it makes way`;
        if (options.later?.said(blob, `${fid} ${way}`) !== true)
          log.add({ level: 'info', blob, path: stub.path, code: 'Delete', message: way });
        await log.written();
        fid = await native.replaceEntry(fid, stub);
        await options.coordinator.disown(state.fid, blob);
    }
  } catch (error) {
    return unresolvedBy(error, reason, signal);
  }
  const message = `${reason}: ${done[action]}`;
  return { kind: 'resolved', message, fid, resident: situation === 'same-resident' };
}

/** Before the blob of one name of a file goes to another file: its further names go on with what their blobs have. */
export function keepOtherNames(
  {
    coordinator,
    container,
    signal,
  }: {
    readonly coordinator: Pick<Coordinator, 'keepOtherNames'>;
  } & Pick<ConflictOptions, 'container' | 'signal'>,
  fid: Fid,
  path: string,
): Promise<void> {
  return coordinator.keepOtherNames(fid, path, async (name) => {
    try {
      const { kind, etag, size, lastModifiedMs, md5 } = await container.properties(name, signal);
      if (kind !== 'file') return undefined;
      return { blob: name, etag, size, lastModifiedMs, ...(md5 !== undefined && { md5 }) };
    } catch (error) {
      if (error instanceof BlobError && error.kind === 'missing') return undefined;
      throw error;
    }
  });
}

function isStill(now: FileState | undefined, { fid, nlink }: FileState): boolean {
  return now !== undefined && now.fid === fid && now.nlink === nlink;
}

function attributesOf({ mode, uid, gid, mtimeNs, extended }: Stub, fid: Fid) {
  return { mode, uid, gid, mtimeNs, ...(extended && { extended }), fid };
}

function unresolvedBy(error: unknown, reason: string, signal: AbortSignal): Resolution {
  signal.throwIfAborted();
  if (error instanceof JobFailure || isOutage(error)) throw error;
  const errno = errnoOf(error) ?? 0;
  const later = busy[errno];
  if (later !== undefined) return { kind: 'busy', message: `${reason}, and ${later}` };
  if (errno === ENOTEMPTY) return { kind: 'filled', message: `${reason}, and the directory is not empty` };
  return { kind: 'failed', message: `${reason}: ${messageChain(error)}` };
}

/**
 * Two blobs of one file are told to be the same by their MD5, which its record leaves out where it would cost a disk
 * block: then the blob of the record is asked for it.
 */
async function withMd5(
  { container, signal }: Pick<ConflictOptions, 'container' | 'signal'>,
  stub: Stub,
  state: FileState,
): Promise<FileState> {
  const { copy, nlink } = state;
  if (nlink <= 1 || copy === undefined || copy.md5 !== undefined || stub.copy?.md5 === undefined)
    return state;
  if (copy.blob === stub.copy.blob || copy.size !== stub.copy.size) return state;
  try {
    const { etag, md5 } = await container.properties(copy.blob, signal);
    return etag === copy.etag && md5 !== undefined ? { ...state, copy: { ...copy, md5 } } : state;
  } catch (error) {
    if (error instanceof BlobError && error.kind === 'missing') return state;
    throw error;
  }
}

async function withTarget(native: NativeStore, state: FileState): Promise<Existing> {
  if (state.type !== 'symlink') return state;
  const target = await native.readlink(state.fid);
  return target === null ? state : { ...state, target };
}
