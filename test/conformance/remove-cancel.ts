/** hsm_remove and hsm_cancel. */
import { rm } from 'node:fs/promises';
import { gaugesOf } from '../helpers/gauges.js';
import { HS, lfs, states } from '../helpers/lfs.js';
import { until } from '../helpers/poll.js';
import { shell } from '../helpers/run.js';
import { hsm, type Theme } from './theme.js';

const refused = { code: 1, stderr: /Operation not permitted/ };
/** After hsm_remove of a clean file the archive id stays. */
const removed = '(0x00000000), archive_id:1';

export const removeCancel: Theme = {
  cases: [
    hsm('26A', 'a removed copy is gone from the container, and the file is a new one', async (t, lab) => {
      await lab.clean('f', 'content');
      await lab.ok('hsm_remove', 'f');
      await lab.untilFlags('f', states.new);
      await lab.idle('f');
      t.equal(await lab.state('f'), removed);
      t.notOk(await lab.hasBlob('f'));
      t.equal(await lab.text('f'), 'content');
      t.match(await lab.lfs('hsm_release', 'f'), refused);
      await lab.ok('hsm_remove', 'f');
      t.equal(await lab.action('f'), 'NOOP', 'there is nothing to remove any more');
      await lab.container.archived(lab.blobName('f'));
      t.equal((await lab.blob('f')).toString(), 'content');
    }),

    hsm('3.2', 'a remove keeps dirty, never_release and never_archive', async (t, lab) => {
      await lab.clean('f', 'content');
      await lab.ok('hsm_set --norelease --noarchive', 'f');
      await shell('printf more >> "$1"', [lab.at('f')]);
      t.equal(await lab.flags('f'), 0x3b);
      await lab.ok('hsm_remove', 'f');
      await lab.untilFlags('f', HS.DIRTY | HS.NORELEASE | HS.NOARCHIVE);
      t.equal(await lab.state('f'), '(0x00000032) dirty never_release never_archive, archive_id:1');
      t.notOk(await lab.hasBlob('f'));
      t.equal((await lab.lfs('hsm_clear --noarchive', 'f')).code, 22, 'dirty needs exists');
      await lab.ok('hsm_clear --noarchive --norelease --dirty', 'f');
      await lab.container.archived(lab.blobName('f'));
      t.equal((await lab.blob('f')).toString(), 'contentmore');
    }),

    hsm(
      '27a',
      'the copy of an imported file is not removed, it is all there is',
      async (t, lab) => {
        t.match(await lab.lfs('hsm_remove', 'f'), refused);
        t.equal(await lab.flags('f'), states.stub);
        t.ok(await lab.hasBlob('f'));
      },
      { blobs: { f: 'content' } },
    ),

    hsm('27b', 'nor is that of a released one', async (t, lab) => {
      await lab.stub('f', 'content');
      t.match(await lab.lfs('hsm_remove', 'f'), refused);
      t.equal(await lab.flags('f'), states.stub);
      t.equal(await lab.text('f'), 'content');
    }),

    hsm('28', 'a remove that waits goes on when the file is deleted', async (t, lab) => {
      await lab.write('blocker', 'blocker');
      await lab.clean('f', 'content');
      const open = lab.hold('PUT', 'blocker');
      await lab.container.uploading(lab.blobName('blocker'));
      const fid = await lab.fid('f');
      await lab.ok('hsm_remove', 'f');
      await rm(lab.at('f'));
      open();
      await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      t.notOk(await lab.hasBlob('f'));
    }),

    hsm('29a', 'a FID has to be one, and a file', async (t, lab) => {
      const at = ['-m', lab.container.mount.path];
      t.match(await lfs(['hsm_remove', ...at, '-a', '33', '0x857765760:0x8:0x2']), {
        code: 22,
        stderr: /Invalid argument/,
      });
      t.match(
        await lfs(['hsm_remove', '--mntpath', lab.container.mount.path, '--archive', '30', '/qwerty/uyt']),
        { code: 22, stderr: "hsm: '/qwerty/uyt' is not a valid FID\n" },
      );
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      t.match(await lfs(['hsm_release', ...at, fid]), { code: 0, stdout: '', stderr: '' });
      t.match(await lfs(['hsm_restore', ...at, fid.slice(1, -1)]), { code: 0, stdout: '', stderr: '' });
      await lab.untilFlags('f', states.clean);
      t.match(await lfs(['hsm_remove', ...at, fid]), { code: 0, stdout: '', stderr: '' });
      await lab.untilFlags('f', states.new);
    }),

    hsm('29b', 'the copy of a deleted file is removed by its FID', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      await rm(lab.at('f'));
      t.ok(await lab.hasBlob('f'), 'deleting a file deletes no blob');
      t.match(await lfs(['hsm_remove', '-m', lab.container.mount.path, '-a', '1', fid]), { code: 0 });
      await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      t.notOk(await lab.hasBlob('f'));
    }),

    hsm('29c', 'and those of a list of them', async (t, lab) => {
      const names = ['a', 'b', 'c'];
      for (const name of names) await lab.clean(name, name);
      const fids = await Promise.all(names.map((name) => lab.fid(name)));
      await shell('cd "$1"; rm a b c; cat > list', [lab.path], { input: `${fids.join('\n')}\n` });
      const args = ['hsm_remove', '-m', lab.container.mount.path, '--filelist', lab.at('list')];
      t.match(await lfs(args), { code: 0 });
      for (const fid of fids) await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      for (const name of names) t.notOk(await lab.hasBlob(name));
    }),

    hsm('4', 'a cancel with nothing to cancel does nothing', async (t, lab) => {
      await lab.write('f', 'content');
      const fid = await lab.fid('f');
      await lab.ok('hsm_cancel', 'f');
      t.equal(await lab.action('f'), 'NOOP');
      t.same(await lab.finished(fid), []);
      t.equal(await lab.flags('f'), states.new);
    }),

    hsm('200', 'an archive is cancelled, running or waiting, and can be asked for again', async (t, lab) => {
      await lab.write('running', 'running');
      await lab.write('waiting', 'waiting');
      const [running, waiting] = [await lab.fid('running'), await lab.fid('waiting')];
      const open = lab.hold('PUT', /^200\//);
      await lab.container.uploading(lab.blobName('running'));
      await lab.ok('hsm_archive', 'waiting');
      t.equal(await lab.action('waiting'), 'ARCHIVE waiting (from 0 to EOF)');
      await lab.ok('hsm_cancel', 'waiting');
      await lab.untilFinished(waiting, 'ARCHIVE', 'CANCELED');
      t.equal(await lab.flags('waiting'), states.new, 'it never began');
      await lab.ok('hsm_cancel', 'running');
      await lab.untilFinished(running, 'ARCHIVE', 'CANCELED');
      t.equal(await lab.flags('running'), HS.EXISTS);
      t.equal(await lab.action('running'), 'NOOP');
      open();
      for (const name of ['running', 'waiting']) {
        await lab.container.archived(lab.blobName(name));
        t.equal((await lab.blob(name)).toString(), name);
      }
    }),

    hsm(
      '201',
      'a restore is cancelled, running or waiting, and can be asked for again',
      async (t, lab) => {
        const open = lab.hold('GET', /^201\//);
        const [running, waiting] = [await lab.fid('running'), await lab.fid('waiting')];
        await lab.ok('hsm_restore', 'running');
        await lab.arrived('GET', 'running');
        await lab.ok('hsm_restore', 'waiting');
        t.equal(await lab.action('waiting'), 'RESTORE waiting (from 0 to EOF)');
        await lab.ok('hsm_cancel', 'waiting', 'running');
        await lab.untilFinished(waiting, 'RESTORE', 'CANCELED');
        await lab.untilFinished(running, 'RESTORE', 'CANCELED');
        for (const name of ['running', 'waiting']) {
          t.equal(await lab.flags(name), states.stub);
          t.equal(await lab.action(name), 'NOOP');
        }
        open();
        t.equal(await lab.text('waiting'), 'waiting');
        await lab.ok('hsm_restore', 'running');
        await lab.untilFlags('running', states.clean);
      },
      { blobs: { running: 'running', waiting: 'waiting' } },
    ),

    hsm('202', 'a remove is cancelled, and the file keeps a copy or counts as in none', async (t, lab) => {
      for (const name of ['running', 'waiting']) await lab.clean(name, name);
      const [running, waiting] = [await lab.fid('running'), await lab.fid('waiting')];
      lab.storage.inject({ method: 'DELETE' }, { kind: 'hang' });
      await lab.ok('hsm_remove', 'running');
      await lab.arrived('DELETE', 'running');
      t.equal(await lab.action('running'), 'REMOVE running (from 0 to 0)');
      await lab.ok('hsm_remove', 'waiting');
      t.equal(await lab.action('waiting'), 'REMOVE waiting (from 0 to EOF)');
      await lab.ok('hsm_cancel', 'waiting', 'running');
      await lab.untilFinished(waiting, 'REMOVE', 'CANCELED');
      await lab.untilFinished(running, 'REMOVE', 'CANCELED');
      t.equal(await lab.flags('waiting'), states.clean);
      t.equal(await lab.flags('running'), HS.EXISTS, 'nobody knows whether the blob is still there');
      t.match(await lab.lfs('hsm_release', 'running'), refused);
      lab.storage.clear();
      await lab.container.archived(lab.blobName('running'));
      await lab.released('running');
      t.equal(await lab.text('running'), 'running');
    }),

    hsm(
      '103a',
      'readers whose restores are cancelled or purged fail at once, and the files stay released',
      async (t, lab) => {
        const names = ['a', 'b', 'c', 'd'];
        for (const cancel of [
          () => lab.ok('hsm_cancel', ...names),
          () => lab.set('hsm_control=purge'),
        ] as const) {
          lab.storage.clearLog();
          const open = lab.hold('GET', /^103a\//);
          const readers = names.map((name) => lab.cat(name));
          for (const name of names) await lab.arrived('GET', name);
          await cancel();
          for (const { ended } of readers)
            t.match(await ended, { code: 1, stdout: '', stderr: /No data available/ });
          await until(
            async () => {
              const status = await lab.container.mount.status();
              return status !== undefined && Object.values(gaugesOf(status)).every((count) => count === 0);
            },
            { what: 'nothing to be under way' },
          );
          for (const name of names) t.equal(await lab.flags(name), states.stub);
          open();
          for (const name of names) t.equal(await lab.text(name), name);
          for (const name of names) await lab.released(name);
        }
      },
      { blobs: { a: 'a', b: 'b', c: 'c', d: 'd' } },
    ),
  ],
};
