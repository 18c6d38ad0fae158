/** The disk of the store has no room for a byte: what needs none works, and nothing that is there is lost. */
import { existsSync } from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import { AutoImport } from '../helpers/auto-import.js';
import { hsmFlags, lfs, states, untilFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { lustrite } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { run } from '../helpers/run.js';
import { StoreImage } from '../helpers/store-image.js';

const MiB = 2 ** 20;
const skip = cannotMount || (existsSync('/dev/loop-control') ? false : 'there are no loop devices');

/** Takes every block there is, those for root, too; the path of what has them. */
async function fill(folder: string): Promise<string> {
  const path = join(folder, 'fill');
  await using file = await open(path, 'w');
  for (let bytes = MiB; bytes >= 1; bytes = Math.floor(bytes / 4)) {
    const block = Buffer.alloc(bytes);
    try {
      for (;;) await file.write(block);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
  }
  return path;
}

t.test('a full disk keeps no mount from starting, whatever a dead daemon has left', { skip }, async (t) => {
  await using image = await StoreImage.create('ext4', 64 * MiB);
  if (image === undefined) throw new Error('no file system on a loop device');
  const lab = await MountedContainer.start(
    t,
    { stub: 's'.repeat(9000), wanted: 'w'.repeat(9000) },
    { store: image.path },
  );
  const { mount } = lab;
  const stderrOf = async (at: string): Promise<string> => (await run('cat', [at])).stderr;
  await writeFile(lab.at('mine'), 'only here');
  t.match(await lustrite(['changelog', 'register', mount.path]), { code: 0 });
  const release = lab.hold({ method: 'GET', blob: 'wanted' });
  await lfs(['hsm_restore', lab.at('wanted')]);
  await lab.arrived({ method: 'GET', blob: 'wanted' });
  const job = await AutoImport.enable(mount, { name: 'watch', prefix: '', mode: 'Skip' });
  await mount.kill();
  release();
  const full = await fill(dirname(image.path));

  await mount.remount({ ready: 'mounted' });
  t.equal(await readFile(lab.at('mine'), 'utf8'), 'only here');
  t.equal(await hsmFlags(lab.at('stub')), states.stub);
  t.match(await stderrOf(lab.at('stub')), /No data available|No space left/);
  t.match(mount.log(), /ENOSPC|[Nn]o space/, 'the log has the cause');
  await rm(lab.at('mine'));
  t.notOk(existsSync(lab.backing('mine')), 'what gives room needs none');

  await rm(full);
  t.equal(await readFile(lab.at('stub'), 'utf8'), 's'.repeat(9000));
  await job.disable();
  t.equal((await job.status()).state, 'Disabled', 'it went on');
  t.equal(await lab.lfs('hsm_restore', 'wanted'), 0);
  await untilFlags(lab.at('wanted'), states.clean);
  t.match(await lustrite(['changelog', mount.path]), { stdout: /MARK .*missing/ });
});
