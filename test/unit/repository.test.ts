import t from 'tap';
import { accessSync, constants, readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { settings } from '../../src/base/config-keys.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(`${root}/${path}`, 'utf8');

/** Programs and threads: they run when they are loaded. */
const entryPoints = /^(?:cli|daemon)\.ts$|\.worker\.ts$/;
const modules = readdirSync(`${root}/src`, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !entryPoints.test(name) && !name.startsWith('dashboard/client/'))
  .toSorted();

t.test('every module loads without doing anything', async (t) => {
  const before = traces();
  for (const name of modules) {
    await t.resolves(
      import(new URL(`../../src/${name.replace(/\.ts$/, '.js')}`, import.meta.url).href),
      name,
    );
  }
  t.same(traces(), before);
});

/** What a module that does something at load would leave behind. */
function traces(): object {
  const signals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'uncaughtException', 'unhandledRejection'];
  return {
    listeners: Object.fromEntries(signals.map((name) => [name, process.listenerCount(name)])),
    exitCode: process.exitCode,
    directory: process.cwd(),
    servers: process
      .getActiveResourcesInfo()
      .filter((kind) => /Server|FSEvent|ChildProcess|Worker/.test(kind)),
  };
}

t.test('the top level holds what the card names and nothing else', (t) => {
  const card = [
    'src',
    'native',
    'test',
    'scripts',
    'package.json',
    'tsconfig.json',
    'binding.gyp',
    'README.md',
  ];
  const extra = ['package-lock.json', 'LICENSE', 'CHANGELOG.md', '.gitignore', '.ci'];
  const made = ['.git', ...read('.gitignore').split('\n')].map((name) => name.replace('/', ''));
  const found = readdirSync(root);
  t.same(
    found.filter((name) => ![...card, ...extra, ...made].includes(name)),
    [],
  );
  t.same(
    card.filter((name) => !found.includes(name)),
    [],
  );
  t.end();
});

t.test('the arrows in ARCHITECTURE are those that the linter enforces', (t) => {
  const names = (text: string, quote: RegExp): readonly string[] =>
    [...text.matchAll(quote)].map(([, name]) => String(name)).toSorted();
  const enforced = new Map(
    [...read('scripts/eslint.config.js').matchAll(/^ {2}(\w+): \[(.*)\],$/gm)].map(
      ([, folder, allowed]) => [String(folder), names(String(allowed), /'(\w+)'/g)] as const,
    ),
  );
  enforced.delete('base');
  const [, section = ''] = read('src/ARCHITECTURE.md').split('## Arrows');
  const written = new Map(
    [...section.matchAll(/^\| (`\w+\/`.*?) \| (.*?) (?:\(.*)?\|$/gm)].flatMap(([, folders, allowed]) =>
      names(String(folders), /`(\w+)\/`/g).map(
        (folder) => [folder, names(String(allowed), /`(\w+)\/`/g)] as const,
      ),
    ),
  );
  t.ok(enforced.size > 8);
  t.same(written, enforced);
  t.end();
});

t.test('what people and CI start is executable', (t) => {
  const scripts = [
    '.ci/run',
    ...['test.sh', 'prepare.sh', 'demo.sh', 'hsm_state', 'hsm_restore'].map((x) => `scripts/${x}`),
  ];
  for (const path of scripts) t.doesNotThrow(() => accessSync(`${root}/${path}`, constants.X_OK), path);
  t.match(read('.ci/run'), /^exec \.\/scripts\/test\.sh$/m);
  t.end();
});

t.test('every setting is a row of the table in SEMANTICS', (t) => {
  const rows = read('src/SEMANTICS.md').split('\n');
  const wanted = settings.map((setting) => {
    const named = [setting.flag?.split(' ')[0], setting.env].filter((name) => name !== undefined);
    return `| \`${setting.path}\` | ${named.map((name) => `\`${name}\``).join(', ')} |`;
  });
  t.same(
    wanted.filter((start) => !rows.some((row) => row.startsWith(start))),
    [],
    'missing rows',
  );
  const paths = settings.map(({ path }) => path);
  const settingRow = /^\| `([\w.]+)` \| `(?:--|LUSTRITE_)/;
  t.same(
    rows
      .map((row) => settingRow.exec(row)?.[1])
      .filter((path) => path !== undefined && !paths.includes(path)),
    [],
    'rows of settings that are gone',
  );
  t.end();
});
