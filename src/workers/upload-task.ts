/** Uploads an open file as one blob. */
import { BlobError } from '../base/errors.js';
import { ByteBudget } from '../blob/byte-budget.js';
import type { BlobConnection } from '../blob/connection.js';
import { uploadBlob } from '../blob/upload.js';
import { readFully } from './file-io.js';
import type { UploadResult, UploadTask } from './messages.js';

/** What the buffers of all uploads of one thread may hold together. */
const memory = new ByteBudget(128 * 1024 ** 2);

export interface UploadHooks {
  readonly onProgress: (bytes: number) => void;
  readonly beforeCommit: () => Promise<boolean>;
  readonly signal: AbortSignal;
}

/** Sends the first `task.size` bytes of `task.fd`; rejects with `aborted` when the file turns out shorter. */
export async function upload(
  task: Omit<UploadTask, 'kind' | 'port' | 'container'>,
  connection: BlobConnection,
  hooks: UploadHooks,
): Promise<UploadResult> {
  const version = await uploadBlob(
    connection,
    task.blob,
    task.size,
    async (offset, count) => {
      const bytes = Buffer.allocUnsafe(count);
      if ((await readFully(task.fd, bytes, offset)) !== count) {
        throw new BlobError('aborted', `write of ${task.blob}: the file became shorter while it was read`);
      }
      return bytes;
    },
    {
      memory,
      metadata: task.metadata,
      blockBytes: task.blockBytes,
      parallelBlocks: task.parallelBlocks,
      onProgress: hooks.onProgress,
      beforeCommit: hooks.beforeCommit,
      signal: hooks.signal,
      ...(task.headers && { headers: task.headers }),
      ...(task.tier !== undefined && { tier: task.tier }),
      ...(task.ifMatch !== undefined && { ifMatch: task.ifMatch }),
      ...(task.ifNoneMatch !== undefined && { ifNoneMatch: task.ifNoneMatch }),
    },
  );
  return { version };
}
