/** The coordinator's parameters, as an administrator of a metadata server sets them, and what files and readers see. */
import { rm, stat } from 'node:fs/promises';
import { lfs, states } from '../helpers/lfs.js';
import { run } from '../helpers/run.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

const noData = { code: 1, stderr: /No data available/ };

/** The columns of hsm.actions about a file: `ARCHIVE SUCCEED`, oldest first. */
async function actions(lab: Lab, name: string): Promise<readonly string[]> {
  const fid = await lab.fid(name);
  const lines = (await lab.parameter('hsm.actions'))
    .split('\n')
    .filter((line) => line.includes(`fid=${fid} `));
  // Scripts of Lustre take the columns by number.
  return lines.map((line) => {
    const columns = line.split(' ');
    return [columns[6], columns[12]].map((column) => column?.split('=')[1]).join(' ');
  });
}

export const parameters: Theme = {
  cases: [
    hsm('100', 'numbers are set, and zero is refused', async (t, lab) => {
      for (const name of ['active_request_timeout', 'grace_delay', 'loop_period', 'default_archive_id']) {
        await lab.set(`hsm.${name}=123`);
        t.equal(await lab.parameter(`hsm.${name}`), '123');
        await t.rejects(lab.set(`hsm.${name}=0`), /400 .*EINVAL/, name);
        t.equal(await lab.parameter(`hsm.${name}`), '123');
      }
    }),

    hsm('5.1', 'an archive without a number gets the default of the time', async (t, lab) => {
      await lab.set('hsm.default_archive_id=7');
      await lab.clean('f', 'content');
      t.equal(await lab.state('f'), '(0x00000009) exists archived, archive_id:7');
    }),

    hsm('102', 'the coordinator is turned off and on', async (t, lab) => {
      for (const [command, state] of [
        ['enabled', 'enabled'],
        ['shutdown', 'stopped'],
        ['enabled', 'enabled'],
        ['disabled', 'disabled'],
        ['purge', 'disabled'],
        ['enabled', 'enabled'],
      ] as const) {
        await lab.set(`hsm_control=${command}`);
        t.equal(await lab.parameter('hsm_control'), state, command);
      }
      await t.rejects(lab.set('hsm_control=start'), /400 .*EINVAL/);
    }),

    hsm('103', 'a purge cancels every request', async (t, lab) => {
      await lab.set('hsm_control=disabled');
      const names = ['a', 'b', 'c'];
      for (const name of names) await lab.write(name, name);
      await lab.ok('hsm_archive', ...names);
      t.equal(await lab.action('c'), 'ARCHIVE waiting (from 0 to EOF)');
      await lab.set('hsm_control=purge');
      for (const name of names) {
        await lab.idle(name);
        t.same(await actions(lab, name), ['ARCHIVE CANCELED']);
        t.equal(await lab.flags(name), states.new);
      }
    }),

    hsm('104', 'the data of a request is listed', async (t, lab) => {
      await lab.write('f', 'content');
      await lab.ok('hsm_archive --data CEA', 'f');
      await lab.untilFlags('f', states.clean);
      await lab.idle('f');
      t.match(await lab.parameter('hsm.actions'), / datalen=3 status=SUCCEED data=\[434541\]/);
      t.same(await actions(lab, 'f'), ['ARCHIVE SUCCEED']);
    }),

    hsm('109', 'policies are changed by name and nickname', async (t, lab) => {
      const rows = [
        ['+NBR', '[NonBlockingRestore] [NoRetryAction]'],
        ['-NBR', 'NonBlockingRestore [NoRetryAction]'],
        ['NonBlockingRestore', '[NonBlockingRestore] NoRetryAction'],
        ['-NBR +NRA', 'NonBlockingRestore [NoRetryAction]'],
      ] as const;
      for (const [text, shown] of rows) {
        await lab.set(`hsm.policy=${text}`);
        t.equal(await lab.parameter('hsm.policy'), shown, text);
      }
      await t.rejects(lab.set('hsm.policy=+wrong'), /400 .*EINVAL/);
      t.equal(await lab.parameter('hsm.policy'), 'NonBlockingRestore [NoRetryAction]');
    }),

    hsm(
      '110a',
      'with NonBlockingRestore the reader of an imported file goes without, and it is restored',
      async (t, lab) => {
        await lab.set('hsm.policy=+NBR');
        t.match(await run('md5sum', [lab.at('f')]), noData);
        await lab.untilFlags('f', states.clean);
        t.equal(await lab.text('f'), 'content');
      },
      { blobs: { f: 'content' } },
    ),

    hsm('110b', 'and so is a released one, by lfs hsm_restore, too', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.set('hsm.policy=+NBR');
      t.match(await run('md5sum', [lab.at('f')]), noData);
      await lab.untilFlags('f', states.clean);
      await lab.released('f');
      t.equal((await lab.lfs('hsm_restore', 'f')).code, 61);
      await lab.untilFlags('f', states.clean);
      t.equal(await lab.text('f'), 'content');
    }),

    hsm('250', 'no more requests run than max_requests', async (t, lab) => {
      await lab.set('hsm.max_requests=2');
      const names = ['a', 'b', 'c'];
      for (const name of names) await lab.write(name, name);
      const open = lab.hold('PUT', /^250\//);
      await lab.ok('hsm_archive', ...names);
      await lab.untilAction('b', /running/);
      t.match(await lab.action('c'), /waiting/);
      t.equal(await lab.parameter('hsm.archive_count'), '2');
      t.equal((await lab.parameter('hsm.active_requests')).split('\n').length, 2);
      await lab.set('hsm.max_requests=3');
      await lab.untilAction('c', /running/);
      open();
      for (const name of names) await lab.untilFlags(name, states.clean);
    }),

    hsm(
      '251 252',
      'a request without progress is cancelled after active_request_timeout, also of a file that was removed',
      async (t, lab) => {
        await lab.set('hsm.max_requests=2');
        await lab.write('removed', 'removed');
        const [kept, removed] = [await lab.fid('kept'), await lab.fid('removed')];
        lab.hold('GET', 'kept');
        lab.hold('PUT', 'removed');
        await lab.ok('hsm_restore', 'kept');
        await lab.ok('hsm_archive', 'removed');
        await lab.untilAction('removed', /running/);
        await rm(lab.at('removed'));
        await lab.set('hsm.active_request_timeout=1');
        await lab.untilFinished(kept, 'RESTORE', 'CANCELED');
        await lab.untilFinished(removed, 'ARCHIVE', 'CANCELED');
        t.equal(await lab.flags('kept'), states.stub);
      },
      { blobs: { kept: 'kept' } },
    ),

    hsm('254a 254b', 'the counts of running requests go up and down', async (t, lab) => {
      const counts = async (): Promise<string> =>
        (
          await Promise.all(
            ['archive', 'restore', 'remove'].map((name) => lab.parameter(`hsm.${name}_count`)),
          )
        ).join(' ');
      await lab.set('hsm.max_requests=3');
      t.equal(await counts(), '0 0 0');
      await lab.clean('removed', 'removed');
      await lab.stub('restored', 'restored');
      await lab.write('archived', 'archived');
      const open = lab.hold('PUT', 'archived');
      lab.hold('GET', 'restored');
      lab.hold('DELETE', 'removed');
      await lab.ok('hsm_archive', 'archived');
      await lab.ok('hsm_restore', 'restored');
      await lab.ok('hsm_remove', 'removed');
      await lab.untilAction('removed', /running/);
      t.equal(await counts(), '1 1 1');
      open();
      lab.openAll();
      await Promise.all(['archived', 'restored', 'removed'].map((name) => lab.idle(name)));
      t.equal(await counts(), '0 0 0');
    }),

    hsm(
      '409b',
      'a released file is looked at with the coordinator stopped, and read when it runs again',
      async (t, lab) => {
        await lab.set('hsm_control=shutdown');
        t.match(await stat(lab.at('f')), { size: 7, blocks: 1 });
        t.match(await run('cat', [lab.at('f')]), noData);
        for (const request of ['archive', 'restore', 'remove', 'cancel']) {
          const refused = { code: 11, stderr: /Resource temporarily unavailable/ };
          t.match(await lab.lfs(`hsm_${request}`, 'f'), refused, request);
        }
        await lab.ok('hsm_release', 'f');
        await lab.set('hsm_control=enabled');
        t.equal(await lab.text('f'), 'content');
      },
      { blobs: { f: 'content' } },
    ),

    hsm('26a', 'the copy goes with the last name, where that is the policy', async (t, lab) => {
      await lab.clean('kept', 'kept');
      await lab.clean('f', 'content');
      const [kept, fid] = [await lab.fid('kept'), await lab.fid('f')];
      await rm(lab.at('kept'));
      await lab.set('hsm.remove_archive_on_last_unlink=1');
      await rm(lab.at('f'));
      await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      t.notOk(await lab.hasBlob('f'));
      t.ok(await lab.hasBlob('kept'), 'not without it');
      t.notOk((await lab.finished(kept)).some(({ action }) => action === 'REMOVE'));
    }),

    hsm('26b 26e', 'with the coordinator stopped, it goes when that runs again', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      await lab.set('hsm.remove_archive_on_last_unlink=1');
      await lab.set('hsm_control=shutdown');
      await rm(lab.at('f'));
      t.ok(await lab.hasBlob('f'));
      await lab.set('hsm_control=enabled');
      await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      t.notOk(await lab.hasBlob('f'));
    }),

    hsm('26c', 'it stays as long as somebody has the file open', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      await lab.set('hsm.remove_archive_on_last_unlink=1');
      const reader = lab.application();
      await reader.do('fd = os.open(args[0], os.O_RDONLY)', lab.at('f'));
      await rm(lab.at('f'));
      t.equal(await reader.do('os.pread(fd, 7, 0)'), 'content');
      t.ok(await lab.hasBlob('f'));
      await reader.do('os.close(fd)');
      await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      t.notOk(await lab.hasBlob('f'));
    }),

    hsm('410', 'data_version -s makes no file releasable that has no copy', async (t, lab) => {
      await lab.write('f', 'content');
      await lab.ok('hsm_set --exists --archived', 'f');
      t.equal((await lfs(['data_version', '-ws', lab.at('f')])).code, 1, 'Lustre lets it (SEMANTICS.md)');
      t.equal((await lab.lfs('hsm_release', 'f')).code, 1);
      t.equal(await lab.text('f'), 'content');
    }),
  ],
};
