/** The daemon in the foreground, and jobs from the command line. */
import { open, readFile, writeFile } from 'node:fs/promises';
import t from 'tap';
import { isRunning, startTimeOf } from '../../src/base/processes.js';
import { Azurite } from '../helpers/azurite.js';
import { Host } from '../helpers/host.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, run } from '../helpers/run.js';

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

  t.test(
    'Ctrl-C names who has files open; a second one unmounts lazily and goes on serving them',
    async (t) => {
      const mount = await TestMount.start(t, { container: 'data', env });
      const handle = await open(mount.at('a/b.txt'), 'r+');
      process.kill(mount.pid, 'SIGINT');
      const holder = `pid ${process.pid} (`;
      await until(() => mount.log().includes(holder), { what: 'the holder to be named' });
      t.match(mount.log(), new RegExp(`is in use; .* Ctrl-C again .*\\n +pid ${process.pid} \\(.*\\): open file .*/a/b\\.txt`)); // prettier-ignore
      t.ok(mountAt(mount.path), 'and stays mounted meanwhile');
      process.kill(mount.pid, 'SIGINT');
      await until(() => mount.log().includes('files are still open, and are served'), { what: 'the lazy unmount to be told' }); // prettier-ignore
      t.equal(mountAt(mount.path), undefined);
      t.equal((await handle.read(Buffer.alloc(8), 0, 8, 0)).bytesRead, 8, 'its first read restores the file');
      await handle.write('CONTENT', 0);
      await handle.close();
      t.match(await mount.ended(), { code: 0, signal: null });
      await mount.remount();
      t.equal(await readFile(mount.at('a/b.txt'), 'utf8'), 'CONTENT\n');
    },
  );

  t.test('a third signal ends the daemon whatever is open, and no mount of somebody else', async (t) => {
    const mount = await TestMount.start(t, { container: 'data', env });
    const handle = await open(mount.at('a/b.txt'));
    process.kill(mount.pid, 'SIGINT');
    await until(() => mount.log().includes('is in use; '), { what: 'the first signal' });
    process.kill(mount.pid, 'SIGTERM');
    await until(() => mount.log().includes('files are still open, and'), { what: 'the second signal' });
    await ok('mount', ['-t', 'tmpfs', 'tmpfs', mount.path]);
    process.kill(mount.pid, 'SIGINT');
    t.match(await mount.ended(), { code: 0, signal: null });
    t.equal(mountAt(mount.path)?.type, 'tmpfs');
    await t.rejects(handle.read(Buffer.alloc(1), 0, 1, 0), { code: 'ENOTCONN' });
    await handle.close();
  });

  t.test('a mount that fails in the foreground prints its cause and nothing else', async (t) => {
    const host = await Host.create(t, env);
    const ended = await host.mount('--container', 'missing', '--foreground');
    t.equal(ended.code, 1);
    t.match(ended.stderr, /^lustrite: [^\n]*missing[^\n]*\n$/);
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
    t.match(
      listed.stdout,
      /import +importJobInitialAmlfsPut +Completed +\d{4}-.*\nexport +first-export +Completed +\d{4}-/,
    );
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
    t.match(imported, {
      code: 0,
      stdout: /^import import-\w+ Completed: 0 of 1 blob imported, 1 there already/,
    });
    const typo = await host.lustrite('import', 'create', host.mnt, '--prefix', 'b/', '--wait');
    t.match(typo, { code: 0, stderr: "lustrite: no blob has a name that begins with 'b/'\n" });
    const nowhere = await host.lustrite('export', 'create', host.mnt, '--path', '/b', '--wait');
    t.match(nowhere, { code: 0, stderr: /nothing whose path begins with '\/b' is new or changed/ });
    const file = await host.lustrite('export', 'create', host.mnt, '--path', '/a/b.txt/', '--wait');
    t.match(file, { code: 0, stderr: /nothing whose path begins with '\/a\/b.txt\/' is new or changed/ });
    t.equal((await host.umount()).code, 0);
    await data.deleteBlob('out.txt');
  });
});
