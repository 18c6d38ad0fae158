import { execFile } from 'node:child_process';
import t from 'tap';
import { CRASH_POINTS } from '../../src/base/crash.js';

const source = new URL('../../src/base/crash.ts', import.meta.url).pathname;

/** Runs crash.ts, its types stripped by tsc, in a process of its own that passes a point three times. */
function pass(
  point: string,
  wanted: string | undefined,
): Promise<{ signal: string | null; out: string; err: string }> {
  const script = `
    const { readFileSync } = require('node:fs');
    const ts = require('typescript');
    const { outputText } = ts.transpileModule(readFileSync(${JSON.stringify(source)}, 'utf8'), {
      compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
    });
    const exported = {};
    new Function('exports', 'require', outputText)(exported, require);
    for (const n of [1, 2, 3]) {
      process.stdout.write(String(n));
      exported.crashPoint(${JSON.stringify(point)});
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
    ['archive.begun', '123end', false],
  ];
  for (const [wanted, out, dies] of rows) {
    const ended = await pass('archive.uploaded', wanted);
    t.match(ended, { signal: dies ? 'SIGKILL' : null, out }, `LUSTRITE_CRASH=${wanted}`);
    if (dies) t.equal(ended.err, 'crash point archive.uploaded\n');
  }
});

await t.test('crash points have names of their own and say what has become true', (t) => {
  for (const [name, what] of Object.entries(CRASH_POINTS)) {
    t.match(name, /^[a-z]+\.[a-z-]+$/);
    t.ok(what.length > 10, name);
  }
  t.end();
});
