/** Everything that can happen to a file, what the next mount and an export make of it, and what the container has then. */
import { appendFile, lstat, mkdir, mkdtemp, open, readFile, rename, rm, writeFile } from 'node:fs/promises'; // prettier-ignore
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t from 'tap';
import { aclOf } from '../helpers/acl.js';
import { Azurite } from '../helpers/azurite.js';
import { copytoolMetadata, download, uploadTree } from '../helpers/copytool.js';
import { FaultServer } from '../helpers/fault-server.js';
import { hsmFlags, lfs, states, untilFlags } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, shell } from '../helpers/run.js';
import { Dice, differences, growTree, readTree, type Entry, type Tree } from '../helpers/tree.js';

const kinds = ['stub', 'resident'] as const;
type Kind = (typeof kinds)[number];
const fileBytes = 6000;

/** As before: 0x0d where nothing had to be restored, else 0x09. */
const kept = -1;

interface Row {
  readonly what: string;
  /** Python; `f` is the file, `st` what stat said of it. */
  readonly edit: string;
  /** Whether a stub has to be restored for it. */
  readonly restores: boolean;
  /** What is there afterwards, by what is appended to the file's path. */
  readonly after: Readonly<Record<string, number>>;
}

// Python's own mmap keeps a duplicate of the descriptor.
const prelude = `
import ctypes, json, os, shutil, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def mapped():
    fd = os.open(f, os.O_RDWR)
    at = libc.mmap(None, 4096, 3, 1, fd, 0)
    assert at not in (None, ctypes.c_void_p(-1).value), 'mmap'
    return fd, at
def unmap(at): libc.munmap(at, 4096)
def store(at, text): ctypes.memmove(at + 100, text, len(text))
def hide(): os.utime(f, ns=(st.st_atime_ns, st.st_mtime_ns))
def put(text, at):
    with open(f, 'r+b') as file:
        file.seek(at)
        file.write(text)
for f, edit in json.loads(sys.argv[1]):
    st = os.stat(f)
    exec(edit)
`;

// prettier-ignore
const rows: readonly Row[] = [
  { what: 'edited', edit: `put(b'edited', 3000)`, restores: true, after: { '': states.dirty } },
  { what: 'written with the bytes it had', edit: `text = open(f, 'rb').read(); put(text, 0)`, restores: true, after: { '': states.dirty } },
  { what: 'appended to', edit: `open(f, 'ab').write(b'more')`, restores: true, after: { '': states.dirty } },
  { what: 'emptied by open', edit: `open(f, 'wb').close()`, restores: false, after: { '': states.dirty } },
  { what: 'written anew', edit: `open(f, 'wb').write(b'other')`, restores: false, after: { '': states.dirty } },
  { what: 'truncated to 0', edit: `os.truncate(f, 0)`, restores: false, after: { '': states.dirty } },
  { what: 'truncated to less', edit: `os.truncate(f, 100)`, restores: true, after: { '': states.dirty } },
  { what: 'truncated to more', edit: `os.truncate(f, 9000)`, restores: true, after: { '': states.dirty } },
  { what: 'stored to', edit: `fd, at = mapped(); store(at, b'mapped'); unmap(at); os.close(fd)`, restores: true, after: { '': states.dirty } },
  { what: 'stored to after close', edit: `fd, at = mapped(); os.close(fd); store(at, b'mapped'); unmap(at)`, restores: true, after: { '': states.dirty } },
  { what: 'edited with the time set back', edit: `put(b'hidden', 3000); hide()`, restores: true, after: { '': states.dirty } },
  { what: 'stored to with the time set back', edit: `fd, at = mapped(); store(at, b'hidden'); unmap(at); os.close(fd); hide()`, restores: true, after: { '': states.dirty } },
  {
    what: 'stored to after close and once more when the time was set back',
    edit: `fd, at = mapped(); os.close(fd); store(at, b'seen'); hide(); store(at, b'hidden'); unmap(at)`,
    restores: true,
    after: { '': states.dirty },
  },
  { what: 'edited with another mode', edit: `put(b'edited', 1); os.chmod(f, 0o1604); os.chown(f, 77, 78)`, restores: true, after: { '': states.dirty } },
  { what: 'edited and renamed', edit: `put(b'edited', 1); os.rename(f, f + '.moved')`, restores: true, after: { '.moved': states.dirty } },
  { what: 'replaced', edit: `open(f + '~', 'wb').write(b'new'); os.rename(f + '~', f)`, restores: false, after: { '': states.new } },
  { what: 'copied', edit: `shutil.copyfile(f, f + '.copy')`, restores: true, after: { '': kept, '.copy': states.new } },
  { what: 'opened for writing only', edit: `os.close(os.open(f, os.O_RDWR))`, restores: true, after: { '': kept } },
  { what: 'mapped for writing only', edit: `fd, at = mapped(); os.close(fd); unmap(at)`, restores: true, after: { '': kept } },
  { what: 'with another time', edit: `os.utime(f, (1500000000, 1500000000))`, restores: false, after: { '': kept } },
  { what: 'with another mode', edit: `os.chmod(f, 0o604)`, restores: false, after: { '': kept } },
  { what: 'with another owner', edit: `os.chown(f, 1234, 5678)`, restores: false, after: { '': kept } },
  { what: 'with an attribute', edit: `os.setxattr(f, 'user.color', b'red')`, restores: false, after: { '': kept } },
  { what: 'renamed', edit: `os.rename(f, f + '.moved')`, restores: false, after: { '.moved': kept } },
  { what: 'linked', edit: `os.link(f, f + '.link')`, restores: false, after: { '': kept, '.link': kept } },
  { what: 'deleted', edit: `os.unlink(f)`, restores: false, after: {} },
  { what: 'left alone', edit: ``, restores: false, after: { '': kept } },
];

/** Made on the mount: what has to be exported, and what has not. */
const made = `
  cd "$1"
  mkdir -p new/deep/er new/alone; chmod 1770 new/deep; chown 1000:100 new/deep
  printf hello >new/deep/er/file; chmod 0640 new/deep/er/file; chown 1000:100 new/deep/er/file
  : >new/deep/empty
  printf 'odd name' >"new/it's \\"ünïcode\\"
and a new line"
  head -c 20000000 /dev/zero | tr '\\0' x >new/big
  ln -s ../deep/er/file new/symlink
  printf twice >new/one; ln new/one new/two
  mkfifo new/fifo`;
const madeFiles = [
  'new/deep/er/file',
  'new/deep/empty',
  `new/it's "ünïcode"\nand a new line`,
  'new/big',
  'new/one',
  'new/two',
];

t.test('edits and an export', { skip: cannotMount }, async (t) => {
  const source = await mkdtemp(join(tmpdir(), 'lustrite-source-'));
  t.teardown(() => rm(source, { recursive: true, force: true }));
  const dice = new Dice();
  t.comment(`seed ${String(dice.seed)}`);
  const owners = [
    [0, 0],
    [1000, 100],
  ] as const;
  await growTree(source, dice, { files: 20, directories: 3, maxSize: 20_000, owners });
  for (const kind of kinds) {
    await mkdir(join(source, kind));
    for (const { what } of rows) await writeFile(join(source, kind, what), dice.bytes(fileBytes));
  }
  await shell(`find "$1" -mindepth 1 -exec touch -h -d '2021-03-04 05:06:07 UTC' {} +`, [source]);
  const before = await readTree(source);

  await using azurite = await Azurite.start();
  await using proxy = await FaultServer.start(azurite.url);
  const container = await azurite.newContainer('edits');
  const client = azurite.client(container);
  await uploadTree(source, before, client);
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(proxy.url) };
  await using mount = await TestMount.start(t, { container, env });
  const gets = (): readonly string[] => proxy.requests({ method: 'GET' }).flatMap(({ blob }) => blob || []);
  /** Blobs that were written, once for each time. */
  const written = (): readonly string[] =>
    proxy
      .requests({ method: 'PUT' })
      .filter(({ query, status }) => status === 201 && !/comp=block(&|$)/.test(query))
      .map(({ blob }) => blob);

  await ok('cp', ['-r', mount.at('resident'), join(source, '..', `${container}-read`)]);
  t.teardown(() => rm(join(source, '..', `${container}-read`), { recursive: true, force: true }));

  /** What `lfs hsm_state` has to say, by path. */
  const expected = new Map<string, number>(madeFiles.map((path) => [path, states.new]));
  await t.test(
    'each change does to the state what Lustre says, and restores only what it needs',
    async (t) => {
      const all = kinds.flatMap((kind) => rows.map((row) => ({ kind, row, path: join(kind, row.what) })));
      proxy.clearLog();
      // The same on an ordinary file system.
      for (const root of [mount.path, source]) {
        const edits = all.map(({ row, path }) => [join(root, path), row.edit]);
        await ok('python3', ['-c', prelude, JSON.stringify(edits)]);
      }
      const restored = all.filter(({ kind, row }) => kind === 'stub' && row.restores);
      t.same(
        [...gets()].sort(),
        restored.map(({ path }) => path).sort(),
        'one download each where one is due',
      );
      for (const { kind, row, path } of all) {
        for (const [suffix, flags] of Object.entries(row.after)) {
          const want = flags === kept ? keptState(kind, row) : flags;
          expected.set(path + suffix, want);
          await untilFlags(mount.at(path + suffix), want);
        }
      }
      for (const root of [mount.path, source]) await shell(made, [root]);
      for (const path of madeFiles) t.equal(await hsmFlags(mount.at(path)), states.new, path);
    },
  );

  const changed = [...expected].flatMap(([path, flags]) =>
    flags === states.dirty || flags === states.new ? [path] : [],
  );
  const shownStates = async (): Promise<ReadonlyMap<string, number>> => {
    const shown = new Map<string, number>();
    for (const path of expected.keys()) shown.set(path, await hsmFlags(mount.at(path)));
    return shown;
  };

  await t.test(
    'after umount and mount everything is as it was, and nothing is downloaded again',
    async (t) => {
      const attributes = await readTree(mount.path, { content: false });
      proxy.clearLog();
      const said = await mount.unmount();
      t.match(said, /files have changes that the container does not have/);
      t.match(said, 'edited', 'they are named');
      await mount.remount();
      t.same(await shownStates(), expected);
      t.same(differences(attributes, await readTree(mount.path, { content: false })), []);
      for (const [path, flags] of expected)
        if (flags !== states.stub) await ok('cmp', ['--', mount.at(path), join(source, path)]);
      t.same(gets(), []);
      t.same(written(), []);
    },
  );

  const upwards = new Set(['new', ...changed.flatMap(ancestors)]);
  await t.test('an export writes exactly what is new or changed, and the directories above it', async (t) => {
    const dirs = await readTree(mount.path, { content: false });
    proxy.clearLog();
    const ended = await lustrite(['export', 'create', mount.path, '--wait', '--json'], { env });
    t.match(ended, { code: 0 }, ended.stderr);
    const wantedDirectories = [...upwards].filter((path) => {
      const [was, is] = [before.get(path), dirs.get(path)];
      return (
        was === undefined ||
        is === undefined ||
        differences(new Map([[path, was]]), new Map([[path, is]])).length > 0
      );
    });
    t.same([...written()].sort(), [...changed, 'new/symlink', ...wantedDirectories].sort());
    t.equal(proxy.count({ method: 'DELETE' }), 0);
    t.same(gets(), [], 'nothing is downloaded for it');
    t.match(JSON.parse(ended.stdout), {
      kind: 'export',
      properties: {
        status: {
          state: 'Completed',
          percentComplete: 100,
          totalFilesExported: changed.length + 1,
          totalDirectoriesExported: wantedDirectories.length,
          totalFilesFailed: 0,
          // The pipe: blobs cannot hold it.
          totalFilesSkipped: 1,
        },
      },
    });
  });

  await t.test('what was exported has its content and its POSIX metadata', async (t) => {
    const now = await readTree(mount.path, { content: false });
    for (const path of [...changed, ...upwards, 'new/symlink']) {
      const entry = now.get(path);
      if (entry === undefined) throw new Error(`${path} is not on the mount`);
      const { body, metadata } = await download(client, path);
      t.match(metadata, copytoolMetadata(entry), path);
      if (entry.kind === 'directory') t.equal(body.length, 0);
      else if (entry.kind === 'symlink') t.equal(body.toString(), entry.target);
      else t.ok(body.equals(await readFile(join(source, path))), `content of ${path}`);
    }
  });

  await t.test(
    'everything exported is clean, the rest as before, and a second export writes nothing',
    async (t) => {
      const wanted = new Map(
        [...expected].map(([path, flags]) => [path, changed.includes(path) ? states.clean : flags]),
      );
      t.same(await shownStates(), wanted);
      proxy.clearLog();
      t.match(await lustrite(['export', 'create', mount.path, '--wait'], { env }), {
        code: 0,
        stdout: /Completed: 0 files exported/,
      });
      t.equal(
        proxy.log.filter(({ method, blob }) => method !== 'GET' && method !== 'HEAD' && blob !== '').length,
        0,
      );
      t.equal(
        await mount.unmount(),
        `${mount.path} unmounted\n`,
        'nothing is left that the container does not have',
      );
      await mount.remount();
      t.same(await shownStates(), wanted);
      const here = withoutTimes(await readTree(mount.path));
      t.same(
        differences(withoutTimes(await readTree(source)), here),
        [],
        'every byte is what an ordinary file system has',
      );
    },
  );

  await t.test('a second mount with an empty store shows exactly the container', async (t) => {
    const here = await readTree(mount.path);
    const model = new Map(before);
    for (const path of [...changed, ...upwards, 'new/symlink']) {
      const entry = here.get(path);
      if (entry !== undefined) model.set(path, entry);
    }
    await using second = await TestMount.start(t, { container, env });
    t.same(differences(model, await readTree(second.path)), []);
    // The model says so too; these are what the page promises.
    for (const kind of kinds) {
      t.ok(
        (await lstat(second.at(kind, 'renamed'))).isFile(),
        `a renamed ${kind} is back under its old name`,
      );
      t.ok((await lstat(second.at(kind, 'deleted'))).isFile(), `a deleted ${kind} is back`);
      t.equal((await lstat(second.at(kind, 'with another mode'))).mode & 0o7777, 0o644);
      t.match(await lstat(second.at(kind, 'with another owner')), { uid: 0, gid: 0 });
    }
    await t.rejects(
      lstat(second.at('new/alone')),
      { code: 'ENOENT' },
      'an empty new directory is not exported',
    );
  });

  await t.test('what changes under an export', async (t) => {
    const at = (name: string): string => mount.at('active', name);
    const text = async (name: string): Promise<string> =>
      (
        await client
          .getBlockBlobClient(`active/${name}`)
          .downloadToBuffer()
          .catch(() => 'none')
      ).toString();
    /** Begins one of what is below the path. */
    const exporting = async (name: string): Promise<{ readonly status: object; readonly lines: unknown }> => {
      const job = await mount.job('export', { filesystemPath: `/active/${name}` });
      const log = await readFile(join(mount.store, 'jobs', job.name, 'log.jsonl'), 'utf8');
      const lines = log.trim().split('\n').map((line) => JSON.parse(line) as object); // prettier-ignore
      return { status: job.properties.status, lines };
    };
    const failed = { state: 'Failed', errorCode: 'FilesFailed', totalFilesExported: 0, totalFilesFailed: 1 };
    const exported = { state: 'Completed', totalFilesExported: 1, totalFilesFailed: 0 };
    const nothing = { state: 'Completed', totalFilesExported: 0, totalFilesFailed: 0 };
    /** Of the first request for the blob that matches: it waits until the function that is returned is called. */
    const held = (method: string, name: string): { arrived: () => Promise<void>; go: () => void } => {
      const match = { method, blob: `active/${name}` };
      let go: () => void = () => undefined;
      const gate = new Promise<void>((resolve) => {
        go = resolve;
      });
      proxy.clearLog();
      proxy.inject({ ...match, times: 1 }, { kind: 'hold', until: gate });
      return {
        arrived: async () => {
          await until(() => proxy.count(match) > 0, { what: `a ${method} of ${name}` });
        },
        go,
      };
    };
    await mkdir(at(''));

    await t.test(
      'open for writing, a file is not exported and stays dirty, until it is closed',
      async (t) => {
        await writeFile(at('written'), 'one');
        t.match((await exporting('written')).status, exported);
        const writer = await open(at('written'), 'a');
        await writer.write(', two');
        const { status, lines } = await exporting('written');
        t.match(status, { ...failed, errorMessage: /^1 file was not exported/ });
        t.match(lines, [{ level: 'error', path: 'active/written', code: 'Busy' }, { code: 'Failed' }]);
        t.equal(await hsmFlags(at('written')), states.dirty);
        t.equal(await text('written'), 'one', 'the blob is as it was');
        await writer.close();
        t.match((await exporting('written')).status, exported, 'only the rest');
        t.equal(await text('written'), 'one, two');
        t.equal(await hsmFlags(at('written')), states.clean);
      },
    );

    await t.test('changed during its upload, a file is uploaded once more', async (t) => {
      await writeFile(at('changed'), 'one');
      const upload = held('PUT', 'changed');
      const job = exporting('changed');
      await upload.arrived();
      await appendFile(at('changed'), ', two');
      upload.go();
      t.match((await job).status, exported);
      t.equal(await text('changed'), 'one, two');
      t.equal(await hsmFlags(at('changed')), states.clean);
    });

    await t.test('renamed during its upload, a file is exported under the name that it had', async (t) => {
      await writeFile(at('name'), 'one');
      const upload = held('PUT', 'name');
      const job = exporting('name');
      await upload.arrived();
      await rename(at('name'), at('other name'));
      upload.go();
      t.match((await job).status, exported);
      t.same([await text('name'), await text('other name')], ['one', 'none']);
      t.equal(await hsmFlags(at('other name')), states.clean);
      t.match((await exporting('other')).status, nothing, 'a rename is not exported');
    });

    await t.test('renamed before its upload, a file is a failure, and exported next time', async (t) => {
      await writeFile(at('first'), 'first');
      t.match((await exporting('first')).status, exported);
      t.match(await lfs(['hsm_release', at('first')]), { code: 0 });
      await rename(at('first'), at('moved'));
      await writeFile(at('first'), 'second');
      // Its blob is the only copy of the other file, which is restored before it is overwritten.
      const restore = held('GET', 'first');
      const job = exporting('first');
      await restore.arrived();
      await rename(at('first'), at('second'));
      restore.go();
      const { status, lines } = await job;
      t.match(status, failed);
      t.match(lines, [{ level: 'error', path: 'active/first', code: 'Renamed' }, { code: 'Failed' }]);
      t.equal(await hsmFlags(at('second')), states.new);
      t.equal(await text('first'), 'first');
      t.match((await exporting('second')).status, exported);
      t.equal(await text('second'), 'second');
      t.equal(await readFile(at('moved'), 'utf8'), 'first');
    });

    await t.test(
      'an ACL of a file stays here: its mask is exported as the permissions of the group',
      async (t) => {
        await writeFile(at('acl'), 'x', { mode: 0o640 });
        await ok('setfacl', ['-m', 'u:1234:rw,g::-', at('acl')]);
        t.equal(aclOf(at('acl')), 'u=6 u1234=6 g=0 m=6 o=0');
        t.match((await exporting('acl')).status, exported);
        t.match((await download(client, 'active/acl')).metadata, { permissions: '0660' });
        t.equal(aclOf(at('acl')), 'u=6 u1234=6 g=0 m=6 o=0', 'the file keeps it');
        await rm(at('acl'));
        const request = { prefixes: ['/active/acl'], conflictResolutionMode: 'Fail' };
        t.match((await mount.job('import', request)).properties.status, { importedFiles: 1 });
        t.equal((await lstat(at('acl'))).mode & 0o7777, 0o660);
        t.equal(aclOf(at('acl')), null);
      },
    );
  });
});

function keptState(kind: Kind, { restores }: Row): number {
  return kind === 'stub' && !restores ? states.stub : states.clean;
}

/** `a`, `a/b` of `a/b/c`. */
function ancestors(path: string): readonly string[] {
  const parent = dirname(path);
  return parent === '.' ? [] : [...ancestors(parent), parent];
}

/** Edits happened at other times here and there. */
function withoutTimes(tree: Tree): Tree {
  return new Map([...tree].map(([path, entry]): [string, Entry] => [path, { ...entry, mtime: 0 }]));
}
