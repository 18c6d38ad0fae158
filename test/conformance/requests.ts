/** The queue: what is shown of it, in which order it is served, lists of files, and what a restart keeps. */
import { readFile } from 'node:fs/promises';
import { HS, lfs, lfsPath, states } from '../helpers/lfs.js';
import { shell } from '../helpers/run.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

/** Occupies the only place for an explicit request, until the function that is returned has been called. */
async function occupied(lab: Lab): Promise<() => void> {
  await lab.write('blocker', 'blocker');
  const open = lab.hold('PUT', 'blocker');
  await lab.container.uploading(lab.blobName('blocker'));
  return open;
}

const numbered = (count: number): readonly string[] => Array.from({ length: count }, (_, i) => `f.${i}`);

export const requests: Theme = {
  cases: [
    hsm('112', 'hsm_action shows a request that waits, until it is done', async (t, lab) => {
      const open = await occupied(lab);
      await lab.write('f', 'content');
      await lab.ok('hsm_archive', 'f');
      t.equal(await lab.action('f'), 'ARCHIVE waiting (from 0 to EOF)');
      t.equal(await lab.flags('f'), states.new, 'it has not begun');
      t.equal(await lab.action('blocker'), 'ARCHIVE running (0 bytes moved)');
      t.equal(await lab.flags('blocker'), HS.EXISTS);
      open();
      await lab.untilFlags('f', states.clean);
      await lab.idle('f');
    }),

    hsm('114', 'a request that no longer fits fails alone', async (t, lab) => {
      const open = await occupied(lab);
      for (const name of ['a', 'b', 'c']) await lab.write(name, name);
      const fids = [await lab.fid('a'), await lab.fid('b'), await lab.fid('c')] as const;
      await lab.ok('hsm_archive', 'a', 'b', 'c');
      await lab.ok('hsm_set --noarchive', 'b');
      open();
      await lab.untilFinished(fids[0], 'ARCHIVE', 'SUCCEED');
      await lab.untilFinished(fids[1], 'ARCHIVE', 'FAILED');
      await lab.untilFinished(fids[2], 'ARCHIVE', 'SUCCEED');
      t.equal(await lab.state('b'), '(0x00000020) never_archive');
      t.notOk(await lab.hasBlob('b'));
    }),

    hsm('260a', 'a restore goes before archives and removes that wait longer', async (t, lab) => {
      for (const name of ['remove', 'restore']) await lab.clean(name, name);
      await lab.released('restore');
      await lab.write('archive', 'archive');
      const open = await occupied(lab);
      await lab.ok('hsm_remove', 'remove');
      await lab.ok('hsm_archive', 'archive');
      await lab.ok('hsm_restore', 'restore');
      t.equal(await lab.action('restore'), 'RESTORE waiting (from 0 to EOF)');
      lab.storage.clearLog();
      open();
      await lab.untilFlags('remove', states.new);
      await lab.untilFlags('archive', states.clean);
      const served = lab.storage.log
        .filter(({ blob, method }) => blob.startsWith('260a/') && method !== 'HEAD')
        .map(({ method, blob }) => `${method} ${blob.slice(5)}`)
        .filter((request) => !request.endsWith('blocker'));
      t.same(served, ['GET restore', 'PUT archive', 'DELETE remove']);
    }),

    hsm(
      '5.3',
      'a reader does not wait behind explicit requests',
      async (t, lab) => {
        const open = await occupied(lab);
        await lab.ok('hsm_restore', 'f');
        t.equal(await lab.action('f'), 'RESTORE waiting (from 0 to EOF)');
        t.equal(await lab.text('f'), 'content');
        t.equal(await lab.text('g'), 'content');
        t.equal(await lab.action('blocker'), 'ARCHIVE running (0 bytes moved)');
        open();
        await lab.untilFlags('blocker', states.clean);
      },
      { blobs: { f: 'content', g: 'content' } },
    ),

    hsm('90', 'lists of 51 files are archived, released and restored; 53 are too many', async (t, lab) => {
      const names = numbered(53);
      await shell('cd "$1"; for i in $(seq 0 52); do echo $i > f.$i; done', [lab.path]);
      await shell('cd "$1"; for i in $(seq 0 50); do echo "$1/f.$i"; done > list', [lab.path]);
      await lab.ok('hsm_archive --filelist', 'list');
      const listed = names.slice(0, 51);
      for (const name of listed) await lab.untilFlags(name, states.clean);
      await lab.ok('hsm_release --filelist', 'list');
      for (const name of listed) t.equal(await lab.flags(name), states.stub);
      await lab.ok('hsm_restore --filelist', 'list');
      for (const name of listed) await lab.untilFlags(name, states.clean);
      t.equal(await lab.text('f.50'), '50\n');
      t.match(await lab.lfs('hsm_archive', ...names), { code: 7, stderr: /Argument list too long/ });
      t.equal(await lab.flags('f.52'), states.new);
      await lab.ok('hsm_archive', ...names.slice(0, 52));
      await lab.untilFlags('f.51', states.clean);
    }),

    hsm('2.3', 'a bad operand means that nothing is sent', async (t, lab) => {
      await lab.write('f', 'content');
      await shell('cd "$1"; mkdir d; ln -s f link; printf "%s\\n\\n" "$1/f" > blank', [lab.path]);
      const table: readonly (readonly [code: number, stderr: RegExp, ...operands: string[]])[] = [
        [2, /^Cannot stat .*missing: No such file/, lab.at('f'), lab.at('missing')],
        [4, /link" is not a regular file/, lab.at('f'), lab.at('link')],
        [4, /d" is not a regular file/, lab.at('f'), lab.at('d')],
        [22, /^All files should be on the same filesystem/, lab.at('f'), lfsPath],
        [2, /^Cannot read the file list/, lab.at('f'), '--filelist', lab.at('missing')],
        [2, /^Cannot stat : No such file/, '--filelist', lab.at('blank')],
        [4, /unrecognized option '--wait'/, '--wait', lab.at('f')],
        [4, /usage: hsm_archive/],
      ];
      for (const [code, stderr, ...operands] of table)
        t.match(await lfs(['hsm_archive', ...operands]), { code, stderr, stdout: '' });
      t.equal(await lab.action('f'), 'NOOP');
      t.equal(await lab.flags('f'), states.new);
      t.notOk(await lab.hasBlob('f'));
    }),

    // The last one: it mounts anew.
    hsm(
      '105',
      'requests survive a daemon that was killed',
      async (t, lab) => {
        const { mount } = lab.container;
        await occupied(lab);
        for (const name of ['a', 'b', 'c']) await lab.write(name, name);
        await lab.ok('hsm_archive', 'a', 'b', 'c');
        await lab.ok('hsm_restore', 'stub');
        for (const name of ['a', 'b', 'c']) t.match(await lab.action(name), /^ARCHIVE waiting/);
        await mount.kill();
        lab.storage.clear();
        await mount.remount();
        for (const name of ['a', 'b', 'c', 'blocker', 'stub']) await lab.untilFlags(name, states.clean);
        t.equal((await readFile(lab.at('stub'))).toString(), 'stub');
        t.equal((await lab.blob('b')).toString(), 'b');
      },
      { blobs: { stub: 'stub' } },
    ),
  ],
};
