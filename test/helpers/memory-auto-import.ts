/** An auto-import over memory: enabled, polled, disabled. */
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import type { ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import { stateOf } from '../../src/jobs/job.js';
import { polledAt } from './auto-import.js';
import type { MemoryJobs } from './memory-jobs.js';
import { until } from './poll.js';

export function auto(jobs: MemoryJobs): AutoImportRecord['properties']['status'] {
  return (jobs.runner.get('auto') as AutoImportRecord).properties.status;
}

/** Enables the job 'auto', by listing; resolves when its blob sync has begun, or it has ended. */
export async function autoImport(
  jobs: MemoryJobs,
  mode: ConflictMode = 'Skip',
  prefixes?: readonly string[],
  enableDeletions = true,
): Promise<void> {
  await jobs.runner.create('auto-import', {
    name: 'auto',
    prefixes,
    conflictResolutionMode: mode,
    enableDeletions,
    changeSource: 'listing',
    changeSourceReason: 'as asked for',
    pollIntervalMs: 1,
  });
  const isOver = (): boolean => stateOf(jobs.runner.get('auto')) !== 'InProgress';
  await until(() => isOver() || auto(jobs).scanEndTime !== undefined, { what: 'blob sync', intervalMs: 1 });
}

/** Resolves when the job has looked for changes since, or has ended. */
export async function synced(jobs: MemoryJobs): Promise<void> {
  jobs.hsm.clock.ms += 1000;
  const after = new Date(jobs.hsm.clock.ms).toISOString();
  await until(() => stateOf(jobs.runner.get('auto')) !== 'InProgress' || polledAt(auto(jobs)) >= after, {
    what: 'a poll',
    intervalMs: 1,
  });
}

export async function end(jobs: MemoryJobs): Promise<void> {
  await jobs.runner.cancel('auto').catch(() => undefined);
  await jobs.runner.wait('auto');
}
