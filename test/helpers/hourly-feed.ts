/** The change feed of an Azurite's account, whose hours end when a test says so. */
import { changeFeedContainer } from '../../src/blob/change-feed-index.js';
import type { Azurite } from './azurite.js';
import { azuriteFeed, ChangeFeedWriter, type EventType, type FeedEvent } from './change-feed-writer.js';

const hour = 3600_000;
const blockEvents = 300;

export class HourlyFeed {
  readonly #writer: ChangeFeedWriter;
  readonly #events: FeedEvent[] = [];
  #hourMs = Math.floor(Date.now() / hour) * hour;

  private constructor(writer: ChangeFeedWriter) {
    this.#writer = writer;
  }

  static async start(azurite: Azurite): Promise<HourlyFeed> {
    const blobs = await azuriteFeed(azurite.client(changeFeedContainer));
    const feed = new HourlyFeed(new ChangeFeedWriter(blobs, { shards: 2, blocksPerChunk: 3 }));
    await feed.#writer.create(feed.#hourMs);
    return feed;
  }

  /** What has just been done; nobody can read it before `tell`. */
  add(type: EventType, container: string, blob: string): void {
    this.#events.push({ type, container, blob, timeMs: Date.now() });
  }

  /** The hour is over, and what happened in it can be read. */
  async tell(): Promise<void> {
    this.add('BlobDeleted', 'other', 'kept');
    const events = this.#events.splice(0);
    for (let at = 0; at < events.length; at += blockEvents)
      await this.#writer.append(this.#hourMs, events.slice(at, at + blockEvents));
    await this.#writer.finalize(this.#hourMs);
    this.#hourMs += hour;
    await this.#writer.setConsumable(this.#hourMs);
  }
}
