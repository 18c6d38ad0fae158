/** Reads and writes at offsets of a borrowed fd; failures carry their errno. */
import { read, write, writeSync } from 'node:fs';
import { FsError } from '../base/errors.js';

/** Small enough that the copy into the page cache is cheaper than a trip to the thread pool. */
export const syncWriteBytes = 64 * 1024;

function asFsError(error: unknown, what: string): FsError {
  const errno = Math.abs((error as NodeJS.ErrnoException).errno ?? 5);
  return new FsError(errno, `${what}: ${error instanceof Error ? error.message : String(error)}`, {
    cause: error,
  });
}

/** Writes all of `bytes` at `at`, at once. For small bodies. */
export function writeFullySync(fd: number, bytes: Buffer, at: number): void {
  try {
    for (let done = 0; done < bytes.length;)
      done += writeSync(fd, bytes, done, bytes.length - done, at + done);
  } catch (error) {
    throw asFsError(error, 'write');
  }
}

/** Writes all of `bytes` at `at`. */
export async function writeFully(fd: number, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += await new Promise<number>((resolve, reject) => {
      write(fd, bytes, done, bytes.length - done, at + done, (error, count) => {
        if (error) reject(asFsError(error, 'write'));
        else resolve(count);
      });
    });
  }
}

/** Reads into `into` from `at`; resolves with fewer bytes only at the end of the file. */
export async function readFully(fd: number, into: Buffer, at: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const count = await new Promise<number>((resolve, reject) => {
      read(fd, into, done, into.length - done, at + done, (error, bytes) => {
        if (error) reject(asFsError(error, 'read'));
        else resolve(bytes);
      });
    });
    if (count === 0) break;
    done += count;
  }
  return done;
}
