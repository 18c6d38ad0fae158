import t from 'tap';
import { NameLocks } from '../../src/hsm/name-locks.js';
import { gate } from '../helpers/memory-hsm.js';

t.test(
  'who gives up while another has the name is let go at once, and who comes after it still waits',
  async (t) => {
    const locks = new NameLocks();
    const did: string[] = [];
    const held = gate();
    const first = locks.hold('a', async () => {
      await held.opened;
      did.push('first');
    });
    const leaving = new AbortController();
    const second = locks.hold('a', () => Promise.resolve(did.push('second')), leaving.signal);
    const both = locks.holdAll(['b', 'a'], () => Promise.resolve(did.push('both')), leaving.signal);
    leaving.abort(new Error('no more'));
    await t.rejects(second, { message: 'no more' });
    await t.rejects(both, { message: 'no more' });
    const third = locks.hold('a', () => Promise.resolve(did.push('third')));
    await locks.hold('b', () => Promise.resolve(did.push('b is free')));
    t.same(did, ['b is free']);
    held.open();
    await Promise.all([first, third]);
    t.same(did, ['b is free', 'first', 'third']);
  },
);

t.test('work that has begun is not given up for its caller, and a failure frees the name', async (t) => {
  const locks = new NameLocks();
  const leaving = new AbortController();
  const held = gate();
  const first = locks.hold(
    'a',
    () => held.opened.then(() => Promise.reject(new Error('its own'))),
    leaving.signal,
  );
  leaving.abort(new Error('no more'));
  const next = locks.hold('a', () => Promise.resolve('next'));
  held.open();
  await t.rejects(first, { message: 'its own' });
  t.equal(await next, 'next');
});
