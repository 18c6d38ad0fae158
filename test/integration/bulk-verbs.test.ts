/** `lustrite hydrate` and `lustrite release` on a real mount. */
import { spawn } from 'node:child_process';
import { mkdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { BulkView } from '../../src/base/control-api.js';
import { Application } from '../helpers/application.js';
import { hsmFlags, states } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { environment, start, type Ended } from '../helpers/run.js';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
/** Runs a command on a wide terminal, which is copied to stdout. */
const terminal = `
import fcntl, os, pty, struct, sys, termios
def read(fd):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    return os.read(fd, 65536)
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))
`;
const blobs = {
  'in/1': 'one',
  'in/2': 'two',
  'in/deep/3': 'three',
  'ref/4': 'four',
  'age/old': 'old',
  'age/young': 'young',
  'kept/clean': 'clean',
  'kept/dirty': 'dirty',
  'kept/pinned': 'pinned',
  'kept/open': 'open',
  'slow/1': Buffer.alloc(1 << 20, 's'),
  'slow/2': 'two',
};

t.test('bulk verbs', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, blobs);
  const { mount, storage } = lab;
  const at = (path: string): string => lab.at(path);
  const flags = (path: string): Promise<number> => hsmFlags(at(path));
  const run = (...args: readonly string[]): Promise<Ended> => lustrite(args);
  t.beforeEach(() => {
    storage.clear();
    storage.clearLog();
  });

  await t.test('hydrate brings everything below its paths, once, and names what failed', async (t) => {
    t.match(await run('hydrate', at('in'), at('ref/4'), '--dry-run'), {
      code: 0,
      stdout: /^4 files would be restored \(15 B\)\n$/,
    });
    t.equal(await flags('in/1'), states.stub);
    storage.inject({ method: 'GET', blob: 'in/2' }, { kind: 'status', status: 403 });
    t.match(await run('hydrate', at('in'), at('ref/4'), at('in/1')), {
      code: 1,
      stdout: '3 files restored (12 B), 1 failed\n',
      stderr: /^lustrite: in\/2: restore of in\/2 failed: .*403/m,
    });
    for (const path of ['in/1', 'in/deep/3', 'ref/4']) t.equal(await flags(path), states.clean, path);
    t.equal(await flags('in/2'), states.stub);
    storage.clear();
    storage.clearLog();
    t.match(await run('hydrate', at('in'), at('ref/4')), {
      code: 0,
      stdout: '1 file restored (3 B), 3 here already\n',
    });
    t.equal(storage.count({ method: 'GET', blob: /^(?:in|ref)\// }), 1, 'the rest is not fetched again');
    t.equal(await readFile(at('in/2'), 'utf8'), 'two');
    const { code, stdout } = await run('hydrate', at('in'), '--json', '--concurrency', '2');
    t.equal(code, 0);
    t.match(JSON.parse(stdout), { verb: 'hydrate', state: 'Done', there: 3, failed: 0 });
  });

  await t.test('Ctrl-C stops the work; the same command goes on where it was', async (t) => {
    const open = lab.hold({ method: 'GET', blob: 'slow/1' });
    const child = spawn(process.execPath, [cli, 'hydrate', at('slow')], { env: environment({}) });
    const [out, err] = [text(child.stdout), text(child.stderr)];
    const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
    await lab.arrived({ method: 'GET', blob: 'slow/1' });
    await until(async () => (await flags('slow/2')) === states.clean, { what: 'the other file' });
    child.kill('SIGINT');
    t.equal(await ended, 130);
    t.match(await err, /stopped; the same command goes on/);
    t.match(await out, /[01] files? restored/, 'what it has heard of by then');
    await lab.idle('slow/1');
    t.equal(await flags('slow/1'), states.stub, 'what was on its way is canceled');
    open();
    storage.clear();
    t.match(await run('hydrate', at('slow')), {
      code: 0,
      stdout: '1 file restored (1.0 MiB), 1 here already\n',
    });
    t.ok((await readFile(at('slow/1'))).equals(blobs['slow/1']));
  });

  await t.test('a terminal shows how far a hydrate is and how long it will take', async (t) => {
    t.equal((await run('release', at('slow'))).code, 0);
    const [one, two] = ['slow/1', 'slow/2'].map((blob) => lab.hold({ method: 'GET', blob }));
    const command = [process.execPath, cli, 'hydrate', at('slow')];
    const { child, ended } = start('python3', ['-c', terminal, ...command]);
    let shown = '';
    child.stdout?.on('data', (chunk: Buffer) => (shown += chunk.toString()));
    const shows = (line: RegExp): Promise<unknown> =>
      until(() => line.test(shown), { what: `${String(line)} on the terminal` });
    await shows(/\r\x1b\[Khydrate: 0 of 2 files, 0 B of 1\.0 MiB \(0 %\)/);
    two?.();
    await shows(
      /\r\x1b\[Khydrate: 1 of 2 files, 3 B of 1\.0 MiB \(0 %\), \d+ B\/s, \d+ files\/s, [\d dhms]+ left\r/,
    );
    one?.();
    t.equal((await ended).code, 0, shown);
    t.match(shown, /\r\x1b\[K2 files restored \(1\.0 MiB\)\r\n$/, 'instead of the line');
  });

  await t.test('release takes clean files and says what it left alone, and why', async (t) => {
    t.equal((await run('hydrate', at('kept'))).code, 0);
    await writeFile(at('kept/dirty'), 'DIRTY');
    await writeFile(at('kept/new'), 'new');
    t.equal(await lab.lfs('hsm_set', 'kept/pinned', '--norelease'), 0);
    const reader = new Application();
    t.teardown(() => reader[Symbol.asyncDispose]());
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('kept/open'));
    const left = 'left alone: ';
    const result = async (...flags: readonly string[]): Promise<BulkView> =>
      JSON.parse((await run('release', at('kept'), '--json', ...flags)).stdout) as BulkView;
    t.match(await result('--dry-run'), { total: { files: 1 }, done: { files: 0 } });
    t.equal(await flags('kept/clean'), states.clean);
    const { code, stdout } = await run('release', at('kept'));
    t.equal(code, 0, 'what is left alone is no failure');
    t.match(stdout, new RegExp(`^1 file released \\(4.0 KiB\\), ${left}(?=.*1 new)(?=.*1 dirty)(?=.*1 never_release)(?=.*1 open)`)); // prettier-ignore
    t.equal(await flags('kept/clean'), states.stub);
    t.equal(await readFile(at('kept/dirty'), 'utf8'), 'DIRTY');
    t.match(await result(), { there: 1, kept: { new: 1, dirty: 1, never_release: 1, open: 1 } });
    await reader.do('os.close(fd)');
  });

  await t.test('release --older-than goes by the last read, change or restore', async (t) => {
    const month = 31 * 86_400_000;
    const [now, then] = [new Date(), new Date(Date.now() - month)];
    t.equal((await run('hydrate', at('age'))).code, 0);
    const older = ['release', mount.path, '--path', '/age', '--older-than', '30d'];
    await writeFile(at('age/made'), 'made');
    t.equal(await lab.export('age'), 'Completed');
    await utimes(at('age/made'), then, then);
    await utimes(at('age/young'), now, then);
    // As long ago, but restored just now.
    await utimes(at('age/old'), then, then);
    t.match(await run(...older, '--dry-run'), { stdout: /^1 file would be released/ });
    const inMount = ['release', '--older-than', '30d', '--path', at('age'), '--dry-run'];
    t.match(await run(...inMount), { stdout: /^1 file would be released/ }, 'a path in a mount names it');
    t.match(await run(...older), { code: 0, stdout: /^1 file released .*2 used recently/ });
    t.equal(await flags('age/made'), states.stub);
    t.equal(await flags('age/old'), states.clean);
    t.equal(await flags('age/young'), states.clean);
  });

  await t.test('what cannot be meant is refused, and nothing is done', async (t) => {
    await mkdir(at('made'));
    await symlink('/tmp', at('made/out'));
    const rows: readonly (readonly [args: readonly string[], code: number, says: RegExp])[] = [
      [['hydrate'], 2, /missing required argument 'path'/],
      [['release'], 2, /no path is named/],
      [['hydrate', at('none')], 1, /none: no such file or directory$/m],
      [['hydrate', '/tmp'], 1, /\/tmp is in no mount of lustrite/],
      [['hydrate', at('made/out')], 1, /is in no mount of lustrite/],
      [['hydrate', at('in'), '/'], 1, /\/ is in no mount of lustrite/],
      [['hydrate', at('in'), '--concurrency', '0'], 2, /--concurrency: '0' is not a whole number from 1/],
      [['hydrate', at('in'), '--concurrency', 'many'], 2, /--concurrency: 'many'/],
      [['release', at('in'), '--older-than', '30'], 2, /--older-than: '30' is not an age such as/],
      [['release', at('in'), '--older-than', '-1d'], 2, /--older-than/],
      [['release', at('in'), at('ref'), '--path', '/in'], 2, /--path goes with one mount/],
      [
        ['release', '--path', at('in'), '--path', '/in'],
        2,
        /\/in is in no mount: lustrite release MNT --path/,
      ],
      [['release', mount.path, '--path', '/nowhere'], 1, /nowhere: no such file or directory$/m],
    ];
    for (const [args, code, says] of rows)
      t.match(await run(...args), { code, stderr: says }, args.slice(0, 1).concat(args.slice(2)).join(' '));
    const said = JSON.parse((await run('hydrate', '/tmp', '--json')).stdout) as unknown;
    t.match(said, { error: { code: 'NotFound' } });
  });
});
