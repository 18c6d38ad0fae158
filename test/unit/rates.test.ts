/** How fast jobs say they are, and when an auto-export was last in order: by a clock that the tests turn. */
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { RateWindow } from '../../src/jobs/auto-import/rate-window.js';
import type { AutoExportRecord } from '../../src/jobs/export/auto-export-record.js';
import { perSecond } from '../../src/jobs/record-fields.js';
import { auto, autoImport, end, synced } from '../helpers/memory-auto-import.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

/** Something that happens again and again, each time when a test lets it. */
class Turns {
  #go: (() => void) | undefined;

  async turn(signal?: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#go = resolve;
      signal?.addEventListener('abort', () => reject(new Error('aborted')), { once: true });
    });
  }

  go(): void {
    const go = this.#go;
    this.#go = undefined;
    go?.();
  }

  async waits(): Promise<void> {
    await until(() => this.#go !== undefined, { what: 'a turn', intervalMs: 1 });
  }

  /** Lets it happen; resolves before the next time. */
  async next(): Promise<void> {
    this.go();
    await this.waits();
  }
}

await t.test('a rate is that of the last one to two windows, and of nothing before', (t) => {
  const rate = new RateWindow(10_000);
  // [second, total, things a second]
  const rows = [
    [0, 0, 0],
    [1, 50, 50],
    [5, 50, 10],
    [10, 100, 10],
    [15, 100, 7],
    [20, 100, 0],
    [25, 400, 20],
    [30, 400, 30],
    [35, 400, 20],
    [40, 400, 0],
    [4000, 400, 0],
    [4001, 400, 0],
    [4011, 4360, 360],
  ] as const;
  for (const [second, total, wanted] of rows)
    t.equal(rate.of(total, 1_000_000 + second * 1000), wanted, `after ${second} s`);
  t.end();
});

await t.test('what was counted and counts again after an outage is no rate below nothing', (t) => {
  const rate = new RateWindow(10_000);
  t.equal(rate.of(0, 0), 0);
  t.equal(rate.of(800, 10_000), 80);
  t.equal(rate.of(0, 12_000), 0);
  t.equal(rate.of(0, 20_000), 0, 'from 800');
  t.equal(rate.of(1000, 30_000), 100, 'from 0');
  t.end();
});

await t.test('a rate over no time is that of a millisecond, also when a clock was set back', (t) => {
  const at = (ms: number): string => new Date(ms).toISOString();
  t.equal(perSecond(10, at(0), at(4000)), 3);
  t.equal(perSecond(0, at(0), at(0)), 0);
  t.equal(perSecond(2, at(0), at(0)), 2000);
  t.equal(perSecond(2, at(5000), at(0)), 2000);
  t.equal(new RateWindow(10).of(5, 1), 0);
  t.end();
});

await t.test('the rates of a full sync are those of its time, and stay', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, clock } = jobs.hsm;
  for (let n = 0; n < 8; n++) container.put(`old${n}`, 'x');
  await (
    await jobs.runner.create('import', {})
  ).done;
  for (let n = 0; n < 4; n++) container.put(`new${n}`, 'x');
  const slow = { any: true };
  container.before = (call) => {
    if (call === 'list' && slow.any) clock.ms += 4000;
    if (call === 'list') slow.any = false;
  };
  await autoImport(jobs);
  await synced(jobs);
  const rates = { rateOfBlobWalk: 3, rateOfBlobImport: 1, blobSyncEvents: { rateOfBlobImport: 0 } };
  t.match(auto(jobs), { totalBlobsWalked: 12, totalBlobsImported: 4, preexistingFiles: 8, ...rates });
  clock.ms += 60_000;
  await synced(jobs);
  t.match(auto(jobs), rates);
  await end(jobs);
  t.match(auto(jobs), { state: 'Disabled', ...rates });
});

await t.test('the rate of blob sync is that of the last seconds', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, clock } = jobs.hsm;
  const asked = new Turns();
  let lists = 0;
  // The first listing is the full sync's.
  container.before = (call) => (call === 'list' && lists++ > 0 ? asked.turn() : undefined);
  await autoImport(jobs);
  await asked.waits();
  for (let n = 0; n < 30; n++) container.put(`f${n}`, 'x');
  // The listing that waits was begun before.
  await asked.next();
  clock.ms += 3000;
  const rate = (): number => auto(jobs).blobSyncEvents.rateOfBlobImport;
  await asked.next();
  t.match(auto(jobs), { rateOfBlobImport: 0, blobSyncEvents: { totalBlobsImported: 30 } });
  t.equal(rate(), 10);
  clock.ms += 10_000;
  await asked.next();
  t.equal(rate(), 2, 'of 13 s');
  clock.ms += 10_000;
  await asked.next();
  t.equal(rate(), 0, 'nothing has come in the last window');
  container.before = () => undefined;
  asked.go();
  await end(jobs);
});

await t.test(
  'an auto-export counts failed files up to an iteration without any, which it dates',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { clock, pool, store } = jobs.hsm;
    const pollIntervalMs = 7777;
    const pauses = new Turns();
    const sleep = clock.sleep;
    clock.sleep = async (ms, signal) => {
      if (ms === pollIntervalMs) await pauses.turn(signal);
      await sleep(ms, signal);
    };
    const status = (): AutoExportRecord['properties']['status'] =>
      (jobs.runner.get('out') as AutoExportRecord).properties.status;
    const now = (): string => new Date(clock.ms).toISOString();

    store.write('a', 'a');
    const { record } = await jobs.runner.create('auto-export', { name: 'out', pollIntervalMs });
    t.match(record.properties.status, { exportIterationCount: 1 }, 'with the first, which begins');
    await pauses.waits();
    const first = now();
    const good = { totalFilesFailed: 0, currentIterationFilesFailed: 0 };
    const runs = 'Auto Export is in progress';
    const dated = (at: string) => ({ lastSuccessfulIterationCompletionTimeUTC: at });
    t.match(status(), { exportIterationCount: 1, ...good, ...dated(first), statusMessage: runs });

    pool.gate = (_, blob) => {
      if (blob !== 'c') throw new BlobError('forbidden', 'no');
    };
    for (const name of ['b', 'c', 'd']) store.write(name, name);
    for (const totalFilesFailed of [2, 4]) {
      await pauses.next();
      t.match(status(), {
        ...dated(first),
        totalFilesFailed,
        totalFilesExported: 2,
        currentIterationFilesFailed: 2,
        statusMessage: /not everything could be exported, the first: [bd]:/,
      });
    }

    pool.gate = () => undefined;
    await pauses.next();
    t.match(status(), {
      ...good,
      ...dated(now()),
      exportIterationCount: 4,
      totalFilesExported: 4,
      currentIterationFilesExported: 2,
      statusMessage: runs,
    });
    t.ok(now() > first);
    await jobs.runner[Symbol.asyncDispose]();
    pauses.go();
    await jobs.restart();
    await pauses.waits();
    t.equal(status().exportIterationCount, 5, 'a daemon that goes on begins another');
    await jobs.runner.cancel('out');
    await jobs.runner.wait('out');
    t.equal(status().state, 'Disabled');
  },
);
