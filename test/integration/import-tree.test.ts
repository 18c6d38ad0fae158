/** A big real tree: imported from what the copytool wrote, listed without a download, then read to the last byte. */
import { mkdir, mkdtemp, open, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { uploadTree } from '../helpers/copytool.js';
import { FaultServer, type Logged } from '../helpers/fault-server.js';
import { hsmFlags, lfsPath, states } from '../helpers/lfs.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, shell, start } from '../helpers/run.js';
import { Dice, differences, growFile, growTree, readTree, type Tree } from '../helpers/tree.js';

const mib = 1024 ** 2;
const rangeBytes = 8 * mib;
const wantedFiles = 2000;
/** What is copied of /usr/include, at most: the machine of a developer has tens of thousands of headers. */
const copiedFiles = 2200;
const big = 'big/300 MiB.bin';
const shared = 'big/shared.bin';
const readers = 16;
const owners = [
  [0, 0],
  [1000, 100],
  [4242, 4243],
  [65534, 65534],
  [2_000_000_000, 3_000_000_000],
] as const;

/** A tree of at least 2,000 files with what /usr/include has and everything odd. */
async function growSource(root: string, dice: Dice): Promise<void> {
  // GNU cpio is not everywhere; tar is. Times become whole seconds, which is all that metadata can carry.
  await shell(
    `cd /usr/include; find . -type f -print0 | sort -z | head -z -n "$2" |
       tar --null --no-recursion -T - -cf - | tar -C "$1" -xf -
     find "$1" -type d -exec chmod 0755 {} +`,
    [root, String(copiedFiles)],
  );
  const copied = Number(await shell('find "$1" -type f | wc -l', [root]));
  await mkdir(join(root, 'random'));
  const files = Math.max(150, wantedFiles - copied);
  await growTree(join(root, 'random'), dice, { files, directories: 25, owners });
  await growFile(join(root, big), 300 * mib, dice);
  await growFile(join(root, shared), 4 * mib, dice);
  await writeFile(join(root, 'big/empty'), '');
  await mkdir(join(root, 'sticky'), { mode: 0o1777 });
  await mkdir(join(root, 'nothing in it'));
  await symlink('../big/../random', join(root, 'sticky/to a directory'));
  await symlink('/nowhere/at all', join(root, 'dangling'));
  await shell(
    `chmod 1777 "$1/sticky"; chown 1000:100 "$1/sticky" "$1/nothing in it"
     chown -h 4242:4243 "$1/dangling"; chmod 0400 "$1/big/empty"; chmod 0711 "$1/big"
     find "$1" -depth -mindepth 1 -newermt 2024-01-01 -exec touch -h -d '2021-03-04 05:06:07 UTC' {} +`,
    [root],
  );
}

/** Attributes as find(1) prints them, times to the nanosecond; directories have no size to compare. */
async function listing(root: string): Promise<readonly string[]> {
  const out = await shell(
    `cd "$1"; find . -mindepth 1 -type d -printf '%P|%y|%m|%U|%G|%T@\\0' -o -printf '%P|%y|%m|%U|%G|%T@|%s|%l\\0'`,
    [root],
  );
  return out.split('\0').sort();
}

async function statesBelow(root: string): Promise<Readonly<Record<string, number>>> {
  const out = await shell('find "$1" -type f -print0 | xargs -0 "$2" hsm_state', [root, lfsPath]);
  const counted: Record<string, number> = {};
  for (const [, state = ''] of out.matchAll(/: \((0x[0-9a-f]{8}\).*)$/gm))
    counted[state] = (counted[state] ?? 0) + 1;
  return counted;
}

/** What sha256sum(1) says of the files when several of it run at a time, each with an output of its own. */
async function sha256sums(root: string, paths: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const sums = new Map<string, string>();
  const left = [...paths];
  const worker = async (): Promise<void> => {
    for (let some = left.splice(0, 100); some.length > 0; some = left.splice(0, 100)) {
      const out = await ok('sha256sum', ['-z', '--', ...some], { cwd: root, timeoutMs: 300_000 });
      for (const line of out.split('\0')) if (line !== '') sums.set(line.slice(66), line.slice(0, 64));
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  return sums;
}

function byBlob(requests: readonly Logged[]): ReadonlyMap<string, number> {
  const counted = new Map<string, number>();
  for (const { blob } of requests) counted.set(blob, (counted.get(blob) ?? 0) + 1);
  return counted;
}

const filesOf = (tree: Tree): Tree => new Map([...tree].filter(([, { kind }]) => kind === 'file'));

t.test('a tree of 2,000 files', { skip: cannotMount }, async (t) => {
  const source = await mkdtemp(join(tmpdir(), 'lustrite-source-'));
  t.teardown(() => rm(source, { recursive: true, force: true }));
  const dice = new Dice();
  t.comment(`seed ${String(dice.seed)}`);
  await growSource(source, dice);
  const want = await readTree(source);
  const files = filesOf(want);
  const symlinks = [...want].filter(([, { kind }]) => kind === 'symlink').map(([path]) => path);
  t.ok(files.size >= wantedFiles, `${String(files.size)} files`);

  await using azurite = await Azurite.start();
  await using proxy = await FaultServer.start(azurite.url);
  const container = await azurite.newContainer('tree');
  await uploadTree(source, want, azurite.client(container));
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(proxy.url) };
  await using mount = await TestMount.start(t, { container, env });
  const downloads = (): readonly Logged[] =>
    proxy.requests({ method: 'GET' }).filter(({ blob }) => blob !== '');

  await t.test(
    'names, sizes, modes, owners and times are the source before a byte of a file came',
    async (t) => {
      const [job] = await mount.jobs();
      t.match(job, {
        name: 'importJobInitialAmlfsPut',
        properties: {
          status: {
            state: 'Completed',
            totalBlobsWalked: want.size,
            totalBlobsImported: want.size,
            importedFiles: files.size,
            importedDirectories: want.size - files.size - symlinks.length,
            importedSymlinks: symlinks.length,
            totalErrors: 0,
            totalConflicts: 0,
          },
        },
      });
      t.same(await listing(mount.path), await listing(source));
      t.same(differences(want, await readTree(mount.path, { content: false }), ['sha256']), []);
      await shell('ls -lR "$1" >/dev/null; du -s "$1" >/dev/null; du -s --apparent-size "$1" >/dev/null', [
        mount.path,
      ]);
      const bigOnes = await ok('find', [mount.path, '-size', '+200M', '-printf', '%P %s']);
      t.equal(bigOnes, `${big} ${String(300 * mib)}`);
      t.same(await statesBelow(mount.path), {
        '0x0000000d) released exists archived, archive_id:1': files.size,
      });
      t.same([...byBlob(downloads()).keys()].sort(), [...symlinks].sort(), 'only the symlinks were read');
      t.equal(downloads().length, symlinks.length, 'once each');
    },
  );

  await t.test(
    'a stub occupies one block, an empty one none, and the whole tree next to nothing',
    async (t) => {
      t.equal((await stat(mount.at(big))).blocks, 1);
      t.equal((await stat(mount.at('big/empty'))).blocks, 0);
      const used = await shell('find "$1" -type f -printf "%b\\n" | sort | uniq -c', [mount.path]);
      const empty = [...files.values()].filter(({ size }) => size === 0).length;
      t.same(used.trim().split(/\s+/), [String(empty), '0', String(files.size - empty), '1']);
      const stored = Number(await shell('du -s -B1 "$1/ns" | cut -f1', [mount.store]));
      t.ok(stored < 64 * mib, `${String(stored)} bytes in the store, of ${String(300 * mib)} and more`);
    },
  );

  await t.test('many readers of one stub cause one download', async (t) => {
    proxy.clearLog();
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    proxy.inject({ method: 'GET', blob: shared }, { kind: 'hold', until: gate });
    const step = (4 * mib) / readers;
    const reads = Array.from({ length: readers }, (_, at) =>
      start('dd', [
        `if=${mount.at(shared)}`,
        'bs=4096',
        'count=1',
        `skip=${String((at * step) / 4096)}`,
        'status=none',
      ]),
    );
    await until(async () => ((await mount.status())?.heldRequests ?? 0) >= readers, {
      what: `${String(readers)} reads to wait`,
    }).finally(release);
    const handle = await open(join(source, shared));
    for (const [at, { ended }] of reads.entries()) {
      const { buffer } = await handle.read(Buffer.alloc(4096), 0, 4096, at * step);
      t.ok((await ended).stdoutBytes.equals(buffer), `reader ${String(at)} has the right bytes`);
    }
    await handle.close();
    proxy.clear();
    await until(async () => (await hsmFlags(mount.at(shared))) === states.clean, {
      what: 'the restore to end',
    });
    t.equal(downloads().length, 1);
  });

  await t.test('then every byte is the source, for one download a file', async (t) => {
    proxy.clearLog();
    const got = await sha256sums(mount.path, [...files.keys()]);
    const other = [...files].filter(([path, { sha256 }]) => got.get(path) !== sha256);
    t.same(
      other.map(([path, { sha256 }]) => `${path}: ${got.get(path) ?? 'nothing'}, not ${String(sha256)}`),
      [],
      'the SHA-256 of every file',
    );
    const seen = byBlob(downloads());
    const wrong = [...files].filter(([path, { size }]) => {
      const expected = path === shared || size === 0 ? 0 : Math.ceil(size / rangeBytes);
      return (seen.get(path) ?? 0) !== expected;
    });
    t.same(
      wrong.map(([path]) => [path, seen.get(path)]),
      [],
      'one GET a file, or one a range of 8 MiB',
    );
    t.equal(
      downloads().reduce((sum, { bytes }) => sum + bytes, 0),
      [...files].reduce((sum, [path, { size }]) => sum + (path === shared ? 0 : size), 0),
      'no byte came twice',
    );
  });

  await t.test('what was read is clean, and shows what it showed before', async (t) => {
    const empty = [...files.values()].filter(({ size }) => size === 0).length;
    t.same(await statesBelow(mount.path), {
      '0x00000009) exists archived, archive_id:1': files.size - empty,
      // There is nothing to read in an empty file.
      '0x0000000d) released exists archived, archive_id:1': empty,
    });
    t.same(await listing(mount.path), await listing(source));
    proxy.clearLog();
    t.same(differences(want, await readTree(mount.path)), []);
    t.equal(downloads().length, 0, 'and is read again without a download');
  });
});
