import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';

/** Every file's `datasync`, until the test is over or the answer is called. */
export async function datasyncIs(t: Test, datasync: () => Promise<void>): Promise<() => void> {
  const folder = await mkdtemp(join(tmpdir(), 'lustrite-datasync-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await using file = await open(join(folder, 'any'), 'w');
  const prototype = Object.getPrototypeOf(file) as FileHandle;
  const own = Object.getOwnPropertyDescriptor(prototype, 'datasync') ?? {};
  const restore = (): void => {
    Object.defineProperty(prototype, 'datasync', own);
  };
  t.teardown(restore);
  prototype.datasync = datasync;
  return restore;
}
