/** Export of new 4 KiB files, beside a loop of bare PUTs of the same bytes; of many, alone, with what they cost the daemon. */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { inParallel, median, perTenThousand, report, roundsOf, seconds } from './rig.js';

const WIDTH = 16;

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchExport(rig, { rounds, files, sizes }) {
  await besidePuts(rig, { rounds, files });
  for (const names of sizes) await exportOf(rig, { rounds: roundsOf(names, rounds), names });
}

/** @param {import('./rig.js').Rig} rig @param {{ rounds: number, files: number }} options */
async function besidePuts(rig, { rounds, files }) {
  const container = await rig.container('export');
  const target = await rig.container('bare');
  const body = randomBytes(4096);
  const mount = await rig.mount({ container: container.name, flags: ['--no-import'], wait: false });
  /** @type {number[]} */ const lustrite = [];
  /** @type {number[]} */ const bare = [];
  for (let round = 0; round < rounds; round++) {
    // Fresh connections: the server has closed those of the round before while this thread waited for a command.
    const agent = new Agent({ connections: WIDTH });
    const names = Array.from({ length: files }, (_, i) => `r${String(round)}-f${String(i)}`);
    bare.push(
      files /
        (await seconds(() =>
          inParallel(names, WIDTH, async (name) => {
            const answer = await request(target.url(name), {
              dispatcher: agent,
              method: 'PUT',
              body,
              headers: {
                'x-ms-blob-type': 'BlockBlob',
                'x-ms-version': '2026-04-06',
                'x-ms-meta-owner': '0',
                'x-ms-meta-group': '0',
                'x-ms-meta-permissions': '0644',
              },
            });
            await answer.body.dump();
            if (answer.statusCode !== 201) throw new Error(`bare PUT: ${String(answer.statusCode)}`);
          }),
        )),
    );
    const directory = join(mount.path, `r${String(round)}`);
    await mkdir(directory);
    await inParallel(names, WIDTH, (name) => writeFile(join(directory, name), body));
    await agent.close();
    lustrite.push(files / (await seconds(() => mount.lustrite('export', 'create', mount.path, '--wait'))));
  }
  report(`export ${String(files)} x 4 KiB`, { lustrite, bare, unit: 'files/s' }, mount.cost());
  mount.close();
}

/** How many names a directory has. */
const FAN_OUT = 1000;

/** @param {import('./rig.js').Rig} rig @param {{ rounds: number, names: number }} options */
async function exportOf(rig, { rounds, names }) {
  const container = await rig.container('export');
  const mount = await rig.mount({ container: container.name, flags: ['--no-import'], wait: false });
  /** @type {number[]} */ const rates = [];
  /** @type {number[]} */ const again = [];
  let cpuSeconds = 0;
  let peakRssMiB = 0;
  for (let round = 0; round < rounds; round++) {
    const directories = Math.ceil(names / FAN_OUT);
    const at = /** @param {number} n */ (n) =>
      join(mount.path, `r${String(round)}`, `d${String(n % directories)}`);
    for (let n = 0; n < directories; n++) await mkdir(at(n), { recursive: true });
    const indices = Array.from({ length: names }, (_, n) => n);
    await inParallel(indices, WIDTH, (n) => writeFile(join(at(n), String(n)), `file ${String(n)}`));
    // The kernel knows all that it has created, and so does the daemon: that is not what the export takes.
    mount.close();
    mount.open('--container', container.name);
    const before = mount.cost().cpuSeconds;
    rates.push(names / (await seconds(() => exported(mount, names))));
    const cost = mount.cost();
    cpuSeconds += cost.cpuSeconds - before;
    peakRssMiB = Math.max(peakRssMiB, cost.peakRssMiB);
    again.push(await seconds(() => exported(mount, 0)));
  }
  const cost = { cpuSeconds, peakRssMiB };
  console.log(
    `export ${String(names)} names: ${median(rates).toFixed(0)} files/s (${Math.min(...rates).toFixed(0)}..${Math.max(...rates).toFixed(0)}); ` +
      `${perTenThousand(cost, names * rounds)} CPU s per 10,000 files, peak RSS ${cost.peakRssMiB.toFixed(0)} MiB; ` +
      `an export that finds nothing new ${median(again).toFixed(2)} s`,
  );
  mount.close();
}

/** Exports what is new, which has to be so many files. @param {import('./rig.js').Mount} mount @param {number} names */
function exported(mount, names) {
  const job =
    /** @type {{ properties: { status: { totalFilesExported: number, totalFilesFailed: number } } }} */ (
      mount.json('export', 'create', mount.path, '--wait')
    );
  const { totalFilesExported, totalFilesFailed } = job.properties.status;
  if (totalFilesExported !== names || totalFilesFailed > 0)
    throw new Error(
      `exported ${String(totalFilesExported)} of ${String(names)}, ${String(totalFilesFailed)} failed`,
    );
}
