/**
 * The daemon, and the only place that knows every room: config -> credentials -> container -> store -> pool ->
 * coordinator -> front end -> jobs -> control API -> "ready"; and the same backwards at the end.
 */
import { chmod, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from './base/clock.js';
import type { Config } from './base/config.js';
import {
  finalStates,
  firstImportName,
  jobView,
  socketName,
  type BulkView,
  type DirtyFiles,
  type HsmParameterList,
  type JobView,
  type OutageView,
  type StatusReport,
  type UnmountReport,
} from './base/control-api.js';
import { BlobError, messageChain, UserError } from './base/errors.js';
import { readFirstMount, writeFirstMount } from './base/first-mount.js';
import { writeLastMount } from './base/last-mount.js';
import type { Launch } from './base/launch.js';
import { createLog, fdDestination, type Log } from './base/log.js';
import { lustriteMountAt } from './base/mount-table.js';
import { register, registeredMounts, unregister } from './base/registry.js';
import { socketAddress } from './base/unix-socket.js';
import { version } from './base/version.js';
import { Outage } from './blob/outage.js';
import type { Container, StorageOutage } from './blob/port.js';
import type { FrontEnd } from './fuse/front-end.js';
import type { BulkVerbs, HydrateRequest, ReleaseRequest } from './hsm/bulk.js';
import type { Coordinator } from './hsm/coordinator.js';
import { recordText } from './hsm/changelog-record.js';
import type { SpaceManager } from './hsm/space-manager.js';
import type { AutoImportRequest, ChangelogControl, Control, HsmVerb, ImportRequest } from './http/control.js';
import type { createServer } from './http/server.js';
import type { Job, JobRunner } from './jobs/runner.js';
import type { Addon } from './native/binding.js';
import { censusWithout } from './store/census.js';
import { dirtyFiles } from './store/dirty-files.js';
import { lockMounting, whileOthersLeave } from './store/locks.js';
import { storeWarning } from './store/durability.js';
import type { Store } from './store/store.js';

export interface DaemonHooks {
  /** Log lines for people instead of JSON. */
  readonly pretty: boolean;
  /** The mount is usable; what its user should know. */
  readonly ready: (notices: readonly string[]) => void;
  /** A signal came and files are open: the mount stays for now. Absent: nobody watches. */
  readonly busy?: () => void;
  /** The mount was taken away and files are open: the daemon stays for them. */
  readonly lingering?: () => void;
  /** Whoever called runDaemon says why the mount failed; the log need not. */
  readonly tellsFailure?: true;
}

/** How long a single SIGTERM waits for open files before it unmounts lazily, and then for the last of them to be closed. */
/** How long the answer to an unmount waits for the job that it has stopped. */
const jobEndMs = 3_000;
const busyForMs = 5_000;
const lingerForMs = 10_000;

/** The storage account of the credentials. Light: the command line calls it, too. */
export async function storageAccount(source: {
  readonly env: NodeJS.ProcessEnv;
  readonly container: string;
  readonly credentialsFile: string | undefined;
}): Promise<string> {
  const { resolveContainer } = await import('./blob/credentials.js');
  return resolveContainer(source).account;
}

/** Mounts, serves until the mount is gone, and leaves nothing behind. Rejects with the cause when the mount failed. */
export async function runDaemon(launch: Launch, hooks: DaemonHooks): Promise<void> {
  const daemon = new Daemon(launch, hooks);
  await daemon.run();
}

class Daemon implements Control {
  readonly #launch: Launch;
  readonly #config: Config;
  readonly #hooks: DaemonHooks;
  readonly #log: Log;
  readonly #startedAt = new Date().toISOString();
  readonly #starting = new AbortController();
  /** Undone in reverse order at the end. */
  readonly #undo: (() => Promise<void> | void)[] = [];
  readonly #notices: string[] = [];
  #lastError: StatusReport['lastError'] = null;
  #addon: Addon | undefined;
  #container: Container | undefined;
  #store: Store | undefined;
  #coordinator: Coordinator | undefined;
  #frontEnd: FrontEnd | undefined;
  #runner: JobRunner | undefined;
  #space: SpaceManager | undefined;
  #bulk: BulkVerbs | undefined;
  /** Resolves when the answer to the control API's unmount is out. */
  #answer:
    { readonly made: Promise<void>; readonly sent: Promise<void>; readonly send: () => void } | undefined;
  #signals = 0;
  #stopped: Promise<void> | undefined;
  /** Unmounted lazily, with files that are open. */
  #lingering = false;

  constructor(launch: Launch, hooks: DaemonHooks) {
    this.#launch = launch;
    this.#config = launch.config;
    this.#hooks = hooks;
    this.#log = createLog({
      level: launch.config.log.level,
      pretty: hooks.pretty,
      destination: fdDestination(2),
      onError: (record) => {
        this.#lastError = record;
      },
    });
  }

  async run(): Promise<void> {
    process.chdir('/');
    process.on('uncaughtException', (error) => this.#crash(error));
    process.on('unhandledRejection', (error) => this.#crash(error));
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.on(signal, () => {
        this.#onSignal(signal);
      });
    }
    try {
      await this.#start();
      this.#hooks.ready(this.#notices);
      this.#log.info({ mountPoint: this.#config.mountPoint, pid: process.pid, version }, 'ready');
      await this.#frontEnd?.closed;
      // Who wants the store now may wait for this daemon to leave it.
      unregister(this.#config.mountPoint);
      this.#log.info({ mountPoint: this.#config.mountPoint }, 'unmounted');
    } catch (error) {
      if (this.#hooks.tellsFailure === true) this.#log.level = 'silent';
      this.#log.error({ err: error }, `cannot mount ${this.#config.mountPoint}: ${messageChain(error)}`);
      throw error;
    } finally {
      await this.#stop();
    }
  }

  // ---- start and stop

  async #start(): Promise<void> {
    const { signal } = this.#starting;
    const [
      { loadAddon },
      { openStore },
      { TransferPool },
      { Coordinator },
      { SpaceManager },
      { BulkVerbs },
      { JobRunner },
      { createServer },
    ] = await Promise.all([
      import('./native/binding.js'),
      import('./store/store.js'),
      import('./workers/pool.js'),
      import('./hsm/coordinator.js'),
      import('./hsm/space-manager.js'),
      import('./hsm/bulk.js'),
      import('./jobs/runner.js'),
      import('./http/server.js'),
    ]);
    const config = this.#config;
    const addon = (this.#addon = loadAddon());
    addon.hardenProcess();
    const { container, loggingContainer } = await this.#openContainers(signal);
    const stays = (): boolean => registeredMounts().some((mount) => mount.store === config.store);
    const store = (this.#store = await whileOthersLeave(
      () =>
        openStore({
          path: config.store,
          identity: container.identity,
          fsName: config.container,
          addon,
          log: this.#log,
          mountPoint: config.mountPoint,
          events: {
            restoreNeeded: (fid, pid) => this.#coordinator?.restoreNeeded(fid, pid),
            fileGone: (...gone) => this.#coordinator?.fileGone(...gone),
            changed: () => this.#coordinator?.changelog.changed(),
          },
          closed: async () => {
            await this.#coordinator?.changelog[Symbol.asyncDispose]();
          },
        }),
      { stays, clock: systemClock, signal },
    ));
    this.#own(store);
    const warning = storeWarning(store.path, store.native.probe);
    if (warning !== undefined) {
      this.#log.warn(warning);
      this.#notices.push(warning);
    }
    const pool = this.#own(new TransferPool({ workers: config.transfer.workers }));
    const common = { store, container, log: this.#log, config, clock: systemClock };
    const { highWatermark: high, lowWatermark } = config.space;
    const watermarks = { high, low: Math.min(high, lowWatermark) };
    const space = (this.#space = this.#own(
      new SpaceManager({
        ...common,
        native: store.native,
        watermarks,
        mayRelease: () => this.#coordinator?.servesReaders ?? false,
      }),
    ));
    const coordinator = (this.#coordinator = this.#own(new Coordinator({ ...common, pool, space })));
    const runner = new JobRunner({ ...common, coordinator, ...(loggingContainer && { loggingContainer }) });
    // Before anybody can ask for something, or what was asked for is taken up, that may not run beside a job.
    await runner.load();
    await coordinator.start();
    space.start();
    signal.throwIfAborted();
    this.#frontEnd = await this.#mount(addon, store, coordinator, signal);
    signal.throwIfAborted();

    this.#runner = this.#own(runner);
    await runner.start();
    await this.#startFirstImport(runner);
    const { mountPoint, readOnly } = config;
    const { native } = store;
    this.#bulk = this.#own(new BulkVerbs({ ...common, native, coordinator, space, mountPoint, readOnly }));
    await this.#listen(createServer(this, this.#log), join(config.store, socketName));
    writeFirstMount(config.store, this.#launch.firstMount);
    try {
      writeLastMount(config.store, config.mountPoint);
    } catch (error) {
      this.#log.warn({ err: error }, `the mount point is not remembered: ${messageChain(error)}`);
    }
    signal.throwIfAborted();
  }

  /** Secrets leave this process's environment here; only Entra ID's own variables are needed later, by its library. */
  async #openContainers(
    signal: AbortSignal,
  ): Promise<{ readonly container: Container; readonly loggingContainer: Container | undefined }> {
    const { container: name, loggingContainer: logs, credentialsFile, transfer } = this.#config;
    const { hierarchicalNamespace, compat } = this.#config;
    const [{ resolveContainer }, { openContainer }] = await Promise.all([
      import('./blob/credentials.js'),
      import('./blob/azure-container.js'),
    ]);
    const source = { env: this.#launch.env, credentialsFile };
    const patience = { retry: { maxTries: transfer.tries }, stallMs: transfer.stallMs };
    const reach = { ...resolveContainer({ ...source, container: name }), ...patience };
    if (reach.auth.kind === 'entra') {
      for (const [variable, value] of Object.entries(this.#launch.env)) {
        if (!variable.startsWith('AZURE_STORAGE_')) process.env[variable] = value;
      }
    }
    const known = hierarchicalNamespace === 'auto' ? {} : { hierarchical: hierarchicalNamespace === 'on' };
    const outage = new Outage((now) => {
      this.#onOutage(now);
    });
    const container = this.#own(openContainer({ ...reach, ...known, accountFirst: compat.strict }, outage));
    this.#container = container;
    const isFirst = readFirstMount(this.#config.store) === undefined;
    try {
      await container.check(signal);
    } catch (error) {
      // A store that has data nobody else has is not kept from its users for that.
      if (isFirst || !(error instanceof UserError) || error.code !== 'PublicContainer') throw error;
      this.#log.warn(error.message);
      this.#notices.push(error.message);
    }
    const { hierarchical, source: said } = container.namespace;
    if (said === 'nobody') {
      const assumed =
        'these credentials may not ask whether the account has a hierarchical namespace: it is taken for a flat one; ' +
        '--hierarchical-namespace on or off says which it is';
      this.#log.warn(assumed);
      if (isFirst) this.#notices.push(assumed);
    }
    if (logs === undefined) {
      if (isFirst) {
        this.#notices.push(
          `no --logging-container: the logs of jobs stay in ${join(this.#config.store, 'jobs')}`,
        );
      }
      return { container, loggingContainer: undefined };
    }
    const logged = { ...resolveContainer({ ...source, container: logs }), ...patience, hierarchical };
    const loggingContainer = this.#own(openContainer(logged));
    try {
      await loggingContainer.check(signal);
    } catch (error) {
      const isPublic = error instanceof UserError && error.code === 'PublicContainer';
      const isMissing = error instanceof BlobError && error.kind === 'missing';
      if (isFirst || !(isPublic || isMissing)) throw error;
      const stay = `; the logs of jobs stay in ${join(this.#config.store, 'jobs')} until it does`;
      const told = `${error.message}${isMissing ? stay : ''}`;
      this.#log.warn(told);
      this.#notices.push(told);
    }
    return { container, loggingContainer };
  }

  /** Mounts and registers the mount, unless somebody else has come first. */
  async #mount(addon: Addon, store: Store, coordinator: Coordinator, signal: AbortSignal): Promise<FrontEnd> {
    const { mountPoint, frontEnd } = this.#config;
    const options = { store, coordinator, addon, mountPoint, config: this.#config, log: this.#log };
    const [{ mountNative }, { mountFuseNative }] = await Promise.all([
      import('./fuse/native.js'),
      import('./fuse/fuse-native.js'),
    ]);
    const stays = (): boolean => false;
    const lock = await whileOthersLeave(() => lockMounting(addon), { stays, clock: systemClock, signal });
    try {
      if (lustriteMountAt(mountPoint) !== undefined) {
        throw new UserError('Conflict', `${mountPoint} is mounted already, by a lustrite that came first`);
      }
      const mounted = await (frontEnd === 'native' ? mountNative : mountFuseNative)(options);
      this.#undo.push(() => {
        unregister(mountPoint);
      });
      this.#register(store);
      return mounted;
    } finally {
      lock.unlock();
    }
  }

  #register(store: Store): void {
    register({
      mountPoint: this.#config.mountPoint,
      store: store.path,
      socket: join(store.path, socketName),
      container: store.meta.container,
      ...(this.#lingering && { lingering: true }),
    });
  }

  /** Once in the life of a store. An import that a former daemon left unfinished is the runner's to resume. */
  async #startFirstImport(runner: JobRunner): Promise<void> {
    const { none, prefixes, conflict, maxErrors } = this.#config.import;
    // Its record may be deleted: who was mounted before has had it.
    const mountedBefore = readFirstMount(this.#config.store) !== undefined;
    if (none || mountedBefore || runner.has(firstImportName)) return;
    await runner.create('import', {
      name: firstImportName,
      prefixes,
      conflictResolutionMode: conflict === 'fail' ? 'Fail' : 'Skip',
      maximumErrors: maxErrors,
    });
  }

  async #listen(server: ReturnType<typeof createServer>, socket: string): Promise<void> {
    await rm(socket, { force: true });
    const address = socketAddress(socket);
    this.#undo.push(async () => {
      await server.close();
      await rm(socket, { force: true });
      address.close();
    });
    // Nobody else can reach it in the store, which is 0700.
    await server.listen({ path: address.path });
    await chmod(socket, 0o600);
  }

  #own<T extends AsyncDisposable>(resource: T): T {
    this.#undo.push(async () => {
      await resource[Symbol.asyncDispose]();
    });
    return resource;
  }

  /** Once, whoever asks. */
  #stop(): Promise<void> {
    return (this.#stopped ??= this.#stopAll());
  }

  async #stopAll(): Promise<void> {
    this.#starting.abort();
    const answer = this.#answer;
    if (answer !== undefined) {
      // It names changed files: a walk of everything there is.
      await answer.made;
      await Promise.race([answer.sent, systemClock.sleep(5_000)]);
    }
    // A start that failed behind the mount. A lingering one has no mount any more: what is there now is another's.
    if (!this.#lingering) await this.#frontEnd?.unmount({ lazy: true }).catch(() => undefined);
    for (const undo of this.#undo.reverse()) {
      try {
        await undo();
      } catch (error) {
        this.#log.error({ err: error }, `while stopping: ${messageChain(error)}`);
      }
    }
    this.#log.info('stopped');
  }

  /** A bug: what was promised to be durable is on disk; the next daemon recovers the rest. */
  #crash(error: unknown): void {
    this.#log.fatal({ err: error }, `the daemon ends: ${messageChain(error)}`);
    try {
      if (this.#frontEnd !== undefined) this.#addon?.detach(this.#config.mountPoint);
      unregister(this.#config.mountPoint);
    } finally {
      process.exit(1);
    }
  }

  #onSignal(signal: NodeJS.Signals): void {
    this.#signals++;
    this.#log.info({ signal }, 'unmounting');
    if (this.#frontEnd === undefined || this.#runner === undefined) {
      this.#starting.abort(
        new UserError('Canceled', `interrupted by ${signal} before the mount was usable: nothing is mounted`),
      );
    }
    if (this.#signals === 1) void this.#unmountForGood(signal);
  }

  /**
   * Open files get `busyForMs`, then the mount goes away and they get `lingerForMs`: who ends a host does not wait for
   * ever. A second signal takes the mount away at once. Somebody at the terminal (SIGINT) is told and decides: he gets no
   * limits. A third signal ends the daemon whatever is open, as does the first after `umount --lazy`.
   */
  async #unmountForGood(signal: NodeJS.Signals): Promise<void> {
    const frontEnd = this.#frontEnd;
    if (frontEnd === undefined) return;
    const patient = signal === 'SIGINT' && this.#hooks.busy !== undefined;
    if (!this.#lingering) {
      if (await this.#unmountBusy(frontEnd, patient ? Infinity : Date.now() + busyForMs)) return;
      await this.#linger(frontEnd, patient ? Infinity : Date.now() + lingerForMs);
    }
    if (await settled(frontEnd.closed)) return;
    this.#log.warn('files are still open; their users get ENOTCONN');
    await this.#stop();
    process.exit(0);
  }

  /** True: unmounted. False: files were open until `end` or a second signal. */
  async #unmountBusy(frontEnd: FrontEnd, end: number): Promise<boolean> {
    for (let told = false; Date.now() < end && this.#signals < 2;) {
      try {
        await frontEnd.unmount({ lazy: false });
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EBUSY') {
          this.#log.error({ err: error }, `cannot unmount: ${messageChain(error)}`);
          return false;
        }
        if (!told) this.#hooks.busy?.();
        told = true;
        await systemClock.sleep(100);
      }
    }
    return false;
  }

  /** Takes the mount away and waits until the last file is closed, `end` has come, or somebody insists. */
  async #linger(frontEnd: FrontEnd, end: number): Promise<void> {
    const asked = this.#signals;
    const mount = { gone: false };
    const unmounted = frontEnd
      .unmount({ lazy: true })
      .catch((error: unknown) => {
        this.#log.error({ err: error }, `cannot unmount: ${messageChain(error)}`);
      })
      .then(() => {
        mount.gone = true;
      });
    await Promise.race([unmounted, systemClock.sleep(100)]);
    if (!mount.gone) {
      this.#lingering = true;
      if (this.#store !== undefined) this.#register(this.#store);
      this.#hooks.lingering?.();
    }
    while (!mount.gone && Date.now() < end && this.#signals <= Math.max(asked, 2)) {
      await systemClock.sleep(100);
    }
  }

  // ---- what the control API asks for

  get jobs(): Control['jobs'] {
    const runner = this.#runner;
    if (runner === undefined) throw new UserError('Conflict', 'the daemon is starting');
    return {
      createImport: async (request) =>
        (await runner.create('import', { ...this.#importDefaults, ...request })).record,
      createExport: async (request) => (await runner.create('export', request)).record,
      createAutoImport: async (request) => (await this.#createAutoImport(runner, request)).record,
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
    const { sinceMs, why } = this.#container?.outage ?? {};
    if (sinceMs === undefined || why === undefined) return undefined;
    return { since: new Date(sinceMs).toISOString(), message: why };
  }

  #onOutage(outage: StorageOutage | undefined): void {
    if (outage === undefined) this.#log.info('the storage is available again');
    else this.#log.warn(`the storage is unavailable, it is asked again: ${outage.why}`);
  }

  /** Azure's own, fail and 0, end a job at the first odd blob. */
  get #importDefaults(): Pick<ImportRequest, 'conflictResolutionMode' | 'maximumErrors'> {
    return this.#config.compat.strict ? {} : { conflictResolutionMode: 'Skip', maximumErrors: -1 };
  }

  /** Which changes it follows is decided once and stays with the job. */
  async #createAutoImport(runner: JobRunner, request: AutoImportRequest): Promise<Job> {
    const container = this.#container;
    if (container === undefined) throw new UserError('Conflict', 'the daemon is starting');
    const { chooseSource } = await import('./jobs/auto-import/source-choice.js');
    const choice = await chooseSource({
      wanted: request.changeSource,
      container,
      hierarchical: container.namespace.hierarchical,
      signal: this.#starting.signal,
    });
    return runner.create('auto-import', { ...request, ...choice });
  }

  async status(): Promise<StatusReport> {
    const { store, coordinator, frontEnd } = this.#running();
    const [{ lastErrorOf, lastJobOf }, { startOf }, { markerName, markerStates }] = await Promise.all([
      import('./http/last-error.js'),
      import('./jobs/job.js'),
      import('./jobs/marker.js'),
    ]);
    const stats = frontEnd.stats();
    const storageOutage = this.#storageOutage();
    const hsm = coordinator.status();
    const jobs = this.#runner?.list() ?? [];
    const markerNames = jobs
      .filter(({ kind }) => kind === 'import')
      .flatMap((job) => markerStates.map((state) => markerName(state, startOf(job))));
    return {
      version,
      pid: process.pid,
      startedAt: this.#startedAt,
      mountPoint: this.#config.mountPoint,
      store: store.path,
      container: this.#container?.identity ?? this.#config.container,
      ...(this.#container && { namespace: this.#container.namespace }),
      loggingContainer: this.#config.loggingContainer ?? null,
      frontEnd: frontEnd.name,
      passthrough: frontEnd.passthrough,
      readOnly: this.#config.readOnly,
      lingering: this.#lingering,
      census: await censusWithout(store.native, markerNames),
      runningJob: viewOf(this.#runner?.running()),
      lastJob: viewOf(lastJobOf(jobs)),
      lastError: lastErrorOf({
        since: this.#startedAt,
        logged: this.#lastError,
        transfer: hsm.lastError,
        jobs,
      }),
      hsm,
      heldRequests: stats['held'] ?? 0,
      ...(this.#space && { space: this.#space.view }),
      ...(storageOutage && { storageOutage }),
    };
  }

  async dirty(limit: number): Promise<DirtyFiles> {
    const { isMarker } = await import('./jobs/marker.js');
    return dirtyFiles(this.#running().store.native, { limit, log: this.#log, ignore: isMarker });
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
    const { frontEnd } = this.#running();
    const job = this.#runner?.running();
    let lingering = false;
    try {
      const gone = frontEnd.unmount({ lazy });
      if (lazy)
        lingering = (await Promise.race([gone, systemClock.sleep(2_000).then(() => 'open')])) === 'open';
      else await gone;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
      throw new UserError('Busy', `${this.#config.mountPoint} is in use`, { status: 409, cause: error });
    }
    this.#lingering = lingering;
    if (lingering) this.#register(this.#running().store);
    else unregister(this.#config.mountPoint);
    const over = job === undefined || finalStates.includes(job.properties.status.state);
    const stoppedJob = over ? null : jobView(job);
    // What it has begun is exported yet, and is not to be told as lost. The copy of a log may take longer.
    if (!lingering) await Promise.race([this.#runner?.[Symbol.asyncDispose](), systemClock.sleep(jobEndMs)]);
    return { dirty: await this.dirty(20), lingering, stoppedJob };
  }

  answered(): void {
    this.#answer?.send();
  }

  parameters(patterns: readonly string[]): HsmParameterList {
    return { value: this.#running().coordinator.control.get(patterns) };
  }

  async setParameters(
    assignments: readonly { readonly pattern: string; readonly value: string }[],
    persistent: boolean,
  ): Promise<HsmParameterList> {
    const { control } = this.#running().coordinator;
    const value = [];
    for (const { pattern, value: text } of assignments)
      value.push(...(await control.set(pattern, text, persistent)));
    return { value };
  }

  get changelog(): ChangelogControl {
    const { changelog } = this.#running().coordinator;
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
    return this.#bulkVerbs().hydrate(request);
  }

  release(request: ReleaseRequest): Promise<AsyncIterable<BulkView>> {
    return this.#bulkVerbs().release(request);
  }

  async hsm(verb: HsmVerb, path: string): Promise<unknown> {
    const { store, coordinator } = this.#running();
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

  #bulkVerbs(): BulkVerbs {
    if (this.#bulk === undefined) throw new UserError('Conflict', 'the daemon is starting');
    return this.#bulk;
  }

  #running(): { readonly store: Store; readonly coordinator: Coordinator; readonly frontEnd: FrontEnd } {
    const [store, coordinator, frontEnd] = [this.#store, this.#coordinator, this.#frontEnd];
    if (store === undefined || coordinator === undefined || frontEnd === undefined) {
      throw new UserError('Conflict', 'the daemon is starting');
    }
    return { store, coordinator, frontEnd };
  }
}

function viewOf(job: JobView | null | undefined): JobView | null {
  return job === null || job === undefined ? null : jobView(job);
}

async function settled(promise: Promise<void>): Promise<boolean> {
  return Promise.race([promise.then(() => true), systemClock.sleep(0).then(() => false)]);
}

function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((fulfil) => {
    resolve = fulfil;
  });
  return { promise, resolve };
}
