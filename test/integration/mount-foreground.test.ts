/** The daemon in the foreground, and jobs from the command line. */
import { open, readFile, writeFile } from 'node:fs/promises';
import t from 'tap';
import { isRunning, startTimeOf } from '../../src/base/processes.js';
import { Azurite } from '../helpers/azurite.js';
import { Host } from '../helpers/host.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run } from '../helpers/run.js';

t.test('the daemon in the foreground, and jobs', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  for (const name of ['data', 'logs', 'other']) await azurite.service.createContainer(name);
  const data = azurite.service.getContainerClient('data');
  const metadata = { owner: '1000', group: '100', permissions: '0640', modtime: '2023-03-17 15:00:11 +0000' };
  await data.getBlockBlobClient('a/b.txt').upload('content\n', 8, { metadata });

  t.test(
    'in the foreground, SIGTERM unmounts and exits 0; an umount from outside ends it, too',
    async (t) => {
      const mount = await TestMount.start(t, { container: 'data', env });
      t.equal(await readFile(mount.at('a/b.txt'), 'utf8'), 'content\n');
      process.kill(mount.pid, 'SIGTERM');
      t.match(await mount.ended(), { code: 0, signal: null });
      t.equal(mountAt(mount.path), undefined);
      await mount.remount();
      t.equal((await run('umount', [mount.path])).code, 0);
      t.match(await mount.ended(), { code: 0, signal: null });
      await mount.remount();
      await mount.unmount();
    },
  );

  t.test('SIGTERM does not wait for ever for open files', async (t) => {
    const mount = await TestMount.start(t, { container: 'data', env });
    const handle = await open(mount.at('a/b.txt'));
    process.kill(mount.pid, 'SIGTERM');
    await until(() => mountAt(mount.path) === undefined, { what: 'the mount to be detached' });
    const ended = mount.ended();
    await handle.close();
    t.match(await ended, { code: 0, signal: null });
  });

  t.test('the fuse-native front end comes and goes the same way', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--front-end', 'fuse-native', '--wait')).code, 0);
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n');
    const { pid, frontEnd, passthrough } = await host.status();
    t.same({ frontEnd, passthrough }, { frontEnd: 'fuse-native', passthrough: false });
    const startTime = startTimeOf(pid) ?? '';
    t.match(await host.umount(), { code: 0, stdout: `${host.mnt} unmounted\n` });
    t.notOk(isRunning({ pid, startTime }), 'the daemon is gone');
  });

  t.test('jobs are created, shown and listed', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    await writeFile(host.at('out.txt'), 'result\n');
    const created = await host.lustrite('export', 'create', host.mnt, '--name', 'first-export', '--wait');
    t.match(created, { code: 0, stdout: /^export first-export Completed: 1 file exported/ });
    t.equal((await data.getBlockBlobClient('out.txt').downloadToBuffer()).toString(), 'result\n');
    const shown = await host.lustrite('export', 'show', host.mnt, '--json');
    t.match(JSON.parse(shown.stdout), {
      kind: 'export',
      name: 'first-export',
      properties: { filesystemPath: '/' },
    });
    const listed = await host.lustrite('jobs', 'list', host.mnt);
    t.match(listed.stdout, /import +importJobInitialAmlfsPut Completed.*\nexport +first-export Completed/);
    t.match(await host.lustrite('export', 'show', host.mnt, 'nope'), {
      code: 1,
      stderr: /no export job 'nope'/,
    });
    t.match(await host.lustrite('export', 'cancel', host.mnt), { code: 1, stderr: /already Completed/ });
    t.match(await host.lustrite('export', 'create', host.mnt, '--name', '-'), {
      code: 1,
      stderr: /name: must be 2 to 80/,
    });
    const imported = await host.lustrite('import', 'create', host.mnt, '--prefix', 'a/', '--wait');
    t.match(imported, { code: 0, stdout: /^import import-\w+ Completed/ });
    t.equal((await host.umount()).code, 0);
    await data.deleteBlob('out.txt');
  });
});
