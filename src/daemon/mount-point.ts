/** The daemon's place in the host's file system: mounted, registered for the command line, and given back. */
import { join } from 'node:path';
import { systemClock } from '../base/clock.js';
import type { Config } from '../base/config.js';
import { socketName } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { lustriteMountAt } from '../base/mount-table.js';
import { register, unregister } from '../base/registry.js';
import type { FrontEnd, FrontEndOptions } from '../fuse/front-end.js';
import { lockMounting, whileOthersLeave } from '../store/locks.js';
import type { Store } from '../store/store.js';

export interface MountPointOptions {
  readonly config: Config;
  readonly log: Log;
  /** A signal came and files are open: the mount stays for now. Absent: nobody watches. */
  readonly busy?: () => void;
  /** The mount was taken away and files are open: the daemon stays for them. */
  readonly lingering?: () => void;
}

/** How long a single SIGTERM waits for open files before it unmounts lazily, and then for the last of them to be closed. */
const busyForMs = 5_000;
const lingerForMs = 10_000;
/** A lazy unmount without open files is over sooner. */
const lazilyMs = 2_000;

export class MountPoint {
  readonly #options: MountPointOptions;
  #store: Store | undefined;
  #frontEnd: FrontEnd | undefined;
  #signals = 0;
  /** Our mount is there: whatever else is at the mount point is not ours to take away. */
  #mounted = false;
  /** Unmounted lazily, with files that are open. */
  #lingering = false;

  constructor(options: MountPointOptions) {
    this.#options = options;
  }

  get lingering(): boolean {
    return this.#lingering;
  }

  /** Undefined until it is mounted. */
  get frontEnd(): FrontEnd | undefined {
    return this.#frontEnd;
  }

  get isMounted(): boolean {
    return this.#mounted && !this.#lingering;
  }

  /** Mounts and registers the mount. Rejects with a UserError Conflict when somebody else has come first. */
  async mount(
    store: Store,
    { coordinator, addon }: Pick<FrontEndOptions, 'coordinator' | 'addon'>,
    signal: AbortSignal,
  ): Promise<FrontEnd> {
    const { config, log } = this.#options;
    const { mountPoint, frontEnd } = config;
    const options = { store, coordinator, addon, mountPoint, config, log };
    const [{ mountNative }, { mountFuseNative }] = await Promise.all([
      import('../fuse/native.js'),
      import('../fuse/fuse-native.js'),
    ]);
    const stays = (): boolean => false;
    const lock = await whileOthersLeave(() => lockMounting(addon), { stays, clock: systemClock, signal });
    try {
      if (lustriteMountAt(mountPoint) !== undefined) {
        throw new UserError('Conflict', `${mountPoint} is mounted already, by a lustrite that came first`);
      }
      const mounted = await (frontEnd === 'native' ? mountNative : mountFuseNative)(options);
      this.#frontEnd = mounted;
      this.#mounted = true;
      void mounted.closed.then(() => {
        this.#mounted = false;
      });
      this.#store = store;
      this.#register();
      return mounted;
    } finally {
      lock.unlock();
    }
  }

  /** True when files are open and it was lazy. Rejects with a UserError Busy when they are and it was not. */
  async unmount(frontEnd: FrontEnd, lazy: boolean): Promise<boolean> {
    const { mountPoint } = this.#options.config;
    let lingering = false;
    try {
      const gone = frontEnd.unmount({ lazy });
      if (lazy)
        lingering = (await Promise.race([gone, systemClock.sleep(lazilyMs).then(() => 'open')])) === 'open';
      else await gone;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
      throw new UserError('Busy', `${mountPoint} is in use`, { status: 409, cause: error });
    }
    this.#lingering = lingering;
    if (lingering) this.#register();
    else this.leave();
    return lingering;
  }

  /** What a start that failed has left. A lingering one has no mount any more: what is there now is another's. */
  async clear(): Promise<void> {
    if (this.isMounted) await this.#frontEnd?.unmount({ lazy: true }).catch(() => undefined);
    if (this.#frontEnd !== undefined) this.leave();
  }

  /** The command line does not find it any more; whoever wants the store now waits for this daemon to leave it. */
  leave(): void {
    unregister(this.#options.config.mountPoint);
  }

  #register(): void {
    const store = this.#store;
    if (store === undefined) return;
    register({
      mountPoint: this.#options.config.mountPoint,
      store: store.path,
      socket: join(store.path, socketName),
      container: store.meta.container,
      ...(this.#lingering && { lingering: true }),
    });
  }

  /**
   * Open files get `busyForMs`, then the mount goes away and they get `lingerForMs`: who ends a host does not wait for
   * ever. A second signal takes the mount away at once. Somebody at the terminal (SIGINT) is told and decides: he gets no
   * limits. A third signal ends the daemon whatever is open, as does the first after `umount --lazy`. Resolves for the
   * first signal, behind all of that: true when files are still open.
   */
  async onSignal(signal: NodeJS.Signals): Promise<boolean> {
    this.#signals++;
    const frontEnd = this.#frontEnd;
    if (this.#signals > 1 || frontEnd === undefined) return false;
    const patient = signal === 'SIGINT' && this.#options.busy !== undefined;
    if (!this.#lingering) {
      if (await this.#unmountBusy(frontEnd, patient ? Infinity : Date.now() + busyForMs)) return false;
      await this.#linger(frontEnd, patient ? Infinity : Date.now() + lingerForMs);
    }
    return !(await settled(frontEnd.closed));
  }

  /** True: unmounted. False: files were open until `end` or a second signal. */
  async #unmountBusy(frontEnd: FrontEnd, end: number): Promise<boolean> {
    const { log, busy } = this.#options;
    for (let told = false; Date.now() < end && this.#signals < 2;) {
      try {
        await frontEnd.unmount({ lazy: false });
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EBUSY') {
          log.error({ err: error }, `cannot unmount: ${messageChain(error)}`);
          return false;
        }
        if (!told) busy?.();
        told = true;
        await systemClock.sleep(100);
      }
    }
    return false;
  }

  /** Takes the mount away and waits until the last file is closed, `end` has come, or somebody insists. */
  async #linger(frontEnd: FrontEnd, end: number): Promise<void> {
    const { log, lingering } = this.#options;
    const asked = this.#signals;
    const mount = { gone: false };
    const unmounted = frontEnd
      .unmount({ lazy: true })
      .catch((error: unknown) => {
        log.error({ err: error }, `cannot unmount: ${messageChain(error)}`);
      })
      .then(() => {
        mount.gone = true;
      });
    await Promise.race([unmounted, systemClock.sleep(100)]);
    if (!mount.gone) {
      this.#lingering = true;
      this.#register();
      lingering?.();
    }
    while (!mount.gone && Date.now() < end && this.#signals <= Math.max(asked, 2)) {
      await systemClock.sleep(100);
    }
  }
}

async function settled(promise: Promise<void>): Promise<boolean> {
  return Promise.race([promise.then(() => true), systemClock.sleep(0).then(() => false)]);
}
