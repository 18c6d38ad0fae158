/** Parts that the records of several kinds of jobs share. */
import { z } from 'zod';

/** ARM's rule for names of jobs. */
export const jobNamePattern = /^[0-9a-zA-Z][-0-9a-zA-Z_]{0,78}[0-9a-zA-Z]$/;

export const jobName = z.string().regex(jobNamePattern);
export const count = z.number().nonnegative();
/** ISO 8601. */
export const time = z.string();

/** What an import counts, wherever its record shows it: seed 001 "Metrics". */
export const importedCounters = {
  totalBlobsImported: count,
  importedFiles: count,
  importedDirectories: count,
  importedSymlinks: count,
  preexistingFiles: count,
  preexistingDirectories: count,
  preexistingSymlinks: count,
  totalErrors: count,
  totalConflicts: count,
};

/** Things a second between two times, for people; a job shorter than a millisecond took one. */
export function perSecond(things: number, from: string, to: string): number {
  const seconds = Math.max(0.001, (Date.parse(to) - Date.parse(from)) / 1000);
  return Math.round(things / seconds);
}
