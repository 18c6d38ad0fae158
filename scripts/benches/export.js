/** Export of new 4 KiB files, beside a loop of bare PUTs of the same bytes. */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { inParallel, report, seconds } from './rig.js';

const WIDTH = 16;

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchExport(rig, { rounds, files }) {
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
