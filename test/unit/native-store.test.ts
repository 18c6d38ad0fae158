/**
 * The native store through its binding, on the real file system: stubs, walk, restore, archive, release, and what other
 * processes that write past the daemon do to them.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import t from 'tap';
import { posixAclsOf } from '../../src/blob/posix-acl.js';
import { HS_LOST } from '../../src/hsm/flags.js';
import type { Caller, Fid, StubResult, WalkEntry } from '../../src/native/binding.js';
import { aclOf } from '../helpers/acl.js';
import { caller, root } from '../helpers/callers.js';
import { until } from '../helpers/poll.js';
import { StoreImage } from '../helpers/store-image.js';
import {
  addon,
  archived,
  codeOf,
  content,
  copyOf,
  defaults,
  fileStub,
  mtimeNs,
  readAll,
  TempStore,
  writeAll,
} from '../helpers/native-store.js';

const skip = process.getuid?.() !== 0 && 'the store needs root (trusted.* attributes, file handles)';
const size = 8192;

/** A process that opens and maps files of the store past the daemon, as a mapping that outlived its handle does. */
class Outsider implements Disposable {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;
  constructor() {
    const script = `
import mmap, os, sys
for line in sys.stdin:
    what, _, path = line.strip().partition(' ')
    if what == 'map':
        fd = os.open(path, os.O_RDWR); m = mmap.mmap(fd, 0); os.close(fd)
    elif what == 'store':
        m[0:1] = b'#'
    elif what == 'unmap':
        m.close()
    elif what == 'read':
        held = os.open(path, os.O_RDONLY)
    elif what == 'open':
        held = os.open(path, os.O_RDWR)
    elif what == 'write':
        os.pwrite(held, b'!', 0)
    elif what == 'close':
        os.close(held)
    print(what, flush=True)
`;
    this.#child = spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
    if (this.#child.stdout === null) throw new Error('no stdout');
    this.#reader = createInterface({ input: this.#child.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }
  async do(what: string, path = ''): Promise<void> {
    this.#child.stdin?.write(`${what} ${path}\n`);
    const answer = await this.#lines.next();
    if (answer.done === true || answer.value !== what) throw new Error(`no answer to ${what}`);
  }
  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
    this.#reader.close();
  }
}

function kinds(results: readonly StubResult[]): string[] {
  return results.map((result) => (result.kind === 'failed' ? result.code : result.kind));
}

async function walkAll(
  store: TempStore,
  options: { path?: string; select?: 'all' | 'changed'; batch?: number } = {},
) {
  const { select = 'all', batch = 100, ...rest } = options;
  const walk = store.native.walk({ select, batch, ...rest });
  const entries: WalkEntry[] = [];
  for (let next; (next = await walk.next()) !== null;) entries.push(...next);
  return entries;
}

void t.test('a store needs file times with nanoseconds', { skip }, async (t) => {
  await using image = await StoreImage.create('ext3', 64 * 2 ** 20, ['-I', '128']);
  if (image === undefined) throw new Error('no ext3 on a loop device');
  await t.rejects(TempStore.open(image.path), { message: /file times have no nanoseconds/ });
});

for (const type of ['ext3', 'xfs', 'btrfs'] as const) {
  void t.test(`a store lives on ${type}`, { skip }, async (t) => {
    await using image = await StoreImage.create(type, 400 * 2 ** 20);
    if (image === undefined) {
      // Only btrfs has tools that scripts/test.sh does not install.
      t.equal(type, 'btrfs', 'no such image here');
      return;
    }
    await using store = await TempStore.open(image.path);
    const fid = await store.stub('a/f');
    await store.restore(fid);
    t.equal(await store.flags('a/f'), 0x09);
    await store.writing('a/f', (fd) => {
      writeAll(fd, Buffer.from('mine'));
    });
    await store.native.rename('a/f', 'g');
    t.match(await store.state('g'), { fid, flags: 0x0b, modified: true });
    t.equal(await codeOf(store.native.release(fid)), 'EPERM');
    t.equal(await store.archive('g'), 'clean');
    await store.native.release(fid);
    t.match(await store.state('g'), { flags: 0x0d, size, allocated: 0 });
    await store.reopen();
    await store.restore(fid);
    t.same(store.read('g'), content('0x8DCFFFFFFFFFFFF', size));
    await store.native.truncate('g', 0);
    t.match(await store.state('g'), { flags: 0x0b, size: 0 });
  });
}

void t.test('stubs', { skip }, async (t) => {
  await t.test('a stub has its size, times, owner and mode, no data and no block of its own', async (t) => {
    await using store = await TempStore.open();
    const stub = { ...fileStub('a/b/file.bin'), mode: 0o4751, uid: 12, gid: 34 };
    const results = await store.native.createStubs([stub], { ...defaults, dirMode: 0o751, uid: 7, gid: 8 });
    t.same(kinds(results), ['created']);
    const stat = statSync(store.backing('a/b/file.bin'), { bigint: true });
    t.match(stat, { size: BigInt(size), mtimeNs, uid: 12n, gid: 34n, blocks: 0n });
    t.equal(Number(stat.mode) & 0o7777, 0o4751);
    t.match(statSync(store.backing('a')), { uid: 7, gid: 8 });
    t.equal(statSync(store.backing('a')).mode & 0o7777, 0o751);
    t.match(await store.state('a/b/file.bin'), { flags: 0x0d, archiveId: 1, size, mtimeNs, copy: stub.copy });
    const shown = await store.native.stat('a/b/file.bin');
    t.match(shown, { size, blocks: 1, mtimeNs }, 'one block is shown, so that tar takes it for no hole');
  });

  await t.test('who may write a file is for the kernel to say: mode, ACL and capabilities', async (t) => {
    await using store = await TempStore.open();
    const file = (path: string, mode: number): string => {
      const backing = store.backing(path);
      writeFileSync(backing, '');
      chownSync(backing, 1000, 50);
      chmodSync(backing, mode);
      return backing;
    };
    const [CAP_DAC_OVERRIDE, CAP_SYS_ADMIN] = [1n << 1n, 1n << 21n];
    const [owner, member, other, bare] = [caller(1000), caller(1001, 7, [8, 50]), caller(1002), caller(0)];
    const answer = (path: string, by: Caller): Promise<string> =>
      codeOf(store.native.mayWrite(store.native.fidOf(path), by));
    const rows: readonly (readonly [mode: number, by: Caller, code: string])[] = [
      [0o444, root, 'no error'],
      [0o444, bare, 'EACCES'],
      [0o444, { ...other, capabilities: CAP_DAC_OVERRIDE }, 'no error'],
      [0o444, { ...other, capabilities: CAP_SYS_ADMIN }, 'EACCES'],
      [0o644, owner, 'no error'],
      [0o466, owner, 'EACCES'],
      [0o664, member, 'no error'],
      [0o664, caller(1001, 50), 'no error'],
      [0o646, member, 'EACCES'],
      [0o646, other, 'no error'],
      [0o646, bare, 'no error'],
      [0o644, other, 'EACCES'],
    ];
    for (const [mode, by, code] of rows) {
      const path = mode.toString(8);
      file(path, mode);
      t.equal(await answer(path, by), code, `${path} by ${by.uid}`);
    }
    execFileSync('setfacl', ['-m', 'u:1002:rw', file('user', 0o640)]);
    t.equal(await answer('user', other), 'no error', 'a named user');
    execFileSync('setfacl', ['-m', 'u:1002:rw,g::r', file('group', 0o660)]);
    t.equal(statSync(store.backing('group')).mode & 0o777, 0o660, 'the mask, which the mode shows');
    t.equal(await answer('group', member), 'EACCES', 'what it may not');
  });

  await t.test('owner and mode of a stub are its own, whatever its directory hands down', async (t) => {
    await using store = await TempStore.open();
    const dir = store.backing('d');
    mkdirSync(dir);
    chownSync(dir, 0, 77);
    chmodSync(dir, 0o2755);
    execFileSync('setfacl', ['-d', '-m', 'u::r--,g::r--,o::---', dir]);
    const [owners, modes] = [[0, 12] as const, [0o666, 0o6755, 0o2640, 0o444, 0] as const];
    for (const id of owners) {
      for (const mode of modes) {
        const path = `d/${String(id)}-${mode.toString(8)}`;
        await store.native.createStubs([{ ...fileStub(path), mode, uid: id, gid: id }], defaults);
        const { uid, gid, mode: made } = statSync(store.backing(path));
        t.same([uid, gid, made & 0o7777], [id, id, mode], path);
      }
    }
  });

  await t.test('directories and symbolic links are made whole, too, and remember their blob', async (t) => {
    await using store = await TempStore.open();
    const blank = { uid: 5, gid: 6, mtimeNs, size: 0 };
    const results = await store.native.createStubs(
      [
        { ...blank, path: 'd', kind: 'directory', mode: 0o1775, copy: copyOf('d', { size: 0 }) },
        {
          ...blank,
          path: 'd/l',
          kind: 'symlink',
          mode: 0o777,
          target: Buffer.from('../x y'),
          copy: copyOf('d/l', { size: 6 }),
        },
      ],
      defaults,
    );
    t.same(kinds(results), ['created', 'created']);
    t.equal(readlinkSync(store.backing('d/l')), '../x y');
    t.match(lstatSync(store.backing('d/l'), { bigint: true }), { uid: 5n, gid: 6n, mtimeNs });
    t.equal(statSync(store.backing('d')).mode & 0o7777, 0o1775);
    t.match(await store.state('d'), { type: 'directory', copy: { blob: 'd' } });
    t.match(await store.state('d/l'), { type: 'symlink', copy: { blob: 'd/l' } });
    t.equal(String(await store.native.readlink(store.native.fidOf('d/l'))), '../x y');
    t.equal(await store.native.readlink(store.native.fidOf('d')), null);
  });

  await t.test('what is there stays as it is', async (t) => {
    await using store = await TempStore.open();
    writeFileSync(store.backing('mine'), 'my data');
    mkdirSync(store.backing('dir'), { mode: 0o700 });
    const results = await store.native.createStubs(
      [fileStub('mine'), fileStub('dir'), { ...fileStub('dir'), kind: 'directory', mode: 0o777, size: 0 }],
      defaults,
    );
    t.same(kinds(results), ['exists', 'exists', 'exists']);
    t.match(results[0], { state: { type: 'file', flags: 0, size: 7 } });
    t.match(results[1], { state: { type: 'directory', mode: 0o700 } });
    t.equal(store.read('mine').toString(), 'my data');
  });

  await t.test('rule 5: a name that could lead out of the namespace is refused', async (t) => {
    await using store = await TempStore.open();
    const outside = join(store.path, 'outside');
    mkdirSync(outside);
    symlinkSync(outside, store.backing('link'));
    writeFileSync(store.backing('file'), '');
    const long = 'x'.repeat(256);
    const rows: readonly (readonly [string, string])[] = [
      ['', 'EINVAL'],
      ['/etc/x', 'EINVAL'],
      ['..', 'EINVAL'],
      ['a/../../x', 'EINVAL'],
      ['a/./x', 'EINVAL'],
      ['a//x', 'EINVAL'],
      ['a/', 'EINVAL'],
      ['a\0b', 'EINVAL'],
      [long, 'ENAMETOOLONG'],
      [`${long}/x`, 'ENAMETOOLONG'],
      ['link/x', 'ENOTDIR'],
      ['link/deeper/x', 'ELOOP'],
      ['file/x', 'ENOTDIR'],
      [`ok/${'x'.repeat(255)}`, 'created'],
      ['quote\'"\n\u00e9\u{1f600} x', 'created'],
    ];
    const results = await store.native.createStubs(
      rows.map(([path]) => fileStub(path)),
      defaults,
    );
    t.same(
      kinds(results),
      rows.map(([, wanted]) => wanted),
    );
    const [missing] = await store.native.createStubs(
      [{ ...fileStub('no-copy'), copy: undefined } as never],
      defaults,
    );
    t.match(missing, { kind: 'failed', code: 'EINVAL' }, 'no file of zeros without a copy');
    t.equal(await codeOf(store.native.openBeneath('link/x', 0, 0)), 'ELOOP');
    t.equal(await codeOf(store.native.openBeneath('../outside', 0, 0)), 'EINVAL');
    t.same(await store.native.lookup(['link/x', 'nothing', 'file/x']), [undefined, undefined, undefined]);
  });

  await t.test(
    'a stub has the ACLs that it was given, and of its directory only what it was not',
    async (t) => {
      await using store = await TempStore.open();
      const [access, inherited] = ['system.posix_acl_access', 'system.posix_acl_default'];
      const acl = (user: number): Buffer | null =>
        posixAclsOf(`user::rw-,user:${user}:rwx,group::r--,mask::r-x,other::---`).access;
      const found = (path: string, kind?: 'default'): string | null => aclOf(store.backing(path), kind);
      const directory = {
        path: 'd',
        kind: 'directory',
        mode: 0o700,
        uid: 0,
        gid: 0,
        mtimeNs,
        size: 0,
      } as const;
      const results = await store.native.createStubs(
        [
          { ...directory, extended: { [access]: null, [inherited]: acl(1) } },
          { ...fileStub('d/given'), extended: { [access]: acl(2) } },
          { ...fileStub('d/none'), extended: { [access]: null } },
          { ...fileStub('d/inherits') },
          { ...fileStub('bad'), extended: { [access]: Buffer.from('no ACL') } },
        ],
        defaults,
      );
      t.same(kinds(results), ['created', 'created', 'created', 'created', 'EOPNOTSUPP']);
      t.same([found('d'), found('d', 'default')], [null, 'u=6 u1=7 g=4 m=5 o=0']);
      t.equal(found('d/given'), 'u=6 u2=7 g=4 m=5 o=0');
      t.equal(found('d/none'), null);
      t.match(found('d/inherits'), / u1=7 /);
      t.match(await store.state('d/given'), { mode: 0o650, mtimeNs, flags: 0x0d });
      t.match(await store.state('d/none'), { mode: 0o644, mtimeNs });

      await store.native.setAttributes('d/given', { mode: 0o640, extended: { [access]: null } });
      t.same([found('d/given'), (await store.state('d/given')).mode], [null, 0o640]);
      await store.native.setAttributes('d/none', { mode: 0o600, extended: { [access]: acl(3) } });
      t.match(found('d/none'), / u3=7 /);
      const stub = { ...fileStub('d/none', { etag: '0xNEW' }), extended: { [access]: acl(4) } };
      await store.native.replaceCopy(store.native.fidOf('d/none'), stub);
      t.match(found('d/none'), / u4=7 /);
      const other = { ...stub, extended: { [access]: acl(5) } };
      await store.native.replaceEntry(store.native.fidOf('d/none'), other);
      t.match(found('d/none'), / u5=7 /);
    },
  );

  await t.test('setAttributes and remove act on the entry that was meant', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    await store.native.setAttributes('f', { mode: 0o600, uid: 3, gid: 4, mtimeNs: 5_000_000_007n });
    t.match(await store.state('f'), { flags: 0x0d, mode: 0o600, uid: 3, gid: 4, mtimeNs: 5_000_000_007n });
    unlinkSync(store.backing('f'));
    const other = await store.stub('f');
    t.equal(await codeOf(store.native.remove('f', fid)), 'ESTALE');
    t.equal(await codeOf(store.native.setAttributes('f', { mode: 0o4755, fid })), 'ESTALE');
    t.match(await store.state('f'), { mode: 0o644, mtimeNs });
    await store.native.setAttributes('f', { mode: 0o600, fid: other });
    t.match(await store.state('f'), { mode: 0o600 });
    const extended = { 'system.posix_acl_access': Buffer.from('no ACL') };
    t.not(await codeOf(store.native.setAttributes('f', { mode: 0o640, uid: 9, extended })), 'no error');
    t.match(await store.state('f'), { mode: 0o600, uid: 0 }, 'ACLs first: what is cut off still differs');
    await store.native.remove('f', other);
    t.equal(await codeOf(store.native.state(other)), 'ENOENT');
    t.throws(() => store.native.fidOf('f'), { code: 'ENOENT', errno: 2 });
  });
});

void t.test('the walk', { skip }, async (t) => {
  await using store = await TempStore.open();
  await store.stub('a/released');
  await store.resident('a/b/clean');
  await store.resident('a/b/dirty');
  await store.writing('a/b/dirty', (fd) => writeAll(fd, Buffer.from('new')));
  writeFileSync(store.backing('new'), 'x');
  symlinkSync('new', store.backing('link'));
  const odd = Buffer.concat([Buffer.from(`${store.path}/ns/bad-`), Buffer.from([0xff, 0xfe])]);
  writeFileSync(odd, 'odd');

  for (const batch of [1, 2, 1000]) {
    const entries = await walkAll(store, { batch });
    const flags = Object.fromEntries(entries.map((entry) => [entry.path, entry.flags]));
    t.same(
      flags,
      {
        a: 0,
        'a/b': 0,
        'a/b/clean': 0x09,
        'a/b/dirty': 0x0b,
        'a/released': 0x0d,
        link: 0,
        new: 0,
        'bad-\ufffd\ufffd': 0,
      },
      `every entry once, with its state, in batches of ${batch}`,
    );
    for (const [i, { path }] of entries.entries()) {
      const parent = path.slice(0, Math.max(0, path.lastIndexOf('/')));
      if (parent !== '')
        t.ok(entries.findIndex((entry) => entry.path === parent) < i, `${parent} before ${path}`);
    }
    t.match(
      entries.find(({ path }) => path === 'link'),
      { type: 'symlink', target: Buffer.from('new') },
    );
    const bad = entries.find(({ path }) => path.startsWith('bad'));
    t.same(bad?.pathBytes, odd.subarray(store.path.length + 4), 'a name that is not UTF-8 comes as bytes');
  }
  const changed = await walkAll(store, { select: 'changed' });
  const paths = changed.filter(({ type }) => type === 'file').map(({ path }) => path);
  t.same(paths.sort(), ['a/b/dirty', 'bad-\ufffd\ufffd', 'new'], 'what an export would copy');
  const below = await walkAll(store, { path: 'a/b' });
  t.same(below.map(({ path }) => path).sort(), ['a/b/clean', 'a/b/dirty']);
  const missing = store.native.walk({ path: 'nothing', select: 'all', batch: 10 });
  t.equal(await codeOf(missing.next()), 'ENOENT');
  t.equal(await missing.next(), null);
  t.match(await store.native.census(), {
    files: 5,
    directories: 2,
    symlinks: 1,
    resident: 4,
    released: 1,
    releasedBytes: size,
    dirty: 1,
    new: 2,
  });
});

void t.test('restore', { skip }, async (t) => {
  await t.test("brings the data back under the record's times, and nothing but that", async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    const before = await store.native.stat('f');
    await store.restore(fid);
    t.same(store.read('f'), content('0x8DC0123456789AB', size));
    t.match(await store.state('f'), { flags: 0x09, size, mtimeNs, modified: false, restoring: false });
    t.match(await store.native.stat('f'), { ctimeNs: before.ctimeNs, mtimeNs }, 'tar sees no change');
    t.equal(await codeOf(store.native.beginRestore(fid)), 'EALREADY');
  });

  await t.test('a reader asks for it once and waits for as much as it wants to read', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f', { size: 65536 });
    const { handle, fd } = await store.native.openHandle('f', 0, 0);
    t.same(store.needed, [], 'an open restores nothing');
    const early = store.native.admitRead(handle, 0, 4096);
    const late = store.native.admitRead(handle, 4096, 4096);
    const end = store.native.admitRead(handle, 61440, 8192);
    await until(() => store.native.stats()['waiting'] === 3, { what: 'three waiting readers' });
    await until(() => store.needed.length > 0, { what: 'the request' });
    const plan = await store.native.beginRestore(fid);
    const bytes = content('0x8DC0123456789AB', 65536);
    writeAll(plan.fd, bytes.subarray(0, 4096));
    store.native.restoreProgress(fid, 4096);
    await early;
    t.same(readAll(fd, 4096), bytes.subarray(0, 4096));
    await until(() => store.native.stats()['waiting'] === 2, { what: 'two waiting readers' });
    t.equal(await store.flags('f'), 0x0d);
    writeAll(plan.fd, bytes.subarray(4096), 4096);
    await store.native.finishRestore(fid, copyOf('f', { size: 65536 }));
    await Promise.all([late, end]);
    t.same(store.needed, [fid], 'three readers, one request');
    t.same(readAll(fd, 65536), bytes);
    await store.native.closeHandle(handle);
    await until(() => store.native.stats()['inodes'] === 0, { what: 'the inode to be forgotten' });
    t.match(store.native.stats(), { waiting: 0, handles: 0, restoring: 0 }, 'nothing is left behind');
  });

  await t.test('a failed one leaves no byte, and wakes its readers with the errno', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    const { handle } = await store.native.openHandle('f', 0, 0);
    const read = codeOf(store.native.admitRead(handle, 0, 10));
    const write = codeOf(store.native.openHandle('f', 2, 0));
    await until(() => store.native.stats()['waiting'] === 2, { what: 'two waiters' });
    const plan = await store.native.beginRestore(fid);
    writeAll(plan.fd, Buffer.alloc(size, 'x'));
    t.not(store.allocated('f'), 0);
    await store.native.failRestore(fid, 61);
    t.same(await Promise.all([read, write]), ['ENODATA', 'ENODATA']);
    t.equal(store.allocated('f'), 0);
    t.match(await store.state('f'), { flags: 0x0d, size, mtimeNs, restoring: false });
    t.equal(
      await codeOf(store.native.admitRead(handle, 0, 10)),
      'ENODATA',
      "the kernel's retry starts nothing",
    );
    t.same(store.needed, [fid]);
    await store.native.closeHandle(handle);
    await store.native.failRestore(fid, 61);
  });

  await t.test('of one that was canceled, and has not ended, the next reader asks for another', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    store.native.restoreCanceled(fid);
    const { handle } = await store.native.openHandle('f', 0, 0);
    const reads = [codeOf(store.native.admitRead(handle, 0, 10))];
    await until(() => store.needed.length === 1, { what: 'the request' });
    await store.native.beginRestore(fid);
    store.native.restoreCanceled(fid);
    for (const waiting of [2, 3]) {
      reads.push(codeOf(store.native.admitRead(handle, 0, 10)));
      await until(() => store.native.stats()['waiting'] === waiting, { what: `${waiting} readers` });
    }
    await until(() => store.needed.length === 2, { what: 'the second request' });
    await store.native.failRestore(fid, 61);
    t.same(await Promise.all(reads), Array(3).fill('ENODATA'));
    t.same(store.needed, [fid, fid], 'once');
    await store.native.closeHandle(handle);
  });

  await t.test('rule 12: of one that was canceled, who waits may ask anew', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    const { handle, fd } = await store.native.openHandle('f', 0, 0);
    await store.native.beginRestore(fid);
    const read = store.native.admitRead(handle, 0, 10);
    await until(() => store.needed.length === 1, { what: 'the request' });
    await store.native.failRestore(fid, 0);
    await until(() => store.needed.length === 2, { what: 'the second request' });
    await store.restore(fid);
    await read;
    t.same(readAll(fd, size), content('0x8DC0123456789AB', size));
    await store.native.closeHandle(handle);
  });

  await t.test('without a beginning, too, when the request was refused', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    const opening = codeOf(store.native.openHandle('f', 2, 0));
    await until(() => store.needed.length === 1, { what: 'the request' });
    await store.native.failRestore(fid, 61);
    t.equal(await opening, 'ENODATA');
  });

  await t.test('rule 6: a mover that brought too little is not believed', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    await store.native.beginRestore(fid, copyOf('f', { etag: '0x9', size: size * 2 }));
    t.equal(
      await codeOf(store.native.finishRestore(fid, copyOf('f', { etag: '0x9', size: size * 2 }))),
      'EIO',
    );
    await store.native.failRestore(fid, 61);
    t.match(await store.state('f'), { flags: 0x0d, size });
  });

  await t.test('rule 6: space is there before the first byte, or ENOSPC is', async (t) => {
    await using store = await TempStore.open();
    const { bavail, bsize } = store.native.statfs();
    const fid = await store.stub('huge', { size: Number(bavail) * bsize + 2 ** 36 });
    t.equal(await codeOf(store.native.beginRestore(fid)), 'ENOSPC');
    t.equal(store.allocated('huge'), 0);
    t.equal(await store.flags('huge'), 0x0d);
  });

  await t.test(
    'another version of the blob is taken whole: no early byte, then size and copy in one step',
    async (t) => {
      await using store = await TempStore.open();
      const fid = await store.stub('f');
      const { handle } = await store.native.openHandle('f', 0, 0);
      let woken = false;
      const read = store.native.admitRead(handle, 0, 100).then(() => (woken = true));
      await until(() => store.native.stats()['waiting'] === 1, { what: 'a reader' });
      const other = copyOf('f', { etag: '0x9', size: 100 });
      const plan = await store.native.beginRestore(fid, other);
      writeAll(plan.fd, content('0x9', 100));
      store.native.restoreProgress(fid, 100);
      await store.native.state(fid);
      t.equal(woken, false);
      await store.native.finishRestore(fid, other);
      await read;
      t.match(await store.state('f'), { flags: 0x09, size: 100, mtimeNs, copy: other });
      t.same(store.read('f'), content('0x9', 100));
      await store.native.closeHandle(handle);
    },
  );

  await t.test('rule 9: a handle that was given bytes of one version gets none of another', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    const { handle } = await store.native.openHandle('f', 0, 0);
    const read = store.native.admitRead(handle, 0, 100);
    await until(() => store.needed.length === 1, { what: 'the request' });
    await store.native.beginRestore(fid);
    store.native.restoreProgress(fid, 100);
    await read;
    await store.native.failRestore(fid, 61);
    // The kernel shows what one handle was given through every handle.
    const second = await store.native.openHandle('f', 0, 0);
    const other = copyOf('f', { etag: '0x9' });
    t.equal(await codeOf(store.native.beginRestore(fid, other)), 'EBUSY');
    await store.native.closeHandle(handle);
    t.equal(await codeOf(store.native.beginRestore(fid, other)), 'EBUSY', 'while any of them is open');
    await store.native.closeHandle(second.handle);
    await store.restore(fid, other);
    const third = await store.native.openHandle('f', 0, 0);
    await store.native.admitRead(third.handle, 0, 100);
    await store.native.closeHandle(third.handle);
  });

  await t.test('rule 12: an unlinked stub is restored for who has it open', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    const { handle, fd } = await store.native.openHandle('f', 0, 0);
    unlinkSync(store.backing('f'));
    const read = store.native.admitRead(handle, 0, size);
    await until(() => store.needed.length === 1, { what: 'the request' });
    t.match(await store.native.orphans(), [{ fid, nlink: 0 }]);
    await store.restore(fid);
    await read;
    t.same(readAll(fd, size), content('0x8DC0123456789AB', size));
    await store.native.closeHandle(handle);
    t.equal(await codeOf(store.native.state(fid)), 'ENOENT');
  });

  await t.test('truncating to nothing restores nothing; to something it does', async (t) => {
    await using store = await TempStore.open();
    await store.stub('zero');
    await store.native.truncate('zero', 0);
    t.match(await store.state('zero'), { flags: 0x0b, size: 0, modified: true });
    const opened = await store.stub('opened');
    const { handle } = await store.native.openHandle('opened', 0o1001, 0);
    await store.native.closeHandle(handle);
    t.match(await store.native.state(opened), { flags: 0x0b, size: 0 });
    t.same(store.needed, []);
    const fid = await store.stub('some');
    const truncating = store.native.truncate('some', 10);
    await until(() => store.needed.length === 1, { what: 'the request' });
    await store.restore(fid);
    await truncating;
    t.same(store.read('some'), content('0x8DC0123456789AB', size).subarray(0, 10));
    await until(async () => (await store.flags('some')) === 0x0b, { what: 'dirty' });
  });
});

void t.test('a blob takes the place of what is there', { skip }, async (t) => {
  await t.test('of files clean and dirty, symlinks and empty directories, as a stub', async (t) => {
    await using store = await TempStore.open();
    const places: Readonly<Record<string, () => unknown>> = {
      stub: () => store.stub('stub'),
      clean: () => store.resident('clean'),
      dirty: async () => {
        await store.resident('dirty');
        await store.writing('dirty', (fd) => {
          writeAll(fd, Buffer.from('mine'));
        });
      },
      new: () => {
        writeFileSync(store.backing('new'), 'mine');
      },
      symlink: () => {
        symlinkSync('/', store.backing('symlink'));
      },
      directory: () => {
        mkdirSync(store.backing('directory'));
      },
    };
    for (const [name, make] of Object.entries(places)) {
      await make();
      const old = store.native.fidOf(name);
      const made = await store.native.replaceEntry(old, fileStub(name, { etag: '0xB2', size: 5 }));
      t.not(made, old, name);
      t.match(await store.state(name), { fid: made, flags: 0x0d, size: 5, copy: { etag: '0xB2' } }, name);
      const kinds = [
        { ...fileStub(name), kind: 'symlink', target: Buffer.from('x'), size: 0 },
        { ...fileStub(name), kind: 'directory', size: 0 },
      ] as const;
      for (const stub of kinds) {
        await store.native.replaceEntry(store.native.fidOf(name), stub);
        t.equal((await store.state(name)).type, stub.kind, name);
      }
    }
    t.equal(readlinkOrNull(store.backing('symlink')), null);
    t.equal(lstatSync(join(store.path, 'staging')).nlink, 2, 'nothing is left in staging');
  });

  await t.test('but never of what is in use, has another name by now, or has entries', async (t) => {
    await using store = await TempStore.open();
    using outsider = new Outsider();
    const fid = await store.resident('f');
    const stub = fileStub('f', { etag: '0xB2' });
    const { handle } = await store.native.openHandle('f', 0, 0);
    t.equal(await codeOf(store.native.replaceEntry(fid, stub)), 'EBUSY', 'a reader');
    await store.native.closeHandle(handle);
    await outsider.do('map', store.backing('f'));
    t.equal(await codeOf(store.native.replaceEntry(fid, stub)), 'EBUSY', 'a mapping');
    await outsider.do('unmap');
    const plan = await store.native.beginArchive(fid, 1);
    t.equal(await codeOf(store.native.replaceEntry(fid, stub)), 'EBUSY', 'an archive');
    await store.native.abortArchive(plan.token);
    const other = await store.resident('other');
    t.equal(await codeOf(store.native.replaceEntry(other, stub)), 'ESTALE', 'of another file');
    await store.native.rename('other', 'f');
    t.equal(await codeOf(store.native.replaceEntry(fid, stub)), 'ESTALE', 'renamed over');
    t.match(await store.state('f'), { fid: other, flags: 0x09 });
    mkdirSync(store.backing('d'));
    writeFileSync(store.backing('d/inside'), 'mine');
    t.equal(await codeOf(store.native.replaceEntry(store.native.fidOf('d'), fileStub('d'))), 'ENOTEMPTY');
    t.same(store.read('d/inside'), Buffer.from('mine'));
    t.equal(await codeOf(store.native.replaceEntry(fid, fileStub('gone'))), 'ENOENT');
    for (const path of ['', '..', 'a/../b', '/f'])
      t.equal(await codeOf(store.native.replaceEntry(fid, fileStub(path))), 'EINVAL', path);
  });

  await t.test('a file that makes way for a directory is clean and unused', async (t) => {
    await using store = await TempStore.open();
    const clean = { onlyClean: true };
    const fid = await store.resident('f');
    const { handle } = await store.native.openHandle('f', 0, 0);
    t.equal(await codeOf(store.native.remove('f', fid, clean)), 'EBUSY');
    await store.native.closeHandle(handle);
    await store.writing('f', (fd) => {
      writeAll(fd, Buffer.from('mine'));
    });
    t.equal(await codeOf(store.native.remove('f', fid, clean)), 'ESTALE');
    t.equal(await store.archive('f'), 'clean');
    await store.native.remove('f', fid, clean);
    const stub = await store.stub('f');
    await store.native.remove('f', stub, clean);
    writeFileSync(store.backing('f'), 'new');
    t.equal(await codeOf(store.native.remove('f', store.native.fidOf('f'), clean)), 'ESTALE');
    await store.native.remove('f', store.native.fidOf('f'));
  });

  await t.test('a file whose blob is lost has the only data, and gives it up for nothing', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.resident('f');
    const before = store.read('f');
    await store.native.changeFlags(fid, HS_LOST, 0, 0);
    t.equal(await codeOf(store.native.remove('f', fid, { onlyClean: true })), 'ESTALE');
    t.equal(await codeOf(store.native.replaceCopy(fid, fileStub('f', { etag: '0xB2' }))), 'ESTALE');
    t.same(store.read('f'), before);
  });

  await t.test('what is taken away is what was looked at, whatever is renamed meanwhile', async (t) => {
    await using store = await TempStore.open();
    await store.resident('a');
    const dirty = await store.resident('b');
    await store.writing('b', (fd) => {
      writeAll(fd, Buffer.from('mine'));
    });
    // The file that has the name now is in use, so that there is time to give the name to the other one.
    const { handle } = await store.native.openHandle('a', 0, 0);
    const removed = codeOf(store.native.remove('a', dirty, { onlyClean: true }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await store.native.rename('a', 'x');
    await store.native.rename('b', 'a');
    await store.native.closeHandle(handle);
    t.equal(await removed, 'ESTALE');
    t.match(await store.state('a'), { fid: dirty, flags: 0x0b });
  });

  await t.test('a second name of what was replaced goes on', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.resident('f');
    await store.writing('f', (fd) => {
      writeAll(fd, Buffer.from('mine'));
    });
    await store.native.link('f', 'g');
    await store.native.replaceEntry(fid, fileStub('f', { etag: '0xB2' }));
    t.match(await store.state('g'), { fid, flags: 0x0b, nlink: 1 });
    t.equal(store.read('g').subarray(0, 4).toString(), 'mine');
  });

  await t.test('renames that race with it never lose the file that was renamed', async (t) => {
    await using store = await TempStore.open();
    for (let turn = 0; turn < 50; turn++) {
      const fid = await store.stub(`f${turn}`);
      writeFileSync(store.backing(`new${turn}`), `mine ${turn}`);
      const [replaced] = await Promise.all([
        codeOf(store.native.replaceEntry(fid, fileStub(`f${turn}`, { etag: '0xB2' }))),
        store.native.rename(`new${turn}`, `f${turn}`),
      ]);
      t.ok(['no error', 'ESTALE'].includes(replaced), replaced);
      t.equal(store.read(`f${turn}`).toString(), `mine ${turn}`, 'the rename came last');
      const again = await codeOf(store.native.remove(`f${turn}`, fid));
      t.equal(again, 'ESTALE', 'and only what was looked at is removed');
    }
  });
});

function readlinkOrNull(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

void t.test('clean and dirty', { skip }, async (t) => {
  await t.test('rule 1: opening for writing suspends durably, writing shows at once', async (t) => {
    await using store = await TempStore.open();
    await store.resident('f');
    await store.writing('f', async (fd) => {
      t.match(await store.state('f'), { flags: 0x09, writers: 1 }, 'an open alone is no write');
      writeAll(fd, Buffer.from('x'));
      t.match(await store.state('f'), { flags: 0x0b, modified: true });
    });
    await store.reopen();
    t.match(await store.state('f'), { flags: 0x0b, modified: true });
  });

  await t.test('a file that was only opened for writing is clean again', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.resident('f');
    const before = await store.native.stat('f');
    await store.writing('f', () => undefined);
    await until(() => store.native.stats()['suspended'] === 0, { what: 'settling' });
    t.equal(await store.flags('f'), 0x09);
    t.equal((await store.native.stat('f')).ctimeNs, before.ctimeNs);
    await store.native.release(fid);
    t.equal(await store.flags('f'), 0x0d);
  });

  await t.test(
    'rule 3: what another daemon of this boot suspended settles by lease and statement',
    async (t) => {
      await using store = await TempStore.open();
      await store.resident('same');
      await store.resident('written');
      const same = await store.native.openHandle('same', 2, 0);
      const written = await store.native.openHandle('written', 2, 0);
      writeAll(written.fd, Buffer.from('x'));
      t.type(same.fd, 'number');
      await store.reopen();
      t.equal(await store.flags('same'), 0x09);
      t.equal(await store.flags('written'), 0x0b);
    },
  );

  await t.test(
    'a write through a mapping that outlived its handle shows, and until then nothing is released',
    async (t) => {
      await using store = await TempStore.open();
      using outsider = new Outsider();
      const fid = await store.resident('f');
      await store.writing('f', async () => outsider.do('map', store.backing('f')));
      t.equal(await store.flags('f'), 0x09);
      t.equal(await codeOf(store.native.release(fid)), 'EBUSY');
      t.equal(await codeOf(store.native.beginArchive(fid, 1)), 'EBUSY');
      await outsider.do('store');
      t.equal(await store.flags('f'), 0x0b);
      await outsider.do('unmap');
      await until(async () => (await store.state('f')).modified, { what: 'modified' });
      t.equal(await store.flags('f'), 0x0b, 'also when the mapping is gone');
      t.equal(await store.archive('f'), 'clean');
    },
  );

  await t.test('and is clean again when the mapping went without a store', async (t) => {
    await using store = await TempStore.open();
    using outsider = new Outsider();
    const fid = await store.resident('f');
    await store.writing('f', async () => outsider.do('map', store.backing('f')));
    t.equal(await store.flags('f'), 0x09);
    await outsider.do('unmap');
    await until(async () => (await codeOf(store.native.release(fid))) === 'no error', {
      what: 'the release',
    });
    t.equal(await store.flags('f'), 0x0d);
  });

  await t.test('rule 1: what cannot be noted is not admitted', async (t) => {
    await using image = await StoreImage.create('ext4', 64 * 2 ** 20);
    if (image === undefined) throw new Error('no ext4 on a loop device');
    await using store = await TempStore.open(image.path);
    // Among these lengths is one whose record has room in the inode until it says "suspended", too.
    const names = Array.from({ length: 60 }, (_, n) => 'n'.repeat(n + 1));
    for (const name of names) await store.resident(name);
    const filler = openSync(join(image.path, 'filler'), 'w');
    for (let chunk = 2 ** 20; chunk >= 512; chunk /= 2) {
      const bytes = Buffer.alloc(chunk);
      // Ends with ENOSPC: the disk has 64 MiB.
      await t.rejects(async () => {
        for (let at = 0; at < 2 ** 27; at += chunk) await Promise.resolve(writeSync(filler, bytes));
      });
    }
    closeSync(filler);
    const refused: string[] = [];
    for (const name of names) {
      const code = await codeOf(store.writing(name, () => undefined));
      if (code === 'no error') continue;
      t.equal(code, 'ENOSPC', name);
      refused.push(name);
    }
    t.ok(refused.length > 0, 'no record outgrew its inode');
    for (const name of refused) {
      t.match(await store.state(name), { flags: 0x09, modified: false, size });
      t.equal(await codeOf(store.native.release(store.native.fidOf(name))), 'no error', 'it is clean');
    }
  });

  await t.test('rule 10: utimes never hides a write', async (t) => {
    await using store = await TempStore.open();
    await store.resident('touched');
    await store.writing('touched', async () =>
      store.native.setTimes('touched', null, 1_600_000_000_000_000_000n),
    );
    await until(() => store.native.stats()['suspended'] === 0, { what: 'settling' });
    t.match(
      await store.state('touched'),
      { flags: 0x09, mtimeNs: 1_600_000_000_000_000_000n },
      'a touch is no write',
    );
    await store.resident('hidden');
    await store.writing('hidden', async (fd) => {
      writeAll(fd, Buffer.from('x'));
      await store.native.setTimes('hidden', null, mtimeNs);
    });
    t.match(await store.state('hidden'), { flags: 0x0b, modified: true, mtimeNs });
    await store.resident('clean');
    await store.native.setTimes('clean', 7n, 8n);
    t.match(await store.state('clean'), { flags: 0x09, mtimeNs: 8n });
    await store.stub('stub');
    await store.native.setTimes('stub', null, 9n);
    t.match(await store.state('stub'), { flags: 0x0d, mtimeNs: 9n });
    await store.restore(store.native.fidOf('stub'));
    t.match(await store.state('stub'), { flags: 0x09, mtimeNs: 9n });
  });

  await t.test('rule 10: utimes takes no evidence from a write that comes in its clock tick', async (t) => {
    for (const type of ['ext4', 'ext3'] as const) {
      await using image = await StoreImage.create(type, 64 * 2 ** 20);
      if (image === undefined) throw new Error(`no ${type} on a loop device`);
      await using store = await TempStore.open(image.path);
      for (let turn = 0; turn < 20; turn++) {
        const name = `f${turn}`;
        const fid = await store.resident(name);
        await store.writing(name, async (fd) => {
          // The time that a write would leave now, where times are those of the tick.
          writeFileSync(join(store.path, 'clock'), 'tick');
          const now = statSync(join(store.path, 'clock'), { bigint: true }).mtimeNs;
          await store.native.setTimes(name, null, now);
          t.equal((await store.native.stat(name)).mtimeNs, now, 'shown at once');
          writeAll(fd, Buffer.from('x'));
        });
        t.match(await store.state(name), { flags: 0x0b, modified: true }, `${type} ${name}`);
        t.equal(await codeOf(store.native.release(fid)), 'EPERM');
      }
    }
  });

  await t.test('rule 10: an mtime set while the file is open is its mtime when nobody wrote', async (t) => {
    await using store = await TempStore.open();
    using outsider = new Outsider();
    const wanted = 1_600_000_000_000_000_001n;
    const shows = async (name: string, expected: object): Promise<void> => {
      t.match(await store.state(name), expected, name);
      t.match(await store.native.stat(name), { mtimeNs: wanted });
    };
    await store.resident('two');
    await store.writing('two', async () => {
      await store.writing('two', async () => store.native.setTimes('two', 5n, wanted));
      await shows('two', { flags: 0x09, mtimeNs: wanted });
      await store.native.setAttributes('two', { mode: 0o600 });
      await shows('two', { flags: 0x09, mtimeNs: wanted });
    });
    await until(() => store.native.stats()['suspended'] === 0, { what: 'settling' });
    await shows('two', { flags: 0x09, mtimeNs: wanted });
    t.match(statSync(store.backing('two'), { bigint: true }), { atimeNs: 5n, mtimeNs: wanted });

    await store.resident('mapped');
    await store.writing('mapped', async () => outsider.do('map', store.backing('mapped')));
    await store.native.setTimes('mapped', null, wanted);
    await shows('mapped', { flags: 0x09 });
    await outsider.do('store');
    t.match(await store.state('mapped'), { flags: 0x0b }, 'a store that comes after it shows');
    t.not((await store.state('mapped')).mtimeNs, wanted, 'and has its own time');

    for (const [name, change] of [
      ['flagged', (fid) => store.native.changeFlags(fid, 0x02, 0, 0)],
      ['marked', (fid) => store.native.markModified(fid)],
      ['removing', (fid) => store.native.beginRemove(fid)],
      ['forgotten', (fid) => store.native.forgetCopy(fid)],
    ] as readonly (readonly [string, (fid: Fid) => Promise<unknown>])[]) {
      const fid = await store.resident(name);
      await store.writing(name, async () => {
        await store.native.setTimes(name, null, wanted);
        await change(fid);
        await shows(name, {});
      });
      await shows(name, {});
    }

    await store.resident('left');
    const { handle } = await store.native.openHandle('left', 0o2, 0);
    await store.native.setTimes('left', null, wanted);
    await store.reopen();
    await shows('left', {});
    t.ok(handle);
  });

  await t.test('rule 10: an mtime is shown without a break while its suspension ends', async (t) => {
    await using store = await TempStore.open();
    await store.resident('f');
    const wrong: bigint[] = [];
    for (let turn = 0; turn < 100; turn++) {
      const wanted = BigInt(1_600_000_000 + turn) * 1_000_000_000n;
      await store.writing('f', async () => store.native.setTimes('f', null, wanted));
      do {
        const looks = await Promise.all(Array.from({ length: 16 }, () => store.native.stat('f')));
        wrong.push(...looks.map(({ mtimeNs }) => mtimeNs).filter((shown) => shown !== wanted));
      } while (store.native.stats()['suspended'] !== 0);
    }
    t.same(wrong, []);
  });

  await t.test('rule 10: a change time that moved unnoticed costs no mtime', async (t) => {
    await using store = await TempStore.open();
    await store.resident('f');
    const wanted = 1_600_000_000_000_000_001n;
    await store.writing('f', async () => {
      await store.native.setTimes('f', null, wanted);
      chmodSync(store.backing('f'), 0o600);
    });
    await until(() => store.native.stats()['suspended'] === 0, { what: 'settling' });
    t.match(await store.state('f'), { flags: 0x0b, mtimeNs: wanted });
  });

  await t.test('a utimes right behind the last close leaves nothing open', async (t) => {
    await using store = await TempStore.open();
    for (let turn = 0; turn < 50; turn++) {
      await store.resident(`f${turn}`);
      await store.writing(`f${turn}`, (fd) => {
        writeAll(fd, Buffer.from('x'));
      });
      await store.native.setTimes(`f${turn}`, null, 1n);
    }
    await until(() => store.native.stats()['inodes'] === 0, { what: 'inodes without state being forgotten' });
    t.pass();
  });

  await t.test('metadata does not make a file dirty', async (t) => {
    await using store = await TempStore.open();
    await store.resident('f');
    await store.writing('f', async () => {
      await store.native.setAttributes('f', { mode: 0o600, uid: 1, gid: 1 });
      await store.native.link('f', 'g');
      await store.native.rename('g', 'h');
    });
    await until(() => store.native.stats()['suspended'] === 0, { what: 'settling' });
    t.equal(await store.flags('h'), 0x09);
    t.equal(store.native.renames(), 4, 'each before and after, for walks in between');
    t.equal(store.native.everRenamed(), true);
    await store.reopen();
    t.equal(store.native.everRenamed(), true, 'and that is remembered');
  });

  await t.test(
    "flags: what a user sets and clears is shown, and clears no write from the daemon's mind",
    async (t) => {
      await using store = await TempStore.open();
      const fid = await store.resident('f');
      await store.native.changeFlags(fid, 0x02, 0, 0);
      t.match(await store.state('f'), { flags: 0x0b, modified: false });
      await store.native.changeFlags(fid, 0x10, 0x02, 3);
      t.match(await store.state('f'), { flags: 0x19, archiveId: 3, modified: false });
      await store.native.changeFlags(fid, 0, 0x10, 0);
      await store.writing('f', (fd) => writeAll(fd, Buffer.from('x')));
      await until(async () => (await store.flags('f')) === 0x0b, { what: 'dirty' });
      await store.native.changeFlags(fid, 0, 0x02, 0);
      t.match(await store.state('f'), { flags: 0x09, modified: true });
      t.equal(await codeOf(store.native.release(fid)), 'EPERM');
      await store.writing('f', (fd) => writeAll(fd, Buffer.from('y')));
      t.equal(await store.flags('f'), 0x0b, 'the next write is dirty again');
      const released = await store.stub('released');
      await store.native.changeFlags(released, 0x02, 0, 0);
      t.equal(await store.flags('released'), 0x0d, 'rule 4: RELEASED is never dirty');
    },
  );

  await t.test('rule 8: a file whose blob got another owner is dirty and has no copy', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.resident('f');
    await store.native.markModified(fid);
    const state = await store.state('f');
    t.match(state, { flags: 0x0b, modified: true });
    t.equal(state.copy, undefined);
    t.equal(await codeOf(store.native.markModified(await store.stub('g'))), 'ENODATA');
  });

  await t.test(
    'a file whose copy is removed is in none before it goes, and dirty where it was written',
    async (t) => {
      await using store = await TempStore.open();
      const fid = await store.resident('f');
      const { copy } = await store.state('f');
      await store.native.beginRemove(fid);
      const begun = { flags: 0x01, archiveId: 1, modified: true, copy };
      t.match(await store.state('f'), begun);
      t.equal(await codeOf(store.native.release(fid)), 'EPERM');
      await store.reopen();
      t.match(await store.state('f'), begun, 'durably');
      await store.native.beginRemove(fid);
      await store.native.forgetCopy(fid);
      t.match(await store.state('f'), { flags: 0, archiveId: 1, copy: undefined });

      const written = await store.resident('written');
      await store.native.beginRemove(written);
      await store.writing('written', (fd) => writeAll(fd, Buffer.from('x')));
      await until(async () => (await store.flags('written')) === 0x03, { what: 'dirty' });
      await store.native.forgetCopy(written);
      t.equal(await store.flags('written'), 0x02);

      const lost = await store.resident('lost');
      await store.native.changeFlags(lost, 0x50, 0, 0);
      await store.native.beginRemove(lost);
      t.equal(await store.flags('lost'), 0x11);
      const archivedOnly = await store.resident('archived');
      await store.native.changeFlags(archivedOnly, 0, 0x01, 0);
      await store.native.beginRemove(archivedOnly);
      t.equal(await store.flags('archived'), 0x01, 'so that a remove can be asked for again');
      t.equal(await codeOf(store.native.beginRemove(await store.stub('stub'))), 'EPERM');
    },
  );
});

void t.test('a FID that no file can have is EINVAL', { skip }, async (t) => {
  await using store = await TempStore.open();
  for (const fid of ['[0x857765760:0x8:0x2]', '[0x1:0x8:0x2]', '[0x200000400:0x0:0x2]', 'f'])
    t.throws(() => store.native.state(fid as Fid), { code: 'EINVAL' }, fid);
});

void t.test('a FID opens the inode that has it, and no other generation', { skip }, async (t) => {
  await using store = await TempStore.open();
  await store.native.createStubs([fileStub('f')], defaults);
  const fid = store.native.fidOf('f');
  const [seq = '', oid = '', generation = ''] = fid.slice(1, -1).split(':');
  t.not(generation, '0x0');
  const [wildcard, other] = [`[${seq}:${oid}:0x0]`, `[${seq}:${oid}:0x1]`] as Fid[];
  t.equal(await codeOf(store.native.state(wildcard as Fid)), 'ENOENT', 'whatever the generation, for ext4');
  t.equal(await codeOf(store.native.state(other as Fid)), 'ENOENT');
  t.equal((await store.native.state(fid)).fid, fid);
  t.equal((await store.native.state(fid.slice(1, -1) as Fid)).fid, fid, 'without brackets');
  for (const text of [
    `[ ${seq}:${oid}:${generation}]`,
    `[-${seq}:${oid}:${generation}]`,
    `[${seq}:0x${oid}:${generation}]`,
    `[${seq}:0x -1:${generation}]`,
    `[${seq}:${oid}:0x100000000]`,
    `[${seq}:${oid}:0x]`,
    `[${seq}:${oid}:${generation}`,
    `${seq}:${oid}:${generation}]`,
    `[${seq}:${oid}:${generation}] `,
  ])
    t.throws(() => store.native.state(text as Fid), text);
});

void t.test('a FID is of nothing while its inode number goes to another file', { skip }, async (t) => {
  await using store = await TempStore.open();
  const codes = new Set<string | undefined>();
  for (let round = 0; round < 100; round++) {
    mkdirSync(store.backing('d'));
    const fid = store.native.fidOf('d');
    rmdirSync(store.backing('d'));
    const asked = Array.from({ length: 32 }, () => codeOf(store.native.state(fid)));
    for (let i = 0; i < 50; i++) {
      mkdirSync(store.backing('d'));
      rmdirSync(store.backing('d'));
    }
    for (const code of await Promise.all(asked)) codes.add(code);
  }
  t.same([...codes], ['ENOENT']);
});

void t.test('archive', { skip }, async (t) => {
  await t.test('a new file becomes clean with the copy that was made of it', async (t) => {
    await using store = await TempStore.open();
    writeFileSync(store.backing('f'), 'hello');
    // An access time that a read would move.
    utimesSync(store.backing('f'), 1000, 2000);
    const plan = await store.native.beginArchive(store.native.fidOf('f'), 2);
    t.match(plan, { size: 5, uid: 0, gid: 0 });
    t.equal(await store.flags('f'), 0x01, 'exists, while copying');
    t.equal(readAll(plan.fd, 10).toString(), 'hello');
    t.equal(statSync(store.backing('f')).atimeMs, 1_000_000, 'an upload is no access');
    t.equal(store.native.archiveQuiet(plan.token), true);
    t.equal(await store.native.finishArchive(plan.token, archived('f', plan)), 'clean');
    t.match(await store.state('f'), { flags: 0x09, archiveId: 2, modified: false, copy: { blob: 'f' } });
    await store.native.release(store.native.fidOf('f'));
    t.match(await store.state('f'), { flags: 0x0d, size: 5 });
    t.match(store.native.stats(), { leases: 0, archiving: 0 });
  });

  await t.test('rule 2: a writer in the way is EBUSY, one that comes leaves the file dirty', async (t) => {
    await using store = await TempStore.open();
    writeFileSync(store.backing('f'), 'hello');
    const fid = store.native.fidOf('f');
    await store.writing('f', async () => {
      t.equal(await codeOf(store.native.beginArchive(fid, 1)), 'EBUSY');
    });
    const plan = await store.native.beginArchive(fid, 1);
    await store.writing('f', (fd) => writeAll(fd, Buffer.from('HELLO')));
    t.equal(store.native.archiveQuiet(plan.token), false);
    t.equal(await store.native.finishArchive(plan.token, archived('f', plan)), 'dirty');
    t.match(await store.state('f'), { flags: 0x03, modified: true });
    t.equal(await store.archive('f'), 'clean');
  });

  await t.test(
    'one that leaves something out keeps the file dirty, with its copy, at every moment',
    async (t) => {
      await using store = await TempStore.open();
      writeFileSync(store.backing('f'), 'hello');
      const fid = store.native.fidOf('f');
      const partly = async (meanwhile: () => Promise<void>): Promise<string> => {
        const plan = await store.native.beginArchive(fid, 1);
        await meanwhile();
        return await store.native.finishArchive(plan.token, archived('f', plan), { partly: true });
      };
      const { ctimeNs } = await store.native.stat('f');
      t.equal(await partly(() => Promise.resolve()), 'partly');
      t.match(await store.state('f'), { flags: 0x0b, modified: true, copy: { blob: 'f' } });
      t.equal((await store.native.stat('f')).ctimeNs, ctimeNs, 'and says nothing of a change');
      t.equal(await codeOf(store.native.release(fid)), 'EPERM');
      const write = (): Promise<void> => store.writing('f', (fd) => writeAll(fd, Buffer.from('HELLO')));
      t.equal(await partly(write), 'dirty', 'a writer is told');
      t.equal(await store.archive('f'), 'clean');
      t.match(await store.state('f'), { flags: 0x09, modified: false });
    },
  );

  await t.test(
    'what is written in place after one that leaves something out shows in the times, also when it is forgotten',
    async (t) => {
      await using store = await TempStore.open();
      writeFileSync(store.backing('f'), 'hello');
      const fid = store.native.fidOf('f');
      const plan = await store.native.beginArchive(fid, 1);
      await store.native.finishArchive(plan.token, archived('f', plan), { partly: true });
      const { ctimeNs, mtimeNs } = await store.native.stat('f');
      await store.writing('f', async () => {
        // Nothing is written.
      });
      await store.reopen();
      t.match(await store.native.stat('f'), { ctimeNs, mtimeNs }, 'an open alone does not');
      await store.writing('f', (fd) => writeAll(fd, Buffer.from('HELLO')));
      await store.reopen();
      const written = await store.native.stat('f');
      t.ok(written.ctimeNs > ctimeNs, 'ctime');
      t.ok(written.mtimeNs > mtimeNs, 'mtime');
      t.match(await store.state('f'), { flags: 0x0b, modified: true, copy: { blob: 'f' } });
      t.equal(await store.archive('f'), 'clean');
    },
  );

  await t.test(
    'rule 11: one who opens past the daemon does not wait for the lease, and the archive knows',
    async (t) => {
      await using store = await TempStore.open();
      using outsider = new Outsider();
      writeFileSync(store.backing('f'), 'hello');
      const plan = await store.native.beginArchive(store.native.fidOf('f'), 1);
      await outsider.do('open', store.backing('f'));
      t.equal(store.native.archiveQuiet(plan.token), false);
      await outsider.do('write');
      t.equal(await store.native.finishArchive(plan.token, archived('f', plan)), 'dirty');
      t.equal(await store.flags('f'), 0x03);
      await outsider.do('close');
    },
  );

  await t.test('an aborted one leaves "exists", and the next write shows', async (t) => {
    await using store = await TempStore.open();
    writeFileSync(store.backing('f'), 'hello');
    const plan = await store.native.beginArchive(store.native.fidOf('f'), 1);
    await store.native.abortArchive(plan.token);
    t.equal(store.native.archiveQuiet(plan.token), false);
    t.equal(await codeOf(store.native.finishArchive(plan.token, archived('f', plan))), 'EINVAL');
    t.match(await store.state('f'), { flags: 0x01, modified: true });
    await store.writing('f', (fd) => writeAll(fd, Buffer.from('HELLO')));
    t.equal(await store.flags('f'), 0x03);
    t.equal(await codeOf(store.native.beginArchive(await store.stub('stub'), 1)), 'ENODATA');
  });
});

void t.test('release', { skip }, async (t) => {
  await t.test('rule 7: takes the data of a clean file that nobody has open, and nothing else', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.resident('f');
    const before = await store.native.stat('f');
    const { handle } = await store.native.openHandle('f', 0, 0);
    t.equal(await codeOf(store.native.release(fid)), 'EBUSY', 'a reader');
    await store.native.closeHandle(handle);
    await store.native.release(fid);
    t.equal(store.allocated('f'), 0);
    t.match(await store.native.stat('f'), { size, mtimeNs, ctimeNs: before.ctimeNs, blocks: 1 });
    await store.native.release(fid);
    t.pass('again is no error');
    await store.restore(fid);
    t.same(store.read('f'), content('0x8DC0123456789AB', size));
  });

  await t.test(
    'rule 7: a reader or a mapping that the daemon does not know keeps the data, too',
    async (t) => {
      await using store = await TempStore.open();
      using outsider = new Outsider();
      const fid = await store.resident('f');
      await outsider.do('read', store.backing('f'));
      t.equal(await codeOf(store.native.release(fid)), 'EBUSY');
      await outsider.do('close');
      await store.native.release(fid);
      t.equal(await store.flags('f'), 0x0d);
    },
  );

  await t.test('waits for a handle that is just being closed', async (t) => {
    await using store = await TempStore.open();
    const fid = await store.resident('f');
    const { handle } = await store.native.openHandle('f', 2, 0);
    const releasing = store.native.release(fid);
    await store.native.closeHandle(handle);
    await releasing;
    t.equal(await store.flags('f'), 0x0d);
  });

  await t.test('refuses what is new, dirty, lost or not to be released', async (t) => {
    await using store = await TempStore.open();
    writeFileSync(store.backing('new'), 'x');
    t.equal(await codeOf(store.native.release(store.native.fidOf('new'))), 'EPERM');
    const fid = await store.resident('f');
    for (const flag of [0x02, 0x10, 0x40]) {
      await store.native.changeFlags(fid, flag, 0, 0);
      t.equal(await codeOf(store.native.release(fid)), 'EPERM', `with ${flag}`);
      await store.native.changeFlags(fid, 0, flag, 0);
    }
    // Past the daemon, without a suspension: still nobody's copy.
    const raw = openSync(store.backing('f'), 'r+');
    ftruncateSync(raw, 3);
    closeSync(raw);
    t.equal(await codeOf(store.native.release(fid)), 'EPERM');
    t.equal(store.read('f').length, 3);
  });

  await t.test(
    'replaceCopy gives up no data of a file that is moved, or gets a name, while it waits',
    async (t) => {
      const ways = {
        moved: (store: TempStore) => store.native.rename('f', 'g'),
        linked: (store: TempStore) => store.native.link('f', 'g'),
      };
      for (const [way, change] of Object.entries(ways)) {
        await using store = await TempStore.open();
        const fid = await store.resident('f');
        const before = store.read('f');
        const stub = fileStub('f', { etag: '0x9', size: 77 });
        const { handle } = await store.native.openHandle('f', 0, 0);
        const replaced = codeOf(store.native.replaceCopy(fid, stub, { links: 1 }));
        await change(store);
        await store.native.closeHandle(handle);
        t.equal(await replaced, way === 'moved' ? 'ENOENT' : 'ESTALE', way);
        t.same(store.read('g'), before, way);
        t.equal(await codeOf(store.native.replaceCopy(fid, { ...stub, path: 'g' }, { links: 7 })), 'ESTALE');
      }
    },
  );

  await t.test(
    'replaceCopy shows another version in place of a clean file, and never in place of a dirty one',
    async (t) => {
      await using store = await TempStore.open();
      const fid = await store.resident('f');
      const stub = { ...fileStub('f', { etag: '0x9', size: 77 }), mode: 0o600, uid: 9, gid: 9, mtimeNs: 4n };
      const { handle } = await store.native.openHandle('f', 0, 0);
      t.equal(await codeOf(store.native.replaceCopy(fid, stub)), 'EBUSY');
      await store.native.closeHandle(handle);
      await store.native.replaceCopy(fid, stub);
      t.match(await store.state('f'), {
        flags: 0x0d,
        size: 77,
        mode: 0o600,
        uid: 9,
        gid: 9,
        mtimeNs: 4n,
        copy: stub.copy,
      });
      t.equal(store.allocated('f'), 0);
      await store.native.replaceCopy(fid, fileStub('f', { etag: '0xA', size: 5 }));
      await store.restore(fid);
      t.same(store.read('f'), content('0xA', 5), 'over a released one, too');
      await store.native.replaceCopy(fid, fileStub('f', { etag: '0xB', size: 5 }), { lost: true });
      t.same(
        await store.flags('f'),
        0x4d,
        'a copy known to be another content is lost from the first moment',
      );
      await store.native.replaceCopy(fid, fileStub('f', { etag: '0xA', size: 5 }));
      await store.restore(fid);
      await store.writing('f', (fd) => writeAll(fd, Buffer.from('mine')));
      t.equal(await codeOf(store.native.replaceCopy(fid, stub)), 'ESTALE');
      t.equal(store.read('f').toString('latin1', 0, 4), 'mine');
      await store.native.truncate('f', 0);
      writeFileSync(store.backing('new'), 'x');
      t.equal(await codeOf(store.native.replaceCopy(store.native.fidOf('new'), stub)), 'ESTALE');
    },
  );
});

void t.test('a symbolic link remembers the blob that it was exported to', { skip }, async (t) => {
  await using store = await TempStore.open();
  symlinkSync('target', store.backing('l'));
  mkdirSync(store.backing('d'));
  const before = lstatSync(store.backing('l'), { bigint: true });
  const stub = { ...fileStub('l', { size: 6 }), kind: 'symlink' as const, size: 0 };
  const fid = store.native.fidOf('l');
  await store.native.replaceCopy(fid, stub);
  await store.reopen();
  t.match(await store.state('l'), { type: 'symlink', modified: false, copy: stub.copy });
  t.equal(readlinkSync(store.backing('l')), 'target');
  t.equal(lstatSync(store.backing('l'), { bigint: true }).mtimeNs, before.mtimeNs);
  t.equal(await codeOf(store.native.replaceCopy(store.native.fidOf('d'), stub)), 'EINVAL');
  await store.native.forgetCopy(store.native.fidOf('l'));
  t.equal((await store.state('l')).copy, undefined);
});

void t.test('the store as a whole', { skip }, async (t) => {
  await t.test('a file system that lacks something is refused by name', async (t) => {
    const error = await addon
      .openStore('/proc/self', { restoreNeeded: () => undefined })
      .catch((e: unknown) => e);
    t.match(error, { errno: Number, code: String, message: /\/proc\/self/ });
    t.equal(await codeOf(addon.openStore('/nonexistent', { restoreNeeded: () => undefined })), 'ENOENT');
  });

  await t.test('a lock is held by one and free after unlock', (t) => {
    const path = join(t.testdir(), 'lock');
    const lock = addon.lockFile(path);
    t.throws(() => addon.lockFile(path), { code: 'EAGAIN' });
    lock.unlock();
    addon.lockFile(path).unlock();
    t.end();
  });

  await t.test('bytes in place of a record make an inode unusable, not the daemon', async (t) => {
    await using store = await TempStore.open();
    await store.stub('f');
    const set = spawn('python3', [
      '-c',
      'import os,sys; os.setxattr(sys.argv[1], "trusted.lustrite", b"garbage")',
      store.backing('f'),
    ]);
    t.same(await once(set, 'exit'), [0, null]);
    t.equal(await codeOf(store.state('f')), 'EIO');
    t.equal(await codeOf(store.native.openHandle('f', 0, 0)), 'EIO');
  });

  await t.test('closing ends what waits', async (t) => {
    await using store = await TempStore.open();
    await store.stub('f');
    const opening = codeOf(store.native.openHandle('f', 2, 0));
    await until(() => store.native.stats()['waiting'] === 1, { what: 'a waiting writer' });
    const closing = store.native.close();
    t.equal(await opening, 'ENOTCONN');
    await closing;
    t.equal(await codeOf(store.native.lookup(['f'])), 'ENOTCONN');
  });

  await t.test("renames behind the daemon's back change nothing: state is the inode's", async (t) => {
    await using store = await TempStore.open();
    const fid = await store.stub('f');
    renameSync(store.backing('f'), store.backing('g'));
    linkSync(store.backing('g'), store.backing('h'));
    chmodSync(store.backing('g'), 0o600);
    utimesSync(store.backing('g'), 1, 1);
    t.equal(store.native.fidOf('h'), fid);
    t.match(
      await store.state('h'),
      { flags: 0x0d, size, mtimeNs, nlink: 2 },
      "rule 4: times are the record's",
    );
    rmSync(store.backing('g'));
    await store.restore(fid);
    t.match(await store.state('h'), { flags: 0x09, mtimeNs });
  });

  await t.test('a FID of another store on the same file system reaches nothing', async (t) => {
    await using theirs = await TempStore.open();
    await using ours = await TempStore.open();
    const stub = await theirs.stub('f');
    const resident = await theirs.resident('g');
    const refused = async (call: Promise<unknown>): Promise<void> => {
      t.match(await codeOf(call), /^(?:ENOENT|ESTALE)$/);
    };
    for (const fid of [stub, resident]) {
      await refused(ours.native.state(fid));
      await refused(ours.native.beginRestore(fid));
      await refused(ours.native.beginArchive(fid, 1));
      await refused(ours.native.release(fid));
      await refused(ours.native.markModified(fid));
      await refused(ours.native.beginRemove(fid));
      await refused(ours.native.forgetCopy(fid));
      await refused(ours.native.changeFlags(fid, 0x10, 0, 0));
      await ours.native.failRestore(fid, 61).catch(() => undefined);
    }
    await theirs.restore(stub);
    t.equal(await theirs.flags('f'), 0x09);
    t.equal(await theirs.flags('g'), 0x09);
    t.ok(theirs.read('g').equals(content(copyOf('g').etag, size)));
    await theirs.reopen();
    t.equal(await theirs.flags('f'), 0x09, 'its own store knows it again');
  });

  await t.test('what came from another store is not passed over in silence', async (t) => {
    await using theirs = await TempStore.open();
    await using ours = await TempStore.open();
    const directory = { ...fileStub('d'), kind: 'directory', mode: 0o755, size: 0 } as const;
    await theirs.native.createStubs([directory], defaults);
    renameSync(theirs.backing('d'), ours.backing('d'));
    writeFileSync(ours.backing('d/new'), 'mine');
    const walk = ours.native.walk({ select: 'changed', batch: 10 });
    t.same(
      (await walk.next())?.map(({ path }) => path),
      ['d', 'd/new'],
    );
    walk.close();
    await theirs.resident('f');
    renameSync(theirs.backing('f'), ours.backing('f'));
    t.match(await ours.native.census(), { files: 1, new: 1, directories: 1, unreadable: 1 });
  });
});
