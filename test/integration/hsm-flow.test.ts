/** Import, restore, archive, release and export through the real store, the real threads and Azurite, without a mount. */
import { constants as fsConstants, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { systemClock } from '../../src/base/clock.js';
import { openContainer, type AzureContainer } from '../../src/blob/azure-container.js';
import { Coordinator } from '../../src/hsm/coordinator.js';
import { HUA_ARCHIVE, HUA_RELEASE, HUA_REMOVE, HUA_RESTORE } from '../../src/hsm/flags.js';
import { stateOf } from '../../src/jobs/job.js';
import { JobRunner } from '../../src/jobs/runner.js';
import { loadAddon } from '../../src/native/binding.js';
import type { Fid, HsmRequest } from '../../src/store/inodes.js';
import { openStore, type Store } from '../../src/store/store.js';
import { TransferPool } from '../../src/workers/pool.js';
import { root } from '../helpers/callers.js';
import { Azurite } from '../helpers/azurite.js';
import { quietLog, testConfig } from '../helpers/memory-hsm.js';
import { until } from '../helpers/poll.js';

const { EPERM } = constants.errno;
const { O_RDONLY, O_RDWR } = fsConstants;
const azurite = await Azurite.start();
const pool = new TransferPool();
t.teardown(async () => {
  await pool.close();
  await azurite[Symbol.asyncDispose]();
});

class Rig implements AsyncDisposable {
  readonly container: AzureContainer;
  readonly folder: string;
  store!: Store;
  coordinator!: Coordinator;
  runner!: JobRunner;

  private constructor(folder: string, container: AzureContainer) {
    this.folder = folder;
    this.container = container;
  }

  static async start(): Promise<Rig> {
    const folder = await mkdtemp(join(tmpdir(), 'lustrite-flow-'));
    const rig = new Rig(folder, openContainer(azurite.config(await azurite.newContainer())));
    await rig.open();
    return rig;
  }

  async open(): Promise<void> {
    const { container } = this;
    this.store = await openStore({
      path: join(this.folder, 'store'),
      identity: container.identity,
      fsName: 'fs',
      addon: loadAddon(),
      log: quietLog,
      events: { restoreNeeded: (fid, pid) => this.coordinator.restoreNeeded(fid, pid) },
    });
    const common = { store: this.store, container, log: quietLog, clock: systemClock };
    const config = {
      ...testConfig,
      defaults: { uid: 0, gid: 0, fileMode: 0o644, dirMode: 0o755 },
      mountPoint: '/mnt/data',
      import: { maxPrefixes: 10 },
    };
    this.coordinator = new Coordinator({ ...common, config, pool });
    await this.coordinator.start();
    this.runner = new JobRunner({ ...common, config, coordinator: this.coordinator });
    await this.runner.load();
    await this.runner.start();
  }

  async close(): Promise<void> {
    await this.runner[Symbol.asyncDispose]();
    await this.coordinator[Symbol.asyncDispose]();
    await this.store[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    await this.container[Symbol.asyncDispose]();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** The file as it is in the store's own tree: what passthrough reads and writes. */
  backing(path: string): string {
    return join(this.store.path, 'ns', path);
  }

  fid(path: string): Fid {
    return this.store.native.fidOf(path);
  }

  async flags(path: string): Promise<number> {
    return (await this.store.native.state(this.fid(path))).flags;
  }

  async import(): Promise<string> {
    const job = await this.runner.create('import', { conflictResolutionMode: 'Skip', maximumErrors: -1 });
    return stateOf(await job.done);
  }

  async export(): Promise<{ readonly state: string; readonly files: number; readonly failed: number }> {
    const job = await this.runner.create('export', {});
    const record = await job.done;
    if (record.kind !== 'export') throw new Error('not an export');
    const { state, totalFilesExported: files, totalFilesFailed: failed } = record.properties.status;
    return { state, files, failed };
  }

  lfs(action: number, ...paths: readonly string[]): Promise<number> {
    const request: HsmRequest = {
      action,
      fids: paths.map((path) => this.fid(path)),
      archiveId: 0,
      caller: root,
      data: Buffer.alloc(0),
    };
    return this.coordinator.request(request);
  }

  /** Opens as an application would, waits as it would, and writes. */
  async append(path: string, text: string): Promise<void> {
    const { native } = this.store;
    const { handle, fd } = await native.openHandle(path, O_RDWR, 0);
    try {
      writeSync(fd, text, statSync(this.backing(path)).size);
    } finally {
      await native.closeHandle(handle);
    }
  }

  /** Reads as an application would: through a handle, which restores. */
  async read(path: string): Promise<string> {
    const { native } = this.store;
    const { handle, fd } = await native.openHandle(path, O_RDONLY, 0);
    try {
      const { size } = await native.state(this.fid(path));
      await native.admitRead(handle, 0, Math.max(1, size));
      const bytes = Buffer.alloc(size);
      readSync(fd, bytes, 0, size, 0);
      return bytes.toString();
    } finally {
      await native.closeHandle(handle);
    }
  }

  async idle(path: string, flags: number): Promise<void> {
    await until(async () => (await this.flags(path)) === flags, {
      what: `${path} to be 0x${flags.toString(16)}`,
    });
  }
}

await t.test('a file goes from blob to stub, to data, to dirty, to blob and back to a stub', async (t) => {
  await using rig = await Rig.start();
  const { container } = rig;
  const metadata = { owner: '7', group: '8', permissions: '0640', modtime: '2020-01-02 03:04:05 +0000' };
  await container.write('dir/file', 'content', { metadata });
  await container.write('dir/link', 'file', { metadata: { is_symlink: 'true' } });
  await container.write('other', 'x'.repeat(3_000_000), { metadata: {} });
  t.equal(await rig.import(), 'Completed');

  t.match(await rig.store.native.state(rig.fid('dir/file')), {
    flags: 0x0d,
    size: 7,
    uid: 7,
    gid: 8,
    allocated: 0,
  });
  t.equal(await rig.read('dir/file'), 'content');
  t.equal(await rig.flags('dir/file'), 0x09);
  const stat = statSync(rig.backing('dir/file'));
  t.match(stat, { uid: 7, gid: 8, mode: 0o100640, mtimeMs: Date.UTC(2020, 0, 2, 3, 4, 5) });

  t.equal(await rig.lfs(HUA_RESTORE, 'other', 'dir/file'), 0);
  await rig.idle('other', 0x09);
  t.equal(readFileSync(rig.backing('other'), 'utf8').length, 3_000_000);

  await rig.append('dir/file', ' and more');
  await rig.idle('dir/file', 0x0b);
  t.equal(await rig.lfs(HUA_RELEASE, 'dir/file'), EPERM, 'dirty');
  t.equal(await rig.lfs(HUA_ARCHIVE, 'dir/file'), 0);
  await rig.idle('dir/file', 0x09);
  t.equal((await container.read('dir/file')).body.toString(), 'content and more');
  t.match((await container.properties('dir/file')).metadata, { owner: '7', group: '8', permissions: '0640' });
  t.equal(await rig.lfs(HUA_RELEASE, 'dir/file', 'other'), 0);
  t.match(await rig.store.native.state(rig.fid('dir/file')), { flags: 0x0d, size: 16, allocated: 0 });
  t.equal(await rig.read('dir/file'), 'content and more');

  t.equal(await rig.lfs(HUA_REMOVE, 'dir/file'), 0);
  await rig.idle('dir/file', 0x00);
  await t.rejects(container.properties('dir/file'), /404/);
  t.equal(readFileSync(rig.backing('dir/file'), 'utf8'), 'content and more');
});

await t.test(
  'an export writes exactly what is new or changed, and another store shows exactly that',
  async (t) => {
    await using rig = await Rig.start();
    const { container } = rig;
    for (const name of ['same', 'changed', 'd/renamed', 'deleted'])
      await container.write(name, name, { metadata: {} });
    t.equal(await rig.import(), 'Completed');
    const etag = (await container.properties('same')).etag;
    await rig.append('changed', '!');
    await mkdir(rig.backing('new/deep'), { recursive: true });
    await writeFile(rig.backing('new/deep/file'), 'new');
    await symlink('deep/file', rig.backing('new/link'));
    await rig.store.native.rename('d/renamed', 'd/other name');
    await rm(rig.backing('deleted'));
    t.same(await rig.export(), { state: 'Completed', files: 3, failed: 0 });
    const names: string[] = [];
    for await (const page of container.list()) names.push(...page.map(({ name, kind }) => `${kind} ${name}`));
    t.same(names.sort(), [
      'directory new',
      'directory new/deep',
      'file changed',
      'file d/renamed',
      'file deleted',
      'file new/deep/file',
      'file same',
      'symlink new/link',
    ]);
    t.equal((await container.properties('same')).etag, etag);
    t.same(await rig.export(), { state: 'Completed', files: 0, failed: 0 });

    await rig.close();
    await rename(join(rig.folder, 'store'), join(rig.folder, 'old'));
    await rig.open();
    t.equal(await rig.import(), 'Completed');
    const read = await Promise.all(
      ['changed', 'new/deep/file', 'd/renamed', 'deleted'].map((path) => rig.read(path)),
    );
    t.same(read, ['changed!', 'new', 'd/renamed', 'deleted']);
  },
);

await t.test('rule 8: logrotate keeps both files', async (t) => {
  await using rig = await Rig.start();
  await rig.container.write('log', 'the old log', { metadata: {} });
  t.equal(await rig.import(), 'Completed');
  await rig.store.native.rename('log', 'log.1');
  await writeFile(rig.backing('log'), 'the new log');
  // Saved while its name was overwritten: the old log is dirty and is exported by the same job, or the next one.
  await rig.export();
  await rig.export();
  t.equal((await rig.container.read('log')).body.toString(), 'the new log');
  t.equal((await rig.container.read('log.1')).body.toString(), 'the old log');
  t.equal(await rig.flags('log.1'), 0x09);
});

await t.test('a blob that was replaced is read whole as it is now', async (t) => {
  await using rig = await Rig.start();
  await rig.container.write('a', 'old', { metadata: {} });
  await rig.container.write('same size', 'old', { metadata: {} });
  t.equal(await rig.import(), 'Completed');
  await rig.container.write('a', 'much longer than before', { metadata: {} });
  await rig.container.write('same size', 'new', { metadata: {} });
  t.equal(await rig.lfs(HUA_RESTORE, 'a', 'same size'), 0);
  await rig.idle('a', 0x09);
  await rig.idle('same size', 0x09);
  t.same([await rig.read('a'), await rig.read('same size')], ['much longer than before', 'new']);
});

await t.test('everything is as it was after the daemon has been away', async (t) => {
  await using rig = await Rig.start();
  for (const name of ['stub', 'clean', 'dirty']) await rig.container.write(name, name, { metadata: {} });
  t.equal(await rig.import(), 'Completed');
  await rig.read('clean');
  await rig.append('dirty', '!');
  await appendFile(rig.backing('new'), 'new');
  await rig.close();
  await rig.open();
  const flags = await Promise.all(['stub', 'clean', 'dirty', 'new'].map((path) => rig.flags(path)));
  t.same(flags, [0x0d, 0x09, 0x0b, 0x00]);
  t.equal(rig.runner.list().length, 1);
  t.same(await rig.export(), { state: 'Completed', files: 2, failed: 0 });
});

await t.test(
  'a file whose blob is gone gives ENODATA and stays released until the blob is back',
  async (t) => {
    await using rig = await Rig.start();
    await rig.container.write('a', 'content', { metadata: {} });
    t.equal(await rig.import(), 'Completed');
    await rig.container.delete('a');
    await t.rejects(rig.read('a'), { code: 'ENODATA' });
    t.match(await rig.store.native.state(rig.fid('a')), { flags: 0x0d, allocated: 0 });
    await rig.container.write('a', 'content', { metadata: {} });
    t.equal(await rig.read('a'), 'content');
  },
);
