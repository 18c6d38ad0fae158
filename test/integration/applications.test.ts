/** Programs that people use, on released files: what they do, what they restore, and what the files are afterwards. */
import { accessSync, constants } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import t, { type Test } from 'tap';
import { Application } from '../helpers/application.js';
import { hsmFlags, states, untilFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { ok, run, shell } from '../helpers/run.js';

/** Different at every offset that a test looks at; neither page nor range of the transfer divides its length. */
const content = (length: number, seed: number): Buffer =>
  Buffer.alloc(
    length,
    Uint8Array.from({ length: 9973 }, (_, i) => (i * 31 + seed) % 256),
  );
/** Bigger than `hydrate.rangeBytes`. */
const big = content(9_000_001, 1);
const small = content(100_003, 2);
const tiny = Buffer.from('one\ntwo\nthree\n');
/** What a folder of stubs for a copying program holds. */
const tree = { big, 'sub/small': small, 'sub/deeper/tiny': tiny, 'sub/empty': Buffer.alloc(0) };
const treeOf = (folder: string): Record<string, Buffer> =>
  Object.fromEntries(Object.entries(tree).map(([name, body]) => [`${folder}/${name}`, body]));
const gitEnv = {
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'A',
  GIT_AUTHOR_EMAIL: 'a@example.com',
  GIT_COMMITTER_NAME: 'C',
  GIT_COMMITTER_EMAIL: 'c@example.com',
};

/** Why a test of these programs cannot run here; false when it can. */
function missing(...programs: readonly string[]): string | false {
  const folders = (process.env['PATH'] ?? '').split(':');
  const absent = programs.filter((program) => !folders.some((folder) => executable(join(folder, program))));
  return absent.length > 0 && `${absent.join(', ')} not installed`;
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The files below a folder, as blobs. */
async function blobsOf(folder: string, prefix: string): Promise<Record<string, Buffer>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)));
  return Object.fromEntries(
    await Promise.all(paths.map(async (path) => [`${prefix}/${path}`, await readFile(join(folder, path))])),
  ) as Record<string, Buffer>;
}

t.test('applications on released files', { skip: cannotMount || missing('python3') }, async (t) => {
  const local = await mkdtemp(join(tmpdir(), 'lustrite-apps-'));
  t.teardown(() => rm(local, { recursive: true, force: true }));
  const noGit = missing('git');
  const noSqlite = missing('sqlite3');
  const noRsync = missing('rsync');

  if (noGit === false) {
    const script = `
      git init -q -b main repo; cd repo
      mkdir src; echo 'first' >README; seq 2000 >src/numbers
      git add .; git commit -qm first; echo 'second' >>README; git commit -qam second
      cd ..; git clone -q --bare repo origin.git`;
    await shell(script, [], { cwd: local, env: gitEnv });
  }
  if (noSqlite === false) {
    const sql = `create table t (a integer primary key, b text);
      with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)
      insert into t select i, 'row ' || i from n;`;
    await ok('sqlite3', [join(local, 'db'), sql]);
  }
  const database = noSqlite === false ? await readFile(join(local, 'db')) : '';
  const program = await readFile(await realpath('/usr/bin/sha256sum'));

  const lab = await MountedContainer.start(t, {
    ...(noGit === false && (await blobsOf(join(local, 'repo'), 'repo'))),
    ...Object.fromEntries(['rollback', 'wal', 'killed'].map((name) => [`sqlite/${name}`, database])),
    ...['tar', 'from', 'onto', 'cp', 'looked-at'].map(treeOf).reduce((all, some) => ({ ...all, ...some })),
    'dd/read': big,
    'dd/direct': big,
    'dd/written': small,
    'mmap/written': small,
    'mmap/read': small,
    'exec/program': program,
    'exec/data': small,
    'sed/file': tiny,
    'save/over': tiny,
    'save/backup': tiny,
  });
  const { storage } = lab;
  const at = (name: string): string => lab.at(name);
  const flags = (name: string): Promise<number> => hsmFlags(at(name));
  const equal = (t: Test, got: Buffer, want: Buffer, what: string): void => {
    t.equal(Buffer.compare(got, want), 0, `${what} has the right bytes`);
  };
  /** The files of `tree` below a folder of any file system. */
  const holdsTree = async (t: Test, folder: string): Promise<void> => {
    const wanted = Object.entries(tree);
    for (const [name, body] of wanted) equal(t, await readFile(join(folder, name)), body, name);
    t.equal(Object.keys(await blobsOf(folder, '')).length, wanted.length, 'no other file');
  };
  const treeIs = async (t: Test, folder: string, state: number): Promise<void> => {
    for (const name of Object.keys(tree)) {
      // A reader has its bytes before the restore is on record. An empty file has nothing to restore.
      if (name !== 'sub/empty') await untilFlags(at(`${folder}/${name}`), state);
    }
    t.pass(`the files of ${folder} are 0x${state.toString(16)}`);
  };
  const downloads = (blob: string | RegExp): number => storage.count({ method: 'GET', blob });
  /** The file is archived, and its blob is what the mount shows. */
  const archives = async (t: Test, name: string): Promise<void> => {
    t.equal(await lab.archive(name), 0);
    t.equal(await flags(name), states.clean, `${name} is archived`);
    const blob = await lab.container.getBlockBlobClient(name).downloadToBuffer();
    equal(t, blob, await readFile(at(name)), `the blob of ${name}`);
  };
  const application = (t: Test): Application => {
    const made = new Application();
    t.teardown(() => made[Symbol.asyncDispose]());
    return made;
  };
  t.beforeEach(() => {
    storage.clearLog();
  });

  await t.test('find, ls, du and stat download nothing', async (t) => {
    const folder = at('looked-at');
    const found = await ok('find', [folder, '-type', 'f', '-size', '+1k', '-newermt', '2000-01-01', '-ls']);
    t.match(found, 'looked-at/big');
    t.match(found, 'looked-at/sub/small');
    t.notMatch(found, 'tiny');
    t.match(await ok('ls', ['-laR', folder]), /9000001 .* big\n/);
    t.equal((await ok('du', ['-b', join(folder, 'big')])).split('\t')[0], String(big.length));
    t.ok(Number((await ok('du', ['-s', '-B1', folder])).split('\t')[0]) < big.length, 'du: not here');
    await ok('stat', [join(folder, 'big')]);
    await treeIs(t, 'looked-at', states.stub);
    t.equal(downloads(/^looked-at/), 0);
  });

  await t.test('tar packs released files completely and sees none of them change', async (t) => {
    const archive = join(local, 'packed.tar');
    const packed = await run('tar', ['-cf', archive, '-C', at('tar'), '.']);
    t.match(packed, { code: 0, stderr: '' });
    await mkdir(join(local, 'unpacked'));
    await ok('tar', ['-xf', archive, '-C', join(local, 'unpacked')]);
    await holdsTree(t, join(local, 'unpacked'));
    await treeIs(t, 'tar', states.clean);
  });

  await t.test('tar unpacks into the mount, also over released files', async (t) => {
    const archive = join(local, 'other.tar');
    const other = join(local, 'other');
    await shell('mkdir -p "$1/sub"; echo new >"$1/big"; echo added >"$1/sub/added"', [other]);
    await ok('tar', ['-cf', archive, '-C', other, '.']);
    await ok('tar', ['-xf', archive, '-C', at('onto')]);
    t.equal(await readFile(at('onto/big'), 'utf8'), 'new\n');
    t.equal(await readFile(at('onto/sub/added'), 'utf8'), 'added\n');
    t.equal(await flags('onto/sub/added'), states.new);
    t.equal(await flags('onto/sub/small'), states.stub, 'others stay as they are');
    t.equal(downloads('onto/big'), 0, 'nobody needs what is replaced');
    await archives(t, 'onto/big');
  });

  await t.test(
    'rsync -aX brings released files out with their attributes and without ours',
    { skip: noRsync },
    async (t) => {
      const python = 'import os, sys; os.setxattr(sys.argv[1], "user.mine", b"kept")';
      await ok('python3', ['-c', python, at('from/sub/small')]);
      await chmod(at('from/sub/small'), 0o640);
      await utimes(at('from/sub/small'), 1_000_000_000, 1_000_000_000);
      const out = join(local, 'rsynced');
      await ok('rsync', ['-aX', `${at('from')}/`, `${out}/`]);
      await holdsTree(t, out);
      t.match(await stat(join(out, 'sub/small')), { mode: 0o100640, mtimeMs: 1_000_000_000_000 });
      const list =
        'import os, sys; print([(n, os.getxattr(sys.argv[1], n)) for n in os.listxattr(sys.argv[1])])';
      t.equal((await ok('python3', ['-c', list, join(out, 'sub/small')])).trim(), `[('user.mine', b'kept')]`);
      await treeIs(t, 'from', states.clean);
    },
  );

  await t.test(
    'rsync -aX brings in what is different and leaves other released files released',
    { skip: noRsync },
    async (t) => {
      const source = join(local, 'source');
      await ok('rsync', ['-aX', `${at('from')}/`, `${source}/`]);
      for (const name of Object.keys(tree)) t.equal(await lab.lfs('hsm_release', `from/${name}`), 0);
      await shell('echo four >>"$1/sub/deeper/tiny"; echo new >"$1/new"', [source]);
      storage.clearLog();
      await ok('rsync', ['-aX', '--whole-file', `${source}/`, `${at('from')}/`]);
      t.equal(await flags('from/big'), states.stub, 'same size and time');
      t.equal(await flags('from/sub/small'), states.stub, 'same size and time');
      t.equal(downloads(/^from/), 0);
      t.equal(await flags('from/new'), states.new);
      t.equal(await readFile(at('from/new'), 'utf8'), 'new\n');
      t.equal(await readFile(at('from/sub/deeper/tiny'), 'utf8'), `${tiny.toString()}four\n`);
      await archives(t, 'from/sub/deeper/tiny');
      t.equal(await ok('rsync', ['-aXnic', `${source}/`, `${at('from')}/`]), '', 'nothing is different');
    },
  );

  await t.test('cp -a copies released files, and holes never stand for their data', async (t) => {
    await ok('cp', ['-a', at('cp'), join(local, 'copied')]);
    await holdsTree(t, join(local, 'copied'));
    await treeIs(t, 'cp', states.clean);
    for (const name of Object.keys(tree)) t.equal(await lab.lfs('hsm_release', `cp/${name}`), 0);
    await ok('cp', ['-a', at('cp'), at('cp-copy')]);
    await holdsTree(t, at('cp-copy'));
    t.equal(await flags('cp-copy/big'), states.new, 'a copy is a new file');
    t.match(await stat(at('cp-copy/sub/small')), { mtimeMs: (await stat(at('cp/sub/small'))).mtimeMs });
    await treeIs(t, 'cp', states.clean);
  });

  await t.test('dd reads a released file, buffered and direct, to its odd end', async (t) => {
    const dd = (from: string, ...more: readonly string[]): Promise<Buffer> =>
      run('dd', [`if=${at(from)}`, 'status=none', ...more]).then((ended) => {
        t.match(ended, { code: 0, stderr: '' });
        return ended.stdoutBytes;
      });
    equal(t, await dd('dd/read', 'bs=64k', 'skip=3', 'count=2'), big.subarray(196_608, 327_680), 'a part');
    equal(t, await dd('dd/read', 'bs=1M'), big, 'the whole');
    equal(t, await dd('dd/direct', 'bs=1M', 'iflag=direct'), big, 'a direct read');
    await untilFlags(at('dd/read'), states.clean);
    await untilFlags(at('dd/direct'), states.clean);
    equal(t, await dd('dd/direct', 'bs=1M', 'iflag=direct'), big, 'a direct read of the resident file');
  });

  await t.test('dd writes directly into a released file and into a new one', async (t) => {
    const input = content(8192, 3);
    const dd = (to: string, ...more: readonly string[]): Promise<string> =>
      ok('dd', [`of=${at(to)}`, 'bs=4096', 'oflag=direct', 'status=none', ...more], { input });
    await dd('dd/written', 'seek=2', 'conv=notrunc', 'iflag=fullblock');
    const wanted = Buffer.from(small);
    input.copy(wanted, 8192);
    equal(t, await readFile(at('dd/written')), wanted, 'the file');
    t.equal(await flags('dd/written'), states.dirty);
    await archives(t, 'dd/written');
    await dd('dd/new', 'iflag=fullblock', 'conv=fsync');
    equal(t, await readFile(at('dd/new')), input, 'the new file');
    t.equal(await flags('dd/new'), states.new);
    await archives(t, 'dd/new');
  });

  await t.test('a shared mapping of a released file is written through Python', async (t) => {
    const python = application(t);
    await python.do('f = open(args[0], "r+b"); m = mmap.mmap(f.fileno(), 0)', at('mmap/written'));
    t.equal(await python.do('m[50000:50004].hex()'), small.subarray(50_000, 50_004).toString('hex'));
    await python.do('m[50000:50004] = b"EDIT"; m[-1:] = b"!"; m.flush()');
    t.equal(await flags('mmap/written'), states.dirty);
    const wanted = Buffer.from(small);
    wanted.write('EDIT', 50_000);
    wanted.write('!', small.length - 1);
    equal(t, await readFile(at('mmap/written')), wanted, 'the file');
    await python.do('m.close(); f.close()');
    await archives(t, 'mmap/written');
  });

  await t.test('a mapping of a released file restores it at the first page that is read', async (t) => {
    const python = application(t);
    await python.do(
      'f = open(args[0], "rb"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)',
      at('mmap/read'),
    );
    t.equal(await flags('mmap/read'), states.stub);
    t.equal(downloads('mmap/read'), 0);
    t.equal(await python.do('m[-3:].hex()'), small.subarray(-3).toString('hex'));
    await untilFlags(at('mmap/read'), states.clean);
  });

  await t.test('a released program is executed, and reads a released file', async (t) => {
    await chmod(at('exec/program'), 0o755);
    t.equal(await flags('exec/program'), states.stub);
    // Not by Node itself: spawn blocks it until the exec is done, and the storage of this test with it.
    const [sum] = (await shell('"$1" "$2"', [at('exec/program'), at('exec/data')])).split(' ');
    t.equal(`${sum ?? ''}  -\n`, await ok('sha256sum', [], { input: small }));
    await untilFlags(at('exec/program'), states.clean);
    await untilFlags(at('exec/data'), states.clean);
  });

  await t.test('sed -i edits a released file, and the result replaces the blob', async (t) => {
    await ok('sed', ['-i', 's/two/zwei/', at('sed/file')]);
    t.equal(await readFile(at('sed/file'), 'utf8'), 'one\nzwei\nthree\n');
    t.equal(await flags('sed/file'), states.new, 'sed makes a new file of the same name');
    t.same(await readdir(at('sed')), ['file'], 'and leaves no other');
    await archives(t, 'sed/file');
  });

  await t.test(
    'an editor that saves by renaming a new file over a released one restores nothing',
    async (t) => {
      const python = application(t);
      const save = `
with open(args[0] + '.tmp', 'wb') as f:
    f.write(b'saved')
    f.flush()
    os.fsync(f.fileno())
os.rename(args[0] + '.tmp', args[0])`;
      await python.do(save, at('save/over'));
      t.equal(downloads('save/over'), 0);
      t.equal(await readFile(at('save/over'), 'utf8'), 'saved');
      t.equal(await flags('save/over'), states.new);
      await archives(t, 'save/over');
    },
  );

  await t.test('an editor that keeps the released file as a backup keeps its data', async (t) => {
    await shell('mv "$1" "$1~"; echo saved >"$1"', [at('save/backup')]);
    t.equal(await flags('save/backup~'), states.stub, 'moved as it is');
    await archives(t, 'save/backup');
    equal(t, await readFile(at('save/backup~')), tiny, 'the backup');
    t.equal(await readFile(at('save/backup'), 'utf8'), 'saved\n');
    await archives(t, 'save/backup~');
  });

  const sqlite = (name: string, sql: string): Promise<string> => ok('sqlite3', [at(`sqlite/${name}`), sql]);
  const sum = 'select count(*), sum(a) from t;';

  await t.test(
    'sqlite3 changes a released database with a rollback journal',
    { skip: noSqlite },
    async (t) => {
      t.equal(await sqlite('rollback', sum), '3000|4501500\n');
      await untilFlags(at('sqlite/rollback'), states.clean);
      t.equal(await lab.lfs('hsm_release', 'sqlite/rollback'), 0);
      await sqlite(
        'rollback',
        `begin; insert into t values (5000, 'new'); delete from t where a = 1; commit;`,
      );
      t.equal(await flags('sqlite/rollback'), states.dirty);
      await sqlite('rollback', `begin; delete from t; rollback;`);
      t.equal(await sqlite('rollback', `${sum} pragma integrity_check;`), '3000|4506499\nok\n');
      await archives(t, 'sqlite/rollback');
      t.equal(await lab.lfs('hsm_release', 'sqlite/rollback'), 0);
      t.equal(await sqlite('rollback', `${sum} pragma integrity_check;`), '3000|4506499\nok\n');
    },
  );

  await t.test(
    'sqlite3 rolls back what a killed process left in its journal',
    { skip: noSqlite },
    async (t) => {
      const sql = `pragma cache_size = 2; begin; update t set b = 'lost ' || a;
.system kill -9 $PPID`;
      const killed = await run('sqlite3', [at('sqlite/killed')], { input: sql });
      t.equal(killed.signal, 'SIGKILL');
      t.same(
        (await readdir(at('sqlite'))).filter((name) => name.startsWith('killed-')),
        ['killed-journal'],
      );
      t.equal(
        await sqlite('killed', `select count(*) from t where b like 'row %'; pragma integrity_check;`),
        '3000\nok\n',
      );
      t.notOk((await readdir(at('sqlite'))).includes('killed-journal'));
      await archives(t, 'sqlite/killed');
    },
  );

  await t.test('sqlite3 works in WAL mode on a released database', { skip: noSqlite }, async (t) => {
    t.equal(await sqlite('wal', 'pragma journal_mode = wal;'), 'wal\n');
    // A second connection while the first one is in a transaction: both map the same index.
    const sql = `begin; insert into t values (5000, 'new');
.system sqlite3 "$DB" 'select count(*) from t'
      commit;
.system sqlite3 "$DB" 'select count(*) from t'`;
    const db = at('sqlite/wal');
    t.equal(await ok('sqlite3', [db], { input: sql, env: { DB: db } }), '3000\n3001\n');
    t.equal(await sqlite('wal', `${sum} pragma integrity_check;`), '3001|4506500\nok\n');
    t.same(
      (await readdir(at('sqlite'))).filter((name) => name.startsWith('wal')),
      ['wal'],
      'checkpointed',
    );
    t.equal(await flags('sqlite/wal'), states.dirty);
    await archives(t, 'sqlite/wal');
  });

  const git = (folder: string, ...args: readonly string[]): Promise<string> =>
    ok('git', ['-C', folder, ...args], { env: gitEnv });

  await t.test('git clones into the mount, commits and pushes', { skip: noGit }, async (t) => {
    const clone = at('clone');
    await ok('git', ['clone', '-q', '--no-local', join(local, 'origin.git'), clone], { env: gitEnv });
    await shell('echo third >>"$1/README"; cp "$1/src/numbers" "$1/src/more"', [clone]);
    await git(clone, 'add', '.');
    await git(clone, 'commit', '-qm', 'third');
    await git(clone, 'gc', '-q');
    t.equal(await git(clone, 'status', '--porcelain'), '');
    await git(clone, 'fsck', '--strict', '--no-progress');
    await git(clone, 'push', '-q', 'origin', 'main');
    t.equal(await git(join(local, 'origin.git'), 'log', '--format=%s', 'main'), 'third\nsecond\nfirst\n');
    t.equal(await flags('clone/README'), states.new);
    await archives(t, 'clone/README');
  });

  await t.test('git works in a repository of released files', { skip: noGit }, async (t) => {
    const repo = at('repo');
    t.equal(await flags('repo/.git/HEAD'), states.stub);
    t.equal(await git(repo, 'status', '--porcelain'), '', 'nothing was changed');
    await untilFlags(at('repo/src/numbers'), states.clean);
    await shell('echo third >>"$1/README"', [repo]);
    t.equal(await git(repo, 'status', '--porcelain'), ' M README\n');
    await git(repo, 'commit', '-qam', 'third');
    await git(repo, 'fsck', '--strict', '--no-progress');
    await git(repo, 'checkout', '-q', 'HEAD~2');
    t.equal(await readFile(at('repo/README'), 'utf8'), 'first\n');
    await git(repo, 'checkout', '-q', 'main');
    t.equal(await git(repo, 'log', '--format=%s'), 'third\nsecond\nfirst\n');
    t.equal(await readFile(at('repo/README'), 'utf8'), 'first\nsecond\nthird\n');
    await archives(t, 'repo/README');
  });
});
