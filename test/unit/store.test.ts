import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Addon } from '../../src/native/binding.js';
import { dirtyFiles } from '../../src/store/dirty-files.js';
import { nextMeta, storeFormat } from '../../src/store/meta.js';
import { openStore, type Store } from '../../src/store/store.js';
import { quietLog } from '../helpers/memory-hsm.js';
import { MemoryStore } from '../helpers/memory-store.js';

/** An addon whose locks live in this process. */
function fakeAddon(): Addon & { readonly locked: Set<string> } {
  const locked = new Set<string>();
  const unexpected = (): never => {
    throw new Error('not expected here');
  };
  return {
    locked,
    version: 1,
    openStore: () => Promise.resolve(new MemoryStore()),
    lockFile(path) {
      if (locked.has(path)) throw Object.assign(new Error('locked'), { code: 'EAGAIN', errno: 11 });
      locked.add(path);
      return { unlock: () => void locked.delete(path) };
    },
    mount: unexpected,
    detach: unexpected,
    syncDirectory: unexpected,
    crashPoints: () => [],
    hardenProcess: unexpected,
  };
}

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lustrite-store-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

function open(
  addon: Addon,
  path: string,
  more: { identity?: string; mountPoint?: string; closed?: () => Promise<void> } = {},
): Promise<Store> {
  const events = { restoreNeeded: () => undefined };
  return openStore({ path, identity: 'account/one', fsName: 'fs', addon, log: quietLog, events, ...more });
}

await t.test('a store is made private, locked while it is open and free again afterwards', async (t) => {
  const addon = fakeAddon();
  const path = join(await folder(t), 'deep', 'store');
  const store = await open(addon, path);
  t.equal((await stat(path)).mode & 0o777, 0o700);
  t.equal((await stat(join(path, 'meta.json'))).mode & 0o777, 0o600);
  t.match(store.meta, { format: storeFormat, fsName: 'fs', container: 'account/one' });
  t.ok((await stat(store.jobsDir)).isDirectory());
  t.ok((await stat(store.requestsDir)).isDirectory());
  await t.rejects(open(addon, path), {
    code: 'Conflict',
    message: `the store is in use by another lustrite: ${path}`,
  });
  await store[Symbol.asyncDispose]();
  t.equal(addon.locked.size, 0);
  await using again = await open(addon, path);
  t.same(again.meta, store.meta, 'it is the same file system');
});

await t.test(
  'what has to be written behind the last change of a store is, before the next daemon has it',
  async (t) => {
    const addon = fakeAddon();
    const native = new MemoryStore();
    const order: string[] = [];
    native.close = () => {
      order.push('store');
      return Promise.resolve();
    };
    const closed = (): Promise<void> => {
      order.push(`changelog, locks: ${addon.locked.size}`);
      return Promise.reject(new Error('no'));
    };
    const own = { ...addon, openStore: () => Promise.resolve(native) };
    const store = await open(own, join(await folder(t), 'store'), { closed });
    await t.rejects(
      async () => {
        await store[Symbol.asyncDispose]();
      },
      { message: 'no' },
    );
    t.same(order, ['store', 'changelog, locks: 1']);
    t.equal(addon.locked.size, 0);
  },
);

await t.test('a store that is not ours alone, or would lie in its own mount, is refused', async (t) => {
  const base = await folder(t);
  const writable = join(base, 'writable');
  await mkdir(writable);
  await chmod(writable, 0o770);
  await writeFile(join(base, 'file'), '');
  await symlink(base, join(base, 'link'));
  const addon = fakeAddon();
  await t.rejects(open(addon, writable), { code: 'InvalidStore', message: /writable by others/ });
  await t.rejects(open(addon, join(base, 'file')));
  await t.rejects(open(addon, join(base, 'link')), { code: 'InvalidStore', message: /not a directory/ });
  const inside = join(base, 'link', 'mount', 'store');
  const mountPoint = join(base, 'mount');
  await mkdir(mountPoint);
  await t.rejects(open(addon, inside, { mountPoint }), {
    code: 'InvalidStore',
    message: /inside its own mount/,
  });
  await t.rejects(open(addon, mountPoint, { mountPoint }), { code: 'InvalidStore' });
  await using beside = await open(addon, `${mountPoint}-store`, { mountPoint });
  t.ok(beside);
  t.equal(addon.locked.size, 1, 'what is refused holds no lock');
});

await t.test('another container and a newer format are refused, naming both', async (t) => {
  const path = join(await folder(t), 'store');
  const addon = fakeAddon();
  await (await open(addon, path))[Symbol.asyncDispose]();
  await t.rejects(open(addon, path, { identity: 'account/two' }), {
    code: 'StoreMismatch',
    message: /account\/one, not to account\/two/,
  });
  t.equal(addon.locked.size, 0);
  const wanted = { identity: 'account/one', fsName: 'fs', bootId: 'b2' };
  const meta = await readFile(join(path, 'meta.json'), 'utf8');
  t.match(nextMeta('x', meta, wanted), { bootId: 'b2', fsId: /./ });
  const rows: readonly (readonly [string, string, RegExp])[] = [
    ['{"format":99,"shape":"new"}', 'StoreFormat', /has format 99, this lustrite knows 1/],
    ['{"format":1}', 'StoreDamaged', /damaged/],
    ['{', 'StoreDamaged', /not JSON/],
    ['', 'StoreDamaged', /not JSON/],
  ];
  for (const [text, code, message] of rows) {
    t.throws(() => nextMeta('meta.json', text, wanted), { code, message }, text);
  }
});

await t.test('looking for dirty files ends with the store', async (t) => {
  let calls = 0;
  const closed = (): Promise<null> => {
    // A walk of a closed store answers the same for ever.
    if (++calls > 100) return Promise.resolve(null);
    return Promise.reject(Object.assign(new Error('closed'), { code: 'ENOTCONN', errno: 107 }));
  };
  const walk = { next: closed, close: (): void => undefined };
  await t.rejects(dirtyFiles({ walk: () => walk }, { limit: 20, log: quietLog, ignore: () => false }), {
    code: 'ENOTCONN',
  });
  t.equal(calls, 1);
});
