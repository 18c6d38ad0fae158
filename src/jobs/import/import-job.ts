/** Import as a job: its record, its marker in the root, and what a restart makes of it. */
import { startOf } from '../job.js';
import { canceled, stopped, type JobEnd } from '../job-end.js';
import { timeOf, type JobContext, type JobType } from '../job-type.js';
import {
  endedImport,
  noImportCounters,
  startedImport,
  type ImportRecord,
  type ImportResult,
} from './import-record.js';
import { runImport, type MutableImportCounters } from './import.js';
import { Marker } from '../marker.js';
import { blobPrefixes } from './prefixes.js';
import { conflictActions, resumedActions } from './conflict.js';

export const importJob: JobType<ImportRecord> = {
  ending: (record) => ({
    ...record,
    properties: {
      ...record.properties,
      adminStatus: 'Cancel',
      status: { ...record.properties.status, state: 'Cancelling' },
    },
  }),

  async resume(context, record, at) {
    if (record.properties.status.state !== 'InProgress') return undefined;
    // Its record forgets when it began before.
    await markerOf(context, record).removeOld([startOf(record)]);
    return startedImport(record, at);
  },

  async interrupted(context, record, at) {
    const wasCanceled = record.properties.status.state === 'Cancelling';
    const end = wasCanceled
      ? ({ kind: 'canceled' } as const)
      : ({ kind: 'failed', failure: stopped } as const);
    const marker = markerOf(context, record);
    await marker.removeOld([startOf(record)]);
    await marker.show(wasCanceled ? 'Canceled' : 'Failed');
    return endedImport(record, end, at);
  },

  failed: (record, failure, at) => endedImport(record, { kind: 'failed', failure }, at),

  // Its marker: an import that begins later knows only of the jobs that there are.
  forget: (context, record) => markerOf(context, record).removeOld([startOf(record)]),

  async run(context, run) {
    const { store, container, coordinator, config, clock } = context;
    const { signal, resumed, log, history } = run;
    const record = run.now();
    const { properties } = record;
    const counters: MutableImportCounters = { ...noImportCounters };
    const current = (): ImportRecord => withCounters(run.now(), counters);
    const marker = markerOf(context, record);
    const onCancel = (): void => {
      if (signal.reason === canceled) void marker.show('Cancelling');
    };
    signal.addEventListener('abort', onCancel, { once: true });
    const others = history.filter(({ kind }) => kind === 'import').map(startOf);
    await marker.removeOld(resumed ? [...others, startOf(record)] : others);
    await marker.show('Importing');
    const end: JobEnd<ImportResult> = await run.during(current, { persist: true }, () =>
      runImport({
        native: store.native,
        container,
        coordinator,
        prefixes: blobPrefixes(properties.importPrefixes, container.namespace.hierarchical),
        mode: properties.conflictResolutionMode,
        actions: resumed ? resumedActions : conflictActions,
        maximumErrors: properties.maximumErrors,
        defaults: config.defaults,
        startedMs: clock.now(),
        resumed,
        counters,
        log,
        signal,
      }),
    );
    run.decided();
    signal.removeEventListener('abort', onCancel);
    if (end.kind === 'stopped') return undefined;
    const over = endedImport(current(), end, timeOf(clock));
    await marker.show(end.kind === 'canceled' ? 'Canceled' : end.kind === 'failed' ? 'Failed' : undefined);
    return over;
  },
};

function withCounters(record: ImportRecord, counters: MutableImportCounters): ImportRecord {
  const { properties } = record;
  return { ...record, properties: { ...properties, status: { ...properties.status, ...counters } } };
}

function markerOf({ store, log }: JobContext, record: ImportRecord): Marker {
  return new Marker({ native: store.native, log, startedTime: startOf(record) });
}
