/** Restores that wait for room on the disk, and what hydrates leave to others. */
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { systemClock } from '../../src/base/clock.js';
import type { BulkView } from '../../src/base/control-api.js';
import { FsError } from '../../src/base/errors.js';
import { unlessAborted } from '../../src/base/unless-aborted.js';
import { BulkVerbs } from '../../src/hsm/bulk.js';
import { hydratesAtOnce } from '../../src/hsm/bulk-rules.js';
import { HUA_CANCEL, HUA_RESTORE } from '../../src/hsm/flags.js';
import type { RoomOptions } from '../../src/hsm/space-manager.js';
import type { Fid, HsmRequest } from '../../src/store/inodes.js';
import { root } from '../helpers/callers.js';
import { gate, MemoryHsm, quietLog } from '../helpers/memory-hsm.js';
import { until } from '../helpers/poll.js';

const { ENODATA, ENOSPC } = constants.errno;
const GiB = 2 ** 30;

/** A disk that has room when a test says so. */
class Room {
  readonly asked: Fid[] = [];
  readonly ends: boolean[] = [];
  options: RoomOptions = {};
  wait: () => Promise<void> = () => Promise.resolve();

  async allocate<T>(fid: Fid, _: number, begin: () => Promise<T>, options: RoomOptions = {}): Promise<T> {
    this.asked.push(fid);
    this.options = options;
    await unlessAborted(this.wait, options.signal ?? new AbortController().signal);
    return begin();
  }

  ended(_: Fid, restored: boolean): void {
    this.ends.push(restored);
  }
}

interface Rig {
  readonly hsm: MemoryHsm;
  readonly room: Room;
  readonly fids: readonly Fid[];
  readonly verbs: BulkVerbs;
}

/** Stubs of `size` bytes. */
async function rig(t: Test, paths: readonly string[], size = 3): Promise<Rig> {
  const room = new Room();
  const hsm = await MemoryHsm.start({}, room);
  const stubs = paths.map((path) => {
    const { etag, lastModifiedMs } = hsm.container.put(path, 'abc');
    const copy = { blob: path, etag, size, lastModifiedMs };
    return { path, kind: 'file' as const, mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, size, copy };
  });
  await hsm.store.createStubs(stubs, { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n });
  const found = await hsm.store.lookup(paths);
  const fids = found.flatMap((state) => (state === undefined ? [] : [state.fid]));
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
  return { hsm, room, fids, verbs };
}

function request(action: number, fids: readonly Fid[]): HsmRequest {
  return { action, archiveId: 0, fids, data: Buffer.alloc(0), caller: root };
}

async function last(views: AsyncIterable<BulkView>): Promise<BulkView | undefined> {
  let view;
  for await (const one of views) view = one;
  return view;
}

type End = readonly [title: string, end: (rig: Rig) => Promise<unknown>];
const ends: readonly End[] = [
  ['hsm_cancel', ({ hsm, fids }) => hsm.coordinator.request(request(HUA_CANCEL, fids))],
  ['hsm_control=shutdown', ({ hsm }) => hsm.coordinator.control.set('hsm_control', 'shutdown', false)],
  ['hsm_control=purge', ({ hsm }) => hsm.coordinator.control.set('hsm_control', 'purge', false)],
  ['the end of the daemon', ({ hsm }) => hsm.coordinator[Symbol.asyncDispose]()],
];
for (const [title, end] of ends) {
  t.test(`a restore that waits for room ends with ${title}, and its readers are let go`, async (t) => {
    const lab = await rig(t, ['a']);
    const { hsm, room, fids } = lab;
    const [fid] = fids;
    if (fid === undefined) return;
    room.wait = () => new Promise(() => undefined);
    hsm.coordinator.restoreNeeded(fid, 1);
    await until(() => room.asked.length === 1, { what: 'it to wait', intervalMs: 1 });
    await end(lab);
    await until(() => hsm.store.events.includes(`failRestore ${ENODATA} a`), {
      what: 'ENODATA',
      intervalMs: 1,
    });
    await until(() => hsm.coordinator.status().running.implicit === 0, { what: 'its end', intervalMs: 1 });
    t.same(room.ends, [false]);
    t.equal(hsm.store.openFds, 0);
    t.same(hsm.pool.calls, [], 'and not a byte was fetched');
  });
}

t.test('what was asked for waits for room again when the coordinator goes on', async (t) => {
  const { hsm, room, fids } = await rig(t, ['a']);
  room.wait = () => new Promise(() => undefined);
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await until(() => room.asked.length === 1, { what: 'it to wait', intervalMs: 1 });
  await hsm.coordinator.control.set('hsm_control', 'shutdown', false);
  await until(() => room.ends.length === 1, { what: 'its end', intervalMs: 1 });
  room.wait = () => Promise.resolve();
  await hsm.coordinator.control.set('hsm_control', 'enabled', false);
  await until(() => hsm.store.flags('a') === 0x09, { what: 'the file', intervalMs: 1 });
  t.same(room.ends, [false, true]);
});

t.test('a hydrate spares what was used since it began, unless somebody waits for the file', async (t) => {
  const { hsm, room, fids, verbs } = await rig(t, ['a']);
  const [fid] = fids;
  if (fid === undefined) return;
  const held = gate();
  room.wait = () => held.opened;
  const before = Date.now();
  const over = last(await verbs.hydrate({ paths: [''], dryRun: false }));
  await until(() => room.asked.length === 1, { what: 'it to wait', intervalMs: 1 });
  t.ok((room.options.usedBefore?.() ?? 0) >= before);
  hsm.coordinator.restoreNeeded(fid, 1);
  t.equal(room.options.usedBefore?.(), undefined);
  held.open();
  t.match(await over, { done: { files: 1 } });
});

t.test('a reader who waits for what a hydrate began goes on waiting when that is stopped', async (t) => {
  const { hsm, room, fids, verbs } = await rig(t, ['a']);
  const [fid] = fids;
  if (fid === undefined) return;
  const held = gate();
  room.wait = () => held.opened;
  const views = (await verbs.hydrate({ paths: [''], dryRun: false }))[Symbol.asyncIterator]();
  await views.next();
  await until(() => room.asked.length === 1, { what: 'it to wait', intervalMs: 1 });
  hsm.coordinator.restoreNeeded(fid, 1);
  await views.return?.();
  t.equal(room.options.usedBefore?.(), undefined);
  held.open();
  await until(() => hsm.store.flags('a') === 0x09, { what: 'the file', intervalMs: 1 });
});

t.test('two hydrates of one file spare what was used since the first began', async (t) => {
  const { hsm, room, fids } = await rig(t, ['a']);
  const [fid] = fids;
  if (fid === undefined) return;
  const held = gate();
  room.wait = () => held.opened;
  const both = [20, 10, 30].map((usedBefore) => hsm.coordinator.restore(fid, { usedBefore }));
  await until(() => room.asked.length === 1, { what: 'it to wait', intervalMs: 1 });
  t.equal(room.options.usedBefore?.(), 10);
  const third = hsm.coordinator.restore(fid);
  t.equal(room.options.usedBefore?.(), undefined, 'unless somebody waits for it');
  held.open();
  await Promise.all([...both, third]);
});

t.test('a hydrate counts what finds no room, and asks no more for what is as big', async (t) => {
  const { room, verbs } = await rig(t, ['a', 'b', 'c']);
  room.wait = () => Promise.reject(new FsError(ENOSPC, 'full'));
  const view = await last(await verbs.hydrate({ paths: [''], concurrency: 1, dryRun: false }));
  t.match(view, { state: 'Done', done: { files: 0 }, kept: { no_room: 3 }, failed: 0, failures: [] });
  t.equal(room.asked.length, 1);
});

t.test('a hydrate leaves some of hsm.max_requests to archives and removes', (t) => {
  const rows: readonly (readonly [maxRequests: number, wanted: number | undefined, atOnce: number])[] = [
    [64, undefined, 56],
    [64, 8, 8],
    [64, 4096, 56],
    [3, undefined, 2],
    [2, 2, 1],
    [1, undefined, 1],
  ];
  for (const [maxRequests, wanted, atOnce] of rows)
    t.equal(hydratesAtOnce(maxRequests, wanted), atOnce, `${maxRequests} ${wanted}`);
  t.end();
});

t.test('an archive goes on beside a hydrate, of many files or of big ones', async (t) => {
  for (const size of [3, 1.5 * GiB, 5 * GiB]) {
    const { hsm, verbs } = await rig(t, ['a', 'b', 'c', 'd', 'e'], size);
    hsm.pool.gate = (kind) => (kind === 'download' ? new Promise(() => undefined) : undefined);
    const following = await verbs.hydrate({ paths: [''], concurrency: 4096, dryRun: false });
    const views = following[Symbol.asyncIterator]();
    await views.next();
    await until(() => hsm.pool.calls.length > 0, { what: 'the first download', intervalMs: 1 });
    const outcome = await hsm.coordinator.archive(hsm.store.write('new', 'x'), { path: 'new' });
    t.equal(outcome.kind, 'archived', `${size}`);
    await views.return?.();
  }
});

t.test(
  'readers are served unless the coordinator, a policy or a mask keeps a restore from them',
  async (t) => {
    const { hsm } = await rig(t, []);
    const { coordinator } = hsm;
    t.ok(coordinator.servesReaders);
    const rows: readonly (readonly [name: string, off: string, on: string])[] = [
      ['hsm_control', 'shutdown', 'enabled'],
      ['hsm_control', 'disabled', 'enabled'],
      ['hsm.policy', '+NBR', '-NBR'],
      ['hsm.other_request_mask', 'ARCHIVE', 'RESTORE'],
    ];
    for (const [name, off, on] of rows) {
      await coordinator.control.set(name, off, false);
      t.notOk(coordinator.servesReaders, `${name}=${off}`);
      await coordinator.control.set(name, on, false);
      t.ok(coordinator.servesReaders, `${name}=${on}`);
    }
  },
);
