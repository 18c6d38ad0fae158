/** A mount that cannot be used says why. */
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { Host } from '../helpers/host.js';
import { lustrite } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { StoreImage } from '../helpers/store-image.js';

t.test('failures of mount', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  for (const name of ['data', 'logs', 'other']) await azurite.service.createContainer(name);
  const data = azurite.service.getContainerClient('data');
  const metadata = { owner: '1000', group: '100', permissions: '0640', modtime: '2023-03-17 15:00:11 +0000' };
  await data.getBlockBlobClient('a/b.txt').upload('content\n', 8, { metadata });

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

  t.test('a first mount that fails before anything was stored leaves no store', async (t) => {
    const host = await Host.create(t, env);
    const deep = join(host.folder, 'deep', 'er', 'store');
    const missing = ['mount', host.mnt, '--container', 'missing', '--store'];
    for (const flags of [[], ['--foreground']]) {
      t.match(await host.lustrite(...missing, deep, ...flags), {
        code: 1,
        stderr: /'missing'.*does not exist/,
      });
      t.same(await readdir(host.folder), ['mnt'], flags.join());
    }
    const made = join(host.folder, 'made');
    await mkdir(made, { mode: 0o700 });
    t.equal((await host.lustrite(...missing, made)).code, 1);
    t.same(await readdir(host.folder), ['made', 'mnt'], 'what was there stays');
  });

  t.test('a store on tmpfs is accepted and warned of, in the log, too', async (t) => {
    const image = await StoreImage.create('tmpfs');
    if (image === undefined) {
      t.comment('no tmpfs here');
      return;
    }
    t.teardown(() => image[Symbol.asyncDispose]());
    const host = await Host.create(t, env);
    const mounted = await host.lustrite('mount', host.mnt, '--container', 'data', '--store', image.path);
    t.match(mounted, { code: 0, stderr: `the store ${image.path} is on tmpfs` });
    t.match(mounted.stderr, /no --logging-container/);
    t.match(await readFile(join(image.path, 'daemon.log'), 'utf8'), /"level":"warn"[^\n]*is on tmpfs/);
    t.equal((await host.umount()).code, 0);
    const again = await host.lustrite('mount', host.mnt, '--store', image.path);
    t.match(again, { code: 0, stderr: 'is on tmpfs' });
    t.notMatch(again.stderr, /no --logging-container/, 'that was told at the first mount');
    t.equal((await host.umount()).code, 0);
  });
});
