import { join } from 'node:path';
import type { ContainerClient } from '@azure/storage-blob';
import type { Test } from 'tap';
import type { ImportStatus } from '../../src/jobs/import/import-record.js';
import { Azurite } from './azurite.js';
import { FaultServer, type Match } from './fault-server.js';
import { hsmFlags, lfs, states } from './lfs.js';
import { TestMount, type TestMountOptions } from './mount.js';
import { until } from './poll.js';

export type Blobs = Readonly<Record<string, string | Buffer>>;

/** A mounted container whose storage a test can hold, fail, count and change; enough for all tests of a file. */
export class MountedContainer {
  readonly mount: TestMount;
  /** Between the daemon and Azurite. */
  readonly storage: FaultServer;
  /** Another client of the same container. */
  readonly container: ContainerClient;
  /** Of the account, past `storage`. */
  readonly connectionString: string;

  private constructor(
    mount: TestMount,
    storage: FaultServer,
    container: ContainerClient,
    connectionString: string,
  ) {
    this.mount = mount;
    this.storage = storage;
    this.container = container;
    this.connectionString = connectionString;
  }

  /** Uploads `blobs`, mounts, and waits for the first import. Everything goes with the teardown of `t`. */
  static async start(
    t: Test,
    blobs: Blobs,
    {
      azurite: shared,
      ...options
    }: Partial<Pick<TestMountOptions, 'env' | 'flags' | 'frontEnd' | 'store'>> & {
      /** One that somebody else starts and ends. */
      readonly azurite?: Azurite;
    } = {},
  ): Promise<MountedContainer> {
    const azurite = shared ?? (await Azurite.start());
    if (shared === undefined) t.teardown(() => azurite[Symbol.asyncDispose]());
    const storage = await FaultServer.start(azurite.url);
    t.teardown(() => storage[Symbol.asyncDispose]());
    const name = await azurite.newContainer();
    const container = azurite.client(name);
    await upload(container, blobs);
    const env = {
      AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(storage.url),
      ...options.env,
    };
    const mount = await TestMount.start(t, { ...options, container: name, env });
    storage.clearLog();
    return new MountedContainer(mount, storage, container, azurite.connectionString);
  }

  at(path: string): string {
    return this.mount.at(path);
  }

  /** The same file where the store keeps it. */
  backing(path: string): string {
    return join(this.mount.store, 'ns', path);
  }

  async upload(blobs: Blobs): Promise<void> {
    await upload(this.container, blobs);
  }

  async blob(name: string): Promise<string> {
    return (await this.container.getBlockBlobClient(name).downloadToBuffer()).toString();
  }

  /** Requests that match wait from now on, until the function that is returned has been called. */
  hold(match: Match): () => void {
    let open: () => void = () => undefined;
    const until = new Promise<void>((resolve) => {
      open = resolve;
    });
    this.storage.inject(match, { kind: 'hold', until });
    return open;
  }

  /** Waits until `count` requests that match have arrived since the log was cleared. */
  async arrived(match: Pick<Match, 'method' | 'blob' | 'query'>, count = 1): Promise<void> {
    await until(() => this.storage.count(match) >= count, {
      what: `${count} ${match.method ?? 'request'} of ${String(match.blob)}`,
    });
  }

  /** `lfs WHAT` on a file of the mount; its exit code, which is an errno. */
  async lfs(what: string, path: string, ...flags: readonly string[]): Promise<number | null> {
    return (await lfs([what, ...flags, this.at(path)])).code;
  }

  /** Waits until no HSM request for the file waits or runs. */
  async idle(path: string): Promise<void> {
    await until(() => this.#isIdle(path), { what: `the requests for ${path} to end` });
  }

  async #isIdle(path: string): Promise<boolean> {
    return (await lfs(['hsm_action', this.at(path)])).stdout.includes('NOOP');
  }

  /** Archives until the file is clean: whoever has just closed it may still be in the way. */
  async archived(path: string): Promise<void> {
    await until(
      async () => (await this.archive(path)) === 0 && (await hsmFlags(this.at(path))) === states.clean,
      {
        what: `${path} to be archived`,
      },
    );
  }

  /** Archives until an upload has arrived, which a test holds. */
  async uploading(path: string): Promise<void> {
    const arrived = (): boolean => this.storage.count({ method: 'PUT', blob: path }) > 0;
    await until(
      async () => {
        await this.lfs('hsm_archive', path);
        await until(async () => arrived() || (await this.#isIdle(path)), { what: `${path} to be uploaded` });
        return arrived();
      },
      { what: `an upload of ${path}` },
    );
  }

  /** Releases a file that nobody has open any more, as soon as that is known. */
  async released(path: string): Promise<void> {
    await until(async () => (await this.lfs('hsm_release', path)) === 0, { what: `${path} to be released` });
  }

  /** Requests an archive and waits for its end, however that is. */
  async archive(path: string): Promise<number | null> {
    const code = await this.lfs('hsm_archive', path);
    await this.idle(path);
    return code;
  }

  /** Exports what is new or changed below `folder`; the state in which the job ended. */
  async export(folder: string): Promise<string> {
    return (await this.mount.job('export', { filesystemPath: `/${folder}` })).properties.status.state;
  }

  /** Imports what has no name yet; the state in which the job ended. */
  async import(): Promise<string> {
    return (await this.imported()).state;
  }

  /** The same, with what the job has counted. */
  async imported(): Promise<ImportStatus> {
    const request = { conflictResolutionMode: 'Skip', maximumErrors: -1 };
    return (await this.mount.job('import', request)).properties.status as ImportStatus;
  }
}

async function upload(container: ContainerClient, blobs: Blobs): Promise<void> {
  await Promise.all(
    Object.entries(blobs).map(async ([name, content]) => {
      const body = Buffer.from(content);
      await container.getBlockBlobClient(name).upload(body, body.length);
    }),
  );
}
