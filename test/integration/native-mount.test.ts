// The native front end alone: a store and a FUSE session in a process of their own, real programs on the mount.
import { existsSync } from 'node:fs';
import {
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { checksProgram, NativeMount, type Check } from '../helpers/native-mount.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, run, start } from '../helpers/run.js';

const { ENODATA, EBUSY } = constants.errno;
const size = 3_000_000;
/** Different at every offset that a test looks at. */
const content = Buffer.alloc(
  size,
  Uint8Array.from({ length: 9973 }, (_, i) => (i * 31) % 256),
);
const STATE_SET = 0x401866d4;
const REQUEST = 0x40000000 | (2560 << 16) | (0x66 << 8) | 240;

async function withStubs(names: readonly string[], passthrough: boolean): Promise<NativeMount> {
  const mount = await NativeMount.start({ passthrough });
  for (const name of names) await writeFile(join(mount.source, name), content);
  await mount.stubs(names, size);
  return mount;
}

function wanted(mount: NativeMount, count: number): Promise<boolean> {
  return until(async () => (await mount.call('wanted')) >= count, { what: `${count} restores to be wanted` });
}

function held(mount: NativeMount, count: number): Promise<boolean> {
  return until(async () => ((await mount.call('stats'))['held'] ?? 0) >= count, {
    what: `${count} requests to be held`,
  });
}

/** Everything the session keeps for a request, a file or a name is given back. */
async function givenBack(t: Test, mount: NativeMount): Promise<void> {
  t.equal(await mount.end(), 0, 'the process ends by itself once nothing is mounted');
  t.equal(mount.stderr, '', 'and has complained of nothing');
}

const python = (script: string, ...args: string[]): Promise<string> => ok('python3', ['-c', script, ...args]);

for (const passthrough of [true, false]) {
  const mode = passthrough ? 'passthrough' : 'cached';

  void t.test(`${mode}: it is a POSIX file system`, { skip: cannotMount }, async (t) => {
    await using mount = await NativeMount.start({ passthrough });
    t.equal(mount.passthrough, passthrough);
    const folder = join(mount.path, 'checks');
    await mkdir(folder);
    const { code, stdout, stderr } = await run('python3', [checksProgram('posix-checks.py'), folder]);
    const checks = stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Check);
    for (const { title, detail = '' } of checks) t.equal(detail, '', title);
    t.match({ code, checks: checks.length > 0 }, { code: 0, checks: true }, `every check ran ${stderr}`);
    await rm(folder, { recursive: true });
    await givenBack(t, mount);
  });

  void t.test(
    `${mode}: a stub has its size and times, and its data on first read`,
    { skip: cannotMount },
    async (t) => {
      await using mount = await withStubs(['a', 'b', 'c', 'd', 'e', 'f', 'g'], passthrough);
      const shown = await stat(join(mount.path, 'a'), { bigint: true });
      t.match(
        { size: shown.size, mtimeNs: shown.mtimeNs, blocks: shown.blocks },
        {
          size: BigInt(size),
          mtimeNs: 1_600_000_000_123_456_700n,
          blocks: 1n,
        },
      );
      const file = join(mount.path, 'a');
      const once = await open(file);
      await once.close();
      t.equal((await mount.call('state', 'a')).flags & 4, 4, 'an open restores nothing');
      t.ok(content.equals(await readFile(file)), 'the first read gets it all');
      t.ok(content.equals(await readFile(file)), 'and the next');
      t.equal((await stat(file, { bigint: true })).mtimeNs, shown.mtimeNs, 'the times stay');
      t.equal((await stat(file, { bigint: true })).ctimeNs, shown.ctimeNs, 'ctime, too');
      const table = [
        ['head -c 10 "$1"', content.subarray(0, 10)],
        ['tail -c 10 "$1"', content.subarray(-10)],
        [
          'printf AB | dd of="$1" bs=2 seek=1 conv=notrunc status=none; head -c 6 "$1"',
          Buffer.concat([content.subarray(0, 2), Buffer.from('AB'), content.subarray(4, 6)]),
        ],
        ['printf end >> "$1"; tail -c 5 "$1"', Buffer.concat([content.subarray(-2), Buffer.from('end')])],
        ['truncate -s 100 "$1"; cat "$1"', content.subarray(0, 100)],
        ['printf new > "$1"; cat "$1"', Buffer.from('new')],
      ] as const;
      for (const [index, [script, expected]] of table.entries()) {
        const name = 'bcdefg'.charAt(index);
        const { stdoutBytes, stderr } = await run('sh', ['-euc', script, 'sh', join(mount.path, name)]);
        t.ok(expected.equals(stdoutBytes), `a stub and ${script.replaceAll('"$1"', 'F')} ${stderr}`);
      }
      await givenBack(t, mount);
    },
  );

  void t.test(
    `${mode}: mappings and programs that are stubs wait for their data`,
    { skip: cannotMount },
    async (t) => {
      await using mount = await NativeMount.start({ passthrough });
      const program = await readFile('/bin/true');
      await writeFile(join(mount.source, 'program'), program);
      await mount.stubs(['program'], program.length);
      await writeFile(join(mount.source, 'mapped'), content);
      await mount.stubs(['mapped'], size);
      await ok('chmod', ['755', join(mount.path, 'program')]);
      t.equal((await run(join(mount.path, 'program'))).code, 0);
      const script =
        'import mmap,os,sys; f=os.open(sys.argv[1],os.O_RDONLY); ' +
        'm=mmap.mmap(f,0,prot=mmap.PROT_READ); os.close(f); print(m[0],m[1500000],m[-1])';
      const expected = [content[0], content[1_500_000], content[size - 1]].join(' ');
      t.equal((await python(script, join(mount.path, 'mapped'))).trim(), expected);
      await givenBack(t, mount);
    },
  );

  void t.test(`${mode}: nothing else waits behind readers of a stub`, { skip: cannotMount }, async (t) => {
    await using mount = await withStubs(['stub'], passthrough);
    await mount.call('hold');
    const file = join(mount.path, 'stub');
    const first = start('cat', [file]);
    await wanted(mount, 1);
    const second = start('cat', [file]);
    const third = start('head', ['-c', '5', file]);
    await held(mount, 1);
    await until(async () => ((await mount.call('stats'))['handles'] ?? 0) >= 3, {
      what: 'the others to have opened it',
    });
    t.equal((await stat(file)).size, size, 'stat of the stub');
    await writeFile(join(mount.path, 'other'), 'x');
    t.equal(await readFile(join(mount.path, 'other'), 'utf8'), 'x', 'another file');
    t.same((await readdir(mount.path)).sort(), ['other', 'stub'], 'ls');
    await rename(file, join(mount.path, 'moved'));
    await unlink(join(mount.path, 'moved'));
    await mount.call('go');
    t.ok(
      content.equals((await first.ended).stdoutBytes),
      'the reader gets the data, though the name is gone',
    );
    t.match([(await second.ended).code, (await third.ended).stdoutBytes], [0, content.subarray(0, 5)]);
    await givenBack(t, mount);
  });

  void t.test(
    `${mode}: 1,000 held reads stop neither RELEASE nor other files`,
    { skip: cannotMount },
    async (t) => {
      const names = Array.from({ length: 50 }, (_, i) => `stub${i}`);
      await using mount = await withStubs(names, passthrough);
      await mount.call('hold');
      const readers = start('python3', [
        '-c',
        `
import os, sys
expected = open(sys.argv[1], 'rb').read()
children = []
for i in range(1000):
    child = os.fork()
    if child == 0:
        at = i * 2000
        fd = os.open(f'{sys.argv[2]}/stub{i % 50}', os.O_RDONLY)
        os._exit(0 if os.pread(fd, 100, at) == expected[at:at + 100] else 1)
    children.append(child)
print('forked', flush=True)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children) != 0)
`,
        join(mount.source, 'stub0'),
        mount.path,
      ]);
      await wanted(mount, 50);
      await held(mount, 50);
      const before = await mount.call('stats');
      const other = join(mount.path, 'other');
      for (let i = 0; i < 20; i++) {
        await writeFile(other, String(i));
        t.equal(await readFile(other, 'utf8'), String(i));
      }
      await unlink(other);
      t.equal((await readdir(mount.path)).length, 50);
      await until(
        async () =>
          ((await mount.call('stats'))['requests.release'] ?? 0) >= (before['requests.release'] ?? 0) + 40,
        { what: 'RELEASE of the other files' },
      );
      await mount.call('go');
      t.equal((await readers.ended).code, 0, 'every reader got its own bytes');
      await givenBack(t, mount);
    },
  );

  void t.test(`${mode}: rm and ls do not wait for a blocked write-open`, { skip: cannotMount }, async (t) => {
    await using mount = await withStubs(['stub'], passthrough);
    await mount.call('hold');
    const file = join(mount.path, 'stub');
    const writer = start('python3', [
      '-c',
      'import os,sys; f=os.open(sys.argv[1],os.O_RDWR); os.pwrite(f,b"AB",1); print(os.pread(f,4,0).hex())',
      file,
    ]);
    await held(mount, 1);
    await unlink(file);
    t.same(await readdir(mount.path), []);
    await mount.call('go');
    const expected = Buffer.concat([content.subarray(0, 1), Buffer.from('AB'), content.subarray(3, 4)]);
    const { stdout, stderr } = await writer.ended;
    t.equal(stdout.trim(), expected.toString('hex'), `the writer has its file ${stderr}`);
    await givenBack(t, mount);
  });

  void t.test(`${mode}: blocked callers can be killed`, { skip: cannotMount }, async (t) => {
    await using mount = await withStubs(['read', 'write', 'cut'], passthrough);
    await mount.call('hold');
    const blocked = [
      ['SIGTERM', start('cat', [join(mount.path, 'read')])],
      ['SIGKILL', start('cat', [join(mount.path, 'read')])],
      ['SIGTERM', start('sh', ['-c', 'exec cat <> "$1"', 'sh', join(mount.path, 'write')])],
      ['SIGKILL', start('sh', ['-c', 'exec 3<> "$1"', 'sh', join(mount.path, 'write')])],
      [
        'SIGKILL',
        start('python3', ['-c', 'import os,sys; os.truncate(sys.argv[1],7)', join(mount.path, 'cut')]),
      ],
    ] as const;
    await wanted(mount, 3);
    await held(mount, 4);
    for (const [signal, { child, ended }] of blocked) {
      child.kill(signal);
      t.equal((await ended).signal, signal);
    }
    await mount.call('go');
    t.ok(content.equals(await readFile(join(mount.path, 'read'))), 'the restores go on without them');
    await givenBack(t, mount);
  });

  void t.test(
    `${mode}: a failed restore is ENODATA for who waits, and the next reader tries again`,
    { skip: cannotMount },
    async (t) => {
      await using mount = await withStubs(['stub'], passthrough);
      const file = join(mount.path, 'stub');
      await mount.call('fail', ENODATA);
      t.match(await run('cat', [file]), { code: 1, stderr: /No data available/ });
      t.match(await run('sh', ['-c', 'printf x >> "$1"', 'sh', file]), {
        stderr: /No data available|cannot create/,
      });
      t.equal((await stat(file)).size, size, 'the stub is as it was');
      await mount.call('fail', 0);
      t.ok(content.equals(await until(() => readFile(file), { what: 'the stub to be readable again' })));
      await givenBack(t, mount);
    },
  );

  void t.test(
    `${mode}: names that appear and vanish behind the kernel are seen at once`,
    { skip: cannotMount },
    async (t) => {
      await using mount = await withStubs(['one'], passthrough);
      t.same(await readdir(mount.path), ['one']);
      t.notOk(existsSync(join(mount.path, 'two')), 'the kernel remembers that a name is free');
      await writeFile(join(mount.source, 'two'), content);
      await mount.stubs(['two'], size);
      await until(() => existsSync(join(mount.path, 'two')), { what: 'the new name' });
      t.same((await readdir(mount.path)).sort(), ['one', 'two']);
      await mount.call('remove', 'one');
      await until(() => !existsSync(join(mount.path, 'one')), { what: 'the name to be gone' });
      t.same(await readdir(mount.path), ['two']);
      await givenBack(t, mount);
    },
  );

  void t.test(
    `${mode}: a listing has names that nobody has looked up, however often it was cached without them`,
    { skip: cannotMount },
    async (t) => {
      await using mount = await withStubs(['0'], passthrough);
      const listing = async (names: readonly string[]): Promise<void> => {
        const there = async (): Promise<boolean> =>
          (await readdir(mount.path)).sort().join() === names.join();
        await until(there, { what: `a listing of ${names.join()}`, timeoutMs: 10_000 });
        t.ok(await there(), 'from the cache, too');
      };
      const { mtimeMs } = await stat(mount.path);
      await listing(['0']);
      for (const name of ['1', '2', '3']) {
        await writeFile(join(mount.source, name), content);
        await mount.stubs([name], size);
        await listing(['0', '1', '2', '3'].slice(0, Number(name) + 1));
      }
      t.ok((await stat(mount.path)).mtimeMs > mtimeMs, 'and the directory has the time of its last name');
      for (const name of ['1', '2', '3']) {
        await mount.call('remove', name);
        await listing(['0', '1', '2', '3'].filter((other) => other === '0' || other > name));
      }
      await givenBack(t, mount);
    },
  );
}

void t.test(
  'held requests have a limit, beyond it readers get ENODATA at once',
  { skip: cannotMount },
  async (t) => {
    await using mount = await NativeMount.start({ maxHeld: 2 });
    const names = ['a', 'b', 'c'];
    for (const name of names) await writeFile(join(mount.source, name), content);
    await mount.stubs(names, size);
    await mount.call('hold');
    const openers = ['a', 'b'].map((name) =>
      start('sh', ['-c', 'exec 3<> "$1"', 'sh', join(mount.path, name)]),
    );
    await held(mount, 2);
    t.match(await run('cat', [join(mount.path, 'c')]), { code: 1, stderr: /No data available/ });
    await mount.call('go');
    for (const { ended } of openers) t.equal((await ended).code, 0);
    await givenBack(t, mount);
  },
);

void t.test(
  'requests of lfs reach JavaScript with their caller, and its answer reaches them',
  { skip: cannotMount },
  async (t) => {
    await using mount = await withStubs(['stub'], true);
    const { fid } = await mount.call('state', 'stub');
    const ask = `
import fcntl, os, struct, sys
os.setgroups([7, 8]); os.setresgid(2345, 2345, 2345); os.setresuid(1234, 1234, 1234)
fid = os.getxattr(sys.argv[1] + '/stub', 'system.lustrite.fid')
request = bytearray(struct.pack('=IIII', 11, 1, 1, 3) + fid + bytes(16 * 51) + b'abc' + bytes(1706 - 3 + 6))
root = os.open(sys.argv[1], os.O_RDONLY)
try:
    fcntl.ioctl(root, ${REQUEST}, request)
    print('done')
except OSError as error:
    print(error.errno)
`;
    t.equal((await python(ask, mount.path)).trim(), 'done');
    t.match(await mount.call('asked'), [
      {
        kind: 'request',
        action: 11,
        archiveId: 1,
        fids: [fid],
        caller: { uid: 1234, gid: 2345, groups: [7, 8] },
      },
    ]);
    await mount.call('answerWith', EBUSY);
    t.equal((await python(ask, mount.path)).trim(), String(EBUSY));
    await mount.call('answerWith', 0);
    await mount.call('asked');
    const set = (flags: string): string => `
import fcntl, os, struct, sys
fd = os.open(sys.argv[1] + '/stub', os.${flags} | os.O_NONBLOCK)
try:
    fcntl.ioctl(fd, ${STATE_SET}, struct.pack('=IIQQ', 5, 3, 16, 32))
    print('done')
except OSError as error:
    print(error.errno)
`;
    for (const flags of ['O_RDONLY', 'O_WRONLY']) {
      t.equal((await python(set(flags), mount.path)).trim(), 'done');
      t.match(await mount.call('asked'), [
        { kind: 'stateSet', fid, set: 16, clear: 0, archiveId: 3, caller: { uid: 0 } },
      ]);
    }
    await mount.call('answerWith', 'later');
    const waiting = start('python3', ['-c', ask, mount.path]);
    await until(async () => ((await mount.call('stats'))['questions'] ?? 0) > 0, { what: 'the question' });
    waiting.child.kill('SIGKILL');
    t.equal((await waiting.ended).signal, 'SIGKILL', 'a caller whose answer never comes can be killed');
    await givenBack(t, mount);
  },
);

void t.test('unmount is refused while a file is open, unless lazy', { skip: cannotMount }, async (t) => {
  await using mount = await NativeMount.start();
  await writeFile(join(mount.path, 'f'), 'x');
  const file = await open(join(mount.path, 'f'));
  await t.rejects(mount.call('unmount', false), { code: 'EBUSY' });
  const gone = mount.call('unmount', true);
  await until(() => mountAt(mount.path) === undefined, { what: 'the mount to leave the tree' });
  t.equal((await file.read({ buffer: Buffer.alloc(1) })).bytesRead, 1, 'open files work on');
  t.notOk(mount.closed);
  await file.close();
  await gone;
  t.equal(await mount.end(), 0);
});

void t.test('an unmount from outside ends the session', { skip: cannotMount }, async (t) => {
  await using mount = await NativeMount.start();
  await ok('umount', [mount.path]);
  await until(() => mount.closed, { what: 'the session to say so' });
  t.equal(await mount.end(), 0);
});

void t.test(
  'kill -9 of the server ends its callers, and the dead mount can be detached',
  { skip: cannotMount },
  async (t) => {
    await using mount = await withStubs(['stub'], true);
    await mount.call('hold');
    const reader = start('cat', [join(mount.path, 'stub')]);
    await held(mount, 1);
    mount.child.kill('SIGKILL');
    t.equal((await reader.ended).code, 1);
    await t.rejects(stat(join(mount.path, 'stub')), { code: 'ENOTCONN' });
  },
);

void t.test('a file handle of another session opens nothing', { skip: cannotMount }, async (t) => {
  await using before = await NativeMount.start();
  await using after = await NativeMount.start();
  for (const { path } of [before, after]) await writeFile(join(path, 'first'), path);
  const script = `
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
handle, mount_id = Handle(128), ctypes.c_int()
name = os.fsencode(os.path.join(sys.argv[1], 'first'))
assert libc.name_to_handle_at(-100, name, ctypes.byref(handle), ctypes.byref(mount_id), 0) == 0
for mount in sys.argv[1:]:
    fd = libc.open_by_handle_at(os.open(mount, os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY)
    print(os.read(fd, 1000).decode() if fd >= 0 else errno.errorcode[ctypes.get_errno()])
`;
  t.equal(await python(script, before.path, after.path), `${before.path}\nESTALE\n`);
});

void t.test('a read-only mount refuses every change', { skip: cannotMount }, async (t) => {
  await using mount = await NativeMount.start({ readOnly: true });
  await t.rejects(writeFile(join(mount.path, 'f'), 'x'), { code: 'EROFS' });
  await t.rejects(truncate(mount.path, 0));
  await givenBack(t, mount);
});

void t.test(
  'a session keeps nothing of what was looked up, opened and closed',
  { skip: cannotMount },
  async (t) => {
    await using mount = await NativeMount.start();
    await ok('sh', [
      '-euc',
      'cd "$1"; for i in $(seq 300); do echo $i > $i; done; ls -l >/dev/null; cat * >/dev/null; rm -r -- *',
      'sh',
      mount.path,
    ]);
    await until(
      async () => {
        const stats = await mount.call('stats');
        return ['held', 'questions', 'queued', 'nodes', 'backings', 'handles', 'listings'].every(
          (name) => stats[name] === 0,
        );
      },
      { what: 'everything to be given back' },
    );
    await givenBack(t, mount);
  },
);

void t.test(
  'what is read ahead of a resident file is never shown in place of what is written then',
  { skip: cannotMount },
  async (t) => {
    await using mount = await NativeMount.start();
    const file = join(mount.path, 'f');
    const [before, after] = [Buffer.alloc(size, 'b'), Buffer.alloc(size, 'a')];
    await writeFile(file, before);
    await writeFile(join(mount.source, 'f'), after);
    const reads = await python(
      `
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
path, size = sys.argv[1], int(sys.argv[2])
handles = [os.open(path, flags) for flags in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_APPEND)]
for fd in handles:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
    libc.readahead(fd, ctypes.c_long(0), ctypes.c_size_t(size))
os.pwrite(handles[0], b"a" * size, 0)
for fd in handles:
    print(os.pread(fd, size, 0) == b"a" * size, mmap.mmap(fd, size, prot=mmap.PROT_READ)[:] == b"a" * size)
`,
      file,
      String(size),
    );
    t.equal(reads, 'True True\n'.repeat(3));
    t.equal(await mount.call('archive', 'f'), 'clean');
    await mount.call('release', 'f');
    const pages = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
print(set(os.pread(fd, 1 << 24, 0)))
`;
    t.equal(await python(pages, file), '{97}\n', 'restored for a reader that asks for it ahead');
    t.equal(await python(pages, file), '{97}\n', 'and clean');
    await givenBack(t, mount);
  },
);
