import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { ListedBlob } from '../../src/blob/port.js';
import { SourceGap, type Changes } from '../../src/jobs/auto-import/change-source.js';
import { ListingSource } from '../../src/jobs/auto-import/listing-source.js';
import { MemoryContainer } from '../helpers/memory-container.js';

const { signal } = new AbortController();

class Rig implements AsyncDisposable {
  readonly container = new MemoryContainer();
  readonly folder: string;
  readonly source: ListingSource;
  cursor: unknown;

  private constructor(folder: string, prefixes: readonly string[], hierarchical: boolean) {
    this.folder = folder;
    this.container.namespace = { hierarchical, source: 'account' };
    this.source = new ListingSource({ container: this.container, prefixes, folder, hierarchical });
  }

  static async start(
    names: readonly string[],
    prefixes: readonly string[] = [''],
    hierarchical = false,
  ): Promise<Rig> {
    const rig = new Rig(await mkdtemp(join(tmpdir(), 'lustrite-listing-')), prefixes, hierarchical);
    for (const name of names) rig.container.put(name, name);
    rig.cursor = await rig.source.begin(null);
    for (const prefix of prefixes) {
      for await (const page of rig.container.list({ prefix })) await rig.source.observe(page);
    }
    rig.cursor = await rig.source.observed(rig.cursor);
    return rig;
  }

  /** What a poll tells, `limit` batches of it; each moves the cursor. */
  async poll(
    limit = Infinity,
  ): Promise<{ readonly present: readonly string[]; readonly absent: readonly string[] }> {
    const batches: Changes[] = [];
    for await (const changes of this.source.poll(this.cursor, signal)) {
      batches.push(changes);
      this.cursor = JSON.parse(JSON.stringify(changes.cursor));
      if (batches.length >= limit) break;
    }
    return {
      present: batches.flatMap(({ present }) => present.map(({ name }) => name)),
      absent: batches.flatMap(({ absent }) => [...absent]).sort(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true });
  }
}

/** Listings lack the name until the answer is called. */
function leavingOut(container: MemoryContainer, left: string): () => void {
  const whole = container.list.bind(container);
  container.list = async function* (options) {
    for await (const page of whole(options)) yield page.filter(({ name }) => name !== left);
  };
  return () => {
    container.list = whole;
  };
}

await t.test(
  'a poll tells what was created, changed and deleted since the last, and nothing else',
  async (t) => {
    await using rig = await Rig.start(['a', 'b/c', 'b/d', 'odd\u2028name', 'z']);
    t.same(await rig.poll(), { present: [], absent: [] });
    const before = rig.cursor;
    rig.container.put('b/c', 'other');
    rig.container.put('b/new', 'x');
    rig.container.put('0', 'first');
    await rig.container.delete('a');
    await rig.container.delete('z');
    t.same(await rig.poll(), { present: ['0', 'b/c', 'b/new'], absent: ['a', 'z'] });
    t.same(await rig.poll(), { present: [], absent: [] }, 'told once');
    rig.cursor = before;
    await t.rejects(rig.poll(), SourceGap, 'the listing behind the cursor is gone');
  },
);

await t.test('a name that a listing leaves out is no deletion while the blob is there', async (t) => {
  await using rig = await Rig.start(['a', 'b', 'c']);
  const { container } = rig;
  leavingOut(container, 'b');
  t.same(await rig.poll(), { present: ['b'], absent: [] });
});

await t.test('a poll that was cut off after any batch goes on with exactly the rest', async (t) => {
  const names = Array.from({ length: 2500 }, (_, n) => `n${String(n).padStart(5, '0')}`);
  await using rig = await Rig.start(names);
  for (const [n, name] of names.entries()) {
    if (n % 5 === 0) rig.container.put(name, 'changed');
    else if (n % 5 === 1) await rig.container.delete(name);
    else if (n % 5 === 2) rig.container.put(`${name}-new`, 'new');
  }
  const present: string[] = [];
  const absent: string[] = [];
  for (let cuts = 0; cuts < 10; cuts++) {
    const told = await rig.poll(1);
    present.push(...told.present);
    absent.push(...told.absent);
  }
  t.equal(present.length, 1000);
  t.equal(new Set(present).size, 1000);
  t.equal(absent.length, 500);
  t.equal(new Set(absent).size, 500);
  t.same(await rig.poll(), { present: [], absent: [] });
  t.equal((await readdir(rig.folder)).length <= 2, true, 'old listings are removed');
});

await t.test("several prefixes are one listing, and names beside them are nobody's business", async (t) => {
  await using rig = await Rig.start(['b/1', 'a/1', 'x'], ['b/', 'a/']);
  rig.container.put('b/2', '');
  rig.container.put('a/0', '');
  rig.container.put('y', '');
  await rig.container.delete('a/1');
  await rig.container.delete('x');
  t.same(await rig.poll(), { present: ['b/2', 'a/0'], absent: ['a/1'] });
});

await t.test('what full syncs that were cut off have shown counts as known', async (t) => {
  await using rig = await Rig.start([]);
  const { container, source } = rig;
  for (const name of ['a', 'b', 'c', 'd']) container.put(name, name);
  const page = async (...names: readonly string[]): Promise<ListedBlob[]> => {
    const listed: ListedBlob[] = [];
    for await (const blobs of container.list())
      listed.push(...blobs.filter(({ name }) => names.includes(name)));
    return listed;
  };
  const first = await source.begin(null);
  await source.observe(await page('a', 'b'));
  await container.delete('a');
  const second = await source.begin(first);
  await source.observe(await page('b', 'c'));
  await container.delete('c');
  const third = await source.begin(second);
  await source.observe(await page('b', 'd'));
  rig.cursor = await source.observed(third);
  t.same(await rig.poll(), { present: [], absent: ['a', 'c'] });
  t.same(await rig.poll(), { present: [], absent: [] }, 'told once');
  t.equal((await readdir(rig.folder)).length <= 2, true, 'old listings are removed');
});

await t.test('what a poll that was cut off has told and nobody noted is told when it is gone', async (t) => {
  await using rig = await Rig.start(['a', 'z']);
  const before = rig.cursor;
  rig.container.put('m', 'm');
  rig.container.put('n', 'n');
  t.same(await rig.poll(1), { present: ['m', 'n'], absent: [] });
  // The stubs are made, and the process dies before the cursor is written down.
  rig.cursor = before;
  await rig.container.delete('m');
  t.same(await rig.poll(1), { present: ['n'], absent: ['m'] });
  rig.cursor = before;
  await rig.container.delete('n');
  t.same(await rig.poll(), { present: [], absent: ['m', 'n'] });
  t.same(await rig.poll(), { present: [], absent: [] });
});

await t.test('so is what was told behind the batch that was noted last', async (t) => {
  const names = Array.from({ length: 1500 }, (_, n) => `n${String(n).padStart(5, '0')}`);
  await using rig = await Rig.start([]);
  for (const name of names) rig.container.put(name, name);
  await rig.poll(1);
  const noted = rig.cursor;
  await rig.poll();
  rig.cursor = noted;
  await rig.container.delete('n01400');
  const told = await rig.poll();
  t.same(told.absent, ['n01400']);
  t.equal(told.present.length, 499);
});

await t.test('a name that only a look has shown is told when it is gone', async (t) => {
  await using rig = await Rig.start(['a', 'b', 'c']);
  const { container } = rig;
  const listsAll = leavingOut(container, 'b');
  t.same(await rig.poll(), { present: ['b'], absent: [] });
  listsAll();
  await container.delete('b');
  t.same(await rig.poll(), { present: [], absent: ['b'] });
});

await t.test(
  'in the order of a hierarchical account nothing is looked up, and prefixes are paths',
  async (t) => {
    const names = ['data', 'data/x', 'data/x/1', 'data/x-y', 'data2', 'data-2', 'more'];
    await using rig = await Rig.start(names, ['data', 'more'], true);
    t.same(await rig.poll(), { present: [], absent: [] });
    rig.container.calls.length = 0;
    rig.container.put('data/x/0', '');
    rig.container.put('data/x!', '');
    rig.container.put('data3', '');
    rig.container.put('data/z', '');
    await rig.container.delete('data/x-y');
    rig.container.put('data/x-z', '');
    t.same(await rig.poll(), {
      present: ['data/x/0', 'data/x!', 'data/x-z', 'data/z'],
      absent: ['data/x-y'],
    });
    t.same(
      rig.container.calls.filter((call) => call.startsWith('properties')),
      ['properties data/x-y'],
      'only what is gone was asked for',
    );
  },
);

await t.test('a listing in the order of another kind of account is not compared', async (t) => {
  await using rig = await Rig.start(['a']);
  const { container, folder } = rig;
  const other = new ListingSource({ container, prefixes: [''], folder, hierarchical: true });
  await t.rejects(other.poll(rig.cursor, signal).next(), SourceGap);
});
