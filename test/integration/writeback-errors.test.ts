/** The disk of the store takes a write and loses it afterwards: whoever asks hears of it, each once, as on any file system. */
import { existsSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { cannotMount } from '../helpers/mounts.js';
import { NativeMount } from '../helpers/native-mount.js';
import { until } from '../helpers/poll.js';
import { ok, run } from '../helpers/run.js';
import { ThinDisk } from '../helpers/thin-disk.js';

const skip = cannotMount || (existsSync('/dev/loop-control') ? false : 'there are no loop devices');

/** Two handles; one writes what the disk cannot take, then each syncs as it is told to; prints what they hear. */
const writers = `
import errno, os, sys
path, *syncs = sys.argv[1:]
handles = {name: os.open(path, os.O_RDWR) for name in ("writer", "other")}
os.pwrite(handles["writer"], os.urandom(4 << 20), 4096)
for sync in syncs:
    name, how = sync.split(".")
    try:
        getattr(os, how)(handles[name])
        print(sync, "ok")
    except OSError as error:
        print(sync, errno.errorcode[error.errno])
`;

for (const passthrough of [true, false]) {
  const mode = passthrough ? 'passthrough' : 'cached';

  void t.test(
    `${mode}: every handle that is open for writing hears of a failed writeback, once`,
    { skip },
    async (t) => {
      await using disk = await ThinDisk.create();
      await using mount = await NativeMount.start({ passthrough, store: disk.path });
      t.equal(mount.passthrough, passthrough);
      const file = join(mount.path, 'f');
      await writeFile(file, 'x');
      await disk.useUp();
      const syncs = ['writer.fsync', 'other.fdatasync', 'other.fsync', 'writer.fsync'];
      t.same((await ok('python3', ['-c', writers, file, ...syncs])).split('\n').filter(Boolean), [
        'writer.fsync ENOSPC',
        'other.fdatasync ENOSPC',
        'other.fsync ok',
        'writer.fsync ok',
      ]);
    },
  );
}

void t.test(
  'rule 6: data that the disk has lost is no restore, also when others have synced the disk since',
  { skip },
  async (t) => {
    await using disk = await ThinDisk.create();
    await using mount = await NativeMount.start({ store: disk.path });
    const size = 300_000;
    const content = Buffer.alloc(size, 'c');
    // Each half is enough for a group that is synced together.
    const names = Array.from({ length: 24 }, (_, i) => `f${i}`);
    for (const name of names) await writeFile(join(mount.source, name), content);
    await mount.stubs(names, size);
    await disk.useUp();
    await mount.call('holdEnds');
    const readers = names.map((name) => run('cat', [join(mount.path, name)]));
    const heldEnds = (count: number): Promise<boolean> =>
      until(async () => (await mount.call('heldEnds')) === count, {
        what: `${count} restores to be at their end`,
      });
    await heldEnds(24);
    for (const half of [0, 1]) {
      await mount.call('goEnds', 12);
      await until(
        async () => {
          const states = await Promise.all(names.map((name) => mount.call('state', name)));
          return states.filter(({ restoring }) => restoring).length === 12 * (1 - half);
        },
        { what: '12 restores to be over' },
      );
    }
    for (const reader of readers) t.match(await reader, { code: 1, stderr: /No data available/ });
    for (const name of names) t.equal((await mount.call('state', name)).flags & 4, 4, `${name} is a stub`);
  },
);

/** What a writer that did not sync has lost, and who hears of it in which order, each by a new open of the file. */
const lost = [
  {
    title: 'a lost write ends one archive, and the fsync of one who opens the file later',
    heard: ['archive ENOSPC', 'fsync ENOSPC', 'fsync ok', 'archive clean'],
  },
  {
    title: 'a lost write that an application has been told of ends one archive all the same',
    heard: ['fsync ENOSPC', 'fsync ok', 'archive ENOSPC', 'archive clean'],
  },
  {
    title: 'a lost write is no concern of an archive once the file was emptied',
    heard: ['truncate', 'archive clean'],
  },
] as const;

for (const { title, heard } of lost) {
  void t.test(title, { skip }, async (t) => {
    await using disk = await ThinDisk.create();
    await using mount = await NativeMount.start({ store: disk.path });
    const file = join(mount.path, 'f');
    await writeFile(file, 'x');
    t.equal(await mount.call('archive', 'f'), 'clean');
    await disk.useUp();
    await ok('python3', ['-c', writers, file]);
    await until(async () => ((await mount.call('state', 'f')).flags & 2) !== 0, { what: 'it to be dirty' });
    const outcome: Record<string, () => Promise<string>> = {
      fsync: async () =>
        (await run('sync', [file])).stderr.includes('No space left') ? 'fsync ENOSPC' : 'fsync ok',
      archive: () =>
        mount.call('archive', 'f').then(
          (state) => `archive ${state}`,
          (error: unknown) => `archive ${(error as NodeJS.ErrnoException).code ?? String(error)}`,
        ),
      truncate: async () => {
        await truncate(file, 0);
        return 'truncate';
      },
    };
    for (const expected of heard) {
      t.equal(await outcome[expected.split(' ')[0] ?? '']?.(), expected);
    }
  });
}
