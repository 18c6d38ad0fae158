import t from 'tap';
import { Watermark } from '../../src/workers/watermark.js';

t.test('the prefix grows over pieces that come in any order', (t) => {
  const told: number[] = [];
  using watermark = new Watermark(
    (bytes) => told.push(bytes),
    () => 0,
  );
  watermark.add(10, 20);
  watermark.add(20, 30);
  watermark.add(40, 50);
  t.equal(watermark.bytes, 0);
  watermark.add(0, 5);
  t.equal(watermark.bytes, 5);
  watermark.add(5, 10);
  t.equal(watermark.bytes, 30);
  watermark.add(30, 30);
  watermark.add(30, 40);
  t.equal(watermark.bytes, 50);
  t.same(told, []);
  watermark.flush();
  watermark.flush();
  t.same(told, [50], 'and is told once');
  t.end();
});

t.test('it is told after 4 MiB or 20 ms', (t) => {
  const told: number[] = [];
  let now = 0;
  using watermark = new Watermark(
    (bytes) => told.push(bytes),
    () => now,
  );
  watermark.add(0, 100);
  now = 19;
  watermark.add(100, 200);
  t.same(told, []);
  now = 20;
  watermark.add(200, 300);
  t.same(told, [300]);
  watermark.add(300, 300 + Watermark.everyBytes - 1);
  t.same(told, [300]);
  watermark.add(299 + Watermark.everyBytes, 300 + Watermark.everyBytes);
  t.same(told, [300, 300 + Watermark.everyBytes]);
  t.end();
});

t.test('what was held back is told even if nothing more comes', async (t) => {
  const told = await new Promise<number>((resolve) => {
    new Watermark(resolve).add(0, 100);
  });
  t.equal(told, 100);
});
