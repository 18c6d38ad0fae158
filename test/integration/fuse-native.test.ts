/** The front end of the npm package: the same store and the same rules, as far as libfuse 2.9 goes. */
import {
  appendFile,
  chmod,
  constants,
  link,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
} from 'node:fs/promises';
import { rename, rm, rmdir, stat, symlink, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { HS, hsmFlags, lfs, states } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok } from '../helpers/run.js';

t.test('files are read, written and managed through fuse-native', { skip: cannotMount }, async (t) => {
  await using azurite = await Azurite.start();
  const container = await azurite.newContainer();
  const blob = (name: string) => azurite.client(container).getBlockBlobClient(name);
  await blob('a/b.txt').upload('hello', 5, { metadata: { owner: '7', group: '8', permissions: '0640' } });
  await blob('to be cut').upload('0123456789', 10);
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  await using mount = await TestMount.start(t, { container, env, frontEnd: 'fuse-native' });
  const file = mount.at('a', 'b.txt');

  t.match(await lstat(file), { size: 5, uid: 7, gid: 8, mode: 0o100640 });
  t.equal(await hsmFlags(file), states.stub, 'lfs finds the socket');
  t.equal(await readFile(file, 'utf8'), 'hello');
  t.equal(await hsmFlags(file), states.clean);
  await appendFile(file, ' more');
  t.equal(await hsmFlags(file), states.dirty);
  t.equal((await lfs(['hsm_release', file])).code, 1);
  t.equal((await lfs(['hsm_archive', file])).code, 0);
  await until(async () => (await hsmFlags(file)) === states.clean, { what: 'the archive' });
  t.equal((await blob('a/b.txt').downloadToBuffer()).toString(), 'hello more');
  t.equal((await lfs(['hsm_release', file])).code, 0);
  t.equal(await hsmFlags(file), states.stub);
  t.equal((await lfs(['hsm_set', '--norelease', file])).code, 0);
  t.equal(await hsmFlags(file), states.stub | HS.NORELEASE, 'which restores nothing');
  const attribute = await ok('getfattr', ['-e', 'hex', '-n', 'trusted.hsm', file]);
  t.match(attribute, /=0x000000001d0000000100000000000000[0-9a-f]{16}$/m);
  t.match((await lfs(['hsm_action', file])).stdout, 'NOOP');
  const unblocked = await open(file, constants.O_RDWR | constants.O_NONBLOCK);
  t.equal(await hsmFlags(file), states.stub | HS.NORELEASE, 'O_NONBLOCK waits for nothing');
  await unblocked.write('H', 0);
  await unblocked.close();
  t.equal(await readFile(file, 'utf8'), 'Hello more', 'the first write does');

  await truncate(mount.at('to be cut'), 4);
  t.equal(await readFile(mount.at('to be cut'), 'utf8'), '0123');
  t.equal(await hsmFlags(mount.at('to be cut')), states.dirty);

  await mkdir(mount.at('d', 'e'), { recursive: true, mode: 0o750 });
  t.equal((await stat(mount.at('d', 'e'))).mode & 0o777, 0o750);
  await writeFile(mount.at('d', 'new'), 'x'.repeat(300_000), { mode: 0o604 });
  t.match(await stat(mount.at('d', 'new')), { size: 300_000, mode: 0o100604 });
  await chmod(mount.at('d', 'new'), 0o600);
  await rename(mount.at('d', 'new'), mount.at('d', 'renamed'));
  await link(mount.at('d', 'renamed'), mount.at('d', 'linked'));
  await symlink('renamed', mount.at('d', 'symlink'));
  t.equal(await readlink(mount.at('d', 'symlink')), 'renamed');
  t.same((await readdir(mount.at('d'))).sort(), ['e', 'linked', 'renamed', 'symlink']);
  t.match(await stat(mount.at('d', 'symlink')), { mode: 0o100600, nlink: 2 });
  const handle = await open(mount.at('d', 'renamed'), 'r+');
  await handle.write('yy', 10);
  await handle.sync();
  await handle.close();
  t.equal((await readFile(mount.at('d', 'linked'), 'utf8')).slice(8, 14), 'xxyyxx');
  await unlink(mount.at('d', 'linked'));
  await rmdir(mount.at('d', 'e'));
  await t.rejects(rmdir(mount.at('d')), { code: 'ENOTEMPTY' });
  await rm(mount.at('d'), { recursive: true });
  t.same((await readdir(mount.path)).sort(), ['a', 'to be cut']);
  await t.rejects(readFile(mount.at('nothing')), { code: 'ENOENT' });

  await writeFile(mount.at('made'), 'made');
  t.equal((await lustrite(['export', 'create', mount.path, '--wait'])).code, 0);
  t.equal((await blob('made').downloadToBuffer()).toString(), 'made');
  t.equal((await blob('to be cut').downloadToBuffer()).toString(), '0123');
  t.equal(await hsmFlags(mount.at('made')), states.clean);
  await mount.unmount();
  t.equal(mountAt(mount.path), undefined);
  await mount.remount();
  t.equal(await hsmFlags(mount.at('made')), states.clean);
  t.equal(await readFile(mount.at('made'), 'utf8'), 'made');
});

t.test('the libfuse of the package is the one that is used', { skip: cannotMount }, async (t) => {
  await using azurite = await Azurite.start();
  const container = await azurite.newContainer();
  await azurite.client(container).getBlockBlobClient('f').upload('hello', 5);
  // A library of that name which has nothing of it comes first wherever the linker looks.
  const decoy = await mkdtemp(join(tmpdir(), 'lustrite-decoy-'));
  t.teardown(() => rm(decoy, { recursive: true, force: true }));
  const source = join(decoy, 'decoy.c');
  await writeFile(source, 'int decoy;');
  for (const name of ['libfuse.so.2', 'libfuse.so'])
    await ok('cc', ['-shared', '-fPIC', `-Wl,-soname,${name}`, '-o', join(decoy, name), source]);
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString, LD_LIBRARY_PATH: decoy };
  await using mount = await TestMount.start(t, { container, env, frontEnd: 'fuse-native' });
  t.equal(await readFile(mount.at('f'), 'utf8'), 'hello');
});
