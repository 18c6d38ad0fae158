/** The progress of what takes its time, where nobody watches a terminal. */
import t from 'tap';
import { follow } from '../../src/cli/wait.js';

t.test('without a terminal progress is a plain line every ten seconds, and none of the last', async (t) => {
  const clock = { now: 1_000_000 };
  t.intercept(Date, 'now', { value: () => clock.now });
  t.intercept(process.stderr, 'isTTY', { value: false });
  const written = t.capture(process.stderr, 'write', () => true);
  async function* values(): AsyncIterable<number> {
    for (let seconds = 0; seconds <= 30; seconds += 4, clock.now += 4000)
      yield await Promise.resolve(seconds);
  }
  const followed = await follow(
    values,
    (seconds) => `${seconds} s`,
    (seconds) => seconds === 28,
  );
  t.same(followed, { kind: 'over', last: 28 });
  t.same(
    written().map(({ args }) => args[0]),
    ['lustrite: 12 s\n', 'lustrite: 24 s\n'],
  );
});
