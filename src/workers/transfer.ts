/** Runs one transfer task: its port, its cancellation, its failure as data. */
import { BlobError, FsError, messageChain } from '../base/errors.js';
import { BlobConnection } from '../blob/connection.js';
import type { ContainerConfig } from '../blob/port.js';
import { FastBlobReader } from '../blob/reader.js';
import { download } from './download.js';
import type {
  Control,
  DownloadResult,
  Progress,
  Ready,
  TransferFailure,
  TransferTask,
  UploadResult,
} from './messages.js';
import { upload } from './upload-task.js';

interface Opened {
  readonly connection: BlobConnection;
  readonly reader: FastBlobReader;
}

/** One connection a container and thread: keep-alive sockets and tokens are shared by its transfers. */
const opened = new Map<string, Opened>();

function open(config: ContainerConfig): Opened {
  const key = JSON.stringify(config);
  let found = opened.get(key);
  if (!found) {
    const connection = new BlobConnection(config);
    found = { connection, reader: new FastBlobReader(connection) };
    opened.set(key, found);
  }
  return found;
}

/** Closes the connections of this thread. */
export async function closeConnections(): Promise<void> {
  const all = [...opened.values()];
  opened.clear();
  await Promise.all(all.map(({ connection }) => connection.close()));
}

/**
 * Runs `task` and answers on its port. Resolves also when the transfer failed (with the failure) or was cancelled,
 * and only when it touches the file no more. The port stays open: its other end closes it.
 */
export async function runTransfer(
  task: TransferTask,
): Promise<DownloadResult | UploadResult | TransferFailure> {
  const controller = new AbortController();
  let answer: ((proceed: boolean) => void) | undefined;
  const onControl = (message: Control): void => {
    if ('cancel' in message) {
      controller.abort();
      answer?.(false);
    } else {
      answer?.(message.proceed);
    }
  };
  task.port.on('message', onControl);
  const onProgress = (bytes: number): void => {
    // The answer follows the last byte at once and says as much: for a small file that is a message less of two.
    if (bytes < task.size) task.port.postMessage({ bytes } satisfies Progress);
  };
  try {
    const { connection, reader } = open(task.container);
    if (task.kind === 'download')
      return await download(task, reader, { onProgress, signal: controller.signal });
    return await upload(task, connection, {
      onProgress,
      signal: controller.signal,
      beforeCommit: () => {
        if (controller.signal.aborted) return Promise.resolve(false);
        return new Promise<boolean>((resolve) => {
          answer = resolve;
          task.port.postMessage({ ready: true } satisfies Ready);
        });
      },
    });
  } catch (error) {
    return { failure: asFailure(error) };
  } finally {
    task.port.off('message', onControl);
    task.port.unref();
  }
}

/** An error as plain data. */
export function asFailure(error: unknown): TransferFailure['failure'] {
  const message = messageChain(error);
  if (error instanceof FsError) return { kind: 'other', message, errno: error.errno };
  if (error instanceof BlobError) {
    return { kind: error.kind, message, status: error.status, serviceCode: error.serviceCode };
  }
  return { kind: 'other', message };
}
