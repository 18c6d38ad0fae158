/** Many readers, and what goes on beside a file that is being restored. */
import { chmod, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { HS, states } from '../helpers/lfs.js';
import { start } from '../helpers/run.js';
import { until } from '../helpers/poll.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

const MiB = 2 ** 20;
/** Different at every offset that a test looks at; `size` in bytes. */
const content = (size: number): Buffer =>
  Buffer.alloc(
    size,
    Uint8Array.from({ length: 9973 }, (_, i) => (i * 31) % 256),
  );
const small = content(20_000);
const unaligned = content(3 * MiB + 1);
const aligned = content(3 * MiB);
/** More than the 12 reads ahead that the kernel sends by default. */
const many = Array.from({ length: 20 }, (_, i) => `w.${i}`);
const ten = Array.from({ length: 10 }, (_, i) => `f.${i}`);

/** A reader of a released file that waits, and what lets it go on. */
async function blocked(lab: Lab, name: string) {
  const open = lab.hold('GET', name);
  const reader = lab.cat(name);
  await lab.arrived('GET', name);
  return { open, reader };
}

/** The size of a file from before its restore until after it. */
async function sizesDuring(lab: Lab, name: string): Promise<readonly number[]> {
  const open = lab.hold('GET', name);
  const sizes = [await lab.size(name)];
  await lab.ok('hsm_restore', name);
  await lab.arrived('GET', name);
  sizes.push(await lab.size(name));
  open();
  await until(
    async () => {
      sizes.push(await lab.size(name));
      return (await lab.flags(name)) === states.clean;
    },
    { what: `${name} to be restored` },
  );
  sizes.push(await lab.size(name));
  return [...new Set(sizes)];
}

export const readers: Theme = {
  cases: [
    hsm('12s', 'two readers at a time make one restore', async (t, lab) => {
      await lab.stub('f', small);
      const fid = await lab.fid('f');
      const { open, reader } = await blocked(lab, 'f');
      const second = lab.cat('f');
      await lab.ok('hsm_restore', 'f');
      open();
      for (const { ended } of [reader, second]) t.ok((await ended).stdoutBytes.equals(small));
      await lab.idle('f');
      t.same(
        (await lab.finished(fid)).filter(({ action }) => action === 'RESTORE'),
        [{ action: 'RESTORE', result: 'SUCCEED' }],
      );
      t.equal(lab.count('GET', 'f'), 1);
    }),

    hsm(
      '3.8',
      'any number of readers who wait hold up nobody who reads what is here',
      async (t, lab) => {
        await lab.ok('hsm_restore', 'here');
        await lab.untilFlags('here', states.clean);
        const open = lab.hold('GET', /w\.\d+$/);
        const waiting = many.map((name) => lab.cat(name));
        for (const name of many) await lab.arrived('GET', name);
        t.ok((await lab.cat('here').ended).stdoutBytes.equals(aligned));
        open();
        for (const { ended } of waiting) t.ok((await ended).stdoutBytes.equals(small));
      },
      { blobs: { here: aligned, ...Object.fromEntries(many.map((name) => [name, small])) } },
    ),

    hsm(
      '12t',
      '32 readers of an imported file get its content, by one restore',
      async (t, lab) => {
        const open = lab.hold('GET', 'f');
        const readers = Array.from({ length: 32 }, () => lab.cat('f'));
        await lab.arrived('GET', 'f');
        open();
        for (const { ended } of readers) t.ok((await ended).stdoutBytes.equals(small));
        t.equal(lab.count('GET', 'f'), 1);
        t.equal(await lab.flags('f'), states.clean);
      },
      { blobs: { f: small } },
    ),

    hsm(
      '12u',
      '32 readers of each of 10 imported files get their content',
      async (t, lab) => {
        const script = `
import hashlib, os, sys
children = []
for path in sys.argv[2:] * 32:
    child = os.fork()
    if child == 0:
        with open(path, 'rb') as file:
            os._exit(hashlib.md5(file.read()).hexdigest() != sys.argv[1])
    children.append(child)
print(sum(os.waitpid(child, 0)[1] != 0 for child in children), len(children))`;
        const sum = (await start('md5sum', [], { input: small }).ended).stdout.slice(0, 32);
        const { stdout } = await start('python3', ['-c', script, sum, ...ten.map((name) => lab.at(name))])
          .ended;
        t.equal(stdout, '0 320\n');
        for (const name of ten) t.same([await lab.flags(name), lab.count('GET', name)], [states.clean, 1]);
      },
      { blobs: Object.fromEntries(ten.map((name) => [name, small])) },
    ),

    hsm('12q', 'stat answers while a file is restored, and is right after it was emptied', async (t, lab) => {
      await lab.stub('f', small);
      const { mtimeMs, mode, ino } = await stat(lab.at('f'));
      const { open, reader } = await blocked(lab, 'f');
      const other = lab.application();
      t.equal(await other.do('os.stat(args[0]).st_size', lab.at('f')), small.length);
      open();
      t.ok((await reader.ended).stdoutBytes.equals(small));
      t.match(await stat(lab.at('f')), { size: small.length, mtimeMs, mode, ino });
      t.equal(await other.do('os.stat(args[0]).st_size', lab.at('f')), small.length);
      await writeFile(lab.at('f'), '');
      t.equal(await lab.size('f'), 0);
      t.equal(await other.do('os.stat(args[0]).st_size', lab.at('f')), 0);
    }),

    hsm(
      '31a',
      'an imported file has its size throughout its restore',
      async (t, lab) => {
        t.same(await sizesDuring(lab, 'f'), [unaligned.length]);
        t.ok((await lab.read('f')).equals(unaligned));
      },
      { blobs: { f: unaligned } },
    ),

    hsm('31b', 'so has a released one of odd size', async (t, lab) => {
      await lab.stub('f', unaligned);
      t.same(await sizesDuring(lab, 'f'), [unaligned.length]);
      t.ok((await lab.read('f')).equals(unaligned));
    }),

    hsm('31c', 'and one of whole blocks', async (t, lab) => {
      await lab.stub('f', aligned);
      t.same(await sizesDuring(lab, 'f'), [aligned.length]);
      t.ok((await lab.read('f')).equals(aligned));
    }),

    hsm('113', 'all see the same size after an append that had to restore', async (t, lab) => {
      await lab.stub('f', small);
      const open = lab.hold('GET', 'f');
      const writer = start('sh', ['-c', 'printf 1234 >> "$1"', 'sh', lab.at('f')]);
      await lab.arrived('GET', 'f');
      const looking = start('stat', ['-c', '%s', lab.at('f')]);
      t.equal((await looking.ended).stdout, `${small.length}\n`);
      open();
      t.equal((await writer.ended).code, 0);
      t.equal(await lab.size('f'), small.length + 4);
      t.equal((await start('stat', ['-c', '%s', lab.at('f')]).ended).stdout, `${small.length + 4}\n`);
      t.equal((await lab.read('f')).subarray(-4).toString(), '1234');
      t.equal(await lab.flags('f'), states.dirty);
    }),

    hsm('33', 'a reader that waits can be killed, and the restore goes on', async (t, lab) => {
      await lab.stub('f', small);
      const { open, reader } = await blocked(lab, 'f');
      reader.child.kill('SIGTERM');
      open();
      t.equal((await reader.ended).signal, 'SIGTERM', 'status 143 in a shell');
      await lab.untilFlags('f', states.clean);
      t.ok((await lab.read('f')).equals(small));
    }),

    hsm('34', 'a file that is restored can be removed, and its reader gets the data', async (t, lab) => {
      await lab.stub('f', small);
      const { open, reader } = await blocked(lab, 'f');
      await rm(lab.at('f'));
      await t.rejects(stat(lab.at('f')), { code: 'ENOENT' });
      open();
      const { code, stdoutBytes } = await reader.ended;
      t.same([code, stdoutBytes.equals(small)], [0, true]);
      await t.rejects(stat(lab.at('f')), { code: 'ENOENT' });
    }),

    hsm('35', 'a file that is restored can be replaced, and its reader gets the old data', async (t, lab) => {
      await lab.stub('f', small);
      await lab.write('other', 'other');
      const other = await lab.fid('other');
      const { open, reader } = await blocked(lab, 'f');
      await rename(lab.at('other'), lab.at('f'));
      t.equal(await lab.fid('f'), other);
      open();
      const { code, stdoutBytes } = await reader.ended;
      t.same([code, stdoutBytes.equals(small)], [0, true]);
      t.equal(await lab.text('f'), 'other');
      t.equal(await lab.fid('f'), other);
    }),

    hsm('36', 'a file that is restored can be moved, and its reader gets the data', async (t, lab) => {
      await lab.stub('f', small);
      const fid = await lab.fid('f');
      const { open, reader } = await blocked(lab, 'f');
      await rename(lab.at('f'), lab.at('moved'));
      open();
      const { code, stdoutBytes } = await reader.ended;
      t.same([code, stdoutBytes.equals(small)], [0, true]);
      t.equal(await lab.fid('moved'), fid);
      await lab.untilFlags('moved', states.clean);
    }),

    hsm('3.7h', 'what only asks is answered while a file is restored', async (t, lab) => {
      await lab.stub('f', aligned);
      const open = lab.hold('GET', 'f', { skip: 1 });
      const reader = lab.cat('f');
      await lab.arrived('GET', 'f', 2);
      t.equal(await lab.state('f'), '(0x0000000d) released exists archived, archive_id:1');
      await lab.untilAction('f', /^RESTORE running \(1048576 bytes moved\)$/);
      t.equal((await start('ls', ['-l', lab.path]).ended).code, 0);
      await utimes(lab.at('f'), 1000, 2000);
      await chmod(lab.at('f'), 0o640);
      t.equal((await lab.lfs('hsm_release', 'f')).code, 16, 'EBUSY: it is open');
      t.match(await lab.lfs('hsm_remove', 'f'), { code: 1, stderr: /Operation not permitted/ });
      open();
      t.ok((await reader.ended).stdoutBytes.equals(aligned));
      await lab.idle('f');
      t.equal(await lab.flags('f'), HS.EXISTS | HS.ARCHIVED);
      const { mode, mtimeMs } = await stat(lab.at('f'));
      t.same([mode & 0o777, mtimeMs], [0o640, 2_000_000], 'what was set meanwhile stays');
    }),
  ],
};
