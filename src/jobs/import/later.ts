import type { FileState } from '../../store/inodes.js';

/** Blobs whose files are in use or change at this moment. */
export interface Later {
  add(blob: string, why: string): void;
  /** Of this run. */
  has(blob: string): boolean;
  /** Whether the log has this line of a blob that waited before this run; remembers it, as its caller logs it else. */
  said(blob: string, line: string): boolean;
  /**
   * What is at `path` keeps blobs of that name, or below it, from being imported, and they are as soon as it does no more.
   * True: it is no conflict, as its own blob is gone and it is going to follow.
   */
  contested(path: string, state: FileState): Promise<boolean>;
}
