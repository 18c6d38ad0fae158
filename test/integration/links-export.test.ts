/** Hard links in the container: one blob a name, one copy a file. */
import { appendFile, link, mkdir, readFile, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import t from 'tap';
import type { JobView } from '../../src/base/control-api.js';
import { hsmFlags, states } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

t.test('files with several names', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, { 'old/name': 'imported' });
  const at = (name: string): string => lab.at(name);
  const text = (name: string): Promise<string> => readFile(at(name), 'utf8');
  const blobs = (...names: readonly string[]): Promise<readonly string[]> =>
    Promise.all(names.map((name) => lab.blob(name).catch(() => 'none')));
  /** A new file with these names. */
  const twins = async (content: string, first: string, ...others: readonly string[]): Promise<void> => {
    await mkdir(at(first.replace(/\/.*/, '')), { recursive: true });
    await writeFile(at(first), content);
    for (const name of others) await link(at(first), at(name));
  };

  await t.test(
    'an export writes a blob of each name, with the attributes, and the file is clean',
    async (t) => {
      await twins('content', 'new/one', 'new/two', 'new/three');
      t.equal(await lab.export('new'), 'Completed');
      t.same(await blobs('new/one', 'new/two', 'new/three'), ['content', 'content', 'content']);
      const { size, mtime } = await stat(at('new/one'));
      for (const name of ['one', 'two', 'three']) {
        const { metadata } = await lab.container.getBlobClient(`new/${name}`).getProperties();
        const modtime = `${mtime.toISOString().slice(0, 19).replace('T', ' ')} +0000`;
        t.match(metadata, { owner: '0', group: '0', permissions: '0644', modtime }, name);
        t.equal(await hsmFlags(at(`new/${name}`)), states.clean);
      }
      t.equal(size, 7);
      lab.storage.clearLog();
      t.equal(await lab.export('new'), 'Completed');
      t.equal(lab.storage.count({ method: 'PUT' }), 0, 'once');
    },
  );

  await t.test('an import of the blobs finds the file under each of its names', async (t) => {
    for (const mode of ['fail', 'skip', 'overwrite-dirty', 'overwrite-always']) {
      const args = ['import', 'create', lab.mount.path, '--prefix', '/new/', '--conflict', mode];
      const ended = await lustrite([...args, '--wait', '--json']);
      t.match(JSON.parse(ended.stdout), {
        properties: { status: { state: 'Completed', preexistingFiles: 3, totalBlobsImported: 0 } },
      });
      t.equal((await stat(at('new/two'))).nlink, 3, mode);
    }
    t.equal(await text('new/two'), 'content');
  });

  await t.test('released, the file is restored from one blob, under any name', async (t) => {
    await lab.released('new/two');
    t.equal(await hsmFlags(at('new/one')), states.stub);
    lab.storage.clearLog();
    t.same([await text('new/three'), await text('new/one')], ['content', 'content']);
    t.equal(lab.storage.count({ method: 'GET', blob: /^new\// }), 1);
  });

  await t.test('what is changed through one name is exported under all', async (t) => {
    await appendFile(at('new/three'), '!');
    t.equal(await lab.export('new'), 'Completed');
    t.same(await blobs('new/one', 'new/two', 'new/three'), ['content!', 'content!', 'content!']);
    await using second = await TestMount.start(t, {
      container: lab.container.containerName,
      env: { AZURE_STORAGE_CONNECTION_STRING: lab.connectionString },
    });
    for (const name of ['one', 'two', 'three']) {
      t.equal(await readFile(second.at('new', name), 'utf8'), 'content!');
      t.equal((await stat(second.at('new', name))).nlink, 1, 'a file of its own there');
    }
  });

  await t.test('rule 8: a new file under one of the names does not cost the other its data', async (t) => {
    await twins('shared', 'swap/one', 'swap/two');
    t.equal(await lab.export('swap'), 'Completed');
    await lab.released('swap/one');
    await unlink(at('swap/one'));
    await writeFile(at('swap/one'), 'another');
    t.equal(await lab.export('swap'), 'Completed');
    t.same(await blobs('swap/one', 'swap/two'), ['another', 'shared']);
    t.equal(await text('swap/two'), 'shared');
    t.equal(await lab.export('swap'), 'Completed');
    t.same(await blobs('swap/one', 'swap/two'), ['another', 'shared']);
  });

  await t.test('hsm_archive writes a blob of each name, too', async (t) => {
    await twins('by hand', 'hand/one', 'hand/two');
    await lab.archived('hand/two');
    t.same(await blobs('hand/one', 'hand/two'), ['by hand', 'by hand']);
    t.equal(await lab.lfs('hsm_remove', 'hand/two'), 0);
    await lab.idle('hand/two');
    t.same(await blobs('hand/one', 'hand/two'), ['none', 'by hand'], 'hsm_remove deletes the copy');
  });

  await t.test('a name that is added to a clean file gets its blob when the file changes', async (t) => {
    await link(at('old/name'), at('old/added'));
    t.equal(await lab.export('old'), 'Completed');
    t.same(await blobs('old/name', 'old/added'), ['imported', 'none']);
    await appendFile(at('old/added'), '!');
    t.equal(await lab.export('old'), 'Completed');
    t.same(await blobs('old/name', 'old/added'), ['imported!', 'imported!']);
  });

  await t.test('while one blob cannot be written, the file is dirty', async (t) => {
    await twins('all or none', 'fail/one', 'fail/two');
    lab.storage.inject({ method: 'PUT', blob: 'fail/two' }, { kind: 'status', status: 403 });
    t.equal(await lab.export('fail'), 'Failed');
    t.equal(await hsmFlags(at('fail/one')), 1);
    lab.storage.clear();
    t.equal(await lab.export('fail'), 'Completed');
    t.same(await blobs('fail/one', 'fail/two'), ['all or none', 'all or none']);
    t.equal(await hsmFlags(at('fail/one')), states.clean);
  });

  for (const released of [false, true]) {
    await t.test(
      `one blob of a ${released ? 'released' : 'clean'} file is overwritten, the other name keeps its content`,
      async (t) => {
        const folder = released ? 'theirs-released' : 'theirs';
        const [one, two] = [`${folder}/one`, `${folder}/two`];
        await twins('ours', one, two);
        t.equal(await lab.export(folder), 'Completed');
        if (released) await lab.released(one);
        await lab.upload({ [one]: 'their version' });
        const request = {
          conflictResolutionMode: 'OverwriteAlways',
          maximumErrors: -1,
          prefixes: [`/${folder}`],
        };
        t.match((await lab.mount.job('import', request)).properties.status, { state: 'Completed' });
        t.same([await text(one), await text(two)], ['their version', 'ours']);
        t.equal(await lab.export(folder), 'Completed');
        t.same(await blobs(one, two), ['their version', 'ours']);
      },
    );
  }

  await t.test(
    'an export of a part of the names leaves the file dirty, and an auto-export writes it once',
    async (t) => {
      await twins('in both', 'part/one', 'apart');
      await lab.mount.control('POST', '/v1/jobs/auto-export', {
        name: 'part',
        prefixes: ['/part'],
        pollIntervalMs: 100,
      });
      const iterations = async (more: number): Promise<void> => {
        const count = async (): Promise<number> => {
          const { properties } = (await lab.mount.control('GET', '/v1/jobs/part')) as JobView;
          return (properties.status as unknown as { readonly exportIterationCount: number })
            .exportIterationCount;
        };
        const wanted = (await count()) + more;
        await until(async () => (await count()) >= wanted, { what: 'iterations' });
      };
      lab.storage.clearLog();
      await iterations(4);
      t.equal(lab.storage.count({ method: 'PUT', blob: 'part/one' }), 1, 'once');
      t.equal(await hsmFlags(at('part/one')), states.dirty);
      // As long as it was, and as old.
      const before = await stat(at('apart'));
      await writeFile(at('apart'), 'changed');
      await utimes(at('apart'), before.atime, before.mtime);
      await iterations(2);
      t.same(await blobs('part/one', 'apart'), ['changed', 'none']);
      await lab.mount.control('POST', '/v1/jobs/part/cancel', {});
      await lab.mount.untilJobsEnd();
      t.equal(await lab.export(''), 'Completed');
      t.same(await blobs('part/one', 'apart'), ['changed', 'changed']);
      t.equal(await hsmFlags(at('apart')), states.clean);
    },
  );
});
