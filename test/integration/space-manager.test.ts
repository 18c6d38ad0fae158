/** A store on a small disk, through a real mount: what is read fits, what only the store has stays. */
import { createHash } from 'node:crypto';
import { statfsSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import t from 'tap';
import { hsmFlags, states } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { run } from '../helpers/run.js';
import { StoreImage } from '../helpers/store-image.js';

const MiB = 2 ** 20;
const letters = Array.from('abcdefghijklmnopqrstuvwx');
const name = (letter: string): string => `data/${letter}`;
const content = (letter: string): Buffer => Buffer.alloc(4 * MiB, letter);

const image = cannotMount === false ? await StoreImage.create('ext4', 64 * MiB) : undefined;

t.test('a small disk', { skip: cannotMount || (image === undefined && 'no loop devices') }, async (t) => {
  if (image === undefined) return;
  t.teardown(() => image[Symbol.asyncDispose]());
  // Twice of what the disk has.
  const blobs = Object.fromEntries(letters.map((letter) => [name(letter), content(letter)]));
  const lab = await MountedContainer.start(
    t,
    { ...blobs, big: Buffer.alloc(30 * MiB, 'B'), huge: Buffer.alloc(70 * MiB, 'H') },
    { store: image.path },
  );
  const { mount } = lab;
  const flags = (path: string): Promise<number> => hsmFlags(lab.at(path));
  const resident = async (): Promise<number> => {
    const all = await Promise.all(letters.map((letter) => flags(name(letter))));
    return all.filter((one) => one === states.clean).length;
  };

  await t.test('df of the mount is df of the disk', (t) => {
    const [shown, disk] = [statfsSync(mount.path), statfsSync(image.path)];
    for (const field of ['blocks', 'bfree', 'bavail', 'files', 'ffree', 'bsize'] as const)
      t.equal(shown[field], disk[field], field);
    t.end();
  });

  await t.test('more can be read than fits, again and again, and what is dirty never goes', async (t) => {
    await writeFile(lab.at('data/new'), content('N'));
    await readFile(lab.at(name('a')));
    await writeFile(lab.at(name('a')), content('A'));
    for (let pass = 0; pass < 2; pass++) {
      for (const letter of letters.slice(1))
        t.ok((await readFile(lab.at(name(letter)))).equals(content(letter)), letter);
    }
    t.ok((await readFile(lab.at('data/new'))).equals(content('N')));
    t.ok((await readFile(lab.at(name('a')))).equals(content('A')));
    t.equal(await flags('data/new'), 0);
    t.equal(await flags(name('a')), states.dirty);
    t.ok((await stat(lab.backing('data/new'))).blocks > 0);
    const { space } = (await mount.status()) ?? {};
    t.ok((space?.releasedFiles ?? 0) > letters.length, `${space?.releasedFiles ?? 0} released`);
    t.match((await lustrite(['status', mount.path])).stdout, /disk +\d+ % used, .* free; clean files are released from 95 % down to 90 %: \d+ files/); // prettier-ignore
    t.match(mount.log(), /least recently used clean files were released/);
  });

  await t.test('what can never fit is ENODATA, releases nothing, and the log says why', async (t) => {
    const before = await resident();
    await t.rejects(readFile(lab.at('huge')), { code: 'ENODATA' });
    t.match(mount.log(), /huge.*nothing more can be released/);
    t.equal(await resident(), before);
    t.ok((await readFile(lab.at('big'))).equals(blobs['big'] ?? Buffer.alloc(30 * MiB, 'B')));
  });

  await t.test(
    'hydrate of more than fits says how many files it left, and keeps what it brought',
    async (t) => {
      t.equal((await lustrite(['release', mount.path])).code, 0);
      // One by one, so that nothing of its own is on its way.
      const { code, stdout } = await lustrite(['hydrate', lab.at('data'), '--concurrency', '1']);
      t.equal(code, 1);
      const [, restored, left] = /^(\d+) files restored .*, left alone: (\d+) for which/.exec(stdout) ?? [];
      t.ok(Number(restored) > 5, stdout);
      t.equal(await resident(), Number(restored), 'what it says it has restored');
      t.equal(Number(restored) + Number(left), letters.length - 1, 'all but the dirty one');
      const { space } = (await mount.status()) ?? {};
      t.ok((space?.usedPercent ?? 100) <= 95, `${space?.usedPercent ?? '?'} % used`);
      t.equal(space?.reservedBytes, 0);
    },
  );

  await t.test('readers of more than fits at once all get the right bytes', async (t) => {
    t.equal((await lustrite(['release', mount.path])).code, 0);
    const files = letters.slice(1).map((letter) => lab.at(name(letter)));
    const { stdout, stderr } = await run('sh', ['-c', 'for f; do md5sum "$f" & done; wait', 'sh', ...files]);
    t.equal(stderr, '');
    const sums = letters.slice(1).map((letter) => {
      const sum = createHash('md5').update(content(letter)).digest('hex');
      return `${sum}  ${lab.at(name(letter))}`;
    });
    t.same(stdout.trim().split('\n').sort(), sums.sort());
    t.equal((await mount.status())?.space?.reservedBytes, 0);
  });

  await t.test(
    'a disk full of what only the store has: reads of it go on, others fail and lose nothing',
    async (t) => {
      t.equal((await lustrite(['release', mount.path])).code, 0);
      const free = statfsSync(mount.path);
      await writeFile(lab.at('data/only-here'), Buffer.alloc(free.bavail * free.bsize - 2 * MiB, 'O'));
      await t.rejects(readFile(lab.at(name('c'))), { code: 'ENODATA' });
      t.ok((await readFile(lab.at(name('a')))).equals(content('A')));
      t.equal(await flags(name('c')), states.stub);
      t.equal(await lab.export('data'), 'Completed');
      t.ok((await readFile(lab.at(name('c')))).equals(content('c')), 'exported, it makes room');
    },
  );
});
