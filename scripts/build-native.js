// Builds build/Release/lustrite.node and build/Release/lfs. `npm ci` runs it too, and must not fail on a machine without a
// compiler: then it says so and succeeds, unless LUSTRITE_NATIVE=require. LUSTRITE_NATIVE=skip does nothing.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const products = ['lustrite.node', 'lfs'].map((name) => join(root, 'build/Release', name));
const mode = process.env['LUSTRITE_NATIVE'] ?? '';

/** @returns {string | undefined} why there is no build */
function build() {
  if (!existsSync(join(root, 'binding.gyp'))) return 'binding.gyp is missing';
  let nodeGyp;
  try {
    nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
  } catch {
    return 'node-gyp is not installed (it is a development dependency)';
  }
  const args = [nodeGyp, ...(configured() ? [] : ['configure']), 'build', '--silent'];
  // Headers beside node save a download; a user's own `nodedir` setting is not relied on.
  const prefix = dirname(dirname(process.execPath));
  if (existsSync(join(prefix, 'include/node/node_api.h'))) args.push(`--nodedir=${prefix}`);
  const { status, signal, error } = spawnSync(process.execPath, [...args, ...process.argv.slice(2)], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (error) return error.message;
  if (status !== 0) return `node-gyp ended with ${signal ?? `exit code ${status ?? 'unknown'}`}`;
  const missing = products.filter((product) => !existsSync(product));
  return missing.length > 0 ? `the build made no ${missing.join(' and no ')}` : undefined;
}

/** Whether `build/` was configured from this binding.gyp, so that `make` can decide what is out of date. */
function configured() {
  const config = join(root, 'build/config.gypi');
  const makefile = join(root, 'build/Makefile');
  if (!existsSync(config) || !existsSync(makefile)) return false;
  return statSync(makefile).mtimeMs >= statSync(join(root, 'binding.gyp')).mtimeMs;
}

if (mode !== 'skip') {
  const problem = build();
  if (problem !== undefined) {
    const required = mode === 'require';
    console.error(
      `lustrite: the native part was not built: ${problem}.` +
        (required ? '' : ' Install g++, make and python3 and run `npm run build:native`.'),
    );
    process.exitCode = required ? 1 : 0;
  }
}
