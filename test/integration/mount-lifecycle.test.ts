/** mount, umount and status through the real command line, a real daemon and a real mount. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { isRunning, startTimeOf } from '../../src/base/processes.js';
import { Azurite } from '../helpers/azurite.js';
import { Host, nobodyCannotRun } from '../helpers/host.js';
import { lustriteAsNobody } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run } from '../helpers/run.js';

t.test('life of a mount', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  for (const name of ['data', 'logs', 'other']) await azurite.service.createContainer(name);
  const data = azurite.service.getContainerClient('data');
  const metadata = { owner: '1000', group: '100', permissions: '0640', modtime: '2023-03-17 15:00:11 +0000' };
  await data.getBlockBlobClient('a/b.txt').upload('content\n', 8, { metadata });

  t.test('a mount is usable when the command returns, and gone when umount returns', async (t) => {
    const host = await Host.create(t, env);
    const mounted = await host.mount('--wait');
    t.match(
      mounted,
      { code: 0, stdout: /data is mounted on .*\nimport importJobInitialAmlfsPut Completed/ },
      'mounted',
    );
    t.match(mounted.stderr, /no --logging-container: the logs of jobs stay in/);
    const { size, uid, gid, mode, mtimeMs } = await stat(host.at('a/b.txt'));
    t.match({ size, uid, gid, mode: mode & 0o7777, mtimeMs }, { size: 8, uid: 1000, gid: 100, mode: 0o640, mtimeMs: 1679065211000 }); // prettier-ignore
    const status = await host.status();
    t.match(status, {
      frontEnd: 'native',
      loggingContainer: null,
      census: { files: 1, released: 1, resident: 0 },
    });
    t.type(status.passthrough, 'boolean');
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n');
    t.match((await host.lustrite('status')).stdout, host.mnt);

    const startTime = startTimeOf(status.pid) ?? '';
    t.ok(isRunning({ pid: status.pid, startTime }));
    const ended = await host.umount();
    t.match(ended, { code: 0, stdout: `${host.mnt} unmounted\n` });
    t.notOk(isRunning({ pid: status.pid, startTime }), 'the daemon is gone');
    t.equal(mountAt(host.mnt), undefined);
    const locked = await run('flock', ['--nonblock', join(host.store, 'lock'), 'true']);
    t.equal(locked.code, 0, 'the lock of the store is free');

    const again = await host.lustrite('mount', host.mnt, '--store', host.store);
    t.equal(again.code, 0, 'the first mount is remembered, the container too');
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n');
    t.equal((await host.umount()).code, 0);
  });

  t.test(
    'another user than root is told to ask as root, and never that a mount is dead or absent',
    { skip: await nobodyCannotRun() },
    async (t) => {
      const host = await Host.create(t, env);
      t.equal((await host.mount()).code, 0);
      const commands = ['umount', 'umount --lazy', 'jobs list', 'import show', 'export create', 'status'].map(
        (words) => [...words.split(' '), host.mnt],
      );
      commands.push(['status']);
      for (const command of commands) {
        const asked = await lustriteAsNobody(command, env);
        t.match(
          asked,
          { code: 1, stdout: '', stderr: /^lustrite: only root may .*sudo.*\n$/ },
          command.join(' '),
        );
        t.notMatch(asked.stderr, /dead|gone|nothing is mounted|not mounted/, command.join(' '));
      }
      t.equal((await host.umount()).code, 0);
    },
  );

  t.test('one mount point has one mount, and one store one daemon', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount()).code, 0);
    const twice = await host.mount();
    t.match(twice, { code: 1, stderr: /is mounted already: .*data, store .*pid \d+/ });
    const elsewhere = join(host.folder, 'elsewhere');
    await mkdir(elsewhere);
    const shared = await host.lustrite('mount', elsewhere, '--container', 'data', '--store', host.store);
    t.match(shared, { code: 1, stderr: /is in use by the mount .*pid \d+/ });
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n', 'the first one lives on');
    t.equal((await host.umount()).code, 0);

    const both = await Promise.all([host.mount(), host.mount()]);
    t.same(both.map(({ code }) => code).sort(), [0, 1], 'two at the same moment: one wins');
    t.equal((await host.umount()).code, 0);
    t.equal(mountAt(host.mnt), undefined);
  });

  t.test('a killed daemon leaves a dead mount, which mount heals and umount removes', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    await writeFile(host.at('new.txt'), 'not exported\n');
    const handle = await open(host.at('new.txt'), 'r+');
    await handle.sync();
    await handle.close();
    for (const heal of ['mount', 'umount'] as const) {
      const { pid } = await host.status();
      const startTime = startTimeOf(pid) ?? '';
      process.kill(pid, 'SIGKILL');
      await until(() => !isRunning({ pid, startTime }), { what: 'the daemon to die' });
      const status = await host.lustrite('status', host.mnt);
      t.match(status, { code: 1, stderr: /the daemon of .* is gone/ });
      const all = await host.lustrite('status', '--json');
      t.match(
        all,
        { code: 0, stderr: `the daemon of ${host.mnt} is gone: mount it again` },
        'in the list, too',
      );
      t.ok((JSON.parse(all.stdout) as readonly object[]).some((one) => isDeepStrictEqual(one, { mountPoint: host.mnt, dead: true }))); // prettier-ignore
      if (heal === 'umount') break;
      const again = await host.mount();
      t.match(again, { code: 0, stderr: /removed the dead mount/ });
      t.equal(await readFile(host.at('new.txt'), 'utf8'), 'not exported\n');
    }
    t.match(await host.umount(), { code: 0, stdout: /its daemon was gone already/ });
    t.equal(mountAt(host.mnt), undefined);
    const waited = await host.mount('--wait');
    t.match(waited, { code: 0, stdout: /nothing was imported/ }, 'the store is whole, its first import over');
    t.equal(await readFile(host.at('new.txt'), 'utf8'), 'not exported\n');
    t.equal((await host.umount()).code, 0);
  });

  t.test('umount refuses while somebody uses the mount, names who, and --lazy does not mind', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    await mkdir(host.at('dir'));
    const script = `exec 3<"$1/a/b.txt"; cd "$1/dir"; echo ready; read -r _`;
    const child = spawn('sh', ['-c', script, 'sh', host.mnt], { stdio: ['pipe', 'pipe', 'inherit'] });
    t.teardown(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    const refused = await host.umount();
    t.match(refused, { code: 1, stderr: new RegExp(`is in use.*\\n +pid ${child.pid ?? '?'} \\(sh\\): working directory .*/dir`) }); // prettier-ignore
    t.ok(mountAt(host.mnt), 'still mounted');
    const { pid } = await host.status();
    const startTime = startTimeOf(pid) ?? '';
    const lazy = await host.umount('--lazy');
    t.match(lazy, { code: 0, stderr: /still open: the daemon \(pid \d+\)/ });
    t.equal(mountAt(host.mnt), undefined);
    const leaves = `${host.mnt} was unmounted lazily: its daemon (pid ${pid}) serves the files that are still open`;
    t.match(await host.lustrite('status', host.mnt), { code: 1, stderr: leaves });
    t.match(await host.lustrite('status'), {
      stdout: `${host.mnt} (unmounted lazily; files are still open)`,
    });
    t.match(await host.mount(), { code: 1, stderr: `the store ${host.store} is in use: ${leaves}` });
    child.stdin.end('\n');
    await until(() => !isRunning({ pid, startTime }), {
      what: 'the daemon to end after the last file was closed',
    });
    t.equal((await host.mount()).code, 0);
    t.equal((await host.umount()).code, 0);
  });

  t.test('umount lists what the container does not have, and does not mind', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    for (let i = 0; i < 24; i++) await writeFile(host.at(`new-${String(i).padStart(2, '0')}`), 'x');
    await writeFile(host.at('a/b.txt'), 'changed\n');
    const ended = await host.umount();
    t.equal(ended.code, 0);
    t.match(ended.stdout, /25 files have changes that the container does not have; they are kept in /);
    t.equal(ended.stdout.split('\n').filter((line) => /^ {2}(?:new-|a\/b)/.test(line)).length, 20);
    t.match(ended.stdout, /… and 5 more/);
    t.equal((await host.mount()).code, 0);
    t.match((await host.status()).census, { dirty: 1, new: 24 });
    const json = await host.umount('--json');
    t.match(JSON.parse(json.stdout), { mountPoint: host.mnt, dirty: { count: 25 }, lingering: false });
  });
});
