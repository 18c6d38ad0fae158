import t from 'tap';
import { mkdtemp, rm, writeFile, appendFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../helpers/poll.js';
import { ok, run, shell } from '../helpers/run.js';
import { nobody, notRoot, runAs } from '../helpers/as-user.js';
import { Dice, differences, growFile, growTree, readTree, sha256 } from '../helpers/tree.js';

t.test('until returns the first truthy value and swallows what was thrown before', async (t) => {
  let asked = 0;
  const value = await until(
    () => {
      asked++;
      if (asked === 1) throw new Error('not yet');
      return asked === 3 ? 'there' : undefined;
    },
    { what: 'the third question', intervalMs: 1 },
  );
  t.equal(value, 'there');
  t.equal(asked, 3);
});

t.test('until says what it waited for and what it last saw', async (t) => {
  await t.rejects(
    until(() => false, { what: 'rain', timeoutMs: 5, intervalMs: 1 }),
    {
      message: 'waited 0.005 s for rain: the last answer was false',
    },
  );
  const cause = new Error('no clouds');
  await t.rejects(
    until(() => Promise.reject(cause), { what: 'rain', timeoutMs: 5, intervalMs: 1 }),
    {
      message: 'waited 0.005 s for rain: no clouds',
      cause,
    },
  );
});

t.test('a program is run with its output, exit code, signal and input', async (t) => {
  t.match(await run('sh', ['-c', 'cat; echo err >&2; exit 3'], { input: 'in' }), {
    code: 3,
    signal: null,
    stdout: 'in',
    stderr: 'err\n',
  });
  t.match(await run('sh', ['-c', 'kill -9 $$']), { code: null, signal: 'SIGKILL' });
  t.equal(await shell('echo "$1"', ['a b']), 'a b\n');
  await t.rejects(ok('sh', ['-c', 'echo why >&2; false']), { message: /exit code 1\nwhy/ });
  await t.rejects(run('/nonexistent'), { message: /cannot run \/nonexistent/ });
});

t.test('a program that takes too long is killed', async (t) => {
  await t.rejects(run('sleep', ['600'], { timeoutMs: 100 }), {
    message: /^sleep 600 ran for more than 0.1 s/,
  });
});

t.test('runAs gives exactly the ids and groups asked for', { skip: notRoot ?? false }, async (t) => {
  t.equal((await runAs(nobody, 'id', ['-u'])).stdout, '65534\n');
  t.equal((await runAs({ uid: 1234, gid: 5678, groups: [9, 10] }, 'id', ['-G'])).stdout, '5678 9 10\n');
  t.equal((await runAs(nobody, 'id', ['-G'])).stdout, '65534\n');
});

t.test('the same dice grow the same tree, and a difference is named', async (t) => {
  const [a, b] = await Promise.all([0, 1].map(() => mkdtemp(join(tmpdir(), 'lustrite-tree-'))));
  if (a === undefined || b === undefined) throw new Error('unreachable');
  t.teardown(() => Promise.all([a, b].map((path) => rm(path, { recursive: true }))));
  for (const root of [a, b]) await growTree(root, new Dice(7), { files: 60, maxSize: 10_000 });
  const wanted = await readTree(a);
  t.ok(wanted.size > 60);
  t.same(differences(wanted, await readTree(b)), []);

  const [first] =
    [...wanted].find(([, { kind, size, mode }]) => kind === 'file' && size > 0 && (mode & 0o200) !== 0) ?? [];
  await appendFile(join(b, String(first)), 'x');
  await writeFile(join(b, 'more'), '');
  const lines = differences(wanted, await readTree(b), ['mtime']);
  t.equal(lines.length, 2);
  t.match(lines.join('\n'), /"more": not wanted/);
  t.match(lines.join('\n'), /size \d+ -> \d+, sha256 /);
});

t.test('a grown file has the content that was announced', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'lustrite-tree-'));
  t.teardown(() => rm(root, { recursive: true }));
  for (const size of [0, 5, 1 << 20, 3_000_001]) {
    const path = join(root, `f-${size}`);
    t.equal(await growFile(path, size, new Dice(1)), await sha256(path));
  }
});
