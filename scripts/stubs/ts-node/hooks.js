import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { transform } from 'esbuild';

/** Our own files are imported, and begin threads, as what tsc makes of them, which nobody has to have made. */
export async function resolve(specifier, context, next) {
  if (/^(?:\.|\/|file:).*\.js$/.test(specifier)) {
    const file = new URL(specifier, context.parentURL ?? import.meta.url);
    const source = new URL(file.href.replace(/\.js$/, '.ts'));
    if (!existsSync(file) && existsSync(source)) return next(source.href, context);
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return next(url, context);
  const file = fileURLToPath(url);
  const { code } = await transform(await readFile(file), {
    loader: 'ts',
    format: 'esm',
    target: 'node20',
    sourcemap: 'inline',
    sourcesContent: false,
    sourcefile: file,
    // As erasableSyntaxOnly and verbatimModuleSyntax have it: nothing but types goes.
    tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true, target: 'ES2023' } },
  });
  return { format: 'module', source: code, shortCircuit: true };
}
