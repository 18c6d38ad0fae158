/** Where auto-import learns what has changed in the container. */
import type { ListedBlob } from '../../blob/port.js';

/** Some changed names, each once, with what the container has there now. */
export interface Changes {
  readonly present: readonly ListedBlob[];
  readonly absent: readonly string[];
  /** Where to go on once these are applied: JSON, opaque to everyone else. */
  readonly cursor: unknown;
  /** Time of the newest event among them, in ms since the epoch; listings have none. */
  readonly newestMs?: number;
}

/** In ms since the epoch, by the service's clock. */
export interface Horizon {
  readonly nowMs: number;
  /** A poll that begins now tells everything that had happened then. */
  readonly toldMs: number;
}

/** Disposed of when no job needs it. */
export interface ChangeSource extends AsyncDisposable {
  readonly kind: 'feed' | 'listing';
  /**
   * Before the full sync lists anything: the cursor from which on changes count. Deletions before it never count.
   * `previous`: the cursor of a full sync that was cut off, whose deletions count; null: there was none.
   */
  begin(previous: unknown, signal: AbortSignal): Promise<unknown>;
  /** Each page of the full sync's listing, in order. */
  observe(page: readonly ListedBlob[]): Promise<void>;
  /** The full sync has listed everything: the cursor for the first poll. */
  observed(cursor: unknown): Promise<unknown>;
  /**
   * What changed since the cursor, oldest first; ends when everything that is known now was given. Throws SourceGap when
   * changes since the cursor are lost.
   */
  poll(cursor: unknown, signal: AbortSignal): AsyncIterable<Changes>;
  /** Absent: a poll tells everything that has happened. */
  horizon?(signal: AbortSignal): Promise<Horizon>;
}

/** Changes may have been missed: only a full sync helps. */
export class SourceGap extends Error {
  override readonly name = 'SourceGap';
}
