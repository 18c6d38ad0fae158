/** The reader of the change feed against Azurite, where the official client reads the same feed. */
import { BlobChangeFeedClient } from '@azure/storage-blob-changefeed';
import t from 'tap';
import { openContainer } from '../../src/blob/azure-container.js';
import type { ChangeEvent } from '../../src/blob/change-event.js';
import { ChangeFeed } from '../../src/blob/change-feed.js';
import { changeFeedContainer } from '../../src/blob/change-feed-index.js';
import { Azurite } from '../helpers/azurite.js';
import {
  azuriteFeed,
  ChangeFeedWriter,
  type EventType,
  type FeedEvent,
} from '../helpers/change-feed-writer.js';

const { signal } = new AbortController();
const hour = 3600_000;

const textOf = ({ type, subject, timeMs }: ChangeEvent): string =>
  `${new Date(timeMs).toISOString()} ${type} ${subject}`;

async function eventsOf(azurite: Azurite): Promise<readonly string[]> {
  await using container = openContainer(azurite.config('any'));
  const feed = new ChangeFeed(container.changeFeed());
  const found: string[] = [];
  const position = { ...feed.startAt(Date.UTC(2020, 0)), seenMs: Date.now() };
  for await (const { events } of feed.read(position, signal)) found.push(...events.map(textOf));
  return found.sort();
}

async function eventsOfficially(azurite: Azurite): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const event of BlobChangeFeedClient.fromConnectionString(
    azurite.connectionString,
  ).listChanges()) {
    const { eventType, subject, eventTime } = event;
    found.push(textOf({ type: eventType, subject, timeMs: new Date(eventTime).getTime() }));
  }
  return found.sort();
}

await t.test('the official client and ours read the same events of the same feed', async (t) => {
  await using azurite = await Azurite.start();
  const blobs = await azuriteFeed(azurite.client(changeFeedContainer));
  const writer = new ChangeFeedWriter(blobs, { shards: 3, blocksPerChunk: 2 });
  const first = Date.UTC(2025, 11, 31, 23);
  await writer.create(first);
  const types: readonly EventType[] = [
    'BlobCreated',
    'BlobDeleted',
    'BlobPropertiesUpdated',
    'BlobSnapshotCreated',
    'BlobTierChanged',
    'Control',
  ];
  const names = ['plain', 'dir/b', 'ünï/日本 語', '/blobs/x', 'a?b#c%20', 'x'.repeat(1024)];
  let written = 0;
  for (const at of [first, first + hour, first + 30 * hour]) {
    for (let block = 0; block < 5; block++) {
      const events = types.flatMap((type) =>
        names.map((blob): FeedEvent => ({ type, container: 'data', blob, timeMs: at + block * 1000 })),
      );
      written += events.length;
      await writer.append(at, events);
    }
    await writer.finalize(at);
    await writer.setConsumable(at + hour);
  }
  const open = first + 40 * hour;
  await writer.append(open, [{ type: 'BlobCreated', container: 'data', blob: 'too-new', timeMs: open }]);
  const ours = await eventsOf(azurite);
  t.equal(ours.length, written);
  t.strictSame(ours, await eventsOfficially(azurite));
});

await t.test('a part of a blob is what was asked for, or an error that says which blob', async (t) => {
  await using azurite = await Azurite.start();
  const blobs = await azuriteFeed(azurite.client(changeFeedContainer));
  await using container = openContainer(azurite.config('any'));
  const feed = container.changeFeed();
  await t.rejects(feed.slice('a', 0, 10), { kind: 'missing', message: /\$blobchangefeed\/a/ });
  await blobs.append('a', Buffer.from('0123456789'));
  const { bytes, size, servedMs } = await feed.slice('a', 3, 4);
  t.same([bytes.toString(), size], ['3456', 10]);
  t.ok(Math.abs(Date.now() - servedMs) < 60_000, 'the time of the service');
  await blobs.append('a', Buffer.from('abc'));
  t.match(await feed.slice('a', 8, 1000), { bytes: Buffer.from('89abc'), size: 13 });
  await t.rejects(feed.slice('a', 13, 1), { kind: 'changed', message: /\$blobchangefeed\/a/ });
  await blobs.put('empty', Buffer.alloc(0));
  await t.rejects(feed.slice('empty', 0, 1), { kind: 'changed', message: /\$blobchangefeed\/empty/ });
});
