/**
 * Random local operations, random changes by other clients and random jobs, against a reference that knows what the seeds
 * say of each. Tree, states, counters and container are compared after every step; what fails is shrunk.
 */
import t from 'tap';
import { HS_DIRTY, HS_RELEASED } from '../../src/hsm/flags.js';
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import type { ExportRecord } from '../../src/jobs/export/export-record.js';
import { isMarker } from '../../src/jobs/marker.js';
import type { ImportRecord } from '../../src/jobs/import/import-record.js';
import { MemoryJobs } from '../helpers/memory-jobs.js';
import { until } from '../helpers/poll.js';
import { Dice } from '../helpers/tree.js';

const modes = ['Fail', 'Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const;
type Mode = (typeof modes)[number];
const names = ['a', 'b', 'c', 'd/e', 'd/f'];

type RemoteOp =
  | { readonly op: 'put'; readonly name: string; readonly data: string }
  | { readonly op: 'delete'; readonly name: string };
type Op =
  | RemoteOp
  | { readonly op: 'write'; readonly name: string; readonly data: string }
  | { readonly op: 'rm' | 'read' | 'release'; readonly name: string }
  | { readonly op: 'mv'; readonly name: string; readonly to: string }
  | { readonly op: 'import'; readonly mode: Mode }
  | { readonly op: 'export' }
  | {
      readonly op: 'auto-import';
      readonly mode: Exclude<Mode, 'Fail'>;
      readonly during: readonly (readonly RemoteOp[])[];
    };

interface Blob {
  readonly data: string;
  readonly version: number;
}

interface File {
  /** Undefined: released. */
  data: string | undefined;
  /** Its content is in no blob that it knows. */
  modified: boolean;
  copy: { readonly name: string; readonly version: number } | undefined;
  /** The version that its mtime is of: a restore of a newer one leaves it. */
  mtimeOf: number | undefined;
}

/** What a job counts, as far as it has a meaning in every job. */
interface Counts {
  imported: number;
  preexisting: number;
  conflicts: number;
  deletions: number;
  exported: number;
  failed: number;
}
const nothing: Counts = { imported: 0, preexisting: 0, conflicts: 0, deletions: 0, exported: 0, failed: 0 };

class Reference {
  readonly files = new Map<string, File>();
  readonly blobs = new Map<string, Blob>();
  #version = 0;

  /** Undefined: it is no job. */
  apply(op: Op): Counts | undefined {
    switch (op.op) {
      case 'put':
        this.blobs.set(op.name, { data: op.data, version: ++this.#version });
        return undefined;
      case 'delete':
        this.blobs.delete(op.name);
        return undefined;
      case 'write': {
        const file = this.files.get(op.name);
        if (file === undefined)
          this.files.set(op.name, { data: op.data, modified: true, copy: undefined, mtimeOf: undefined });
        else if (this.#restored(file)) Object.assign(file, { data: op.data, modified: true });
        return undefined;
      }
      case 'rm':
        this.files.delete(op.name);
        return undefined;
      case 'read': {
        const file = this.files.get(op.name);
        if (file !== undefined) this.#restored(file);
        return undefined;
      }
      case 'release': {
        const file = this.files.get(op.name);
        if (file !== undefined && !file.modified && file.copy !== undefined) file.data = undefined;
        return undefined;
      }
      case 'mv': {
        const file = this.files.get(op.name);
        if (file === undefined || op.name === op.to) return undefined;
        this.files.delete(op.name);
        this.files.set(op.to, file);
        return undefined;
      }
      case 'import':
        return this.#import(op.mode);
      case 'export':
        return this.#export();
      case 'auto-import': {
        this.#sync([...this.blobs.keys()], op.mode, 'scan', { ...nothing });
        const counts = { ...nothing };
        for (const changes of op.during) {
          const real = changes.filter((change) => change.op === 'put' || this.blobs.has(change.name));
          for (const change of real) this.apply(change);
          this.#follow(new Set(real.map(({ name }) => name)), op.mode, counts);
        }
        return counts;
      }
    }
  }

  /** Whether its data is here, now or after a restore: of what the blob has now. */
  #restored(file: File): boolean {
    if (file.data !== undefined) return true;
    const { copy } = file;
    const blob = copy && this.blobs.get(copy.name);
    if (blob === undefined) return false;
    Object.assign(file, { data: blob.data, copy: { ...copy, version: blob.version } });
    return true;
  }

  #import(mode: Mode): Counts {
    const counts = { ...nothing };
    this.#sync([...this.blobs.keys()].sort(), mode, 'import', counts);
    return counts;
  }

  #sync(changed: readonly string[], mode: Mode, phase: 'import' | 'scan' | 'sync', counts: Counts): void {
    // The stubs of a batch are made at once; what is taken is resolved up to the first failure.
    let failed = false;
    for (const name of changed) {
      const blob = this.blobs.get(name);
      if (blob === undefined) continue;
      const file = this.files.get(name);
      const { version } = blob;
      const stub: File = { data: undefined, modified: false, copy: { name, version }, mtimeOf: version };
      if (file === undefined) {
        this.files.set(name, stub);
        counts.imported++;
        continue;
      }
      if (failed) continue;
      const current = file.copy?.name === name && file.copy.version === version;
      const same = current && file.mtimeOf === version;
      const isClean = file.data !== undefined && !file.modified;
      const keeps =
        file.data === undefined
          ? same
          : file.modified
            ? current && phase === 'sync'
            : same && (phase === 'sync' || mode !== 'OverwriteAlways');
      if (keeps) {
        counts.preexisting++;
        continue;
      }
      counts.conflicts++;
      failed = mode === 'Fail';
      if (failed || mode === 'Skip') continue;
      if (same && isClean) counts.preexisting++;
      else counts.imported++;
      // Clean data that is current, and in an import job any clean data, stays: it gets the blob's attributes.
      if (isClean && mode === 'OverwriteIfDirty' && (current || phase === 'import')) file.mtimeOf = version;
      else if (isClean || file.data === undefined) Object.assign(file, stub);
      else this.files.set(name, stub);
    }
    for (const name of changed) this.#keepRenamed(name);
  }

  #follow(changed: ReadonlySet<string>, mode: Mode, counts: Counts): void {
    const absent = [...changed].filter((name) => !this.blobs.has(name));
    for (const name of absent) this.#saveOthers(name, this.files.get(name));
    for (const name of absent) {
      const file = this.files.get(name);
      if (file === undefined) continue;
      const modified = file.modified || file.copy?.name !== name;
      if (modified && mode === 'Skip') counts.conflicts++;
      else {
        this.files.delete(name);
        counts.deletions++;
      }
    }
    this.#sync([...changed], mode, 'sync', counts);
  }

  /** A renamed file that has the data of another version of this blob has the only data there is. */
  #keepRenamed(name: string): void {
    const blob = this.blobs.get(name);
    if (blob === undefined) return;
    for (const [path, file] of this.files) {
      if (path === name || file.copy?.name !== name || file.copy.version === blob.version) continue;
      if (file.data !== undefined) file.modified = true;
    }
  }

  /** Another file whose copy is this blob is modified from now on; false: it cannot be. */
  #saveOthers(name: string, owner: File | undefined): boolean {
    for (const file of this.files.values()) {
      if (file === owner || file.copy?.name !== name || (file.modified && file.data !== undefined)) continue;
      if (this.#restored(file)) file.modified = true;
      else if (this.blobs.has(name)) return false;
    }
    return true;
  }

  #export(): Counts {
    const counts = { ...nothing };
    const changed = [...this.files].filter(([, file]) => file.modified && file.data !== undefined);
    for (const [name, file] of changed) {
      if (!this.#saveOthers(name, file)) {
        counts.failed++;
        continue;
      }
      this.blobs.set(name, { data: file.data ?? '', version: ++this.#version });
      const version = this.#version;
      Object.assign(file, { modified: false, copy: { name, version }, mtimeOf: version });
      counts.exported++;
    }
    return counts;
  }
}

/** The same on the jobs, the coordinator and a store and a container in memory. */
class Real implements AsyncDisposable {
  readonly #jobs: MemoryJobs;

  private constructor(jobs: MemoryJobs) {
    this.#jobs = jobs;
  }

  static async start(): Promise<Real> {
    return new Real(await MemoryJobs.start());
  }

  async apply(op: Op): Promise<Counts | undefined> {
    const { container, store, coordinator } = this.#jobs.hsm;
    const file = 'name' in op ? store.names.get(op.name) : undefined;
    switch (op.op) {
      case 'put':
        container.put(op.name, op.data);
        return undefined;
      case 'delete':
        await container.delete(op.name).catch(() => undefined);
        return undefined;
      case 'write':
        if (file === undefined) store.write(op.name, op.data);
        else if (await this.#restored(op.name)) store.write(op.name, op.data);
        return undefined;
      case 'rm':
        store.unlink(op.name);
        return undefined;
      case 'read':
        if (file !== undefined) await this.#restored(op.name);
        return undefined;
      case 'release':
        if (file !== undefined) await coordinator.release(file.fid).catch(() => undefined);
        return undefined;
      case 'mv':
        if (file === undefined || op.name === op.to) return undefined;
        store.unlink(op.to);
        await store.rename(op.name, op.to);
        return undefined;
      case 'import': {
        const request = { conflictResolutionMode: op.mode, maximumErrors: -1 };
        const { done } = await this.#jobs.runner.create('import', request);
        return countsOf(((await done) as ImportRecord).properties.status);
      }
      case 'export': {
        const { done } = await this.#jobs.runner.create('export', {});
        const { totalFilesExported, totalFilesFailed } = ((await done) as ExportRecord).properties.status;
        return { ...nothing, exported: totalFilesExported, failed: totalFilesFailed };
      }
      case 'auto-import':
        return this.#autoImport(op.mode, op.during);
    }
  }

  async #restored(name: string): Promise<boolean> {
    const { store, coordinator } = this.#jobs.hsm;
    if ((store.flags(name) & HS_RELEASED) === 0) return true;
    return coordinator.restore(store.fidOf(name)).then(
      () => true,
      () => false,
    );
  }

  async #autoImport(mode: Mode, during: readonly (readonly RemoteOp[])[]): Promise<Counts> {
    const { runner, hsm } = this.#jobs;
    const { name, done } = await runner.create('auto-import', {
      conflictResolutionMode: mode,
      enableDeletions: true,
      changeSource: 'listing',
      changeSourceReason: 'as asked for',
      pollIntervalMs: 1,
    });
    const events = (): AutoImportRecord['properties']['status']['blobSyncEvents'] =>
      (runner.get(name) as AutoImportRecord).properties.status.blobSyncEvents;
    const synced = async (): Promise<void> => {
      hsm.clock.ms += 1000;
      const since = new Date(hsm.clock.ms).toISOString();
      await until(() => (events().lastTimeFullySynchronized ?? '') > since, {
        what: 'a poll',
        intervalMs: 0,
      });
    };
    await synced();
    for (const changes of during) {
      // Between two polls, so that one poll finds all of them.
      for (const change of changes) {
        if (change.op === 'put') hsm.container.put(change.name, change.data);
        else hsm.container.blobs.delete(change.name);
      }
      await synced();
    }
    await runner.cancel(name);
    await done;
    await until(() => runner.running() === undefined, { what: 'the slot', intervalMs: 0 });
    return countsOf((runner.get(name) as AutoImportRecord).properties.status.blobSyncEvents);
  }

  /** As differences show best. */
  picture(): object {
    const { container, store } = this.#jobs.hsm;
    const files = [...store.names].filter(([path, { type }]) => type === 'file' && !isMarker(path));
    return {
      files: Object.fromEntries(
        files.map(([path, { flags, modified, data, copy }]) => {
          const released = (flags & HS_RELEASED) !== 0;
          const state = released ? 'released' : modified || copy === undefined ? 'modified' : 'clean';
          if (state === 'clean' && (flags & HS_DIRTY) !== 0) return [path, 'clean and dirty'];
          return [path, released ? state : `${state} ${data.toString()}`];
        }),
      ),
      blobs: Object.fromEntries(
        [...container.blobs]
          .filter(([blob]) => names.includes(blob))
          .map(([blob, { body }]) => [blob, body.toString()]),
      ),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#jobs[Symbol.asyncDispose]();
  }
}

function countsOf(status: {
  readonly importedFiles: number;
  readonly preexistingFiles: number;
  readonly totalConflicts: number;
  readonly totalErrors: number;
  readonly deletions?: number;
}): Counts {
  return {
    ...nothing,
    imported: status.importedFiles,
    preexisting: status.preexistingFiles,
    conflicts: status.totalConflicts,
    deletions: status.deletions ?? 0,
    failed: status.totalErrors,
  };
}

function picture({ files, blobs }: Reference): object {
  return {
    files: Object.fromEntries(
      [...files].map(([path, { data, modified }]) => [
        path,
        data === undefined ? 'released' : `${modified ? 'modified' : 'clean'} ${data}`,
      ]),
    ),
    blobs: Object.fromEntries([...blobs].map(([name, { data }]) => [name, data])),
  };
}

function sorted(value: unknown): string {
  const plain = (_: string, one: unknown): unknown =>
    typeof one === 'object' && one !== null && !Array.isArray(one)
      ? Object.fromEntries(Object.entries(one).sort(([x], [y]) => (x < y ? -1 : 1)))
      : one;
  return JSON.stringify(value, plain, 1);
}

/** What differs first, and where; undefined: nothing does. */
async function difference(ops: readonly Op[]): Promise<string | undefined> {
  await using real = await Real.start();
  const reference = new Reference();
  for (const [at, op] of ops.entries()) {
    const [counts, expected] = [await real.apply(op), reference.apply(op)];
    const [seen, wanted] = [
      sorted({ ...real.picture(), counts }),
      sorted({ ...picture(reference), counts: expected }),
    ];
    if (seen !== wanted) return `after step ${at + 1} (${op.op})\nwanted ${wanted}\nseen ${seen}`;
  }
  return undefined;
}

/** As few of the steps as still fail. */
async function shrunk(ops: readonly Op[]): Promise<readonly Op[]> {
  let few = [...ops];
  for (let at = few.length - 1; at >= 0; at--) {
    const fewer = few.filter((_, index) => index !== at);
    if ((await difference(fewer)) !== undefined) few = fewer;
  }
  return few;
}

function remoteOp(dice: Dice, serial: string): RemoteOp {
  const name = dice.pick(names);
  return dice.below(3) === 0 ? { op: 'delete', name } : { op: 'put', name, data: `remote ${serial}` };
}

function randomOp(dice: Dice, serial: number): Op {
  const name = dice.pick(names);
  switch (dice.below(12)) {
    case 0:
    case 1:
    case 2:
      return remoteOp(dice, String(serial));
    case 3:
    case 4:
      return { op: 'write', name, data: `local ${serial}` };
    case 5:
      return { op: 'rm', name };
    case 6:
      return { op: 'read', name };
    case 7:
      return { op: 'release', name };
    case 8:
      return { op: 'mv', name, to: dice.pick(names) };
    case 9:
      return { op: 'import', mode: dice.pick(modes) };
    case 10:
      return { op: 'export' };
    default:
      return {
        op: 'auto-import',
        mode: dice.pick(['Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const),
        during: Array.from({ length: 1 + dice.below(3) }, (_, poll) => {
          const changes = Array.from({ length: 1 + dice.below(3) }, (_, n) =>
            remoteOp(dice, `${serial}.${poll}.${n}`),
          );
          // One change a name: what a poll sees of two is the last.
          return [...new Map(changes.map((change) => [change.name, change])).values()];
        }),
      };
  }
}

const runs = Number(process.env['MODEL_RUNS'] ?? '40');
const steps = 25;

await t.test(
  'whatever happens, tree, states, counters and container are what the reference says',
  async (t) => {
    for (let run = 0; run < runs; run++) {
      const seed = process.env['MODEL_SEED'];
      const dice = new Dice(seed === undefined ? undefined : Number(seed));
      const ops = Array.from({ length: steps }, (_, serial) => randomOp(dice, serial));
      if ((await difference(ops)) === undefined) continue;
      const few = await shrunk(ops);
      t.fail(
        `seed ${dice.seed}: ${JSON.stringify(few)}\n${(await difference(few)) ?? 'it does not fail again'}`,
      );
      return;
    }
    t.pass(`${runs} runs of ${steps} steps`);
  },
);
