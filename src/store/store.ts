/** A store that is open: its lock, its identity and the namespace in it. One daemon at a time has it. */
import { lstat, mkdir, open, readFile, realpath } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { crashPoint } from '../base/crash.js';
import { UserError } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { flockHolders } from '../base/processes.js';
import type { Addon, NativeStore, StoreEvents } from '../native/binding.js';
import { openMeta, type StoreMeta } from './meta.js';

export interface StoreOptions {
  readonly path: string;
  /** Account and container: Container.identity. */
  readonly identity: string;
  readonly fsName: string;
  readonly addon: Addon;
  readonly log: Log;
  readonly events: StoreEvents;
  /** Behind the last change that the store tells of, while it is still ours. */
  readonly closed?: () => Promise<void>;
  /** Where it will be mounted: a store inside its own mount is refused. */
  readonly mountPoint?: string;
}

export interface Store extends AsyncDisposable {
  readonly native: NativeStore;
  readonly meta: StoreMeta;
  readonly path: string;
  readonly jobsDir: string;
  readonly requestsDir: string;
  /** Of store/unlinked.ts. */
  readonly unlinkedDir: string;
  /** Of hsm/changelog.ts; made by the first reader. */
  readonly changelogDir: string;
}

/** Creates or opens a store: 0700, ours, locked, of this container and of a format we know. */
export async function openStore(options: StoreOptions): Promise<Store> {
  const path = resolve(options.path);
  await mkdir(path, { recursive: true, mode: 0o700 });
  await refuseForeign(path);
  if (options.mountPoint !== undefined) await refuseInside(path, options.mountPoint);

  const lock = await lockStore(options.addon, join(path, 'lock'), path);
  try {
    const jobsDir = join(path, 'jobs');
    const requestsDir = join(path, 'requests');
    for (const folder of [jobsDir, requestsDir]) await mkdir(folder, { recursive: true, mode: 0o700 });
    const meta = await openMeta(join(path, 'meta.json'), {
      identity: options.identity,
      fsName: options.fsName,
      bootId: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim(),
    });
    crashPoint('meta.written');
    const native = await options.addon.openStore(path, options.events);
    options.log.info({ store: path, fileSystem: native.probe.fileSystem, fsId: meta.fsId }, 'store open');
    return {
      native,
      meta,
      path,
      jobsDir,
      requestsDir,
      unlinkedDir: join(path, 'unlinked'),
      changelogDir: join(path, 'changelog'),
      async [Symbol.asyncDispose]() {
        try {
          await native.close();
          await options.closed?.();
        } finally {
          lock.unlock();
        }
      },
    };
  } catch (error) {
    lock.unlock();
    throw error;
  }
}

async function refuseForeign(path: string): Promise<void> {
  const stat = await lstat(path);
  if (!stat.isDirectory()) throw new UserError('InvalidStore', `the store is not a directory: ${path}`);
  const uid = process.geteuid?.() ?? 0;
  if (stat.uid !== uid) {
    throw new UserError('InvalidStore', `the store belongs to uid ${stat.uid}, not to uid ${uid}: ${path}`);
  }
  if ((stat.mode & 0o022) !== 0) {
    throw new UserError(
      'InvalidStore',
      `the store is writable by others: ${path}; chmod 0700 it or use another`,
    );
  }
}

async function refuseInside(path: string, mountPoint: string): Promise<void> {
  const store = await realpath(path);
  const mount = await realpath(mountPoint).catch(() => resolve(mountPoint));
  if (store === mount || store.startsWith(mount === sep ? mount : mount + sep)) {
    throw new UserError('InvalidStore', `the store would lie inside its own mount: ${path} in ${mountPoint}`);
  }
}

async function lockStore(addon: Addon, file: string, path: string): Promise<{ unlock(): void }> {
  await (await open(file, 'a', 0o600)).close();
  try {
    return addon.lockFile(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EWOULDBLOCK' && code !== 'EAGAIN') throw error;
    const [pid] = flockHolders(file);
    const who = pid === undefined ? 'another lustrite' : `another lustrite (pid ${pid})`;
    throw new UserError('Conflict', `the store is in use by ${who}: ${path}`);
  }
}
