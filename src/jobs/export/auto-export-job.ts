/** Auto-export as a job: one export after the other, until it is disabled. */
import {
  autoExportRuns,
  endedAutoExport,
  type AutoExportRecord,
  type AutoExportStatus,
} from './auto-export-record.js';
import { ExportMemory } from './export-memory.js';
import { noExportCounters, type ExportCounters } from './export-record.js';
import { runExport, type MutableExportCounters } from './export.js';
import { canceled, type JobEnd } from '../job-end.js';
import { timeOf, type JobType } from '../job-type.js';
import { RepeatedLines } from '../repeated-lines.js';

const mib = 2 ** 20;

export const autoExportJob: JobType<AutoExportRecord> = {
  ending: (record) => ({
    ...record,
    properties: {
      ...record.properties,
      adminStatus: 'Disable',
      status: {
        ...record.properties.status,
        state: 'Disabling',
        statusMessage: 'Auto Export ends with the iteration that runs',
      },
    },
  }),

  resume: (_, record) =>
    Promise.resolve(record.properties.status.state === 'InProgress' ? record : undefined),

  interrupted: (_, record, at) => Promise.resolve(endedAutoExport(record, { kind: 'stopped' }, at)),

  failed: (record, failure, at) => endedAutoExport(record, { kind: 'failed', failure }, at),

  async run({ store, container, coordinator, config, clock }, run) {
    const { autoExportPrefixes, pollIntervalMs } = run.now().properties;
    // Somebody who disables the job waits for its iteration; a daemon that stops does not.
    const iteration = run.stop;
    const log = new RepeatedLines(run.log);
    const memory = new ExportMemory();
    // The record of a new job begins with its first iteration.
    let begun = run.resumed ? 1 : 0;
    let firstProblem: string | undefined;
    let end: JobEnd<{ readonly firstProblem: string | undefined }>;
    do {
      const last = run.now();
      const exportIterationCount = last.properties.status.exportIterationCount + begun;
      const before = withStatus(last, { exportIterationCount });
      begun = 1;
      const counters: MutableExportCounters = { ...noExportCounters };
      const current = (): AutoExportRecord => withCounters(run.now(), before, counters);
      end = await run.during(current, { persist: true, signal: iteration }, async () => {
        firstProblem = await runExport({
          native: store.native,
          container,
          coordinator,
          clock,
          filesystemPath: autoExportPrefixes[0] ?? '/',
          parallel: 2 * config.hsm.maxRequests,
          extended: !config.compat.strict,
          ifMatch: config.export.ifMatch,
          counters,
          memory,
          log,
          signal: iteration,
        });
        return { firstProblem };
      });
      const at = timeOf(clock);
      if (end.kind === 'stopped') return undefined;
      if (end.kind !== 'done') return endedAutoExport(current(), end, at);
      log.endIteration();
      memory.endIteration();
      await run.log.written();
      const { status } = before.properties;
      await run.commit(withStatus(current(), iterated(status, counters, firstProblem, at)));
      await clock.sleep(pollIntervalMs, run.signal).catch(() => undefined);
    } while (!run.signal.aborted);
    if (run.signal.reason !== canceled) return undefined;
    return endedAutoExport(run.now(), end, timeOf(clock));
  },
};

function withCounters(
  record: AutoExportRecord,
  before: AutoExportRecord,
  now: MutableExportCounters,
): AutoExportRecord {
  const { status } = before.properties;
  const bytes = (before.exportedBytes ?? status.totalMiBExported * mib) + now.totalBytesExported;
  const counted = {
    totalFilesExported: status.totalFilesExported + now.totalFilesExported,
    totalMiBExported: Math.floor(bytes / mib),
    exportIterationCount: status.exportIterationCount,
    currentIterationFilesDiscovered: now.filesDiscovered,
    currentIterationMiBDiscovered: Math.floor(now.totalBytesDiscovered / mib),
    currentIterationFilesExported: now.totalFilesExported,
    currentIterationMiBExported: now.totalMiBExported,
    currentIterationFilesFailed: now.totalFilesFailed,
  };
  return withStatus({ ...record, exportedBytes: bytes }, counted);
}

function iterated(
  before: AutoExportStatus,
  { totalFilesFailed }: ExportCounters,
  firstProblem: string | undefined,
  at: string,
): Partial<AutoExportStatus> {
  if (totalFilesFailed === 0) {
    return {
      totalFilesFailed: 0,
      lastSuccessfulIterationCompletionTimeUTC: at,
      statusMessage: autoExportRuns,
    };
  }
  return {
    totalFilesFailed: before.totalFilesFailed + totalFilesFailed,
    statusMessage: `${autoExportRuns}; not everything could be exported, the first: ${firstProblem ?? '?'}`,
  };
}

function withStatus(record: AutoExportRecord, status: Partial<AutoExportStatus>): AutoExportRecord {
  const { properties } = record;
  return { ...record, properties: { ...properties, status: { ...properties.status, ...status } } };
}
