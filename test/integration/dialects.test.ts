/** Containers of other tools: what their blobs become here, and what those tools read of what is exported. */
import { appendFile, chmod, chown, lchown, lstat, mkdir, mkdtemp, readFile, readlink, rm, symlink, unlink, utimes, writeFile } from 'node:fs/promises'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { noImportCounters, type ImportStatus } from '../../src/jobs/import/import-record.js';
import { importCounters } from '../helpers/auto-import.js';
import { dialects, type Meaning, type WrittenBlob } from '../helpers/dialects.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { ok } from '../helpers/run.js';

const meaningOf = async (path: string): Promise<Required<Meaning>> => {
  const found = await lstat(path);
  return {
    kind: found.isDirectory() ? 'directory' : found.isSymbolicLink() ? 'symlink' : 'file',
    uid: found.uid,
    gid: found.gid,
    mode: found.mode & 0o7777,
    mtimeMs: Math.floor(found.mtimeMs / 1000) * 1000,
  };
};

t.test('containers of other tools', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  const { container } = lab;
  for (const { name: dialect, rows } of dialects) {
    for (const [{ name, body = '', metadata = {} }] of rows)
      await container.getBlockBlobClient(`${dialect}/${name}`).upload(body, body.length, { metadata });
  }
  for (const { name, rows } of dialects) {
    const request = { prefixes: [`/${name}/`], conflictResolutionMode: 'Fail', maximumErrors: -1 };
    const status = (await lab.mount.job('import', request)).properties.status as ImportStatus;
    const [importedFiles, importedDirectories, importedSymlinks, totalErrors] = (
      ['file', 'directory', 'symlink', undefined] as const
    ).map((kind) => rows.filter(([, , meaning]) => meaning?.kind === kind).length);
    t.equal(status.state, totalErrors === 0 ? 'Completed' : 'CompletedPartial', name);
    const counted = { importedFiles, importedDirectories, importedSymlinks, totalErrors };
    t.same(
      importCounters(status),
      {
        ...{ ...noImportCounters, ...counted },
        totalBlobsWalked: rows.length,
        totalBlobsImported: rows.length - (totalErrors ?? 0),
      },
      name,
    );
  }

  const written = async (prefix: string): Promise<readonly WrittenBlob[]> => {
    const blobs: WrittenBlob[] = [];
    for await (const { name, properties, metadata = {} } of container.listBlobsFlat({
      prefix,
      includeMetadata: true,
    })) {
      const lower = Object.entries(metadata).map(([key, value]): [string, string] => [
        key.toLowerCase(),
        value,
      ]);
      blobs.push({ name, size: properties.contentLength ?? -1, metadata: Object.fromEntries(lower) });
    }
    return blobs;
  };

  for (const { name: dialect, rows, read } of dialects) {
    const at = (path: string): string => lab.at(`${dialect}/${path}`);
    await t.test(`${dialect}: owners, modes, times and kinds are read`, async (t) => {
      for (const [{ name, body = '' }, path, meaning] of rows) {
        if (meaning === undefined) {
          await t.rejects(lstat(at(path)), { code: 'ENOENT' }, name);
          continue;
        }
        const { kind } = meaning;
        const properties = await container.getBlobClient(`${dialect}/${name}`).getProperties();
        const untold: Required<Meaning> = {
          kind,
          uid: 0,
          gid: 0,
          mode: kind === 'directory' ? 0o755 : kind === 'symlink' ? 0o777 : 0o644,
          mtimeMs: properties.lastModified?.getTime() ?? 0,
        };
        t.same(await meaningOf(at(path)), { ...untold, ...meaning }, name);
        if (kind === 'file') t.equal(await readFile(at(path), 'utf8'), body);
        if (kind === 'symlink') t.equal(await readlink(at(path)), body);
      }
    });

    await t.test(`${dialect}: what is exported over it says the same to the tool as to us`, async (t) => {
      for (const [, path, meaning] of rows) {
        if (meaning?.kind === 'file') {
          await appendFile(at(path), ' and more');
          await chown(at(path), 1234, 5678);
          await chmod(at(path), 0o604);
          await utimes(at(path), 1_500_000_000, 1_500_000_000);
        } else if (meaning?.kind === 'symlink') {
          await unlink(at(path));
          await symlink('elsewhere', at(path));
          await lchown(at(path), 12, 34);
        } else if (meaning?.kind === 'directory') {
          await chmod(at(path), 0o1770);
          await writeFile(`${at(path)}/new`, 'new');
        }
      }
      await mkdir(at('made/below'), { recursive: true });
      await writeFile(at('made/below/file'), 'x');
      t.equal(await lab.export(`${dialect}/`), 'Completed');
      const blobs = await written(`${dialect}/`);
      const refused = new Set(rows.flatMap(([, path, meaning]) => (meaning ? [] : [`${dialect}/${path}`])));
      const paths = blobs.map(({ name }) => name.replace(/\/$/, ''));
      t.equal(new Set(paths).size, paths.length, 'no directory has two markers');
      for (const blob of blobs) {
        if (refused.has(blob.name)) continue;
        const here = await meaningOf(lab.at(blob.name));
        const told = read(blob);
        // The tools without symlinks read what is in the blob.
        const kind = here.kind === 'symlink' && told.kind === 'file' ? 'file' : here.kind;
        t.match({ ...here, kind }, told, blob.name);
        t.equal(Object.keys(told).length > 1, !['blobfuse2', 'wasb', 'rclone'].includes(dialect));
      }
    });
  }
});

t.test('a container that rclone has written', { skip: cannotMount }, async (t) => {
  const source = await mkdtemp(join(tmpdir(), 'lustrite-rclone-'));
  t.teardown(() => rm(source, { recursive: true, force: true }));
  const files: Readonly<Record<string, string>> = {
    'top': 'top',
    'dir/file': 'in a directory',
    'dir/sub/ünï code': 'deeper',
    'zero': '',
  }; // prettier-ignore
  await mkdir(join(source, 'dir/sub'), { recursive: true });
  const seconds = 1_614_834_367;
  for (const [path, content] of Object.entries(files)) {
    await writeFile(join(source, path), content);
    await utimes(join(source, path), seconds, seconds);
  }
  const lab = await MountedContainer.start(t, {});
  const { url } = lab.container;
  const endpoint = url.slice(0, url.lastIndexOf('/'));
  const remote = `:azureblob,use_emulator=true,endpoint="${endpoint}":${lab.container.containerName}`;
  const rclone = (...args: readonly string[]): Promise<string> =>
    ok('rclone', ['--config', '/dev/null', ...args]);
  await rclone('copy', source, remote);
  // As 1.63 and later write it, which Debian 12 does not have.
  const metadata = { hdi_isfolder: 'true', mtime: '2021-03-04T05:06:07.000000000Z' };
  await lab.container.getBlockBlobClient('empty/').upload('', 0, { metadata });
  const all = await lab.imported();
  t.equal(all.state, 'Completed');
  t.same(importCounters(all), {
    ...{ ...noImportCounters, importedFiles: 4, importedDirectories: 1 },
    ...{ totalBlobsWalked: 5, totalBlobsImported: 5 },
  });

  await t.test('shows its files with their times, and directories with and without a marker', async (t) => {
    for (const [path, content] of Object.entries(files)) {
      t.equal(await readFile(lab.at(path), 'utf8'), content, path);
      t.equal((await lstat(lab.at(path))).mtimeMs, seconds * 1000, path);
    }
    for (const path of ['dir', 'dir/sub', 'empty']) t.ok((await lstat(lab.at(path))).isDirectory(), path);
    t.equal((await lstat(lab.at('empty'))).mtimeMs, seconds * 1000);
  });

  await t.test('is read by rclone after an export as it is here', async (t) => {
    await appendFile(lab.at('dir/file'), ', and more');
    await writeFile(lab.at('empty/new'), 'new');
    t.equal(await lab.export(''), 'Completed');
    await rclone('check', '--download', lab.mount.path, remote);
    const listed = JSON.parse(await rclone('lsjson', '-R', '--files-only', remote)) as readonly {
      Path: string;
    }[];
    t.same(listed.map(({ Path }) => Path).sort(), [...Object.keys(files), 'empty/new'].sort());
  });
});
