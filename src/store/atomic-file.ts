/** Small files that are either the old or the new version, never a part of one. */
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Replaces `path` by `text`. `durable`: on disk when it resolves; otherwise it survives a crash of the daemon only. */
export async function replaceFile(
  path: string,
  text: string,
  options: { readonly durable: boolean },
): Promise<void> {
  const next = `${path}.new`;
  const file = await open(next, 'w', 0o600);
  try {
    await file.writeFile(text);
    if (options.durable) await file.sync();
    await rename(next, path);
  } catch (error) {
    // On a disk that is full it would keep what room there is.
    await rm(next, { force: true });
    throw error;
  } finally {
    await file.close();
  }
  if (options.durable) await syncDirectory(dirname(path));
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
