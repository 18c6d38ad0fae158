/** What must not hang beside a file whose data is on its way, and what restores at all. */
import { chmod, open, readdir, readFile, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { Application } from '../helpers/application.js';
import { hsmFlags, states, untilFlags } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { run, shell, start } from '../helpers/run.js';

const { EBUSY } = constants.errno;
/** Different at every offset that a test looks at. */
const content = Buffer.alloc(
  400_000,
  Uint8Array.from({ length: 9973 }, (_, i) => (i * 31) % 256),
);
const program = await readFile('/bin/true');
const many = Array.from({ length: 50 }, (_, i) => `many/${i}`);
const blobs = {
  ...Object.fromEntries(
    [
      ...many,
      'second', 'writer/stub', 'killed/read', 'killed/write', 'mapped/private', 'mapped/shared', 'mapped/fails',
      'readers', 'fails', 'races', 'moved', 'removed', 'opened', 'seek', 'shown/a', 'shown/b', 'unmount',
    ].map((name) => [name, content]),
  ),
  program,
}; // prettier-ignore

t.test('beside a file whose data is on its way', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, blobs);
  const { mount, storage } = lab;
  const at = (name: string): string => lab.at(name);
  const flags = (name: string): Promise<number> => hsmFlags(at(name));
  const application = (t: Test): Application => {
    const made = new Application();
    t.teardown(() => made[Symbol.asyncDispose]());
    return made;
  };
  const restored = async (): Promise<number> =>
    ((await mount.status())?.hsm as { readonly restored: number }).restored;
  t.beforeEach(() => {
    storage.clear();
    storage.clearLog();
  });
  const gets = (blob: string): number => storage.count({ method: 'GET', blob });

  await t.test('a second open does not wait for a page that is held', async (t) => {
    const [first, second] = [application(t), application(t)];
    const go = lab.hold({ method: 'GET', blob: 'second' });
    await first.do('fd = os.open(args[0], os.O_RDONLY)', at('second'));
    const reading = first.do('len(os.pread(fd, 10, 0))');
    await lab.arrived({ method: 'GET', blob: 'second' });
    await second.do('fd = os.open(args[0], os.O_RDONLY)', at('second'));
    t.equal(await second.do('os.fstat(fd).st_size'), content.length);
    await second.do('os.close(fd)');
    go();
    t.equal(await reading, 10);
  });

  await t.test('1,000 held reads stop neither other files nor their RELEASE', async (t) => {
    const readers = application(t);
    await readers.do(`
import hashlib
threading.stack_size(65536)
started = threading.Semaphore(0)
wrong = []
def read(i):
    try:
        fd = os.open(f'{args[0]}/{i % 50}', os.O_RDONLY)
        at = (i // 50) * 19_000
        started.release()
        if os.pread(fd, 100, at) != bytes((j % 9973) * 31 % 256 for j in range(at, at + 100)):
            wrong.append(i)
        os.close(fd)
    except OSError as error:
        wrong.append(str(error))
`);
    const go = lab.hold({ method: 'GET', blob: /^many\// });
    await readers.do(
      'args0 = args[0]; threads = [threading.Thread(target=read, args=(i,)) for i in range(1000)]',
      at('many'),
    );
    await readers.do('[thread.start() for thread in threads] and None', at('many'));
    await readers.do('[started.acquire() for thread in threads] and None', at('many'));
    await lab.arrived({ method: 'GET', blob: /^many\// }, many.length);
    t.equal((await readdir(at('many'))).length, many.length);
    for (let i = 0; i < 10; i++) {
      await shell(
        'echo "$2" > "$1/other"; test "$(cat "$1/other")" = "$2"; stat "$1/other" > /dev/null; ls "$1" > /dev/null',
        [mount.path, String(i)],
      );
    }
    await lab.archived('other');
    await lab.released('other');
    t.equal(await readFile(at('other'), 'utf8'), '9\n', 'another stub is restored before them');
    await unlink(at('other'));
    await unlink(at('many/49'));
    go();
    await readers.do('[thread.join() for thread in threads] and None', at('many'));
    t.same(await readers.do('wrong'), [], 'everybody got the right bytes');
  });

  await t.test('rm and ls do not wait for a blocked write-open, nor it for them', async (t) => {
    const writer = application(t);
    const go = lab.hold({ method: 'GET', blob: 'writer/stub' });
    const opened = writer.do('fd = os.open(args[0], os.O_RDWR)', at('writer/stub'));
    await lab.arrived({ method: 'GET', blob: 'writer/stub' });
    t.same(await readdir(at('writer')), ['stub']);
    t.equal((await stat(at('writer/stub'))).size, content.length);
    await unlink(at('writer/stub'));
    t.same(await readdir(at('writer')), []);
    go();
    await opened;
    await writer.do('os.pwrite(fd, b"AB", 1)');
    t.equal(
      await writer.do('os.pread(fd, 4, 0)'),
      `${content.toString('latin1', 0, 1)}AB${content.toString('latin1', 3, 4)}`,
      'the writer has its file',
    );
  });

  await t.test('blocked callers can be killed; the restore goes on', async (t) => {
    const go = lab.hold({ method: 'GET', blob: /^killed\// });
    const blocked = [
      ['SIGTERM', start('cat', [at('killed/read')])],
      ['SIGKILL', start('cat', [at('killed/read')])],
      ['SIGTERM', start('sh', ['-c', 'exec cat <> "$1"', 'sh', at('killed/write')])],
      ['SIGKILL', start('sh', ['-c', 'exec cat <> "$1"', 'sh', at('killed/write')])],
    ] as const;
    await lab.arrived({ method: 'GET', blob: 'killed/read' });
    await lab.arrived({ method: 'GET', blob: 'killed/write' });
    for (const [signal, { child, ended }] of blocked) {
      child.kill(signal);
      t.equal((await ended).signal, signal);
    }
    go();
    await untilFlags(at('killed/read'), states.clean);
    await untilFlags(at('killed/write'), states.clean);
    t.ok(content.equals(await readFile(at('killed/read'))));
  });

  await t.test('a stub can be executed', async (t) => {
    await chmod(at('program'), 0o755);
    t.equal(await flags('program'), states.stub);
    // By a shell: spawn() itself waits for exec, and the storage is served by this process.
    t.equal((await run('sh', ['-c', '"$1"', 'sh', at('program')])).code, 0);
    t.equal(await flags('program'), states.clean);
  });

  await t.test('a stub can be mapped, and its pages come when they are touched', async (t) => {
    for (const [name, kind] of [
      ['mapped/private', 'mmap.MAP_PRIVATE'],
      ['mapped/shared', 'mmap.MAP_SHARED'],
    ] as const) {
      const reader = application(t);
      await reader.do(
        `fd = os.open(args[0], os.O_RDONLY); m = mmap.mmap(fd, 0, ${kind}, mmap.PROT_READ); os.close(fd)`,
        at(name),
      );
      t.same([await flags(name), gets(name)], [states.stub, 0], 'mmap restores nothing');
      t.equal(await reader.do('m[200_000]'), content[200_000], kind);
      t.equal(await reader.do('m[-1]'), content.at(-1));
      t.same([await flags(name), gets(name)], [states.clean, 1]);
    }
  });

  await t.test('a mapping whose restore fails is a SIGBUS', async (t) => {
    const reader = application(t);
    storage.inject({ method: 'GET', blob: 'mapped/fails' }, { kind: 'status', status: 403 });
    await reader.do(
      'fd = os.open(args[0], os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)',
      at('mapped/fails'),
    );
    await t.rejects(reader.do('m[0]'), { message: 'the application ended (SIGBUS)' });
    t.equal(await flags('mapped/fails'), states.stub);
  });

  await t.test('64 readers of one stub are one GET', async (t) => {
    const before = await restored();
    const readers = application(t);
    await readers.do(`
started = threading.Semaphore(0)
found = []
def read(path):
    fd = os.open(path, os.O_RDONLY)
    started.release()
    data = b''
    while part := os.read(fd, 1 << 20):
        data += part
    found.append(len(data))
    os.close(fd)`);
    const go = lab.hold({ method: 'GET', blob: 'readers' });
    await readers.do(
      'threads = [threading.Thread(target=read, args=(args[0],)) for i in range(64)]; [thread.start() for thread in threads]; [started.acquire() for thread in threads]',
      at('readers'),
    );
    await lab.arrived({ method: 'GET', blob: 'readers' });
    go();
    await readers.do('[thread.join() for thread in threads] and None');
    t.same(
      await readers.do('found'),
      Array.from({ length: 64 }, () => content.length),
    );
    t.equal(gets('readers'), 1);
    t.equal((await restored()) - before, 1);
  });

  await t.test('readers of a failed restore get ENODATA, and the next read tries again', async (t) => {
    const readers = [application(t), application(t)];
    const go = lab.hold({ method: 'GET', blob: 'fails', times: 1 });
    const failed = readers.map(async (reader) => {
      await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('fails'));
      await t.rejects(reader.do('os.pread(fd, 10, 0)'), { code: 'ENODATA' });
    });
    await lab.arrived({ method: 'GET', blob: 'fails' });
    await lab.container.deleteBlob('fails');
    go();
    await Promise.all(failed);
    t.equal(await flags('fails'), states.stub);
    await lab.upload({ fails: content });
    for (const reader of readers) {
      await until(() => reader.do('len(os.pread(fd, 10, 0))'), { what: 'the data' });
      t.equal(await reader.do('len(os.pread(fd, 10, 0))'), 10, 'through the same handle');
    }
  });

  await t.test('a release that races with reads takes no byte from them', async (t) => {
    const reader = application(t);
    const rounds = reader.do(
      `
import hashlib
def read():
    fd = os.open(args[0], os.O_RDONLY)
    data = b''
    while part := os.read(fd, 1 << 20):
        data += part
    os.close(fd)
    return data
first = read()
different = sum(read() != first for i in range(60))
`,
      at('races'),
    );
    const race = { over: false };
    const ended = rounds.finally(() => {
      race.over = true;
    });
    const codes = new Set<number | null>();
    while (!race.over) codes.add(await lab.lfs('hsm_release', 'races'));
    await ended;
    t.equal(await reader.do('different'), 0);
    t.equal(await reader.do('len(first)'), content.length);
    for (const code of codes) t.ok(code === 0 || code === EBUSY, `a release answers ${String(code)}`);
  });

  await t.test('a file that is renamed or removed while it is restored is restored', async (t) => {
    const [first, second] = [application(t), application(t)];
    const go = lab.hold({ method: 'GET', blob: /^(moved|removed)$/ });
    await first.do('fd = os.open(args[0], os.O_RDONLY)', at('moved'));
    await second.do('fd = os.open(args[0], os.O_RDONLY)', at('removed'));
    const reading = [first, second].map((reader) => reader.do('os.pread(fd, 10, 100)'));
    await lab.arrived({ method: 'GET', blob: 'moved' });
    await lab.arrived({ method: 'GET', blob: 'removed' });
    await rename(at('moved'), at('elsewhere'));
    await unlink(at('removed'));
    go();
    const expected = content.subarray(100, 110).toString('latin1');
    t.same(await Promise.all(reading), [expected, expected]);
    await untilFlags(at('elsewhere'), states.clean);
    t.ok(content.equals(await readFile(at('elsewhere'))));
  });

  await t.test('a read-only open restores nothing; looking for data or holes does', async (t) => {
    const opened = await open(at('opened'));
    t.equal((await opened.stat()).size, content.length);
    await opened.close();
    t.same([gets('opened'), await flags('opened')], [0, states.stub]);
    const seeker = application(t);
    await seeker.do('fd = os.open(args[0], os.O_RDONLY)', at('seek'));
    t.equal(await seeker.do('os.lseek(fd, 0, os.SEEK_END)'), content.length);
    t.same([gets('seek'), await flags('seek')], [0, states.stub]);
    t.equal(await seeker.do('os.lseek(fd, 0, os.SEEK_DATA)'), 0, 'no hole, as if the data had been here');
    t.equal(await seeker.do('os.lseek(fd, 0, os.SEEK_HOLE)'), content.length);
    t.same([gets('seek'), await flags('seek')], [1, states.clean]);
  });

  await t.test('nothing that concerns metadata restores', async (t) => {
    await shell(
      `cd "$1"
ls -lR . > /dev/null; find . -size +1k -newermt 1970-01-02 > /dev/null; du -s . > /dev/null
stat a; chmod 600 a; chown 1:2 a; touch -d 2020-01-01 a; setfattr -n user.colour -v blue a; getfattr -d a
ln a link; ln -s a symbolic; mv b c; test -s a; sync a`,
      [at('shown')],
    );
    t.same(
      storage.requests({ method: 'GET', blob: /^shown\// }).map(({ blob }) => blob),
      [],
    );
    for (const name of ['a', 'link', 'c']) t.equal(await flags(`shown/${name}`), states.stub, name);
    t.match(await stat(at('shown/a')), { mode: 0o100600, uid: 1, gid: 2, nlink: 2 });
  });

  await t.test('unmount while a request is held: refused by name, or lazy and over', async (t) => {
    const reader = application(t);
    const go = lab.hold({ method: 'GET', blob: 'unmount' });
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('unmount'));
    const reading = reader.do('len(os.pread(fd, 10, 0))');
    await lab.arrived({ method: 'GET', blob: 'unmount' });
    const refused = await lustrite(['umount', mount.path]);
    t.equal(refused.code, 1);
    t.match(refused.stderr, String(reader.pid), 'it names who uses the mount');
    t.ok(mountAt(mount.path));
    const lazy = await lustrite(['umount', mount.path, '--lazy']);
    t.equal(lazy.code, 0, lazy.stderr);
    t.equal(mountAt(mount.path), undefined);
    go();
    t.equal(await reading, 10, 'who is served already is served to the end');
    await reader.kill();
    t.match(await mount.ended(), { code: 0 });
    await mount.remount();
    t.ok(content.equals(await readFile(at('unmount'))));
  });

  await t.test('a daemon that is told to stop lets held requests go', async (t) => {
    await writeFile(at('new'), 'new');
    const reader = application(t);
    const go = lab.hold({ method: 'GET', blob: 'second' });
    await lab.released('second');
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('second'));
    const failed = t.rejects(reader.do('os.pread(fd, 10, 0)'));
    await lab.arrived({ method: 'GET', blob: 'second' });
    // The second signal says: do not wait for open files.
    process.kill(mount.pid, 'SIGTERM');
    await until(() => mount.log().includes('"msg":"unmounting"'), { what: 'the first signal to be seen' });
    await mount.kill('SIGTERM');
    await failed;
    go();
    await reader.kill();
    await mount.remount();
    t.ok(content.equals(await readFile(at('second'))));
    t.equal(await readFile(at('new'), 'utf8'), 'new');
  });
});
