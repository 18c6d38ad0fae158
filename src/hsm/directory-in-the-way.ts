/** Directories of a hierarchical account, whose names no blob can have. */
import type { BlobProperties, Container } from '../blob/port.js';

/** Why a file cannot have this name, given what the container has under it; undefined: it can. */
export function directoryInTheWay(
  { namespace }: Container,
  name: string,
  found: BlobProperties | undefined,
): string | undefined {
  if (!namespace.hierarchical || found?.kind !== 'directory') return undefined;
  return `the container has a directory ${name}: rename the file, or delete the directory there`;
}
