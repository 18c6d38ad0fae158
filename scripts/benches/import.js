/** Import of many names from a list server that is not the bottleneck, beside a loop that only fetches its pages. */
import { statfsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Agent, request } from 'undici';
import { perTenThousand, report, roundsOf, seconds } from './rig.js';

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchImport(rig, { rounds, sizes, latency }) {
  for (const names of sizes) await importOf(rig, { rounds: roundsOf(names, rounds), names, latency });
}

/** @param {import('./rig.js').Rig} rig @param {{ rounds: number, names: number, latency: number }} options */
async function importOf(rig, { rounds, names, latency }) {
  const server = fileURLToPath(new URL('list-server.js', import.meta.url));
  const endpoint = await rig.serve(
    [server, String(names), '--latency', String(latency)],
    /listening on (http\S+)/,
  );
  /** @type {number[]} */ const lustrite = [];
  /** @type {number[]} */ const bare = [];
  /** @type {import('./rig.js').Cost} */ let cost = { cpuSeconds: NaN, peakRssMiB: NaN };
  let bytesAStub = NaN;
  let againBytes = NaN;
  /** @type {import('./rig.js').Cost} */ let againCost = { cpuSeconds: NaN, peakRssMiB: NaN };
  /** @type {number[]} */ const again = [];
  for (let round = 0; round < rounds; round++) {
    // Fresh connections: the server has closed those of the round before while this thread waited for a command.
    const agent = new Agent();
    bare.push(
      names /
        (await seconds(async () => {
          for (let marker = ''; ;) {
            const answer = await request(
              `${endpoint}/bench?restype=container&comp=list&maxresults=5000&marker=${marker}`,
              { dispatcher: agent },
            );
            const page = await answer.body.text();
            marker = /<NextMarker>([^<]*)<\/NextMarker>/.exec(page)?.[1] ?? '';
            if (marker === '') break;
          }
        })),
    );
    await agent.close();
    const before = statfsSync(rig.path('.').replace(/\/[^/]*$/, ''));
    const start = process.hrtime.bigint();
    const mount = await rig.mount({ container: 'bench', endpoint });
    const whole = Number(process.hrtime.bigint() - start) / 1e9;
    const job = /** @type {{ properties: { status: { totalBlobsImported: number } } }} */ (
      mount.json('import', 'show', mount.path, 'importJobInitialAmlfsPut')
    );
    if (job.properties.status.totalBlobsImported !== names)
      throw new Error(`imported ${String(job.properties.status.totalBlobsImported)} of ${String(names)}`);
    lustrite.push(names / whole);
    cost = mount.cost();
    const written = mount.writtenBytes();
    again.push(names / (await seconds(() => reimport(mount, names))));
    againBytes = mount.writtenBytes() - written;
    againCost = mount.cost();
    againCost.cpuSeconds -= cost.cpuSeconds;
    mount.close();
    const after = statfsSync(rig.path('.').replace(/\/[^/]*$/, ''));
    bytesAStub = ((before.bfree - after.bfree) * before.bsize) / names;
  }
  report(
    `import ${String(names)} names (start of the daemon included)`,
    { lustrite, bare, unit: 'names/s' },
    cost,
  );
  console.log(
    `store: ${bytesAStub.toFixed(0)} bytes of blocks a stub beyond its inode (directories included); ` +
      `${perTenThousand(cost, names)} CPU s per 10,000 names`,
  );
  report(
    `import ${String(names)} names once more, unchanged`,
    { lustrite: again, bare, unit: 'names/s' },
    againCost,
  );
  console.log(`written by that: ${(againBytes / 1024).toFixed(0)} KiB`);
}

/** @param {import('./rig.js').Mount} mount @param {number} names */
function reimport(mount, names) {
  const job =
    /** @type {{ properties: { status: { preexistingFiles: number, totalConflicts: number } } }} */ (
      mount.json('import', 'create', mount.path, '--wait')
    );
  const { preexistingFiles, totalConflicts } = job.properties.status;
  if (preexistingFiles !== names || totalConflicts !== 0)
    throw new Error(
      `found ${String(preexistingFiles)} of ${String(names)}, ${String(totalConflicts)} conflicts`,
    );
  return Promise.resolve();
}
