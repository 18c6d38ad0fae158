/** `scripts/bench [import|hydrate|export|auto-import|restorer|queue]...`: medians of interleaved rounds, as ratios within one run. */
import { parseArgs } from 'node:util';
import { loadavg } from 'node:os';
import { benchAutoImport } from './auto-import.js';
import { benchExport } from './export.js';
import { benchHydrate } from './hydrate.js';
import { benchImport } from './import.js';
import { benchQueue } from './queue.js';
import { benchRestorer } from './restorer.js';
import { Rig } from './rig.js';

const HELP = `Usage: scripts/bench [import|hydrate|export|auto-import|restorer|queue]... [options]

Measures lustrite beside a bare GET/PUT loop against the same Azurite, interleaved, and prints medians.
Needs root, /dev/fuse and a built tree (scripts/test.sh or npm ci builds it).

  --rounds N    interleaved rounds a figure (default 3; of a million names or more always one)
  --names N,... names in the import, auto-import and export benches, one after the other, so that growth is visible
                (default 10000,100000,1000000)
  --changes N   changes of those names that auto-import follows (default 20000)
  --latency MS  that a page of their listings and a look-up of a blob take (default 0)
  --files N     small files in the hydrate, export, restorer and queue benches (default 1000)
  --mib N       size of the big blob (default 1024)

Example: scripts/bench import auto-import --names 10000 --rounds 1`;

/** @returns the options of the command line; ends the process where one is unknown or has no value */
function commandLine() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        rounds: { type: 'string', default: '3' },
        names: { type: 'string', default: '10000,100000,1000000' },
        changes: { type: 'string', default: '20000' },
        latency: { type: 'string', default: '0' },
        files: { type: 'string', default: '1000' },
        mib: { type: 'string', default: '1024' },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}\n\n${HELP}`);
    process.exit(2);
  }
}

const { values, positionals } = commandLine();

/** @type {Record<string, (rig: Rig, options: import('./rig.js').BenchOptions) => Promise<void>>} */
const BENCHES = {
  import: benchImport,
  hydrate: benchHydrate,
  export: benchExport,
  'auto-import': benchAutoImport,
  restorer: benchRestorer,
  queue: benchQueue,
};

/** @param {string} name @param {string} [text] @param {number} [least] */
function count(name, text = String(/** @type {Record<string, unknown>} */ (values)[name]), least = 1) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least) {
    console.error(`bench: --${name} takes a whole number from ${String(least)} on, not '${text}'`);
    process.exit(2);
  }
  return value;
}

const chosen = positionals.length > 0 ? positionals : Object.keys(BENCHES);
const unknown = chosen.filter((name) => !(name in BENCHES));
if (values.help || unknown.length > 0) {
  if (unknown.length > 0) console.error(`bench: no bench '${unknown.join("', '")}'\n`);
  console.log(HELP);
  process.exit(values.help ? 0 : 2);
}
const options = {
  rounds: count('rounds'),
  sizes: values.names.split(',').map((text) => count('names', text)),
  changes: count('changes'),
  latency: count('latency', undefined, 0),
  files: count('files'),
  mib: count('mib'),
};
console.log(
  `load ${loadavg()
    .map((load) => load.toFixed(1))
    .join(' ')}; only the ratios of one run mean anything`,
);
const rig = new Rig();
try {
  for (const name of chosen) await BENCHES[name]?.(rig, options);
} finally {
  await rig.close();
}
