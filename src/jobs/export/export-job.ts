/** Export as a job: its record, its progress, and what a restart makes of it. */
import {
  endedExport,
  exportRates,
  interruptedExport,
  noExportCounters,
  type ExportRecord,
} from './export-record.js';
import { runExport, type MutableExportCounters } from './export.js';
import { timeOf, type JobType } from '../job-type.js';

export const exportJob: JobType<ExportRecord> = {
  ending: (record) => ({
    ...record,
    properties: {
      ...record.properties,
      adminStatus: 'Cancel',
      status: { ...record.properties.status, state: 'Cancelling' },
    },
  }),

  resume: () => Promise.resolve(undefined),

  interrupted: (_, record, at) =>
    Promise.resolve(interruptedExport(record, record.properties.status.state === 'Cancelling', at)),

  failed: (record, failure, at) => endedExport(record, { kind: 'failed', failure }, at),

  async run({ store, container, coordinator, config, clock }, run) {
    const counters: MutableExportCounters = { ...noExportCounters };
    let all = 0;
    const current = (): ExportRecord => {
      const now = run.now();
      const { totalFilesExported, totalFilesFailed, totalFilesSkipped } = counters;
      const tried = totalFilesExported + totalFilesFailed + totalFilesSkipped;
      const percentComplete = all > 0 ? Math.min(99, Math.floor((tried / all) * 100)) : 0;
      const rates = exportRates(counters, now.properties.status.lastStartedTime, timeOf(clock));
      const status = { ...now.properties.status, ...counters, ...rates, percentComplete };
      return { ...now, properties: { ...now.properties, status } };
    };
    const end = await run.during(current, { persist: true }, async () => {
      const firstProblem = await runExport({
        native: store.native,
        container,
        coordinator,
        clock,
        filesystemPath: run.now().properties.filesystemPath,
        parallel: 2 * config.hsm.maxRequests,
        extended: !config.compat.strict,
        ifMatch: config.export.ifMatch,
        counters,
        onCounted(files) {
          all = files;
        },
        log: run.log,
        signal: run.signal,
      });
      return { firstProblem };
    });
    return endedExport(current(), end, timeOf(clock));
  },
};
