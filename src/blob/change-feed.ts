/**
 * The change feed of an account: its changes in order, from a position that may be years old or in the middle of a
 * block. Only what the service calls consumable is read. A segment is left behind when its manifest said `Finalized`
 * before its chunks were listed: nothing is appended to it any more, so no event can come late.
 */
import { z } from 'zod';
import { BlobError } from '../base/errors.js';
import type { ChangeEvent } from './change-event.js';
import { readChunk } from './change-feed-chunk.js';
import {
  consumableBlob,
  manifestOf,
  manifestsPrefix,
  parseConsumable,
  parseManifest,
  segmentAt,
  segmentOfManifest,
} from './change-feed-index.js';
import type { GrowingBlobs } from './port.js';

const shardPosition = z.object({
  chunk: z.string(),
  /** Of a block in it. */
  offset: z.int().nonnegative(),
  /** Events of that block which have been read. */
  events: z.int().nonnegative(),
});

/** JSON: where to go on. */
export const feedPosition = z.object({
  /** `2026/01/31/1200`: nothing before it is wanted. */
  segment: z.string().regex(/^\d{4}\/\d\d\/\d\d\/\d{4}$/),
  /** What has been read of it; `nothing` also while the feed may have no such segment. */
  read: z.enum(['nothing', 'some', 'all']),
  shards: z.record(z.string(), shardPosition),
  /** When the service last answered that there is nothing more, ms since the epoch by its clock. */
  seenMs: z.number(),
});
export type FeedPosition = Readonly<z.infer<typeof feedPosition>>;
type ShardPosition = Readonly<z.infer<typeof shardPosition>>;

/** Some events, all of one shard. */
export interface FeedBlock {
  readonly events: readonly ChangeEvent[];
  /** Where to go on when so many of them are dealt with. */
  readonly behind: (events: number) => FeedPosition;
}

/** Events since the position are lost: the feed no longer has them. */
export class ChangeFeedGap extends Error {
  override readonly name = 'ChangeFeedGap';
}

/** Manifests are some KiB. */
const maxManifestBytes = 4 * 1024 ** 2;
/** The shortest retention that an account can have. */
const minRetentionMs = 24 * 3600_000;
const hourMs = 3600_000;
/** An event is in the segment of its hour, give or take 15 minutes, and a segment need not begin at the full hour. */
const lateMs = 15 * 60_000;
const segmentSpreadMs = hourMs + lateMs;

/** Every event before that time is read where the feed is consumable up to `lastMs`, the segment of which may not be. */
export function toldBefore(lastMs: number): number {
  return lastMs - (lastMs % hourMs) - lateMs;
}

export class ChangeFeed {
  readonly #blobs: GrowingBlobs;
  /** Everything up to `last` was read from there: as long as `last` stays, nothing can have come. */
  #drained: { readonly segment: string; readonly last: string } | undefined;

  constructor(blobs: GrowingBlobs) {
    this.#blobs = blobs;
  }

  /**
   * The service's time, and up to when the feed can be read; ms since the epoch. BlobError `missing` where the account
   * has no feed, `forbidden` where the credentials do not reach it.
   */
  async consumable(signal: AbortSignal): Promise<{ readonly nowMs: number; readonly lastMs: number }> {
    const { bytes, servedMs } = await this.#blobs.slice(consumableBlob, 0, maxManifestBytes, signal);
    return { nowMs: servedMs, lastMs: parseConsumable(bytes) };
  }

  /** The position before every event of that time and later. */
  startAt(ms: number): FeedPosition {
    return { segment: segmentAt(ms - segmentSpreadMs), read: 'nothing', shards: {}, seenMs: ms };
  }

  /** What is consumable now behind the position; the last block has no events. Throws ChangeFeedGap. */
  async *read(from: FeedPosition, signal: AbortSignal): AsyncGenerator<FeedBlock, void, undefined> {
    const { nowMs, lastMs } = await this.consumable(signal);
    const last = segmentAt(lastMs);
    let position = from;
    if (this.#drained?.last !== last || this.#drained.segment !== from.segment || from.read === 'some') {
      try {
        position = yield* this.#segments(from, last, nowMs, signal);
      } catch (error) {
        if (error instanceof BlobError && (error.kind === 'missing' || error.kind === 'changed'))
          throw new ChangeFeedGap('a part of the change feed was deleted or replaced while it was read', {
            cause: error,
          });
        throw error;
      }
    }
    yield { events: [], behind: () => ({ ...position, seenMs: nowMs }) };
  }

  /** Returns the position behind everything. */
  async *#segments(
    from: FeedPosition,
    last: string,
    nowMs: number,
    signal: AbortSignal,
  ): AsyncGenerator<FeedBlock, FeedPosition, undefined> {
    let position = from;
    const segments = await this.#listed(from.segment, last, signal);
    checkContinuity(from, segments, last, nowMs);
    for (const segment of segments) {
      if (segment === position.segment && position.read === 'all') continue;
      const manifest = await this.#manifest(segment, signal);
      // `lastConsumable` names the hour that is being written or the last whole one: the documents allow both.
      if (segment === last && !manifest.final) return position;
      let shards = segment === position.segment ? position.shards : {};
      for (const shard of manifest.shards) {
        for await (const { events, at } of this.#shard(shard, shards[shard], manifest.final, signal)) {
          const before = shards;
          const behind = (count: number): FeedPosition => ({
            segment,
            read: 'some',
            shards: { ...before, [shard]: at(count) },
            seenMs: from.seenMs,
          });
          yield { events, behind };
          shards = { ...before, [shard]: at(events.length) };
        }
      }
      position = { segment, read: manifest.final ? 'all' : 'some', shards, seenMs: from.seenMs };
      if (!manifest.final) return position;
      position = { ...position, shards: {} };
    }
    this.#drained = { segment: position.segment, last };
    return position;
  }

  /** Segments from one to another, both included, in order. */
  async #listed(from: string, to: string, signal: AbortSignal): Promise<readonly string[]> {
    const found: string[] = [];
    if (from > to) return found;
    for await (const page of this.#blobs.list({ prefix: manifestsPrefix(from, to), signal })) {
      for (const { name } of page) {
        const segment = segmentOfManifest(name);
        if (segment !== undefined && segment >= from && segment <= to) found.push(segment);
      }
    }
    return found;
  }

  async #manifest(segment: string, signal: AbortSignal): Promise<ReturnType<typeof parseManifest>> {
    const blob = manifestOf(segment);
    const { bytes } = await this.#blobs.slice(blob, 0, maxManifestBytes, signal);
    return parseManifest(blob, bytes);
  }

  async *#shard(
    shard: string,
    from: ShardPosition | undefined,
    final: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<
    { readonly events: readonly ChangeEvent[]; readonly at: (events: number) => ShardPosition },
    void,
    undefined
  > {
    const chunks: { readonly name: string; readonly size: number }[] = [];
    for await (const page of this.#blobs.list({ prefix: shard, signal })) {
      chunks.push(...page.filter(({ name }) => name.endsWith('.avro') && name >= (from?.chunk ?? '')));
    }
    if (from !== undefined && chunks[0]?.name !== from.chunk)
      throw new ChangeFeedGap(`the change feed no longer has its chunk ${from.chunk}`);
    for (const [index, { name, size }] of chunks.entries()) {
      const { offset, events: skipped } = name === from?.chunk ? from : { offset: 0, events: 0 };
      const newest = index === chunks.length - 1;
      if (size === offset && newest) continue;
      if (size < offset) throw new ChangeFeedGap(`the change feed's chunk ${name} was replaced`);
      // A chunk with another behind it is closed, but perhaps only since the listing reached it: its own size counts.
      const options = { offset, closed: final || !newest, signal };
      for await (const block of readChunk(this.#blobs, name, options)) {
        const read = block.offset === offset ? skipped : 0;
        if (read > block.events.length)
          throw new ChangeFeedGap(`the change feed's chunk ${name} was replaced`);
        yield {
          events: block.events.slice(read),
          at: (count) =>
            read + count === block.events.length
              ? { chunk: name, offset: block.end, events: 0 }
              : { chunk: name, offset: block.offset, events: read + count },
        };
      }
    }
  }
}

/**
 * Retention deletes the oldest segments. As long as the one of the position is there nothing behind it is gone; where
 * it is not, nothing can have gone in less than the shortest retention.
 */
function checkContinuity(
  { segment, read, seenMs }: FeedPosition,
  segments: readonly string[],
  last: string,
  nowMs: number,
): void {
  if (segments.includes(segment)) return;
  if (read !== 'nothing' && segment > last)
    throw new ChangeFeedGap(
      `the change feed was created again: it is consumable up to ${last}, and ${segment} was read before`,
    );
  if (read !== 'some' && nowMs - seenMs < minRetentionMs) return;
  throw new ChangeFeedGap(
    `the change feed no longer has the segment ${segment}: its retention (changeFeed.retentionInDays of the account's ` +
      'blob service, 7 days or more) is shorter than the time since it was read',
  );
}
