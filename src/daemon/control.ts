/** What the control API asks for, of a daemon whose mount is usable. */
import { systemClock } from '../base/clock.js';
import type { Config } from '../base/config.js';
import {
  finalStates,
  jobView,
  type BulkView,
  type DirtyFiles,
  type HsmParameterList,
  type JobView,
  type OutageView,
  type StatusReport,
  type UnmountReport,
} from '../base/control-api.js';
import { UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { version } from '../base/version.js';
import type { Container } from '../blob/port.js';
import type { FrontEnd } from '../fuse/front-end.js';
import type { BulkVerbs, HydrateRequest, ReleaseRequest } from '../hsm/bulk.js';
import { recordText } from '../hsm/changelog-record.js';
import type { Coordinator } from '../hsm/coordinator.js';
import type { SpaceManager } from '../hsm/space-manager.js';
import type {
  AutoImportRequest,
  ChangelogControl,
  Control,
  HsmVerb,
  ImportRequest,
} from '../http/control.js';
import { lastErrorOf, lastJobOf } from '../http/last-error.js';
import { chooseSource } from '../jobs/auto-import/source-choice.js';
import { startOf } from '../jobs/job.js';
import { isMarker, markerName, markerStates } from '../jobs/marker.js';
import type { Job, JobRunner } from '../jobs/runner.js';
import { censusWithout } from '../store/census.js';
import { dirtyFiles } from '../store/dirty-files.js';
import type { Store } from '../store/store.js';
import type { MountPoint } from './mount-point.js';

export interface MountControlOptions {
  readonly config: Config;
  readonly log: Log;
  readonly startedAt: string;
  readonly container: Container;
  readonly store: Store;
  readonly coordinator: Coordinator;
  readonly space: SpaceManager;
  readonly bulk: BulkVerbs;
  readonly runner: JobRunner;
  readonly mountPoint: MountPoint;
  readonly frontEnd: FrontEnd;
  /** The last line of level `error` in the log. */
  readonly lastLogged: () => StatusReport['lastError'];
}

/** How long the answer to an unmount waits for the job that it has stopped. */
const jobEndMs = 3_000;
/** How long the daemon's end waits for whoever reads that answer. */
const answerMs = 5_000;
/** Files that the answer names. */
const namedDirty = 20;

export class MountControl implements Control {
  readonly #options: MountControlOptions;
  readonly #closing = new AbortController();
  /** Of the last unmount that was asked for: resolves when its answer is made, and when it is out. */
  #answer:
    { readonly made: Promise<void>; readonly sent: Promise<void>; readonly send: () => void } | undefined;

  constructor(options: MountControlOptions) {
    this.#options = options;
  }

  /** Resolves behind the answer of an unmount: it names changed files, a walk of everything there is. */
  async settled(): Promise<void> {
    this.#closing.abort(new UserError('Canceled', 'the mount is being unmounted'));
    const answer = this.#answer;
    if (answer === undefined) return;
    await answer.made;
    await Promise.race([answer.sent, systemClock.sleep(answerMs)]);
  }

  get jobs(): Control['jobs'] {
    const { runner } = this.#options;
    return {
      createImport: async (request) =>
        (await runner.create('import', { ...this.#importDefaults, ...request })).record,
      createExport: async (request) => (await runner.create('export', request)).record,
      createAutoImport: async (request) => (await this.#createAutoImport(request)).record,
      createAutoExport: async (request) => (await runner.create('auto-export', request)).record,
      list: (kind) => runner.list(kind).map((job) => this.#seen(job)),
      get: (name) => this.#seen(runner.get(name)),
      cancel: (name) => runner.cancel(name),
      delete: (name) => runner.delete(name),
      watch: (name) => this.#watched(runner.watch(name)),
    };
  }

  async *#watched(jobs: AsyncIterable<JobView>): AsyncGenerator<JobView, void, void> {
    for await (const job of jobs) yield this.#seen(job);
  }

  /** A job as it is for whoever waits for it. */
  #seen(job: JobView): JobView {
    const storageOutage = this.#storageOutage();
    const over = finalStates.includes(job.properties.status.state);
    return storageOutage === undefined || over ? job : { ...job, storageOutage };
  }

  #storageOutage(): OutageView | undefined {
    const { sinceMs, why } = this.#options.container.outage ?? {};
    if (sinceMs === undefined || why === undefined) return undefined;
    return { since: new Date(sinceMs).toISOString(), message: why };
  }

  /** Azure's own, fail and 0, end a job at the first odd blob. */
  get #importDefaults(): Pick<ImportRequest, 'conflictResolutionMode' | 'maximumErrors'> {
    return this.#options.config.compat.strict ? {} : { conflictResolutionMode: 'Skip', maximumErrors: -1 };
  }

  /** Which changes it follows is decided once and stays with the job. */
  async #createAutoImport(request: AutoImportRequest): Promise<Job> {
    const { container, runner } = this.#options;
    const choice = await chooseSource({
      wanted: request.changeSource,
      container,
      hierarchical: container.namespace.hierarchical,
      signal: this.#closing.signal,
    });
    return runner.create('auto-import', { ...request, ...choice });
  }

  async status(): Promise<StatusReport> {
    const { config, startedAt, container, store, coordinator, space, runner, mountPoint, frontEnd } =
      this.#options;
    const storageOutage = this.#storageOutage();
    const hsm = coordinator.status();
    const jobs = runner.list();
    const markerNames = jobs
      .filter(({ kind }) => kind === 'import')
      .flatMap((job) => markerStates.map((state) => markerName(state, startOf(job))));
    const logged = this.#options.lastLogged();
    const counters = frontEnd.stats();
    return {
      version,
      pid: process.pid,
      startedAt,
      mountPoint: config.mountPoint,
      store: store.path,
      container: container.identity,
      namespace: container.namespace,
      loggingContainer: config.loggingContainer ?? null,
      frontEnd: frontEnd.name,
      passthrough: frontEnd.passthrough,
      readOnly: config.readOnly,
      lingering: mountPoint.lingering,
      census: await censusWithout(store.native, markerNames),
      runningJob: viewOf(runner.running()),
      lastJob: viewOf(lastJobOf(jobs)),
      lastError: lastErrorOf({ since: startedAt, logged, transfer: hsm.lastError, jobs }),
      hsm,
      heldRequests: counters['held'] ?? 0,
      counters,
      space: space.view,
      ...(storageOutage && { storageOutage }),
    };
  }

  async dirty(limit: number): Promise<DirtyFiles> {
    const { store, log } = this.#options;
    return dirtyFiles(store.native, { limit, log, ignore: isMarker });
  }

  async unmount(lazy: boolean): Promise<UnmountReport> {
    const [made, sent] = [withResolvers(), withResolvers()];
    const answer = (this.#answer = { made: made.promise, sent: sent.promise, send: sent.resolve });
    try {
      return await this.#unmount(lazy);
    } catch (error) {
      if (this.#answer === answer) this.#answer = undefined;
      throw error;
    } finally {
      made.resolve();
    }
  }

  async #unmount(lazy: boolean): Promise<UnmountReport> {
    const { runner, mountPoint, frontEnd } = this.#options;
    const job = runner.running();
    const lingering = await mountPoint.unmount(frontEnd, lazy);
    const over = job === undefined || finalStates.includes(job.properties.status.state);
    const stoppedJob = over ? null : jobView(job);
    // What it has begun is exported yet, and is not to be told as lost. The copy of a log may take longer.
    if (!lingering) await Promise.race([runner[Symbol.asyncDispose](), systemClock.sleep(jobEndMs)]);
    return { dirty: await this.dirty(namedDirty), lingering, stoppedJob };
  }

  answered(): void {
    this.#answer?.send();
  }

  parameters(patterns: readonly string[]): HsmParameterList {
    return { value: this.#options.coordinator.control.get(patterns) };
  }

  async setParameters(
    assignments: readonly { readonly pattern: string; readonly value: string }[],
    persistent: boolean,
  ): Promise<HsmParameterList> {
    const { control } = this.#options.coordinator;
    const value = [];
    for (const { pattern, value: text } of assignments)
      value.push(...(await control.set(pattern, text, persistent)));
    return { value };
  }

  get changelog(): ChangelogControl {
    const { changelog } = this.#options.coordinator;
    return {
      async read({ start, end, limit }) {
        const { records, ...rest } = await changelog.read(start, end, limit);
        return { value: records.map((record) => ({ ...record, text: recordText(record) })), ...rest };
      },
      async readers() {
        const { last, readers } = await changelog.readers();
        return { currentIndex: last, value: readers };
      },
      register: () => changelog.register(),
      deregister: (id) => changelog.deregister(id),
      clear: (id, end) => changelog.clear(id, end),
    };
  }

  hydrate(request: HydrateRequest): Promise<AsyncIterable<BulkView>> {
    return this.#options.bulk.hydrate(request);
  }

  release(request: ReleaseRequest): Promise<AsyncIterable<BulkView>> {
    return this.#options.bulk.release(request);
  }

  async hsm(verb: HsmVerb, path: string): Promise<unknown> {
    const { store, coordinator } = this.#options;
    const { blocked } = coordinator.status();
    if (verb !== 'state' && blocked !== null)
      throw new UserError('Busy', `no HSM request is taken: ${blocked}`, { status: 409 });
    const relative = path.replace(/^\/+/, '');
    const fid = store.native.fidOf(relative);
    switch (verb) {
      case 'state':
        return store.native.state(fid);
      case 'archive':
        return coordinator.archive(fid, { path: relative, signal: AbortSignal.timeout(24 * 3600_000) });
      case 'restore':
        return coordinator.restore(fid);
      case 'release':
        return coordinator.release(fid);
    }
  }
}

function viewOf(job: JobView | null | undefined): JobView | null {
  return job === null || job === undefined ? null : jobView(job);
}

function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((fulfil) => {
    resolve = fulfil;
  });
  return { promise, resolve };
}
