import t from 'tap';
import { strictName } from '../../src/hsm/strict-name.js';

const present = (): Promise<readonly string[]> => Promise.resolve(['dir/now', 'dir/other']);
const hex = (text: string): string => Buffer.from(text).toString('hex');

t.test('what names no blob in --data leaves it at the first of the present paths', async (t) => {
  for (const data of [
    '',
    'text',
    '{',
    'null',
    '7',
    '"a"',
    '[]',
    '{}',
    '{"file_id":7}',
    '{"uuid":"a"}',
    '\xff',
  ]) {
    t.equal(await strictName(hex(data), present), 'dir/now', data);
  }
  t.equal(await strictName(undefined, present), 'dir/now');
  await t.rejects(
    strictName(undefined, () => Promise.resolve([])),
    { code: 'EINVAL' },
  );
});

t.test('file_id is a name of a blob of the container, or EINVAL', async (t) => {
  t.equal(await strictName(hex('{"file_id":"a/b c"}'), present), 'a/b c');
  for (const file_id of [
    '',
    '/',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    '../a',
    'a/../b',
    'a\\b',
    'a\0',
    'x'.repeat(1025),
  ]) {
    await t.rejects(strictName(hex(JSON.stringify({ file_id })), present), { code: 'EINVAL' }, file_id);
  }
});
