// Puts the packages that dist/ imports into a few files of their own, dist/packages/: a daemon and each of its threads
// would else find, read and compile some 500 files before they serve. Our own files stay one by one as tsc wrote them.
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const dist = fileURLToPath(new URL('../dist', import.meta.url));
rmSync(join(dist, 'packages'), { recursive: true, force: true });

await build({
  entryPoints: readdirSync(dist, { encoding: 'utf8', recursive: true })
    .filter((name) => name.endsWith('.js'))
    .map((name) => join(dist, name)),
  outdir: dist,
  allowOverwrite: true,
  bundle: true,
  splitting: true,
  chunkNames: 'packages/[name]-[hash]',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  sourcemap: true,
  sourcesContent: false,
  logLevel: 'warning',
  // They load files beside their own: an addon, the script of a thread.
  external: ['fuse-native', 'piscina'],
  // CommonJS packages `require` what Node has built in.
  banner: {
    js: "import { createRequire as $createRequire } from 'node:module'; const require = $createRequire(import.meta.url);",
  },
  plugins: [
    {
      name: 'our-own-files',
      setup(bundle) {
        bundle.onResolve({ filter: /^\./ }, ({ importer, path }) =>
          importer.includes('/node_modules/') ? undefined : { path, external: true },
        );
      },
    },
  ],
});
