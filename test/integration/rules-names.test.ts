/** Data-safety rule 8 on a real mount: a blob name has one owner, however files are renamed. */
import { appendFile, link, readFile, readlink, rename, unlink, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import t from 'tap';
import { Application } from '../helpers/application.js';
import { hsmFlags, states } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';

const { EPERM } = constants.errno;
const blobs = Object.fromEntries(
  [
    'stub/A', 'clean/A', 'archive/A', 'exchange/A', 'exchange/B', 'link/A', 'open/A', 'lost/A',
    'imported/A', 'back/A',
  ].map((name) => [name, `old ${name}`]),
); // prettier-ignore

t.test('one owner a blob', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, blobs);
  const { storage } = lab;
  const at = (name: string): string => lab.at(name);
  const content = (name: string): Promise<string> => readFile(at(name), 'utf8');
  t.beforeEach(() => {
    storage.clear();
    storage.clearLog();
  });

  await t.test(
    'rule 8: after mv A B and a new A, export overwrites blob A only after B has its own data',
    async (t) => {
      await rename(at('stub/A'), at('stub/B'));
      await writeFile(at('stub/A'), 'new A');
      t.equal(await hsmFlags(at('stub/B')), states.stub, 'a rename restores nothing');
      t.equal(await lab.export('stub'), 'Completed');
      const order = storage.log
        .filter(({ blob, status = 0 }) => blob === 'stub/A' && status < 300)
        .map(({ method }) => method)
        .filter((method) => method !== 'HEAD');
      t.same(order.slice(0, 2), ['GET', 'PUT'], 'restored before it is overwritten');
      t.equal(await lab.blob('stub/A'), 'new A');
      t.equal(await content('stub/B'), 'old stub/A');
      t.equal(await lab.export('stub'), 'Completed');
      t.equal(await lab.blob('stub/B'), 'old stub/A');
      t.equal(await hsmFlags(at('stub/B')), states.clean);
    },
  );

  await t.test('rule 8: a clean holder becomes dirty, and is not released', async (t) => {
    t.equal(await content('clean/A'), 'old clean/A');
    await rename(at('clean/A'), at('clean/B'));
    await writeFile(at('clean/A'), 'new A');
    await lab.archived('clean/A');
    t.equal(await lab.blob('clean/A'), 'new A');
    t.equal(await lab.lfs('hsm_release', 'clean/B'), EPERM);
    t.equal(await lab.lfs('hsm_remove', 'clean/B'), 0);
    await lab.idle('clean/B');
    t.equal(await lab.blob('clean/A'), 'new A', 'whose blob A is not to remove');
    t.equal(await content('clean/B'), 'old clean/A');
  });

  await t.test('rule 8: hsm_archive saves a released holder, too', async (t) => {
    await rename(at('archive/A'), at('archive/B'));
    await writeFile(at('archive/A'), 'new A');
    await lab.archived('archive/A');
    t.equal(await lab.blob('archive/A'), 'new A');
    t.equal(await content('archive/B'), 'old archive/A');
  });

  await t.test('rule 8: two files that have exchanged their names keep both contents', async (t) => {
    await using application = new Application();
    await application.do(
      'libc = ctypes.CDLL(None, use_errno=True); done = libc.renameat2(-100, os.fsencode(args[0]), -100, os.fsencode(args[1]), 2)',
      at('exchange/A'),
      at('exchange/B'),
    );
    t.equal(await application.do('done'), 0);
    await appendFile(at('exchange/A'), '!');
    t.equal(await lab.export('exchange'), 'Completed');
    t.equal(await lab.export('exchange'), 'Completed');
    t.same([await content('exchange/A'), await content('exchange/B')], ['old exchange/B!', 'old exchange/A']);
    t.equal(await lab.blob('exchange/A'), 'old exchange/B!');
    t.equal(await lab.blob('exchange/B'), 'old exchange/A');
  });

  await t.test('rule 8: the other link of a file keeps its data', async (t) => {
    await link(at('link/A'), at('link/B'));
    await unlink(at('link/A'));
    await writeFile(at('link/A'), 'new A');
    t.equal(await lab.export('link'), 'Completed');
    t.equal(await lab.blob('link/A'), 'new A');
    t.equal(await content('link/B'), 'old link/A');
  });

  await t.test('rule 8: so does a file without a name that somebody has open', async (t) => {
    await using application = new Application();
    await application.do('fd = os.open(args[0], os.O_RDONLY)', at('open/A'));
    await unlink(at('open/A'));
    await writeFile(at('open/A'), 'new A');
    t.equal(await lab.export('open'), 'Completed');
    t.equal(await lab.blob('open/A'), 'new A');
    t.equal(await application.do('os.pread(fd, 100, 0)'), 'old open/A');
  });

  await t.test('rule 8: a holder that cannot be saved keeps its blob', async (t) => {
    await rename(at('lost/A'), at('lost/B'));
    await writeFile(at('lost/A'), 'new A');
    storage.inject({ method: 'GET', blob: 'lost/A' }, { kind: 'status', status: 403 });
    t.not(await lab.export('lost'), 'Completed');
    t.equal(await lab.blob('lost/A'), 'old lost/A');
    t.equal(await hsmFlags(at('lost/B')), states.stub);
    t.equal(await content('lost/A'), 'new A');
    storage.clear();
    t.equal(await lab.export('lost'), 'Completed');
    t.equal(await lab.blob('lost/A'), 'new A');
    t.equal(await content('lost/B'), 'old lost/A');
  });

  await t.test(
    'rule 8: a blob that was imported again beside its renamed file has two holders',
    async (t) => {
      await rename(at('imported/A'), at('imported/B'));
      t.equal(await lab.import(), 'Completed');
      t.equal(await hsmFlags(at('imported/A')), states.stub);
      t.equal(await content('imported/A'), 'old imported/A');
      t.equal(await lab.lfs('hsm_remove', 'imported/A'), 0);
      await lab.idle('imported/A');
      t.equal(await hsmFlags(at('imported/A')), states.new);
      t.equal(await content('imported/B'), 'old imported/A', 'B was restored first');
      t.not((await hsmFlags(at('imported/B'))) & 0x02, 0, 'and is dirty');
    },
  );

  await t.test('rule 8: renamed there and back, a file is the owner again', async (t) => {
    await rename(at('back/A'), at('back/B'));
    await rename(at('back/B'), at('back/A'));
    await appendFile(at('back/A'), '!');
    t.equal(await lab.export('back'), 'Completed');
    t.equal(await lab.blob('back/A'), 'old back/A!');
    t.equal(await hsmFlags(at('back/A')), states.clean);
  });

  await t.test(
    'rule 8: a renamed symlink makes way for a file, and is exported under its new name',
    async (t) => {
      const link = lab.container.getBlockBlobClient('symlink/A');
      await link.upload('target', 6, { metadata: { is_symlink: 'true' } });
      t.equal(await lab.import(), 'Completed');
      t.equal(await readlink(at('symlink/A')), 'target');
      await rename(at('symlink/A'), at('symlink/B'));
      await writeFile(at('symlink/A'), 'now a file');
      t.equal(await lab.export('symlink'), 'Completed');
      t.equal(await lab.blob('symlink/A'), 'now a file');
      t.equal(await lab.export('symlink'), 'Completed');
      t.equal(await lab.blob('symlink/B'), 'target');
      t.equal(await readlink(at('symlink/B')), 'target');
    },
  );
});
