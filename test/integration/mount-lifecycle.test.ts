/** mount, umount and status through the real command line, a real daemon and a real mount. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isRunning, startTimeOf } from '../../src/base/processes.js';
import { Azurite } from '../helpers/azurite.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount, detachAll, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run, type Ended } from '../helpers/run.js';

interface Status {
  readonly pid: number;
  readonly frontEnd: string;
  readonly passthrough: boolean;
  readonly census: Readonly<Record<string, number>>;
  readonly container: string;
  readonly loggingContainer: string | null;
}

/** A mount by `lustrite mount` in the background, as a user has it, in a folder of its own. */
class Host {
  readonly folder: string;
  readonly mnt: string;
  readonly store: string;
  readonly env: Readonly<Record<string, string | undefined>>;

  private constructor(folder: string, env: Host['env']) {
    this.folder = folder;
    this.env = env;
    this.mnt = join(folder, 'mnt');
    this.store = join(folder, 'store');
  }

  static async create(t: Test, env: Host['env']): Promise<Host> {
    const host = new Host(await mkdtemp(join(tmpdir(), 'lustrite-life-')), env);
    await mkdir(host.mnt);
    t.teardown(async () => {
      if (mountAt(host.mnt) !== undefined) await host.lustrite('umount', host.mnt, '--lazy');
      if (!t.passing()) t.comment(`daemon.log:\n${await host.log()}`);
      if (await detachAll(host.folder)) await rm(host.folder, { recursive: true, force: true });
    });
    return host;
  }

  lustrite(...args: readonly string[]): Promise<Ended> {
    return lustrite(args, { env: this.env });
  }

  mount(...flags: readonly string[]): Promise<Ended> {
    return this.lustrite('mount', this.mnt, '--container', 'data', '--store', this.store, ...flags);
  }

  umount(...flags: readonly string[]): Promise<Ended> {
    return this.lustrite('umount', this.mnt, ...flags);
  }

  async status(): Promise<Status> {
    const { stdout, stderr } = await this.lustrite('status', this.mnt, '--json');
    if (stdout === '') throw new Error(stderr);
    return JSON.parse(stdout) as Status;
  }

  at(...parts: readonly string[]): string {
    return join(this.mnt, ...parts);
  }

  log(): Promise<string> {
    return readFile(join(this.store, 'daemon.log'), 'utf8').catch(() => '');
  }
}

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

  t.test('a mount that cannot be used says why, exits 1 and leaves no daemon', async (t) => {
    const host = await Host.create(t, env);
    const open = join(host.folder, 'open');
    await mkdir(open);
    await chmod(open, 0o777);
    const secrets = join(host.folder, 'secrets');
    await writeFile(secrets, 'AZURE_STORAGE_CONNECTION_STRING=x', { mode: 0o644 });
    const real = join(host.folder, 'real');
    await mkdir(real, { mode: 0o700 });
    await symlink(real, join(host.folder, 'link'));
    const nobody = azurite.connectionString.replace(
      /BlobEndpoint=[^;]*/,
      'BlobEndpoint=http://127.0.0.1:9/devstoreaccount1',
    );
    const wrongKey = azurite.connectionString.replace(/AccountKey=[^;]*/, 'AccountKey=d3Jvbmc=');
    const rows: readonly (readonly [string, readonly string[], Host['env'], RegExp])[] = [
      ['no such container', ['--container', 'missing'], {}, /missing/],
      ['no such logging container', ['--logging-container', 'missing'], {}, /missing/],
      ['bad container name', ['--container', 'No_Name'], {}, /no container name/],
      [
        'no credentials',
        [],
        { AZURE_STORAGE_CONNECTION_STRING: undefined },
        /AZURE_STORAGE_CONNECTION_STRING/,
      ],
      [
        'a wrong key',
        [],
        { AZURE_STORAGE_CONNECTION_STRING: wrongKey },
        /403|forbidden|refused|denied|auth/i,
      ],
      [
        'nobody listens',
        [],
        { AZURE_STORAGE_CONNECTION_STRING: nobody },
        /127\.0\.0\.1:9|ECONNREFUSED|unreachable/i,
      ],
      ['credentials that others can read', ['--credentials-file', secrets], {}, /chmod 600/],
      ['a store that others can write', ['--store', open], {}, /chmod 700/],
      ['a store that is a link', ['--store', join(host.folder, 'link')], {}, /not a directory/],
      ['a store on a file', ['--store', secrets], {}, /cannot use the store|not a directory/],
    ];
    for (const [what, flags, variables, message] of rows) {
      const ended = await lustrite(
        ['mount', host.mnt, '--container', 'data', '--store', host.store, ...flags],
        { env: { ...env, ...variables } },
      );
      t.equal(ended.code, 1, `${what}: exit code`);
      t.match(ended.stderr, message, `${what}: cause`);
      t.notMatch(ended.stderr, /\n {4}at |d3Jvbmc/, `${what}: no stack, no secret`);
      t.equal(mountAt(host.mnt), undefined, `${what}: no mount`);
    }
    t.equal((await host.lustrite('status')).stdout.includes(host.mnt), false);
    t.equal((await host.mount()).code, 0, 'and then it works');
    t.equal((await host.umount()).code, 0);
  });

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
      if (heal === 'umount') break;
      const again = await host.mount();
      t.match(again, { code: 0, stderr: /removed the dead mount/ });
      t.equal(await readFile(host.at('new.txt'), 'utf8'), 'not exported\n');
    }
    t.match(await host.umount(), { code: 0, stdout: /its daemon was gone already/ });
    t.equal(mountAt(host.mnt), undefined);
    t.equal((await host.mount()).code, 0, 'and the store is whole');
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

  t.test('what the first mount decided can be left out later, and not be changed', async (t) => {
    const host = await Host.create(t, env);
    const failed = await host.mount('--logging-container', 'missing', '--import-prefix', 'x/');
    t.equal(failed.code, 1, 'a mount that failed decides nothing');
    t.equal((await host.mount('--logging-container', 'logs', '--import-prefix', 'a/', '--wait')).code, 0);
    t.equal((await host.umount()).code, 0);
    const rows: readonly (readonly [readonly string[], RegExp])[] = [
      [['--container', 'other'], /--container data, not other/],
      [['--logging-container', 'other'], /--logging-container logs, not other/],
      [['--import-prefix', 'b/'], /--import-prefix a\/, not b\//],
      [['--no-import'], /--no-import false, not true/],
      [['--import-max-errors', '5'], /--import-max-errors -1, not 5/],
    ];
    for (const [flags, message] of rows) {
      t.match(await host.mount(...flags), { code: 1, stderr: message }, flags.join(' '));
    }
    t.equal((await host.lustrite('mount', host.mnt, '--store', host.store)).code, 0);
    t.equal((await host.status()).loggingContainer, 'logs');
    t.equal((await host.umount()).code, 0);
    const logs = [];
    for await (const blob of azurite.service.getContainerClient('logs').listBlobsFlat()) logs.push(blob.name);
    t.ok(
      logs.some((name) => name.includes('/import/importJobInitialAmlfsPut/')),
      'the log of the import',
    );
  });

  t.test('--no-import starts empty, and --wait has nothing to wait for', async (t) => {
    const host = await Host.create(t, env);
    t.match(await host.mount('--no-import', '--wait'), { code: 0, stdout: /nothing was imported/ });
    t.same(await readdir(host.mnt), []);
    t.equal((await host.umount()).code, 0);
  });

  t.test('--wait exits 1 when the import is not Completed, and the mount stays', async (t) => {
    const odd = azurite.service.getContainerClient('other');
    await odd.getBlockBlobClient('fine').upload('1', 1);
    await odd.getBlockBlobClient('not//fine').upload('2', 1);
    const host = await Host.create(t, env);
    const ended = await host.mount('--container', 'other', '--wait');
    t.match(ended, { code: 1, stdout: /CompletedPartial/, stderr: /the mount stays/ });
    t.equal(await readFile(host.at('fine'), 'utf8'), '1');
    t.equal((await host.umount()).code, 0);
  });

  t.test('a read-only mount answers every change with EROFS, and reads', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--read-only', '--wait')).code, 0);
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n');
    await t.rejects(writeFile(host.at('a/b.txt'), 'x'), { code: 'EROFS' });
    await t.rejects(mkdir(host.at('dir')), { code: 'EROFS' });
    await t.rejects(rm(host.at('a/b.txt')), { code: 'EROFS' });
    await t.rejects(chmod(host.at('a/b.txt'), 0o600), { code: 'EROFS' });
    t.equal((await host.umount()).code, 0);
  });

  t.test('blobs without metadata get the owner and the modes that the mount names', async (t) => {
    const plain = azurite.service.getContainerClient('plain');
    await plain.create();
    await plain.getBlockBlobClient('dir/file').upload('1', 1);
    const host = await Host.create(t, env);
    const flags = ['--uid', '12', '--gid', '34', '--file-mode', '0604', '--dir-mode', '0701'];
    t.equal((await host.mount('--container', 'plain', '--wait', ...flags)).code, 0);
    t.match(await stat(host.at('dir/file')), { uid: 12, gid: 34, mode: 0o100604 });
    t.match(await stat(host.at('dir')), { uid: 12, gid: 34, mode: 0o40701 });
    t.equal((await host.umount()).code, 0);
  });

  t.test('secrets are in no argv, no environment and no log', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    const { pid } = await host.status();
    for (const file of ['cmdline', 'environ']) {
      t.notMatch(await readFile(`/proc/${pid}/${file}`, 'latin1'), /AccountKey|Eby8vdM/, file);
    }
    t.notMatch(await host.log(), /AccountKey=[^*]|Eby8vdM/, 'daemon.log');
    for (const file of ['first-mount.json', 'meta.json']) {
      t.notMatch(await readFile(join(host.store, file), 'utf8'), /Eby8vdM/, file);
    }
    t.equal((await stat(join(host.store, 'daemon.log'))).mode & 0o777, 0o600);
    t.equal((await stat(join(host.store, 'daemon.sock'))).mode & 0o777, 0o600);
    t.equal((await stat(host.store)).mode & 0o777, 0o700);
    t.equal((await host.umount()).code, 0);

    const secrets = join(host.folder, 'secrets');
    await writeFile(secrets, `AZURE_STORAGE_CONNECTION_STRING="${azurite.connectionString}"\n`, {
      mode: 0o600,
    });
    const ended = await lustrite(
      ['mount', host.mnt, '--container', 'data', '--store', host.store, '--credentials-file', secrets],
      { env: { AZURE_STORAGE_CONNECTION_STRING: undefined } },
    );
    t.equal(ended.code, 0, 'a credentials file does as well');
    t.equal((await host.umount()).code, 0);
  });

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
