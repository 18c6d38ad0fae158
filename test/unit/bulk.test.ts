/** Bulk verbs: what becomes of each file, how the work goes on and ends, and what is said of it. */
import t, { type Test } from 'tap';
import type { BulkView } from '../../src/base/control-api.js';
import { BlobError } from '../../src/base/errors.js';
import { systemClock } from '../../src/base/clock.js';
import { bulkLine, durationText, resultText, secondsLeft, Speed, underWay } from '../../src/cli/bulk-text.js';
import { BulkVerbs } from '../../src/hsm/bulk.js';
import { judgeHydrate, judgeRelease } from '../../src/hsm/bulk-rules.js';
import { HS_ARCHIVED, HS_DIRTY, HS_EXISTS, HS_LOST, HS_NORELEASE, HS_RELEASED } from '../../src/hsm/flags.js';
import { gate, MemoryHsm, quietLog } from '../helpers/memory-hsm.js';
import { until } from '../helpers/poll.js';

const clean = HS_EXISTS | HS_ARCHIVED;
const stub = clean | HS_RELEASED;
const ms = (value: number): bigint => BigInt(value) * 1_000_000n;
const file = {
  type: 'file',
  flags: clean,
  modified: false,
  size: 10,
  allocated: 4096,
  mtimeNs: ms(100),
  atimeNs: ms(50),
  writers: 0,
  readers: 0,
} as const;
type Judged = Parameters<typeof judgeRelease>[0];

t.test('hydrate restores what is released and says of the rest why not', (t) => {
  const rows: readonly (readonly [Partial<Judged>, unknown])[] = [
    [{ type: 'directory' }, undefined],
    [{ type: 'symlink' }, undefined],
    [{ flags: 0 }, { kind: 'there' }],
    [{ flags: clean }, { kind: 'there' }],
    [{ flags: clean | HS_DIRTY, modified: true }, { kind: 'there' }],
    [{ flags: stub }, { kind: 'do', bytes: 10 }],
    [{ flags: stub | HS_NORELEASE }, { kind: 'do', bytes: 10 }],
    [{ flags: stub | HS_LOST }, { kind: 'failed' }],
    [{ flags: HS_EXISTS | HS_RELEASED }, { kind: 'failed' }],
  ];
  for (const [change, verdict] of rows)
    t.match(judgeHydrate({ ...file, ...change }), verdict, JSON.stringify(change, text));
  t.end();
});

t.test('release takes clean files that nobody uses or wants to keep', (t) => {
  const kept = (reason: string): unknown => ({ kind: 'kept', reason });
  const rows: readonly (readonly [Partial<Judged>, number | undefined, unknown, restoredAt?: number])[] = [
    [{ type: 'special' }, undefined, undefined],
    [{ flags: stub }, undefined, { kind: 'there' }],
    [{ flags: 0, modified: true }, undefined, kept('new')],
    [{ flags: HS_EXISTS, modified: true }, undefined, kept('new')],
    [{ flags: clean | HS_DIRTY, modified: true }, undefined, kept('dirty')],
    [{ flags: clean | HS_DIRTY }, undefined, kept('dirty')],
    [{ modified: true }, undefined, kept('dirty')],
    [{ flags: clean | HS_LOST }, undefined, kept('lost_from_hsm')],
    [{ flags: clean | HS_NORELEASE }, undefined, kept('never_release')],
    [{ readers: 1 }, undefined, kept('open')],
    [{ writers: 1 }, undefined, kept('open')],
    [{}, undefined, { kind: 'do', bytes: 4096 }],
    [{}, 101, { kind: 'do', bytes: 4096 }],
    [{}, 100, kept('recent')],
    [{ atimeNs: ms(101) }, 101, kept('recent')],
    [{}, 102, { kind: 'do', bytes: 4096 }, 101],
    [{}, 102, kept('recent'), 102],
    [{}, undefined, { kind: 'do', bytes: 4096 }, 102],
  ];
  for (const [change, usedBefore, verdict, restoredAt] of rows) {
    const title = `${JSON.stringify(change, text)} ${usedBefore} ${restoredAt}`;
    t.match(judgeRelease({ ...file, ...change }, { usedBefore, restoredAt }), verdict, title);
  }
  t.end();
});

function text(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

interface Rig {
  readonly hsm: MemoryHsm;
  readonly verbs: BulkVerbs;
}

async function rig(t: Test, blobs: Readonly<Record<string, string>>): Promise<Rig> {
  const hsm = await MemoryHsm.start();
  for (const [path, content] of Object.entries(blobs)) {
    const { etag, lastModifiedMs } = hsm.container.put(path, content);
    const copy = { blob: path, etag, size: content.length, lastModifiedMs };
    const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n };
    await hsm.store.createStubs([{ path, kind: 'file', ...attributes, size: content.length, copy }], {
      dirMode: 0o755,
      uid: 0,
      gid: 0,
      mtimeNs: 0n,
    });
  }
  const { store: native, coordinator } = hsm;
  const verbs = new BulkVerbs({
    native,
    coordinator,
    log: quietLog,
    clock: systemClock,
    mountPoint: '/mnt/data',
    readOnly: false,
  });
  t.teardown(async () => {
    await verbs[Symbol.asyncDispose]();
    await hsm[Symbol.asyncDispose]();
  });
  return { hsm, verbs };
}

async function last(views: AsyncIterable<BulkView>): Promise<BulkView | undefined> {
  let view;
  for await (const one of views) view = one;
  return view;
}

const three = { 'a/1': 'one', 'a/2': 'two', 'b/3': 'three' };

t.test('a dry run moves nothing and counts what would be done', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  t.match(await last(await verbs.hydrate({ paths: ['/'], dryRun: true })), {
    state: 'Done',
    total: { files: 3, bytes: 11 },
    done: { files: 0, bytes: 0 },
  });
  t.same(hsm.pool.calls, []);
});

t.test('a hydrate that nothing would come of is refused, and says what to do', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  for (const value of ['disabled', 'shutdown']) {
    await hsm.coordinator.control.set('*.hsm_control', value, false);
    await t.rejects(verbs.hydrate({ paths: ['/'], dryRun: false }), {
      code: 'Busy',
      message: `no file is restored: hsm_control is ${value}; lustrite hsm set-param /mnt/data hsm_control=enabled`,
    });
    t.match(await last(await verbs.hydrate({ paths: ['/'], dryRun: true })), { total: { files: 3 } });
  }
});

t.test('bytes of files that do not become whole are no result', async (t) => {
  const { hsm, verbs } = await rig(t, { big: 'x'.repeat(100) });
  const views = await verbs.hydrate({ paths: ['/'], dryRun: false });
  hsm.pool.gate = () => Promise.reject(new Error('cut off'));
  t.match(await last(views), { done: { files: 0, bytes: 0 }, movedBytes: 0, failed: 1 });
  t.match(underWay(view({ done: { files: 1, bytes: 3 }, movedBytes: 4 })), { done: { files: 1, bytes: 7 } });
});

t.test('paths may overlap, and each file is restored once', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  const view = await last(await verbs.hydrate({ paths: ['/a/2', 'a', '/a//', '/a/1'], dryRun: false }));
  t.match(view, { total: { files: 2, bytes: 6 }, done: { files: 2, bytes: 6 }, there: 0, failed: 0 });
  t.same([...hsm.pool.calls].sort(), ['download a/1', 'download a/2']);
});

t.test('hydrate goes on behind a failure, which is named, and again where it was', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  hsm.pool.gate = (_, blob) => {
    if (blob === 'a/2') throw new BlobError('forbidden', 'HTTP status 403');
  };
  const first = await last(await verbs.hydrate({ paths: [''], dryRun: false }));
  t.match(first, { state: 'Done', done: { files: 2, bytes: 8 }, failed: 1 });
  t.match(first?.failures, [{ path: 'a/2', cause: /restore of a\/2 failed: .*403/ }]);
  hsm.pool.gate = () => undefined;
  hsm.pool.calls.length = 0;
  const second = await last(await verbs.hydrate({ paths: [''], dryRun: false }));
  t.match(second, { total: { files: 1 }, done: { files: 1, bytes: 3 }, there: 2, failed: 0, failures: [] });
  t.same(hsm.pool.calls, ['download a/2']);
});

t.test('whoever stops listening stops the work; what a reader waits for goes on', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  const held = gate();
  hsm.pool.gate = () => held.opened;
  const views = await verbs.hydrate({ paths: ['/'], concurrency: 2, dryRun: false });
  const stopped = (async () => {
    for await (const view of views) if (view.state === 'InProgress' && hsm.pool.calls.length === 2) break;
  })();
  await until(() => hsm.pool.calls.length === 2, { what: 'two restores to run' });
  hsm.coordinator.restoreNeeded(hsm.store.fidOf('a/1'), 1);
  await until(() => hsm.store.events.includes('failRestore 61 a/2'), {
    what: 'the other one to be canceled',
  });
  held.open();
  await stopped;
  await until(() => (hsm.store.flags('a/1') & HS_RELEASED) === 0, { what: 'the file that is read' });
  t.same(hsm.store.flags('a/2') & HS_RELEASED, HS_RELEASED);
  t.same(hsm.store.flags('b/3') & HS_RELEASED, HS_RELEASED);
  t.equal(hsm.pool.calls.length, 2, 'nothing more began');
});

t.test('no more files at a time than the concurrency says', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  let [running, most] = [0, 0];
  hsm.pool.gate = async () => {
    most = Math.max(most, ++running);
    await Promise.resolve();
    running--;
  };
  await last(await verbs.hydrate({ paths: ['/'], concurrency: 1, dryRun: false }));
  t.equal(most, 1);
});

t.test(
  'what changes HSM states is refused while auto-import is enabled, also when that begins later',
  async (t) => {
    const { hsm, verbs } = await rig(t, three);
    hsm.pool.gate = () => hsm.coordinator.setBlocked('the auto-import job is enabled');
    t.match(await last(await verbs.hydrate({ paths: ['/'], concurrency: 1, dryRun: false })), {
      state: 'Stopped',
      done: { files: 1 },
      error: { code: 'Busy', message: /auto-import/ },
    });
    await t.rejects(verbs.hydrate({ paths: ['/'], dryRun: true }), { code: 'Busy', status: 409 });
    await t.rejects(verbs.release({ paths: ['/'], dryRun: true }), { code: 'Busy', status: 409 });
  },
);

t.test('a path that is not there is refused by its name before anything is done', async (t) => {
  const { verbs } = await rig(t, three);
  await t.rejects(verbs.hydrate({ paths: ['/a', '/none'], dryRun: false }), { message: /no \/none/ });
});

t.test('release counts by reason what it leaves alone', async (t) => {
  const { hsm, verbs } = await rig(t, three);
  await last(await verbs.hydrate({ paths: ['/'], dryRun: false }));
  hsm.store.write('new', 'x');
  hsm.store.write('a/2', 'changed');
  const close = hsm.store.hold('b/3');
  const view = await last(await verbs.release({ paths: ['/'], dryRun: false }));
  t.match(view, { done: { files: 1, bytes: 3 }, kept: { new: 1, dirty: 1, open: 1 }, failed: 0 });
  t.equal(hsm.store.content('a/2'), 'changed');
  close();
  // Opened between the look at it and the release.
  let opened = (): void => undefined;
  hsm.store.before = (call) => {
    if (call === 'release') opened = hsm.store.hold('b/3');
  };
  t.match(await last(await verbs.release({ paths: ['b'], dryRun: false })), { kept: { open: 1 }, failed: 0 });
  opened();
});

const view = (change: Partial<BulkView>): BulkView => ({
  verb: 'hydrate',
  dryRun: false,
  state: 'InProgress',
  total: { files: 40, bytes: 10 * 2 ** 20 },
  done: { files: 12, bytes: 3 * 2 ** 20 },
  movedBytes: 0,
  there: 0,
  kept: {},
  failed: 0,
  failures: [],
  ...change,
});

t.test('the rate is that of the last ten seconds, and what takes longer says what is left', (t) => {
  const speed = new Speed();
  t.equal(speed.add(0, { files: 0, bytes: 0 }), undefined);
  t.equal(speed.add(900, { files: 5, bytes: 50 }), undefined, 'too early to tell');
  t.same(speed.add(10_000, { files: 20, bytes: 1000 }), { filesPerSecond: 2, bytesPerSecond: 100 });
  t.same(speed.add(20_000, { files: 20, bytes: 1500 }), { filesPerSecond: 0, bytesPerSecond: 50 });
  const rate = { filesPerSecond: 4, bytesPerSecond: 2 ** 20 };
  t.equal(secondsLeft(view({}), rate), 7);
  t.equal(secondsLeft(view({}), { ...rate, filesPerSecond: 1 }), 28);
  t.equal(secondsLeft(view({}), { ...rate, bytesPerSecond: 0 }), undefined);
  t.equal(secondsLeft(view({ done: { files: 40, bytes: 10 * 2 ** 20 } }), rate), 0);
  t.same([5, 60, 125, 3600, 11_045, 190_800].map(durationText), ['5s', '1m 00s', '2m 05s', '1h 00m', '3h 04m', '2d 05h']); // prettier-ignore
  t.end();
});

t.test('progress and result are one line each', (t) => {
  const rate = { filesPerSecond: 4, bytesPerSecond: 2 ** 20 };
  t.equal(
    bulkLine(view({ failed: 1 }), rate),
    'hydrate: 12 of 40 files, 3.0 MiB of 10.0 MiB (30 %), 1.0 MiB/s, 4 files/s, 1 failed, 7s left',
  );
  t.equal(bulkLine(view({}), undefined), 'hydrate: 12 of 40 files, 3.0 MiB of 10.0 MiB (30 %)');
  t.equal(bulkLine(view({ state: 'Counting' }), undefined), 'hydrate: counting, 40 files so far');
  const done = view({ state: 'Done', there: 3, failed: 1 });
  t.equal(resultText(done), '12 files restored (3.0 MiB), 3 here already, 1 failed');
  t.equal(resultText({ ...done, dryRun: true }), '40 files would be restored (10.0 MiB), 3 here already, 1 failed'); // prettier-ignore
  t.equal(
    resultText(view({ verb: 'release', state: 'Done', there: 3, kept: { new: 2, recent: 1 } })),
    '12 files released (3.0 MiB), 3 released already, left alone: 2 new, 1 used recently',
  );
  t.end();
});
