/** Small files that are either the old or the new version, never a part of one. */
import { open, rename } from 'node:fs/promises';
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
  } finally {
    await file.close();
  }
  await rename(next, path);
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
