/** An auto-import job that follows the change feed, over memory. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import {
  autoImportRecord,
  noBlobSyncCounters,
  type AutoImportRecord,
} from '../../src/jobs/auto-import/auto-import-record.js';
import { syncCounters } from '../helpers/auto-import.js';
import { ChangeFeedWriter, type EventType } from '../helpers/change-feed-writer.js';
import { ancestors } from '../../src/jobs/import/import.js';
import { conflictModes, type ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';
import { Dice } from '../helpers/tree.js';

const hour = 3600_000;

/** A job, and a feed whose hours end when somebody says so. */
class Rig implements AsyncDisposable {
  readonly jobs: MemoryJobs;
  readonly writer: ChangeFeedWriter;
  #hourMs: number;

  private constructor(jobs: MemoryJobs) {
    this.jobs = jobs;
    this.#hourMs = jobs.hsm.container.feed.nowMs;
    this.writer = new ChangeFeedWriter(jobs.hsm.container.feed, { shards: 2 });
  }

  static async start(
    blobs: readonly string[],
    mode: ConflictMode = 'OverwriteIfDirty',
    before?: (jobs: MemoryJobs) => Promise<unknown>,
  ): Promise<Rig> {
    const rig = new Rig(await MemoryJobs.start());
    const { container } = rig.jobs.hsm;
    await before?.(rig.jobs);
    for (const name of blobs) container.put(name, name);
    container.feed.tickMs = 100;
    // As any request: a poll that finds nothing would let nobody else run.
    container.feed.before = (): Promise<void> => nextTurn();
    await rig.writer.create(rig.#hourMs);
    await rig.jobs.runner.create('auto-import', {
      name: 'auto',
      conflictResolutionMode: mode,
      enableDeletions: true,
      changeSource: 'feed',
      changeSourceReason: 'as asked for',
      pollIntervalMs: 1,
    });
    await rig.until('blob sync', () => rig.status.scanEndTime !== undefined);
    return rig;
  }

  get status(): AutoImportRecord['properties']['status'] {
    return (this.jobs.runner.get('auto') as AutoImportRecord).properties.status;
  }

  get paths(): readonly string[] {
    return this.jobs.hsm.store.paths();
  }

  /** Resolves when the job has read the feed once more, or is over. */
  async polled(): Promise<void> {
    const { clock } = this.jobs.hsm;
    clock.ms += 1000;
    const after = new Date(clock.ms).toISOString();
    await this.until('a poll', () => {
      const { state, blobSyncEvents } = this.status;
      return state !== 'InProgress' || (blobSyncEvents.lastTimeFullySynchronized ?? '') >= after;
    });
  }

  until(what: string, condition: () => boolean): Promise<unknown> {
    return until(condition, { what, intervalMs: 1 });
  }

  /** An hour with these changes, told when it is over. */
  async hour(events: readonly (readonly [EventType, string])[]): Promise<void> {
    const { container } = this.jobs.hsm;
    for (const [type, blob] of events) {
      if (type === 'BlobDeleted') await container.delete(blob);
      else container.put(blob, `${type} ${blob}`);
    }
    await this.tell(events);
  }

  /** The same, where nothing has changed: events may come twice. */
  async tell(events: readonly (readonly [EventType, string])[]): Promise<void> {
    const { container } = this.jobs.hsm;
    const timeMs = container.feed.nowMs;
    const told = events.map(([type, blob]) => ({ type, blob, container: container.name, timeMs }));
    await this.writer.append(this.#hourMs, told);
    await this.writer.finalize(this.#hourMs);
    this.#hourMs += hour;
    // Some minutes late, as the service is.
    container.feed.nowMs = Math.max(container.feed.nowMs, this.#hourMs + hour / 3);
    await this.writer.setConsumable(this.#hourMs);
  }

  /** Hours in which nothing happens. */
  async quietHours(count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      await this.tell([]);
      await this.polled();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.jobs[Symbol.asyncDispose]();
  }
}

await t.test('a job that follows the feed shows creations, renames and deletions, and says so', async (t) => {
  await using rig = await Rig.start(['kept', 'gone', 'old-name']);
  t.match(rig.status, {
    importedFiles: 3,
    statusMessage: /blob sync reads the change feed \(as asked for\)/,
  });
  await rig.hour([
    ['BlobCreated', 'new'],
    ['BlobDeleted', 'gone'],
    ['BlobCreated', 'new-name'],
    ['BlobDeleted', 'old-name'],
  ]);
  await rig.until(
    'the changes',
    () => rig.status.blobSyncEvents.lastChangeFeedEventConsumedTime !== undefined,
  );
  t.same(rig.paths, ['kept', 'new', 'new-name']);
  t.match(rig.status.blobSyncEvents, { importedFiles: 2, deletions: 2, totalErrors: 0, totalConflicts: 0 });
  const lists = rig.jobs.hsm.container.calls.filter((call) => call.startsWith('list'));
  t.equal(lists.length, 1, 'the container is listed for the full sync only');
});

await t.test('a job goes on where it was after a restart, and the choice of its source stays', async (t) => {
  await using rig = await Rig.start(['a']);
  await rig.hour([['BlobCreated', 'b']]);
  await rig.until('b', () => rig.paths.includes('b'));
  await rig.jobs.runner[Symbol.asyncDispose]();
  const { container } = rig.jobs.hsm;
  await rig.hour([['BlobDeleted', 'a']]);
  container.calls.length = 0;
  await rig.jobs.restart();
  await rig.until('the deletion', () => !rig.paths.includes('a'));
  t.same(container.calls, ['properties a'], 'neither a listing nor what was applied before');
  t.match(rig.status.blobSyncEvents, { importedFiles: 1, deletions: 1 });
});

await t.test(
  'a batch is applied when all of its names are known; a container that does not answer is waited for',
  async (t) => {
    await using rig = await Rig.start(['a', 'b']);
    const { container } = rig.jobs.hsm;
    container.before = (call, blob) => {
      if (call === 'properties' && blob === 'late') throw new BlobError('unreachable', 'no answer');
    };
    await rig.hour([
      ['BlobDeleted', 'a'],
      ['BlobCreated', 'late'],
      ['BlobCreated', 'c'],
    ]);
    await rig.until('the trouble', () => /waits for the container: no answer/.test(rig.status.statusMessage));
    t.same(rig.paths, ['a', 'b']);
    container.before = () => undefined;
    await rig.until('the changes', () => rig.paths.includes('late'));
    await rig.until('the record', () => rig.status.blobSyncEvents.importedFiles === 2);
    t.same(rig.paths, ['b', 'c', 'late']);
    t.match(rig.status.blobSyncEvents, { importedFiles: 2, deletions: 1 });
  },
);

await t.test('a record from before there was a choice is a job that compares listings', async (t) => {
  await using rig = await Rig.start([]);
  const record = rig.jobs.runner.get('auto') as AutoImportRecord;
  const { changeSourceReason: _, ...properties } = record.properties;
  const old = { ...record, properties: { ...properties, changeSource: 'listing' } };
  t.match(autoImportRecord.parse(old).properties, {
    changeSource: 'listing',
    changeSourceReason: 'no other source was known',
  });
});

await t.test('events that the feed has lost are made up for by a full sync', async (t) => {
  await using rig = await Rig.start(['a']);
  await rig.hour([['BlobCreated', 'b']]);
  await rig.until('b', () => rig.paths.includes('b'));
  await rig.jobs.runner[Symbol.asyncDispose]();
  const { container } = rig.jobs.hsm;
  container.put('missed', '');
  for (const name of [...container.feed.blobs.keys()])
    if (name.startsWith('idx/')) container.feed.blobs.delete(name);
  container.feed.nowMs += 8 * 24 * hour;
  await rig.writer.setConsumable(container.feed.nowMs);
  await rig.jobs.restart();
  await rig.until('what was missed', () => rig.paths.includes('missed'));
  await rig.until('the full sync', () => rig.status.totalBlobsWalked === 3);
  t.match(rig.status, { state: 'InProgress', importedFiles: 1, preexistingFiles: 2 });
});

await t.test(
  'a feed or a container that is damaged or gone ends the job with the cause and loses nothing',
  async (t) => {
    const rows: readonly (readonly [string, (rig: Rig) => unknown, RegExp])[] = [
      [
        'a damaged chunk',
        ({ jobs }) => {
          const { blobs } = jobs.hsm.container.feed;
          for (const [name, bytes] of blobs)
            if (name.endsWith('.avro')) blobs.set(name, bytes.subarray(0, bytes.length - 3));
        },
        /chunk log\/\d\d\/.*avro is damaged at byte/,
      ],
      [
        'no container',
        ({ jobs }) => {
          const { container } = jobs.hsm;
          container.blobs.clear();
          container.check = () => Promise.reject(new BlobError('missing', "container 'data' does not exist"));
        },
        /could not be read: container 'data' does not exist/,
      ],
      [
        'no feed',
        ({ jobs }) => jobs.hsm.container.feed.blobs.clear(),
        /changeFeed\.enabled.*--source listing/,
      ],
    ];
    for (const [what, spoil, message] of rows) {
      await using rig = await Rig.start(['a']);
      await rig.jobs.runner[Symbol.asyncDispose]();
      await rig.hour([['BlobCreated', 'b']]);
      await spoil(rig);
      await rig.jobs.restart();
      const { properties } = await rig.jobs.runner.wait('auto');
      t.match(properties.status, { state: 'Failed', statusMessage: message }, what);
      t.same(rig.paths, ['a'], what);
    }
  },
);

await t.test(
  'a job that is stopped twenty times at random look-ups ends with what the container has',
  async (t) => {
    const dice = new Dice();
    t.comment(`seed ${dice.seed}`);
    const warnings: string[] = [];
    const onWarning = ({ message }: Error): unknown => warnings.push(message);
    process.on('warning', onWarning);
    t.teardown(() => process.off('warning', onWarning));
    const names = Array.from({ length: 2000 }, (_, n) => `d${n % 20}/f${n}`);
    await using rig = await Rig.start(names.filter(() => dice.below(2) === 0));
    const { container, store } = rig.jobs.hsm;
    for (let round = 0; round < 20; round++) {
      // A rename on a flat account is a creation and a deletion.
      const events = Array.from({ length: dice.below(1200) }, (): readonly [EventType, string] => {
        const name = dice.pick(names);
        return [container.blobs.has(name) && dice.below(2) === 0 ? 'BlobDeleted' : 'BlobCreated', name];
      });
      let left = dice.below(1200);
      let stopped: Promise<unknown> | undefined;
      const { runner } = rig.jobs;
      container.before = (call) => {
        if (call === 'properties' && left-- === 0) stopped = runner[Symbol.asyncDispose]();
      };
      const deleted = new Set<string>();
      await rig.hour(
        events.filter(([type, name]) => {
          // Chosen before anything happened: a blob is deleted once.
          if (type !== 'BlobDeleted') return true;
          const first = !deleted.has(name);
          deleted.add(name);
          return first && container.blobs.has(name);
        }),
      );
      const { lastTimeFullySynchronized: before = '' } = rig.status.blobSyncEvents;
      await rig.until('a stop or a poll', () => {
        return stopped !== undefined || (rig.status.blobSyncEvents.lastTimeFullySynchronized ?? '') > before;
      });
      container.before = () => undefined;
      await (stopped ?? runner[Symbol.asyncDispose]());
      await rig.jobs.restart();
    }
    await rig.hour([['BlobCreated', 'the-last']]);
    await rig.until('the end', () => rig.paths.includes('the-last'));
    const expected = [...container.blobs.keys()].sort();
    t.strictSame(rig.paths, [...new Set([...expected, ...expected.flatMap(ancestors)])].sort());
    const found = rig.paths.filter((path) => container.blobs.has(path));
    t.strictSame(found, expected);
    const copies = await store.lookup(found);
    t.strictSame(
      copies.map((file) => file?.copy?.etag),
      expected.map((name) => container.blobs.get(name)?.etag),
    );
    t.equal(rig.status.blobSyncEvents.totalErrors, 0);
    t.equal(rig.status.state, 'InProgress');
    t.same(warnings, [], 'Node has nothing to say');
  },
);

await t.test(
  'a change that is told again is no conflict in any mode, whatever is there by now',
  async (t) => {
    for (const mode of conflictModes) {
      await using rig = await Rig.start(['stub', 'clean', 'changed'], mode);
      const { store, coordinator } = rig.jobs.hsm;
      for (const name of ['clean', 'changed']) await coordinator.restore(store.fidOf(name));
      store.write('changed', 'mine');
      const before = await store.lookup(['stub', 'clean', 'changed']);
      await rig.tell([
        ['BlobCreated', 'stub'],
        ['BlobPropertiesUpdated', 'clean'],
        ['BlobCreated', 'changed'],
      ]);
      await rig.until(
        'the events',
        () => rig.status.blobSyncEvents.lastChangeFeedEventConsumedTime !== undefined,
      );
      t.same(syncCounters(rig.status), { ...noBlobSyncCounters, preexistingFiles: 3 }, mode);
      t.same(await store.lookup(['stub', 'clean', 'changed']), before, mode);
      t.equal(rig.status.state, 'InProgress', mode);
    }
  },
);

/** What others make of names that are here, told in two batches, the creation first; and what has to be here then. */
const typeChanges: readonly {
  readonly change: string;
  readonly here: readonly string[];
  readonly created: string;
  readonly deleted: string;
  readonly modes: readonly ConflictMode[];
}[] = [
  {
    change: 'a file becomes a directory',
    here: ['a', 'b'],
    created: 'a/b',
    deleted: 'a',
    modes: conflictModes,
  },
  {
    change: 'a directory becomes a file',
    here: ['a/b/c', 'b'],
    created: 'a',
    deleted: 'a/b/c',
    modes: ['OverwriteIfDirty', 'OverwriteAlways'],
  },
];
for (const { change, here, created, deleted, modes } of typeChanges)
  await t.test(`${change} whichever of its blobs the feed tells of first`, async (t) => {
    for (const mode of modes) {
      await using rig = await Rig.start(here, mode);
      const { container } = rig.jobs.hsm;
      const told = (...events: Parameters<Rig['tell']>[0]): Promise<unknown> =>
        rig.tell(events).then(() => rig.polled());
      await container.delete(deleted);
      container.put(created, created);
      await told(['BlobCreated', created]);
      await rig.jobs.runner[Symbol.asyncDispose]();
      await rig.jobs.restart();
      await told(['BlobDeleted', deleted]);
      const paths = [created, 'b'].flatMap((name) => [...ancestors(name), name]);
      t.same(rig.paths, paths.toSorted(), mode);
      t.match(rig.status, { state: 'InProgress', blobSyncEvents: { totalErrors: 0 } }, mode);
      if (here.includes('a')) t.equal(rig.status.blobSyncEvents.totalConflicts, 0, mode);
    }
  });

await t.test('a name that is both a file and a directory is what is left of it in the end', async (t) => {
  await using rig = await Rig.start(['a', 'never'], 'Skip');
  const { container, store } = rig.jobs.hsm;
  store.write('constructor', 'here only');
  await rig.hour([
    ['BlobCreated', 'a/b'],
    ['BlobCreated', 'a/c/d'],
    ['BlobCreated', 'constructor/b'],
  ]);
  await rig.polled();
  t.equal(rig.status.blobSyncEvents.totalConflicts, 3, 'as long as the container has both');
  t.same(rig.paths, ['a', 'constructor', 'never']);
  container.calls.length = 0;
  await rig.polled();
  t.same(container.calls, [], 'it costs nothing to wait');
  await rig.hour([['BlobDeleted', 'a']]);
  await rig.polled();
  t.same(rig.paths, ['a', 'a/b', 'a/c', 'a/c/d', 'constructor', 'never']);
});

/** A file here whose blob is gone before an auto-import begins: nobody tells of that any more. */
async function orphan({ runner, hsm: { container } }: MemoryJobs): Promise<void> {
  container.put('a', 'x');
  await (
    await runner.create('import', { conflictResolutionMode: 'Skip' })
  ).done;
  await container.delete('a');
}

for (const mode of conflictModes)
  await t.test(
    `${mode}: what lies below a file whose deletion is never told of is a conflict when the feed has told all`,
    async (t) => {
      await using rig = await Rig.start(['kept'], mode, orphan);
      const { container } = rig.jobs.hsm;
      await rig.hour([
        ['BlobCreated', 'a/b'],
        ['BlobCreated', 'a/c/d'],
      ]);
      await rig.polled();
      t.match(rig.status, { state: 'InProgress', blobSyncEvents: { totalConflicts: 0 } }, 'it may come');
      await rig.jobs.runner[Symbol.asyncDispose]();
      await rig.jobs.restart();
      await rig.quietHours(2);
      const failed = mode === 'Fail';
      const [state, totalConflicts] = [failed ? 'Failed' : 'InProgress', failed ? 1 : 2];
      t.match(rig.status, { state, blobSyncEvents: { totalConflicts, totalErrors: 0 } });
      t.same(rig.paths, ['a', 'kept']);
      if (failed) {
        t.equal(rig.status.statusCode, 'Conflict');
        return;
      }
      container.calls.length = 0;
      await rig.quietHours(2);
      t.same(container.calls, [], 'it is counted once');
      await rig.hour([['BlobCreated', 'a/e']]);
      await rig.polled();
      t.equal(rig.status.blobSyncEvents.totalConflicts, 3, 'what comes later does not wait');
      await rig.hour([['BlobCreated', 'a']]);
      await rig.polled();
      await rig.hour([['BlobDeleted', 'a']]);
      await rig.polled();
      t.same(rig.paths, ['a', 'a/b', 'a/c', 'a/c/d', 'a/e', 'kept'], 'a deletion that is told takes it');
    },
  );

await t.test(
  'what lies below a file waits as long as the file is in use, if its deletion was told',
  async (t) => {
    await using rig = await Rig.start(['a', 'kept'], 'Skip');
    const { store, clock, container } = rig.jobs.hsm;
    await container.delete('a');
    await rig.hour([['BlobCreated', 'a/b']]);
    await rig.polled();
    const close = store.hold('a');
    await rig.tell([['BlobDeleted', 'a']]);
    for (let n = 0; n < 3; n++) await rig.tell([]);
    const { length } = clock.sleeps;
    await rig.until('two polls', () => clock.sleeps.length > length + 1);
    t.match(rig.status, { statusMessage: /wait/, blobSyncEvents: { totalConflicts: 0, deletions: 0 } });
    close();
    await rig.until('the directory', () => rig.paths.includes('a/b'));
    t.match(rig.status.blobSyncEvents, { totalConflicts: 0, totalErrors: 0, deletions: 1 });
  },
);
