/** hsm_release: when it is refused, and what a released file looks like. */
import { stat, utimes } from 'node:fs/promises';
import { states } from '../helpers/lfs.js';
import { ok, shell } from '../helpers/run.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

const MiB = 2 ** 20;
const refused = { code: 1, stderr: /Operation not permitted/ };

async function seconds(lab: Lab, name: string): Promise<readonly number[]> {
  const { atimeMs, mtimeMs, ctimeMs } = await stat(lab.at(name));
  return [atimeMs, mtimeMs, ctimeMs].map((ms) => Math.floor(ms / 1000));
}

export const release: Theme = {
  cases: [
    hsm('20', 'what is new, dirty, lost or marked never_release is not released', async (t, lab) => {
      await lab.write('f', '');
      t.match(await lab.lfs('hsm_release', 'f'), refused);
      await lab.ok('hsm_set --exists --archived', 'f');
      for (const flag of ['norelease', 'lost', 'dirty']) {
        await lab.ok(`hsm_set --${flag}`, 'f');
        t.match(await lab.lfs('hsm_release', 'f'), refused, flag);
        await lab.ok(`hsm_clear --${flag}`, 'f');
      }
      t.equal(await lab.state('f'), '(0x00000009) exists archived');
      t.match(await lab.lfs('hsm_release', 'f'), refused, 'nor what was never archived (SEMANTICS.md)');
      await lab.write('data', 'only here');
      await lab.ok('hsm_set --exists --archived', 'data');
      t.match(await lab.lfs('hsm_release', 'data'), refused);
      t.equal(await lab.text('data'), 'only here');
    }),

    hsm(
      '21 262',
      'a released file has its size and one block, however often it is released',
      async (t, lab) => {
        await lab.write('f', Buffer.alloc(MiB, 'x'));
        const { blocks } = await stat(lab.at('f'));
        await lab.container.archived(lab.blobName('f'));
        t.match(await stat(lab.at('f')), { size: MiB, blocks });
        for (let i = 0; i < 2; i++) {
          await lab.released('f');
          t.match(await stat(lab.at('f')), { size: MiB, blocks: 1 });
          await lab.ok('hsm_release', 'f');
          t.equal(await lab.flags('f'), states.stub);
          t.match(await stat(lab.at('f')), { size: MiB, blocks: 1 });
          await lab.ok('hsm_restore', 'f');
          await lab.untilFlags('f', states.clean);
        }
        await lab.stub('empty', '');
        t.match(await stat(lab.at('empty')), { size: 0, blocks: 0 });
        await lab.ok('hsm_release', 'empty');
        t.equal(await lab.flags('empty'), states.stub);
      },
    ),

    hsm(
      '261',
      'every process sees the size right after a release and right after a restore',
      async (t, lab) => {
        const [one, other] = [lab.application(), lab.application()];
        await lab.clean('f', Buffer.alloc(200_001));
        const size = 'os.stat(args[0]).st_size';
        for (let i = 0; i < 3; i++) {
          await lab.released('f');
          t.equal(await one.do(size, lab.at('f')), 200_001);
          t.equal(await other.do('len(open(args[0], "rb").read())', lab.at('f')), 200_001);
          t.equal(await one.do(size, lab.at('f')), 200_001);
        }
      },
    ),

    hsm('23', 'a release keeps the times that were set after the archive', async (t, lab) => {
      await lab.clean('f', 'content');
      await ok('touch', ['-a', '-m', '-d', '@978261179', lab.at('f')]);
      t.equal(await lab.flags('f'), states.clean);
      await lab.released('f');
      t.same((await seconds(lab, 'f')).slice(0, 2), [978261179, 978261179]);
    }),

    hsm(
      '3.3',
      'at the first refused file of a list a release stops; what was before it is released',
      async (t, lab) => {
        for (const name of ['a', 'b', 'c']) await lab.clean(name, name);
        await shell('printf x >> "$1"', [lab.at('b')]);
        t.match(await lab.lfs('hsm_release', 'a', 'b', 'c'), {
          code: 1,
          stderr: `Cannot send HSM request (use of ${lab.at('a')}): Operation not permitted\n`,
        });
        t.same(
          [await lab.flags('a'), await lab.flags('b'), await lab.flags('c')],
          [states.stub, states.dirty, states.clean],
        );
        t.match(await lab.lfs('hsm_release', 'a', 'missing'), { code: 2, stderr: /^Cannot stat/ });
      },
    ),

    hsm('3.9', 'noarchive does not keep a file from being released and restored', async (t, lab) => {
      await lab.clean('f', 'content');
      await lab.ok('hsm_set --noarchive', 'f');
      await lab.ok('hsm_release', 'f');
      t.equal(await lab.state('f'), '(0x0000002d) released exists archived never_archive, archive_id:1');
      await lab.ok('hsm_restore', 'f');
      await lab.untilFlags('f', 0x29);
      await shell('printf x >> "$1"', [lab.at('f')]);
      t.equal(await lab.flags('f'), 0x2b);
      t.match(await lab.lfs('hsm_archive', 'f'), refused);
    }),

    // The last one: it mounts anew.
    hsm('24a', 'archive, release, restore and a new mount change no time', async (t, lab) => {
      const { mount } = lab.container;
      await lab.write('f', 'content');
      // An access time that a read would move.
      await utimes(lab.at('f'), 978261179, 978261180);
      const before = await seconds(lab, 'f');
      await lab.container.archived(lab.blobName('f'));
      t.same(await seconds(lab, 'f'), before, 'archive');
      await lab.released('f');
      t.same(await seconds(lab, 'f'), before, 'release');
      await lab.ok('hsm_restore', 'f');
      await lab.untilFlags('f', states.clean);
      t.same(await seconds(lab, 'f'), before, 'restore');
      await mount.unmount();
      await mount.remount();
      t.same(await seconds(lab, 'f'), before, 'mount');
      t.equal(await lab.flags('f'), states.clean);
    }),
  ],
};
