/** An Azurite with a change feed, which is written as tests say. */
import { Azurite } from './azurite.js';
import { HourlyFeed } from './hourly-feed.js';

/** A container whose changes are told in the feed of its account, when somebody ends the hour. */
export class FeedAccount implements AsyncDisposable {
  readonly azurite: Azurite;
  readonly container: string;
  readonly #feed: HourlyFeed;

  private constructor(azurite: Azurite, container: string, feed: HourlyFeed) {
    this.azurite = azurite;
    this.container = container;
    this.#feed = feed;
  }

  static async start(): Promise<FeedAccount> {
    const azurite = await Azurite.start();
    const feed = await HourlyFeed.start(azurite);
    return new FeedAccount(azurite, await azurite.newContainer('auto'), feed);
  }

  get env(): Readonly<Record<string, string>> {
    return { AZURE_STORAGE_CONNECTION_STRING: this.azurite.connectionString };
  }

  async put(blob: string, body: string, metadata: Readonly<Record<string, string>> = {}): Promise<void> {
    const { container } = this;
    const client = this.azurite.client(container).getBlockBlobClient(blob);
    await client.upload(body, Buffer.byteLength(body), { metadata });
    this.#feed.add('BlobCreated', container, blob);
  }

  async delete(blob: string): Promise<void> {
    const { container } = this;
    await this.azurite.client(container).deleteBlob(blob);
    this.#feed.add('BlobDeleted', container, blob);
  }

  /** The hour is over, and what happened in it can be read. */
  tell(): Promise<void> {
    return this.#feed.tell();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.azurite[Symbol.asyncDispose]();
  }
}
