/** What an import shows and tolerates, as somebody at a terminal drives it. */
import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run } from '../helpers/run.js';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const blobs = { good: 'good', 'bad//1': '1', 'bad//2': '2', 'bad//3': '3' };

t.test('imports from the command line', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, blobs, { env: { LUSTRITE_IMPORT_MAX_PREFIXES: '100' } });
  const { path } = lab.mount;
  const create = ['import', 'create', path, '--wait'];

  await t.test('--max-errors says how many blobs may be wrong', async (t) => {
    const rows: readonly (readonly [flags: readonly string[], says: RegExp])[] = [
      [['--max-errors', '0'], / Failed: .* 1 error/],
      [['--max-errors', '2'], / Failed: .* 3 errors/],
      [['--max-errors', '3'], / CompletedPartial: .* 3 errors/],
      [['--max-errors', '-1'], / CompletedPartial: .* 3 errors/],
      [[], / CompletedPartial: .* 3 errors/],
      [['--max-errors', '0', '--prefix', 'good'], / Completed: .* 0 errors/],
    ];
    for (const [flags, says] of rows) {
      const { code, stdout } = await lustrite([...create, ...flags]);
      t.match(stdout, says, flags.join(' '));
      t.equal(code, stdout.includes(' Completed:') ? 0 : 1, flags.join(' '));
    }
  });

  await t.test("--conflict says Azure's mode by a word of its own", async (t) => {
    const rows = {
      fail: 'Fail',
      skip: 'Skip',
      'overwrite-dirty': 'OverwriteIfDirty',
      'overwrite-always': 'OverwriteAlways',
    };
    for (const [word, conflictResolutionMode] of Object.entries(rows)) {
      const { stdout } = await lustrite([...create, '--prefix', 'good', '--conflict', word, '--json']);
      t.match(JSON.parse(stdout), { properties: { conflictResolutionMode } }, word);
    }
  });

  await t.test('import.maxPrefixes lets an import have up to 100 prefixes', async (t) => {
    const prefixes = (count: number): readonly string[] =>
      Array.from({ length: count }, (_, at) => ['--prefix', `p${String(at).padStart(3, '0')}/`]).flat();
    t.match(await lustrite([...create, ...prefixes(100)]), { code: 0, stdout: / Completed: / });
    t.match(await lustrite([...create, ...prefixes(101)]), { code: 1, stderr: /--prefix: .*100/ });
  });

  await t.test('the marker in the root has the state of the job in its name', async (t) => {
    const markers = async (): Promise<readonly string[]> =>
      (await readdir(path))
        .filter((name) => name.startsWith('IMPORT_'))
        .map((name) => name.split('.')[0] ?? '');
    const open = lab.hold({ query: 'comp=list' });
    t.teardown(open);
    t.equal((await lustrite(['import', 'create', path, '--name', 'held'])).code, 0);
    await until(async () => (await markers()).join() === 'IMPORT_Importing', { what: 'the marker' });
    t.match(await lustrite(['import', 'cancel', path, 'held', '--wait']), { code: 0, stdout: / Canceled: / });
    t.same(await markers(), ['IMPORT_Canceled']);
    lab.storage.clear();
    open();
    t.equal((await lustrite([...create, '--prefix', 'good'])).code, 0);
    t.same(await markers(), [], 'the next one takes it away, and its own when it has completed');
  });

  await t.test('on a terminal one line of progress is rewritten, and none is left', async (t) => {
    const command = `${process.execPath} ${cli} import create ${path} --prefix good --wait`;
    const { code, stdout } = await run('script', ['-qec', command, '/dev/null'], {
      env: { COLUMNS: '80', TERM: 'xterm' },
    });
    t.equal(code, 0);
    const lines = stdout.split('\n');
    t.match(
      lines[0],
      /^(?:\r\x1b\[K[^\r\n]*)+\r\x1b\[Kimport import-\S+ Completed: /,
      'progress, then the result',
    );
    t.same(lines.slice(1), [''], 'and nothing else');
  });
});
