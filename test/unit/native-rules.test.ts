/** The pure parts of the native store, tested in C++ row by row (native/store/store_test.cc). */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const program = fileURLToPath(new URL('../../build/Release/store_test', import.meta.url));
const { stdout, stderr, status } = spawnSync(program, { encoding: 'utf8' });

let seen = 0;
const lines = stdout.split('\n');
for (const [i, line] of lines.entries()) {
  const match = /^(not )?ok \d+ - (.*)$/.exec(line);
  if (match === null) continue;
  seen++;
  const problem = lines[i + 1]?.startsWith('# ') === true ? lines[i + 1] : '';
  t.ok(match[1] === undefined, match[2] ?? '', { problem });
}
t.match(stdout, new RegExp(`^1\\.\\.${seen}$`, 'm'), 'every test of the program was seen');
t.equal(status, 0, 'the program ends with 0', { stderr });
