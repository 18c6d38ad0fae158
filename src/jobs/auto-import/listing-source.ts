/**
 * Changes by comparing listings, for accounts and emulators without a change feed: what the last listing showed is kept in
 * the job's folder, so that no memory grows with the container.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { BlobError } from '../../base/errors.js';
import { listedBlob } from '../../blob/listed.js';
import type { Container, ListedBlob } from '../../blob/port.js';
import { SourceGap, type Changes, type ChangeSource } from './change-source.js';
import { ListingWriter, readListing, type Known } from './listing-file.js';
import { Parallel } from '../parallel.js';

export interface ListingSourceOptions {
  readonly container: Pick<Container, 'list' | 'properties'>;
  /** As blobPrefixes() gives them, none of which begins with another. */
  readonly prefixes: readonly string[];
  /** Where the listings are kept. */
  readonly folder: string;
  /** The account lists the blobs below a directory right behind it. */
  readonly hierarchical: boolean;
}

/** Changes in one batch, about. */
const batchChanges = 1000;
const parallelLooks = 32;

const cursorSchema = z.object({
  /** The last whole listing. */
  file: z.string(),
  /** The one after it, as far as its changes are applied. */
  partial: z.object({ file: z.string(), bytes: z.int(), after: z.string() }).exactOptional(),
});
type Cursor = z.infer<typeof cursorSchema>;

const namePattern = /^listing\.(\d+)$/;

export class ListingSource implements ChangeSource {
  readonly kind = 'listing';
  readonly #options: ListingSourceOptions;
  #writer: ListingWriter | undefined;
  #writing = '';

  constructor(options: ListingSourceOptions) {
    this.#options = options;
  }

  async begin(): Promise<unknown> {
    await this.#writer?.[Symbol.asyncDispose]();
    await this.#forget([]);
    this.#writing = 'listing.1';
    this.#writer = await ListingWriter.create(this.#path(this.#writing));
    return null;
  }

  async observe(page: readonly ListedBlob[]): Promise<void> {
    for (const blob of page) await this.#writer?.add(blob);
  }

  async observed(): Promise<unknown> {
    await this.#writer?.sync();
    await this.#writer?.[Symbol.asyncDispose]();
    this.#writer = undefined;
    return { file: this.#writing } satisfies Cursor;
  }

  async *poll(from: unknown, signal: AbortSignal): AsyncGenerator<Changes, void, undefined> {
    const { success, data: cursor } = cursorSchema.safeParse(from);
    if (!success) throw new SourceGap('the last listing is not known');
    const files = [cursor.file, ...(cursor.partial === undefined ? [] : [cursor.partial.file])];
    await this.#forget(files);
    const next = `listing.${1 + Math.max(...files.map(numberOf))}`;
    await using writer = await ListingWriter.create(this.#path(next));
    let present: ListedBlob[] = [];
    let absent: string[] = [];
    const told = { any: false };
    const batch = async (after: string | undefined): Promise<Changes> => {
      const bytes = await writer.sync();
      const partial = after === undefined ? {} : { partial: { file: next, bytes, after } };
      const looked = await this.#look(absent, signal);
      const changes: Changes = {
        present: [...present, ...looked.present],
        absent: looked.absent,
        cursor: { file: after === undefined ? next : cursor.file, ...partial } satisfies Cursor,
      };
      present = [];
      absent = [];
      told.any = true;
      return changes;
    };

    const known = this.#known(cursor);
    try {
      let old = await nextOf(known);
      for await (const blob of this.#list(signal)) {
        for (; old !== undefined && this.#compare(old.name, blob.name) < 0; old = await nextOf(known)) {
          absent.push(old.name);
        }
        if (old?.name !== blob.name) present.push(blob);
        else {
          if (old.etag !== blob.etag) present.push(blob);
          old = await nextOf(known);
        }
        await writer.add(blob);
        if (present.length + absent.length >= batchChanges) yield await batch(blob.name);
      }
      for (; old !== undefined; old = await nextOf(known)) {
        absent.push(old.name);
        // No name is behind these: after a crash all of them are found again.
        if (absent.length >= batchChanges) yield { ...(await batch('')), cursor };
      }
    } finally {
      await known.return();
    }
    if (told.any || present.length + absent.length > 0 || cursor.partial !== undefined)
      yield await batch(undefined);
  }

  async *#list(signal: AbortSignal): AsyncGenerator<ListedBlob, void, undefined> {
    const { container, prefixes } = this.#options;
    for (const prefix of prefixes) for await (const page of container.list({ prefix, signal })) yield* page;
  }

  /** What the last listing showed, up to where its successor was applied what that one shows. */
  async *#known({ file, partial }: Cursor): AsyncGenerator<Known, void, undefined> {
    if (partial === undefined) {
      yield* this.#read(file);
      return;
    }
    yield* this.#read(partial.file, partial.bytes);
    for await (const one of this.#read(file)) if (this.#compare(one.name, partial.after) > 0) yield one;
  }

  async *#read(file: string, bytes?: number): AsyncGenerator<Known, void, undefined> {
    try {
      yield* readListing(this.#path(file), bytes);
    } catch (error) {
      throw new SourceGap(`the listing ${file} cannot be read`, { cause: error });
    }
  }

  /**
   * Whether names that a listing lacks are gone: nothing is deleted because a service left a name out or listed it in
   * another order.
   */
  async #look(names: readonly string[], signal: AbortSignal): Promise<Pick<Changes, 'present' | 'absent'>> {
    const { container } = this.#options;
    const present: ListedBlob[] = [];
    const absent: string[] = [];
    const looks = new Parallel(parallelLooks);
    for (const name of names) {
      await looks.start(async () => {
        try {
          present.push(listedBlob(name, await container.properties(name, signal)));
        } catch (error) {
          if (!(error instanceof BlobError) || error.kind !== 'missing') throw error;
          absent.push(name);
        }
      });
    }
    await looks.finish();
    return { present, absent };
  }

  /** In the order of a listing. */
  #compare(a: string, b: string): number {
    const { prefixes, hierarchical } = this.#options;
    const prefixOf = (name: string): number => prefixes.findIndex((prefix) => name.startsWith(prefix));
    if (prefixes.length > 1 && prefixOf(a) !== prefixOf(b)) return prefixOf(a) - prefixOf(b);
    const [one, two] = hierarchical ? [a.replaceAll('/', '\0'), b.replaceAll('/', '\0')] : [a, b];
    return one < two ? -1 : one > two ? 1 : 0;
  }

  async #forget(keep: readonly string[]): Promise<void> {
    for (const name of await readdir(this.#options.folder)) {
      if (namePattern.test(name) && !keep.includes(name)) await rm(this.#path(name));
    }
  }

  #path(file: string): string {
    return join(this.#options.folder, file);
  }
}

async function nextOf<T>(items: AsyncIterator<T, void, undefined>): Promise<T | undefined> {
  const { value } = await items.next();
  return value ?? undefined;
}

function numberOf(file: string): number {
  return Number(namePattern.exec(file)?.[1] ?? 0);
}
