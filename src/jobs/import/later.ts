/** Blobs whose files are in use or change at this moment. */
export interface Later {
  add(blob: string, why: string): void;
  /** Of this run. */
  has(blob: string): boolean;
  /** Whether the log has this line of a blob that waited before this run; remembers it, as its caller logs it else. */
  said(blob: string, line: string): boolean;
}
