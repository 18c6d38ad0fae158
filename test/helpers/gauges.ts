/** What a daemon says, and shows without saying it, that is under way: back to zero when nothing is. */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { StatusReport } from '../../src/base/control-api.js';
import type { HsmStatus } from '../../src/hsm/coordinator.js';

/** What only grows in the coordinator's report. */
const totals = ['restored', 'archived', 'removed', 'failed', 'bytesRestored', 'bytesArchived'];

/** What a front end holds only while somebody asks for something; the rest is kept until the kernel forgets it. */
const transient = ['handles', 'listings', 'questions', 'queued'];

/** Every number of `lustrite status --json` that is neither a total nor a census, by its name there. */
export function gaugesOf(status: StatusReport): Readonly<Record<string, number>> {
  const { recent: _, lastError: __, ...hsm } = status.hsm as HsmStatus;
  return {
    held: status.heldRequests,
    jobs: status.runningJob === null ? 0 : 1,
    ...numbers(
      'counters',
      Object.entries(status.counters ?? {}).filter(([name]) => transient.includes(name)),
    ),
    ...numbers(
      'hsm',
      Object.entries(hsm).filter(([name]) => !totals.includes(name)),
    ),
  };
}

function numbers(prefix: string, entries: readonly (readonly [string, unknown])[]): Record<string, number> {
  const found = entries.map(([name, value]): Record<string, number> => {
    const path = `${prefix}.${name}`;
    if (typeof value === 'number') return { [path]: value };
    return typeof value === 'object' && value !== null ? numbers(path, Object.entries(value)) : {};
  });
  return Object.assign({}, ...found) as Record<string, number>;
}

/** Files of the namespace that the daemon has open, and its leases; suspended files are among the former. */
export function openInStore({ pid, store }: Pick<StatusReport, 'pid' | 'store'>): {
  readonly files: readonly string[];
  readonly leases: number;
} {
  const folder = `/proc/${pid}/fd`;
  const files = readdirSync(folder).flatMap((fd) => {
    try {
      const target = readlinkSync(join(folder, fd));
      // Folders are kept open on purpose.
      return target.startsWith(join(store, 'ns/')) && statSync(join(folder, fd)).isFile() ? [target] : [];
    } catch {
      return []; // closed meanwhile
    }
  });
  const leases = readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .filter((line) => new RegExp(`: LEASE .* ${pid} `).test(line));
  return { files, leases: leases.length };
}
