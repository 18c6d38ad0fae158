/**
 * Writes a change feed as the service lays it out (azurite 3): hourly segments with a manifest each, shards, chunks that grow
 * by Avro blocks. Into memory, or into the container `$blobchangefeed` of an Azurite.
 */
import avro from 'avsc';
import { createHash } from 'node:crypto';
import type { ContainerClient } from '@azure/storage-blob';
import {
  changeFeedContainer,
  consumableBlob,
  manifestOf,
  segmentAt,
} from '../../src/blob/change-feed-index.js';

export type EventType =
  | 'BlobCreated'
  | 'BlobDeleted'
  | 'BlobPropertiesUpdated'
  | 'BlobSnapshotCreated'
  | 'BlobTierChanged'
  | 'Control';

export interface FeedEvent {
  readonly type: EventType;
  readonly container: string;
  readonly blob: string;
  readonly timeMs: number;
}

/** Where the feed's blobs are kept. */
export interface FeedBlobs {
  put(name: string, body: Buffer): Promise<void>;
  /** To an append blob, made when it is not there. */
  append(name: string, bytes: Buffer): Promise<void>;
}

const optional = (type: unknown): unknown[] => ['null', type];
const texts = { type: 'map', values: 'string' };
const update = {
  type: 'record',
  name: 'PropertyChange',
  fields: [
    { name: 'current', type: 'string' },
    { name: 'previous', type: 'string' },
  ],
};
const text = (name: string): object => ({ name, type: 'string' });
const symbols = (name: string, values: readonly string[]): object => ({
  type: 'enum',
  name,
  symbols: values,
});

const apiOf = {
  BlobCreated: 'PutBlob',
  BlobDeleted: 'DeleteBlob',
  BlobPropertiesUpdated: 'SetBlobMetadata',
  BlobSnapshotCreated: 'SnapshotBlob',
  BlobTierChanged: 'SetBlobTier',
  Control: 'ControlEvent',
} as const satisfies Record<EventType, string>;

export const eventSchema = {
  type: 'record',
  name: 'BlobChangeEvent',
  fields: [
    { name: 'schemaVersion', type: 'int' },
    text('topic'),
    text('subject'),
    { name: 'eventType', type: symbols('EventType', ['UnspecifiedEventType', ...Object.keys(apiOf)]) },
    text('eventTime'),
    text('id'),
    {
      name: 'data',
      type: {
        type: 'record',
        name: 'BlobChangeEventData',
        fields: [
          { name: 'api', type: symbols('Api', ['UnspecifiedApi', ...Object.values(apiOf)]) },
          ...['clientRequestId', 'requestId', 'etag', 'contentType'].map(text),
          { name: 'contentLength', type: 'long' },
          { name: 'blobType', type: symbols('BlobType', ['BlockBlob', 'PageBlob', 'AppendBlob']) },
          ...['blobVersion', 'containerVersion', 'blobTier', 'url', 'sequencer'].map(text),
          { name: 'previousInfo', type: optional(texts) },
          { name: 'snapshot', type: optional('string') },
          { name: 'blobPropertiesUpdated', type: optional({ type: 'map', values: update }) },
          { name: 'asyncOperationInfo', type: optional(texts) },
          { name: 'storageDiagnostics', type: optional(texts) },
        ],
      },
    },
  ],
};

const eventType = avro.Type.forSchema(eventSchema as avro.Schema);
const long = avro.Type.forSchema('long');
const metadata = avro.Type.forSchema({ type: 'map', values: 'bytes' });

export interface ChunkFormat {
  /** Of the events, as the chunk's header states it. */
  readonly schema?: unknown;
  readonly codec?: string;
}

export function chunkHeader(
  sync: Buffer,
  { schema = eventSchema, codec = 'null' }: ChunkFormat = {},
): Buffer {
  const meta = { 'avro.codec': Buffer.from(codec), 'avro.schema': Buffer.from(JSON.stringify(schema)) };
  return Buffer.concat([Buffer.from('Obj\u0001', 'latin1'), metadata.toBuffer(meta), sync]);
}

export function chunkBlock(events: readonly Buffer[], sync: Buffer): Buffer {
  const data = Buffer.concat(events);
  return Buffer.concat([long.toBuffer(events.length), long.toBuffer(data.length), data, sync]);
}

/** A record as the service would write it; every field has a value. */
export function encodedEvent({ type, container, blob, timeMs }: FeedEvent, sequence: number): Buffer {
  const hex = sequence.toString(16).padStart(16, '0');
  const id = createHash('md5').update(`${sequence} ${blob}`).digest('hex');
  return eventType.toBuffer({
    schemaVersion: 5,
    topic: '/subscriptions/0/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/account',
    subject: type === 'Control' ? '' : `/blobServices/default/containers/${container}/blobs/${blob}`,
    eventType: type,
    // The service has ticks of 100 ns.
    eventTime: new Date(timeMs).toISOString().replace('Z', '0000Z'),
    id,
    data: {
      api: apiOf[type],
      clientRequestId: id,
      requestId: id,
      etag: `0x${hex}`,
      contentType: 'application/octet-stream',
      contentLength: sequence,
      blobType: 'BlockBlob',
      blobVersion: '',
      containerVersion: '0000000000000001',
      blobTier: 'Hot',
      url: '',
      sequencer: hex,
      previousInfo: sequence % 2 === 0 ? null : { SoftDeleteSnapshot: hex },
      snapshot: null,
      blobPropertiesUpdated:
        type === 'BlobPropertiesUpdated'
          ? { ContentLanguage: { current: 'pl-Pl', previous: 'nl-NL' } }
          : null,
      asyncOperationInfo: null,
      storageDiagnostics: null,
    },
  });
}

export interface WriterOptions {
  readonly shards?: number;
  /** Blocks of a chunk before the next one is begun. */
  readonly blocksPerChunk?: number;
}

export class ChangeFeedWriter {
  readonly #blobs: FeedBlobs;
  readonly #shards: number;
  readonly #blocksPerChunk: number;
  /** Blocks of each shard of a segment so far. */
  readonly #blocks = new Map<string, number>();
  #sequence = 0;

  constructor(blobs: FeedBlobs, { shards = 1, blocksPerChunk = Infinity }: WriterOptions = {}) {
    this.#blobs = blobs;
    this.#shards = shards;
    this.#blocksPerChunk = blocksPerChunk;
  }

  /** A feed that was just enabled: nothing but the initial segment that every feed has. */
  async create(consumableMs: number): Promise<void> {
    await this.#json(manifestOf('1601/01/01/0000'), { status: 'Finalized', chunkFilePaths: [] });
    await this.setConsumable(consumableMs);
  }

  /** One block a shard, in the segment of that hour, which is Publishing. Returns the chunks written to. */
  async append(hourMs: number, events: readonly FeedEvent[]): Promise<readonly string[]> {
    const written: string[] = [];
    for (const [shard, prefix] of this.#shardsOf(hourMs).entries()) {
      const mine = events.filter(({ blob }) => this.#shardOf(blob) === shard);
      if (mine.length === 0) continue;
      const before = this.#blocks.get(prefix) ?? 0;
      this.#blocks.set(prefix, before + 1);
      const index = this.#blocksPerChunk === Infinity ? 0 : Math.floor(before / this.#blocksPerChunk);
      const chunk = `${prefix}${String(index).padStart(5, '0')}.avro`;
      const sync = createHash('md5').update(chunk).digest();
      const first = this.#blocksPerChunk === Infinity ? before === 0 : before % this.#blocksPerChunk === 0;
      if (first) await this.#blobs.append(chunk, chunkHeader(sync));
      const encoded = mine.map((event) => encodedEvent(event, ++this.#sequence));
      await this.#blobs.append(chunk, chunkBlock(encoded, sync));
      written.push(chunk);
    }
    await this.#manifest(hourMs, 'Publishing');
    return written;
  }

  /** Nothing is appended to the segment any more. */
  async finalize(hourMs: number): Promise<void> {
    await this.#manifest(hourMs, 'Finalized');
  }

  async setConsumable(ms: number): Promise<void> {
    await this.#json(consumableBlob, { lastConsumable: new Date(ms).toISOString() });
  }

  /** One blob's events are all in one shard. */
  #shardOf(blob: string): number {
    return createHash('md5').update(blob).digest().readUInt32BE() % this.#shards;
  }

  #shardsOf(hourMs: number): readonly string[] {
    return Array.from(
      { length: this.#shards },
      (_, shard) => `log/${String(shard).padStart(2, '0')}/${segmentAt(hourMs)}/`,
    );
  }

  async #manifest(hourMs: number, status: 'Publishing' | 'Finalized'): Promise<void> {
    await this.#json(manifestOf(segmentAt(hourMs)), {
      begin: new Date(hourMs).toISOString(),
      intervalSecs: 3600,
      status,
      config: { version: 0, numShards: this.#shards, recordsFormat: 'avro', formatSchemaVersion: 5 },
      chunkFilePaths: this.#shardsOf(hourMs).map((prefix) => `${changeFeedContainer}/${prefix}`),
    });
  }

  async #json(name: string, content: object): Promise<void> {
    await this.#blobs.put(name, Buffer.from(JSON.stringify({ version: 0, ...content }, undefined, 4)));
  }
}

/** The feed's container in an Azurite; made when it is not there. */
export async function azuriteFeed(container: ContainerClient): Promise<FeedBlobs> {
  await container.createIfNotExists();
  return {
    async put(name, body) {
      await container.getBlockBlobClient(name).upload(body, body.length);
    },
    async append(name, bytes) {
      const blob = container.getAppendBlobClient(name);
      await blob.createIfNotExists();
      await blob.appendBlock(bytes, bytes.length);
    },
  };
}
