/** Auto-import as a job: its record, what it keeps others from, and what a restart makes of it. */
import {
  endedAutoImport,
  noBlobSyncCounters,
  type BlobSyncEvents,
  type AutoImportRecord,
  type AutoImportStatus,
} from './auto-import-record.js';
import { runAutoImport, type AutoImportEvent } from './auto-import.js';
import { noImportCounters, type ImportCounters } from '../import/import-record.js';
import { pathText } from '../../base/path-text.js';
import { ChangeFeed } from '../../blob/change-feed.js';
import { timeOf, type JobType } from '../job-type.js';
import { FeedSource } from './feed-source.js';
import { ListingSource } from './listing-source.js';
import { blobPrefixes } from '../import/prefixes.js';
import { RateWindow } from './rate-window.js';
import type { JobLogLine } from '../job-log.js';
import { perSecond } from '../record-fields.js';

const rateWindowMs = 10_000;

export const autoImportJob: JobType<AutoImportRecord> = {
  // What an archive or remove does to the container would come back as the change of somebody else.
  blocks: ({ config }, { name }) =>
    `the auto-import job '${name}' is enabled; ` +
    `lustrite auto-import disable ${pathText(config.mountPoint)} ${name}`,

  ending: (record) => ({
    ...record,
    properties: {
      ...record.properties,
      adminStatus: 'Disable',
      status: {
        ...record.properties.status,
        state: 'Disabling',
        statusMessage: 'Auto-import is being disabled',
      },
    },
  }),

  resume: (_, record) =>
    Promise.resolve(record.properties.status.state === 'InProgress' ? record : undefined),

  interrupted: (_, record, at) => Promise.resolve(endedAutoImport(record, { kind: 'canceled' }, at)),

  failed: (record, failure, at) => endedAutoImport(record, { kind: 'failed', failure }, at),

  async run({ store, container, coordinator, config, clock }, run) {
    const begun = run.now();
    const { properties } = begun;
    const scan = countersOf(properties.status, noImportCounters);
    const sync = countersOf(properties.status.blobSyncEvents, noBlobSyncCounters);
    const rate = new RateWindow(rateWindowMs);
    const counted = (): AutoImportRecord => {
      const rateOfBlobImport = rate.of(sync.totalBlobsImported, clock.now());
      return withCounters(run.now(), scan, { ...sync, rateOfBlobImport }, timeOf(clock));
    };
    const end = await run.during(counted, { persist: false }, async () => {
      const { hierarchical } = container.namespace;
      const prefixes = blobPrefixes(properties.autoImportPrefixes, hierarchical);
      await using source =
        properties.changeSource === 'feed'
          ? new FeedSource({ container, feed: new ChangeFeed(container.changeFeed()), prefixes, clock })
          : new ListingSource({ container, prefixes, folder: run.folder, hierarchical });
      return await runAutoImport({
        native: store.native,
        container,
        coordinator,
        source,
        prefixes,
        mode: properties.conflictResolutionMode,
        enableDeletions: properties.enableDeletions,
        maximumErrors: properties.maximumErrors,
        defaults: config.defaults,
        clock,
        pollIntervalMs: properties.pollIntervalMs,
        progress: begun.progress,
        scan,
        sync,
        log: run.log,
        signal: run.signal,
        async onEvent(event, progress) {
          const record = told(counted(), event, timeOf(clock), run.log.lastError);
          if (progress === undefined) run.show(record);
          else await run.commit({ ...record, progress });
        },
      });
    });
    if (end.kind === 'stopped') return undefined;
    return endedAutoImport(counted(), end, timeOf(clock));
  },
};

/** The counters named by `names`, to be counted on. */
function countersOf<Name extends string>(
  from: Readonly<Record<NoInfer<Name>, number>>,
  names: Readonly<Record<Name, number>>,
): Record<Name, number> {
  const keys = Object.keys(names) as Name[];
  return Object.fromEntries(keys.map((name) => [name, from[name]])) as Record<Name, number>;
}

function withCounters(
  record: AutoImportRecord,
  scan: ImportCounters,
  sync: Partial<BlobSyncEvents>,
  at: string,
): AutoImportRecord {
  const { properties } = record;
  const { status } = properties;
  const { scanStartTime = at, scanEndTime = at } = status;
  return withStatus(record, {
    ...scan,
    rateOfBlobWalk: perSecond(scan.totalBlobsWalked, scanStartTime, scanEndTime),
    rateOfBlobImport: perSecond(scan.totalBlobsImported, scanStartTime, scanEndTime),
    blobSyncEvents: { ...status.blobSyncEvents, ...sync },
  });
}

/** The record after something has happened. */
function told(
  record: AutoImportRecord,
  event: AutoImportEvent,
  at: string,
  lastError: JobLogLine | undefined,
): AutoImportRecord {
  const { status, changeSource, changeSourceReason } = record.properties;
  const disabling = status.state !== 'InProgress';
  const say = (statusMessage: string): Partial<AutoImportStatus> => (disabling ? {} : { statusMessage });
  const synced = (events: Partial<BlobSyncEvents>): Partial<AutoImportStatus> => ({
    blobSyncEvents: { ...status.blobSyncEvents, ...events },
  });
  const source = changeSource === 'feed' ? 'reads the change feed' : 'compares listings';
  const { blob, message } = lastError ?? {};
  const latest =
    message === undefined ? '' : `; the latest error: ${blob === undefined ? '' : `${blob}: `}${message}`;
  const runs = `Auto-import: blob sync ${source} (${changeSourceReason})`;
  switch (event.kind) {
    case 'scan-started': {
      const { scanEndTime: _, ...rest } = status;
      return withStatus(
        { ...record, properties: { ...record.properties, status: rest } },
        { scanStartTime: at, ...say('Auto-import: the full sync is running') },
      );
    }
    case 'scan-ended':
      return withStatus(record, { scanEndTime: at, ...say(`${runs}${latest}`) });
    case 'applied':
      return event.newestMs === undefined
        ? record
        : withStatus(
            record,
            synced({ lastChangeFeedEventConsumedTime: new Date(event.newestMs).toISOString() }),
          );
    case 'polled': {
      const polledTime = new Date(event.atMs).toISOString();
      if (event.busy === 0)
        return withStatus(record, {
          ...synced({ lastTimeFullySynchronized: polledTime }),
          ...say(`${runs}${latest}`),
        });
      const waits = `changes that wait for files in use: ${event.busy}, tried last at ${polledTime}`;
      return withStatus(record, say(`${runs}; ${waits}${latest}`));
    }
    case 'waiting':
      return withStatus(record, say(`Auto-import waits for the container: ${event.why}`));
  }
}

function withStatus(record: AutoImportRecord, status: Partial<AutoImportStatus>): AutoImportRecord {
  const { properties } = record;
  return { ...record, properties: { ...properties, status: { ...properties.status, ...status } } };
}
