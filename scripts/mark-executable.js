// `tsc` writes 0644; npm marks bins of installed packages, nobody marks ours in a clone.
import { chmodSync, existsSync } from 'node:fs';

const bin = new URL('../dist/cli.js', import.meta.url);
if (existsSync(bin)) chmodSync(bin, 0o755);
