/** Auto-import by listings and by the change feed: the full sync, a poll that finds nothing, and one that follows many changes. */
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { request } from 'undici';
import { median, perTenThousand, roundsOf, seconds } from './rig.js';

/** @typedef {{ importedFiles: number, deletions: number, totalErrors: number, totalConflicts: number, lastTimeFullySynchronized?: string }} Events */
/** @typedef {{ properties: { status: { totalBlobsWalked: number, blobSyncEvents: Events } } }} AutoImport */

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchAutoImport(rig, { rounds, sizes, changes, latency }) {
  for (const names of sizes) {
    const of = { rounds: roundsOf(names, rounds), names, latency, changes: Math.min(changes, names) };
    for (const source of /** @type {const} */ (['listing', 'feed']))
      await autoImportOf(rig, { ...of, source });
  }
}

/** @param {import('./rig.js').Rig} rig @param {{ rounds: number, names: number, source: 'listing' | 'feed', latency: number, changes: number }} options */
async function autoImportOf(rig, { rounds, names, source, latency, changes }) {
  const server = fileURLToPath(new URL('list-server.js', import.meta.url));
  const typescript = import.meta.resolve('@tapjs/typescript/import');
  const asked = [server, String(names), '--latency', String(latency)];
  const args = source === 'feed' ? ['--import', typescript, ...asked, '--feed'] : asked;
  const endpoint = await rig.serve(args, /listening on (http\S+)/);
  const mount = await rig.mount({ container: 'bench', endpoint, flags: ['--no-import'], wait: false });
  const create = ['auto-import', 'create', mount.path, '--name', 'bench', '--source', source];
  const rules = ['--conflict', 'overwrite-dirty', '--enable-deletions', '--poll-interval', '1s'];
  const full = await seconds(() => mount.lustrite(...create, ...rules, '--wait'));
  const shown = /** @returns {Promise<Events>} */ async () => {
    const { properties } = /** @type {AutoImport} */ (await mount.asked('/v1/jobs/bench'));
    return properties.status.blobSyncEvents;
  };
  /** Resolves when a poll that began behind this call is over. */
  const synchronized = async () => {
    const since = new Date().toISOString();
    while (((await shown()).lastTimeFullySynchronized ?? '') <= since) await delay(50);
  };
  await synchronized();
  /** @type {number[]} */ const idle = [];
  /** @type {number[]} */ const rates = [];
  let [cpuSeconds, total] = [0, 0];
  for (let round = 0; round < rounds; round++) {
    idle.push(await seconds(synchronized));
    const url = `${endpoint.replace(/\/$/, '')}/change?count=${String(changes)}`;
    const [before, used] = [await shown(), mount.cost().cpuSeconds];
    const told = Number(await (await request(url, { method: 'POST' })).body.text());
    const took = await seconds(synchronized);
    rates.push(told / took);
    total += told;
    cpuSeconds += mount.cost().cpuSeconds - used;
    const { importedFiles, deletions, totalErrors } = await shown();
    const followed = importedFiles - before.importedFiles + deletions - before.deletions;
    if (followed !== told || totalErrors > 0)
      throw new Error(`followed ${String(followed)} of ${String(told)} changes`);
  }
  const cost = { ...mount.cost(), cpuSeconds };
  console.log(
    `auto-import ${String(names)} names by ${source}: full sync ${(names / full).toFixed(0)} names/s; a poll that finds nothing ` +
      `${median(idle).toFixed(2)} s; ${median(rates).toFixed(0)} changes/s (${Math.min(...rates).toFixed(0)}..${Math.max(...rates).toFixed(0)}, ` +
      `${String(changes)} at a time); ${perTenThousand(cost, total)} CPU s per 10,000 changes, ` +
      `peak RSS ${cost.peakRssMiB.toFixed(0)} MiB`,
  );
  mount.close();
}
