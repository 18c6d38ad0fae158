/** An Azurite with a change feed, which is written as tests say. */
import { changeFeedContainer } from '../../src/blob/change-feed-index.js';
import { Azurite } from './azurite.js';
import { azuriteFeed, ChangeFeedWriter, type FeedEvent } from './change-feed-writer.js';

const hour = 3600_000;

/** A container whose changes are told in the feed of its account, when somebody ends the hour. */
export class FeedAccount implements AsyncDisposable {
  readonly azurite: Azurite;
  readonly container: string;
  readonly #writer: ChangeFeedWriter;
  readonly #events: FeedEvent[] = [];
  #hourMs = Math.floor(Date.now() / hour) * hour;

  private constructor(azurite: Azurite, container: string, writer: ChangeFeedWriter) {
    this.azurite = azurite;
    this.container = container;
    this.#writer = writer;
  }

  static async start(): Promise<FeedAccount> {
    const azurite = await Azurite.start();
    const feed = await azuriteFeed(azurite.client(changeFeedContainer));
    const account = new FeedAccount(
      azurite,
      await azurite.newContainer('auto'),
      new ChangeFeedWriter(feed, { shards: 2, blocksPerChunk: 3 }),
    );
    await account.#writer.create(account.#hourMs);
    return account;
  }

  get env(): Readonly<Record<string, string>> {
    return { AZURE_STORAGE_CONNECTION_STRING: this.azurite.connectionString };
  }

  async put(blob: string, body: string, metadata: Readonly<Record<string, string>> = {}): Promise<void> {
    const { container } = this;
    const client = this.azurite.client(container).getBlockBlobClient(blob);
    await client.upload(body, Buffer.byteLength(body), { metadata });
    this.#events.push({ type: 'BlobCreated', container, blob, timeMs: Date.now() });
  }

  async delete(blob: string): Promise<void> {
    const { container } = this;
    await this.azurite.client(container).deleteBlob(blob);
    this.#events.push({ type: 'BlobDeleted', container, blob, timeMs: Date.now() });
  }

  /** The hour is over, and what happened in it can be read. */
  async tell(): Promise<void> {
    const foreign = { type: 'BlobDeleted', container: 'other', blob: 'kept', timeMs: Date.now() } as const;
    const events = [...this.#events.splice(0), foreign];
    const blockEvents = 300;
    for (let at = 0; at < events.length; at += blockEvents)
      await this.#writer.append(this.#hourMs, events.slice(at, at + blockEvents));
    await this.#writer.finalize(this.#hourMs);
    this.#hourMs += hour;
    await this.#writer.setConsumable(this.#hourMs);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.azurite[Symbol.asyncDispose]();
  }
}
