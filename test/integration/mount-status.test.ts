/** What `status` and `umount` say of what happened and of what is at stake. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { FaultServer, type Match } from '../helpers/fault-server.js';
import { Host } from '../helpers/host.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

t.test('what is told about a mount', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const storage = await FaultServer.start(azurite.url);
  t.teardown(() => storage[Symbol.asyncDispose]());
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(storage.url) };
  await azurite.service.createContainer('data');
  const data = azurite.service.getContainerClient('data');
  await data.getBlockBlobClient('a/b.txt').upload('content\n', 8);
  t.afterEach(() => {
    storage.clear();
  });

  t.test(
    'the last error is the newest failure of a restore or a job; the last job stays in view',
    async (t) => {
      const host = await Host.create(t, env);
      t.equal((await host.mount('--wait')).code, 0);
      t.match(await host.status(), { lastError: null, lastJob: { name: 'importJobInitialAmlfsPut' } });
      storage.inject({ method: 'GET', blob: 'a/b.txt' }, { kind: 'status', status: 403 });
      await t.rejects(readFile(host.at('a/b.txt')), { code: 'ENODATA' });
      t.match((await host.status()).lastError, { message: /restore of a\/b\.txt failed: .*403/ });

      storage.inject({ method: 'PUT', blob: 'new.txt' }, { kind: 'status', status: 403 });
      await writeFile(host.at('new.txt'), 'x');
      t.equal((await host.lustrite('export', 'create', host.mnt, '--name', 'failing', '--wait')).code, 1);
      t.match(await host.status(), {
        lastError: { message: /export failing Failed: 1 file was not exported/ },
        lastJob: { name: 'failing' },
      });
      const { stdout } = await host.lustrite('status', host.mnt);
      t.match(stdout, /job +none is running; the last one: \d{4}-\S+Z export failing Failed: /);
      t.match(stdout, /last error +\d{4}-\S+Z export failing Failed/);
      t.match(
        stdout,
        /files +1 released \(8 B\), 1 resident \(1 B\); of these 0 dirty \(0 B\), 1 new \(1 B\)$/m,
      );
      storage.clear();
      await writeFile(host.at('a/b.txt'), 'changed\n');
      t.match((await host.lustrite('status', host.mnt)).stdout, /files +0 released \(0 B\), 2 resident \(9 B\); of these 1 dirty \(8 B\), 1 new \(1 B\)$/m); // prettier-ignore
      t.equal((await host.umount()).code, 0);

      t.equal((await host.mount()).code, 0);
      t.match(await host.status(), { lastError: null, lastJob: { name: 'failing' } }, 'errors of an earlier daemon are not this one\'s'); // prettier-ignore
      t.equal((await host.umount()).code, 0);
    },
  );

  /** Requests that match wait until the function that is returned has been called. */
  const hold = (match: Match): (() => void) => {
    let open: () => void = () => undefined;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    storage.inject(match, { kind: 'hold', until: opened });
    return () => {
      open();
    };
  };
  // The first listing only looks whether there is a container.
  const firstImport: Match = { method: 'GET', query: 'comp=list', skip: 1 };

  t.test('mount and umount say what becomes of an import that is running', async (t) => {
    const host = await Host.create(t, env);
    const open = hold(firstImport);
    t.match(await host.mount(), {
      code: 0,
      stdout: `\nthe import is running; lustrite status ${host.mnt} shows`,
    });
    t.ok((await readdir(host.mnt)).some((name) => name.startsWith('IMPORT_Importing.')));
    t.match((await host.status()).census, { files: 0, new: 0, resident: 0 }, "the marker is nobody's data");
    const ended = await host.umount();
    t.match(ended, {
      code: 0,
      stdout: /unmounted\nimport importJobInitialAmlfsPut was stopped; the next mount begins it again/,
    });
    t.notMatch(ended.stdout, /IMPORT_|changes/);
    open();
    storage.clear();
    t.equal((await host.mount()).code, 0);
    await until(async () => (await host.status()).lastJob?.properties.status.state === 'Completed', {
      what: 'the import to have begun again and to end',
    });
    t.equal(await readFile(host.at('a/b.txt'), 'utf8'), 'content\n');
    t.equal((await host.umount()).stdout, `${host.mnt} unmounted\n`, 'a job that is over is not mentioned');
  });

  t.test('umount says that an export that is running has to be created again', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    await writeFile(host.at('slow.txt'), 'x');
    const open = hold({ method: 'PUT', blob: 'slow.txt' });
    t.equal((await host.lustrite('export', 'create', host.mnt, '--name', 'slow')).code, 0);
    await until(() => storage.count({ method: 'PUT', blob: 'slow.txt' }) > 0, {
      what: 'the upload to begin',
    });
    const ended = await host.umount();
    open();
    t.match(ended, {
      code: 0,
      stdout: /export slow was stopped; .* create another export after the next mount/,
    });
    t.match(ended.stdout, /1 file has changes[^]*\n {2}slow\.txt\n$/);
  });

  t.test('umount says that an auto-export that was being disabled has not copied everything', async (t) => {
    const host = await Host.create(t, env);
    t.equal((await host.mount('--wait')).code, 0);
    await writeFile(host.at('slow.txt'), 'x');
    const before = storage.count({ method: 'PUT', blob: 'slow.txt' });
    const open = hold({ method: 'PUT', blob: 'slow.txt' });
    t.equal((await host.lustrite('auto-export', 'create', host.mnt, '--name', 'out')).code, 0);
    await until(() => storage.count({ method: 'PUT', blob: 'slow.txt' }) > before, {
      what: 'the upload to begin',
    });
    t.equal((await host.lustrite('auto-export', 'disable', host.mnt, 'out')).code, 0);
    const ended = await host.umount();
    open();
    t.match(ended, {
      code: 0,
      stdout:
        /\nauto-export out was being disabled, and its last iteration was stopped; .* create an export after the next mount/,
    });
    t.match(ended.stdout, /1 file has changes[^]*\n {2}slow\.txt\n$/);
    storage.clear();
    t.equal((await host.mount()).code, 0);
    t.match((await host.status()).lastJob, {
      name: 'out',
      properties: { status: { state: 'DisableFailed' } },
    });
    t.equal((await host.umount()).code, 0);
  });

  t.test(
    'umount lists changed files in order, and every name so that it can be told from others',
    async (t) => {
      const host = await Host.create(t, env);
      t.equal((await host.mount('--wait')).code, 0);
      const names = ['b', 'caf\xe9', 'aa', 'back\\xe9', 'caf\xc3\xa9', 'IMPORT_of_mine'];
      for (const name of names) await writeFile(Buffer.from(`${host.mnt}/${name}`, 'latin1'), 'x');
      const { census, counters } = await host.status();
      t.match(census, { new: names.length });
      t.match(counters, { handles: 0, listings: 0, nodes: Number, 'requests.create': names.length });
      t.match((await host.umount()).stdout, [
      '  IMPORT_of_mine', '  aa', '  b', '  "back\\\\xe9"', '  café', '  "caf\\xe9"', ''].join('\n')); // prettier-ignore
    },
  );
});
