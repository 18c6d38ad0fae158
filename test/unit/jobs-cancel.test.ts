/** A job that is canceled or disabled ends, whatever call it is in, although that call is never answered. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import { unlessAborted } from '../../src/base/unless-aborted.js';
import { isFinal, stateOf, type JobKind } from '../../src/jobs/job.js';
import type { ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import type { ContainerCall } from '../helpers/memory-container.js';
import { ChangeFeedWriter } from '../helpers/change-feed-writer.js';
import { auto, autoImport } from '../helpers/memory-auto-import.js';
import { gate } from '../helpers/memory-hsm.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';

/** Holds what a test says until its end. */
class Hold {
  readonly #gate = gate();
  arrived = false;

  /** For good, as far as the job knows. */
  call(): Promise<void> {
    this.arrived = true;
    return this.#gate.opened;
  }

  /** That call to a container. */
  container(jobs: MemoryJobs, call: ContainerCall, blob?: string): void {
    jobs.hsm.container.before = (what, name) =>
      what === call && (blob === undefined || blob === name) ? this.call() : undefined;
  }

  transfer(jobs: MemoryJobs, kind: 'upload' | 'download'): void {
    jobs.hsm.pool.gate = (what) => (what === kind ? this.call() : undefined);
  }

  store(jobs: MemoryJobs, call: string): void {
    jobs.hsm.store.before = (what) => (what === call ? this.call() : undefined);
  }

  feed(jobs: MemoryJobs, call: RegExp): void {
    jobs.hsm.container.feed.before = (what) => (call.test(what) ? this.call() : nextTurn());
  }

  /** The next pause of a job. */
  sleep({ hsm: { clock } }: MemoryJobs): void {
    clock.sleep = (_, signal = new AbortController().signal) => unlessAborted(() => this.call(), signal);
  }

  log(jobs: MemoryJobs): void {
    jobs.logs.before = (what) => (what === 'appendLog' ? this.call() : undefined);
  }

  letGo(): void {
    this.#gate.open();
  }
}

interface Row {
  readonly what: string;
  readonly kind: JobKind;
  /** Makes what the job finds, starts the job 'auto' and holds the call. */
  readonly start: (jobs: MemoryJobs, hold: Hold) => Promise<unknown>;
}

const importing = ({ runner }: MemoryJobs, conflictResolutionMode: ConflictMode = 'Skip'): Promise<unknown> =>
  runner.create('import', { name: 'auto', conflictResolutionMode, maximumErrors: -1 });
const exporting = ({ runner }: MemoryJobs): Promise<unknown> => runner.create('export', { name: 'auto' });

/** Enables an auto-import by the feed; the result tells it that the blob 'new' was made. */
const feeding = async ({ runner, hsm: { container } }: MemoryJobs): Promise<() => Promise<void>> => {
  const { feed } = container;
  const hourMs = feed.nowMs;
  const writer = new ChangeFeedWriter(feed);
  feed.tickMs = 100;
  // As any request: a poll that finds nothing would let nobody else run.
  feed.before = (): Promise<void> => nextTurn();
  await writer.create(hourMs);
  await runner.create('auto-import', {
    name: 'auto',
    conflictResolutionMode: 'Skip',
    enableDeletions: true,
    changeSource: 'feed',
    changeSourceReason: 'as asked for',
    pollIntervalMs: 1,
  });
  return async () => {
    const timeMs = feed.nowMs;
    await writer.append(hourMs, [{ type: 'BlobCreated', blob: 'new', container: container.name, timeMs }]);
    await writer.finalize(hourMs);
    feed.nowMs = hourMs + 4_800_000;
    await writer.setConsumable(hourMs + 3_600_000);
  };
};

/** `moved` has the only data of the blob `name`, and is released. */
const displaced = async (jobs: MemoryJobs, name: string): Promise<void> => {
  const { container, store } = jobs.hsm;
  container.put(name, 'the only data');
  await (
    await jobs.runner.create('import', { conflictResolutionMode: 'Skip' })
  ).done;
  await store.rename(name, 'moved');
};

const rows: readonly Row[] = [
  {
    what: 'a page of the listing',
    kind: 'import',
    async start(jobs, hold) {
      hold.container(jobs, 'list');
      await importing(jobs);
    },
  },
  {
    what: 'the second page of the listing',
    kind: 'import',
    async start(jobs, hold) {
      const { container } = jobs.hsm;
      container.pageSize = 1;
      for (const name of ['a', 'b', 'c']) container.put(name);
      let pages = 0;
      container.before = (what) => (what === 'list' && ++pages > 1 ? hold.call() : undefined);
      await importing(jobs);
    },
  },
  {
    what: 'the read of a symlink',
    kind: 'import',
    async start(jobs, hold) {
      jobs.hsm.container.put('link', 'target', { is_symlink: 'true' });
      hold.container(jobs, 'read');
      await importing(jobs);
    },
  },
  {
    what: 'a walk that looks for renamed files',
    kind: 'import',
    async start(jobs, hold) {
      await displaced(jobs, 'a');
      hold.store(jobs, 'walk');
      await importing(jobs);
    },
  },
  {
    what: 'the wait for the disk',
    kind: 'import',
    async start(jobs, hold) {
      jobs.hsm.container.put('a', 'x');
      hold.store(jobs, 'barrier');
      await importing(jobs);
    },
  },
  {
    what: 'the copy of its log',
    kind: 'import',
    async start(jobs, hold) {
      // The log is copied when the job is over, and only a cancel does not wait for that.
      hold.container(jobs, 'list');
      jobs.logs.before = () => hold.call();
      await importing(jobs);
    },
  },
  {
    what: 'the upload of a file',
    kind: 'export',
    async start(jobs, hold) {
      jobs.hsm.store.write('new', 'x');
      hold.transfer(jobs, 'upload');
      await exporting(jobs);
    },
  },
  {
    what: 'the properties of a blob that it overwrites',
    kind: 'export',
    async start(jobs, hold) {
      jobs.hsm.container.put('new', 'there');
      jobs.hsm.store.write('new', 'x');
      hold.container(jobs, 'properties');
      await exporting(jobs);
    },
  },
  {
    what: 'the write of a symlink',
    kind: 'export',
    async start(jobs, hold) {
      jobs.hsm.store.symlink('link', 'target');
      hold.container(jobs, 'write');
      await exporting(jobs);
    },
  },
  {
    what: 'the write of a directory',
    kind: 'export',
    async start(jobs, hold) {
      jobs.hsm.store.mkdir('dir');
      jobs.hsm.store.write('dir/new', 'x');
      hold.container(jobs, 'write', 'dir');
      await exporting(jobs);
    },
  },
  {
    what: "the restore of another file whose only copy has the blob's name",
    kind: 'export',
    async start(jobs, hold) {
      await displaced(jobs, 'a');
      jobs.hsm.store.write('a', 'another one');
      hold.transfer(jobs, 'download');
      await exporting(jobs);
    },
  },
  {
    what: 'the walk that finds what is new',
    kind: 'export',
    async start(jobs, hold) {
      jobs.hsm.store.write('new', 'x');
      hold.store(jobs, 'walk');
      await exporting(jobs);
    },
  },
  {
    what: 'a walk that looks for renamed files',
    kind: 'export',
    async start(jobs, hold) {
      await displaced(jobs, 'a');
      jobs.hsm.store.write('a', 'another one');
      const { store } = jobs.hsm;
      const { walks } = store;
      // Behind those that find and count what is new.
      store.before = (what) => (what === 'walk' && store.walks > walks + 2 ? hold.call() : undefined);
      await exporting(jobs);
    },
  },
  {
    what: 'a page of the full sync',
    kind: 'auto-import',
    async start(jobs, hold) {
      hold.container(jobs, 'list');
      void autoImport(jobs).catch(() => undefined);
      await until(() => jobs.runner.has('auto'), { what: 'the job', intervalMs: 1 });
    },
  },
  {
    what: 'a page of blob sync',
    kind: 'auto-import',
    async start(jobs, hold) {
      await autoImport(jobs);
      hold.container(jobs, 'list');
    },
  },
  {
    what: 'a look at a blob that the listing lacks',
    kind: 'auto-import',
    async start(jobs, hold) {
      jobs.hsm.container.put('a');
      await autoImport(jobs);
      hold.container(jobs, 'properties');
      jobs.hsm.container.blobs.delete('a');
    },
  },
  {
    what: "the wait for the service's next second, before the full sync by the feed",
    kind: 'auto-import',
    async start(jobs, hold) {
      hold.sleep(jobs);
      await feeding(jobs);
    },
  },
  {
    what: 'a page of the full sync by the feed',
    kind: 'auto-import',
    async start(jobs, hold) {
      hold.container(jobs, 'list');
      await feeding(jobs);
    },
  },
  ...(
    [
      ['the look whether the feed has something new', /^slice meta/],
      ['the list of its segments', /^list idx/],
      ['the manifest of a segment', /^slice idx/],
      ['the list of the chunks of a segment', /^list log/],
      ['the read of a segment', /^slice log/],
    ] as const
  ).map(([what, call]): Row => ({
    what,
    kind: 'auto-import',
    async start(jobs, hold) {
      const told = await feeding(jobs);
      await until(() => auto(jobs).scanEndTime !== undefined, { what: 'blob sync', intervalMs: 1 });
      hold.feed(jobs, call);
      await told();
    },
  })),
  {
    what: 'a look at a blob that the feed tells of',
    kind: 'auto-import',
    async start(jobs, hold) {
      const told = await feeding(jobs);
      await until(() => auto(jobs).scanEndTime !== undefined, { what: 'blob sync', intervalMs: 1 });
      hold.container(jobs, 'properties');
      await told();
    },
  },
  {
    what: 'the pause of an outage',
    kind: 'auto-import',
    async start(jobs, hold) {
      await autoImport(jobs);
      jobs.hsm.container.before = (what) => {
        if (what !== 'list') return;
        hold.sleep(jobs);
        throw new BlobError('unreachable', 'no answer');
      };
    },
  },
  {
    what: 'the pause between two polls',
    kind: 'auto-import',
    async start(jobs, hold) {
      await autoImport(jobs);
      hold.sleep(jobs);
    },
  },
  {
    what: 'the copy of its last log',
    kind: 'auto-import',
    async start(jobs, hold) {
      hold.container(jobs, 'list');
      jobs.logs.before = () => hold.call();
      void autoImport(jobs).catch(() => undefined);
      await until(() => jobs.runner.has('auto'), { what: 'the job', intervalMs: 1 });
    },
  },
  {
    what: 'the read of a symlink',
    kind: 'auto-import',
    async start(jobs, hold) {
      await autoImport(jobs);
      hold.container(jobs, 'read');
      jobs.hsm.container.put('link', 'target', { is_symlink: 'true' });
    },
  },
  {
    what: 'a copy of its log',
    kind: 'auto-import',
    async start(jobs, hold) {
      jobs.hsm.container.put('a//b', 'no path');
      hold.log(jobs);
      await autoImport(jobs);
      jobs.hsm.clock.ms += 120_000;
    },
  },
  {
    what: 'a copy of its log',
    kind: 'auto-export',
    async start(jobs, hold) {
      jobs.hsm.store.write('a.', 'no blob');
      hold.log(jobs);
      await jobs.runner.create('auto-export', { name: 'auto', pollIntervalMs: 1 });
      await until(() => jobs.hsm.clock.sleeps.length > 0, { what: 'an iteration', intervalMs: 1 });
      jobs.hsm.clock.ms += 120_000;
    },
  },
];

const finalOf: Readonly<Record<JobKind, string>> = {
  import: 'Canceled',
  export: 'Canceled',
  'auto-import': 'Disabled',
  // It waits for its iteration, which could not export everything.
  'auto-export': 'DisableFailed',
};

for (const { what, kind, start } of rows) {
  await t.test(`${kind}: ${what}`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { runner } = jobs;
    const hold = new Hold();
    try {
      await start(jobs, hold);
      await until(() => hold.arrived, { what, intervalMs: 1, timeoutMs: 3000 });
      await runner.cancel('auto');
      const over = (): boolean => isFinal(runner.get('auto')) && runner.running() === undefined;
      await until(over, { what: 'the end of the job', intervalMs: 1, timeoutMs: 3000 });
      t.equal(stateOf(runner.get('auto')), finalOf[kind]);
      t.match(jobs.hsm.coordinator.status(), { running: { explicit: 0 }, waiting: { archive: 0 } });
    } finally {
      hold.letGo();
      await runner.cancel('auto').catch(() => undefined);
      await runner.wait('auto').catch(() => undefined);
    }
  });
}

/** What the disk is asked for is waited for, and is the last that is done. */
const steps: readonly {
  readonly what: string;
  readonly kind: 'import' | 'auto-import';
  readonly call: string;
  /** So many at a time. */
  readonly underWay: number;
  /** Blobs that are here before. */
  readonly blobs: readonly string[];
  readonly change: (jobs: MemoryJobs, blobs: readonly string[]) => void;
  readonly begin: (jobs: MemoryJobs) => Promise<unknown>;
}[] = [
  {
    what: 'the stubs of a page',
    kind: 'import',
    call: 'createStubs',
    underWay: 3,
    blobs: [],
    change({ hsm: { container } }) {
      container.pageSize = 1;
      for (let n = 10; n < 30; n++) container.put(`new${n}`);
    },
    begin: (jobs) => importing(jobs),
  },
  {
    what: 'a file that makes way for its blob',
    kind: 'import',
    call: 'replaceEntry',
    underWay: 16,
    blobs: [],
    change({ hsm: { container, store } }) {
      for (let n = 10; n < 50; n++) {
        container.put(`file${n}`, 'content');
        store.write(`file${n}`, 'new here');
      }
    },
    begin: (jobs) => importing(jobs, 'OverwriteAlways'),
  },
  {
    what: 'the deletion of a file',
    kind: 'auto-import',
    call: 'remove',
    underWay: 16,
    blobs: Array.from({ length: 40 }, (_, n) => `file${10 + n}`),
    change({ hsm: { container } }, blobs) {
      for (const name of blobs) container.blobs.delete(name);
    },
    begin: (jobs) => autoImport(jobs, 'Skip'),
  },
  {
    what: 'the deletion of a file that is in use',
    kind: 'auto-import',
    call: 'remove',
    underWay: 16,
    blobs: Array.from({ length: 40 }, (_, n) => `file${10 + n}`),
    change({ hsm: { container, store } }, blobs) {
      for (const name of blobs) {
        container.blobs.delete(name);
        store.hold(name);
      }
    },
    begin: (jobs) => autoImport(jobs, 'Skip'),
  },
];

for (const { what, kind, call, underWay, blobs, change, begin } of steps)
  await t.test(`${kind}: what is under way is the last: ${what}`, async (t) => {
    await using jobs = await MemoryJobs.start();
    const { runner, hsm } = jobs;
    const hold = new Hold();
    let asked = 0;
    for (const name of blobs) hsm.container.put(name, 'content');
    if (kind === 'auto-import') await begin(jobs);
    hsm.store.before = (one) => {
      if (one !== call) return undefined;
      asked++;
      return hold.call();
    };
    change(jobs, blobs);
    if (kind === 'import') await begin(jobs);
    await until(() => asked === underWay, { what, intervalMs: 1, timeoutMs: 3000 });
    await runner.cancel('auto');
    hold.letGo();
    t.equal(stateOf(await runner.wait('auto')), finalOf[kind]);
    t.equal(runner.running(), undefined);
    t.equal(asked, underWay);
  });
