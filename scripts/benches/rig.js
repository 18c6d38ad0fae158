/** What every bench stands on: an Azurite, mounts of the real daemon, the bare loop's signed URLs, and a stopwatch. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import {
  BlobServiceClient,
  ContainerSASPermissions,
  StorageSharedKeyCredential,
  generateBlobSASQueryParameters,
} from '@azure/storage-blob';
import { Client, request } from 'undici';

/** @typedef {{ rounds: number, sizes: readonly number[], changes: number, latency: number, files: number, mib: number }} BenchOptions */
/** @typedef {{ cpuSeconds: number, peakRssMiB: number }} Cost */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CLI = join(ROOT, 'dist/cli.js');
export const LFS = join(ROOT, 'build/Release/lfs');
const ACCOUNT = 'devstoreaccount1';
/** Azurite's published development key: not a secret. */
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';
const TICKS = 100;

/** A round of so many takes as long as all those of fewer. */
const ONCE_NAMES = 1_000_000;

/** How often so many names are measured. @param {number} names @param {number} rounds */
export function roundsOf(names, rounds) {
  return names < ONCE_NAMES ? rounds : 1;
}

/** @param {readonly number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

/**
 * @param {() => Promise<unknown> | unknown} work
 * @returns {Promise<number>} seconds
 */
export async function seconds(work) {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

/**
 * `work` on every item, `width` at a time.
 * @template T
 * @param {readonly T[]} items
 * @param {number} width
 * @param {(item: T) => Promise<unknown>} work
 */
export async function inParallel(items, width, work) {
  const queue = items.values();
  await Promise.all(
    Array.from({ length: width }, async () => {
      for (const item of queue) await work(item);
    }),
  );
}

/** One mount of the real daemon. */
export class Mount {
  /** @type {Client | undefined} */
  #socket;

  /** @param {string} path @param {string} store @param {NodeJS.ProcessEnv} env */
  constructor(path, store, env) {
    this.path = path;
    this.closed = true;
    this.store = store;
    this.env = env;
  }

  /** @param {...string} args */
  lustrite(...args) {
    const run = spawnSync(process.execPath, [CLI, ...args], { env: this.env, encoding: 'utf8' });
    if (run.status !== 0)
      throw new Error(`lustrite ${args.join(' ')}: exit ${String(run.status)}: ${run.stderr}`);
    return run.stdout;
  }

  /** What a command answers with --json. @param {...string} args @returns {unknown} */
  json(...args) {
    return JSON.parse(this.lustrite(...args, '--json'));
  }

  /** What the daemon's socket answers: a program for every question would take half a core. @param {string} path @returns {Promise<unknown>} */
  async asked(path) {
    const { body } = await request(`http://localhost${path}`, this.#socket && { dispatcher: this.#socket });
    return await body.json();
  }

  /** CPU seconds and peak RSS of the daemon since it started. @returns {Cost} */
  cost() {
    const status = /** @type {{ pid: number }} */ (this.json('status', this.path));
    const pid = String(status.pid);
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS,
      peakRssMiB: Number(peak?.[1] ?? NaN) / 1024,
    };
  }

  /** Bytes that the daemon has made the file system write. */
  writtenBytes() {
    const status = /** @type {{ pid: number }} */ (this.json('status', this.path));
    const io = readFileSync(`/proc/${String(status.pid)}/io`, 'latin1');
    return Number(/^write_bytes: (\d+)/m.exec(io)?.[1] ?? NaN);
  }

  /** @param {...string} flags */
  open(...flags) {
    this.lustrite('mount', this.path, '--store', this.store, ...flags);
    this.#socket = new Client('http://localhost', { socketPath: join(this.store, 'daemon.sock') });
    this.closed = false;
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    void this.#socket?.destroy();
    this.lustrite('umount', this.path);
  }
}

export class Rig {
  #dir = mkdtempSync(join(tmpdir(), 'lustrite-bench-'));
  /** @type {import('node:child_process').ChildProcess[]} */
  #children = [];
  /** @type {Promise<string> | undefined} */
  #azurite;
  /** @type {Mount[]} */
  #mounts = [];
  #serial = 0;

  /** A fresh path below the bench's own directory. @param {string} name */
  path(name) {
    return join(this.#dir, `${name}-${String(++this.#serial)}`);
  }

  /**
   * Starts a server and resolves with the first line of stdout that matches.
   * @param {readonly string[]} args @param {RegExp} ready
   * @returns {Promise<string>}
   */
  serve(args, ready) {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#children.push(child);
    return new Promise((resolve, reject) => {
      child.once('exit', (code) => {
        reject(new Error(`${args.join(' ')} ended with ${String(code)} before it was ready`));
      });
      createInterface({ input: child.stdout }).on('line', (line) => {
        const url = ready.exec(line)?.[1];
        if (url !== undefined) resolve(url);
      });
    });
  }

  azurite() {
    this.#azurite ??= this.serve(
      [
        join(ROOT, 'node_modules/azurite/dist/src/blob/main.js'),
        '--blobPort',
        '0',
        '--inMemoryPersistence',
        '--extentMemoryLimit',
        '8192',
        '--skipApiVersionCheck',
        '--silent',
        '--disableTelemetry',
        '--disableProductStyleUrl',
      ],
      /successfully listens on (http\S+)/,
    );
    return this.#azurite;
  }

  /** A new container with its SAS, for filling it and for the bare loop. @param {string} name */
  async container(name) {
    const endpoint = `${await this.azurite()}/${ACCOUNT}`;
    const credential = new StorageSharedKeyCredential(ACCOUNT, KEY);
    const client = new BlobServiceClient(endpoint, credential).getContainerClient(
      `${name}-${String(++this.#serial)}`,
    );
    await client.create();
    const sas = generateBlobSASQueryParameters(
      {
        containerName: client.containerName,
        permissions: ContainerSASPermissions.parse('racwdl'),
        expiresOn: new Date(Date.now() + 864e5),
      },
      credential,
    ).toString();
    return {
      client,
      name: client.containerName,
      url: /** @param {string} blob */ (blob) => `${client.url}/${blob}?${sas}`,
    };
  }

  /**
   * @param {{ container: string, endpoint?: string, flags?: readonly string[], wait?: boolean }} options
   * @returns {Promise<Mount>}
   */
  async mount({ container, endpoint, flags = [], wait = true }) {
    const blobEndpoint = endpoint ?? `${await this.azurite()}/${ACCOUNT}`;
    const env = {
      ...process.env,
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=http;AccountName=${ACCOUNT};AccountKey=${KEY};BlobEndpoint=${blobEndpoint};`,
    };
    const mount = new Mount(this.path('mnt'), this.path('store'), env);
    mkdirSync(mount.path);
    mount.open('--container', container, ...(wait ? ['--wait'] : []), ...flags);
    this.#mounts.push(mount);
    return mount;
  }

  async close() {
    for (const mount of this.#mounts) mount.close();
    for (const child of this.#children) {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      if (child.exitCode === null && child.kill()) await gone;
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

/** CPU seconds. @param {Cost} cost @param {number} pieces */
export function perTenThousand({ cpuSeconds }, pieces) {
  return ((cpuSeconds * 10_000) / pieces).toFixed(2);
}

/**
 * @param {string} title
 * @param {{ lustrite: readonly number[], bare: readonly number[], unit: string, digits?: number }} figures rates, higher is better
 * @param {Cost} cost
 */
export function report(title, { lustrite, bare, unit, digits = 0 }, cost) {
  const spread = /** @param {readonly number[]} of */ (of) =>
    `${Math.min(...of).toFixed(digits)}..${Math.max(...of).toFixed(digits)}`;
  console.log(
    `${title}: ${median(lustrite).toFixed(digits)} ${unit} (${spread(lustrite)}); bare loop ${median(bare).toFixed(digits)} ${unit} (${spread(bare)}); ` +
      `ratio ${(median(lustrite) / median(bare)).toFixed(2)}; daemon ${cost.cpuSeconds.toFixed(2)} CPU s, peak RSS ${cost.peakRssMiB.toFixed(0)} MiB`,
  );
}
