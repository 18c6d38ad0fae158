/** What is known of a file whose last name is gone, beyond sanity-hsm.sh: `lfs hsm_remove` by FID. */
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import t from 'tap';
import { lfs, lfsPath, states, untilFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok } from '../helpers/run.js';

const names = ['replaced', 'linked', 'taken', 'restarted'];
const blobs = Object.fromEntries(names.map((name) => [name, name]));

for (const frontEnd of ['native', 'fuse-native'] as const) {
  t.test(`files without a name, ${frontEnd}`, { skip: cannotMount }, async (t) => {
    const lab = await MountedContainer.start(t, blobs, { frontEnd });
    const { path } = lab.mount;
    const exists = (blob: string): Promise<boolean> => lab.container.getBlobClient(blob).exists();
    const gone = (blob: string): Promise<unknown> =>
      until(async () => !(await exists(blob)), { what: `the blob ${blob} to go` });
    const fidOf = async (name: string): Promise<string> =>
      (await ok(lfsPath, ['path2fid', lab.at(name)])).trim();
    const removed = async (...fids: readonly string[]): Promise<number | null> =>
      (await lfs(['hsm_remove', '-m', path, ...fids])).code;

    await t.test('a file that another one replaced is one of them', async (t) => {
      const fid = await fidOf('replaced');
      await writeFile(lab.at('new'), 'new');
      await rename(lab.at('new'), lab.at('replaced'));
      t.equal(await removed(fid), 0);
      await gone('replaced');
      t.equal(await readFile(lab.at('replaced'), 'utf8'), 'new');
      await untilFlags(lab.at('replaced'), states.new);
    });

    await t.test('the blob that a newer file has is not removed for an older one', async (t) => {
      const fid = await fidOf('taken');
      await rm(lab.at('taken'));
      await writeFile(lab.at('taken'), 'the new owner');
      t.equal((await lfs(['hsm_archive', lab.at('taken')])).code, 0);
      await untilFlags(lab.at('taken'), states.clean);
      t.equal(await removed(fid), 0, 'it is asked for, and fails');
      await until(() => lab.mount.log().includes('HSM request failed'), { what: 'the refusal' });
      t.equal((await lab.container.getBlobClient('taken').downloadToBuffer()).toString(), 'the new owner');
    });

    await t.test('a file that has another name is not one of them', async (t) => {
      await link(lab.at('linked'), lab.at('other name'));
      const fid = await fidOf('linked');
      await rm(lab.at('linked'));
      t.equal(await removed(fid), 1, 'it is released: EPERM');
      t.equal(await readFile(lab.at('other name'), 'utf8'), 'linked');
      t.ok(await exists('linked'));
    });

    await t.test('a daemon that is killed has not forgotten it', async (t) => {
      const fid = await fidOf('restarted');
      await rm(lab.at('restarted'));
      await lab.mount.kill();
      await lab.mount.remount();
      t.equal(await removed(fid), 0);
      await gone('restarted');
    });
  });
}
