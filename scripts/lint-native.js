// Is native/ formatted as native/.clang-format says? Only CI insists on having clang-format-19.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const native = fileURLToPath(new URL('../native/', import.meta.url));
const sources = readdirSync(native, { recursive: true, encoding: 'utf8' }).filter((name) =>
  /\.(?:cc|c|h)$/.test(name),
);
const { error, status } = spawnSync('clang-format-19', ['--dry-run', '-Werror', '--', ...sources], {
  cwd: native,
  stdio: 'inherit',
});
if (error === undefined) {
  process.exitCode = status ?? 1;
} else if ('code' in error && error.code === 'ENOENT') {
  const required = process.env['CI'] === 'true';
  console.error(
    `lint:native: clang-format-19 is not installed${required ? '' : ', native/ was not checked'}`,
  );
  process.exitCode = required ? 1 : 0;
} else {
  throw error;
}
