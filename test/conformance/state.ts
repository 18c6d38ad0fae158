/** What `lfs hsm_state`, `hsm_set` and `hsm_clear` say, and what makes a file dirty. */
import {
  chmod,
  copyFile,
  link,
  mkdir,
  readFile,
  rename,
  stat,
  symlink,
  truncate,
  utimes,
} from 'node:fs/promises';
import { HS, states } from '../helpers/lfs.js';
import { ok, run, shell, start } from '../helpers/run.js';
import { hsm, type Theme } from './theme.js';

const { EXISTS, DIRTY, ARCHIVED, NORELEASE, NOARCHIVE, LOST } = HS;
const existing = EXISTS;
const changed = EXISTS | DIRTY;

/** hsm_set's options, and the words of hsm_state in its order. */
const settable = [
  ['--exists', EXISTS, 'exists'],
  ['--dirty', DIRTY, 'dirty'],
  ['--archived', ARCHIVED, 'archived'],
  ['--norelease', NORELEASE, 'never_release'],
  ['--noarchive', NOARCHIVE, 'never_archive'],
  ['--lost', LOST, 'lost_from_hsm'],
] as const;

export const state: Theme = {
  cases: [
    hsm('1c', 'an archive id of any size is kept with a file that exists in an archive', async (t, lab) => {
      await lab.write('f', '');
      await lab.ok('hsm_set --archive-id 7 --noarchive', 'f');
      t.equal(await lab.state('f'), '(0x00000000)', 'without EXISTS nothing is set');
      await lab.ok('hsm_set --exists --archive-id 32', 'f');
      t.equal(await lab.state('f'), '(0x00000001) exists, archive_id:32');
      await lab.ok('hsm_set --exists --archive-id 0', 'f');
      t.equal(await lab.state('f'), '(0x00000001) exists, archive_id:32');
      await lab.ok('hsm_set --exists --archive-id 33', 'f');
      t.equal(await lab.state('f'), '(0x00000001) exists, archive_id:33');
      await lab.ok('hsm_set --exists --archived --archive-id 16', 'f');
      t.equal(await lab.state('f'), '(0x00000009) exists archived, archive_id:16');
      t.match(await lab.lfs('hsm_set --exists --archive-id x', 'f'), {
        code: 4,
        stderr: /invalid archive_id/,
      });
    }),

    hsm('2', 'a new size makes a file dirty, mode and owner do not', async (t, lab) => {
      await lab.write('f', '');
      t.equal(await lab.state('f'), '(0x00000000)');
      await lab.ok('hsm_set --exists', 'f');
      await shell('chmod 600 "$1"; chown 1:2 "$1"', [lab.at('f')]);
      t.equal(await lab.flags('f'), existing);
      await truncate(lab.at('f'), 1);
      t.equal(await lab.flags('f'), changed);
      await lab.ok('hsm_clear --dirty', 'f');
      t.equal(await lab.flags('f'), existing);
    }),

    hsm('3', 'a write makes a file dirty, opening it for writing does not', async (t, lab) => {
      const table = [
        ['reads', existing, 'cat "$1" > /dev/null'],
        ['opens', existing, ': >> "$1"'],
        ['appends', changed, 'printf abc >> "$1"'],
        ['overwrites', changed, 'printf abc | dd of="$1" conv=notrunc status=none'],
        ['writes the same', changed, 'printf old | dd of="$1" conv=notrunc status=none'],
        ['keeps its size', changed, 'truncate -s 11 "$1"'],
        ['replaces', changed, 'cp "$2" "$1"'],
      ] as const;
      await lab.write('other', 'other content');
      const unchanged = async (name: string): Promise<void> => {
        await lab.write(name, 'old content');
        await lab.ok('hsm_set --exists', name);
        t.equal(await lab.flags(name), existing);
      };
      for (const [what, then, script] of table) {
        await unchanged(what);
        await shell(script, [lab.at(what), lab.at('other')]);
        t.equal(await lab.flags(what), then, what);
      }
      await unchanged('maps');
      const application = lab.application();
      await application.do(
        'fd = os.open(args[0], os.O_RDWR); m = mmap.mmap(fd, 0); m[0:3] = b"abc"; m.close(); os.close(fd)',
        lab.at('maps'),
      );
      t.equal(await lab.flags('maps'), changed);
      t.equal(await lab.text('maps'), 'abc content');
    }),

    hsm(
      '500',
      'every combination of flags that Lustre takes is taken and shown, no other',
      async (t, lab) => {
        const expected: string[] = [];
        const names: string[] = [];
        for (let flags = 1; flags < 1 << settable.length; flags++) {
          const chosen = settable.filter((_, i) => (flags & (1 << i)) !== 0);
          const bits = chosen.reduce((all, [, bit]) => all | bit, 0);
          const refused =
            ((bits & DIRTY) !== 0 && (bits & EXISTS) === 0) ||
            ((bits & LOST) !== 0 && (bits & ARCHIVED) === 0);
          const name = chosen.map(([option]) => option.slice(2)).join('+');
          names.push(name);
          await lab.write(name, '');
          const { code, stderr } = await lab.lfs(
            `hsm_set ${chosen.map(([option]) => option).join(' ')}`,
            name,
          );
          t.equal(code, refused ? 22 : 0, `${name} ${stderr}`);
          const shown = refused ? 0 : bits;
          const words = refused ? '' : chosen.map(([, , word]) => ` ${word}`).join('');
          expected.push(`${lab.at(name)}: (0x${shown.toString(16).padStart(8, '0')})${words}`);
        }
        const { stdout } = await lab.lfs('hsm_state', ...names);
        t.same(stdout.trimEnd().split('\n'), expected);
        t.match(await lab.lfs('hsm_action', 'exists', 'dirty'), {
          code: 0,
          stdout: `${lab.at('exists')}: NOOP\n${lab.at('dirty')}: NOOP\n`,
        });
        const all = 'exists+archived+norelease+noarchive+lost';
        await lab.ok('hsm_clear --lost --norelease', all);
        t.equal(await lab.state(all), '(0x00000029) exists archived never_archive');
        t.equal((await lab.lfs('hsm_clear --exists', 'exists+dirty')).code, 22, 'dirty needs exists');
        await lab.ok('hsm_clear --exists --dirty', 'exists+dirty');
        t.equal(await lab.state('exists+dirty'), '(0x00000000)');
      },
    ),

    hsm('1.2', 'a released file shows its flags, norelease and lost among them', async (t, lab) => {
      await lab.stub('f', 'content');
      t.equal(await lab.state('f'), '(0x0000000d) released exists archived, archive_id:1');
      await lab.ok('hsm_set --norelease', 'f');
      t.equal(await lab.state('f'), '(0x0000001d) released exists archived never_release, archive_id:1');
      t.equal((await lab.lfs('hsm_release', 'f')).code, 1, 'norelease comes before released');
      await lab.ok('hsm_clear --norelease', 'f');
      await lab.ok('hsm_set --lost', 'f');
      t.equal(await lab.state('f'), '(0x0000004d) released exists archived lost_from_hsm, archive_id:1');
      t.equal((await lab.lfs('hsm_set --dirty', 'f')).code, 22, 'released is never dirty');
      t.equal((await lab.lfs('hsm_clear --archived', 'f')).code, 22, 'and always archived');
    }),

    hsm('1.3', 'what has no state is refused with the errno of Lustre', async (t, lab) => {
      await lab.clean('f', 'content');
      await mkdir(lab.at('d'));
      await symlink('f', lab.at('link'));
      await symlink('nowhere', lab.at('dangling'));
      const table: readonly (readonly [command: string, name: string, code: number])[] = [
        ['hsm_state', 'missing', 2],
        ['hsm_action', 'missing', 2],
        ['hsm_state', 'dangling', 2],
        ['hsm_state', 'd', 25],
        ['hsm_action', 'd', 25],
        ['hsm_set --norelease', 'd', 21],
        ['hsm_archive', 'd', 4],
        ['hsm_archive', 'link', 4],
        ['hsm_release', 'missing', 2],
      ];
      for (const [command, name, code] of table)
        t.equal((await lab.lfs(command, name)).code, code, `${command} ${name}`);
      t.equal(await lab.state('link'), '(0x00000009) exists archived, archive_id:1', 'of the target');
      await copyFile('/bin/sleep', lab.at('program'));
      const { child, ended } = start(lab.at('program'), ['600']);
      await lab.ok('hsm_set --norelease', 'program');
      child.kill();
      await ended;
      const several = await lab.lfs('hsm_state', 'missing', 'f', 'd');
      t.match(several, { code: 2, stdout: `${lab.at('f')}: (0x00000009)`, stderr: /No such file/ });
      t.match(several.stderr, /Inappropriate ioctl/, '2.16 goes on after an error');
    }),

    hsm(
      '1.3f',
      'fifos and sockets have no state either, and nobody waits for their other end',
      async (t, lab) => {
        await ok(
          'python3',
          ['-c', 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])', 's'],
          { cwd: lab.path },
        );
        t.match(await lab.lfs('hsm_state', 's'), { code: 6, stderr: /No such device or address/ });
        t.equal((await lab.lfs('hsm_archive', 's')).code, 4);
        await ok('mkfifo', [lab.at('fifo')]);
        t.equal((await lab.lfs('hsm_state', 'fifo')).code, 25);
        t.equal((await lab.lfs('hsm_archive', 'fifo')).code, 4);
      },
    ),

    hsm('3.6', 'metadata of a released file changes without a restore', async (t, lab) => {
      await lab.stub('f', 'content');
      lab.storage.clearLog();
      await shell(
        `chmod 600 "$1"; chown 1:2 "$1"; touch -d @978261179 "$1"
         ln "$1" "$1.link"; rm "$1.link"; mv "$1" "$1.new"; mv "$1.new" "$1"
         ls -l "$1"; test -s "$1"; find "$1" -size +0; python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], 0))' "$1"`,
        [lab.at('f')],
      );
      t.equal(await lab.flags('f'), states.stub);
      t.match(await stat(lab.at('f')), { mode: 0o100600, uid: 1, gid: 2, size: 7, mtimeMs: 978261179000 });
      t.equal(lab.count('GET', 'f'), 0);
    }),

    hsm('3.4', 'dirty is of the file, whatever its name, and clean metadata stays clean', async (t, lab) => {
      await lab.clean('f', 'content');
      await chmod(lab.at('f'), 0o600);
      await utimes(lab.at('f'), 1, 2);
      await rename(lab.at('f'), lab.at('renamed'));
      t.equal(await lab.flags('renamed'), states.clean);
      await link(lab.at('renamed'), lab.at('linked'));
      await shell('printf x >> "$1"', [lab.at('linked')]);
      t.equal(await lab.flags('renamed'), states.dirty);
      await lab.ok('hsm_clear --dirty', 'renamed');
      t.equal(await lab.flags('renamed'), states.clean, 'the user has the last word on the flag');
      t.match(await lab.lfs('hsm_release', 'renamed'), { code: 1, stderr: /Operation not permitted/ });
      t.equal(await lab.text('linked'), 'contentx', 'and none on the data');
      await lab.write('new', 'a');
      await shell('printf b >> "$1"; truncate -s 9 "$1"', [lab.at('new')]);
      t.equal(await lab.flags('new'), states.new, 'a new file is never dirty');
    }),

    hsm('4.2', 'extended attributes of users change no state and restore nothing', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.clean('clean', 'content');
      for (const name of ['f', 'clean']) {
        await shell(
          'setfattr -n user.colour -v blue "$1"; getfattr -n user.colour "$1"; setfattr -x user.colour "$1"',
          [lab.at(name)],
        );
      }
      t.same([await lab.flags('f'), await lab.flags('clean')], [states.stub, states.clean]);
      t.equal(lab.count('GET', 'f'), 0);
    }),

    hsm('4.1', "trusted.hsm is Lustre's, not listed, and writing it changes nothing", async (t, lab) => {
      await lab.stub('f', 'content');
      const shown = await ok('getfattr', ['-e', 'hex', '-n', 'trusted.hsm', lab.at('f')]);
      t.match(shown, /^trusted\.hsm=0x000000000d0000000100000000000000[0-9a-f]{16}$/m);
      await shell(
        `setfattr -n trusted.hsm -v 0x00 "$1"; setfattr -x trusted.hsm "$1"; setfattr -n user.hsm -v x "$1"
         test -z "$(getfattr -d -m - "$1")"`,
        [lab.at('f')],
      );
      t.equal(await lab.state('f'), '(0x0000000d) released exists archived, archive_id:1');
      await lab.write('new', '');
      t.match(
        await run('getfattr', ['-n', 'trusted.hsm', lab.at('new')]),
        { code: 1 },
        'a new file has none',
      );
      t.equal((await readFile(lab.at('f'))).toString(), 'content');
      const copy = (): Promise<string> =>
        ok('getfattr', ['--only-values', '-n', 'trusted.lhsm_uuid', lab.at('f')]);
      t.equal(await copy(), lab.blobName('f'), 'and the name of the copy is known');
      await lab.ok('hsm_remove', 'f');
      await lab.untilFlags('f', states.new);
      await t.rejects(copy(), /No such attribute/);
    }),

    hsm('4.3', "a client of its own asks with Lustre's numbers and structs", async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.ok('hsm_set --norelease', 'f');
      const client = lab.application();
      await client.do(
        `import fcntl, struct
def ask(number, form):
    answer = bytearray(b'\\xff' * struct.calcsize(form))
    fcntl.ioctl(file, number, answer)
    return list(struct.unpack(form, answer))
file = os.open(args[0], os.O_RDONLY | os.O_NONBLOCK)`,
        lab.at('f'),
      );
      const [state, action] = ["ask(0x802066d3, '=IIIIQQ')", "ask(0x801866dc, '=IIQQ')"];
      t.same(await client.do(state), [0x1d, 1, 0, 0, 0, 0]);
      const none = 1;
      t.same(await client.do(action), [0, none, 0, 0], 'nothing waits or runs');
      const open = lab.hold('GET', 'f');
      await lab.ok('hsm_restore', 'f');
      await lab.arrived('GET', 'f');
      const running = 2;
      const restore = 11;
      t.match(await client.do(action), [running, restore]);
      t.same(await client.do(state), [0x1d, 1, 0, 0, 0, 0], 'which this one never tells');
      open();
      await lab.idle('f');
    }),
  ],
};
