import t from 'tap';
import type { ListedBlob } from '../../src/blob/port.js';
import { readAhead } from '../../src/jobs/import/read-ahead.js';
import { batchBlobs, stubBatches, type Wanted } from '../../src/jobs/import/stub-batches.js';
import type { Fid, Stub, StubDefaults, StubResult } from '../../src/store/inodes.js';

const defaults: StubDefaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n };

function blobs(names: readonly string[]): readonly ListedBlob[] {
  return names.map((name) => ({
    name,
    kind: name.endsWith('/') ? 'directory' : 'file',
    size: 0,
    etag: '1',
    lastModifiedMs: 0,
    posix: {},
    metadata: {},
  }));
}

/** Names of files: `prefix`0000 and so on. */
function files(prefix: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, n) => `${prefix}${String(n).padStart(4, '0')}`);
}

async function* pages(...all: readonly (readonly string[])[]): AsyncGenerator<readonly ListedBlob[]> {
  for (const names of all) {
    await Promise.resolve();
    yield blobs(names);
  }
}

function want(some: readonly ListedBlob[]): Promise<readonly Wanted[]> {
  return Promise.resolve(
    some.map((blob) =>
      blob.name.startsWith('bad')
        ? { blob, code: 'InvalidName', refused: 'bad' }
        : {
            blob,
            stub: {
              path: blob.name.replace(/\/$/, ''),
              kind: blob.kind,
              mode: 0,
              uid: 0,
              gid: 0,
              mtimeNs: 0n,
              size: 0,
            },
          },
    ),
  );
}

/** Creates nothing before it is told to. */
class Held {
  readonly calls: { readonly stubs: readonly Stub[]; answer: (error?: Error) => void }[] = [];
  #called: () => void = () => undefined;

  createStubs(stubs: readonly Stub[]): Promise<readonly StubResult[]> {
    return new Promise((resolve, reject) => {
      const answer = (error?: Error): void => {
        if (error) reject(error);
        else resolve(stubs.map(({ path }) => ({ kind: 'created', fid: path as Fid })));
      };
      this.calls.push({ stubs, answer });
      this.#called();
    });
  }

  /** Resolves when that many calls were made. */
  async called(count: number): Promise<void> {
    while (this.calls.length < count) {
      await new Promise<void>((resolve) => {
        this.#called = resolve;
      });
    }
  }

  answer(call: number, error?: Error): void {
    this.calls[call]?.answer(error);
  }
}

function fidsOf(results: readonly StubResult[]): readonly string[] {
  return results.map((result) => (result.kind === 'created' ? result.fid : ''));
}

await t.test(
  'stubs of the next batches are under way while one is counted, and no more than allowed',
  async (t) => {
    const native = new Held();
    const names = files('f', 4 * batchBlobs + 1);
    const batches = readAhead(stubBatches(pages(names), want, native, defaults), 2);
    const first = await batches.next();
    await native.called(3);
    // Whatever could have begun has begun when the event loop has come round.
    await new Promise(setImmediate);
    t.equal(native.calls.length, 3);
    native.answer(1);
    native.answer(0);
    t.same(fidsOf((await first.value?.results) ?? []), names.slice(0, batchBlobs));
    const second = await batches.next();
    t.same(fidsOf((await second.value?.results) ?? []), names.slice(batchBlobs, 2 * batchBlobs));
    await native.called(4);
    for (const call of native.calls.slice(2)) call.answer();
    const rest = (async () => {
      let count = 0;
      for await (const { results } of batches) count += (await results).length;
      return count;
    })();
    await native.called(5);
    native.answer(4);
    t.equal(await rest, 2 * batchBlobs + 1);
  },
);

await t.test('directories are there before the stubs below them begin', async (t) => {
  const native = new Held();
  const names = ['d/', ...files('d/f', 2), 'bad', 'e/', 'e/f'];
  const batches = readAhead(stubBatches(pages(names, ['e/g']), want, native, defaults), 2);
  const first = batches.next();
  await native.called(1);
  await new Promise(setImmediate);
  t.same(
    native.calls.map(({ stubs }) => stubs.map(({ path }) => path)),
    [['d', 'e']],
  );
  native.answer(0);
  await native.called(3);
  native.answer(1);
  native.answer(2);
  const batch = (await first).value;
  t.same(
    batch?.wanted.map(({ blob }) => blob.name),
    names,
  );
  t.same(
    fidsOf((await batch?.results) ?? []),
    ['d', 'd/f0000', 'd/f0001', 'e', 'e/f'],
    'the results are in the order of the listing',
  );
  await batches.return();
});

await t.test('who stops early waits for what is under way, failed or not', async (t) => {
  const native = new Held();
  const batches = readAhead(stubBatches(pages(files('f', 3 * batchBlobs)), want, native, defaults), 2);
  await batches.next();
  await native.called(3);
  let over = false;
  const end = batches.return().then(() => {
    over = true;
  });
  native.answer(0);
  native.answer(1, new Error('the store is closed'));
  await new Promise(setImmediate);
  t.notOk(over);
  native.answer(2);
  await end;
  t.ok(over);
});
