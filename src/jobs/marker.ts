/** The file IMPORT_<state>.<start> in the root of the mount, by which AMLFS shows an import to users of the mount. */
import { closeSync, constants } from 'node:fs';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import type { NativeStore } from '../store/inodes.js';

export const markerStates = ['Importing', 'Cancelling', 'Canceled', 'Failed'] as const;
export type MarkerState = (typeof markerStates)[number];

const createNew = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY;

const pattern = new RegExp(`^IMPORT_(?:${markerStates.join('|')})\\.\\d{8}T\\d{6}Z$`);

/** `IMPORT_Importing.20260131T235959Z`, of a start time in ISO 8601. */
export function markerName(state: MarkerState, startedTime: string): string {
  return `IMPORT_${state}.${compactTime(startedTime)}`;
}

/** Whether a path (relative to the root) is a marker: never exported. */
export function isMarker(path: string): boolean {
  return pattern.test(path);
}

/** `20260131T235959Z`: UTC, to the second. */
export function compactTime(time: string): string {
  return new Date(time).toISOString().replace(/[-:]|\.\d+/g, '');
}

export interface MarkerOptions {
  readonly native: NativeStore;
  readonly log: Log;
  readonly startedTime: string;
}

/** The marker of one import. Its failures are logged: no import fails for its marker. */
export class Marker {
  readonly #options: MarkerOptions;
  #shown: string | undefined;
  #changes: Promise<void> = Promise.resolve();

  constructor(options: MarkerOptions) {
    this.#options = options;
  }

  /** Shows a state; undefined: takes the marker away. In the order of the calls. */
  show(state: MarkerState | undefined): Promise<void> {
    this.#changes = this.#changes.then(() => this.#change(state));
    return this.#changes;
  }

  async #change(state: MarkerState | undefined): Promise<void> {
    const { native, log, startedTime } = this.#options;
    const name = state === undefined ? undefined : markerName(state, startedTime);
    if (name === this.#shown) return;
    try {
      // Made anew: a rename would count as a name that a user changed.
      if (name !== undefined) closeSync(await native.openBeneath(name, createNew, 0o444));
      if (this.#shown !== undefined) await removeMarkers(native, [this.#shown]);
      this.#shown = name;
    } catch (error) {
      log.warn({ marker: name, cause: messageChain(error) }, 'the import marker could not be changed');
    }
  }

  /** Takes away what imports that began at these times have left. */
  async removeOld(startedTimes: readonly string[]): Promise<void> {
    const { native, log } = this.#options;
    const names = startedTimes.flatMap((time) => markerStates.map((state) => markerName(state, time)));
    await removeMarkers(native, [...new Set(names)]).catch((error: unknown) => {
      log.warn({ cause: messageChain(error) }, 'old import markers could not be removed');
    });
  }
}

async function removeMarkers(native: NativeStore, names: readonly string[]): Promise<void> {
  const found = await native.lookup(names);
  for (const [at, state] of found.entries()) {
    const name = names[at];
    // A user's own directory of that name stays; so does a file with content.
    if (name === undefined || state?.type !== 'file' || state.size > 0) continue;
    await native.remove(name, state.fid);
  }
}
