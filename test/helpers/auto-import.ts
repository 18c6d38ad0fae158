/** An auto-import on a real mount: enabled, followed, disabled; and what the seed counts. */
import type { JobView } from '../../src/base/control-api.js';
import {
  noBlobSyncCounters,
  type AutoImportStatus,
  type BlobSyncCounters,
} from '../../src/jobs/auto-import/auto-import-record.js';
import type { ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import { noImportCounters, type ImportCounters } from '../../src/jobs/import/import-record.js';
import type { TestMount } from './mount.js';
import { until } from './poll.js';

export interface AutoImportRequest {
  readonly name: string;
  readonly prefix: string;
  readonly mode: ConflictMode;
  readonly enableDeletions?: boolean;
  readonly source?: 'feed' | 'listing';
}

export class AutoImport {
  readonly #mount: TestMount;
  readonly #name: string;

  private constructor(mount: TestMount, name: string) {
    this.#mount = mount;
    this.#name = name;
  }

  /** Resolves when blob sync has looked for changes once, or the job is over. */
  static async enable(mount: TestMount, request: AutoImportRequest): Promise<AutoImport> {
    const { name, prefix, mode, enableDeletions = false, source = 'listing' } = request;
    await mount.control('POST', '/v1/jobs/auto-import', {
      name,
      prefixes: [`/${prefix}`],
      conflictResolutionMode: mode,
      maximumErrors: -1,
      enableDeletions,
      changeSource: source,
      pollIntervalMs: 100,
    });
    const job = new AutoImport(mount, name);
    await job.#until('the first poll', (status) => polledAt(status) !== '');
    return job;
  }

  async status(): Promise<AutoImportStatus> {
    const job = (await this.#mount.control('GET', `/v1/jobs/${this.#name}`)) as JobView;
    return job.properties.status as AutoImportStatus;
  }

  /** Resolves when the job has applied whatever its source knows now, or has ended. */
  async synced(): Promise<void> {
    const since = new Date().toISOString();
    await this.#until('a poll', (status) => polledAt(status) > since);
  }

  /** Resolves when another job may run. */
  async disable(): Promise<void> {
    const { state } = await this.status();
    if (state === 'InProgress') await this.#mount.control('POST', `/v1/jobs/${this.#name}/cancel`, {});
    await until(async () => (await this.#mount.status())?.runningJob === null, {
      what: `${this.#name} to end`,
      intervalMs: 5,
    });
  }

  async #until(what: string, test: (status: AutoImportStatus) => boolean): Promise<void> {
    const isOver = async (): Promise<boolean> => {
      const status = await this.status();
      return status.state !== 'InProgress' || test(status);
    };
    await until(isOver, { what: `${what} of ${this.#name}`, intervalMs: 5 });
  }
}

/** When the job has looked for changes last, whether or not it could apply all of them; '' before it has. */
export function polledAt({ blobSyncEvents, statusMessage }: AutoImportStatus): string {
  const { lastTimeFullySynchronized = '' } = blobSyncEvents;
  const [, tried = ''] = /in use: \d+, tried last at (\S+Z)/.exec(statusMessage) ?? [];
  return tried > lastTimeFullySynchronized ? tried : lastTimeFullySynchronized;
}

/** All counters of an import job and of a full sync, and nothing else. */
export function importCounters(status: ImportCounters): ImportCounters {
  return only(status, noImportCounters);
}

/** All counters of a blob sync; with `before`, what has come since. */
export function syncCounters(
  { blobSyncEvents }: AutoImportStatus,
  before: BlobSyncCounters = noBlobSyncCounters,
): BlobSyncCounters {
  const now = Object.entries(only(blobSyncEvents, noBlobSyncCounters));
  const counted = now.map(([name, count]) => [name, count - before[name as keyof BlobSyncCounters]]);
  return Object.fromEntries(counted) as BlobSyncCounters;
}

function only<Counters extends object>(from: Counters, names: Counters): Counters {
  const keys = Object.keys(names) as (keyof Counters)[];
  return Object.fromEntries(keys.map((name) => [name, from[name]])) as Counters;
}
