import t from 'tap';
import { ByteBudget } from '../../src/blob/byte-budget.js';
import { blockBytesFor } from '../../src/blob/upload.js';

const mib = 1024 ** 2;
const tib = 1024 ** 4;

t.test('the block size is the preferred one, or doubles from 8 MiB until 50,000 blocks are enough', (t) => {
  const cases: readonly [size: number, preferred: number | undefined, expected: number][] = [
    [0, undefined, 8 * mib],
    [1, undefined, 8 * mib],
    [50_000 * 8 * mib, undefined, 8 * mib],
    [50_000 * 8 * mib + 1, undefined, 16 * mib],
    [50_000 * 16 * mib, undefined, 16 * mib],
    [50_000 * 16 * mib + 1, undefined, 32 * mib],
    [1 * tib, undefined, 32 * mib],
    [10 * tib, undefined, 256 * mib],
    [100 * tib, undefined, 4000 * mib],
    [50_000 * 2048 * mib, undefined, 2048 * mib],
    [50_000 * 2048 * mib + 1, undefined, 4000 * mib],
    [50_000 * 4000 * mib, undefined, 4000 * mib],
    [0, 1 * mib, 1 * mib],
    [50_000 * 4 * mib, 4 * mib, 4 * mib],
    [50_000 * 4 * mib + 1, 4 * mib, 8 * mib],
    [50_000 * 8 * mib + 1, 4 * mib, 16 * mib],
    [50_000 * 64 * mib, 64 * mib, 64 * mib],
    [50_000 * 64 * mib + 1, 64 * mib, 128 * mib],
    [100, 4000 * mib, 4000 * mib],
    [100, 8000 * mib, 8 * mib],
  ];
  for (const [size, preferred, expected] of cases)
    t.equal(blockBytesFor(size, preferred), expected, `${String(size)}, ${String(preferred)}`);
  for (const preferred of [undefined, 1 * mib, 64 * mib, 4000 * mib]) {
    t.throws(() => blockBytesFor(50_000 * 4000 * mib + 1, preferred), {
      name: 'BlobError',
      kind: 'unsupported',
      message: '209715200000001 bytes are more than a block blob can hold: 50,000 blocks of 4000 MiB',
    });
  }
  t.end();
});

t.test(
  'a byte budget is granted in order, never exceeded, and what is larger than it goes alone',
  async (t) => {
    const budget = new ByteBudget(100);
    const granted: number[] = [];
    const ask = async (bytes: number): Promise<void> => {
      await budget.acquire(bytes);
      granted.push(bytes);
    };
    await ask(60);
    await ask(40);
    const waiting = [ask(50), ask(10), ask(500), ask(1)];
    await Promise.resolve();
    t.same(granted, [60, 40]);
    budget.release(40);
    await Promise.resolve();
    t.same(granted, [60, 40], 'the small one does not overtake');
    budget.release(60);
    await Promise.all(waiting.slice(0, 2));
    t.same(granted, [60, 40, 50, 10]);
    t.equal(budget.used, 60);
    budget.release(60);
    await waiting[2];
    t.equal(budget.used, 500);
    budget.release(500);
    await waiting[3];
    t.equal(budget.used, 1);
  },
);
