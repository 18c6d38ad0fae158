/** Paths of Unix sockets of any length: the kernel takes 107 bytes, so a longer one is reached through its directory's fd. */
import { closeSync, constants, openSync } from 'node:fs';
import { basename, dirname } from 'node:path';

const limit = 100;

/** A path that bind and connect accept, good until `close`. */
export function socketAddress(path: string): { readonly path: string; close(): void } {
  if (Buffer.byteLength(path) <= limit) return { path, close: () => undefined };
  const fd = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${fd}/${basename(path)}`, close: () => closeSync(fd) };
}
