import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import ts from 'typescript';
import { CRASH_POINTS } from '../../src/base/crash.js';

const source = readFileSync(new URL('../../src/base/crash.ts', import.meta.url), 'utf8');
const { outputText } = ts.transpileModule(source, {
  compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
});

/** Runs crash.ts in a process of its own that passes a point three times. */
function pass(
  point: string,
  wanted: string | undefined,
): Promise<{ signal: string | null; out: string; err: string }> {
  const script = `${outputText}
    for (const n of [1, 2, 3]) {
      process.stdout.write(String(n));
      exports.crashPoint(${JSON.stringify(point)});
    }
    process.stdout.write('end');
  `;
  const env = { ...process.env, ...(wanted === undefined ? {} : { LUSTRITE_CRASH: wanted }) };
  return new Promise((resolve) => {
    execFile(process.execPath, ['-e', script], { env }, (error, out, err) => {
      resolve({ signal: error?.signal ?? null, out, err });
    });
  });
}

await t.test('a crash point ends the process by SIGKILL at the wanted time, and says so', async (t) => {
  const rows: readonly (readonly [string | undefined, string, boolean])[] = [
    [undefined, '123end', false],
    ['archive.uploaded', '1', true],
    ['archive.uploaded:1', '1', true],
    ['archive.uploaded:3', '123', true],
    ['archive.uploaded:4', '123end', false],
    ['archive.staged', '123end', false],
  ];
  for (const [wanted, out, dies] of rows) {
    const ended = await pass('archive.uploaded', wanted);
    t.match(ended, { signal: dies ? 'SIGKILL' : null, out }, `LUSTRITE_CRASH=${wanted}`);
    if (dies) t.equal(ended.err, 'crash point archive.uploaded\n');
  }
});

await t.test('crash points have names of their own and say what has become true', (t) => {
  const native = readFileSync(new URL('../../native/store/crash_points.def', import.meta.url), 'utf8');
  for (const [name, what] of Object.entries(CRASH_POINTS)) {
    t.notOk(native.includes(`"${name}"`), `${name} is no name of the native side, too`);
    t.match(name, /^[a-z-]+\.[a-z-]+$/);
    t.ok(what.length > 10, name);
  }
  t.end();
});
