/**
 * What `lctl` does on a metadata server: reads and writes the coordinator's parameters and turns it on and off. Written
 * values hold until the daemon ends, persistent ones for the life of the store.
 */
import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { FsError, messageChain } from '../base/errors.js';
import type { Clock } from '../base/clock.js';
import type { Log } from '../base/log.js';
import type { NativeStore } from '../store/inodes.js';
import { replaceFile } from '../store/atomic-file.js';
import {
  controlCommand,
  controlCommands,
  parameterMatches,
  parameterPath,
  parameterTable,
  type HsmParameters,
} from './parameters.js';
import { actionsText, activeRequestsText, agentsText, type ListingDefaults } from './request-listing.js';
import type { ListedRequest, TransferTable } from './transfers.js';

const { EINVAL, ENOENT, EACCES } = constants.errno;
const controlName = 'hsm_control';

export interface NamedValue {
  /** `mdt.data-MDT0000.hsm.policy` */
  readonly name: string;
  readonly value: string;
}

export interface HsmControlOptions {
  readonly native: Pick<NativeStore, 'setNonBlockingRestore' | 'setTellGone'>;
  readonly table: TransferTable;
  /** Cancels everything, also what is not in the table yet, for good when it resolves. */
  readonly purge: () => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  readonly fsName: string;
  readonly fsId: string;
  /** Where persistent values are kept. */
  readonly file: string;
  readonly initial: HsmParameters;
}

export class HsmControl {
  readonly #options: HsmControlOptions;
  #now: HsmParameters;
  /** What a restart would begin with. */
  #kept: HsmParameters;
  #persistent: Readonly<Record<string, string>> = {};

  constructor(options: HsmControlOptions) {
    this.#options = options;
    this.#now = this.#kept = options.initial;
  }

  /** As they are now. */
  get parameters(): HsmParameters {
    return this.#now;
  }

  /** Takes up what was written persistently. */
  async start(): Promise<void> {
    const { file, log } = this.#options;
    this.#apply(this.#now);
    try {
      this.#persistent = JSON.parse(await readFile(file, 'utf8')) as Record<string, string>;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    for (const [name, value] of Object.entries(this.#persistent)) {
      try {
        await this.#write(name, value);
      } catch (error) {
        log.warn(
          { parameter: name, value, cause: messageChain(error) },
          'a persistent HSM parameter is ignored',
        );
      }
    }
    this.#kept = this.#now;
  }

  /** Throws ENOENT where a pattern names nothing. */
  get(patterns: readonly string[]): readonly NamedValue[] {
    return patterns.flatMap((pattern) =>
      this.#named(pattern).map((name) => ({ name: this.#path(name), value: this.#read(name) })),
    );
  }

  /** Rejects with EINVAL for a value, EACCES for what can only be read; then nothing of it is written. */
  async set(pattern: string, value: string, persistent: boolean): Promise<readonly NamedValue[]> {
    const names = this.#named(pattern);
    const before = this.#now;
    const done: Promise<void>[] = [];
    try {
      for (const name of names) done.push(this.#write(name, value) ?? Promise.resolve());
    } catch (error) {
      this.#apply(before);
      await Promise.allSettled(done);
      if (!(error instanceof FsError) || error.errno !== EINVAL) throw error;
      throw new FsError(EINVAL, `${pattern}: ${error.message}`);
    }
    await Promise.all(done);
    if (persistent && !names.some((name) => name === controlName && isEvent(value))) {
      let kept = this.#kept;
      const all = { ...this.#persistent };
      for (const name of names) {
        const parameter = parameterTable.find((one) => one.name === name);
        kept = parameter?.write(value, kept) ?? kept;
        all[name] = parameter?.whole?.(kept) ?? value;
      }
      await replaceFile(this.#options.file, JSON.stringify(all), { durable: true });
      this.#persistent = all;
      this.#kept = kept;
    }
    const { log } = this.#options;
    log.info({ parameters: names, value, persistent }, 'HSM parameters were set');
    return names.map((name) => ({ name: this.#path(name), value }));
  }

  #named(pattern: string): readonly string[] {
    const lines = [controlName, ...counts, ...parameterTable.map(({ name }) => name)].sort();
    const names = [...lines, ...listings];
    const found = names.filter((name) => parameterMatches(pattern, name, this.#options.fsName));
    if (found.length === 0) throw new FsError(ENOENT, `no parameter is called '${pattern}'`);
    return found;
  }

  #read(name: string): string {
    const { table, clock } = this.#options;
    const listed = (): readonly ListedRequest[] => table.listed(clock.now() - this.#now.graceDelay * 1000);
    switch (name) {
      case controlName:
        return table.control;
      case 'hsm.actions':
        return actionsText(listed(), this.#defaults());
      case 'hsm.active_requests':
        return activeRequestsText(listed(), this.#defaults());
      case 'hsm.agents':
        return agentsText(table.counts(), this.#defaults());
      case 'hsm.archive_count':
        return String(started(listed(), 'ARCHIVE'));
      case 'hsm.restore_count':
        return String(started(listed(), 'RESTORE'));
      case 'hsm.remove_count':
        return String(started(listed(), 'REMOVE'));
      default:
        return parameterTable.find((one) => one.name === name)?.read(this.#now) ?? '';
    }
  }

  /** Throws at once. */
  #write(name: string, value: string): Promise<void> | undefined {
    if (name === controlName) return this.#command(value);
    const parameter = parameterTable.find((one) => one.name === name);
    if (parameter === undefined) throw new FsError(EACCES, `${name} can only be read`);
    this.#apply(parameter.write(value, this.#now));
    return undefined;
  }

  #apply(next: HsmParameters): void {
    const { table, native } = this.#options;
    this.#now = next;
    table.maxRequests = next.maxRequests;
    native.setNonBlockingRestore(next.nonBlockingRestore);
    native.setTellGone(next.removeArchiveOnLastUnlink);
  }

  #command(text: string): Promise<void> | undefined {
    const { table } = this.#options;
    switch (controlCommand(text)) {
      case 'enabled':
        table.enable();
        return undefined;
      case 'disabled':
        // 2.15; later ones ignore it (lustre-hsm 9).
        if (table.control === 'stopped') throw new FsError(EINVAL, 'the coordinator is stopped');
        table.disable();
        return undefined;
      case 'shutdown':
        table.stop();
        return undefined;
      case 'purge':
        return this.#options.purge();
      case 'help':
        throw new FsError(EINVAL, `the commands are ${controlCommands.join(' ')}`);
    }
  }

  #defaults(): ListingDefaults {
    return { archiveId: this.#now.defaultArchiveId, agent: this.#options.fsId };
  }

  #path(name: string): string {
    return parameterPath(name, this.#options.fsName);
  }
}

const counts = ['hsm.archive_count', 'hsm.remove_count', 'hsm.restore_count'] as const;
/** Many lines each: behind whatever else a pattern names. */
const listings = ['hsm.agents', 'hsm.active_requests', 'hsm.actions'] as const;

/** It happens and is over. */
function isEvent(command: string): boolean {
  return ['purge', 'help'].includes(command.trim());
}

function started(requests: readonly ListedRequest[], action: string): number {
  return requests.filter((one) => one.status === 'STARTED' && one.action === action).length;
}
