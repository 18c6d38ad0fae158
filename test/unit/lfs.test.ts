/**
 * The `lfs` program as far as it needs no mount: its grammar, its messages and exit codes (lustre-hsm 1-2), and what it
 * says to the daemon's socket. A plain file plays a file of a mount without ioctl by carrying the attribute that names the
 * socket. What the program says to a real mount is in the conformance tests.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { text } from 'node:stream/consumers';
import t from 'tap';

const root = fileURLToPath(new URL('../..', import.meta.url));
const built = join(root, 'build/Release/lfs');

interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface RunOptions {
  readonly program?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly uid?: number;
}

/** Runs in `work`, so that relative names are the test's own. */
async function run(args: readonly string[], { program = built, env, uid }: RunOptions = {}): Promise<Result> {
  const child = spawn(program, args, {
    cwd: work,
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  await closed;
  return { status: child.exitCode, stdout, stderr };
}

const until215 = { env: { LUSTRITE_LFS_COMPAT: '2.15' } };

function makeWork(): string {
  const made = mkdtempSync(join(tmpdir(), 'lfs-'));
  chmodSync(made, 0o755);
  return made;
}

const work = makeWork();
t.teardown(() => {
  rmSync(work, { recursive: true, force: true });
});

const plain = ['a', 'b', 'odd name "\\é\n.txt'];
for (const name of plain) writeFileSync(join(work, name), 'text\n');
mkdirSync(join(work, 'dir'));
symlinkSync('a', join(work, 'link'));
symlinkSync('nowhere', join(work, 'dangling'));
writeFileSync(join(work, 'secret'), '', { mode: 0o600 });

/** `user.lustrite.socket` of a file; false where this file system has no user attributes. */
function setSocket(name: string, socket: string): boolean {
  const { status } = spawnSync('setfattr', ['-n', 'user.lustrite.socket', '-v', socket, join(work, name)]);
  return status === 0;
}

const attributes = setSocket('dir', join(work, 'probe'));
const needsAttributes = attributes ? {} : { skip: 'the temporary directory has no user attributes' };

/** Answers every question with the next of `answers` (the last one for ever), and keeps the questions. */
async function fakeDaemon(t: Tap, answers: readonly (string | readonly string[])[], ...names: string[]) {
  const path = join(work, `s${String(fakeDaemons++)}`);
  const questions: Record<string, unknown>[] = [];
  const server = createServer((connection) => {
    let question = '';
    connection.setEncoding('utf8');
    connection.on('error', () => undefined);
    connection.on('data', (chunk: string) => {
      question += chunk;
      if (!question.endsWith('\n')) return;
      const answer = answers[Math.min(questions.length, answers.length - 1)] ?? '';
      questions.push(JSON.parse(question) as Record<string, unknown>);
      for (const piece of typeof answer === 'string' ? [answer] : answer) connection.write(piece);
      connection.end();
    });
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  for (const name of names) setSocket(name, path);
  return questions;
}
interface Tap {
  teardown(end: () => unknown): void;
}
let fakeDaemons = 0;

const onFiles = [
  'hsm_state',
  'hsm_action',
  'hsm_set',
  'hsm_clear',
  'hsm_archive',
  'hsm_restore',
  'hsm_release',
  'hsm_remove',
  'hsm_cancel',
  'path2fid',
];
const everyCommand = [
  ...onFiles,
  'fid2path',
  'data_version',
  'setstripe',
  'getstripe',
  'setdirstripe',
  'getdirstripe',
  'mkdir',
  'find',
  'osts',
  'mdts',
  'check',
  'df',
  'quota',
];
const requests = onFiles.slice(4, 9);

t.test('a usage error prints the help of the command on stderr and exits 4', async (t) => {
  const notAFlag = "lfs: unrecognized option '--released'\n";
  const notForThis = 'error: -a is supported only when archiving or removing\n';
  const cases: [args: string[], before: string][] = [
    ...onFiles.map((command): [string[], string] => [[command], '']),
    ...onFiles.slice(2).map((command): [string[], string] => [[command, '--help', 'a'], '']),
    [['hsm_set', '--exists'], ''],
    [['hsm_set', 'a', 'b'], ''],
    [['hsm_set', '-i', '3', 'a'], ''],
    [['hsm_clear', '--archive-id', '3', 'a'], ''],
    [['hsm_set', '--released', 'a'], notAFlag],
    [['hsm_set', 'a', '--released'], notAFlag],
    [['hsm_set', '--archive', 'a'], "lfs: unrecognized option '--archive'\n"],
    [['hsm_set', '-e', '-i', 'abc', 'a'], "lfs: invalid archive_id: 'abc'\n"],
    [['hsm_set', '-e', '-i', '12x', 'a'], "lfs: invalid archive_id: 'x'\n"],
    [['hsm_set', '-e', '-i', '4294967296', 'a'], "lfs: invalid archive_id: '4294967296'\n"],
    [['hsm_set', '-e', '-i', '-1', 'a'], "lfs: invalid archive_id: '-1'\n"],
    ...['hsm_restore', 'hsm_release', 'hsm_cancel'].map((command): [string[], string] => [
      [command, 'a', '-a', '1'],
      notForThis,
    ]),
    ...requests.map((command): [string[], string] => [
      [command, 'dir'],
      'error: "dir" is not a regular file\n',
    ]),
    [['hsm_archive', 'link'], 'error: "link" is not a regular file\n'],
    [['hsm_archive', '--default', 'a'], "lfs: unrecognized option '--default'\n"],
    [['hsm_archive', '-D'], "lfs: unrecognized option '-D'\n"],
    [['path2fid', '-x', 'a'], "lfs: unrecognized option '-x'\n"],
    ...(
      [
        [['setstripe'], 'FILE must be specified'],
        [['setstripe', '-c', '4'], 'FILE must be specified'],
        [['setstripe', '-c', 'x', 'new'], "invalid stripe count 'x'"],
        [['setstripe', '-c', '', 'new'], "invalid stripe count ''"],
        [['setstripe', '-c', '-2', 'new'], "invalid stripe count '-2'"],
        [['setstripe', '-c', '2001', 'new'], "invalid stripe count '2001'"],
        [['setstripe', '-C', '-33', 'new'], "invalid stripe count '-33'"],
        [['setstripe', '-S', '100000', 'new'], "invalid stripe size '100000'"],
        [['setstripe', '-S', '4G', 'new'], "invalid stripe size '4G'"],
        [['setstripe', '-S', '-1', 'new'], "invalid stripe size '-1'"],
        [['setstripe', '-i', '-2', 'new'], "invalid stripe offset '-2'"],
        [['setstripe', '-i', '65536', 'new'], "invalid stripe offset '65536'"],
        [['setstripe', '-o', '3-1', 'new'], "invalid OST target(s) '3-1'"],
        [['setstripe', '-o', '1,,2', 'new'], "invalid OST target(s) '1,,2'"],
        [['setstripe', '-o', '0-99999999999', 'new'], "invalid OST target(s) '0-99999999999'"],
        [
          ['setstripe', '-p', 'a-pool-with-a-long-name', 'new'],
          "invalid pool name 'a-pool-with-a-long-name'",
        ],
        [['setstripe', '-E', '1000k', 'new'], "invalid component end '1000k'"],
        [['setstripe', '-E', '0', 'new'], "invalid component end '0'"],
        [['setstripe', '-E', '2M', '-E', '1M', 'new'], 'invalid layout'],
        [['setstripe', '-E', '-1', '-E', '1M', 'new'], 'invalid layout'],
        [
          ['setstripe', ...Array.from({ length: 17 }, (_, i) => [`-E${String(i + 1)}M`]).flat(), 'new'],
          'invalid layout',
        ],
        [['setstripe', '--mode', '8', 'new'], "bad mode '8'"],
        [['setstripe', '-N0', 'new'], "invalid mirror count '0'"],
        [['setstripe', '-d', '-c', '1', 'dir'], 'option -d is mutually exclusive'],
        [['setstripe', '--copy', 'a', '-c', '1', 'new'], "can't specify --yaml or --copy"],
        [['setstripe', '-m', '0', 'new'], '-m is valid only for migrate command'],
        [['setstripe', '-Z', 'new'], "unrecognized option '-Z'"],
      ] as const
    ).map(([args, text]): [string[], string] => [[...args], `lfs setstripe: ${text}`]),
    [['fid2path', '/'], 'Usage: lfs fid2path FSNAME|ROOT FID...\n'],
    [['fid2path', '-l', 'x', '/', '1:2:0'], "lfs fid2path: invalid linkno 'x'\n"],
    [['fid2path', '-l', '-1', '/', '1:2:0'], "lfs fid2path: invalid linkno '-1'\n"],
    [['fid2path', '--link', '', '/', '1:2:0'], "lfs fid2path: invalid linkno ''\n"],
    [['fid2path', '-Z', '/', '1:2:0'], "lfs fid2path: unrecognized option '-Z'\n"],
    [['data_version'], 'lfs data_version: FILENAME must be specified\n'],
    [['data_version', '-Z', 'a'], "lfs data_version: unrecognized option '-Z'\n"],
    [['data_version', '--help'], ''],
    [['getstripe'], 'error: getstripe: no filename|pathname\n'],
    [['getstripe', '-Z', 'a'], "lfs: unrecognized option '-Z'\n"],
    [['mkdir'], 'lfs mkdir: DIR must be specified\n'],
    [['mkdir', '-c', 'x', 'new'], "lfs mkdir: invalid stripe count 'x'\n"],
    [['mkdir', '-i', 'x', 'new'], "lfs mkdir: invalid MDT target(s) 'x'\n"],
    [['mkdir', '-H', 'md5', 'new'], "lfs mkdir: invalid directory hash type 'md5'\n"],
    [['mkdir', '-o', '9', 'new'], "lfs mkdir: invalid MODE '9'\n"],
    [['setdirstripe', '-Z', 'new'], "lfs: unrecognized option '-Z'\n"],
    [['getdirstripe'], ''],
    [['find'], ''],
    [['find', '--type', 'f'], ''],
    [['find', 'dir', '--help'], ''],
    [['find', 'dir', '--hsm', 'released'], "lfs: unrecognized option '--hsm'\n"],
    [['find', 'dir', '-type'], "lfs: unrecognized option '-type'\n"],
    [['find', 'dir', '-type', 'x'], "lfs: bad type 'x'\n"],
    [['find', 'dir', '--maxdepth', '1x'], "error: bad maxdepth '1x'\n"],
    [['find', 'dir', '--maxdepth', '-1'], "error: bad maxdepth '-1'\n"],
    [
      ['find', 'dir', '-type', 'f', 'a'],
      'err: find: filename|dirname must either precede options or follow options\n',
    ],
    [['osts', 'a', 'b'], ''],
    [['mdts', 'a', 'b'], ''],
    [['check'], 'lfs check: server type must be specified\n'],
    [['check', 'osts', 'a', 'b'], 'lfs check: server type must be specified\n'],
    [['check', 'disks'], "lfs check: unrecognized option 'disks'\n"],
    [['df', '-x'], "lfs: unrecognized option '-x'\n"],
    [['df', '--pool'], "lfs: unrecognized option '--pool'\n"],
    [['quota', '-u'], 'lfs quota: u/g-name is required\n'],
    [['quota', '-u', '-g', 'root'], 'lfs quota: only one of -u, -g, or -p may be specified\n'],
    [['quota', '-u', 'no such user', 'dir'], "lfs quota: invalid id 'no such user'\n"],
    [['quota', '-p', '1x', 'dir'], "lfs quota: invalid id '1x'\n"],
    [['quota', '-a'], 'lfs quota: no quota type to iterate\n'],
    [['quota', '-Z'], "lfs quota: unrecognized option '-Z'\n"],
  ];
  for (const [args, before] of cases) {
    const { status, stdout, stderr } = await run(args);
    const title = args.join(' ');
    t.equal(status, 4, title);
    t.equal(stdout, '', title);
    t.ok(stderr.startsWith(before), `${title}: ${stderr}`);
    t.match(stderr, ` usage: ${args[0] ?? ''} `, title);
  }
});

t.test('a failure names the file and exits with the errno', async (t) => {
  const elsewhere = (name: string) =>
    `lfs setstripe: setstripe error for '${name}': not on a Lustre filesystem\n`;
  const notTty = 'Inappropriate ioctl for device';
  const missing = 'No such file or directory';
  const cases: [args: string[], status: number, stderr: string][] = [
    [['hsm_state', 'nope'], 2, `lfs hsm_state: get HSM state for 'nope' failed: ${missing}\n`],
    [['hsm_state', 'dangling'], 2, `lfs hsm_state: get HSM state for 'dangling' failed: ${missing}\n`],
    [['hsm_state', '-h'], 2, `lfs hsm_state: get HSM state for '-h' failed: ${missing}\n`],
    [['hsm_state', 'a'], 25, `lfs hsm_state: get HSM state for 'a' failed: ${notTty}\n`],
    [['hsm_state', 'link'], 25, `lfs hsm_state: get HSM state for 'link' failed: ${notTty}\n`],
    [['hsm_state', 'dir'], 25, `lfs hsm_state: get HSM state for 'dir' failed: ${notTty}\n`],
    [['hsm_state', '/dev/null'], 25, `lfs hsm_state: get HSM state for '/dev/null' failed: ${notTty}\n`],
    [['hsm_action', 'nope'], 2, `lfs hsm_action: get hsm action for 'nope' failed: ${missing}\n`],
    [['hsm_action', 'a'], 25, `lfs hsm_action: get hsm action for 'a' failed: ${notTty}\n`],
    [['hsm_set', '-r', 'a'], 25, `lfs hsm_set: change hsm flags for 'a' failed: ${notTty}\n`],
    [['hsm_set', 'dir', '-r'], 21, `lfs hsm_set: change hsm flags for 'dir' failed: Is a directory\n`],
    [['hsm_clear', '-r', 'nope'], 2, `lfs hsm_clear: change hsm flags for 'nope' failed: ${missing}\n`],
    [['hsm_set', '-r', '-e'], 0, ''],
    ...requests.flatMap((command): [string[], number, string][] => [
      [[command, 'a'], 95, 'Cannot read FID of a: Operation not supported\n'],
      [[command, 'nope', 'a'], 2, `Cannot stat nope: ${missing}\n`],
    ]),
    [
      ['hsm_archive', '-a', 'x', '--data=d', '--', 'a'],
      95,
      'Cannot read FID of a: Operation not supported\n',
    ],
    [['path2fid', 'nope'], 2, `lfs path2fid: cannot get fid for 'nope': ${missing}\n`],
    [['path2fid', 'dangling'], 95, "lfs path2fid: cannot get fid for 'dangling': Operation not supported\n"],
    [['hsm_stat', 'a'], 1, "lfs: 'hsm_stat' is not a valid command. See 'lfs --list-commands'.\n"],
    [['hsm', 'stat', 'a'], 1, "lfs: 'stat' is not a valid command. See 'lfs --list-commands'.\n"],
    [['hsm', 'state', 'a'], 25, `lfs hsm state: get HSM state for 'a' failed: ${notTty}\n`],
    [['hsm', 'clear', '-r', 'nope'], 2, `lfs hsm clear: change hsm flags for 'nope' failed: ${missing}\n`],
    [['hsm', 'archive', '-a', '1', 'a'], 95, 'Cannot read FID of a: Operation not supported\n'],
    [
      ['fid2path', '/proc', '1:2:0'],
      19,
      "lfs fid2path: cannot resolve mount point for '/proc': No such device\n",
    ],
    [
      ['fid2path', 'no-such-fs', '1:2:0'],
      19,
      "lfs fid2path: cannot resolve mount point for 'no-such-fs': No such device\n",
    ],
    [['fid2path', '/nope', '1:2:0'], 2, `lfs fid2path: cannot resolve mount point for '/nope': ${missing}\n`],
    [['data_version', 'nope'], 2, `lfs data_version: cannot open file 'nope': ${missing}\n`],
    [['data_version', 'a'], 25, `lfs data_version: cannot get version for 'a': ${notTty}\n`],
    [['setstripe', '-c', '1', 'a'], 17, "lfs setstripe: setstripe error for 'a': stripe already set\n"],
    [['setstripe', 'no/new'], 2, `lfs setstripe: setstripe error for 'no/new': ${missing}\n`],
    [['setstripe', 'new', 'dir'], 25, elsewhere('new') + elsewhere('dir')],
    [['setstripe', '-d', 'dir'], 25, elsewhere('dir')],
    [['setstripe', '-d', 'a'], 22, "lfs setstripe: cannot delete the layout of a file: 'a'\n"],
    [['setstripe', '-d', 'new'], 2, `lfs setstripe: setstripe error for 'new': ${missing}\n`],
    [
      ['setstripe', '--comp-add', '-E', '1M', 'new'],
      2,
      `lfs setstripe: setstripe error for 'new': ${missing}\n`,
    ],
    [
      ['setstripe', '-L', 'raid5', 'new'],
      22,
      "error: layout 'raid5' is unknown, supported layouts are: 'mdt', 'raid0'\n",
    ],
    [['setstripe', '--yaml', 'a', 'new'], 95, 'lfs setstripe: --yaml: Operation not supported\n'],
    [
      ['setstripe', '--copy', 'a', 'new'],
      25,
      `lfs setstripe: can't create composite layout from file a: ${notTty}\n`,
    ],
    [['getstripe', 'nope'], 2, `lfs: getstripe for 'nope' failed: ${missing}\n`],
    [
      ['getstripe', 'a', 'dir'],
      25,
      `lfs: getstripe for 'a' failed: ${notTty}\nlfs: getstripe for 'dir' failed: ${notTty}\n`,
    ],
    [['getdirstripe', 'dir'], 25, `lfs: getdirstripe for 'dir' failed: ${notTty}\n`],
    [
      ['mkdir', 'dir', 'no/dir'],
      17,
      `lfs mkdir: dirstripe error on 'dir': File exists\nlfs mkdir: dirstripe error on 'no/dir': ${missing}\n`,
    ],
    [['find', 'nope'], 2, `lfs: failed for 'nope': ${missing}\n`],
    [['find', 'a', '-size', 'x'], 22, "error: bad file size 'x'\n"],
    [['find', 'a', '-size', '+1kk'], 22, "error: bad file size '1kk'\n"],
    [['find', 'a', '-size', '--1'], 22, "error: bad file size '-1'\n"],
    [['find', 'a', '-size', '18446744073709551616'], 22, "error: bad file size '18446744073709551616'\n"],
    [['find', 'a', '-size', '16E'], 22, "error: bad file size '16E'\n"],
    [['find', 'a', '-mtime', '1x'], 22, "lfs find: bad time string '1x': Invalid argument\n"],
    [['find', 'a', '-mtime', ''], 22, "lfs find: bad time string '': Invalid argument\n"],
    [['find', 'a', '-mtime', '+-1'], 22, "lfs find: bad time string '-1': Invalid argument\n"],
    [['find', 'a', '-links', '0'], 22, "error: bad link count '0'\n"],
    [['find', 'a', '-layout', 'striped'], 22, "error: bad layout 'striped'\n"],
    [['find', 'a', '-user', 'no such user'], 22, 'no such user is not an ID or name of a user\n'],
    [['find', 'a', '-L', 'released'], 25, `lfs find: cannot look at 'a': ${notTty}\n`],
    [['osts', 'nope'], 2, `error: invalid path 'nope': ${missing}\n`],
    [['mdts', 'dir'], 0, ''],
    [['check', 'all', 'nope'], 2, `error: invalid path 'nope': ${missing}\n`],
    [['check', 'servers', 'dir'], 19, 'lfs check: cannot find mounted Lustre filesystem: No such device\n'],
    [['df', 'nope'], 2, `error: invalid path 'nope': ${missing}\n`],
    [['df', 'dir', 'nope'], 95, `df:dir Not a Lustre filesystem\nerror: invalid path 'nope': ${missing}\n`],
    [['quota', '-q', '-u', 'root', 'dir'], 19, "lfs quota: cannot resolve path 'dir': No such device\n"],
  ];
  for (const [args, status, stderr] of cases)
    t.same(await run(args), { status, stdout: '', stderr }, args.join(' '));
});

t.test('a command on single files goes on after a failure and exits with the first errno', async (t) => {
  const { status, stderr } = await run(['hsm_state', 'nope', 'a', 'b']);
  t.equal(status, 2);
  t.match(stderr, /'nope'.*\n.*'a'.*\n.*'b'.*\n$/);
  t.equal((await run(['hsm_set', '-r', 'a', 'nope'])).status, 25);
  t.equal((await run(['path2fid', 'a', 'nope'])).status, 95);
});

t.test('LUSTRITE_LFS_COMPAT=2.15 words failures as Lustre 2.15 and stops at the first', async (t) => {
  const missing = 'No such file or directory\n';
  const cases: [args: string[], stderr: string][] = [
    [['hsm_state', 'nope', 'a'], `can't get hsm state for nope: ${missing}`],
    [['hsm_action', 'nope', 'a'], `can't get hsm action for nope: ${missing}`],
    [['hsm_set', '-r', 'nope', 'a'], `Can't change hsm flags for nope: ${missing}`],
    [['hsm_clear', '-r', 'nope', 'a'], `Can't change hsm flags for nope: ${missing}`],
  ];
  for (const [args, stderr] of cases)
    t.same(await run(args, until215), { status: 2, stdout: '', stderr }, args.join(' '));
});

t.test('options without a file are nothing to do, and a usage error of Lustre 2.15', async (t) => {
  for (const command of requests) {
    const args = [command, '-m', '.'];
    t.same(await run(args), { status: 0, stdout: '', stderr: '' }, command);
    const { status, stderr } = await run(args, until215);
    t.equal(status, 4, command);
    t.match(stderr, new RegExp(`usage: ${command} `));
  }
});

t.test('hsm_state needs read permission', { skip: process.getuid?.() !== 0 && 'not root' }, async (t) => {
  const program = join(work, 'lfs');
  copyFileSync(built, program);
  t.same(await run(['hsm_state', 'secret'], { program, uid: 65534 }), {
    status: 13,
    stdout: '',
    stderr: "lfs hsm_state: get HSM state for 'secret' failed: Permission denied\n",
  });
});

t.test('a file list holds one operand a line, and its first bad one ends the command', async (t) => {
  const missing = 'No such file or directory\n';
  const noFid = (name: string) => `Cannot read FID of ${name}: Operation not supported\n`;
  const cases: [list: string, status: number, stderr: string][] = [
    ['a\nb\n', 95, noFid('a')],
    ['a', 95, noFid('a')],
    ['\na\n', 2, `Cannot stat : ${missing}`],
    ['# a\n', 2, `Cannot stat # a: ${missing}`],
    ['nope\n', 2, `Cannot stat nope: ${missing}`],
    ['', 0, ''],
  ];
  for (const [list, status, stderr] of cases) {
    writeFileSync(join(work, 'list'), list);
    t.same(
      await run(['hsm_archive', '--filelist', 'list']),
      { status, stdout: '', stderr },
      JSON.stringify(list),
    );
  }
  t.equal((await run(['hsm_archive', '-l', 'nolist', 'a'])).status, 95, 'other operands come first');
  t.same(await run(['hsm_restore', '-l', 'nolist']), {
    status: 2,
    stdout: '',
    stderr: `Cannot read the file list nolist: ${missing}`,
  });
  t.same(await run(['hsm_restore', '-l', 'dir']), {
    status: 21,
    stdout: '',
    stderr: 'Cannot read the file list dir: Is a directory\n',
  });
});

t.test('--mntpath makes operands FIDs and must name a mount', async (t) => {
  for (const bad of [
    '/qwerty/uyt',
    '',
    '[0x1:0x2:0x3',
    '0x1:0x2:0x3]',
    '0x1:0x2',
    '0x1:0x2:0x3:0x4',
    '-1:2:3',
    '1: 2:3',
  ])
    t.same(
      await run(['hsm_remove', '--mntpath', '.', '--archive', '30', '--', bad]),
      { status: 22, stdout: '', stderr: `hsm: '${bad}' is not a valid FID\n` },
      bad,
    );
  t.same(await run(['hsm_restore', '-m', '/proc/self', '0x1:0x2:0x0']), {
    status: 19,
    stdout: '',
    stderr: 'Cannot send HSM request (use of /proc/self): No such device\n',
  });
  t.same(await run(['hsm_restore', '-m', '/dev/null', '0x1:0x2:0x0']), {
    status: 19,
    stdout: '',
    stderr: 'Cannot send HSM request (use of /dev/null): No such device\n',
  });
  t.same(await run(['hsm_restore', '-m', 'nope', '0x1:0x2:0x0']), {
    status: 19,
    stdout: '',
    stderr:
      "Could not find path 'nope': No such file or directory\nCannot send HSM request (use of nope): No such device\n",
  });
});

t.test(
  'find prints what matches, as the paths were given, each directory before what it holds',
  async (t) => {
    const tree = join(work, 'tree');
    mkdirSync(join(tree, 'sub/deep'), { recursive: true });
    for (const [name, bytes, ageHours] of [
      ['new.txt', 5, 0],
      ['sub/old.txt', 1500, 60],
      ['sub/deep/big.bin', 5000, 30],
    ] as const) {
      writeFileSync(join(tree, name), 'x'.repeat(bytes));
      const time = Date.now() / 1000 - ageHours * 3600 - 5;
      utimesSync(join(tree, name), time, time);
    }
    symlinkSync('sub', join(tree, 'link'));
    const all = ['tree', 'tree/link', 'tree/new.txt', 'tree/sub', 'tree/sub/deep'];
    all.push('tree/sub/deep/big.bin', 'tree/sub/old.txt');
    const files = ['tree/new.txt', 'tree/sub/deep/big.bin', 'tree/sub/old.txt'];
    const [recent, big, old] = files as [string, string, string];
    const cases: [args: string[], paths: readonly string[]][] = [
      [['tree'], all],
      [['tree/'], ['tree/', ...all.slice(1)]],
      [['./tree', '-type', 'l'], ['./tree/link']],
      [['tree/link'], ['tree/link', 'tree/link/deep', 'tree/link/deep/big.bin', 'tree/link/old.txt']],
      [
        ['tree/new.txt', 'tree/sub/deep'],
        [recent, 'tree/sub/deep', big],
      ],
      [['tree', '--type', 'f'], files],
      [
        ['tree', '-t', 'd', '--maxdepth', '1'],
        ['tree', 'tree/sub'],
      ],
      [['tree', '-D', '0'], ['tree']],
      [
        ['tree', '--mindepth', '2'],
        ['tree/sub/deep', big, old],
      ],
      [['--type', 'f', '--lazy', 'tree'], files],
      [['tree', '!', '-type', 'd', '!', '-type', 'f'], ['tree/link']],
      [['tree', '!', '--name', '*.txt', '--type', 'f', '-P'], [big]],
      [
        ['tree', '-name', '[no]*.t?t'],
        [recent, old],
      ],
      [
        ['tree', '-type', 'f', '-size', '+1k'],
        [big, old],
      ],
      [['tree', '-type', 'f', '--size', '-1KiB'], []],
      [['tree', '-type', 'f', '-size', '2k'], [old]],
      [['tree', '-type', 'f', '-s', '5000c'], [big]],
      [
        ['tree', '-type', 'f', '-size', '+1.4k'],
        [big, old],
      ],
      [['tree', '-type', 'f', '!', '-size', '+1k'], [recent]],
      [['tree', '-type', 'f', '-mtime', '+1'], [old]],
      [['tree', '-type', 'f', '-mtime', '1'], [big]],
      [['tree', '-type', 'f', '-mtime', '-1'], [recent]],
      [['tree', '-type', 'f', '--mtime', '+29h', '-mtime', '-2d6h'], [big]],
      [
        ['tree', '-type', 'f', '!', '-M', '-1'],
        [big, old],
      ],
      [['tree', '-type', 'f', '-links', '1'], files],
      [['tree', '-uid', String(process.getuid?.()), '-D', '0'], ['tree']],
      [['tree', '!', '-gid', String(process.getgid?.())], []],
      [
        ['tree', '--layout', 'raid0', '-type', 'd', '-D', '1'],
        ['tree', 'tree/sub'],
      ],
      [['tree', '-L', 'released,mdt', '!', '-type', 'f'], []],
    ];
    for (const [args, paths] of cases) {
      const { status, stdout, stderr } = await run(['find', ...args]);
      t.same({ status, stderr }, { status: 0, stderr: '' }, args.join(' '));
      t.same(stdout.split('\n').slice(0, -1).sort(), [...paths].sort(), args.join(' '));
    }
    for (const [option, end] of [
      ['-print0', '\0'],
      ['-0', '\0'],
      ['-p', '\0'],
      ['-print', '\n'],
      ['-P', '\n'],
    ] as const) {
      const { stdout } = await run(['find', 'tree', '-type', 'f', '-name', 'n*', option]);
      t.equal(stdout, `${recent}${end}`, option);
    }
    const { stdout } = await run(['find', 'tree']);
    t.ok(stdout.indexOf('tree/sub\n') < stdout.indexOf('tree/sub/deep\n'));

    await t.test('a failure does not end the walk, and is its exit code', async (t) => {
      t.same(await run(['find', 'nope', 'tree', '-name', 'new.txt']), {
        status: 2,
        stdout: `${recent}\n`,
        stderr: "lfs: failed for 'nope': No such file or directory\n",
      });
      if (process.getuid?.() !== 0) return;
      const program = join(work, 'find-lfs');
      copyFileSync(built, program);
      chmodSync(join(tree, 'sub/deep'), 0o700);
      const { status, stdout, stderr } = await run(['find', 'tree'], { program, uid: 65534 });
      t.equal(status, 13);
      t.match(stdout, 'tree/sub/old.txt\n');
      t.match(stdout, 'tree/sub/deep\n');
      t.notMatch(stdout, 'big.bin');
      t.equal(stderr, "find-lfs find: cannot look at 'tree/sub/deep': Permission denied\n");
    });
  },
);

t.test('lfs says what it is and what it can', async (t) => {
  t.same(await run(['--version']), { status: 0, stdout: 'lfs 2.16.1 (lustrite)\n', stderr: '' });
  t.same(await run(['--version'], until215), { status: 0, stdout: 'lfs 2.15.8 (lustrite)\n', stderr: '' });
  t.same(await run(['--list-commands']), { status: 0, stdout: everyCommand.join('\n') + '\n', stderr: '' });
  const help = await run(['help']);
  t.equal(help.status, 0);
  for (const command of everyCommand) t.match(help.stdout, `  ${command} `);
  t.match((await run(['help', 'hsm_set'])).stdout, ' usage: hsm_set [--norelease|-r]');
  t.equal((await run([])).status, 4);
  t.equal((await run(['hsm'])).status, 4);
});

t.test('output that cannot be written is a failure', async (t) => {
  const { status } = await run(['-c', 'exec "$0" --version >/dev/full', built], { program: '/bin/sh' });
  t.equal(status, 5);
});

t.test('hsm_state prints flags in the order that scripts match', needsAttributes, async (t) => {
  const cases: [states: number, archiveId: number, line: string][] = [
    [0x00, 0, '(0x00000000)'],
    [0x00, 1, '(0x00000000), archive_id:1'],
    [0x01, 1, '(0x00000001) exists, archive_id:1'],
    [0x02, 1, '(0x00000002) dirty, archive_id:1'],
    [0x03, 1, '(0x00000003) exists dirty, archive_id:1'],
    [0x09, 1, '(0x00000009) exists archived, archive_id:1'],
    [0x09, 0, '(0x00000009) exists archived'],
    [0x0b, 1, '(0x0000000b) exists dirty archived, archive_id:1'],
    [0x0d, 33, '(0x0000000d) released exists archived, archive_id:33'],
    [0x1d, 1, '(0x0000001d) released exists archived never_release, archive_id:1'],
    [0x20, 0, '(0x00000020) never_archive'],
    [0x49, 1, '(0x00000049) exists archived lost_from_hsm, archive_id:1'],
    [
      0x7f,
      1,
      '(0x0000007f) released exists dirty archived never_release never_archive lost_from_hsm, archive_id:1',
    ],
  ];
  const answers = cases.map(
    ([states, id]) => `{"errno":0,"states":${String(states)},"archive_id":${String(id)}}\n`,
  );
  await fakeDaemon(t, answers, 'a');
  for (const [states, , line] of cases)
    t.same(
      await run(['hsm_state', 'a']),
      { status: 0, stdout: `a: ${line}\n`, stderr: '' },
      states.toString(16),
    );
});

t.test('hsm_action prints the request in progress', needsAttributes, async (t) => {
  const eof = '18446744073709551615';
  const cases: [fields: string, line: string][] = [
    ['"state":0,"action":1,"offset":0,"length":0', 'NOOP'],
    [`"state":1,"action":10,"offset":0,"length":${eof}`, 'ARCHIVE waiting (from 0 to EOF)'],
    [`"state":1,"action":10,"offset":0,"length":"${eof}"`, 'ARCHIVE waiting (from 0 to EOF)'],
    [`"state":1,"action":10,"offset":0,"length":${String(2 ** 64)}`, 'ARCHIVE waiting (from 0 to EOF)'],
    ['"state":2,"action":10,"offset":0,"length":0', 'ARCHIVE running (0 bytes moved)'],
    [`"state":1,"action":11,"offset":0,"length":${eof}`, 'RESTORE waiting (from 0 to EOF)'],
    ['"state":2,"action":11,"offset":0,"length":1048576', 'RESTORE running (1048576 bytes moved)'],
    [`"state":1,"action":13,"offset":0,"length":${eof}`, 'REMOVE waiting (from 0 to EOF)'],
    ['"state":2,"action":13,"offset":0,"length":0', 'REMOVE running (from 0 to 0)'],
  ];
  const questions = await fakeDaemon(
    t,
    cases.map(([fields]) => `{ "errno": 0, ${fields} }\n`),
    'a',
  );
  for (const [fields, line] of cases)
    t.same(await run(['hsm_action', 'a']), { status: 0, stdout: `a: ${line}\n`, stderr: '' }, fields);
  t.same(questions[0], { op: 'action', path: join(work, 'a') });
});

t.test(
  'a question to the daemon names the file by its absolute path, symlinks followed',
  needsAttributes,
  async (t) => {
    const questions = await fakeDaemon(t, ['{"errno":0,"states":0,"archive_id":0}\n'], ...plain);
    const asked = [...plain, 'link', './dir/../a'];
    const { status, stdout } = await run(['hsm_state', ...asked]);
    t.equal(status, 0);
    t.equal(stdout, asked.map((name) => `${name}: (0x00000000)\n`).join(''));
    const paths = [...plain, 'a', 'a'].map((name) => join(work, name));
    t.same(
      questions,
      paths.map((path) => ({ op: 'state', path })),
    );
  },
);

t.test('hsm_set and hsm_clear send masks, and options may follow the files', needsAttributes, async (t) => {
  const questions = await fakeDaemon(t, ['{"errno":0}\n'], 'a', 'b');
  const set = { op: 'set', valid: 1, archive_id: 0, setmask: 0, clearmask: 0 };
  const cases: [args: string[], ...asked: Record<string, unknown>[]][] = [
    [
      ['hsm_set', '-r', 'a', '--noarch', 'b'],
      ...['a', 'b'].map((name) => ({ ...set, path: name, setmask: 0x30 })),
    ],
    [['hsm_set', '-deAl', '--norelease', '--noarchive', 'a'], { ...set, path: 'a', setmask: 0x7b }],
    [
      ['hsm_set', '--exists', '--archive-id', '33', 'a'],
      { ...set, path: 'a', valid: 5, archive_id: 33, setmask: 1 },
    ],
    [['hsm_set', '--exists', '--archive-id', '0', 'a'], { ...set, path: 'a', setmask: 1 }],
    [['hsm_clear', '--dirty', '-i', '7', 'a'], { ...set, path: 'a', valid: 2, clearmask: 2 }],
  ];
  for (const [args, ...asked] of cases) {
    t.same(await run(args), { status: 0, stdout: '', stderr: '' }, args.join(' '));
    t.same(
      questions.splice(0),
      asked.map((question) => ({ ...question, path: join(work, String(question['path'])) })),
      args.join(' '),
    );
  }
});

t.test('a request carries action, archive id, FIDs and data', needsAttributes, async (t) => {
  const questions = await fakeDaemon(t, ['{"errno":0}\n'], 'dir');
  const path = join(work, 'dir');
  const question = { op: 'request', path, archive_id: 0, data: '' };
  const one = { ...question, fids: ['[0x200000401:0x5:0x0]'] };
  writeFileSync(join(work, 'list'), '[0x200000401:0x6:0x0]\n8589935617:7:0');
  const cases: [args: string[], asked: Record<string, unknown>][] = [
    [['hsm_archive', '0x200000401:0x5:0x0'], { ...one, action: 10 }],
    [['hsm_restore', '[0x200000401:0x5:0x0]'], { ...one, action: 11 }],
    [['hsm_release', '[0x200000401:0x5:0x0]'], { ...one, action: 12 }],
    [['hsm_remove', '[0x200000401:0x5:0x0]', '-a', '33'], { ...one, action: 13, archive_id: 33 }],
    [['hsm_cancel', '[0x200000401:0x5:0x0]', '-D', 'CEA'], { ...one, action: 14, data: '434541' }],
    [
      ['hsm_remove', '0x200000401:0x5:0x0', '--filelist', 'list'],
      { ...one, action: 13, fids: [5, 6, 7].map((oid) => `[0x200000401:0x${String(oid)}:0x0]`) },
    ],
  ];
  for (const [args, asked] of cases) {
    t.same(await run([...args, '--mntpath', 'dir']), { status: 0, stdout: '', stderr: '' }, args.join(' '));
    t.same(questions.splice(0), [asked], args.join(' '));
  }
});

t.test('a request of 1706 bytes, as Lustre counts them, is too large', needsAttributes, async (t) => {
  const questions = await fakeDaemon(t, ['{"errno":0}\n'], 'dir');
  const tooLarge = 'Cannot send HSM request (use of dir): Argument list too long\n';
  const cases: [files: number, data: number, status: number][] = [
    [52, 0, 0],
    [53, 0, 7],
    [52, 17, 0],
    [52, 18, 7],
    [1, 1649, 0],
    [1, 1650, 7],
    [1, 100_000, 7],
    [5000, 0, 7],
  ];
  for (const [files, data, status] of cases) {
    const title = `${String(files)} files, ${String(data)} bytes`;
    writeFileSync(join(work, 'list'), '[0x200000401:0x5:0x0]\n'.repeat(files));
    const args = ['hsm_archive', '-m', 'dir', '-l', 'list', '-D', 'x'.repeat(data)];
    t.same(await run(args), { status, stdout: '', stderr: status === 0 ? '' : tooLarge }, title);
    t.equal(questions.splice(0).length, status === 0 ? 1 : 0, title);
  }
});

t.test('the exit code is the errno that the daemon answers', needsAttributes, async (t) => {
  await fakeDaemon(t, ['{"errno":1}\n', '{"errno":11}\n', '{"errno":16}\n'], 'a', 'b', 'dir');
  t.same(await run(['hsm_set', '-e', 'a']), {
    status: 1,
    stdout: '',
    stderr: "lfs hsm_set: change hsm flags for 'a' failed: Operation not permitted\n",
  });
  t.same(await run(['hsm_archive', '-m', 'dir', '1:2:3', '1:2:4']), {
    status: 11,
    stdout: '',
    stderr: 'Cannot send HSM request (use of dir): Resource temporarily unavailable\n',
  });
  const { status, stderr } = await run(['hsm_state', 'b', 'nope'], until215);
  t.equal(status, 16);
  t.equal(stderr, "can't get hsm state for b: Device or resource busy\n");
});

t.test('an answer may come in pieces', needsAttributes, async (t) => {
  await fakeDaemon(t, [['{"errno":0,"sta', 'tes":13,"arch', 'ive_id":1}', '\n']], 'a');
  t.equal((await run(['hsm_state', 'a'])).stdout, 'a: (0x0000000d) released exists archived, archive_id:1\n');
});

t.test('an answer that is none is an error, never a state', needsAttributes, async (t) => {
  const cases: [answer: string, status: number][] = [
    ['', 107],
    ['{"errno":0,"states":13,"archive_id":1}', 107],
    ['\n', 71],
    ['{}\n', 71],
    ['{"errno":0}\n', 71],
    ['{"errno":0,"states":13}\n', 71],
    ['{"errno":0,"states":-1,"archive_id":1}\n', 71],
    ['{"errno":0,"states":4294967296,"archive_id":1}\n', 71],
    [`{"errno":0,${'"states":1,'.repeat(1000)}"archive_id":1}\n`, 71],
  ];
  await fakeDaemon(
    t,
    cases.map(([answer]) => answer),
    'a',
  );
  for (const [answer, status] of cases) {
    const result = await run(['hsm_state', 'a']);
    t.equal(result.status, status, answer.slice(0, 60));
    t.equal(result.stdout, '', answer.slice(0, 60));
  }
});

t.test(
  'a daemon that is gone is "not connected", as a system call on its mount',
  needsAttributes,
  async (t) => {
    setSocket('a', join(work, 'gone'));
    setSocket('dir', join(work, 'gone'));
    t.same(await run(['hsm_state', 'a']), {
      status: 107,
      stdout: '',
      stderr: "lfs hsm_state: get HSM state for 'a' failed: Transport endpoint is not connected\n",
    });
    t.equal((await run(['hsm_archive', '-m', 'dir', '1:2:3'])).status, 107);
    t.equal((await run(['hsm_state', 'dir'])).status, 25, 'a directory has no state');
    setSocket('a', 'relative');
    t.equal((await run(['hsm_state', 'a'])).status, 25, 'a socket has an absolute path');
  },
);

t.test('scripts/hsm_state and scripts/hsm_restore hand files to lfs', needsAttributes, async (t) => {
  await fakeDaemon(t, ['{"errno":0,"states":13,"archive_id":1}\n'], 'a', 'b');
  const state = join(root, 'scripts/hsm_state');
  const restore = join(root, 'scripts/hsm_restore');
  const line = ': (0x0000000d) released exists archived, archive_id:1\n';
  for (const path of ['/usr/bin:/bin', `${dirname(built)}:/usr/bin:/bin`]) {
    const env = { PATH: path };
    t.same(await run(['a', 'b'], { program: state, env }), {
      status: 0,
      stdout: `a${line}b${line}`,
      stderr: '',
    });
    t.same(await run(['nope', 'a', 'dir'], { program: restore, env }), {
      status: 2,
      stdout: '',
      stderr:
        'Cannot stat nope: No such file or directory\n' +
        'Cannot read FID of a: Operation not supported\n' +
        (await run(['hsm_restore', 'dir'])).stderr,
    });
    for (const program of [state, restore]) t.equal((await run([], { program, env })).status, 4);
  }
});
