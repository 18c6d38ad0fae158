/** `mount -t lustrite` and lines of fstab, by the real mount(8). */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { Host } from '../helpers/host.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run, type Ended } from '../helpers/run.js';

const helper = fileURLToPath(new URL('../../scripts/mount.lustrite', import.meta.url));

t.test('mount(8) mounts a container', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  await azurite.service.createContainer('data');
  await azurite.service.getContainerClient('data').getBlockBlobClient('a/b.txt').upload('content\n', 8);
  // The host's own helper, if it has one, stays: mount(8) looks for the type that it is told.
  const type = `lustrite-test-${randomUUID()}`;
  const link = `/sbin/mount.${type}`;
  await symlink(helper, link);
  t.teardown(() => rm(link, { force: true }));

  async function fstab(options: string, source = 'data') {
    const host = await Host.create(t, {});
    const credentials = host.at('..', 'credentials');
    await writeFile(credentials, `AZURE_STORAGE_CONNECTION_STRING=${azurite.connectionString}\n`, {
      mode: 0o600,
    });
    const table = host.at('..', 'fstab');
    const line = `${source} ${host.mnt} ${type} store=${host.store},credentials-file=${credentials},${options} 0 0\n`;
    await writeFile(table, line);
    const mount = (...args: readonly string[]): Promise<Ended> =>
      run('mount', ['-T', table, ...args], { env: {} });
    return { host, mount, table };
  }

  t.test('a line of fstab is mounted with its settings and attributes', async (t) => {
    const { host, mount } = await fstab('noauto,_netdev,nofail,x-systemd.automount,uid=1000,noexec,noatime');
    t.match(await mount(host.mnt), { code: 0, stdout: '' });
    const { options } = mountAt(host.mnt) ?? { options: '' };
    for (const option of ['rw', 'nosuid', 'nodev', 'noexec', 'noatime'])
      t.ok(options.split(',').includes(option), option);
    t.equal((await host.lustrite('import', 'show', host.mnt, 'importJobInitialAmlfsPut')).code, 0);
    await host.lustrite('import', 'create', host.mnt, '--wait');
    t.equal(await readFile(host.at('a', 'b.txt'), 'utf8'), 'content\n');
    t.equal((await run('stat', ['-c', '%u', host.at('a', 'b.txt')])).stdout, '1000\n');

    t.match(await mount(host.mnt), { code: 32, stderr: /is mounted already/ }, 'twice');
    t.equal((await host.umount()).code, 0);
  });

  t.test('a remount changes ro and rw of the mount that is there', async (t) => {
    const { host, mount } = await fstab('noauto');
    t.match(
      await mount('-o', 'remount,ro', host.mnt),
      { code: 32, stderr: /nothing to remount/ },
      'none is there',
    );
    t.equal((await mount(host.mnt)).code, 0);
    t.match(await mount('-o', 'remount,ro', host.mnt), {
      code: 0,
      stderr: /settings stay as they were mounted/,
    });
    await t.rejects(writeFile(host.at('new'), ''), { code: 'EROFS' });
    t.equal((await mount('-o', 'remount,rw', host.mnt)).code, 0);
    await writeFile(host.at('new'), '');
    t.match(mountAt(host.mnt)?.options, /nosuid,nodev/, 'still');
    t.equal((await host.umount()).code, 0);
  });

  t.test('what was mounted read-only is not remounted to be written', async (t) => {
    const { host, mount } = await fstab('ro');
    t.equal((await mount(host.mnt)).code, 0);
    await t.rejects(writeFile(host.at('new'), ''), { code: 'EROFS' });
    t.match(await mount('-o', 'remount,rw', host.mnt), { code: 32, stderr: /was mounted read-only.*umount/ });
    await t.rejects(writeFile(host.at('new'), ''), { code: 'EROFS' });
    t.equal((await host.umount()).code, 0);
  });

  t.test("'none' is the container of the store", async (t) => {
    const { host, mount, table } = await fstab('noauto');
    t.equal((await mount(host.mnt)).code, 0);
    t.equal((await host.umount()).code, 0);
    await writeFile(table, (await readFile(table, 'utf8')).replace(/^data/, 'none'));
    t.equal((await mount(host.mnt)).code, 0);
    t.equal((await host.status()).container.includes('data'), true);
    t.equal((await host.umount()).code, 0);
  });

  t.test('nobody is served without the attributes that were asked for', async (t) => {
    const { host, table } = await fstab('noauto');
    const [, , , options = ''] = (await readFile(table, 'utf8')).split(' ');
    // A mount(8) that refuses them.
    const bin = host.at('..', 'bin');
    await mkdir(bin);
    await writeFile(`${bin}/mount`, '#!/bin/sh\necho refused >&2; exit 32\n', { mode: 0o755 });
    const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` };
    const args = ['data', host.mnt, '-o', `${options},noexec`];
    t.match(await run(helper, args, { env }), { code: 32, stderr: /noexec.*: refused/ });
    await until(() => mountAt(host.mnt) === undefined, { what: 'the mount to be gone' });
    t.equal((await run(helper, ['data', host.mnt, '-o', options])).code, 0, 'another one can follow');
    t.equal((await host.umount()).code, 0);
  });

  t.test("a call that is wrong and a mount that fails have mount's exit codes", async (t) => {
    const { host, mount, table } = await fstab('noauto,tsore=/a');
    t.match(await mount(host.mnt), { code: 1, stderr: /tsore=\/a: no such option/ });
    await writeFile(table, (await readFile(table, 'utf8')).replace(',tsore=/a', ',container=other'));
    t.match(await mount(host.mnt), { code: 1, stderr: /container=other: .* is 'data' already/ }, 'two');
    t.equal(mountAt(host.mnt), undefined);
    await writeFile(table, (await readFile(table, 'utf8')).replace(',container=other', ''));
    t.match(await mount('-f', host.mnt), { code: 0 }, 'fake');
    t.equal(mountAt(host.mnt), undefined);
    await writeFile(table, (await readFile(table, 'utf8')).replace(/^data/, 'missing'));
    t.match(await mount(host.mnt), { code: 32, stderr: /missing/ });
    t.equal(mountAt(host.mnt), undefined);
  });
});
