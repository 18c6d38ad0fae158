/** Puts a tree into a container as the copytool of Azure Managed Lustre does; not by lustrite's own code. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlobDownloadResponseParsed, ContainerClient } from '@azure/storage-blob';
import type { Entry, Tree } from './tree.js';

const parallel = 16;
/** Bigger ones go in blocks. */
const blockBytes = 8 * 1024 ** 2;

/** Uploads everything of `tree`, which is what `readTree(root)` found: contents, directory stubs and symlinks. */
export async function uploadTree(root: string, tree: Tree, container: ContainerClient): Promise<void> {
  const left = [...tree];
  const worker = async (): Promise<void> => {
    for (let next = left.pop(); next !== undefined; next = left.pop()) {
      const [path, entry] = next;
      const client = container.getBlockBlobClient(path);
      const metadata = copytoolMetadata(entry);
      if (entry.kind === 'file' && entry.size > blockBytes) {
        await client.uploadFile(join(root, path), {
          metadata,
          blockSize: blockBytes,
          maxSingleShotSize: blockBytes,
        });
        continue;
      }
      const body = entry.kind === 'file' ? await readFile(join(root, path)) : Buffer.from(entry.target ?? '');
      await client.upload(body, body.length, { metadata });
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

/** Metadata with a four-digit octal mode and the time as Go prints it, whole seconds. */
export function copytoolMetadata(entry: Entry): Record<string, string> {
  const time = new Date(entry.mtime * 1000).toISOString();
  return {
    owner: String(entry.uid),
    group: String(entry.gid),
    modtime: `${time.slice(0, 10)} ${time.slice(11, 19)} +0000`,
    ...(entry.kind !== 'symlink' && { permissions: (entry.mode & 0o1777).toString(8).padStart(4, '0') }),
    ...(entry.kind === 'directory' && { hdi_isfolder: 'true' }),
    ...(entry.kind === 'symlink' && { is_symlink: 'true', ftype: 'LNK' }),
  };
}

/** Content and metadata of a blob, as another client of the account sees them. */
export async function download(
  container: ContainerClient,
  blob: string,
): Promise<{ readonly body: Buffer; readonly metadata: Readonly<Record<string, string>> }> {
  const client = container.getBlockBlobClient(blob);
  const answer: BlobDownloadResponseParsed = await client.download();
  const parts: Buffer[] = [];
  for await (const part of answer.readableStreamBody ?? []) parts.push(Buffer.from(part));
  return { body: Buffer.concat(parts), metadata: answer.metadata ?? {} };
}
