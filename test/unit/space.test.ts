/** The space manager: how much is too much, which files go, and what a restore is promised. */
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { BlobError, FsError } from '../../src/base/errors.js';
import type { BlobProperties } from '../../src/blob/port.js';
import { HS_ARCHIVED, HS_DIRTY, HS_EXISTS, HS_NORELEASE, HS_RELEASED } from '../../src/hsm/flags.js';
import { CleanFiles } from '../../src/hsm/clean-files.js';
import { RestoredLately } from '../../src/hsm/restored-lately.js';
import { SpaceManager, type RoomOptions } from '../../src/hsm/space-manager.js';
import {
  candidateOf,
  excess,
  LeastRecentlyUsed,
  shortage,
  usageOf,
  usedPercent,
} from '../../src/hsm/space-rules.js';
import type { Fid, NativeStore, WalkEntry } from '../../src/store/inodes.js';
import { until } from '../helpers/poll.js';
import { gate, quietLog, TestClock } from '../helpers/memory-hsm.js';

const { EBUSY, ENOSPC, ESTALE } = constants.errno;
const marks = { high: 95, low: 90 };
const clean = HS_EXISTS | HS_ARCHIVED;

t.test('usage is what df says: what is kept for root is neither used nor free', (t) => {
  const usage = usageOf({ bsize: 10, blocks: 100n, bfree: 15n, bavail: 10n });
  t.same(usage, { used: 850, free: 100 });
  t.equal(Math.ceil(usedPercent(usage)), 90);
  t.equal(usedPercent({ used: 0, free: 0 }), 0);
  t.end();
});

t.test('watermarks: nothing below the high one, down to the low one above it', (t) => {
  const rows: readonly (readonly [used: number, high: number, low: number, excess: number])[] = [
    [0, 95, 90, 0],
    [94, 95, 90, 0],
    [95, 95, 90, 5],
    [100, 95, 90, 10],
    [100, 0, 0, 0],
    [50, 50, 50, 0],
    [51, 50, 50, 1],
    [10, 5, 0, 10],
  ];
  for (const [used, high, low, expected] of rows)
    t.equal(excess({ used, free: 100 - used }, { high, low }), expected, `${used} of ${high}/${low}`);
  t.end();
});

t.test('a restore that does not fit needs what it lacks, and down to the low mark', (t) => {
  const rows: readonly (readonly [used: number, bytes: number, shortage: number])[] = [
    [90, 10, 0],
    [90, 11, 1],
    [99, 1, 0],
    [99, 2, 9],
    [99, 50, 49],
    [0, 200, 100],
  ];
  for (const [used, bytes, expected] of rows)
    t.equal(shortage({ used, free: 100 - used }, bytes, marks), expected, `${bytes} at ${used}`);
  t.end();
});

const ms = (value: number): bigint => BigInt(value) * 1_000_000n;

function entry(name: string, change: Partial<WalkEntry> = {}): WalkEntry {
  return {
    path: name,
    fid: name as Fid,
    type: 'file',
    flags: clean,
    archiveId: 1,
    modified: false,
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: 10,
    mtimeNs: 0n,
    atimeNs: 0n,
    nlink: 1,
    allocated: 10,
    writers: 0,
    readers: 0,
    restoring: false,
    copy: { blob: name, etag: '1', size: 10, lastModifiedMs: 0 },
    ...change,
  };
}

t.test('only clean files that nobody uses and that have data are candidates', (t) => {
  const rows: readonly (readonly [string, Partial<WalkEntry>, boolean])[] = [
    ['clean', {}, true],
    ['new', { flags: 0, modified: true }, false],
    ['dirty', { flags: clean | HS_DIRTY, modified: true }, false],
    ['modified', { modified: true }, false],
    ['released', { flags: clean | HS_RELEASED }, false],
    ['pinned', { flags: clean | HS_NORELEASE }, false],
    ['read', { readers: 1 }, false],
    ['written', { writers: 1 }, false],
    ['restored just now', { restoring: true }, false],
    ['empty', { allocated: 0 }, false],
    ['a directory', { type: 'directory' }, false],
    ['of no bytes', { size: 0 }, false],
    ['read before', { atimeNs: ms(99) }, true],
    ['read since', { atimeNs: ms(100) }, false],
    ['written since', { mtimeNs: ms(100) }, false],
  ];
  for (const [name, change, wanted] of rows)
    t.equal(candidateOf(entry(name, change), 100) !== undefined, wanted, name);
  t.equal(candidateOf(entry('restored before'), 100, 99)?.usedNs, ms(99));
  t.equal(candidateOf(entry('restored since'), 100, 100), undefined);
  t.end();
});

t.test('the least recently used go, as few as are enough, whatever their order and number', (t) => {
  const rows: readonly (readonly [title: string, wanted: number, limit: number, used: readonly number[], kept: readonly number[]])[] = [
    ['enough for one', 10, 100, [3, 1, 2], [1]],
    ['enough for two', 11, 100, [3, 1, 2], [1, 2]],
    ['all is not enough', 1000, 100, [3, 1, 2], [1, 2, 3]],
    ['sorted already', 20, 100, [1, 2, 3, 4], [1, 2]],
    ['the other way round', 20, 100, [4, 3, 2, 1], [1, 2]],
    ['a limit', 1000, 2, [4, 3, 2, 1], [1, 2]],
    ['none', 10, 100, [], []],
  ]; // prettier-ignore
  for (const [title, wanted, limit, used, kept] of rows) {
    const heap = new LeastRecentlyUsed(wanted, limit);
    for (const at of used) heap.add({ fid: String(at) as Fid, bytes: 10, usedNs: BigInt(at) });
    t.same(heap.files().map(({ usedNs }) => Number(usedNs)), kept, title); // prettier-ignore
  }
  const many = new LeastRecentlyUsed(50, 100);
  for (let at = 0; at < 10_000; at++)
    many.add({ fid: '' as Fid, bytes: 10, usedNs: BigInt((at * 7919) % 10_000) });
  t.same(many.files().map(({ usedNs }) => Number(usedNs)), [0, 1, 2, 3, 4]); // prettier-ignore
  t.end();
});

/** A disk of 100 bytes with files that may be released. */
class Disk {
  readonly clock = new TestClock();
  readonly files: WalkEntry[] = [];
  other = 0;
  walks = 0;
  /** Requests to the storage. */
  asked = 0;
  readonly released: string[] = [];
  busy: readonly string[] = [];
  /** What the container has instead of version 1; null: nothing. */
  readonly blobs = new Map<string, string | null>();
  archived: readonly string[] = [];
  /** What every request to the storage fails with. */
  outage: BlobError | undefined;
  /** What releases wait for. */
  held: Promise<void> = Promise.resolve();
  barriers = 0;
  mayRelease = true;
  onRelease: () => void = () => undefined;
  readonly manager: SpaceManager;

  constructor(t: Test, watermarks = marks) {
    const native = {
      statfs: () => ({ bsize: 1, blocks: 100n, bfree: this.#free, bavail: this.#free, files: 0n, ffree: 0n }),
      walk: () => {
        this.walks++;
        const batches = [[...this.files]];
        return { next: () => Promise.resolve(batches.pop() ?? null), close: () => undefined };
      },
      lookup: () => Promise.resolve([]),
      state: (fid: Fid) => {
        const found = this.files.find((file) => file.fid === fid);
        return found === undefined ? Promise.reject(new FsError(ESTALE, 'gone')) : Promise.resolve(found);
      },
      barrier: () => {
        this.barriers++;
        return Promise.resolve();
      },
      release: async (fid: Fid) => {
        await this.held;
        this.onRelease();
        if (this.busy.includes(fid)) throw new FsError(EBUSY, 'open');
        this.released.push(fid);
        this.remove(fid);
      },
    } satisfies Partial<NativeStore>;
    const container = {
      properties: (name: string) => {
        this.asked++;
        if (this.outage !== undefined) return Promise.reject(this.outage);
        const etag = this.blobs.get(name) ?? '1';
        return this.blobs.get(name) === null
          ? Promise.reject(new BlobError('missing', 'HTTP status 404'))
          : Promise.resolve({
              etag,
              size: 10,
              lastModifiedMs: 0,
              kind: 'file',
              metadata: {},
              ...(this.archived.includes(name) && { tier: 'Archive' }),
            } as BlobProperties);
      },
    };
    this.manager = new SpaceManager({
      native,
      container,
      log: quietLog,
      clock: this.clock,
      watermarks,
      mayRelease: () => this.mayRelease,
    });
    t.teardown(() => this.manager[Symbol.asyncDispose]());
  }

  /** Used so many minutes ago. */
  add(name: string, minutes: number, change: Partial<WalkEntry> = {}): void {
    const atimeNs = BigInt(this.clock.ms - minutes * 60_000) * 1_000_000n;
    this.files.push(entry(name, { atimeNs, ...change }));
  }

  remove(name: string): void {
    const at = this.files.findIndex(({ path }) => path === name);
    if (at >= 0) this.files.splice(at, 1);
  }

  /** Takes the room; `ended` is for the test to say. No time of the file moves. */
  restore(name: string, bytes: number, options: RoomOptions = {}): Promise<void> {
    const allocate = (): Promise<void> => {
      if (Number(this.#free) < bytes) return Promise.reject(new FsError(ENOSPC, 'no space left'));
      this.add(name, 600, { allocated: bytes });
      return Promise.resolve();
    };
    return this.manager.allocate(name as Fid, bytes, allocate, options);
  }

  async restored(name: string, bytes: number, options: RoomOptions = {}): Promise<void> {
    await this.restore(name, bytes, options);
    this.clock.ms += 1;
    this.manager.ended(name as Fid, true);
  }

  get #free(): bigint {
    return BigInt(100 - this.other - this.files.reduce((sum, { allocated }) => sum + allocated, 0));
  }
}

t.test('above the high watermark the oldest go until the low one is reached', async (t) => {
  const disk = new Disk(t);
  for (const [at, name] of ['d', 'a', 'c', 'b'].entries()) disk.add(name, at + 5);
  disk.other = 54;
  await disk.manager.check();
  t.same(disk.released, [], 'not below it');
  disk.other = 57;
  await disk.manager.check();
  t.same(disk.released, ['b']);
  t.match(disk.manager.view, { releasedFiles: 1, releasedBytes: 10, usedPercent: 87, full: false });
});

t.test('what was used within the last minute, or is busy, stays', async (t) => {
  const disk = new Disk(t);
  disk.add('fresh', 0.5);
  disk.add('busy', 9);
  disk.busy = ['busy'];
  disk.other = 79;
  await disk.manager.check();
  t.same(disk.released, []);
  t.notOk(disk.manager.view.full, 'that is no shortage');
  disk.remove('busy');
  disk.add('dirty', 9, { flags: clean | HS_DIRTY, modified: true });
  disk.remove('fresh');
  disk.other = 89;
  disk.clock.ms += 20_000;
  await disk.manager.check();
  t.ok(disk.manager.view.full);
});

t.test('a walk that found nothing is repeated at growing intervals', async (t) => {
  const disk = new Disk(t);
  disk.other = 100;
  for (let at = 0; at < 3600; at++) {
    await disk.manager.check();
    disk.clock.ms += 1000;
  }
  t.ok(disk.walks >= 60 && disk.walks < 70, `${disk.walks} in an hour`);
});

t.test('a restore that does not fit makes room, also of what was used just now', async (t) => {
  const disk = new Disk(t);
  for (const name of ['a', 'b', 'c']) disk.add(name, name === 'a' ? 0.2 : 0.1, { allocated: 30 });
  disk.other = 5;
  await disk.restore('x', 30);
  t.same(disk.released, ['a']);
});

t.test('restores that come together do not count on the same room', async (t) => {
  const disk = new Disk(t);
  for (const name of ['a', 'b', 'c', 'd']) disk.add(name, 5, { allocated: 20 });
  const held = gate();
  const first = disk.manager.allocate('first' as Fid, 20, () => held.opened);
  await disk.restore('x', 20);
  t.equal(disk.released.length, 1, 'the second makes its own');
  held.open();
  await first;
});

t.test('where nothing can be released a restore fails with ENOSPC, and nothing is lost', async (t) => {
  const disk = new Disk(t);
  disk.add('dirty', 60, { flags: clean | HS_DIRTY, modified: true, allocated: 80 });
  await t.rejects(disk.restore('x', 30), { code: 'ENOSPC', message: /nothing more can be released/ });
  await t.rejects(disk.restore('y', 30), { code: 'ENOSPC' });
  t.equal(disk.walks, 1, 'nor is it looked for again at once');
  t.same(disk.files.map(({ path }) => path), ['dirty']); // prettier-ignore
  await disk.restore('small', 20);
});

t.test('a restore waits for others while their files are all there is to release', async (t) => {
  const disk = new Disk(t);
  await disk.restore('a', 80);
  const [a] = disk.files;
  disk.files.splice(0, 1, entry('a', { ...a, readers: 1 }));
  // Time passes, but not all of it before anybody else gets a turn.
  const { sleep } = disk.clock;
  disk.clock.sleep = async (ms, signal) => {
    await new Promise((resolve) => setImmediate(resolve));
    await sleep(ms, signal);
  };
  const waiting = disk.restore('b', 80);
  await until(() => disk.clock.sleeps.length > 3, { what: 'it to wait' });
  disk.manager.ended('a' as Fid, true);
  disk.files.splice(0, 1, entry('a', { ...a, readers: 0 }));
  await waiting;
  t.same(disk.released, ['a']);
  disk.manager.ended('b' as Fid, true);
  const [b] = disk.files;
  disk.files.splice(0, 1, entry('b', { ...b, readers: 1 }));
  await t.rejects(disk.restore('c', 80), { code: 'ENOSPC' }, 'but not for ever');
});

t.test('a restore that begins again counts on what it has, and does not wait for itself', async (t) => {
  const disk = new Disk(t);
  await disk.restore('x', 60);
  const again = (bytes: number): Promise<void> =>
    disk.manager.allocate('x' as Fid, bytes, () => {
      disk.remove('x');
      disk.add('x', 0, { allocated: bytes, flags: clean | HS_RELEASED });
      return Promise.resolve();
    });
  for (const bytes of [60, 20, 90]) await again(bytes);
  t.same(disk.clock.sleeps, []);
  t.equal(disk.manager.view.reservedBytes, 0);
  disk.other = 10;
  disk.clock.ms += 1;
  await t.rejects(again(95), { code: 'ENOSPC' });
  t.ok(disk.clock.sleeps.length < 3);
});

t.test('what no file that is open or on its way would make room for is not waited for', async (t) => {
  const disk = new Disk(t);
  await disk.restored('open', 30);
  disk.files.splice(0, 1, entry('open', { ...disk.files[0], readers: 1 }));
  disk.add('dirty', 60, { flags: clean | HS_DIRTY, modified: true, allocated: 60 });
  disk.clock.ms += 1;
  await t.rejects(disk.restore('x', 50), { code: 'ENOSPC' });
  t.same(disk.clock.sleeps, []);
  await t.rejects(disk.restore('x', 40), { code: 'ENOSPC' });
  t.ok(disk.clock.sleeps.length > 10, 'for this one it would');
});

t.test('nothing is released for what would not fit all the same', async (t) => {
  const disk = new Disk(t);
  disk.add('a', 60, { allocated: 30 });
  disk.other = 60;
  await t.rejects(disk.restore('x', 50), { code: 'ENOSPC' });
  t.same(disk.released, []);
});

t.test(
  'a bulk restore stays below the middle of the watermarks and spares what it brought itself',
  async (t) => {
    const disk = new Disk(t);
    disk.add('old', 60, { allocated: 20 });
    disk.other = 32;
    const start = disk.clock.ms;
    const options = { usedBefore: () => start };
    for (const name of ['1', '2']) await disk.restored(name, 20, options);
    t.same(disk.released, []);
    await disk.restored('3', 20, options);
    t.same(disk.released, ['old']);
    await t.rejects(disk.restore('4', 20, options), { code: 'ENOSPC', message: /space\.highWatermark/ });
    t.same(disk.released, ['old'], 'not 1, 2 or 3');
    t.equal(disk.manager.view.reservedBytes, 0);
  },
);

t.test('a bulk restore that somebody joins gets whatever room there is', async (t) => {
  const disk = new Disk(t);
  const start = disk.clock.ms;
  disk.clock.ms += 1;
  await disk.restored('brought', 90, { usedBefore: () => start });
  let reader = false;
  const held = gate();
  disk.held = held.opened;
  const both = disk.restore('x', 20, { usedBefore: () => (reader ? undefined : start) });
  reader = true;
  held.open();
  await both;
  t.same(disk.released, ['brought']);
});

t.test('what was restored just now and not read yet is the last to go again', async (t) => {
  const disk = new Disk(t);
  await disk.restored('brought', 30);
  for (const name of ['a', 'b']) disk.add(name, 5, { allocated: 30 });
  disk.other = 5;
  await disk.restored('x', 30);
  await disk.restored('y', 30);
  t.same(disk.released, ['a', 'b']);
  await disk.restored('z', 30);
  t.same(disk.released, ['a', 'b', 'brought']);
  t.equal(disk.manager.restoredAt('z' as Fid), disk.clock.ms);
});

t.test('of restores so many are remembered; where one may be forgotten, nothing is released', async (t) => {
  const restored = new RestoredLately(2);
  for (const [name, at] of [['a', 1], ['b', 2], ['a', 3]] as const) restored.add(name as Fid, at); // prettier-ignore
  t.same(['a', 'b'].map((name) => restored.of(name as Fid)), [3, 2]); // prettier-ignore
  restored.add('c' as Fid, 4);
  t.same(['a', 'b', 'c'].map((name) => restored.of(name as Fid)), [3, undefined, 4]); // prettier-ignore
  t.equal(restored.forgottenMs, 2);
  const native = { walk: unexpected, lookup: unexpected, state: unexpected, release: unexpected };
  const container = { properties: unexpected };
  const files = new CleanFiles({ native, container, log: quietLog, clock: new TestClock(), restored });
  const { signal } = new AbortController();
  t.same(await files.release({ wanted: 1, usedBefore: 2, signal }), { files: 0, bytes: 0, cleanBytes: 0 });
});

function unexpected(): never {
  throw new Error('not to be called');
}

t.test('nothing is released while those who read it could not have it back', async (t) => {
  const disk = new Disk(t);
  disk.add('a', 60, { allocated: 95 });
  disk.mayRelease = false;
  await disk.manager.check();
  await t.rejects(disk.restore('x', 30), { code: 'ENOSPC' });
  t.same(disk.released, []);
  disk.mayRelease = true;
  disk.clock.ms += 60_000;
  await disk.manager.check();
  t.same(disk.released, ['a']);
});

t.test(
  'what the container no longer has in this version, or cannot give, is only here: it stays, others go',
  async (t) => {
    const disk = new Disk(t);
    for (const [at, name] of ['archived', 'deleted', 'replaced', 'busy', 'a', 'b'].entries())
      disk.add(name, 60 - at, { allocated: 15 });
    disk.archived = ['archived'];
    disk.blobs.set('deleted', null).set('replaced', '2');
    disk.busy = ['busy'];
    disk.other = 5;
    await disk.manager.check();
    t.same(disk.released, ['a']);
    await disk.restored('x', 30);
    t.same(disk.released, ['a', 'b']);
    await t.rejects(disk.restore('y', 70), { code: 'ENOSPC' });
    t.same(disk.files.map(({ path }) => path), ['archived', 'deleted', 'replaced', 'busy', 'x']); // prettier-ignore
  },
);

t.test(
  'where the storage does not answer, one look is enough; one blob that it refuses is passed over',
  async (t) => {
    const disk = new Disk(t);
    for (const [at, name] of ['odd', 'a', 'b', 'c', 'd', 'e'].entries())
      disk.add(name, 60 - at, { allocated: 16 });
    for (const kind of ['unreachable', 'forbidden'] as const) {
      [disk.walks, disk.asked] = [0, 0];
      disk.outage = new BlobError(kind, 'no answer');
      await t.rejects(disk.restore('x', 30), { code: 'ENOSPC' });
      t.equal(disk.walks, 1, kind);
      t.ok(disk.asked <= 4);
      disk.clock.ms += 60_000;
    }
    disk.outage = new BlobError('other', 'HTTP status 400');
    disk.asked = 0;
    await t.rejects(disk.restore('x', 30), { code: 'ENOSPC' });
    t.equal(disk.asked, 6, 'each once');
  },
);

t.test('whoever asks after a look that found nothing waits for the next one', async (t) => {
  const disk = new Disk(t);
  disk.add('dirty', 60, { flags: clean | HS_DIRTY, modified: true, allocated: 90 });
  await t.rejects(disk.restore('x', 30), { code: 'ENOSPC' });
  disk.clock.ms += 1;
  disk.remove('dirty');
  disk.add('archived', 60, { allocated: 90 });
  await disk.restore('y', 30);
  t.same(disk.released, ['archived']);
});

t.test('making room for one ends with his patience, so that others get their turn', async (t) => {
  const disk = new Disk(t);
  for (let at = 0; at < 95; at++) disk.add(`${at}`, 60, { allocated: 1 });
  let tries = 0;
  disk.onRelease = () => {
    disk.clock.ms += 10_000;
    if (++tries % 20 !== 0) throw new FsError(EBUSY, 'open');
  };
  await t.rejects(disk.restore('x', 60), { code: 'ENOSPC' });
  t.ok(tries < 200, `${tries} tries`);
  t.equal(disk.manager.view.reservedBytes, 0);
});

t.test('who gives up leaves no promise behind, wherever he waits', async (t) => {
  const disk = new Disk(t);
  const stop = new AbortController();
  const { signal } = stop;
  disk.add('a', 60, { allocated: 95 });
  const held = gate();
  disk.held = held.opened;
  const making = disk.restore('x', 30, { signal });
  const behind = disk.restore('y', 30, { signal });
  const other = disk.restore('z', 30);
  stop.abort(new Error('canceled'));
  await t.rejects(making, { message: 'canceled' });
  await t.rejects(behind, { message: 'canceled' });
  await t.rejects(disk.restore('late', 1, { signal }), { message: 'canceled' });
  held.open();
  await other;
  t.equal(disk.manager.view.reservedBytes, 0);
  t.same(disk.files.map(({ path }) => path), ['z']); // prettier-ignore
});

t.test('one who waits for others to end can give up, and so can all when the daemon stops', async (t) => {
  const disk = new Disk(t);
  await disk.restore('held', 90);
  const [one] = disk.files;
  disk.files.splice(0, 1, entry('held', { ...one, readers: 1 }));
  disk.clock.sleep = (_, signal) =>
    new Promise((_resolve, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
    });
  const stop = new AbortController();
  const waiting = disk.restore('x', 30, { signal: stop.signal });
  const nobodys = disk.restore('y', 30);
  nobodys.catch(() => undefined);
  await until(() => disk.walks > 0, { what: 'a look' });
  stop.abort(new Error('canceled'));
  await t.rejects(waiting, { message: 'canceled' });
  await disk.manager[Symbol.asyncDispose]();
  await t.rejects(nobodys, { name: 'AbortError' });
  t.equal(disk.manager.view.reservedBytes, 0);
});

t.test('a disk that refuses what it seems to have room for is asked again only so often', async (t) => {
  const disk = new Disk(t);
  const refused = (): Promise<never> => Promise.reject(new FsError(ENOSPC, 'quota'));
  await t.rejects(disk.manager.allocate('x' as Fid, 10, refused), { code: 'ENOSPC' });
  t.ok(disk.barriers > 1 && disk.clock.sleeps.length >= disk.barriers, 'with pauses');
  t.ok(disk.barriers < 20);
  const failed = (): Promise<never> => Promise.reject(new FsError('EIO', 'broken'));
  await t.rejects(disk.manager.allocate('x' as Fid, 10, failed), { code: 'EIO' });
  t.equal(disk.manager.view.reservedBytes, 0);
});

t.test('0 is off: a restore takes what there is', async (t) => {
  const disk = new Disk(t, { high: 0, low: 0 });
  disk.add('a', 60, { allocated: 90 });
  await disk.manager.check();
  await t.rejects(disk.restore('x', 30), { code: 'ENOSPC' });
  t.same([disk.released, disk.walks], [[], 0]);
});
