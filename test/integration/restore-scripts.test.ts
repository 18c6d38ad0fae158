/** The scripts of Azure Managed Lustre's documentation, unmodified, with nothing but `lfs` on the PATH. */
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { lfsPath, states, untilFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run } from '../helpers/run.js';

const restorer = fileURLToPath(new URL('../helpers/file_restorer.bash', import.meta.url));
const files = 330;

t.test('the restore scripts of the documentation', { skip: cannotMount }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'restore-scripts-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const bin = join(folder, 'bin');
  await mkdir(bin);
  await symlink(lfsPath, join(bin, 'lfs'));
  // Whoever runs this is root already, perhaps where there is no sudo.
  await writeFile(join(bin, 'sudo'), '#!/bin/sh\nexec "$@"\n');
  await chmod(join(bin, 'sudo'), 0o755);
  const env = { PATH: `${bin}:/usr/bin:/bin` };

  const names = Array.from({ length: files }, (_, at) => `dir ${at % 7}/f${at}`);
  const lab = await MountedContainer.start(t, Object.fromEntries(names.map((name) => [name, name])));
  const released = async (): Promise<number | undefined> => (await lab.mount.status())?.census['released'];

  await t.test('file_restorer.bash restores everything below a path, batch by batch', async (t) => {
    t.equal(await released(), files);
    const { code, stdout, stderr } = await run('bash', [restorer, lab.mount.path, '100'], {
      env,
      timeoutMs: 300_000,
    });
    t.same({ code, stderr }, { code: 0, stderr: '' });
    t.same(
      stdout
        .split('\n')
        .filter((line) => line.startsWith('Restored'))
        .map((line) => line.split(' ')[1]),
      ['100', '200', '300'],
    );
    await until(async () => (await released()) === 0, { what: 'the rest of the last batch' });
  });

  await t.test('find | xargs sudo lfs hsm_restore restores what is released', async (t) => {
    for (const name of names.slice(0, 100)) await lab.released(name);
    t.equal(await released(), 100);
    const line = 'find "$1" -type f -print0 | xargs -0 -n 1 sudo lfs hsm_restore';
    t.match(await run('bash', ['-c', line, 'bash', lab.mount.path], { env, timeoutMs: 300_000 }), {
      code: 0,
      stdout: '',
      stderr: '',
    });
    for (const name of names.slice(0, 100)) await untilFlags(lab.at(name), states.clean);
  });
});
