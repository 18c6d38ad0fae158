import t from 'tap';
import { ok } from '../helpers/run.js';

const reporter = new URL('../../scripts/tap-reporter.js', import.meta.url).href;

/** What the reporter prints for a stream of TAP. */
function report(tap: string): Promise<string> {
  const script = `import Reporter from ${JSON.stringify(reporter)}; process.stdin.pipe(new Reporter()).pipe(process.stdout);`;
  return ok(process.execPath, ['--input-type=module', '-e', script], { input: `TAP version 14\n${tap}` });
}

const cases: readonly { readonly title: string; readonly tap: string; readonly closing: string }[] = [
  {
    title: 'leaves are counted, subtests are not',
    tap: '# Subtest: a.test.ts\n    # Subtest: x\n        ok 1 - p\n        ok 2 - q\n        1..2\n    ok 1 - x\n    ok 2 - y\n    1..2\nok 1 - a.test.ts\n1..1\n',
    closing: '3 passed, 0 failed',
  },
  {
    title: 'skipped and todo tests are skipped',
    tap: '# Subtest: a.test.ts\n    ok 1 - p # SKIP no fuse\n    not ok 2 - q # TODO later\n    ok 3 - r\n    1..3\nok 1 - a.test.ts\n1..1\n',
    closing: '1 passed, 0 failed, 2 skipped',
  },
  {
    title: 'a failing leaf counts once',
    tap: '# Subtest: a.test.ts\n    # Subtest: x\n        not ok 1 - p\n        1..1\n    not ok 1 - x\n    1..1\nnot ok 1 - a.test.ts\n1..1\n',
    closing: '0 passed, 1 failed',
  },
  {
    title: 'a file that crashed after passing tests is a failure',
    tap: '# Subtest: a.test.ts\n    ok 1 - p\n    1..1\nnot ok 1 - a.test.ts\n  ---\n  command: node\n  exitCode: null\n  signal: SIGKILL\n  ...\n1..1\n',
    closing: '1 passed, 1 failed',
  },
  {
    title: 'a file that could not be loaded is a failure',
    tap: '# Subtest: a.test.ts\n    1..0 # no tests found\nnot ok 1 - a.test.ts\n  ---\n  command: node\n  exitCode: 1\n  signal: null\n  ...\n1..1\n',
    closing: '0 passed, 1 failed',
  },
  {
    title: 'a bail-out is a failure',
    tap: 'ok 1 - p\nBail out! no more\n',
    closing: '1 passed, 1 failed',
  },
];

for (const { title, tap, closing } of cases) {
  t.test(title, async (t) => {
    const output = await report(tap);
    t.equal(output.trimEnd().split('\n').at(-1), closing, output);
    t.ok(output.endsWith('\n'));
  });
}

t.test('what failed is named with its place and its diagnostics before the closing line', async (t) => {
  const output = await report(
    '# Subtest: a.test.ts\n    not ok 1 - one is two\n      ---\n      at:\n        fileName: a.test.ts\n        lineNumber: 7\n      diff: |\n        -2\n        +1\n      ...\n    1..1\nnot ok 1 - a.test.ts # time=1500ms\n1..1\n',
  );
  t.equal(
    output,
    `FAILED a.test.ts: 0 passed, 1 failed 1.5s

FAILED a.test.ts > one is two
  at a.test.ts:7
  diff:
    -2
    +1

0 passed, 1 failed
`,
  );
});

t.test('how the process of a crashed file ended is said', async (t) => {
  const output = await report(cases[3]?.tap ?? '');
  t.match(output, "FAILED a.test.ts\n  the test file's process ended with SIGKILL\n");
});
