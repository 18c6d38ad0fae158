/** First reads: many small stubs and one big one, beside a loop of bare GETs written to the same disk. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { LFS, inParallel, report, seconds } from './rig.js';

const WIDTH = 32;
const RANGE = 8 * 1024 * 1024;

/** @param {string} path @param {readonly string[]} names */
function releaseAll(path, names) {
  for (let at = 0; at < names.length; at += 50) {
    const files = names.slice(at, at + 50).map((name) => join(path, name));
    const run = spawnSync(LFS, ['hsm_release', ...files], { encoding: 'utf8' });
    if (run.status !== 0) throw new Error(`hsm_release: ${run.stderr}`);
  }
}

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchHydrate(rig, { rounds, files, mib }) {
  {
    const container = await rig.container('small');
    const names = Array.from({ length: files }, (_, i) => `d${String(i % 10)}/f${String(i)}`);
    await inParallel(names, 16, (name) =>
      container.client.getBlockBlobClient(name).uploadData(randomBytes(4096)),
    );
    const mount = await rig.mount({ container: container.name });
    /** @type {number[]} */ const lustrite = [];
    /** @type {number[]} */ const bare = [];
    for (let round = 0; round < rounds; round++) {
      // Fresh connections: the server has closed those of the round before while this thread waited for a command.
      const agent = new Agent({ connections: WIDTH });
      bare.push(
        files /
          (await seconds(() =>
            inParallel(names, WIDTH, async (name) => {
              const answer = await request(container.url(name), { dispatcher: agent });
              const file = await open(rig.path('bare'), 'w');
              await file.writeFile(Buffer.from(await answer.body.arrayBuffer()));
              await file.close();
            }),
          )),
      );
      await agent.close();
      lustrite.push(
        files / (await seconds(() => inParallel(names, WIDTH, (name) => readFile(join(mount.path, name))))),
      );
      releaseAll(mount.path, names);
    }
    report(`hydrate ${String(files)} x 4 KiB`, { lustrite, bare, unit: 'files/s' }, mount.cost());
    mount.close();
  }
  {
    const container = await rig.container('big');
    const body = randomBytes(1024 * 1024);
    const blob = container.client.getBlockBlobClient('big');
    /** @type {string[]} */ const blocks = [];
    for (let at = 0; at < mib; at += 8) {
      const id = Buffer.from(String(at).padStart(8, '0')).toString('base64');
      const block = Buffer.concat(Array.from({ length: Math.min(8, mib - at) }, () => body));
      await blob.stageBlock(id, block, block.length);
      blocks.push(id);
    }
    await blob.commitBlockList(blocks);
    const mount = await rig.mount({ container: container.name });
    const size = mib * 1024 * 1024;
    /** @type {number[]} */ const lustrite = [];
    /** @type {number[]} */ const bare = [];
    for (let round = 0; round < rounds; round++) {
      // Fresh connections: the server has closed those of the round before while this thread waited for a command.
      const agent = new Agent({ connections: WIDTH });
      const file = await open(rig.path('bare-big'), 'w');
      const ranges = Array.from({ length: Math.ceil(size / RANGE) }, (_, i) => i * RANGE);
      bare.push(
        mib /
          (await seconds(() =>
            inParallel(ranges, 4, async (start) => {
              const end = Math.min(size, start + RANGE) - 1;
              const answer = await request(container.url('big'), {
                dispatcher: agent,
                headers: { range: `bytes=${String(start)}-${String(end)}` },
              });
              let at = start;
              const body = /** @type {AsyncIterable<Buffer>} */ (answer.body);
              for await (const bytes of body) {
                await file.write(bytes, 0, bytes.length, at);
                at += bytes.length;
              }
            }),
          )),
      );
      await file.close();
      await agent.close();
      lustrite.push(
        mib /
          (await seconds(() => {
            const run = spawnSync('dd', [
              `if=${join(mount.path, 'big')}`,
              'of=/dev/null',
              'bs=1M',
              'status=none',
            ]);
            if (run.status !== 0) throw new Error(`dd: ${run.stderr.toString()}`);
          })),
      );
      releaseAll(mount.path, ['big']);
    }
    report(`hydrate 1 x ${String(mib)} MiB`, { lustrite, bare, unit: 'MiB/s' }, mount.cost());
    mount.close();
  }
}
