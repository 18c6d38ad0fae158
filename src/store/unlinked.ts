/** STORE/unlinked: the copies of files whose last name is gone (native/store/unlinked.h writes them). */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Copy, Fid } from './inodes.js';

export interface UnlinkedCopy {
  readonly archiveId: number;
  readonly copy: Copy;
}

/** FID archive-id size last-modified-ms etag blob */
const lineOf = /^(\[\S+\]) (\d+) (\d+) (-?\d+) ((?:[0-9a-f]{2})*) ((?:[0-9a-f]{2})+)$/;

/** What the newest line of a FID says; undefined where there is none, or none any more. */
export async function unlinkedCopy(folder: string, fid: Fid): Promise<UnlinkedCopy | undefined> {
  for (const name of ['log', 'log.old']) {
    let found: UnlinkedCopy | undefined;
    for await (const line of linesOf(join(folder, name))) {
      if (line.startsWith(`${fid} `)) found = parsed(line) ?? found;
    }
    if (found !== undefined) return found;
  }
  return undefined;
}

function parsed(line: string): UnlinkedCopy | undefined {
  const [, , archiveId, size, lastModifiedMs, etag = '', blob = ''] = lineOf.exec(line) ?? [];
  if (archiveId === undefined) return undefined;
  return {
    archiveId: Number(archiveId),
    copy: { blob: text(blob), etag: text(etag), size: Number(size), lastModifiedMs: Number(lastModifiedMs) },
  };
}

function text(hex: string): string {
  return Buffer.from(hex, 'hex').toString('utf8');
}

async function* linesOf(path: string): AsyncGenerator<string, void, void> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  // It closes the file at its end.
  yield* file.readLines();
}
