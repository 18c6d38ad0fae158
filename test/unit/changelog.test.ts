import {
  appendFile,
  mkdtemp,
  open,
  readdir,
  rm,
  truncate,
  writeFile,
  type FileHandle,
} from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { readdirSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BlobError, FsError } from '../../src/base/errors.js';
import {
  endWord,
  eventOfChange,
  hsmWord,
  noFid,
  recordText,
  type ChangelogRecord,
} from '../../src/hsm/changelog-record.js';
import { Changelog, type ChangelogRead } from '../../src/hsm/changelog.js';
import { HS_DIRTY, HS_EXISTS, HUA_ARCHIVE, HUA_REMOVE, HUA_RESTORE } from '../../src/hsm/flags.js';
import { causeErrno } from '../../src/hsm/transfer-errno.js';
import type { Change, Fid } from '../../src/store/inodes.js';
import { NumberedLog } from '../../src/store/numbered-log.js';
import { MemoryHsm, quietLog } from '../helpers/memory-hsm.js';

const { ECANCELED, EBUSY, EIO, ENOENT, ENODATA, ENOSPC, ETIMEDOUT } = constants.errno;
const fid = (n: number): Fid => `[0x200000400:0x${n.toString(16)}:0x0]` as Fid;
const bytes = (text: string): Buffer => Buffer.from(text);

/** From now to the end of the test this method of every file fails, where `fails` says so; resolves to undo it. */
async function failing(
  t: Test,
  method: 'appendFile' | 'writeFile' | 'datasync',
  code: 'ENOSPC' | 'EIO',
  fails: () => boolean,
): Promise<void> {
  const file = await open('/dev/null');
  const files = Object.getPrototypeOf(file) as FileHandle;
  await file.close();
  const works = Reflect.get(files, method) as (...args: unknown[]) => Promise<void>;
  const undo = (): void => void Object.assign(files, { [method]: works });
  t.teardown(undo);
  Object.assign(files, {
    [method](this: FileHandle, ...args: unknown[]): Promise<void> {
      return fails() ? Promise.reject(new FsError(code, method)) : works.apply(this, args);
    },
  });
}

/** Changes of a store, by hand. */
class Changes {
  on = false;
  lost = 0;
  readonly waiting: Change[] = [];
  setTellChanges(on: boolean): void {
    this.on = on;
  }
  takeChanges(): { readonly changes: readonly Change[]; readonly lost: number } {
    const { lost } = this;
    this.lost = 0;
    return { changes: this.waiting.splice(0), lost };
  }
  add(n: number, change: Partial<Change> = {}): void {
    if (this.on) this.waiting.push({ kind: 'state', atNs: 0n, fid: fid(n), flags: HS_EXISTS, ...change });
  }
}

interface Rig {
  readonly folder: string;
  readonly changes: Changes;
  readonly open: () => Promise<Changelog>;
}

async function rig(t: Test, most?: number): Promise<Rig> {
  const folder = await mkdtemp(join(tmpdir(), 'lustrite-changelog-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const changes = new Changes();
  return {
    folder,
    changes,
    async open() {
      const native = changes;
      const changelog = new Changelog({
        folder: join(folder, 'changelog'),
        native,
        log: quietLog,
        clock: { now: () => 0 },
        ...(most !== undefined && { most }),
      });
      await changelog.start();
      return changelog;
    },
  };
}

const all = (changelog: Changelog): Promise<ChangelogRead> => changelog.read(0, 1e9, 1e6);
const indices = ({ records }: ChangelogRead): readonly number[] => records.map(({ index }) => index);

t.test('a record is a line of lfs changelog', (t) => {
  const time = '1380635387469433938';
  const state: ChangelogRecord = { index: 16, type: 'HSM', flags: 0x280, time, target: fid(1) };
  t.equal(recordText(state), '16 16HSM   13:49:47.469433938 2013.10.01 0x280 t=[0x200000400:0x1:0x0]');
  const from = { atNs: BigInt(time), fid: fid(2), parent: fid(1), last: true, exists: true };
  const unlink = eventOfChange({ kind: 'unlink', ...from, name: bytes('a b') });
  t.equal(
    recordText({ index: 7, ...unlink }),
    `7 06UNLNK 13:49:47.469433938 2013.10.01 0x3 t=${fid(2)} p=${fid(1)} "a b"`,
  );
  const rename = eventOfChange({
    kind: 'rename',
    ...from,
    name: bytes('new'),
    moved: fid(3),
    movedParent: fid(4),
    movedName: bytes('old'),
  });
  t.equal(
    recordText({ index: 8, ...rename }),
    `8 08RENME 13:49:47.469433938 2013.10.01 0x3 t=${fid(2)} p=${fid(1)} new s=${fid(3)} sp=${fid(4)} old`,
  );
  t.equal(
    recordText({
      index: 1,
      type: 'MARK',
      flags: 0,
      time: '1',
      target: noFid,
      parent: noFid,
      name: 'was killed',
    }),
    '1 00MARK  00:00:00.000000001 1970.01.01 0x0 t=[0:0x0:0x0] p=[0:0x0:0x0] was killed',
  );
  t.end();
});

t.test('a name makes no line of its own, whatever is in it', (t) => {
  for (const [name, shown] of [
    ['x\n17 16HSM', String.raw`"x\n17 16HSM"`],
    ['"', String.raw`"\""`],
  ] as const) {
    const event = eventOfChange({ kind: 'unlink', atNs: 0n, fid: fid(1), name: bytes(name) });
    t.ok(recordText({ index: 1, ...event }).endsWith(` p=${noFid} ${shown}`), shown);
  }
  const event = eventOfChange({ kind: 'unlink', atNs: 0n, fid: fid(1), name: Buffer.from([0x66, 0xff]) });
  t.equal(event.name, String.raw`"f\xff"`);
  t.end();
});

t.test('the flags word has errno, event and dirty', (t) => {
  const words: readonly (readonly [action: number, errno: number, dirty: boolean, word: number])[] = [
    [HUA_ARCHIVE, 0, false, 0x0],
    [HUA_ARCHIVE, ENOENT, false, 0x2],
    [HUA_ARCHIVE, EBUSY, false, 0x10],
    [HUA_ARCHIVE, EBUSY, true, 0x410],
    [HUA_ARCHIVE, ECANCELED, false, 0x7d],
    [HUA_RESTORE, 0, false, 0x80],
    [HUA_RESTORE, ENOENT, false, 0x82],
    [HUA_RESTORE, ECANCELED, false, 0xfd],
    [HUA_REMOVE, 0, false, 0x200],
    [HUA_REMOVE, ENOENT, false, 0x202],
    [HUA_REMOVE, 132, false, 0x27f],
  ];
  for (const [action, errno, dirty, word] of words)
    t.equal(endWord(action, errno, dirty), word, String(word));
  t.equal(hsmWord(3, 0, false), 0x180, 'release');
  t.equal(eventOfChange({ kind: 'release', atNs: 0n, fid: fid(1) }).flags, 0x180);
  t.equal(eventOfChange({ kind: 'restore', atNs: 0n, fid: fid(1) }).flags, 0x80);
  t.equal(eventOfChange({ kind: 'state', atNs: 0n, fid: fid(1), flags: HS_EXISTS }).flags, 0x280);
  const dirty = eventOfChange({ kind: 'state', atNs: 0n, fid: fid(1), flags: HS_EXISTS | HS_DIRTY });
  t.equal(dirty.flags, 0x680);
  for (const [last, exists, flags] of [
    [false, false, 0],
    [true, false, 1],
    [true, true, 3],
  ] as const)
    t.equal(eventOfChange({ kind: 'unlink', atNs: 0n, name: bytes('f'), last, exists }).flags, flags);
  t.end();
});

t.test('the errno of a failure is that of its cause', (t) => {
  const missing = new BlobError('missing', 'gone', { cause: new FsError('EIO', 'http') });
  t.equal(causeErrno(new FsError(ENODATA, 'restore failed', { cause: missing })), ENOENT);
  t.equal(causeErrno(new FsError(EIO, 'upload failed', { cause: new FsError('ENOSPC', 'full') })), ENOSPC);
  t.equal(causeErrno(new BlobError('unreachable', 'no answer')), ETIMEDOUT);
  t.equal(causeErrno(new FsError(EBUSY, 'written')), EBUSY);
  t.equal(causeErrno('text'), EIO);
  t.end();
});

await t.test('nothing is recorded, and no folder made, while no reader is registered', async (t) => {
  const { folder, changes, open } = await rig(t);
  await using changelog = await open();
  changes.add(1);
  changelog.note({ type: 'HSM', flags: 0, target: fid(1) });
  t.same(await all(changelog), { records: [], missing: 0 });
  t.same(await changelog.readers(), { last: 0, readers: [] });
  t.same(await readdir(folder), []);
  t.notOk(changes.on);
});

await t.test('a reader sees what happens after it was registered, in order', async (t) => {
  const { changes, open } = await rig(t);
  await using changelog = await open();
  t.same(await changelog.register(), { id: 'cl1', cleared: 0, missing: 0 });
  changes.add(1);
  changelog.note({ type: 'HSM', flags: 0, target: fid(2) });
  changes.add(3);
  const { records } = await all(changelog);
  t.same(
    records.map(({ index, target }) => [index, target]),
    [
      [1, fid(1)],
      [2, fid(2)],
      [3, fid(3)],
    ],
  );
  t.same(await changelog.register(), { id: 'cl2', cleared: 3, missing: 0 });
  t.same(indices(await changelog.read(2, 2, 10)), [2]);
  t.same(await changelog.read(1, 9, 2), { records: records.slice(0, 2), missing: 0, next: 3 });
});

await t.test('a record goes when every reader has cleared it', async (t) => {
  const { folder, changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  await changelog.register();
  for (let n = 1; n <= 4; n++) changes.add(n);
  await changelog.clear('cl1', 3);
  t.same(indices(await all(changelog)), [1, 2, 3, 4], 'cl2 has cleared nothing');
  await changelog.clear('cl2', 2);
  t.same(indices(await all(changelog)), [3, 4]);
  t.same(await changelog.clear('cl2', 1), { id: 'cl2', cleared: 2, missing: 0 }, 'again is nothing');
  await t.rejects(changelog.clear('cl1', 5), { code: 'InvalidParameter' });
  await t.rejects(changelog.clear('cl3', 1), { code: 'NotFound' });
  await changelog.clear('cl1', 0);
  await changelog.clear('cl2', 0);
  t.same(await all(changelog), { records: [], missing: 0 });
  t.same(await readdir(join(folder, 'changelog')), ['readers.json']);
});

await t.test('without its last reader a changelog is empty, and its numbers go on', async (t) => {
  const { changes, open } = await rig(t);
  const changelog = await open();
  await changelog.register();
  changes.add(1);
  changes.add(2);
  await changelog.deregister('cl1');
  t.notOk(changes.on);
  await t.rejects(changelog.deregister('cl1'), { code: 'NotFound' });
  await changelog[Symbol.asyncDispose]();
  await using again = await open();
  t.notOk(changes.on);
  t.same(await again.register(), { id: 'cl2', cleared: 2, missing: 0 });
  changes.add(3);
  t.same(indices(await all(again)), [3]);
});

await t.test('a restart keeps readers, records and numbers', async (t) => {
  const { changes, open } = await rig(t);
  {
    await using changelog = await open();
    await changelog.register();
    changes.add(1);
    changes.add(2);
    await changelog.clear('cl1', 1);
  }
  t.notOk(changes.on, 'nobody takes them any more');
  await using again = await open();
  t.ok(changes.on);
  changes.add(3);
  t.same(indices(await all(again)), [2, 3]);
  await again.clear('cl1', 0);
  t.same(await again.readers(), { last: 3, readers: [{ id: 'cl1', cleared: 3, missing: 0 }] });
});

await t.test(
  'after a kill what was told is there, no number comes again, and a mark says what may be missing',
  async (t) => {
    const { folder, changes, open } = await rig(t);
    const killed = await open();
    await killed.register();
    changes.add(1);
    changes.add(2);
    t.same(indices(await all(killed)), [1, 2]);
    const again = await open();
    changes.add(3);
    const { records } = await all(again);
    t.same(
      records.map(({ index, type, name }) => [index, type, name]),
      [
        [1, 'HSM', undefined],
        [2, 'HSM', undefined],
        [3, 'MARK', 'killed: records may be missing'],
        [4, 'HSM', undefined],
      ],
    );
    await again[Symbol.asyncDispose]();
    // A torn tail, of which nobody was told.
    const last = (await readdir(join(folder, 'changelog'))).filter((name) => /^\d/.test(name)).at(-1) ?? '';
    await truncate(join(folder, 'changelog', last), 10);
    await using torn = await open();
    changes.add(5);
    t.same(indices(await all(torn)), [1, 2, 5]);
  },
);

await t.test('a file of the log that has only a torn line keeps nobody from going on', async (t) => {
  const { folder, changes, open } = await rig(t);
  {
    await using changelog = await open();
    await changelog.register();
  }
  await writeFile(join(folder, 'changelog', '0000000000000001'), 'torn');
  await appendFile(join(folder, 'changelog', 'notes'), 'no file of the log');
  await using changelog = await open();
  changes.add(1);
  t.same(indices(await all(changelog)), [2]);
});

await t.test('of too many records the oldest go, and the idle reader is told', async (t) => {
  const { changes, open } = await rig(t, 64);
  await using changelog = await open();
  await changelog.register();
  await changelog.register();
  for (let n = 1; n <= 40; n++) changes.add(n);
  await changelog.clear('cl1', 40);
  for (let n = 41; n <= 100; n++) {
    changes.add(n);
    await changelog.readers();
  }
  const { records, missing } = await all(changelog);
  t.ok(records.length <= 64 && records.length > 50, String(records.length));
  t.equal(records.at(-1)?.index, 100);
  t.equal(missing, 100 - records.length);
  const { readers } = await changelog.readers();
  t.same(
    readers.map((reader) => reader.missing),
    [0, missing],
  );
  t.same(await changelog.clear('cl2', 0), { id: 'cl2', cleared: 100, missing });
  t.same((await changelog.readers()).readers.at(1), { id: 'cl2', cleared: 100, missing: 0 }, 'once');
});

await t.test('what the store has lost is marked where it is missing', async (t) => {
  const { changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  changes.add(1);
  changes.lost = 3;
  changelog.changed();
  const { records } = await all(changelog);
  t.same(
    records.map(({ type, name }) => [type, name]),
    [
      ['HSM', undefined],
      ['MARK', '3 records were lost'],
    ],
  );
});

await t.test('what cannot be written is marked when something can be again', async (t) => {
  const { folder, changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  // The name of the next file is taken.
  await writeFile(join(folder, 'changelog', '0000000000000001'), '');
  changes.add(1);
  await changelog.readers();
  changes.add(2);
  const { records } = await all(changelog);
  t.same(
    records.map(({ index, type }) => [index, type]),
    [
      [2, 'MARK'],
      [3, 'HSM'],
    ],
  );
});

await t.test(
  'a full disk gets no file a try, tries are not made in each turn, and nobody is told a number that comes again',
  async (t) => {
    const { folder, changes, open } = await rig(t);
    await using changelog = await open();
    await changelog.register();
    let [full, tries] = [true, 0];
    await failing(t, 'appendFile', 'ENOSPC', () => {
      if (full) tries++;
      return full;
    });
    for (let n = 1; n <= 4; n++) {
      changes.add(n);
      await all(changelog);
    }
    t.equal(tries, 4, 'somebody asks');
    for (let n = 5; n <= 9; n++) {
      changes.add(n);
      changelog.changed();
      await turn();
    }
    t.equal(tries, 4);
    t.same(await readdir(join(folder, 'changelog')), ['readers.json']);
    const { last } = await changelog.readers();
    const killed = await open();
    t.ok((await killed.readers()).last >= last, 'the next daemon');
    await killed[Symbol.asyncDispose]();
    full = false;
    const { records } = await all(changelog);
    t.equal(records[0]?.name, 'records could not be written');
    t.ok((records[0]?.index ?? 0) > last);
  },
);

await t.test('on a full disk records can be cleared, and readers go', async (t) => {
  const { folder, changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  changes.add(1);
  await all(changelog);
  const files = (): readonly string[] => readdirSync(join(folder, 'changelog'));
  // As long as the records are there.
  await failing(t, 'writeFile', 'ENOSPC', () => files().some((name) => /^\d/.test(name)));
  t.same(await changelog.clear('cl1', 0), { id: 'cl1', cleared: 1, missing: 0 });
  changes.add(2);
  await all(changelog);
  await changelog.deregister('cl1');
  t.same(await changelog.readers(), { last: 2, readers: [] });
});

await t.test('where that cannot be written, no reader goes, and none clears', async (t) => {
  const { changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  changes.add(1);
  let full = true;
  await failing(t, 'writeFile', 'EIO', () => full);
  await t.rejects(changelog.deregister('cl1'), { code: 'EIO' });
  await t.rejects(changelog.clear('cl1', 0), { code: 'EIO' });
  t.ok(changes.on);
  changes.add(2);
  t.same(indices(await all(changelog)), [1, 2]);
  full = false;
});

await t.test('what comes while the disk is slow is taken when it is done', async (t) => {
  const { changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  changes.add(1);
  let writing = true as boolean;
  await failing(t, 'appendFile', 'EIO', () => {
    // The store does not tell of it: something waits already.
    if (writing) changes.add(2);
    writing = false;
    return false;
  });
  changelog.changed();
  while (writing || changes.waiting.length > 0) await turn();
  t.same(indices(await all(changelog)), [1, 2]);
});

await t.test('records that the disk may not have are marked, and told with the mark', async (t) => {
  const { changes, open } = await rig(t);
  await using changelog = await open();
  await changelog.register();
  changes.add(1);
  let broken = true;
  await failing(t, 'datasync', 'EIO', () => broken);
  await t.rejects(all(changelog), { code: 'EIO' });
  broken = false;
  const { records } = await all(changelog);
  t.same(
    records.map(({ index, name }) => [index, name]),
    [
      [1, undefined],
      [2, 'records may not be on the disk'],
    ],
  );
});

await t.test('a file whose end could not be synced fails the next sync, once', async (t) => {
  const { folder } = await rig(t);
  await using log = await NumberedLog.open<{ index: number }>(join(folder, 'log'), 1);
  await log.append([{ index: 1 }]);
  let broken = true;
  await failing(t, 'datasync', 'EIO', () => broken);
  await log.append([{ index: 2 }]);
  broken = false;
  await t.rejects(log.sync(), { code: 'EIO' });
  await log.sync();
  t.same(await log.read(1, 2, 2), [{ index: 1 }, { index: 2 }]);
});

await t.test('a changelog that cannot be written at the end says so to the next one', async (t) => {
  const { changes, open } = await rig(t);
  const changelog = await open();
  await changelog.register();
  changes.add(1);
  let full = true;
  await failing(t, 'appendFile', 'ENOSPC', () => full);
  await changelog[Symbol.asyncDispose]();
  full = false;
  await using again = await open();
  t.match((await all(again)).records, [{ type: 'MARK' }]);
});

await t.test('the end of a request is recorded once, with the errno of its cause', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { changelog } = hsm.coordinator;
  await changelog.register();
  const made = hsm.store.write('f', 'content');
  await hsm.coordinator.archive(made, { path: 'f' });
  hsm.pool.gate = () => {
    throw new BlobError('forbidden', 'no');
  };
  hsm.store.write('f', 'other');
  await hsm.coordinator.archive(made, { path: 'f' });
  const { records } = await all(changelog);
  t.same(
    records.map(({ flags, target }) => [flags, target]),
    [
      [0, made],
      [0x400 | constants.errno.EACCES, made],
    ],
  );
});
