/** The log of a job, under the store and in the logging container. */
import { appendFile, mkdtemp, readFile, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { createLog } from '../../src/base/log.js';
import { copyPauseMs, JobLog } from '../../src/jobs/job-log.js';
import { MemoryContainer } from '../helpers/memory-container.js';
import { until } from '../helpers/poll.js';

const startedMs = Date.UTC(2026, 0, 31, 12);
const signal = new AbortController().signal;
const blob = 'fs/auto-import/auto/20260131T120000Z.jsonl';
const minute = 60_000;

async function rig(t: Test): Promise<{
  readonly container: MemoryContainer;
  readonly file: string;
  readonly clock: { ms: number };
  readonly warnings: string[];
  readonly open: (resumed?: boolean) => Promise<JobLog>;
  readonly uploaded: () => string;
}> {
  const folder = await mkdtemp(join(tmpdir(), 'lustrite-log-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const container = new MemoryContainer();
  const file = join(folder, 'log.jsonl');
  const clock = { ms: startedMs };
  const warnings: string[] = [];
  const log = createLog({
    level: 'warn',
    pretty: false,
    destination: { write: (line: string) => void warnings.push(line) },
  });
  return {
    container,
    file,
    clock,
    warnings,
    open: (resumed = false) =>
      JobLog.open({ file, container, blob, log, startedMs, now: () => clock.ms }, resumed),
    uploaded: () => container.logs.get(blob) ?? '',
  };
}

const line = (path: string) => ({ level: 'info', path, code: 'Deleted', message: 'deleted' }) as const;

await t.test(
  'a log that is followed is in the container before the job is over, each line once',
  async (t) => {
    const { container, file, clock, open, uploaded } = await rig(t);
    const log = await open();
    log.follow(signal);
    log.add(line('one'));
    clock.ms += minute - 1;
    log.follow(signal);
    t.same(container.calls, [], 'not more often than once a minute');
    clock.ms += 1;
    log.follow(signal);
    await until(() => uploaded().includes('"one"'), { what: 'the first copy', intervalMs: 1 });
    clock.ms += minute;
    log.follow(signal);
    const { length } = container.calls;
    t.equal(length, 1, 'and not without news');
    log.add(line('two'));
    const second = (): boolean => {
      log.follow(signal);
      return uploaded().includes('"two"');
    };
    await until(second, { what: 'the second copy', intervalMs: 1 });
    log.add(line('three'));
    t.ok(await log.close(signal));
    t.equal(uploaded(), await readFile(file, 'utf8'));
    t.equal(uploaded().split('\n').length, 4);
  },
);

await t.test('ten years of a job are fewer copies than an append blob takes', (t) => {
  const tenYears = 10 * 365 * 24 * 60 * minute;
  let copies = 0;
  for (let ageMs = 0; ageMs < tenYears; ageMs += copyPauseMs(ageMs)) copies++;
  t.ok(copies < 50_000, String(copies));
  t.equal(copyPauseMs(24 * 60 * minute), minute);
  t.end();
});

await t.test('a resumed log goes on in the container where the daemon before has died', async (t) => {
  const { file, open, uploaded } = await rig(t);
  const first = await open();
  first.add(line('one'));
  await first.close(signal);
  first.add(line('two'));
  await first.written();
  await appendFile(file, '{"time":"half a l');
  const resumed = await open(true);
  resumed.add(line('three'));
  await resumed.close(signal);
  t.same(
    uploaded()
      .trimEnd()
      .split('\n')
      .map((text) => (JSON.parse(text) as { path: string }).path),
    ['one', 'two', 'three'],
  );
  t.equal(uploaded(), await readFile(file, 'utf8'));
});

await t.test('an append whose answer is lost is not made again', async (t) => {
  const { container, clock, warnings, open, uploaded } = await rig(t);
  const log = await open();
  log.add(line('one'));
  const append = container.appendLog.bind(container);
  container.appendLog = async (...args) => {
    container.appendLog = append;
    await append(...args);
    throw new BlobError('unreachable', 'no answer');
  };
  clock.ms += minute;
  log.follow(signal);
  await until(() => warnings.length > 0, { what: 'the warning', intervalMs: 1 });
  log.add(line('two'));
  t.ok(await log.close(signal));
  t.equal(uploaded().match(/"one"/g)?.length, 1);
  t.equal(uploaded().match(/"two"/g)?.length, 1);
  t.equal(warnings.length, 1);
});

await t.test('every character of a line arrives, and lines longer than a piece', async (t) => {
  const { file, open, uploaded } = await rig(t);
  const log = await open();
  log.add(line('a\u2028b\u0085c\rd'));
  log.add(line('x'.repeat(3 * 1024 ** 2)));
  log.add(line('é'.repeat(700 * 1024)));
  t.ok(await log.close(signal));
  t.equal(uploaded(), await readFile(file, 'utf8'));
});

await t.test('an empty log is an empty blob', async (t) => {
  const { container, open } = await rig(t);
  t.ok(await (await open()).close(signal));
  t.same([...container.logs], [[blob, '']]);
});

await t.test(
  'lines that a power failure has taken from the file are not missed in the container',
  async (t) => {
    const { container, file, open, uploaded } = await rig(t);
    const first = await open();
    first.add(line('one'));
    first.add(line('two'));
    await first.close(signal);
    const before = uploaded();
    await truncate(file, before.indexOf('\n') + 1);
    const resumed = await open(true);
    resumed.add(line('three'));
    resumed.add(line('four'));
    await resumed.close(signal);
    t.match(uploaded().slice(before.length), /^\{.*"three".*\}\n\{.*"four".*\}\n$/);
    t.equal(container.logs.size, 1);
  },
);

await t.test('a log that does not get through in time is warned of', async (t) => {
  const { container, warnings, open } = await rig(t);
  const log = await open();
  log.add(line('one'));
  const late = new AbortController();
  container.before = () =>
    new Promise<void>(() => {
      late.abort();
    });
  t.notOk(await log.close(late.signal));
  t.match(warnings, [/the job log was not uploaded/]);
});

await t.test('what is added while a copy is on its way is for the next one', async (t) => {
  const { container, file, clock, warnings, open, uploaded } = await rig(t);
  const log = await open();
  log.add(line('one'));
  const append = container.appendLog.bind(container);
  let appends = 0;
  container.appendLog = async (...args) => {
    appends++;
    await append(...args);
    log.add(line(`during ${appends}`));
    await log.written();
    if (appends <= 2) throw new BlobError('unreachable', 'no answer');
  };
  clock.ms += minute;
  log.follow(signal);
  await until(() => warnings.length > 0, { what: 'the warning', intervalMs: 1 });
  t.notOk(await log.close(signal));
  container.appendLog = append;
  t.ok(await log.close(signal));
  t.equal(uploaded(), await readFile(file, 'utf8'));
});
