/** What an auto-import must never lose, or delete twice. */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { BlobError, FsError } from '../../src/base/errors.js';
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import { stateOf } from '../../src/jobs/job.js';
import { auto, autoImport, end, synced } from '../helpers/memory-auto-import.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

await t.test('a deletion that was applied is not told again by what fails after it', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.pageSize = 5000;
  const names = Array.from({ length: 2500 }, (_, n) => `z${String(n).padStart(4, '0')}`);
  for (const name of ['a', ...names]) container.put(name, name);
  await autoImport(jobs, 'OverwriteIfDirty');
  for (const name of names) await container.delete(name);
  let once = true;
  container.before = async (call, blob) => {
    if (call !== 'properties' || blob !== 'z2400' || !once) return;
    once = false;
    // The first batch is applied and its cursor written down.
    await until(() => auto(jobs).blobSyncEvents.deletions >= 1000 && !store.paths().includes('z0999'), {
      what: 'batch',
      intervalMs: 1,
    });
    await until(
      async () => {
        const text = await readFile(join(jobs.folder, 'jobs/auto/record.json'), 'utf8');
        return (JSON.parse(text) as AutoImportRecord).properties.status.blobSyncEvents.deletions >= 1000;
      },
      { what: 'cursor', intervalMs: 1 },
    );
    store.write('z0000', 'mine, made after the deletion was done');
    throw new BlobError('unreachable', 'no answer');
  };
  await until(() => !store.paths().includes('z2499'), { what: 'all', intervalMs: 1 });
  await synced(jobs);
  t.ok(store.paths().includes('z0000'), 'the new file is there');
  await end(jobs);
});

await t.test('the deletion of a marker x/ is not that of the file x', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('x/', '');
  await autoImport(jobs, 'OverwriteIfDirty');
  container.put('x', 'content');
  await synced(jobs);
  await synced(jobs);
  t.match((await store.lookup(['x']))[0], { type: 'file', copy: { blob: 'x' } });
  await jobs.hsm.coordinator.restore(store.fidOf('x'));
  store.write('x', 'mine');
  await container.delete('x/');
  await synced(jobs);
  await synced(jobs);
  t.ok(store.paths().includes('x'), 'blob x is there still');
  await end(jobs);
});

await t.test('the deletion of a marker d/ leaves the directory that the blob d names', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('d', '', { hdi_isfolder: 'true' });
  container.put('d/', '');
  await autoImport(jobs);
  await container.delete('d/');
  await synced(jobs);
  await synced(jobs);
  t.ok(store.paths().includes('d'), 'the blob d says that there is a directory');
  await end(jobs);
});

await t.test('a deletion that cannot be followed is one error, however often it is tried', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.put('f', 'the only bytes');
  await autoImport(jobs);
  await coordinator.restore(store.fidOf('f'));
  await store.rename('f', 'g');
  let [armed, tries] = [false, 0];
  store.before = (call) => {
    if (call === 'state' && armed && ++tries < 20) throw new FsError('EIO', 'broken');
  };
  armed = true;
  await container.delete('f');
  await until(() => tries >= 20, { what: 'the deletion to be followed' });
  await synced(jobs);
  t.equal(auto(jobs).blobSyncEvents.totalErrors, 1);
  t.equal((await store.state(store.fidOf('g'))).modified, true);
  await end(jobs);
});

await t.test('files with the names of what every object has are deleted, too', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  const names = ['constructor', 'toString', '__proto__', 'valueOf'];
  for (const name of names) container.put(name, name);
  await autoImport(jobs);
  for (const name of names) await container.delete(name);
  await synced(jobs);
  await synced(jobs);
  t.same(store.paths(), []);
  await end(jobs);
});

await t.test(
  'a file that is renamed while its deletion is under way has the only data, and is modified',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    container.put('f', 'the only bytes');
    await autoImport(jobs);
    await coordinator.restore(store.fidOf('f'));
    const lookup = store.lookup.bind(store);
    let once = true;
    store.lookup = async (paths) => {
      const found = await lookup(paths);
      if (once && paths.includes('f') && !container.blobs.has('f')) {
        once = false;
        await store.rename('f', 'g');
      }
      return found;
    };
    await container.delete('f');
    await synced(jobs);
    await synced(jobs);
    const fid = store.fidOf('g');
    t.equal((await store.state(fid)).modified, true, 'its data is only here');
    await end(jobs);
    await t.rejects(coordinator.release(fid), 'not released');
    t.equal(store.content('g'), 'the only bytes');
  },
);

await t.test(
  'prefixes that overlap since the account counts as hierarchical end the job, on disk, too',
  async (t) => {
    await using jobs = await MemoryJobs.start();
    const { container } = jobs.hsm;
    container.put('data/f', 'x');
    await autoImport(jobs, 'Skip', ['/data/f', '/data//f']);
    await jobs.runner[Symbol.asyncDispose]();
    container.namespace = { hierarchical: true, source: 'account' };
    await jobs.restart();
    await jobs.runner.wait('auto');
    const disk = JSON.parse(
      await readFile(join(jobs.folder, 'jobs/auto/record.json'), 'utf8'),
    ) as AutoImportRecord;
    t.equal(disk.properties.status.state, 'Failed', 'on disk');
  },
);

await t.test('listings of polls that failed do not pile up', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container } = jobs.hsm;
  for (let n = 0; n < 300; n++) container.put(`f${n}`, 'x');
  await autoImport(jobs);
  await synced(jobs);
  let pages = 0;
  container.before = (call) => {
    if (call === 'list' && ++pages % 3 === 0) throw new BlobError('throttled', 'slow down');
  };
  await until(() => pages > 120, { what: 'failures', intervalMs: 1 });
  const files = (await readdir(join(jobs.folder, 'jobs/auto'))).filter((name) => name.startsWith('listing'));
  t.ok(files.length <= 5, `${files.length} listings`);
  container.before = () => undefined;
  await synced(jobs);
  await end(jobs);
});

await t.test('a name that nobody can ask for ends no job when it is gone', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container } = jobs.hsm;
  container.put('a\\b', 'x');
  container.put('c', 'x');
  // As BlobConnection.send does.
  container.before = (call, blob) => {
    if (call === 'properties' && blob.includes('\\'))
      throw new BlobError('unsupported', `look-up of ${blob}: the name has a '\\'`);
  };
  await autoImport(jobs);
  container.blobs.delete('a\\b');
  await synced(jobs);
  await synced(jobs);
  t.equal(stateOf(jobs.runner.get('auto')), 'InProgress', auto(jobs).statusMessage);
  await end(jobs);
});

await t.test('a file in use whose name becomes a directory makes way as soon as it is closed', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('x', 'a file');
  await autoImport(jobs, 'Skip');
  const close = store.hold('x');
  await container.delete('x');
  container.put('x/y', 'below it');
  await synced(jobs);
  await synced(jobs);
  t.match(auto(jobs).blobSyncEvents, { totalConflicts: 0, totalErrors: 0 });
  close();
  await synced(jobs);
  await synced(jobs);
  t.same(store.paths(), ['x', 'x/y']);
  await end(jobs);
});

await t.test('the blob of a directory may come later than those below it, in every mode', async (t) => {
  for (const mode of ['Fail', 'Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    await autoImport(jobs, mode);
    container.put('d/file', 'below it');
    await synced(jobs);
    await synced(jobs);
    container.put('d', '', { hdi_isfolder: 'true', owner: '7', group: '8', permissions: '0711' });
    await synced(jobs);
    await synced(jobs);
    t.match((await store.lookup(['d']))[0], { type: 'directory', uid: 7, gid: 8, mode: 0o711 }, mode);
    t.match(auto(jobs).blobSyncEvents, { totalConflicts: 0, importedDirectories: 1 }, mode);
    await end(jobs);
  }
});

await t.test('the status says the latest error, as nobody reads the log of a job that goes on', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container } = jobs.hsm;
  await autoImport(jobs);
  container.put('a//b', 'no path');
  await synced(jobs);
  await synced(jobs);
  t.match(auto(jobs), { state: 'InProgress', statusMessage: /the latest error: a\/\/b: /, blobSyncEvents: { totalErrors: 1 } }); // prettier-ignore
  await end(jobs);
});

/** Takes the last listing away from an auto-import that is stopped, so that a full sync has to follow. */
async function loseListing(jobs: MemoryJobs): Promise<void> {
  await jobs.runner[Symbol.asyncDispose]();
  const folder = join(jobs.folder, 'jobs/auto');
  for (const name of await readdir(folder)) if (name.startsWith('listing')) await rm(join(folder, name));
  await jobs.restart();
}

await t.test('a full sync that follows a gap keeps what was changed here since', async (t) => {
  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store, coordinator } = jobs.hsm;
    for (const name of ['edited', 'in both']) container.put(name, 'blob');
    await autoImport(jobs, mode);
    for (const name of ['edited', 'in both']) {
      await coordinator.restore(store.fidOf(name));
      store.write(name, 'edit');
    }
    container.put('in both', 'of another client');
    await loseListing(jobs);
    await synced(jobs);
    await synced(jobs);
    t.equal(store.content('edited'), 'edit', mode);
    t.equal((await store.lookup(['in both']))[0]?.size, 17, `${mode}: what is changed in both is the blob`);
    await end(jobs);
  }
});

await t.test('a full sync that goes on in the next daemon keeps what was changed here since', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  container.pageSize = 100;
  for (let n = 0; n < 300; n++) container.put(`f${n}`, 'blob');
  let lists = 0;
  container.before = (call) =>
    call === 'list' && ++lists === 3 ? new Promise<void>(() => undefined) : undefined;
  await jobs.runner.create('auto-import', {
    name: 'auto',
    conflictResolutionMode: 'OverwriteIfDirty',
    changeSource: 'listing',
    changeSourceReason: 'as asked for',
    pollIntervalMs: 1,
  });
  await until(() => store.paths().includes('f0') && lists === 3, { what: 'the first stubs', intervalMs: 1 });
  await coordinator.restore(store.fidOf('f0'));
  store.write('f0', 'edit');
  await jobs.runner[Symbol.asyncDispose]();
  await jobs.restart();
  await until(() => auto(jobs).scanEndTime !== undefined, { what: 'the full sync', intervalMs: 1 });
  t.equal(store.content('f0'), 'edit');
  t.equal(store.paths().length, 300);
  await end(jobs);
});

await t.test('a full sync that begins again keeps what was made here since it passed it', async (t) => {
  for (const mode of ['OverwriteIfDirty', 'OverwriteAlways'] as const) {
    await using jobs = await MemoryJobs.start();
    const { container, store } = jobs.hsm;
    container.pageSize = 1;
    for (const name of ['linked', 'saved']) container.put(name, 'theirs');
    container.put('link', 'theirs', { is_symlink: 'true' });
    for (const name of ['w', 'x', 'y', 'z']) container.put(name, 'theirs');
    let lists = 0;
    container.before = async (call) => {
      if (call !== 'list' || ++lists !== 6) return;
      await until(() => store.paths().includes('saved'), { what: 'the stubs', intervalMs: 1 });
      // As most editors do.
      store.unlink('saved');
      store.write('saved', 'mine');
      for (const name of ['link', 'linked']) {
        store.unlink(name);
        store.symlink(name, 'mine');
      }
      throw new BlobError('unreachable', 'no answer');
    };
    await autoImport(jobs, mode);
    t.ok(lists > 6, 'it has begun again');
    t.equal(store.content('saved'), 'mine', mode);
    for (const name of ['link', 'linked'])
      t.equal(String(await store.readlink(store.fidOf(name))), 'mine', `${mode}: ${name}`);
    await end(jobs);
  }
});

await t.test('a symlink that changes or goes before its target is read is no error', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  await autoImport(jobs, 'Skip');
  const race = new Map<string, () => unknown>([
    ['changed', () => container.put('changed', 'b', { is_symlink: 'true' })],
    ['gone', () => container.delete('gone')],
  ]);
  container.before = async (call, blob) => {
    const happens = call === 'read' ? race.get(blob) : undefined;
    race.delete(call === 'read' ? blob : '');
    await happens?.();
  };
  for (const name of ['changed', 'gone']) container.put(name, 'a', { is_symlink: 'true' });
  await synced(jobs);
  await synced(jobs);
  t.equal(race.size, 0);
  t.same(store.paths(), ['changed']);
  t.match(auto(jobs).blobSyncEvents, { importedSymlinks: 1, totalErrors: 0 });
  await end(jobs);
});

await t.test('an account that does not answer for the target of a symlink is waited for', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  container.put('f', 'x');
  await autoImport(jobs);
  let outages = 2;
  container.before = (call) => {
    if (call === 'read' && outages-- > 0) throw new BlobError('unreachable', 'no answer');
  };
  container.put('l', 'target', { is_symlink: 'true', ftype: 'LNK' });
  await until(() => store.paths().includes('l'), { what: 'the symlink', intervalMs: 1 });
  t.match(auto(jobs).blobSyncEvents, { totalErrors: 0 });
  await end(jobs);
});

/** An auto-import has seen that the blob of `d` is gone, and `d` holds `d/mine`. */
async function leaveDirectory(jobs: MemoryJobs): Promise<void> {
  const { container, store } = jobs.hsm;
  container.put('d', '', { hdi_isfolder: 'true' });
  await autoImport(jobs);
  store.write('d/mine', 'x');
  await container.delete('d');
  await synced(jobs);
  await synced(jobs);
}

await t.test('a directory whose blob came back before a full sync stays when it gets empty', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store } = jobs.hsm;
  await leaveDirectory(jobs);
  await jobs.runner[Symbol.asyncDispose]();
  container.put('d', '', { hdi_isfolder: 'true' });
  await loseListing(jobs);
  await synced(jobs);
  await synced(jobs);
  store.unlink('d/mine');
  await synced(jobs);
  await synced(jobs);
  t.same(store.paths(), ['d']);
  await end(jobs);
});

for (const code of ['ENOTDIR', 'ELOOP'] as const)
  await t.test(`something else above a directory that was left behind (${code}) ends no job`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { store } = jobs.hsm;
    await leaveDirectory(jobs);
    let tries = 0;
    store.before = (call) => {
      if (call !== 'remove') return;
      tries++;
      throw new FsError(code, 'd');
    };
    await until(() => tries > 0 || stateOf(jobs.runner.get('auto')) !== 'InProgress', { what: 'a try' });
    for (let n = 0; n < 3; n++) await synced(jobs);
    t.match(auto(jobs), { state: 'InProgress', blobSyncEvents: { deletions: 0, totalErrors: 0 } });
    t.equal(tries, 1, 'it is gone');
    store.before = () => undefined;
    store.unlink('d/mine');
    await synced(jobs);
    await synced(jobs);
    t.same(store.paths(), ['d']);
    await end(jobs);
  });

await t.test('listings do not pile up while what they tell cannot be done', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { container, store, coordinator } = jobs.hsm;
  store.write('one', 'v1');
  await store.link('one', 'two');
  await (
    await jobs.runner.create('export', {})
  ).done;
  await coordinator.release(store.fidOf('one'));
  await autoImport(jobs, 'OverwriteIfDirty');
  await synced(jobs);
  let failures = 0;
  container.before = (call, blob) => {
    if (call !== 'properties' || blob !== 'two' || failures >= 25) return;
    failures++;
    throw new BlobError('unreachable', 'no answer');
  };
  container.put('one', 'version 2');
  let most = 0;
  await until(
    async () => {
      const names = await readdir(join(jobs.folder, 'jobs/auto'));
      most = Math.max(most, names.filter((name) => name.startsWith('listing')).length);
      return failures >= 25;
    },
    { what: 'failures', intervalMs: 1 },
  );
  t.ok(most < 10, `${most} listings`);
  await until(async () => (await store.lookup(['one']))[0]?.size === 9, {
    what: 'the change',
    intervalMs: 1,
  });
  await end(jobs);
});

await t.test('the pause between two polls is what was asked for, however long', async (t) => {
  await using jobs = await MemoryJobs.start();
  const { clock } = jobs.hsm;
  const pauses: number[] = [];
  const sleep = clock.sleep.bind(clock);
  clock.sleep = (ms, signal) => {
    pauses.push(ms);
    return sleep(1, signal);
  };
  const hourMs = 3_600_000;
  await jobs.runner.create('auto-import', {
    name: 'auto',
    changeSource: 'listing',
    changeSourceReason: 'as asked for',
    pollIntervalMs: hourMs,
  });
  await until(() => pauses.length > 2, { what: 'polls', intervalMs: 1 });
  t.same(new Set(pauses), new Set([hourMs]));
  await end(jobs);
});
