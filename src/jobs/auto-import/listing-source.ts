/**
 * Changes by comparing listings, for accounts and emulators without a change feed: what the last listing showed is kept in
 * the job's folder, so that no memory grows with the container.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { compareListed, isUnderPrefix } from '../../blob/listing-order.js';
import type { Container, ListedBlob } from '../../blob/port.js';
import { SourceGap, type Changes, type ChangeSource } from './change-source.js';
import { lookAt } from './look.js';
import { ListingWriter, readListing, type Known } from './listing-file.js';

export interface ListingSourceOptions {
  readonly container: Pick<Container, 'list' | 'properties' | 'check'>;
  /** As blobPrefixes() gives them, none of which holds another. */
  readonly prefixes: readonly string[];
  /** Where the listings are kept. */
  readonly folder: string;
  /** The account lists the blobs below a directory right behind it. */
  readonly hierarchical: boolean;
}

/** Changes in one batch, about. */
const batchChanges = 1000;

/** Listings that were cut off, before they are made one. */
const maxPartials = 4;

/** Listings that were cut off, and names that one left out: what stubs were made of may be gone in the whole one. */
const partials = z.array(z.string()).readonly();

const scanSchema = z.object({ scan: z.string(), partials });

const cursorSchema = z.object({
  /** The last whole listing. */
  file: z.string(),
  partials: partials.default([]),
  /** The order of all of them. */
  hierarchical: z.boolean().default(false),
  /** The one after it, as far as its changes are applied. */
  partial: z
    .object({
      file: z.string(),
      bytes: z.int(),
      after: z.string(),
      unlisted: z.array(z.string()).default([]),
    })
    .exactOptional(),
});
type Cursor = z.infer<typeof cursorSchema>;

/** Of no blob: its name is told again. */
const unknownEtag = '';

const namePattern = /^listing\.(\d+)$/;

export class ListingSource implements ChangeSource {
  readonly kind = 'listing';
  readonly #options: ListingSourceOptions;
  #writer: ListingWriter | undefined;

  constructor(options: ListingSourceOptions) {
    this.#options = options;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    await writer?.[Symbol.asyncDispose]();
  }

  async begin(previous: unknown): Promise<unknown> {
    await this[Symbol.asyncDispose]();
    const { data } = scanSchema.safeParse(previous);
    const before = data === undefined ? [] : [...data.partials, data.scan];
    await this.#forget(before);
    const kept = await readdir(this.#options.folder);
    const cutOff = before.filter((file) => kept.includes(file));
    const scan = fileAfter(cutOff);
    this.#writer = await ListingWriter.create(this.#path(scan));
    return { scan, partials: cutOff } satisfies z.infer<typeof scanSchema>;
  }

  async observe(page: readonly ListedBlob[]): Promise<void> {
    for (const blob of page) await this.#writer?.add(blob);
    // Before the page's stubs: whatever the next daemon finds, it knows where it came from.
    await this.#writer?.flush();
  }

  async observed(begun: unknown): Promise<unknown> {
    const { scan, partials } = scanSchema.parse(begun);
    await this.#writer?.sync();
    await this[Symbol.asyncDispose]();
    return { file: scan, partials, hierarchical: this.#options.hierarchical } satisfies Cursor;
  }

  async *poll(from: unknown, signal: AbortSignal): AsyncGenerator<Changes, void, undefined> {
    const { success, data: cursor } = cursorSchema.safeParse(from);
    if (!success) throw new SourceGap('the last listing is not known');
    const { hierarchical } = cursor;
    if (hierarchical !== this.#options.hierarchical)
      throw new SourceGap('the account lists its names in another order now');
    const partials = await this.#partials(cursor);
    const next = fileAfter([cursor.file, ...partials]);
    await using writer = await ListingWriter.create(this.#path(next));
    await using unlisted = new Unlisted(this.#path(fileAfter([next])));
    const hidden = (): readonly string[] => (unlisted.any ? [fileAfter([next])] : []);
    let present: ListedBlob[] = [];
    let absent: string[] = [];
    const told = { any: false };
    const batch = async (at: { readonly after: string } | 'end'): Promise<Changes> => {
      const bytes = await writer.sync();
      // Nothing is deleted because a service left a name out or listed it in another order.
      const looked = await lookAt(this.#options.container, absent, signal);
      await unlisted.add(looked.present.toSorted((a, b) => this.#compare(a.name, b.name)));
      const unlistedFiles = [...hidden()];
      const reached: Cursor =
        at === 'end'
          ? { file: next, partials: unlistedFiles, hierarchical }
          : {
              file: cursor.file,
              partials: [...partials, ...unlistedFiles],
              hierarchical,
              partial: { file: next, bytes, after: at.after, unlisted: unlistedFiles },
            };
      const changes = { present: [...present, ...looked.present], absent: looked.absent, cursor: reached };
      present = [];
      absent = [];
      told.any = true;
      return changes;
    };

    const known = this.#known({ ...cursor, partials });
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
        if (present.length + absent.length >= batchChanges) yield await batch({ after: blob.name });
      }
      for (; old !== undefined; old = await nextOf(known)) {
        absent.push(old.name);
        if (absent.length >= batchChanges) yield await batch({ after: old.name });
      }
    } catch (error) {
      // No stub came of it.
      if (!told.any) await rm(this.#path(next), { force: true });
      throw error;
    } finally {
      await known.return();
    }
    if (told.any || partials.length > 0 || present.length + absent.length > 0) yield await batch('end');
    else await rm(this.#path(next));
  }

  /**
   * Listings that were begun and did not become the cursor: stubs may have been made of what they have, and nobody else
   * remembers that. Everything older is removed.
   */
  async #partials({ file, partials, partial }: Cursor): Promise<readonly string[]> {
    const names = (await readdir(this.#options.folder)).filter((name) => namePattern.test(name));
    const newer = names.filter((name) => numberOf(name) > numberOf(file));
    const named = [...partials, ...(partial === undefined ? [] : [partial.file, ...partial.unlisted])];
    const kept = [...new Set([...named, ...newer])];
    await this.#forget([file, ...kept]);
    if (kept.length <= maxPartials) return kept;
    // An account that fails at every poll would leave one more each time.
    const folded = await this.#fold(kept, fileAfter([file, ...kept]));
    await this.#forget([file, ...named, folded]);
    return [folded];
  }

  /** The names of all of them in one file, which is durable when it resolves. */
  async #fold(files: readonly string[], into: string): Promise<string> {
    const [first = into, ...others] = files;
    let all = this.#read(first);
    for (const file of others) all = this.#merge(all, this.#read(file));
    await using writer = await ListingWriter.create(this.#path(into));
    for await (const one of all) await writer.add(one);
    await writer.sync();
    return into;
  }

  async *#list(signal: AbortSignal): AsyncGenerator<ListedBlob, void, undefined> {
    const { container, prefixes } = this.#options;
    for (const prefix of prefixes) for await (const page of container.list({ prefix, signal })) yield* page;
  }

  /** What the last listing showed, up to where its successor was applied what that one shows. */
  async *#known({ file, partials, partial }: Cursor): AsyncGenerator<Known, void, undefined> {
    let whole = this.#read(file);
    for (const part of partials) whole = this.#merge(whole, this.#read(part));
    if (partial === undefined) {
      yield* whole;
      return;
    }
    let done = this.#read(partial.file, partial.bytes);
    for (const part of partial.unlisted) done = this.#merge(done, this.#read(part));
    for await (const one of done) if (this.#compare(one.name, partial.after) <= 0) yield one;
    for await (const one of whole) if (this.#compare(one.name, partial.after) > 0) yield one;
  }

  /** The whole listing, and what only the partial one has: whether that was applied nobody knows. */
  async *#merge(
    whole: AsyncGenerator<Known, void, undefined>,
    partial: AsyncGenerator<Known, void, undefined>,
  ): AsyncGenerator<Known, void, undefined> {
    let old = await nextOf(partial);
    for await (const one of whole) {
      for (; old !== undefined && this.#compare(old.name, one.name) < 0; old = await nextOf(partial)) {
        yield { ...old, etag: unknownEtag };
      }
      yield one;
      if (old?.name === one.name) old = await nextOf(partial);
    }
    for (; old !== undefined; old = await nextOf(partial)) yield { ...old, etag: unknownEtag };
  }

  async *#read(file: string, bytes?: number): AsyncGenerator<Known, void, undefined> {
    try {
      yield* readListing(this.#path(file), bytes);
    } catch (error) {
      throw new SourceGap(`the listing ${file} cannot be read`, { cause: error });
    }
  }

  /** In the order of a listing. */
  #compare(a: string, b: string): number {
    const { prefixes, hierarchical } = this.#options;
    const prefixOf = (name: string): number =>
      prefixes.findIndex((prefix) => isUnderPrefix(name, prefix, hierarchical));
    if (prefixes.length > 1 && prefixOf(a) !== prefixOf(b)) return prefixOf(a) - prefixOf(b);
    return compareListed(a, b, hierarchical);
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

/** A listing of the names that the big one lacks although they are there; a file only when there is one. */
class Unlisted implements AsyncDisposable {
  readonly #path: string;
  #writer: ListingWriter | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  get any(): boolean {
    return this.#writer !== undefined;
  }

  /** In the order of the listing; durable when it resolves. */
  async add(blobs: readonly Known[]): Promise<void> {
    if (blobs.length === 0) return;
    this.#writer ??= await ListingWriter.create(this.#path);
    for (const blob of blobs) await this.#writer.add(blob);
    await this.#writer.sync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer?.[Symbol.asyncDispose]();
  }
}

async function nextOf<T>(items: AsyncIterator<T, void, undefined>): Promise<T | undefined> {
  const { value } = await items.next();
  return value ?? undefined;
}

/** A name that no listing has had since these. */
function fileAfter(files: readonly string[]): string {
  return `listing.${1 + Math.max(0, ...files.map(numberOf))}`;
}

function numberOf(file: string): number {
  return Number(namePattern.exec(file)?.[1] ?? 0);
}
