import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Fid } from '../../src/store/inodes.js';
import { datasyncIs } from '../helpers/datasync.js';
import { Journal, line, replay, type JournalEntry } from '../../src/store/journal.js';

const request = (n: number): Omit<JournalEntry, 'id'> => ({
  action: 11,
  fid: `[0x${n.toString(16)}:0x1:0x0]` as Fid,
  archiveId: 0,
  uid: 0,
  at: 1000 + n,
});

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lustrite-journal-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

const opened = (path: string): Promise<Journal> =>
  Journal.open(path, (error) => {
    throw error;
  });

const fids = (entries: readonly JournalEntry[]): readonly string[] => entries.map(({ fid }) => fid);

await t.test('what is not done is there again after a restart, oldest first', async (t) => {
  const path = await folder(t);
  {
    await using journal = await opened(path);
    const [first] = await journal.add([request(1), request(2)]);
    await journal.add([request(3)]);
    if (first !== undefined) await journal.done(first.id, { durable: false });
    await journal.done(999, { durable: true });
    t.same(fids(journal.entries()), ['[0x2:0x1:0x0]', '[0x3:0x1:0x0]']);
  }
  await using again = await opened(path);
  t.same(fids(again.entries()), ['[0x2:0x1:0x0]', '[0x3:0x1:0x0]']);
  t.equal(again.damaged, 0);
  const [added] = await again.add([request(4)]);
  t.equal(added?.id, 4, 'ids count on');
});

await t.test('a tail torn at any byte loses at most its own line', async (t) => {
  const path = await folder(t);
  const whole = line({ add: { ...request(1), id: 1 } }) + line({ add: { ...request(2), id: 2 } });
  const second = whole.indexOf('\n') + 1;
  for (let length = second; length < whole.length; length++) {
    const { live } = replay(Buffer.from(whole.slice(0, length)));
    // Without its newline the last line is whole all the same.
    t.same([...live.keys()], length === whole.length - 1 ? [1, 2] : [1], `${length} bytes`);
  }
  await writeFile(join(path, 'journal'), whole.slice(0, -5));
  {
    await using journal = await opened(path);
    t.equal(journal.damaged, 1);
    await journal.add([request(3)]);
  }
  await using again = await opened(path);
  t.same(
    fids(again.entries()),
    ['[0x1:0x1:0x0]', '[0x3:0x1:0x0]'],
    'what is added behind a torn tail counts',
  );
  t.equal(again.damaged, 0);
});

await t.test('a damaged line in the middle leaves the others alone', async (t) => {
  const path = await folder(t);
  const lines = [1, 2, 3].map((n) => line({ add: { ...request(n), id: n } }));
  await appendFile(
    join(path, 'journal'),
    `${lines[0] ?? ''}\0\0\0\0${lines[1]?.slice(4) ?? ''}${lines[2] ?? ''}`,
  );
  await using journal = await opened(path);
  t.same(fids(journal.entries()), ['[0x1:0x1:0x0]', '[0x3:0x1:0x0]']);
  t.equal(journal.damaged, 1);
});

await t.test('an entry is done even when the line that adds it comes later', (t) => {
  const text = line({ done: 1 }) + line({ add: { ...request(1), id: 1 } });
  const { live, lastId } = replay(Buffer.from(text));
  t.equal(live.size, 0);
  t.equal(lastId, 1);
  t.end();
});

await t.test('many at a time share their writes, and the file does not grow with what is done', async (t) => {
  const path = await folder(t);
  await using journal = await opened(path);
  const keep = await journal.add([request(0)]);
  for (let round = 0; round < 10; round++) {
    const added = await Promise.all(
      Array.from({ length: 1000 }, async (_, n) => (await journal.add([request(n + 1)]))[0]),
    );
    await Promise.all(added.map((entry) => journal.done(entry?.id ?? 0, { durable: false })));
  }
  t.same(journal.entries(), keep);
  const text = await readFile(join(path, 'journal'));
  t.ok(text.length < 1_500_000, `${text.length} bytes`);
  t.same([...replay(text).live.values()], keep);
});

await t.test(
  'a request is answered before its sync is through; the end of one, if asked for, is not',
  async (t) => {
    const path = await folder(t);
    await using journal = await opened(path);
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await datasyncIs(t, () => held);
    const [added] = await journal.add([request(1)]);
    let ended = false;
    const end = journal.done(added?.id ?? 0, { durable: true }).then(() => {
      ended = true;
    });
    await journal.add([request(2)]);
    t.equal(ended, false);
    release();
    await end;
  },
);

await t.test(
  'a sync that fails is told, and the next write begins with a new file of all that is open',
  async (t) => {
    const path = await folder(t);
    const told: unknown[] = [];
    await using journal = await Journal.open(path, (error) => told.push(error));
    const broken = new Error('EIO');
    const restore = await datasyncIs(t, () => Promise.reject(broken));
    const [added] = await journal.add([request(1)]);
    await t.rejects(journal.done(added?.id ?? 0, { durable: true }), broken);
    t.ok(told.includes(broken));
    restore();
    const before = (await stat(join(path, 'journal'))).ino;
    await journal.add([request(2)]);
    t.not((await stat(join(path, 'journal'))).ino, before, 'another file');
    t.same(fids([...replay(await readFile(join(path, 'journal'))).live.values()]), ['[0x2:0x1:0x0]']);
  },
);
