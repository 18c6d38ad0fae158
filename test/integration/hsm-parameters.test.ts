/** `lustrite hsm get-param|set-param` on a real mount, and what readers and `lfs` see of the parameters. */
import { chmod, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import t from 'tap';
import { nobody, runAs } from '../helpers/as-user.js';
import { hsmFlags, lfs, lfsPath, states, untilFlags } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, start } from '../helpers/run.js';

const blobs = { waits: 'waits', masked: 'masked', user: 'user' };

t.test('the parameters of the coordinator', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, blobs);
  const { path } = lab.mount;
  const fsName = lab.container.containerName;
  const set = async (...assignments: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await lustrite(['hsm', 'set-param', path, ...assignments]);
    if (code !== 0) throw new Error(stderr);
    return stdout;
  };

  await t.test('are shown with the names and in the format of lctl', async (t) => {
    const { stdout } = await lustrite(['hsm', 'get-param', path]);
    const prefix = `mdt.${fsName}-MDT0000.`;
    for (const line of [
      'hsm_control=enabled',
      'hsm.max_requests=64',
      'hsm.policy=NonBlockingRestore [NoRetryAction]',
      'hsm.user_request_mask=RESTORE',
      'hsm.active_requests=',
    ])
      t.ok(stdout.split('\n').includes(`${prefix}${line}`), line);
    t.equal((await lustrite(['hsm', 'get-param', path, '-n', 'mdt.*.hsm.default_archive_id'])).stdout, '1\n');
    t.equal(await set('hsm.max_requests=5'), `${prefix}hsm.max_requests=5\n`);
    const { stdout: json } = await lustrite(['hsm', 'get-param', path, 'max_requests', '--json']);
    t.same(JSON.parse(json), [{ name: `${prefix}hsm.max_requests`, value: '5' }]);
  });

  await t.test('what is wrong with a command is said, and nothing changes', async (t) => {
    const rows: readonly (readonly [args: readonly string[], code: number, error: RegExp])[] = [
      [['get-param', path, 'nothing'], 1, /no parameter is called 'nothing'/],
      [['set-param', path], 2, /missing required argument/],
      [['set-param', path, 'hsm.max_requests'], 2, /'hsm.max_requests' is not NAME=VALUE/],
      [['set-param', path, '=3'], 2, /'=3' is not NAME=VALUE/],
      [['set-param', path, 'hsm.max_requests=0'], 1, /max_requests: a whole number from 1/],
      [['set-param', path, 'hsm.policy=+XYZ'], 1, /'XYZ': the policies are/],
      [['set-param', path, 'hsm_control=start'], 1, /'start': the commands are enabled/],
      [['set-param', path, 'hsm.agents=1'], 1, /hsm.agents can only be read/],
      [['set-param', `${path}/none`, 'hsm.max_requests=1'], 1, /lustrite has not mounted/],
    ];
    for (const [args, code, error] of rows)
      t.match(await lustrite(['hsm', ...args]), { code, stderr: error }, args.slice(0, 3).join(' '));
    t.equal((await lustrite(['hsm', 'get-param', path, '-n', 'max_requests'])).stdout, '5\n');
  });

  await t.test('disabled: a reader waits until it is enabled', async (t) => {
    await set('hsm_control=disabled');
    const reader = start('cat', [lab.at('waits')]);
    await until(async () => (await lab.mount.status())?.heldRequests === 1, {
      what: 'the reader to be held',
    });
    t.equal(
      (await lfs(['hsm_action', lab.at('waits')])).stdout,
      `${lab.at('waits')}: RESTORE waiting (from 0 to EOF)\n`,
    );
    await set('hsm_control=enabled');
    t.match(await reader.ended, { code: 0, stdout: 'waits' });
  });

  await t.test('24c: the masks hold for lfs and for readers', async (t) => {
    const [masked, user] = [lab.at('masked'), lab.at('user')];
    await chmod(dirname(path), 0o711);
    await ok('chmod', ['0666', masked, user]);
    await ok('sh', ['-c', 'echo more >> "$0"', user]);
    t.equal((await runAs(nobody, lfsPath, ['hsm_archive', user])).code, 1);
    await set('hsm.other_request_mask=archive');
    t.equal((await runAs(nobody, lfsPath, ['hsm_archive', user])).code, 0);
    await untilFlags(user, states.clean);
    t.equal((await runAs(nobody, lfsPath, ['hsm_restore', masked])).code, 1);
    t.match(await runAs(nobody, 'cat', [masked]), { code: 1, stderr: /No data available/ });
    t.equal(await hsmFlags(masked), states.stub);
    t.equal(await readFile(masked, 'utf8'), 'masked', 'root may everything');
  });
});
