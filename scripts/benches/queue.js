/** A long queue of explicit restores: what it costs, and how long who comes then has to wait. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { inParallel, LFS, median, seconds } from './rig.js';

/** What is read and asked for beside the queue, before it is there and while it runs. */
const SAMPLES = 20;

/** @param {import('./rig.js').Rig} rig @param {import('./rig.js').BenchOptions} options */
export async function benchQueue(rig, { files }) {
  const container = await rig.container('queue');
  const names = [
    ...Array.from({ length: files }, (_, i) => `d${String(i % 100)}/f${String(i)}`),
    ...['before', 'during'].flatMap((when) =>
      Array.from({ length: 2 * SAMPLES }, (_, i) => `samples/${when}${String(i)}`),
    ),
  ];
  await inParallel(names, 16, (name) => container.client.getBlockBlobClient(name).upload('restored', 8));
  const mount = await rig.mount({ container: container.name });
  const { pid } = /** @type {{ pid: number }} */ (await mount.asked('/v1/status'));

  const idle = await sampled(mount.path, 'before');
  const rssBefore = residentMiB(pid);
  mount.lustrite('hsm', 'set-param', mount.path, 'hsm_control=disabled');
  const queueing = await seconds(() => {
    const { status, stderr } = spawnSync(
      'sh',
      ['-c', `find d* -type f -print0 | xargs -0 -n 52 ${LFS} hsm_restore`],
      {
        cwd: mount.path,
        encoding: 'utf8',
      },
    );
    if (status !== 0) throw new Error(`lfs hsm_restore: exit ${String(status)}: ${stderr}`);
  });
  const rssQueued = residentMiB(pid);
  mount.lustrite('hsm', 'set-param', mount.path, 'hsm_control=enabled');
  const busy = await sampled(mount.path, 'during');
  const { hsm } = /** @type {{ hsm: { waiting: Record<string, number> } }} */ (
    await mount.asked('/v1/status')
  );
  mount.lustrite('hsm', 'set-param', mount.path, 'hsm_control=purge');
  console.log(
    `${String(files)} queued restores: ${(files / queueing).toFixed(0)} requests/s, 52 a command; ` +
      `RSS ${rssBefore.toFixed(0)} -> ${rssQueued.toFixed(0)} MiB; ` +
      `${String(hsm.waiting['restore'])} still wait after the samples`,
  );
  for (const [what, ms] of Object.entries(busy))
    console.log(`  ${what}: ${ms.toFixed(1)} ms beside the queue, ${(idle[what] ?? NaN).toFixed(1)} without`);
  mount.close();
}

/** Medians in milliseconds. @param {string} root @param {string} when @returns {Promise<Record<string, number>>} */
async function sampled(root, when) {
  /** @type {Record<string, number[]>} */
  const taken = { 'read of a stub': [], 'lfs hsm_restore': [], 'lfs hsm_state': [] };
  for (let i = 0; i < SAMPLES; i++) {
    const file = (/** @type {number} */ at) => `${root}/samples/${when}${String(at)}`;
    const lfs = (/** @type {string} */ verb) => () => spawnSync(LFS, [verb, file(SAMPLES + i)]);
    taken['read of a stub']?.push(await seconds(() => readFile(file(i))));
    taken['lfs hsm_restore']?.push(await seconds(lfs('hsm_restore')));
    taken['lfs hsm_state']?.push(await seconds(lfs('hsm_state')));
  }
  return Object.fromEntries(Object.entries(taken).map(([what, all]) => [what, 1000 * median(all)]));
}

/** @param {number} pid */
function residentMiB(pid) {
  return (
    Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${String(pid)}/status`, 'latin1'))?.[1] ?? NaN) / 1024
  );
}
