/** Who may do what. */
import { chmod, chown } from 'node:fs/promises';
import { runAs, type User } from '../helpers/as-user.js';
import { lfsPath, states } from '../helpers/lfs.js';
import { ok, run } from '../helpers/run.js';
import { hsm, type Theme } from './theme.js';

const user: User = { uid: 1234, gid: 2345 };
const friend: User = { uid: 1235, gid: 2346, groups: [2345] };
const stranger: User = { uid: 1236, gid: 2347 };
const refused = { code: 1, stderr: /Operation not permitted/ };
const denied = { code: 13, stderr: /Permission denied/ };

export const permissions: Theme = {
  cases: [
    hsm('1A', 'an owner may change norelease, noarchive and dirty; the rest is for root', async (t, lab) => {
      await chmod(lab.path, 0o777);
      t.match(await runAs(user, 'touch', [lab.at('f')]), { code: 0 });
      t.equal(await lab.state('f'), '(0x00000000)');
      t.match(await lab.lfsAs(user, 'hsm_set --norelease', 'f'), { code: 0, stderr: '' });
      t.equal(await lab.state('f'), '(0x00000010) never_release');
      t.match(await lab.lfsAs(user, 'hsm_clear --norelease', 'f'), { code: 0, stderr: '' });
      for (const flag of ['exists', 'archived', 'lost'])
        t.match(await lab.lfsAs(user, `hsm_set --${flag}`, 'f'), refused, flag);
      t.equal(await lab.state('f'), '(0x00000000)');
      await lab.ok('hsm_set --exists', 'f');
      t.match(await lab.lfsAs(user, 'hsm_set --dirty --noarchive', 'f'), { code: 0, stderr: '' });
      t.equal(await lab.state('f'), '(0x00000023) exists dirty never_archive');
      await chmod(lab.at('f'), 0o666);
      t.match(await lab.lfsAs(stranger, 'hsm_clear --dirty', 'f'), refused, 'writable is not owned');
      await chmod(lab.at('f'), 0o644);
      t.match(await lab.lfsAs(stranger, 'hsm_clear --dirty', 'f'), denied, 'nor even written');
      for (const mode of [0o200, 0o444]) {
        await chmod(lab.at('f'), mode);
        const may = mode === 0o200 ? { code: 0, stderr: '' } : denied;
        t.match(await lab.lfsAs(user, 'hsm_set --norelease', 'f'), may, 'it is for who may write');
      }
      await chmod(lab.at('f'), 0o644);
      await lab.ok('hsm_clear --norelease', 'f');
      t.match(await lab.lfsAs(user, 'hsm_clear --exists', 'f'), refused);
      await lab.ok('hsm_clear --exists --dirty --noarchive', 'f');
      t.equal(await lab.state('f'), '(0x00000000)');
    }),

    hsm('24b', "root archives, releases and restores a user's file, who reads it after", async (t, lab) => {
      await lab.write('f', 'content');
      await chown(lab.at('f'), user.uid, user.gid);
      await chmod(lab.path, 0o555);
      await lab.container.archived(lab.blobName('f'));
      await lab.ok('hsm_release', 'f');
      await lab.ok('hsm_restore', 'f');
      await lab.untilFlags('f', states.clean);
      t.match(await lab.lfsAs(user, 'hsm_state', 'f'), {
        code: 0,
        stdout: `${lab.at('f')}: (0x00000009) exists archived, archive_id:1\n`,
      });
      await lab.released('f');
      t.match(await runAs(user, 'cat', [lab.at('f')]), { code: 0, stdout: 'content' });
      t.equal(await lab.flags('f'), states.clean);
    }),

    hsm('24c', 'users may restore any file, and what the request mask of their class has', async (t, lab) => {
      await lab.stub('released', 'content');
      await lab.clean('clean', 'content');
      await lab.write('new', 'content');
      for (const name of ['released', 'clean', 'new']) {
        await chown(lab.at(name), user.uid, user.gid);
        await chmod(lab.at(name), 0o600);
      }
      for (const who of [user, friend, stranger]) {
        t.match(await lab.lfsAs(who, 'hsm_archive', 'new'), refused);
        t.match(await lab.lfsAs(who, 'hsm_remove', 'clean'), refused);
        t.equal((await lab.lfsAs(who, 'hsm_cancel', 'clean')).code, 0, 'there is nothing to cancel');
      }
      t.equal(await lab.flags('new'), states.new);
      t.equal(await lab.flags('clean'), states.clean);
      const open = lab.hold('GET', 'released');
      t.match(await lab.lfsAs(stranger, 'hsm_restore', 'released'), { code: 0, stderr: '' });
      await lab.arrived('GET', 'released');
      t.match(await lab.lfsAs(user, 'hsm_cancel', 'released'), refused);
      open();
      await lab.untilFlags('released', states.clean);
      t.match(await lab.lfsAs(stranger, 'hsm_release', 'new'), refused, 'its flags come first');
      t.match(await lab.lfsAs(stranger, 'hsm_release', 'clean'), denied);
      t.match(await lab.lfsAs(user, 'hsm_release', 'clean'), { code: 0 }, 'who may write may release');
      t.equal(await lab.flags('clean'), states.stub);
      t.match(await lab.lfsAs(stranger, 'hsm_state', 'clean'), denied);

      const classes = [
        ['user', user],
        ['group', friend],
        ['other', stranger],
      ] as const;
      for (const [own, member] of classes) {
        await lab.write(own, 'content');
        await chown(lab.at(own), user.uid, user.gid);
        await chmod(lab.at(own), 0o600);
        await lab.set(`hsm.${own}_request_mask=restore archive REMOVE`);
        for (const [request, then] of [
          ['hsm_archive', states.clean],
          ['hsm_remove', states.new],
        ] as const) {
          for (const [name, who] of classes)
            if (who !== member) t.match(await lab.lfsAs(who, request, own), refused, `${request} by ${name}`);
          t.match(await lab.lfsAs(member, request, own), { code: 0, stderr: '' }, `${request} by ${own}`);
          await lab.untilFlags(own, then);
          await lab.idle(own);
        }
        await lab.set(`hsm.${own}_request_mask=RESTORE`);
      }
    }),

    hsm('2.4', 'an ACL and capabilities count as the kernel counts them', async (t, lab) => {
      for (const name of ['named', 'masked', 'new']) {
        await lab.write(name, 'content');
        await chown(lab.at(name), user.uid, user.gid);
      }
      await ok('setfacl', ['-m', `u:${stranger.uid}:rw`, lab.at('named')]);
      await ok('setfacl', ['-m', `u:${stranger.uid}:rw,g::r`, lab.at('masked')]);
      for (const name of ['named', 'masked']) await lab.container.archived(lab.blobName(name));
      t.match(await lab.lfsAs(friend, 'hsm_release', 'masked'), denied, 'the mode shows the mask');
      t.match(await lab.lfsAs(stranger, 'hsm_release', 'named'), { code: 0, stderr: '' });
      t.equal(await lab.flags('masked'), states.clean);
      t.equal(await lab.flags('named'), states.stub);
      const without = ['--bounding-set=-sys_admin', '--inh-caps=-all', lfsPath];
      t.match(
        await run('setpriv', [...without, 'hsm_archive', lab.at('new')]),
        refused,
        'root is but a name',
      );
      t.equal(await lab.flags('new'), states.new);
    }),

    hsm('24g', 'a write by somebody who does not own the file makes it dirty', async (t, lab) => {
      await lab.clean('f', 'content');
      await chmod(lab.at('f'), 0o666);
      t.match(await runAs(stranger, 'sh', ['-c', 'printf new > "$1"', 'sh', lab.at('f')]), { code: 0 });
      t.equal(await lab.flags('f'), states.dirty);
      t.equal(await lab.text('f'), 'new');
    }),

    // The last one: it mounts anew.
    hsm('24d', 'a read-only mount restores and reads, and refuses what changes a state', async (t, lab) => {
      const { mount } = lab.container;
      for (const name of ['archive', 'dirty']) await lab.write(name, name);
      for (const name of ['clean', 'restore', 'read']) await lab.clean(name, name);
      await lab.released('restore');
      await lab.released('read');
      await mount.unmount();
      await mount.remount({ env: { LUSTRITE_READ_ONLY: 'true' } });
      t.match(await run('sh', ['-c', ': > "$1"', 'sh', lab.at('made')]), { stderr: /Read-only file system/ });
      for (const [command, name] of [
        ['hsm_archive', 'archive'],
        ['hsm_release', 'clean'],
        ['hsm_remove', 'clean'],
        ['hsm_set --norelease', 'clean'],
      ] as const) {
        t.match(await lab.lfs(command, name), { code: 30, stderr: /Read-only file system/ }, command);
      }
      t.match(await lab.lfs('hsm_release', 'archive'), refused, 'its flags come first');
      t.equal(await lab.flags('archive'), states.new);
      t.equal(await lab.flags('clean'), states.clean);
      await lab.ok('hsm_restore', 'restore');
      await lab.untilFlags('restore', states.clean);
      t.equal(await lab.text('read'), 'read');
      t.equal(await lab.flags('read'), states.clean);
      await mount.unmount();
      await mount.remount();
      await lab.ok('hsm_release', 'read', 'restore');
      t.equal(await lab.text('read'), 'read');
    }),
  ],
};
