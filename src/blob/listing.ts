/**
 * A listing of which several directories are asked for at a time. A page of 5,000 names takes the service a third of a
 * second, and a page says where the next one starts; what is below another directory can be asked for at once.
 */
import { BlobError } from '../base/errors.js';
import type { ListPage } from './list-scanner.js';
import { compareListed } from './listing-order.js';
import type { ListedBlob } from './port.js';

export interface PageRequest {
  readonly prefix: string;
  /** Where the page starts; the first one without it. */
  readonly marker?: string;
  /** What has a '/' behind the prefix is told by its prefix only. */
  readonly delimiter?: '/';
}

export type AskPage = (request: PageRequest) => Promise<ListPage>;

/** Directories whose first pages are asked for ahead of the one that is read. */
const shardsAhead = 8;
/** What pays while most directories are large must not cost minutes where they are not. */
const maxShards = 2000;
/** Pages that directories must fill on the average. */
const leastShare = 1 / 25;

/** A call for each directory of a few names would cost whoever reads them more than the names. */
const leastBlobs = 1000;

/** By UTF-8 such names have other places than by code unit. */
const orderUnknown = /[\ud800-\uffff]/;
/** Of a deep tree the outermost. */
const maxLevels = 8;
const defaultStaleMs = 10_000;

/** All whose names begin with `name`, or, with `level`, the one blob of that name among those directly in that directory. */
interface Entry {
  readonly name: string;
  readonly level?: string;
}

/**
 * The pages of a listing, in its order, none of them empty. `sharded`: several directories at a time, of a flat account
 * only. What it yields was asked for at most `staleMs` before it was wanted, but for the page ahead.
 */
export async function* listing(
  ask: AskPage,
  prefix: string,
  {
    sharded,
    first = ahead(ask({ prefix })),
    staleMs = defaultStaleMs,
  }: {
    readonly sharded: boolean;
    readonly first?: Promise<ListPage> | undefined;
    readonly staleMs?: number;
  },
): AsyncGenerator<readonly ListedBlob[], void, void> {
  let marker: string | undefined;
  let last = '';
  let plan: { readonly found?: readonly Entry[] } | undefined;
  /** What is behind the directory that is read now. */
  let shards: readonly Entry[] = [];
  let page = await first;
  for (;;) {
    const { blobs, nextMarker } = page;
    if (nextMarker !== undefined && nextMarker === marker) throw repeated(prefix);
    marker = nextMarker;
    // One page ahead: the service works on it while this one is used.
    const next = marker === undefined ? undefined : ahead(ask({ prefix, marker }));
    if (shards.length === 0 && plan?.found !== undefined) {
      shards = plan.found.filter(({ name }) => name > last);
      plan = {};
    }
    const [shard] = shards;
    const end = shard === undefined ? -1 : blobs.findIndex(({ name }) => name >= shard.name);
    const read = end < 0 ? blobs : blobs.slice(0, end);
    if (sharded && next !== undefined && read.length > 0) plan ??= planned(ask, prefix, read);
    last = read.at(-1)?.name ?? last;
    if (read.length > 0) yield read;
    if (end >= 0) break;
    if (next === undefined) return;
    page = await next;
  }
  yield* shardsOf(ask, shards, staleMs);
}

/** What is listed behind the directory that `blobs` end in, as soon as it is known; undefined: it would not pay. */
function planned(
  ask: AskPage,
  prefix: string,
  blobs: readonly ListedBlob[],
): { readonly found?: readonly Entry[] } | undefined {
  const directories = directoriesOf(prefix, blobs).slice(0, maxLevels);
  if (directories.length === 0) return undefined;
  const plan: { found?: readonly Entry[] } = {};
  entries(ask, directories).then(
    (found) => (plan.found = found),
    // The listing goes on without; it has the same error where there is one.
    () => undefined,
  );
  return plan;
}

/** What is directly in each of some directories that are within each other, as far as that is few enough. */
async function entries(ask: AskPage, directories: readonly string[]): Promise<readonly Entry[]> {
  const levels = await Promise.all(
    directories.map(async (level) => ({
      level,
      ...(await ahead(ask({ prefix: level, delimiter: '/' }))),
    })),
  );
  const names = (found: readonly ListedBlob[]): readonly string[] => found.map(({ name }) => name);
  // What an account lists in another order than this one has no place behind the directory that is read.
  const known = (names: readonly string[]): boolean =>
    isInOrder(names) && !names.some((name) => orderUnknown.test(name));
  if (!levels.every(({ blobs, prefixes }) => known(prefixes) && known(names(blobs)))) return [];
  const tooWide = levels.findIndex(
    (level) => level.nextMarker !== undefined || level.prefixes.length > maxShards,
  );
  return levels
    .slice(0, tooWide < 0 ? levels.length : tooWide)
    .flatMap(({ level, blobs, prefixes }) => [
      ...names(blobs).map((name): Entry => ({ name, level })),
      ...prefixes.map((name): Entry => ({ name })),
    ])
    .sort((a, b) => compareListed(a.name, b.name, false));
}

function isInOrder(names: readonly string[]): boolean {
  return names.every((name, at) => at === 0 || compareListed(names[at - 1] ?? '', name, false) < 0);
}

/** From the prefix down to the innermost that has all of `blobs`, unless those in that one are small. */
function directoriesOf(prefix: string, blobs: readonly ListedBlob[]): readonly string[] {
  const [first, last] = [blobs.at(0)?.name ?? '', blobs.at(-1)?.name ?? ''];
  let common = prefix.length;
  while (common < first.length && first[common] === last[common]) common++;
  const found = [prefix];
  for (let at = first.indexOf('/', prefix.length); at >= 0 && at < common; at = first.indexOf('/', at + 1))
    found.push(first.slice(0, at + 1));
  const from = found.at(-1)?.length ?? 0;
  const below = blobs.flatMap(({ name }) => {
    const end = name.indexOf('/', from);
    return end < 0 ? [] : name.slice(0, end);
  });
  // Names alone say nothing of directories that come later.
  const large = below.length / new Set(below).size >= blobs.length * leastShare;
  return large ? found : found.slice(0, -1);
}

/** All that is in `shards`, which are in the order of the listing. */
async function* shardsOf(
  ask: AskPage,
  shards: readonly Entry[],
  staleMs: number,
): AsyncGenerator<readonly ListedBlob[], void, void> {
  const begun = new Map<Entry, () => Promise<ListPage>>();
  const directories = shards.filter(({ level }) => level === undefined).values();
  const begin = (): void => {
    const { value } = directories.next();
    if (value !== undefined)
      begun.set(
        value,
        fresh(() => ask({ prefix: value.name }), staleMs),
      );
  };
  for (let n = 0; n < shardsAhead; n++) begin();
  const levels = new Map<string, () => Promise<readonly ListedBlob[]>>();
  const blobsOf = (level: string): Promise<readonly ListedBlob[]> => {
    const known = levels.get(level) ?? fresh(() => blobsIn(ask, level), staleMs);
    levels.set(level, known);
    return known();
  };
  let few: ListedBlob[] = [];
  for (let at = 0; at < shards.length;) {
    const { name, level } = shards[at] as Entry;
    let pages: AsyncIterable<readonly ListedBlob[]> | Iterable<readonly ListedBlob[]>;
    if (level === undefined) {
      const first = begun.get(shards[at] as Entry)?.();
      begun.delete(shards[at++] as Entry);
      pages = listing(ask, name, { sharded: true, first, staleMs });
    } else {
      while (shards[at]?.level === level) at++;
      const end = shards[at]?.name;
      const blobs = await blobsOf(level);
      pages = [blobs.filter((blob) => blob.name >= name && (end === undefined || blob.name < end))];
    }
    for await (const page of pages) {
      for (const blob of page) few.push(blob);
      if (few.length < leastBlobs) continue;
      yield few;
      few = [];
    }
    if (level === undefined) begin();
  }
  if (few.length > 0) yield few;
}

/** What is directly in a directory, and no directory itself. */
async function blobsIn(ask: AskPage, prefix: string): Promise<readonly ListedBlob[]> {
  const blobs: ListedBlob[] = [];
  for (let marker: string | undefined; ;) {
    const page = await ask({ prefix, delimiter: '/', ...(marker !== undefined && { marker }) });
    for (const blob of page.blobs) blobs.push(blob);
    if (page.nextMarker === undefined) return blobs;
    if (page.nextMarker === marker) throw repeated(prefix);
    marker = page.nextMarker;
  }
}

function repeated(prefix: string): BlobError {
  return new BlobError('corrupt', `the listing of '${prefix}': the service repeats a page`);
}

/**
 * What is asked for ahead, and again where that failed or the answer is old when it is needed: whoever reads it may
 * give up data for it.
 */
function fresh<T>(ask: () => Promise<T>, staleMs: number): () => Promise<T> {
  let answeredMs = Number.POSITIVE_INFINITY;
  const asked = (): Promise<T> => {
    answeredMs = Number.POSITIVE_INFINITY;
    const answer = ask();
    answer.then(
      () => (answeredMs = performance.now()),
      () => (answeredMs = Number.NEGATIVE_INFINITY),
    );
    return answer;
  };
  let answer = asked();
  return () => {
    if (performance.now() - answeredMs >= staleMs) answer = asked();
    return answer;
  };
}

/** It is awaited later, or was abandoned with the listing. */
function ahead<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
