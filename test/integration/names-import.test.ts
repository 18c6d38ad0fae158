/** Each name that a blob can have is one path of the mount, or an error that is counted and logged with the name; nothing else appears. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { FaultServer } from '../helpers/fault-server.js';
import { blobXml } from '../helpers/list-server.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { blobCells, type BlobCell } from '../helpers/names.js';
import { ok } from '../helpers/run.js';

// Paths from a mount's root may be as long as the kernel takes: only descriptors get to them.
const program = `
import json, os, sys
root = os.fsencode(sys.argv[1])
found = {}
for above, directories, files, fd in os.fwalk(root):
    for name in directories: found[os.path.join(above, name)[len(root) + 1:].hex()] = None
    for name in files:
        path = os.path.join(above, name)[len(root) + 1:].hex()
        found[path] = os.stat(name, dir_fd=fd).st_size
        if sys.argv[2] == 'read':
            with open(os.open(name, os.O_RDONLY, dir_fd=fd)) as file: found[path] = file.read()
print(json.dumps(found))
`;

type Tree = ReadonlyMap<string, string | number | null>;

async function treeOf(mount: TestMount, how: 'read' | 'stat'): Promise<Tree> {
  const found = JSON.parse(await ok('python3', ['-c', program, mount.path, how])) as Record<string, string>;
  return new Map(
    Object.entries(found).map(([path, content]) => [Buffer.from(path, 'hex').toString(), content]),
  );
}

const contentOf = ({ size, what }: BlobCell): string => (size === 0 ? '' : what);

/** What an import of the cells, and nothing else, has to leave: with each path all that is above it. */
function wantedTree(cells: readonly BlobCell[], of: (cell: BlobCell) => string | number): Tree {
  const wanted = new Map<string, string | number | null>();
  for (const cell of cells) {
    if (cell.path === undefined) continue;
    for (let at = cell.path.indexOf('/'); at > 0; at = cell.path.indexOf('/', at + 1))
      wanted.set(cell.path.slice(0, at), null);
    wanted.set(cell.path, cell.name.endsWith('/') ? null : of(cell));
  }
  return wanted;
}

function sorted(tree: Tree): readonly (readonly [string, unknown])[] {
  return [...tree].sort(([a], [b]) => (a < b ? -1 : 1));
}

async function errorsOf(mount: TestMount, job: string): Promise<readonly Readonly<Record<string, string>>[]> {
  const text = await readFile(join(mount.store, 'jobs', job, 'log.jsonl'), 'utf8');
  const lines = text.split('\n').filter((line) => line !== '');
  return lines
    .map((line) => JSON.parse(line) as Record<string, string>)
    .filter(({ level }) => level !== 'info');
}

type ImportJob = Awaited<ReturnType<TestMount['job']>>;

/** Record and log of an import that has made of `cells` what it has to; `again`: all that has a place has it before. */
async function check(
  t: Test,
  mount: TestMount,
  cells: readonly BlobCell[],
  job: ImportJob | undefined,
  again = false,
): Promise<void> {
  const refused = cells.filter((cell) => cell.refused);
  const placed = again ? [] : cells.filter((cell) => cell.path !== undefined);
  const directories = placed.filter(({ name }) => name.endsWith('/'));
  t.match(job?.properties.status, {
    state: refused.length > 0 ? 'CompletedPartial' : 'Completed',
    totalBlobsWalked: cells.length,
    totalBlobsImported: placed.length,
    importedFiles: placed.length - directories.length,
    importedDirectories: directories.length,
    importedSymlinks: 0,
    totalErrors: refused.length,
    totalConflicts: 0,
  });
  const lines = await errorsOf(mount, job?.name ?? '');
  for (const { what, name, refused } of cells) {
    const about = lines.filter(({ blob }) => blob === name);
    const wanted = refused ? [{ level: 'error', code: 'InvalidName', message: refused }] : [];
    t.equal(about.length, wanted.length, `${what}: said once or not at all`);
    t.match(about, wanted, what);
  }
  t.equal(lines.length, refused.length, 'nothing else is said');
}

t.test('names of blobs', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());

  await t.test('that a client can write', async (t) => {
    const cells = blobCells().filter(({ listedOnly }) => listedOnly !== true);
    const container = await azurite.newContainer();
    const client = azurite.client(container);
    for (const cell of cells) {
      const body = Buffer.from(contentOf(cell));
      await client.getBlockBlobClient(cell.name).upload(body, body.length);
    }
    const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
    await using mount = await TestMount.start(t, { container, env });
    const [first] = await mount.jobs();
    await check(t, mount, cells, first);
    const wanted = sorted(wantedTree(cells, contentOf));
    t.same(
      sorted(await treeOf(mount, 'read')),
      wanted,
      'each name has its own content, and no other is there',
    );

    const again = await mount.job('import', { maximumErrors: -1 });
    await check(t, mount, cells, again, true);
    t.same(sorted(await treeOf(mount, 'read')), wanted, 'another import leaves all of that as it is');
  });

  await t.test('that only a listing tells', async (t) => {
    // What no Unicode is no listing can tell either.
    const cells = blobCells().filter(({ name }) => Buffer.from(name).toString() === name);
    const container = await azurite.newContainer();
    await using listing = await FaultServer.start(azurite.url);
    listing.inject({ method: 'GET', blob: '', query: 'comp=list' }, { kind: 'body', body: pageOf(cells) });
    const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(listing.url) };
    await using mount = await TestMount.start(t, { container, env });
    const [first] = await mount.jobs();
    await check(t, mount, cells, first);
    const wanted = sorted(wantedTree(cells, ({ size }) => size));
    t.same(sorted(await treeOf(mount, 'stat')), wanted, 'each path is there, and no other');
  });
});

function pageOf(cells: readonly BlobCell[]): Buffer {
  const blobs = cells.map(({ name, size }) => {
    const at = { etag: '0x8', lastModified: 'Tue, 01 Sep 2026 00:00:00 GMT' };
    return blobXml({
      name,
      size,
      ...at,
      encoded: /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(name),
    });
  });
  return Buffer.from(
    `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>${blobs.join('')}</Blobs><NextMarker /></EnumerationResults>`,
  );
}
