import t from 'tap';
import { parseStates } from '../helpers/lfs.js';
import { detachAll, mountAt, mounts } from '../helpers/mounts.js';
import { notRoot } from '../helpers/as-user.js';
import { ok } from '../helpers/run.js';
import { StoreImage } from '../helpers/store-image.js';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

t.test('the root is mounted, a made-up path is not', (t) => {
  t.ok(mountAt('/')?.type);
  t.equal(mountAt('/no/such/mount'), undefined);
  t.ok(mounts().every(({ type, device }) => type !== '' && /^\d+:\d+$/.test(device)));
  t.end();
});

t.test(
  'mounts below a path are found under odd names and taken away',
  { skip: notRoot ?? false },
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'lustrite-mounts-'));
    t.teardown(() => rm(folder, { recursive: true }));
    const path = join(folder, 'a b\\c\nü');
    await mkdir(path);
    await ok('mount', ['-t', 'tmpfs', 'tmpfs', path]);
    await mkdir(join(path, 'inner'));
    await ok('mount', ['-t', 'tmpfs', 'tmpfs', join(path, 'inner')]);
    t.equal(mountAt(path)?.type, 'tmpfs');
    t.ok(mountAt(join(path, 'inner')));
    t.equal(await detachAll(folder), true);
    t.equal(mountAt(path), undefined);
  },
);

t.test(
  'a store image is a file system of its type and leaves nothing',
  { skip: notRoot ?? false },
  async (t) => {
    for (const type of ['tmpfs', 'ext4'] as const) {
      const image = await StoreImage.create(type, 64 * 2 ** 20);
      if (image === undefined) {
        t.comment(`no ${type} image here`);
        continue;
      }
      const parent = join(image.path, '..');
      t.equal(mountAt(parent)?.type, type);
      await image[Symbol.asyncDispose]();
      t.equal(mountAt(parent), undefined);
    }
  },
);

t.test('lines of hsm_state are read, anything else is refused', (t) => {
  t.same(
    parseStates(
      '/m/a b: (0x0000000d) released exists archived, archive_id:1\n/m/n: (0x00000000)\n/m/x: y: (0x00000020) never_archive\n',
    ),
    [
      { path: '/m/a b', flags: 13, words: ['released', 'exists', 'archived'], archiveId: 1 },
      { path: '/m/n', flags: 0, words: [] },
      { path: '/m/x: y', flags: 32, words: ['never_archive'] },
    ],
  );
  t.throws(() => parseStates('/m/a: (0xd) released'), {
    message: 'not a line of hsm_state: /m/a: (0xd) released',
  });
  t.end();
});
