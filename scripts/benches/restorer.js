/** The batch script of Azure Managed Lustre's documentation, beside its `find | xargs lfs hsm_restore`. */
import { spawnSync } from 'node:child_process';
import { symlinkSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inParallel, LFS, seconds } from './rig.js';

const SCRIPT = fileURLToPath(new URL('../../test/helpers/file_restorer.bash', import.meta.url));
const BATCH = '5000';
/** The second way takes no more: it starts a program for each file, too, and the rate is the same. */
const MOST_BY_FIND = 10_000;

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchRestorer(rig, { files }) {
  const container = await rig.container('restorer');
  const names = Array.from({ length: files }, (_, i) => `d${String(i % 100)}/f${String(i)}`);
  await inParallel(names, 16, (name) => container.client.getBlockBlobClient(name).upload('restored', 8));
  const bin = rig.path('bin');
  mkdirSync(bin);
  symlinkSync(LFS, join(bin, 'lfs'));
  const env = { ...process.env, PATH: `${bin}:${dirname(process.execPath)}:/usr/bin:/bin` };
  const some = Math.min(files, MOST_BY_FIND);
  const find = `find . -type f -print0 | head -z -n ${String(some)} | xargs -0 -n 1 lfs hsm_restore`;
  const ways = /** @type {const} */ ([
    ['file_restorer.bash', files, 'bash', [SCRIPT, '.', BATCH]],
    ['find | xargs lfs hsm_restore', some, 'sh', ['-c', find]],
  ]);
  for (const [title, wanted, program, args] of ways) {
    const mount = await rig.mount({ container: container.name });
    const took = await seconds(async () => {
      const run = spawnSync(program, args, { cwd: mount.path, env, encoding: 'utf8', maxBuffer: 1 << 28 });
      if (run.status !== 0) throw new Error(`${title}: exit ${String(run.status)}: ${run.stderr}`);
      for (;;) {
        const { census } = /** @type {{ census: Record<string, number> }} */ (
          await mount.asked('/v1/status')
        );
        if (census['released'] === files - wanted) break;
      }
    });
    const { cpuSeconds, peakRssMiB } = mount.cost();
    console.log(
      `${title}, ${String(wanted)} files: ${took.toFixed(1)} s, ${(wanted / took).toFixed(0)} files/s; ` +
        `daemon ${cpuSeconds.toFixed(1)} CPU s, peak RSS ${peakRssMiB.toFixed(0)} MiB`,
    );
    mount.close();
  }
}
