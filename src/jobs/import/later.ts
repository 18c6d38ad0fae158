/** Blobs whose files are in use or change at this moment. */
export interface Later {
  add(blob: string, why: string): void;
  /** Of this run. */
  has(blob: string): boolean;
  /** It was added before this run: what is to be done about it is in the log. */
  waited(blob: string): boolean;
}
