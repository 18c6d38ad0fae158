/** An Azurite of one test: a child process on a port of its own. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlobServiceClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { ContainerClient } from '@azure/storage-blob';
import type { ContainerConfig } from '../../src/blob/port.js';

/** Azurite's published account. */
export const azuriteAccount = 'devstoreaccount1';
export const azuriteKey =
  'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

const program = createRequire(import.meta.url).resolve('azurite/dist/src/blob/main.js');
const startMs = 120_000;

export interface AzuriteOptions {
  /** Keeps blobs on disk, so that they outlive `kill()` + `restart()`. In memory by default. */
  readonly persist?: boolean;
  /** Answers every API version; off to meet Azurite's refusal. */
  readonly skipApiVersionCheck?: boolean;
}

export interface ConfigOptions extends Pick<ContainerConfig, 'retry' | 'stallMs'> {
  /** Another way to the same account, e.g. a FaultServer's `url`. */
  readonly url?: string;
}

export class Azurite implements AsyncDisposable {
  readonly account = azuriteAccount;
  readonly key = azuriteKey;
  readonly #options: AzuriteOptions;
  readonly #location: string | undefined;
  readonly #containers: string[] = [];
  #child: ChildProcess | undefined;
  #origin = '';

  private constructor(options: AzuriteOptions, location: string | undefined) {
    this.#options = options;
    this.#location = location;
  }

  static async start(options: AzuriteOptions = {}): Promise<Azurite> {
    const location =
      options.persist === true ? await mkdtemp(join(tmpdir(), 'lustrite-azurite-')) : undefined;
    const azurite = new Azurite(options, location);
    await azurite.#spawn('0');
    return azurite;
  }

  /** `http://127.0.0.1:PORT/devstoreaccount1` */
  get url(): string {
    return `${this.#origin}/${azuriteAccount}`;
  }

  /** `http://127.0.0.1:PORT` */
  get origin(): string {
    return this.#origin;
  }

  get connectionString(): string {
    return this.connectionStringAt(this.url);
  }

  /** The connection string of the same account behind another URL, e.g. a FaultServer's. */
  connectionStringAt(url: string): string {
    return `DefaultEndpointsProtocol=http;AccountName=${azuriteAccount};AccountKey=${azuriteKey};BlobEndpoint=${url};`;
  }

  /** A plain SDK client: what another client of the account would do. */
  get service(): BlobServiceClient {
    return new BlobServiceClient(this.url, new StorageSharedKeyCredential(azuriteAccount, azuriteKey), {
      retryOptions: { retryDelayInMs: 50, maxRetryDelayInMs: 500 },
    });
  }

  /** Creates a container with a name of its own; returns the name. */
  async newContainer(prefix = 'test'): Promise<string> {
    const name = `${prefix}-${randomBytes(6).toString('hex')}`;
    await this.service.createContainer(name);
    this.#containers.push(name);
    return name;
  }

  client(container: string): ContainerClient {
    return this.service.getContainerClient(container);
  }

  /** How lustrite reaches a container; retries are quick unless told otherwise. */
  config(container: string, options: ConfigOptions = {}): ContainerConfig {
    return {
      url: `${options.url ?? this.url}/${container}`,
      account: azuriteAccount,
      container,
      auth: { kind: 'key', accountKey: azuriteKey },
      retry: options.retry ?? { maxTries: 4, retryDelayInMs: 20, maxRetryDelayInMs: 200 },
      stallMs: options.stallMs ?? 30_000,
    };
  }

  /** Ends the process at once, as an outage does. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (!child) return;
    this.#child = undefined;
    const ended = once(child, 'exit');
    child.ref(); // what waits for its end must not be cut off by an empty event loop
    child.kill(signal);
    if (child.exitCode === null && child.signalCode === null) await ended;
  }

  /** Starts it again on the same port. With `persist` end it by `kill('SIGTERM')` first, so that it saves its state. */
  async restart(): Promise<void> {
    await this.kill('SIGTERM');
    await this.#spawn(new URL(this.#origin).port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    if (this.#location !== undefined) await rm(this.#location, { recursive: true, force: true });
  }

  async #spawn(port: string): Promise<void> {
    const storage =
      this.#location === undefined
        ? ['--inMemoryPersistence', '--extentMemoryLimit', '4096']
        : ['--location', this.#location];
    const version = this.#options.skipApiVersionCheck === false ? [] : ['--skipApiVersionCheck'];
    const child = spawn(
      process.execPath,
      [
        program,
        '--blobPort',
        port,
        ...storage,
        ...version,
        '--silent',
        '--disableTelemetry',
        '--disableProductStyleUrl',
      ],
      // Without tap's loaders, which a child process would inherit.
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NODE_OPTIONS: '' } },
    );
    let output = '';
    const origin = await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new Error(`Azurite did not start: ${output}`));
      }, startMs);
      const listen = (chunk: Buffer): void => {
        output = (output + chunk.toString()).slice(-10_000);
        const match = /successfully listens on (http\S+)/.exec(output);
        if (!match) return;
        clearTimeout(timer);
        resolve(new URL(match[1] ?? '').origin);
      };
      child.stdout.on('data', listen);
      child.stderr.on('data', listen);
      child.once('error', reject);
      child.once('exit', (code) => {
        clearTimeout(timer);
        reject(new Error(`Azurite ended (${String(code)}): ${output}`));
      });
    });
    this.#child = child;
    this.#origin = origin;
    // A test process that dies must not leave it behind, nor be kept alive by it.
    const reap = (): void => {
      child.kill('SIGKILL');
    };
    process.once('exit', reap);
    child.once('exit', () => process.off('exit', reap));
    child.unref();
    (child.stdout as unknown as { unref(): void }).unref();
    (child.stderr as unknown as { unref(): void }).unref();
  }
}
