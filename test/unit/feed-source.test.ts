import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { ChangeFeed } from '../../src/blob/change-feed.js';
import { SourceGap, type Changes } from '../../src/jobs/auto-import/change-source.js';
import { FeedSource } from '../../src/jobs/auto-import/feed-source.js';
import { chooseSource } from '../../src/jobs/auto-import/source-choice.js';
import { ChangeFeedWriter, type EventType } from '../helpers/change-feed-writer.js';
import { MemoryContainer } from '../helpers/memory-container.js';
import { TestClock } from '../helpers/memory-hsm.js';

const { signal } = new AbortController();
const hour = 3600_000;

/** A container whose changes are events of a feed, and somebody who follows it. */
class Rig {
  readonly container = new MemoryContainer();
  readonly feed = this.container.feed;
  readonly writer = new ChangeFeedWriter(this.feed, { shards: 2 });
  readonly source: FeedSource;
  cursor: unknown;
  #hourMs = Date.UTC(2026, 0, 31, 12);

  constructor(prefixes: readonly string[] = ['']) {
    const { container } = this;
    const feed = new ChangeFeed(container.changeFeed());
    this.source = new FeedSource({ container, feed, prefixes, clock: new TestClock() });
  }

  static async start(prefixes?: readonly string[]): Promise<Rig> {
    const rig = new Rig(prefixes);
    await rig.writer.create(rig.#hourMs);
    await rig.begin();
    return rig;
  }

  async begin(): Promise<void> {
    this.feed.tickMs = 400;
    this.cursor = await this.source.observed(await this.source.begin(null, signal));
    this.feed.tickMs = 0;
  }

  /** Tells of changes, as late as an hour after them. */
  async tell(events: readonly (readonly [EventType, string])[], timeMs = this.feed.nowMs): Promise<void> {
    const told = events.map(([type, blob]) => ({ type, blob, container: 'data', timeMs }));
    await this.writer.append(this.#hourMs, told);
  }

  /** The hour is over. */
  async nextHour(): Promise<void> {
    await this.writer.finalize(this.#hourMs);
    this.#hourMs += hour;
    this.feed.nowMs += hour;
    await this.writer.setConsumable(this.#hourMs);
  }

  async poll(limit = Infinity): Promise<readonly Changes[]> {
    const batches: Changes[] = [];
    for await (const changes of this.source.poll(this.cursor, signal)) {
      batches.push(changes);
      this.cursor = JSON.parse(JSON.stringify(changes.cursor));
      if (batches.length >= limit) break;
    }
    return batches;
  }

  async names(): Promise<{ readonly present: readonly string[]; readonly absent: readonly string[] }> {
    const batches = await this.poll();
    return {
      present: batches.flatMap(({ present }) => present.map(({ name }) => name)).sort(),
      absent: batches.flatMap(({ absent }) => [...absent]).sort(),
    };
  }
}

await t.test(
  'what the container has under a name decides, whatever the events say and in which order',
  async (t) => {
    const rig = await Rig.start();
    for (const name of ['created', 'again', 'renamed-to', 'still-here']) rig.container.put(name, name);
    await rig.tell([
      ['BlobCreated', 'created'],
      ['BlobCreated', 'created'],
      // Deleted and made again, told the wrong way round.
      ['BlobCreated', 'again'],
      ['BlobDeleted', 'again'],
      // A rename on a flat account.
      ['BlobCreated', 'renamed-to'],
      ['BlobDeleted', 'renamed-from'],
      ['BlobCreated', 'made-and-deleted'],
      ['BlobDeleted', 'still-here'],
    ]);
    await rig.tell([
      ['BlobDeleted', 'made-and-deleted'],
      ['Control', 'x'],
      ['BlobSnapshotCreated', 'snapshot-of'],
      ['BlobTierChanged', 'cooled'],
    ]);
    await rig.nextHour();
    t.same(await rig.names(), {
      present: ['again', 'created', 'renamed-to', 'still-here'],
      absent: ['made-and-deleted', 'renamed-from'],
    });
    t.equal(rig.container.calls.filter((call) => call === 'properties created').length, 1, 'asked once');
    t.same(await rig.names(), { present: [], absent: [] }, 'told once');
  },
);

await t.test('events from before the full sync never count, those while it runs do', async (t) => {
  const rig = new Rig();
  await rig.writer.create(Date.UTC(2026, 0, 31, 12));
  rig.feed.nowMs += 10 * 60_000;
  await rig.tell([['BlobDeleted', 'long-before']]);
  const asked = rig.feed.nowMs;
  await rig.begin();
  const listing = rig.feed.nowMs;
  await rig.tell([['BlobDeleted', 'right-before']], asked);
  await rig.tell([['BlobDeleted', 'meanwhile']], listing);
  await rig.nextHour();
  t.same(await rig.names(), { present: [], absent: ['meanwhile'] });
});

await t.test('only blobs of this container with one of the prefixes are looked at', async (t) => {
  const rig = await Rig.start(['in/', 'ref/']);
  const { nowMs: timeMs } = rig.feed;
  const at = Date.UTC(2026, 0, 31, 12);
  await rig.tell([
    ['BlobDeleted', 'in/a'],
    ['BlobDeleted', 'ref/blobs/b'],
    ['BlobDeleted', 'out/c'],
    ['BlobDeleted', 'in'],
  ]);
  const type = 'BlobDeleted';
  await rig.writer.append(at, [
    { type, container: 'data2', blob: 'in/foreign', timeMs },
    { type, container: 'other', blob: 'containers/data/blobs/in/foreign', timeMs },
  ]);
  await rig.nextHour();
  t.same(await rig.names(), { present: [], absent: ['in/a', 'ref/blobs/b'] });
  t.equal(rig.container.calls.length, 2);
});

await t.test('a poll that was cut off after any batch goes on with exactly the rest', async (t) => {
  const rig = await Rig.start();
  const names = Array.from({ length: 3500 }, (_, n) => `n${n}`);
  for (const [n, name] of names.entries()) if (n % 2 === 0) rig.container.put(name, '');
  for (let at = 0; at < names.length; at += 700)
    await rig.tell(names.slice(at, at + 700).map((name) => ['BlobCreated', name]));
  const newest = rig.feed.nowMs;
  await rig.nextHour();
  const told: string[] = [];
  for (let batch = 0; batch < 4; batch++) {
    const [changes] = await rig.poll(1);
    t.equal(changes?.newestMs, newest);
    told.push(...(changes?.present ?? []).map(({ name }) => name), ...(changes?.absent ?? []));
  }
  t.equal(told.length, names.length);
  t.equal(new Set(told).size, names.length);
  t.same(await rig.names(), { present: [], absent: [] });
});

await t.test(
  'the cursor moves over events of others, and does not age while the account is quiet',
  async (t) => {
    const rig = await Rig.start();
    const { nowMs: timeMs } = rig.feed;
    const foreign = { type: 'BlobCreated', container: 'other', blob: 'x', timeMs } as const;
    await rig.writer.append(Date.UTC(2026, 0, 31, 12), [foreign]);
    await rig.nextHour();
    const [moved, ...rest] = await rig.poll();
    t.match(moved, { present: [], absent: [], newestMs: undefined });
    t.same(rest, []);
    t.same(await rig.poll(), [], 'nothing new');
    for (let days = 0; days < 30; days++) {
      rig.feed.nowMs += 20 * hour;
      t.equal((await rig.poll()).length, 1);
    }
    for (const name of [...rig.feed.blobs.keys()]) if (!name.startsWith('meta/')) rig.feed.blobs.delete(name);
    t.same(await rig.poll(), [], 'retention took what was read long ago');
    rig.feed.nowMs += 25 * hour;
    await rig.writer.setConsumable(rig.feed.nowMs);
    await t.rejects(rig.poll(), SourceGap, 'nobody looked for longer than the shortest retention');
    await t.rejects(
      rig.source.poll({ file: 'listing.1' }, signal).next(),
      SourceGap,
      'no cursor of the feed',
    );
  },
);

await t.test('a look-up that fails ends the poll, and its batch comes again', async (t) => {
  const rig = await Rig.start();
  await rig.tell([
    ['BlobDeleted', 'a'],
    ['BlobDeleted', 'b'],
  ]);
  await rig.nextHour();
  rig.container.before = (_, blob) => {
    if (blob === 'b') throw new BlobError('throttled', 'slow down');
  };
  await t.rejects(rig.poll(), { kind: 'throttled', message: 'slow down' });
  rig.container.before = () => undefined;
  t.same(await rig.names(), { present: [], absent: ['a', 'b'] });
});

await t.test(
  'a name that nobody can ask for is told when it was made, for the import to refuse',
  async (t) => {
    const rig = await Rig.start();
    await rig.tell([
      ['BlobCreated', 'a/../b'],
      ['BlobDeleted', 'c/./d'],
    ]);
    await rig.nextHour();
    t.same(await rig.names(), { present: ['a/../b'], absent: [] });
    t.same(rig.container.calls, []);
  },
);

await t.test('a feed that is gone ends the job with what to do', async (t) => {
  const rig = await Rig.start();
  rig.feed.blobs.clear();
  await t.rejects(rig.poll(), { kind: 'missing', message: /changeFeed.enabled.*--source listing/ });
  await t.rejects(rig.source.begin(null, signal), { message: /changeFeed.enabled.*--source listing/ });
});

await t.test(
  'the source is what was asked for, or what suits the account; a refusal says what to do',
  async (t) => {
    const failWith = (kind: 'forbidden' | 'unreachable') => (rig: Rig) => {
      rig.feed.before = () => {
        throw new BlobError(kind, 'no');
      };
    };
    const nothing = (): void => undefined;
    const none = (rig: Rig): void => rig.feed.blobs.clear();
    const torn = (rig: Rig): void => void rig.feed.blobs.set('meta/segments.json', Buffer.from('{'));
    interface Row {
      readonly wanted?: 'feed' | 'listing';
      readonly hierarchical?: boolean;
      readonly spoil: (rig: Rig) => void;
      readonly source?: 'feed' | 'listing';
      /** The reason, or why it is refused. */
      readonly says: RegExp;
    }
    const rows: readonly Row[] = [
      { spoil: nothing, source: 'feed', says: /^the account has one$/ },
      { spoil: none, source: 'listing', says: /^the account has no change feed/ },
      { spoil: failWith('forbidden'), source: 'listing', says: /^the credentials do not reach/ },
      { spoil: torn, source: 'listing', says: /segments.json cannot be understood/ },
      { spoil: failWith('unreachable'), says: /could not be asked: try again/ },
      { hierarchical: true, spoil: nothing, source: 'listing', says: /hierarchical/ },
      { wanted: 'listing', spoil: nothing, source: 'listing', says: /^as asked for$/ },
      {
        wanted: 'listing',
        hierarchical: true,
        spoil: failWith('unreachable'),
        source: 'listing',
        says: /asked/,
      },
      { wanted: 'feed', spoil: nothing, source: 'feed', says: /^as asked for$/ },
      {
        wanted: 'feed',
        hierarchical: true,
        spoil: nothing,
        says: /--source feed: .*hierarchical.*isHnsEnabled/,
      },
      { wanted: 'feed', spoil: none, says: /--source feed: .*no change feed.*changeFeed\.enabled/ },
      { wanted: 'feed', spoil: failWith('forbidden'), says: /--source feed: .*a SAS of the account/ },
      { wanted: 'feed', spoil: torn, says: /--source feed: .*cannot be understood/ },
    ];
    for (const { wanted, hierarchical = false, spoil, source, says } of rows) {
      const rig = await Rig.start();
      spoil(rig);
      const chosen = chooseSource({ wanted, hierarchical, container: rig.container, signal });
      const what = `${wanted ?? 'any'}, ${String(says)}`;
      if (source === undefined) await t.rejects(chosen, { message: says }, what);
      else {
        const { changeSource, changeSourceReason } = await chosen;
        t.equal(changeSource, source, what);
        t.match(changeSourceReason, says);
      }
    }
  },
);
