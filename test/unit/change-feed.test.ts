import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { changedBlob } from '../../src/blob/change-event.js';
import { ChangeFeed, ChangeFeedGap, type FeedPosition } from '../../src/blob/change-feed.js';
import { manifestOf, segmentAt } from '../../src/blob/change-feed-index.js';
import {
  ChangeFeedWriter,
  chunkBlock,
  chunkHeader,
  type FeedEvent,
  type WriterOptions,
} from '../helpers/change-feed-writer.js';
import { MemoryFeed } from '../helpers/memory-feed.js';

const { signal } = new AbortController();
const hour = 3600_000;
const noon = Date.UTC(2026, 0, 31, 12);

/** A feed with events `name` of their hours, and somebody who reads it. */
class Rig {
  readonly blobs = new MemoryFeed();
  readonly writer: ChangeFeedWriter;
  feed = new ChangeFeed(this.blobs);
  position: FeedPosition;

  constructor(options: WriterOptions = {}, fromMs = noon) {
    this.writer = new ChangeFeedWriter(this.blobs, options);
    this.position = this.feed.startAt(fromMs);
  }

  static async start(options: WriterOptions = {}, fromMs = noon): Promise<Rig> {
    const rig = new Rig(options, fromMs);
    await rig.writer.create(fromMs);
    rig.blobs.nowMs = fromMs;
    return rig;
  }

  append(hourMs: number, ...names: readonly string[]): Promise<readonly string[]> {
    return this.writer.append(
      hourMs,
      names.map((blob) => eventOf(blob, hourMs)),
    );
  }

  /** Everything in the segment is there, and it and all before it are consumable. */
  async close(hourMs: number): Promise<void> {
    await this.writer.finalize(hourMs);
    await this.writer.setConsumable(hourMs + hour);
  }

  /** Names of the events that are new, `limit` of them at most; the position moves behind them. */
  async read(limit = Infinity): Promise<readonly string[]> {
    const names: string[] = [];
    for await (const { events, behind } of this.feed.read(this.position, signal)) {
      const taken = events.slice(0, limit - names.length);
      names.push(...taken.map(({ subject }) => subject.replace(/^.*\/blobs\//, '')));
      this.position = JSON.parse(JSON.stringify(behind(taken.length))) as FeedPosition;
      if (names.length >= limit) break;
    }
    return names;
  }
}

function eventOf(blob: string, timeMs: number): FeedEvent {
  return { type: 'BlobCreated', container: 'data', blob, timeMs };
}

const names = (count: number, prefix: string): readonly string[] =>
  Array.from({ length: count }, (_, n) => `${prefix}${String(n).padStart(4, '0')}`);

await t.test(
  'a feed is read over hours without events and the turn of a year, each event once',
  async (t) => {
    const rig = await Rig.start({ shards: 3, blocksPerChunk: 2 }, Date.UTC(2025, 11, 31, 20));
    const hours = [
      Date.UTC(2025, 11, 31, 20),
      Date.UTC(2025, 11, 31, 23),
      Date.UTC(2026, 0, 1, 0),
      Date.UTC(2026, 1, 28, 5, 10),
    ];
    const written: string[] = [];
    for (const at of hours) {
      for (let block = 0; block < 5; block++) {
        const some = names(7, `${segmentAt(at)}-${block}-`);
        written.push(...some);
        await rig.append(at, ...some);
      }
      await rig.close(at);
    }
    const read = await rig.read();
    t.same(read.toSorted(), written.toSorted());
    t.same(
      read.map((name) => name.slice(0, 15)),
      read.map((name) => name.slice(0, 15)).toSorted(),
      'one segment after the other',
    );
    t.same(await rig.read(), []);
    const later = Date.UTC(2027, 0, 1);
    await rig.append(later, 'next year');
    await rig.close(later);
    t.same(await rig.read(), ['next year']);
  },
);

await t.test('a reader that is cut off behind any event goes on with exactly the rest', async (t) => {
  const rig = await Rig.start({ shards: 2, blocksPerChunk: 2 });
  for (const at of [noon, noon + hour]) {
    for (let block = 0; block < 3; block++) await rig.append(at, ...names(4, `${at}-${block}-`));
    await rig.close(at);
  }
  const start = rig.position;
  const all = await rig.read();
  t.equal(all.length, 24);
  for (let cut = 0; cut <= all.length; cut++) {
    rig.position = start;
    rig.feed = new ChangeFeed(rig.blobs);
    const first = cut === 0 ? [] : await rig.read(cut);
    rig.feed = new ChangeFeed(rig.blobs);
    t.same([...first, ...(await rig.read())], all, `behind event ${cut}`);
  }
});

await t.test('what the service does not call consumable is not read', async (t) => {
  const rows = [
    { status: 'open', last: noon - hour, read: false },
    { status: 'open', last: noon, read: false },
    { status: 'open', last: noon + hour, read: true },
    { status: 'final', last: noon - hour, read: false },
    { status: 'final', last: noon, read: true },
    { status: 'final', last: noon + hour, read: true },
  ];
  for (const { status, last, read } of rows) {
    const rig = await Rig.start();
    await rig.append(noon, 'a');
    if (status === 'final') await rig.writer.finalize(noon);
    await rig.writer.setConsumable(last);
    t.same(await rig.read(), read ? ['a'] : [], `${status}, consumable up to ${segmentAt(last)}`);
  }
});

await t.test('a segment that is still written to is not left behind before it is final', async (t) => {
  const rig = await Rig.start({ shards: 2, blocksPerChunk: 2 });
  await rig.append(noon, 'a', 'b', 'c');
  await rig.append(noon + hour, 'later');
  await rig.writer.setConsumable(noon + 2 * hour);
  t.same((await rig.read()).toSorted(), ['a', 'b', 'c']);
  t.same(await rig.read(), [], 'the next hour waits');
  for (let block = 0; block < 4; block++) {
    await rig.append(noon, ...names(3, `late-${block}-`));
    t.same((await rig.read()).toSorted(), names(3, `late-${block}-`));
  }
  await rig.append(noon, 'last');
  await rig.writer.finalize(noon);
  t.same(await rig.read(), ['last', 'later']);
});

await t.test('a block is read when all of it is there, however it is cut', async (t) => {
  const rig = await Rig.start();
  const [chunk = ''] = await rig.append(noon, 'a');
  const whole = rig.blobs.blobs.get(chunk) ?? Buffer.alloc(0);
  await rig.append(noon, 'b', 'c');
  const more = rig.blobs.blobs.get(chunk) ?? Buffer.alloc(0);
  await rig.writer.setConsumable(noon + hour);
  const { position } = rig;
  for (let length = 0; length < more.length; length++) {
    rig.blobs.blobs.set(chunk, more.subarray(0, length));
    const first = await rig.read();
    rig.blobs.blobs.set(chunk, more);
    const rest = await rig.read();
    if (first.length !== (length < whole.length ? 0 : 1)) t.fail(`${length} bytes: ${first.join()} was read`);
    if ([...first, ...rest].join() !== 'a,b,c') t.fail(`${length} bytes: then ${rest.join()}`);
    rig.position = position;
  }
  t.ok(more.length > whole.length);
});

await t.test('what is appended while the feed is read is read now or next time', async (t) => {
  const moments = ['slice idx/', 'list log/00/', 'slice log/00/'];
  for (const moment of moments) {
    const rig = await Rig.start({ blocksPerChunk: 1 });
    await rig.append(noon, 'a');
    await rig.writer.setConsumable(noon + hour);
    let done = false;
    rig.blobs.before = async (call) => {
      if (done || !call.startsWith(moment)) return;
      done = true;
      await rig.append(noon, 'b');
      await rig.append(noon, 'c');
      await rig.close(noon);
    };
    t.same([...(await rig.read()), ...(await rig.read())], ['a', 'b', 'c'], moment);
    t.same(await rig.read(), [], moment);
  }
});

await t.test(
  'a chunk with another behind it is read to its end, not to where a listing saw it',
  async (t) => {
    const rig = await Rig.start({ blocksPerChunk: 2 });
    const [chunk = ''] = await rig.append(noon, 'a');
    const shorter = (rig.blobs.blobs.get(chunk) ?? Buffer.alloc(0)).length;
    await rig.append(noon, 'b');
    await rig.append(noon, 'c');
    await rig.writer.setConsumable(noon + hour);
    const list = rig.blobs.list.bind(rig.blobs);
    rig.blobs.list = async function* (options) {
      for await (const page of list(options))
        yield page.map((blob) => (blob.name === chunk ? { ...blob, size: shorter } : blob));
    };
    t.same(await rig.read(), ['a', 'b', 'c']);
  },
);

await t.test('a quiet feed costs one request', async (t) => {
  const rig = await Rig.start();
  await rig.append(noon, 'a');
  await rig.close(noon);
  await rig.read();
  await rig.read();
  rig.blobs.calls.length = 0;
  t.same(await rig.read(), []);
  t.same(rig.blobs.calls, ['slice meta/segments.json 0']);
});

await t.test('a chunk of any size is read in pieces', async (t) => {
  const rig = await Rig.start();
  const long = 'n'.repeat(1000);
  const written: string[] = [];
  let chunk = '';
  for (let block = 0; block < 60; block++) {
    const some = names(100, `${block}-${long}`);
    written.push(...some);
    [chunk = ''] = await rig.append(noon, ...some);
  }
  await rig.close(noon);
  t.same(await rig.read(), written);
  const reads = rig.blobs.calls.filter((call) => call.startsWith(`slice ${chunk}`));
  t.ok(reads.length > 2, `${reads.length} reads`);
  t.equal(new Set(reads).size, reads.length, 'nothing twice');
});

await t.test('events that the feed has lost are a gap, a segment that only got old is none', async (t) => {
  const day = 24 * hour;
  interface Row {
    readonly what: string;
    readonly spoil: (rig: Rig) => unknown;
    readonly afterMs?: number;
    readonly gap?: RegExp;
    /** The position is in the middle of the segment. */
    readonly open?: boolean;
  }
  const forget = (rig: Rig): void => {
    for (const name of [...rig.blobs.blobs.keys()]) {
      if (name.includes(segmentAt(noon))) rig.blobs.blobs.delete(name);
    }
  };
  const chunkIn = (rig: Rig): string =>
    [...rig.blobs.blobs.keys()].find((name) => name.endsWith('.avro')) ?? '';
  const rows: readonly Row[] = [
    { what: 'a month without a change', afterMs: 30 * day, spoil: () => undefined },
    { what: 'the segment is gone, seen an hour ago', afterMs: hour, spoil: forget },
    { what: 'the segment is gone, seen two days ago', afterMs: 2 * day, spoil: forget, gap: /retention/ },
    {
      what: 'half read, and gone',
      afterMs: hour,
      open: true,
      spoil: forget,
      gap: /no longer has the segment/,
    },
    {
      what: 'its chunk is gone',
      open: true,
      spoil: (rig) => rig.blobs.blobs.delete(chunkIn(rig)),
      gap: /no longer has its chunk/,
    },
    {
      what: 'its chunk is shorter than before',
      open: true,
      spoil: (rig) => rig.blobs.put(chunkIn(rig), Buffer.from('Obj\u0001')),
      gap: /was replaced/,
    },
    {
      what: 'made again, younger than what was read',
      spoil: async (rig) => {
        rig.blobs.blobs.clear();
        await rig.writer.create(noon - day);
      },
      gap: /created again/,
    },
    {
      what: 'deleted under the reader',
      open: true,
      spoil: (rig) => {
        rig.blobs.before = (call) => {
          if (call.startsWith('slice log/')) rig.blobs.blobs.clear();
        };
        return rig.append(noon, 'b');
      },
      gap: /while it was read/,
    },
  ];
  for (const { what, spoil, afterMs = 0, gap, open = false } of rows) {
    const rig = await Rig.start();
    await rig.append(noon, 'a');
    await rig.close(noon);
    if (open) {
      await rig.append(noon, 'more');
      await rig.close(noon);
      await rig.append(noon, 'open');
      await rig.writer.setConsumable(noon + hour);
    }
    await rig.read();
    await spoil(rig);
    rig.blobs.nowMs += afterMs;
    rig.feed = new ChangeFeed(rig.blobs);
    if (gap === undefined) t.same(await rig.read(), [], what);
    else await t.rejects(rig.read(), { name: 'ChangeFeedGap', message: gap }, what);
  }
  t.ok(new ChangeFeedGap('x') instanceof Error);
});

await t.test(
  'damage is an error that names the chunk and the byte, and nothing behind it is read',
  async (t) => {
    const sync = Buffer.alloc(16, 7);
    const header = chunkHeader(sync);
    const odd = { type: 'record', name: 'Odd', fields: [{ name: 'subject', type: 'string' }] };
    const rig = await Rig.start();
    const [chunk = ''] = await rig.append(noon, 'a', 'b');
    await rig.close(noon);
    const good = rig.blobs.blobs.get(chunk) ?? Buffer.alloc(0);
    const flipped = (at: number): Buffer => {
      const bytes = Buffer.from(good);
      bytes[at] = (bytes[at] ?? 0) ^ 0xff;
      return bytes;
    };
    const rows: readonly (readonly [string, Buffer, RegExp])[] = [
      ['no Avro file', Buffer.from('PK\u0003\u0004 something else'), /byte 0: it is no Avro file/],
      ['a header that ends early', header.subarray(0, 100), /byte 0: its header is not whole/],
      ['another codec', chunkHeader(sync, { codec: 'snappy' }), /byte 0: its codec 'snappy'/],
      ['no schema', chunkHeader(sync, { schema: { type: 'what' } }), /byte 0: its schema/],
      ['a block that ends early', good.subarray(0, -1), /its last block is not whole/],
      ['another sync marker', flipped(good.length - 1), /sync marker/],
      ['a sync marker of the header', flipped(header.length - 1), /sync marker/],
      [
        'a count too big',
        Buffer.concat([header, chunkBlock([], sync), Buffer.from([0x7e, 0]), sync]),
        /fewer events/,
      ],
      [
        'a size too big',
        Buffer.concat([header, Buffer.from([2, 0xff, 0xff, 0xff, 0x7f])]),
        /a block of 1 events in/,
      ],
      ['no number', Buffer.concat([header, Buffer.alloc(20, 0xff)]), /cannot be decoded/],
      [
        'a record that goes on',
        Buffer.concat([header, chunkBlock([Buffer.alloc(3)], sync)]),
        /damaged at byte/,
      ],
      [
        'a record that is no event',
        Buffer.concat([chunkHeader(sync, { schema: odd }), chunkBlock([Buffer.from([2, 97])], sync)]),
        /a record is no event/,
      ],
    ];
    for (const [what, bytes, message] of rows) {
      rig.blobs.blobs.set(chunk, bytes);
      const { position } = rig;
      const error = await rig.read().catch((thrown: unknown) => thrown);
      t.ok(error instanceof BlobError && error.kind === 'corrupt', what);
      t.match((error as Error).message, new RegExp(`chunk ${chunk} is damaged at byte`), what);
      t.match((error as Error).message, message, what);
      rig.position = position;
    }
    rig.blobs.blobs.set(chunk, good);
    t.same(await rig.read(), ['a', 'b']);
    rig.blobs.blobs.set(manifestOf(segmentAt(noon)), Buffer.from('{"status":"Finalized"'));
    rig.position = rig.feed.startAt(noon);
    rig.feed = new ChangeFeed(rig.blobs);
    await t.rejects(rig.read(), { kind: 'corrupt', message: /idx\/segments\/.*cannot be understood/ });
  },
);

await t.test('an event is about the blob that its subject names, and only if it may have changed it', (t) => {
  const subject = '/blobServices/default/containers/data/blobs/a/blobs/b';
  const rows: readonly (readonly [string, string, string | undefined])[] = [
    ['BlobCreated', subject, 'a/blobs/b'],
    ['BlobDeleted', subject, 'a/blobs/b'],
    ['BlobPropertiesUpdated', subject, 'a/blobs/b'],
    ['BlobMetadataUpdated', subject, 'a/blobs/b'],
    ['SomethingNew', subject, 'a/blobs/b'],
    ['BlobSnapshotCreated', subject, undefined],
    ['BlobTierChanged', subject, undefined],
    ['Control', '', undefined],
    ['BlobCreated', '/blobServices/default/containers/data2/blobs/a', undefined],
    ['BlobCreated', '/blobServices/default/containers/x/blobs/containers/data/blobs/a', undefined],
    ['BlobCreated', '/blobServices/default/containers/data', undefined],
  ];
  for (const [type, text, name] of rows)
    t.equal(changedBlob({ type, subject: text, timeMs: 0 }, 'data'), name, `${type} ${text}`);
  t.end();
});
