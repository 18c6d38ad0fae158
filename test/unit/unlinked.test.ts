import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { Fid } from '../../src/store/inodes.js';
import { unlinkedCopy } from '../../src/store/unlinked.js';

const hex = (text: string): string => Buffer.from(text).toString('hex');
const fid = '[0x1:0x2:0x0]' as Fid;

t.test('the newest whole line of a FID says where its copy is', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'unlinked-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  t.equal(await unlinkedCopy(folder, fid), undefined, 'nothing was ever unlinked');
  const line = (of: string, blob: string): string => `${of} 1 5 1700000000000 ${hex('0x8D1')} ${hex(blob)}\n`;
  type Row = readonly [what: string, log: string, old: string | undefined, blob: string | undefined];
  const rows: readonly Row[] = [
    ['another FID', line('[0x1:0x3:0x0]', 'a'), undefined, undefined],
    ['one that begins like it', line('[0x1:0x2:0x01]', 'a'), undefined, undefined],
    ['two lines', line(fid, 'a') + line(fid, 'b'), undefined, 'b'],
    ['the log before this one', '', line(fid, 'a'), 'a'],
    ['both', line(fid, 'b'), line(fid, 'a'), 'b'],
    ['a torn line at the end', line(fid, 'a') + line(fid, 'bcd').slice(0, -4), undefined, 'a'],
    [
      'a line that another ran into',
      line(fid, 'a') + line(fid, 'b').slice(0, 20) + line(fid, 'c'),
      undefined,
      'a',
    ],
    ['not ours', `${fid} nonsense\n`, undefined, undefined],
    ['a name of many letters', line(fid, 'dir/ä b\n\\'), undefined, 'dir/ä b\n\\'],
  ];
  for (const [what, log, old, blob] of rows) {
    await writeFile(join(folder, 'log'), log);
    await (old === undefined
      ? rm(join(folder, 'log.old'), { force: true })
      : writeFile(join(folder, 'log.old'), old));
    t.equal((await unlinkedCopy(folder, fid))?.copy.blob, blob, what);
  }
  await writeFile(join(folder, 'log'), line(fid, 'a'));
  t.same(await unlinkedCopy(folder, fid), {
    archiveId: 1,
    copy: { blob: 'a', etag: '0x8D1', size: 5, lastModifiedMs: 1_700_000_000_000 },
  });
});
