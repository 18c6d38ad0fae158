/**
 * The daemon, and the only place that knows every room: config -> credentials -> container -> store -> pool ->
 * coordinator -> front end -> jobs -> control API -> "ready"; and the same backwards at the end.
 */
import { chmod, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from './base/clock.js';
import type { Config } from './base/config.js';
import { firstImportName, socketName, type StatusReport } from './base/control-api.js';
import { messageChain, UserError } from './base/errors.js';
import { readFirstMount, writeFirstMount } from './base/first-mount.js';
import { writeLastMount } from './base/last-mount.js';
import type { Launch } from './base/launch.js';
import { createLog, fdDestination, type Log } from './base/log.js';
import { registeredMounts } from './base/registry.js';
import { socketAddress } from './base/unix-socket.js';
import { version } from './base/version.js';
import type { StorageOutage } from './blob/port.js';
import type { MountControl } from './daemon/control.js';
import { MountPoint } from './daemon/mount-point.js';
import type { Coordinator } from './hsm/coordinator.js';
import type { createServer } from './http/server.js';
import type { JobRunner } from './jobs/runner.js';
import type { Addon } from './native/binding.js';
import { storeWarning } from './store/durability.js';
import { whileOthersLeave } from './store/locks.js';

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

class Daemon {
  readonly #launch: Launch;
  readonly #config: Config;
  readonly #hooks: DaemonHooks;
  readonly #log: Log;
  readonly #startedAt = new Date().toISOString();
  readonly #starting = new AbortController();
  readonly #mountPoint: MountPoint;
  /** Undone in reverse order at the end. */
  readonly #undo: (() => Promise<void> | void)[] = [];
  readonly #notices: string[] = [];
  #lastError: StatusReport['lastError'] = null;
  #addon: Addon | undefined;
  #coordinator: Coordinator | undefined;
  #runner: JobRunner | undefined;
  #control: MountControl | undefined;
  #stopped: Promise<void> | undefined;

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
    const { busy, lingering } = hooks;
    const told = { ...(busy && { busy }), ...(lingering && { lingering }) };
    this.#mountPoint = new MountPoint({ config: this.#config, log: this.#log, ...told });
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
      await this.#mountPoint.frontEnd?.closed;
      this.#mountPoint.leave();
      this.#log.info({ mountPoint: this.#config.mountPoint }, 'unmounted');
    } catch (error) {
      if (this.#hooks.tellsFailure === true) this.#log.level = 'silent';
      this.#log.error({ err: error }, `cannot mount ${this.#config.mountPoint}: ${messageChain(error)}`);
      throw error;
    } finally {
      await this.#stop();
    }
  }

  async #start(): Promise<void> {
    const { signal } = this.#starting;
    const [
      { loadAddon },
      { openContainers },
      { openStore },
      { TransferPool },
      { Coordinator },
      { SpaceManager },
      { BulkVerbs },
      { JobRunner },
      { MountControl },
      { createServer },
    ] = await Promise.all([
      import('./native/binding.js'),
      import('./daemon/containers.js'),
      import('./store/store.js'),
      import('./workers/pool.js'),
      import('./hsm/coordinator.js'),
      import('./hsm/space-manager.js'),
      import('./hsm/bulk.js'),
      import('./jobs/runner.js'),
      import('./daemon/control.js'),
      import('./http/server.js'),
    ]);
    const config = this.#config;
    const addon = (this.#addon = loadAddon());
    addon.hardenProcess();
    const { container, loggingContainer } = await openContainers({
      config,
      env: this.#launch.env,
      own: (resource) => this.#own(resource),
      warn: (text) => {
        this.#log.warn(text);
      },
      notice: (text) => this.#notices.push(text),
      onOutage: (outage) => {
        this.#onOutage(outage);
      },
      signal,
    });
    const stays = (): boolean => registeredMounts().some((mount) => mount.store === config.store);
    const store = await whileOthersLeave(
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
    );
    this.#own(store);
    const warning = storeWarning(store.path, store.native.probe);
    if (warning !== undefined) {
      this.#log.warn(warning);
      this.#notices.push(warning);
    }
    const pool = this.#own(new TransferPool({ workers: config.transfer.workers }));
    const { native } = store;
    const common = { store, native, container, log: this.#log, config, clock: systemClock };
    const { highWatermark: high, lowWatermark } = config.space;
    const watermarks = { high, low: Math.min(high, lowWatermark) };
    const mayRelease = (): boolean => this.#coordinator?.servesReaders ?? false;
    const space = this.#own(new SpaceManager({ ...common, watermarks, mayRelease }));
    const coordinator = (this.#coordinator = this.#own(new Coordinator({ ...common, pool, space })));
    const runner = new JobRunner({ ...common, coordinator, ...(loggingContainer && { loggingContainer }) });
    // Before anybody can ask for something, or what was asked for is taken up, that may not run beside a job.
    await runner.load();
    await coordinator.start();
    space.start();
    signal.throwIfAborted();
    const frontEnd = await this.#mountPoint.mount(store, { coordinator, addon }, signal);
    signal.throwIfAborted();

    this.#runner = this.#own(runner);
    await runner.start();
    await this.#startFirstImport(runner);
    const { mountPoint, readOnly } = config;
    const bulk = this.#own(new BulkVerbs({ ...common, coordinator, space, mountPoint, readOnly }));
    this.#control = new MountControl({
      ...common,
      startedAt: this.#startedAt,
      coordinator,
      space,
      bulk,
      runner,
      mountPoint: this.#mountPoint,
      frontEnd,
      lastLogged: () => this.#lastError,
    });
    await this.#listen(createServer(this.#control, this.#log), join(config.store, socketName));
    writeFirstMount(config.store, this.#launch.firstMount);
    try {
      writeLastMount(config.store, config.mountPoint);
    } catch (error) {
      this.#log.warn({ err: error }, `the mount point is not remembered: ${messageChain(error)}`);
    }
    signal.throwIfAborted();
  }

  #onOutage(outage: StorageOutage | undefined): void {
    if (outage === undefined) this.#log.info('the storage is available again');
    else this.#log.warn(`the storage is unavailable, it is asked again: ${outage.why}`);
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
    await this.#control?.settled();
    await this.#mountPoint.clear();
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
      if (this.#mountPoint.isMounted) this.#addon?.detach(this.#config.mountPoint);
      this.#mountPoint.leave();
    } finally {
      process.exit(1);
    }
  }

  #onSignal(signal: NodeJS.Signals): void {
    this.#log.info({ signal }, 'unmounting');
    if (this.#runner === undefined) {
      this.#starting.abort(
        new UserError('Canceled', `interrupted by ${signal} before the mount was usable: nothing is mounted`),
      );
    }
    void this.#mountPoint.onSignal(signal).then(async (open) => {
      if (!open) return;
      this.#log.warn('files are still open; their users get ENOTCONN');
      await this.#stop();
      process.exit(0);
    });
  }
}
