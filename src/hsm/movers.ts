/** What every mover works with: the daemon's own objects, or a test's. */
import type { Config } from '../base/config.js';
import { FsError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { Container } from '../blob/port.js';
import type { NativeStore } from '../store/inodes.js';
import type { TransferPool } from '../workers/pool.js';
import type { SpaceManager } from './space-manager.js';

export type Transfers = Pick<TransferPool, 'download' | 'upload'>;

export type HsmConfig = Pick<Config, 'readOnly' | 'hydrate' | 'hsm' | 'transfer' | 'export' | 'compat'>;

export interface MoverContext {
  readonly native: NativeStore;
  /** What tells this store's uploads from those of everybody else. */
  readonly storeId: string;
  readonly container: Container;
  readonly pool: Transfers;
  readonly log: Log;
  readonly config: HsmConfig;
  /** Absent: whatever the disk has. */
  readonly space?: Pick<SpaceManager, 'allocate' | 'ended'> | undefined;
}

export interface TransferHooks {
  readonly signal: AbortSignal;
  readonly onProgress: (bytes: number) => void;
}

/** The errno of what the addon or the file system threw; undefined for everything else. */
export function errnoOf(error: unknown): number | undefined {
  if (error instanceof FsError) return error.errno;
  if (!(error instanceof Error) || !('errno' in error) || typeof error.errno !== 'number') return undefined;
  // Node's own errors carry it negated.
  return Math.abs(error.errno);
}

/** `ENOENT` of what the addon or the file system threw. */
export function hasErrno(error: unknown, ...errnos: readonly number[]): boolean {
  const errno = errnoOf(error);
  return errno !== undefined && errnos.includes(errno);
}
