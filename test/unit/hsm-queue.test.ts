import t from 'tap';
import { RequestQueue, type Queued, type RequestClass } from '../../src/hsm/queue.js';

interface Item extends Queued {
  readonly name: string;
}

const item = (named: RequestClass, name: string, bytes = 1): Item => ({ class: named, name, bytes });

function drain(queue: RequestQueue<Item>): readonly string[] {
  const names: string[] = [];
  for (let next = queue.next(); next !== undefined; next = queue.next()) {
    names.push(next.name);
    queue.finished(next);
  }
  return names;
}

await t.test('classes are served in order, within a class whoever came first', (t) => {
  const queue = new RequestQueue<Item>({ explicit: 1, implicit: 1, bytes: 100 });
  for (const [named, name] of [
    ['remove', 'x1'],
    ['archive', 'a1'],
    ['restore', 'r1'],
    ['archive', 'a2'],
    ['implicit', 'i1'],
    ['restore', 'r2'],
    ['implicit', 'i2'],
  ] as const) {
    queue.push(item(named, name));
  }
  t.equal(queue.waiting('archive'), 2);
  t.same(drain(queue), ['i1', 'i2', 'r1', 'r2', 'a1', 'a2', 'x1']);
  t.equal(queue.waiting('archive'), 0);
  t.end();
});

await t.test('implicit restores never wait behind explicit requests', (t) => {
  const queue = new RequestQueue<Item>({ explicit: 2, implicit: 2, bytes: 100 });
  for (const name of ['r1', 'r2', 'r3']) queue.push(item('restore', name));
  t.same([queue.next()?.name, queue.next()?.name, queue.next()], ['r1', 'r2', undefined]);
  for (const name of ['i1', 'i2', 'i3']) queue.push(item('implicit', name));
  const first = queue.next();
  t.same([first?.name, queue.next()?.name, queue.next()], ['i1', 'i2', undefined]);
  t.same(queue.running, { implicit: 2, explicit: 2, bytes: 4 });
  if (first !== undefined) queue.finished(first);
  t.equal(queue.next()?.name, 'i3');
  t.end();
});

await t.test('bytes in flight are bounded, but one request always runs', (t) => {
  const queue = new RequestQueue<Item>({ explicit: 10, implicit: 10, bytes: 100 });
  queue.push(item('restore', 'huge', 1000));
  queue.push(item('restore', 'small', 1));
  queue.push(item('archive', 'archive', 1));
  const huge = queue.next();
  t.equal(huge?.name, 'huge');
  t.equal(queue.next(), undefined, 'nothing overtakes within a lane, or big requests would starve');
  queue.push(item('implicit', 'reader', 500));
  t.equal(queue.next()?.name, 'reader', 'the other lane has bytes of its own');
  if (huge !== undefined) queue.finished(huge);
  t.same([queue.next()?.name, queue.next()?.name], ['small', 'archive']);
  t.end();
});

await t.test('what has not started can be taken back', (t) => {
  const queue = new RequestQueue<Item>({ explicit: 1, implicit: 1, bytes: 100 });
  const items = ['a', 'b', 'c'].map((name) => item('restore', name));
  for (const one of items) queue.push(one);
  const [a, b, c] = items as [Item, Item, Item];
  t.equal(queue.next(), a);
  t.equal(queue.remove(a), false, 'it runs');
  t.equal(queue.remove(b), true);
  t.equal(queue.remove(b), false, 'it is gone');
  queue.finished(a);
  t.equal(queue.next(), c);
  t.end();
});

await t.test('a long queue stays cheap and in order while it is used up and refilled', (t) => {
  const queue = new RequestQueue<Item>({ explicit: 1, implicit: 1, bytes: 100 });
  const count = 20_000;
  const removed = new Set<number>();
  const items = Array.from({ length: count }, (_, n) => item('restore', String(n)));
  for (const one of items.slice(0, count / 2)) queue.push(one);
  const seen: number[] = [];
  for (let n = 0; n < count; n++) {
    const next = queue.next();
    if (next !== undefined) {
      seen.push(Number(next.name));
      queue.finished(next);
    }
    const more = items[count / 2 + n];
    if (more !== undefined) queue.push(more);
    const victim = n + 3000;
    const one = items[victim];
    if (n % 7 === 0 && one !== undefined && queue.remove(one)) removed.add(victim);
  }
  const wanted = items.map((_, n) => n).filter((n) => !removed.has(n));
  t.ok(removed.size > 100);
  t.same(seen, wanted);
  t.end();
});
