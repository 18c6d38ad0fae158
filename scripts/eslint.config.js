// Lint rules. The import arrows of src/ARCHITECTURE.md are the two tables below.
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/**
 * Folder of src/ -> the folders it may import, besides itself.
 * @type {Readonly<Record<string, readonly string[]>>}
 */
const arrows = {
  cli: ['base'],
  daemon: ['http', 'fuse', 'jobs', 'hsm', 'store', 'blob', 'workers', 'native', 'base'],
  http: ['jobs', 'hsm', 'base'],
  dashboard: ['jobs', 'hsm', 'base'],
  fuse: ['hsm', 'store', 'native', 'base'],
  jobs: ['hsm', 'store', 'blob', 'workers', 'base'],
  hsm: ['store', 'blob', 'workers', 'base'],
  workers: ['store', 'blob', 'base'],
  store: ['native', 'base'],
  blob: ['base'],
  native: ['base'],
  base: [],
};

/**
 * Package (as a regular expression) -> the only place in src/ that imports it.
 * @type {readonly { readonly name: string, readonly only: string }[]}
 */
const owners = [
  { name: '@azure/.*', only: 'src/blob/**' },
  { name: 'undici', only: 'src/blob/**' },
  { name: 'avsc', only: 'src/blob/**' },
  { name: 'fuse-native', only: 'src/fuse/fuse-native-loader.ts' },
  { name: 'piscina', only: 'src/workers/pool.ts' },
  { name: 'lru-cache', only: 'src/base/caches.ts' },
  { name: 'commander', only: 'src/{cli.ts,cli/**}' },
  { name: 'fastify', only: 'src/http/**' },
];

/** @typedef {{ readonly regex: string, readonly message: string, readonly lazy?: boolean }} Ban */

/** @type {(folder: string | undefined) => readonly Ban[]} */
function bansOnFolders(folder) {
  if (folder === undefined) return [];
  const forbidden = Object.keys(arrows).filter(
    (other) => other !== folder && !arrows[folder]?.includes(other),
  );
  const message = `src/${folder}/ may import only ${[folder, ...(arrows[folder] ?? [])].join(', ')} (src/ARCHITECTURE.md)`;
  return [
    { regex: `^(?:\\.\\./)+(?:${forbidden.join('|')})/`, message },
    // The command that becomes the daemon loads it lazily; nobody else does, and nothing imports the entry points.
    { regex: '^(?:\\.\\./)+(?:daemon|cli)\\.js$', message, lazy: folder === 'cli' },
  ];
}

/** @type {(file: string) => readonly Ban[]} */
function bansOnPackages(file) {
  return owners
    .filter(({ only }) => only !== file)
    .map(({ name, only }) => ({ regex: `^${name}(?:/|$)`, message: `only ${only} imports this package` }));
}

/**
 * The bans in static imports, `import()` and `require()` alike.
 * @param {readonly string[]} files
 * @param {readonly Ban[]} bans
 * @param {boolean} typesAllowed
 * @returns {import('eslint').Linter.Config}
 */
function forbid(files, bans, typesAllowed = false) {
  return {
    files: [...files],
    rules: {
      '@typescript-eslint/no-restricted-imports': [
        'error',
        { patterns: bans.map(({ regex, message }) => ({ regex, message, allowTypeImports: typesAllowed })) },
      ],
      'no-restricted-syntax': [
        'error',
        ...bans
          .filter(({ lazy }) => lazy !== true)
          .flatMap(({ regex, message }) => {
            const pattern = `/${regex.replaceAll('/', '\\u002f')}/`;
            return [
              { selector: `ImportExpression[source.value=${pattern}]`, message },
              { selector: `CallExpression[callee.name='require'][arguments.0.value=${pattern}]`, message },
            ];
          }),
      ],
    },
  };
}

// A later block replaces an earlier one for the same file, so each block carries every ban that holds for its files.
const direction = [
  forbid(['src/*.ts'], bansOnPackages('src/*.ts')),
  ...Object.keys(arrows).map((folder) =>
    forbid([`src/${folder}/**`], [...bansOnFolders(folder), ...bansOnPackages(`src/${folder}/**`)]),
  ),
  // A package that belongs to one file or to cli.ts.
  ...owners
    .filter(({ only }) => !/^src\/\w+\/\*\*$/.test(only))
    .map(({ only }) => forbid([only], [...bansOnFolders(folderOf(only)), ...bansOnPackages(only)])),
  forbid(
    ['src/dashboard/client/**'],
    [
      ...bansOnFolders('dashboard'),
      { regex: '^(?:\\.\\./)+(?:jobs|hsm|base)/', message: 'types only in the browser' },
    ],
    true,
  ),
  // The bin starts in milliseconds: commands are imported lazily, the daemon only by the command that becomes it.
  forbid(
    ['src/cli.ts'],
    [
      ...bansOnPackages('src/{cli.ts,cli/**}'),
      { regex: '^\\./(?!base/|cli/)', message: 'the bin loads the daemon lazily', lazy: true },
    ],
  ),
];

/** @type {(pattern: string) => string | undefined} */
function folderOf(pattern) {
  if (pattern.startsWith('src/{cli')) return 'cli';
  return /^src\/(\w+)\//.exec(pattern)?.[1];
}

export default defineConfig(
  { ignores: ['dist/**', 'build/**', 'node_modules/**', '.tap/**', 'scripts/stubs/**'] },
  {
    files: ['**/*.ts', '**/*.tsx', '**/*.js'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/consistent-type-exports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/no-floating-promises': [
        'error',
        { allowForKnownSafeCalls: [{ from: 'package', name: 'test', package: '@tapjs/test' }] },
      ],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'no-restricted-exports': [
        'error',
        { restrictDefaultExports: { direct: true, named: true, defaultFrom: true } },
      ],
      eqeqeq: 'error',
      'prefer-const': 'error',
    },
  },
  {
    files: ['scripts/eslint.config.js', 'scripts/tap-reporter.js'],
    rules: { 'no-restricted-exports': 'off' },
  },
  { files: ['src/**'], ignores: ['src/cli.ts', 'src/cli/**'], rules: { 'no-console': 'error' } },
  ...direction,
);
