/**
 * SIGKILL at every named durable step of the store (native/store/crash_points.def). After a restart no written byte is
 * lost or called clean, and a file that is called clean has exactly the bytes of its copy.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { addon, content, TempStore } from '../helpers/native-store.js';
import { StoreImage } from '../helpers/store-image.js';

const skip = process.getuid?.() !== 0 && 'the store needs root (trusted.* attributes, file handles)';
const child = fileURLToPath(new URL('../helpers/store-crash.mjs', import.meta.url));
const size = 8192;
// Who wrote last: the blob of this ETag, or the application.
const contents: Readonly<Record<string, Buffer>> = {
  '0xA1': content('0xA1', size),
  '0xA2': content('mine', size),
  '0xA3': content('0xA3', size),
};

/** The steps that had returned before the process died, and how it ended. */
async function run(
  path: string,
  point: string,
): Promise<{ steps: string[]; stderr: string; signal: unknown }> {
  const story = spawn(process.execPath, [child, path], {
    env: { ...process.env, LUSTRITE_CRASH: point },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(story, 'exit');
  const [stdout, stderr] = await Promise.all([text(story.stdout), text(story.stderr)]);
  const [, signal] = (await exit) as [unknown, unknown];
  return { steps: stdout.split('\n').filter(Boolean), stderr, signal };
}

void t.test('the story itself ends well', { skip }, async (t) => {
  await using store = await TempStore.open();
  await store.native.close();
  const { steps, stderr, signal } = await run(store.path, '');
  t.same(stderr, '');
  t.equal(signal, null);
  t.equal(steps.at(-1), 'displaced');
});

for (const point of addon.crashPoints()) {
  void t.test(`killed at ${point}`, { skip }, async (t) => {
    await using store = await TempStore.open();
    await store.native.close();
    const { steps, stderr, signal } = await run(store.path, point);
    t.equal(stderr, `crash point ${point}\n`, 'the story reaches it');
    t.equal(signal, 'SIGKILL');
    const after = (step: string): boolean => steps.includes(step);

    await store.reopen();
    const [state] = await store.native.lookup(['f']);
    if (state === undefined) {
      t.notOk(after('stub'), 'a stub that was made is there');
      return;
    }
    const { flags, copy, modified } = state;
    const dirty = (flags & 0x02) !== 0;
    t.ok(copy !== undefined, 'never a file without a past');
    if ((flags & 0x04) !== 0) {
      t.equal(flags, 0x0d);
      t.equal(state.size, size, 'a released file has the size of its record');
      t.equal(
        after('truncated'),
        copy?.etag === '0xA4',
        'what was written last is gone when a blob took the name',
      );
      t.notOk(after('restored') && !after('archived'), 'nothing is released before it is archived');
      t.notOk(after('written') && copy?.etag === '0xA1', 'what was written is in the copy');
      if (!after('restored')) t.equal(state.allocated, 0, 'no half restored byte is left');
      await store.restore(state.fid);
      t.same(await store.flags('f'), 0x09, 'and it can be restored');
      return;
    }
    if (after('truncated') || state.size === 0) {
      t.match(state, { flags: 0x0b, size: 0, modified: true }, 'truncated and dirty');
      return;
    }
    const bytes = store.read('f');
    if (!dirty) t.same(bytes, contents[copy?.etag ?? ''], 'clean: the bytes are those of the copy');
    t.equal(dirty, modified);
    if (after('written') && !after('released'))
      t.same(bytes, content('mine', size), 'what was written is there');
    if (after('written') && copy?.etag === '0xA1') t.ok(dirty, 'and dirty until it is archived');
  });
}

const power = fileURLToPath(new URL('../helpers/store-power.mjs', import.meta.url));
const noImage = skip || (!existsSync('/dev/loop-control') && 'there are no loop devices');
for (const [type, options] of [
  ['ext4', []],
  ['ext4', ['-O', '^has_journal']],
  ['xfs', []],
  ['btrfs', []],
] as const) {
  void t.test(
    `after a power failure ${[type, ...options].join(' ')} has all that was done before a barrier, where it has what was made durable behind it`,
    { skip: noImage },
    async (t) => {
      await using image = await StoreImage.create(type, undefined, options);
      if (image === undefined) throw new Error(`no ${type} on a loop device`);
      const story = spawn(process.execPath, [power, image.path], { stdio: ['pipe', 'pipe', 'inherit'] });
      const exit = once(story, 'exit');
      t.equal(String((await Promise.race([once(story.stdout, 'data'), exit]))[0]), 'done\n');
      await image.losePower(async () => {
        story.kill('SIGKILL');
        await exit;
      });
      t.ok(existsSync(join(image.path, 'second')));
      const store = await addon.openStore(image.path, { restoreNeeded: () => undefined });
      const [made, replaced, removed] = await store.lookup(['d/new', 'old', 'gone']);
      await store.close();
      t.equal(made?.type, 'file');
      t.match(replaced, { flags: 0x0d, size: 77, copy: { etag: '0xB' } });
      t.equal(removed, undefined);
    },
  );
}
