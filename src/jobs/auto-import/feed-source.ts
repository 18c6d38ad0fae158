/**
 * Changes from the account's change feed. An event is only a hint: it comes late, perhaps twice, without metadata and in no
 * order among blobs. What the container has under its name now decides, so that events may be applied again and again.
 */
import { z } from 'zod';
import type { Clock } from '../../base/clock.js';
import { BlobError } from '../../base/errors.js';
import { changedBlob, type ChangeEvent } from '../../blob/change-event.js';
import {
  ChangeFeedGap,
  feedPosition,
  toldBefore,
  type ChangeFeed,
  type FeedBlock,
  type FeedPosition,
} from '../../blob/change-feed.js';
import { unaddressable } from '../../blob/names.js';
import type { Container, ListedBlob } from '../../blob/port.js';
import { SourceGap, type Changes, type ChangeSource, type Horizon } from './change-source.js';
import { lookAt } from './look.js';

export interface FeedSourceOptions {
  readonly container: Pick<Container, 'name' | 'properties' | 'check'>;
  readonly feed: Pick<ChangeFeed, 'consumable' | 'startAt' | 'read'>;
  /** As blobPrefixes() gives them. */
  readonly prefixes: readonly string[];
  readonly clock: Pick<Clock, 'sleep'>;
}

/** Names in one batch. */
const batchNames = 1000;
/** Events of others after which the cursor moves all the same, or a crash would have them all read again. */
const batchEvents = 100_000;
/** How old the cursor of a quiet account gets: far less than the shortest retention, a day. */
const restMs = 3600_000;

const cursorSchema = z.object({
  /** Events before this time are the full sync's, ms since the epoch by the service's clock. */
  beginMs: z.number(),
  position: feedPosition,
});
type Cursor = z.infer<typeof cursorSchema>;

export class FeedSource implements ChangeSource {
  readonly kind = 'feed';
  readonly #options: FeedSourceOptions;

  constructor(options: FeedSourceOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the service's clock, which tells whole seconds, shows that a new second has begun: deletions before it
   * never count, and whatever the full sync lists is listed after it.
   */
  async begin(previous: unknown, signal: AbortSignal): Promise<unknown> {
    const begun = cursorSchema.safeParse(previous);
    if (begun.success) return begun.data;
    const { clock } = this.#options;
    const beginMs = (await this.horizon(signal)).nowMs + 1000;
    while ((await this.horizon(signal)).nowMs < beginMs) await clock.sleep(100, signal);
    return { beginMs, position: this.#options.feed.startAt(beginMs) } satisfies Cursor;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  observe(): Promise<void> {
    return Promise.resolve();
  }

  observed(cursor: unknown): Promise<unknown> {
    return Promise.resolve(cursor);
  }

  async horizon(signal: AbortSignal): Promise<Horizon> {
    try {
      const { nowMs, lastMs } = await this.#options.feed.consumable(signal);
      return { nowMs, toldMs: toldBefore(lastMs) };
    } catch (error) {
      throw explained(error);
    }
  }

  async *poll(from: unknown, signal: AbortSignal): AsyncGenerator<Changes, void, undefined> {
    const { success, data: cursor } = cursorSchema.safeParse(from);
    if (!success) throw new SourceGap('the position in the change feed is not known');
    const { beginMs, position } = cursor;
    let told = position;
    let batch = new Batch();
    const changes = async (behind: FeedPosition): Promise<Changes> => {
      told = behind;
      const { names, newestMs } = batch;
      batch = new Batch();
      return {
        ...(await this.#look(names, signal)),
        cursor: { beginMs, position: behind } satisfies Cursor,
        ...(newestMs !== undefined && { newestMs }),
      };
    };
    for await (const block of this.#read(position, signal)) {
      for (const [index, event] of block.events.entries()) {
        batch.events++;
        if (event.timeMs >= beginMs) this.#note(batch, event);
        if (batch.names.size >= batchNames || batch.events >= batchEvents)
          yield await changes(block.behind(index + 1));
      }
      if (block.events.length > 0) continue;
      const behind = block.behind(0);
      if (batch.names.size > 0 || isElsewhere(behind, told)) yield await changes(behind);
    }
  }

  async *#read(from: FeedPosition, signal: AbortSignal): AsyncGenerator<FeedBlock, void, undefined> {
    try {
      yield* this.#options.feed.read(from, signal);
    } catch (error) {
      if (error instanceof ChangeFeedGap) throw new SourceGap(error.message, { cause: error.cause });
      throw explained(error);
    }
  }

  #note(batch: Batch, event: ChangeEvent): void {
    const { container, prefixes } = this.#options;
    const name = changedBlob(event, container.name);
    if (name === undefined || !prefixes.some((prefix) => name.startsWith(prefix))) return;
    batch.names.set(name, event);
    batch.newestMs = Math.max(batch.newestMs ?? 0, event.timeMs);
  }

  async #look(
    names: ReadonlyMap<string, ChangeEvent>,
    signal: AbortSignal,
  ): Promise<Pick<Changes, 'present' | 'absent'>> {
    // Nobody can ask for some; the import says so, as it does when a listing shows one.
    const odd: ListedBlob[] = [];
    const askable: string[] = [];
    for (const [name, { type }] of names) {
      if (unaddressable(name) === undefined) askable.push(name);
      else if (type !== 'BlobDeleted') odd.push(unknownBlob(name));
    }
    const { present, absent } = await lookAt(this.#options.container, askable, signal);
    return { present: [...present, ...odd], absent };
  }
}

/** What a poll has collected. */
class Batch {
  /** Blob -> the last event about it. */
  readonly names = new Map<string, ChangeEvent>();
  events = 0;
  newestMs: number | undefined;
}

/** A feed that is not there, with what to do about it. */
function explained(error: unknown): unknown {
  if (!(error instanceof BlobError) || error.kind !== 'missing') return error;
  return new BlobError(
    'missing',
    "the account has no change feed any more: enable it (changeFeed.enabled of the account's blob service), or " +
      'create the auto-import with --source listing',
    { cause: error },
  );
}

/** Worth writing down. */
function isElsewhere(one: FeedPosition, other: FeedPosition): boolean {
  const place = ({ segment, read, shards }: FeedPosition): string => JSON.stringify([segment, read, shards]);
  return place(one) !== place(other) || one.seenMs - other.seenMs >= restMs;
}

function unknownBlob(name: string): ListedBlob {
  return { name, kind: 'file', size: 0, etag: '', lastModifiedMs: 0, posix: {}, metadata: {} };
}
