/** `lustrite hsm get-param|set-param` and `lustrite changelog` on a real mount, and what readers and `lfs` see of the parameters. */
import { chmod, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import t from 'tap';
import { nobody, runAs } from '../helpers/as-user.js';
import { hsmFlags, lfs, lfsPath, states, untilFlags } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, start } from '../helpers/run.js';

const blobs = { waits: 'waits', masked: 'masked', user: 'user', gone: 'gone', told: 'told' };

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
    ])
      t.ok(stdout.split('\n').includes(`${prefix}${line}`), line);
    t.match(stdout, /hsm\.agents=\nuuid=/);
    t.notMatch(stdout, 'hsm.actions');
    t.equal((await lustrite(['hsm', 'get-param', path, '-n', 'hsm.actions'])).stdout, '');
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

  const changelog = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await lustrite(['changelog', ...args]);
    if (code !== 0 || stderr !== '') throw new Error(stderr);
    return stdout;
  };
  const date = String.raw`\d\d:\d\d:\d\d\.\d{9} \d{4}\.\d\d\.\d\d`;

  await t.test('a changelog is read, cleared and given up by its readers', async (t) => {
    const unread = await lustrite(['changelog', path]);
    t.match(unread, { code: 0, stdout: '', stderr: /without a reader: lustrite changelog register \// });
    t.equal(await changelog('register', path), 'cl1\n');
    t.same(JSON.parse(await changelog('register', path, '--json')), { id: 'cl2', cleared: 0 });
    await rm(lab.at('gone'));
    await readFile(lab.at('told'));
    const lines = (await changelog(path)).trimEnd().split('\n');
    t.equal(lines.length, 2);
    t.match(lines[0], new RegExp(String.raw`^1 06UNLNK ${date} 0x3 t=\[\S+\] p=\[\S+\] gone$`));
    t.match(lines[1], new RegExp(String.raw`^2 16HSM   ${date} 0x80 t=\[\S+\]$`));
    t.equal(await changelog(path, '2', '2'), `${lines[1] ?? ''}\n`);
    t.match(JSON.parse(await changelog(path, '1', '1', '--json')), [{ index: 1, type: 'UNLNK', flags: 3 }]);
    t.equal(await changelog('clear', path, 'cl1', '0'), '');
    t.match(JSON.parse(await changelog('clear', path, 'cl2', '1', '--json')), { id: 'cl2', cleared: 1 });
    t.equal(
      await changelog('readers', path),
      'current_index: 2\nID   cleared  missing\ncl1  2        0\ncl2  1        0\n',
    );
    t.equal(await changelog(path), `${lines[1] ?? ''}\n`);
    t.equal(await changelog('deregister', path, 'cl1'), '');
    const refused: readonly (readonly [args: readonly string[], code: number, error: RegExp])[] = [
      [['deregister', path, 'cl1'], 1, /no reader cl1/],
      [['clear', path, 'cl2', '9'], 1, /the last record of the changelog is 2/],
      [['clear', path, 'x', '1'], 1, /a reader is called cl1/],
      [[path, 'x'], 2, /numbered from 1/],
    ];
    for (const [args, code, error] of refused)
      t.match(await lustrite(['changelog', ...args]), { code, stderr: error }, args.join(' '));
  });

  await t.test('after a kill its records are told again, and that some may be missing', async (t) => {
    const before = await changelog(path);
    await lab.mount.kill();
    await lab.mount.remount();
    await rm(lab.at('told'));
    const after = await changelog(path);
    t.ok(after.startsWith(before));
    t.match(
      after.slice(before.length),
      new RegExp(`^3 00MARK  ${date} 0x0 .* killed: records may be missing\n4 06UNLNK .* told\n$`),
    );
  });
});
