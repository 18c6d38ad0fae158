import t from 'tap';
import { appendFile, readFile } from 'node:fs/promises';
import { Azurite } from '../helpers/azurite.js';
import { hsmFlags, states } from '../helpers/lfs.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';

t.test(
  'a test mount is the real daemon, through unmount, kill and remount',
  { skip: cannotMount },
  async (t) => {
    await using azurite = await Azurite.start();
    const container = await azurite.newContainer();
    await azurite.client(container).getBlockBlobClient('a/b.txt').upload('hello', 5);
    const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
    let path: string;
    {
      await using mount = await TestMount.start(t, { container, env });
      path = mount.path;
      const file = mount.at('a', 'b.txt');
      t.match(await mount.status(), { frontEnd: 'native', runningJob: null, pid: mount.pid });
      t.equal((await mount.jobs())[0]?.properties.status.state, 'Completed');
      t.equal(await hsmFlags(file), states.stub);
      t.equal(await readFile(file, 'utf8'), 'hello');
      t.equal(await hsmFlags(file), states.clean);
      await appendFile(file, ' more');
      t.equal(await hsmFlags(file), states.dirty);

      t.match(await mount.unmount(), 'a/b.txt', 'umount lists what is dirty');
      t.equal(mountAt(path), undefined);
      await mount.remount();
      t.equal(await hsmFlags(file), states.dirty);

      await mount.kill();
      t.ok(mountAt(path), 'the dead mount stays');
      await mount.remount();
      t.equal(await readFile(file, 'utf8'), 'hello more');
      t.equal(await hsmFlags(file), states.dirty);
    }
    t.equal(mountAt(path), undefined, 'nothing is left');
  },
);

t.test('a mount that does not come up says why', { skip: cannotMount }, async (t) => {
  await using azurite = await Azurite.start();
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  await t.rejects(TestMount.start(t, { container: 'not-there', env }), {
    message: /^no usable mount\n[^]*not-there/,
    cause: { message: /^the daemon ended with exit code 1 / },
  });
});
