import { fileURLToPath } from 'node:url';
import { until } from './poll.js';
import { ok, run, type Ended, type RunOptions } from './run.js';

/** The program as it was built. */
export const lfsPath = fileURLToPath(new URL('../../build/Release/lfs', import.meta.url));

/** HS_* of Lustre's lustre_user.h. */
export const HS = {
  EXISTS: 0x01,
  DIRTY: 0x02,
  RELEASED: 0x04,
  ARCHIVED: 0x08,
  NORELEASE: 0x10,
  NOARCHIVE: 0x20,
  LOST: 0x40,
} as const;

/** What `lfs hsm_state` says of the files that tests meet most. */
export const states = {
  new: 0,
  stub: HS.EXISTS | HS.ARCHIVED | HS.RELEASED,
  clean: HS.EXISTS | HS.ARCHIVED,
  dirty: HS.EXISTS | HS.ARCHIVED | HS.DIRTY,
} as const;

/** The states of lustre-hsm 3.9, without the flags that only users set. */
export const reachable: readonly number[] = [
  states.new, states.clean, states.dirty, states.stub,
  HS.EXISTS, HS.EXISTS | HS.DIRTY, HS.DIRTY,
]; // prettier-ignore

/** A line of `lfs hsm_state`. */
export interface ShownState {
  readonly path: string;
  readonly flags: number;
  readonly words: readonly string[];
  /** Absent: not printed, id 0. */
  readonly archiveId?: number;
}

/** `lfs ARGS…` to its end, whatever its exit code. */
export function lfs(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return run(lfsPath, args, options);
}

/** The lines of `lfs hsm_state` output. Throws on anything that is not such a line. Paths must not hold newlines. */
export function parseStates(output: string): readonly ShownState[] {
  return output
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const match = /^(.*): \(0x([0-9a-f]{8})\)((?: [a-z_]+)*)(?:, archive_id:(\d+))?$/.exec(line);
      const [, path, flags, words, archiveId] = match ?? [];
      if (path === undefined || flags === undefined) throw new Error(`not a line of hsm_state: ${line}`);
      return {
        path,
        flags: Number.parseInt(flags, 16),
        words: words?.split(' ').filter((word) => word !== '') ?? [],
        ...(archiveId !== undefined && { archiveId: Number(archiveId) }),
      };
    });
}

/** The state of one file; rejects when `lfs hsm_state` fails. */
export async function hsmState(path: string): Promise<ShownState> {
  // A name may hold a newline; the text behind it never does.
  const output = await ok(lfsPath, ['hsm_state', path]);
  const [state] = parseStates(output.startsWith(path) ? `file${output.slice(path.length)}` : output);
  if (state === undefined) throw new Error(`lfs hsm_state printed nothing for ${path}`);
  return { ...state, path };
}

/** Only the flags, for `t.equal(await hsmFlags(path), states.dirty)`. */
export async function hsmFlags(path: string): Promise<number> {
  return (await hsmState(path)).flags;
}

/** Waits until a file has exactly these flags: requests are served in the background. */
export async function untilFlags(path: string, flags: number): Promise<void> {
  let seen = -1;
  await until(
    async () => {
      seen = await hsmFlags(path);
      return seen === flags || undefined;
    },
    { what: `${path} to be 0x${flags.toString(16)}` },
  ).catch((error: unknown) => {
    throw new Error(`${path} is 0x${seen.toString(16)}`, { cause: error });
  });
}
