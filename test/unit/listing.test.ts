import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { listing, type AskPage, type PageRequest } from '../../src/blob/listing.js';
import { listedBlob } from '../../src/blob/listed.js';
import type { ListedBlob } from '../../src/blob/port.js';

/** An account that has `names`, as the service pages them. */
class Account {
  readonly asked: PageRequest[] = [];
  #names: readonly string[];
  readonly #pageSize: number;
  readonly #compare: (a: string, b: string) => number;
  /** Runs before each answer. */
  before: (request: PageRequest) => Promise<void> = () => Promise.resolve();

  constructor(
    names: Iterable<string>,
    pageSize: number,
    compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0),
  ) {
    this.#names = [...new Set(names)].sort(compare);
    this.#pageSize = pageSize;
    this.#compare = compare;
  }

  remove(names: readonly string[]): void {
    this.#names = this.#names.filter((name) => !names.includes(name));
  }

  get names(): readonly string[] {
    return this.#names;
  }

  readonly ask: AskPage = async (request) => {
    const { prefix, marker = '', delimiter } = request;
    this.asked.push(request);
    await this.before(request);
    const found = new Map<string, ListedBlob | undefined>();
    for (const name of this.#names) {
      if (!name.startsWith(prefix)) continue;
      const end = delimiter === undefined ? -1 : name.indexOf('/', prefix.length);
      const shown = end < 0 ? name : name.slice(0, end + 1);
      if (this.#compare(shown, marker) <= 0) continue;
      found.set(shown, end < 0 ? blob(name) : undefined);
      if (found.size > this.#pageSize) break;
    }
    const page = [...found].slice(0, this.#pageSize);
    const nextMarker = found.size > page.length ? page.at(-1)?.[0] : undefined;
    return {
      // As Azurite does it: not among each other.
      blobs: page.flatMap(([, found]) => found ?? []),
      prefixes: page.flatMap(([name, found]) => (found === undefined ? [name] : [])),
      nextMarker,
    };
  };
}

function blob(name: string): ListedBlob {
  const version = { etag: '0x1', size: 1, lastModifiedMs: 1, headers: {} };
  return listedBlob(name, { ...version, kind: 'file', posix: {}, metadata: {} });
}

async function namesOf(
  account: Account,
  prefix = '',
  { sharded = true, staleMs = 60_000 } = {},
): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const page of listing(account.ask, prefix, { sharded, staleMs })) {
    if (page.length === 0) throw new Error('an empty page');
    names.push(...page.map(({ name }) => name));
  }
  return names;
}

/** mulberry32 */
function randomOf(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((((x ^ (x >>> 14)) >>> 0) * below) / 2 ** 32) | 0;
  };
}

void t.test('a sharded listing has every name once, in the order of a plain one', async (t) => {
  const parts = ['a', 'a-', 'a.b', 'a0', 'b', 'ä', '', 'c c', 'd', '\u{1f600}', 'z'];
  for (let seed = 1; seed <= 300; seed++) {
    const random = randomOf(seed);
    const names = Array.from({ length: random(200) + 1 }, () => {
      const depth = random(4) + 1;
      const path = Array.from({ length: depth }, () => parts[random(random(parts.length) + 1)]).join('/');
      return `${path}${['', 'x', '/', String(random(50))][random(4)] ?? ''}`;
    }).filter((name) => name !== '');
    const account = new Account(names, random(30) + 1);
    // Answers overtake each other.
    account.before = async () => {
      for (let n = random(20); n > 0; n--) await Promise.resolve();
    };
    const prefix = ['', '', 'a', 'a/', 'b/a'][random(5)] ?? '';
    const wanted = account.names.filter((name) => name.startsWith(prefix));
    const found = await namesOf(account, prefix, { staleMs: random(2) * 60_000 });
    if (JSON.stringify(found) !== JSON.stringify(wanted)) t.same(found, wanted, `seed ${seed}`);
  }
});

void t.test('the first pages of eight directories are asked for at a time', async (t) => {
  const names = Array.from({ length: 40 }, (_, d) =>
    Array.from({ length: 50 }, (_, f) => `top/d${String(d + 10)}/f${String(f + 10)}`),
  ).flat();
  const account = new Account(names, 45);
  let [running, most] = [0, 0];
  account.before = async () => {
    most = Math.max(most, ++running);
    await new Promise(setImmediate);
    running--;
  };
  t.same(await namesOf(account), account.names);
  t.ok(most >= 8, `${String(most)} at a time`);
  t.ok(most <= 8 + 4, `${String(most)} at a time`);
  t.ok(account.asked.length <= 2 * 40 + 10, `${String(account.asked.length)} requests`);
});

void t.test('small directories, and one with too many, are not asked for one by one', async (t) => {
  const small = Array.from({ length: 3000 }, (_, d) => `d${String(d)}/f`);
  for (const [names, pageSize] of [
    [small, 100],
    [Array.from({ length: 900 }, (_, f) => `data/f${String(f)}`), 100],
    [Array.from({ length: 2100 }, (_, d) => [`${String(d)}/a`, `${String(d)}/b`]).flat(), 2],
  ] as const) {
    const account = new Account(names, pageSize);
    t.same(await namesOf(account), account.names);
    t.ok(
      account.asked.length <= Math.ceil(account.names.length / pageSize) + 4,
      String(account.asked.length),
    );
  }
});

void t.test('what is deleted while a listing is read is not in what comes later', async (t) => {
  const names = Array.from({ length: 200 }, (_, n) => `d${String(Math.trunc(n / 20))}/${String(n + 1000)}`);
  const account = new Account([...names, 'd8-late', 'z-late'], 15);
  const gone = ['d7/1140', 'd8-late', 'z-late'];
  const seen: string[] = [];
  for await (const page of listing(account.ask, '', { sharded: true, staleMs: 0 })) {
    if (seen.length === 0) await new Promise(setImmediate);
    seen.push(...page.map(({ name }) => name));
    account.remove(gone);
  }
  t.same(
    seen,
    [...names, 'd8-late', 'z-late'].sort().filter((name) => !gone.includes(name)),
  );
});

void t.test('an account with another order is listed page by page', async (t) => {
  const names = ['\uff01a', '\u{1f600}b', '\uff02c'].flatMap((directory) =>
    Array.from({ length: 50 }, (_, n) => `${directory}/${String(n + 100)}`),
  );
  const account = new Account(names, 20, (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  t.same(await namesOf(account), account.names);
});

void t.test('a plain listing asks for one page ahead, and for nothing else', async (t) => {
  const account = new Account(
    Array.from({ length: 100 }, (_, n) => `d${String(n % 3)}/${String(n)}`),
    10,
  );
  t.same(await namesOf(account, '', { sharded: false }), account.names);
  t.equal(account.asked.length, 10);
  t.ok(account.asked.every(({ delimiter }) => delimiter === undefined));
});

void t.test('a page that cannot be read ends the listing behind what comes before it', async (t) => {
  const names = Array.from({ length: 200 }, (_, n) => `d${String(Math.trunc(n / 20))}/${String(n + 1000)}`);
  for (const broken of [{ prefix: 'd7/' }, { prefix: '', delimiter: '/' } as const, { prefix: '' }]) {
    const account = new Account(names, 15);
    account.before = (request) =>
      request.prefix === broken.prefix && request.delimiter === broken.delimiter
        ? Promise.reject(new BlobError('throttled', 'busy'))
        : Promise.resolve();
    const found: string[] = [];
    const read = async (): Promise<void> => {
      for await (const page of listing(account.ask, '', { sharded: true }))
        found.push(...page.map(({ name }) => name));
    };
    if (broken.delimiter !== undefined) await read();
    else await t.rejects(read(), new BlobError('throttled', 'busy'));
    t.same(found, account.names.slice(0, found.length));
    if (broken.delimiter !== undefined) t.same(found, account.names, 'without a plan it goes on as it began');
  }
  const account = new Account(names, 15);
  const ask: AskPage = async (request) => ({ ...(await account.ask(request)), nextMarker: 'same' });
  await t.rejects(async () => {
    for await (const page of listing(ask, '', { sharded: false })) found(page);
  }, /repeats a page/);
});

function found(page: readonly ListedBlob[]): void {
  if (page.length === 0) throw new Error('an empty page');
}
