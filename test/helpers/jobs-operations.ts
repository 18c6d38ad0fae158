/** What happens in a run of the model of the jobs: operations of users, of other clients of the container, and jobs. */
import type { ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import { conflictModes } from '../../src/jobs/import/conflict-mode.js';
import type { Dice } from './tree.js';

export type Kind = 'file' | 'directory' | 'symlink';

/** What a blob's metadata says of its owner and mode; nothing: the defaults are taken. */
export interface Said {
  readonly mode: number;
  readonly owner: string;
}

export type RemoteOp =
  | {
      readonly op: 'put';
      readonly name: string;
      readonly kind: Kind;
      readonly data: string;
      readonly said: Said | undefined;
    }
  | { readonly op: 'delete'; readonly name: string };

/** What users do without waiting for the container. */
export type LocalOp =
  | { readonly op: 'write'; readonly name: string; readonly data: string }
  | { readonly op: 'symlink'; readonly name: string; readonly target: string }
  | { readonly op: 'mkdir' | 'rm'; readonly name: string }
  | { readonly op: 'chmod'; readonly name: string; readonly mode: number }
  | { readonly op: 'mv'; readonly name: string; readonly to: string };

/** At once. */
export type During = readonly (RemoteOp | LocalOp)[];

/** Of exports behind each change: all that is saved from being overwritten is written in them, too. */
export const iterations = 4;

export type Job =
  | { readonly op: 'import'; readonly mode: ConflictMode; readonly prefixes: readonly string[] }
  | { readonly op: 'export'; readonly prefix: string }
  | {
      readonly op: 'auto-export';
      readonly prefix: string;
      /** Between two iterations each. */
      readonly during: readonly During[];
    }
  | {
      readonly op: 'auto-import';
      readonly mode: ConflictMode;
      readonly prefixes: readonly string[];
      readonly deletions: boolean;
      /** Between two polls each. */
      readonly during: readonly During[];
    };

/** A job that ends at one of its calls, the `after`th, or is refused it, and is then run again until nothing changes any more. */
export interface Interrupted {
  readonly op: 'interrupted';
  readonly job: Extract<Job, { readonly op: 'import' | 'export' }>;
  readonly how: 'cancel' | 'restart' | 'refuse';
  readonly after: number;
}

export type Op =
  RemoteOp | LocalOp | { readonly op: 'read' | 'release'; readonly name: string } | Job | Interrupted;

const names = ['a', 'b', 'c', 'd', 'd/e', 'd/f', 'd/g/h', 'd/g', 'k'] as const;
const targets = ['a', '../b', '/absent'];
const modes = [0o600, 0o755, 0o1777];
const owners = ['0:0', '5:6'];
/** The whole container more often than a part of it. */
const prefixes = [['/'], ['/'], ['/'], ['d'], ['/d/'], ['/a', 'd/g'], ['d/e', 'd/f', '/k']];
const paths = ['/', '/', '/', '/d', 'd/', '/d/g', '/a'];

/** Of a prefix, whose leading '/' is the root. */
export function withoutRoot(prefix: string): string {
  return prefix.replace(/^\//, '');
}

function remoteOp(dice: Dice, serial: string): RemoteOp {
  const name = dice.pick(names);
  if (dice.below(3) === 0) return { op: 'delete', name };
  const kind = dice.pick(['file', 'file', 'file', 'directory', 'symlink'] as const);
  const data = kind === 'file' ? `remote ${serial}` : kind === 'symlink' ? dice.pick(targets) : '';
  const said = dice.below(2) === 0 ? undefined : { mode: dice.pick(modes), owner: dice.pick(owners) };
  return { op: 'put', name, kind, data, said };
}

function localOp(dice: Dice, serial: string): LocalOp {
  const name = dice.pick(names);
  switch (dice.below(9)) {
    case 0:
    case 1:
    case 2:
      return { op: 'write', name, data: `local ${serial}` };
    case 3:
      return { op: 'symlink', name, target: dice.pick(targets) };
    case 4:
      return { op: 'mkdir', name };
    case 5:
      return { op: 'chmod', name, mode: dice.pick(modes) };
    case 6:
    case 7:
      return { op: 'mv', name, to: dice.pick(names) };
    default:
      return { op: 'rm', name };
  }
}

export function randomOp(dice: Dice, serial: number): Op {
  switch (dice.below(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return remoteOp(dice, String(serial));
    case 4:
    case 5:
    case 6:
    case 7:
      return localOp(dice, String(serial));
    case 8:
      return { op: 'read', name: dice.pick(names) };
    case 9:
      return { op: 'release', name: dice.pick(names) };
    case 10:
    case 11:
      return { op: 'import', mode: dice.pick(conflictModes), prefixes: dice.pick(prefixes) };
    case 12:
      return { op: 'export', prefix: dice.pick(paths) };
    case 13: {
      const [how, after] = [dice.pick(['cancel', 'restart', 'refuse'] as const), dice.below(40)];
      const mode = dice.pick(['Skip', 'OverwriteIfDirty', 'OverwriteAlways'] as const);
      const job =
        dice.below(2) === 0
          ? ({ op: 'import', mode, prefixes: dice.pick(prefixes) } as const)
          : ({ op: 'export', prefix: dice.pick(paths) } as const);
      return { op: 'interrupted', job, how, after };
    }
    case 14:
      return { op: 'auto-export', prefix: dice.pick(paths), during: duringPolls(dice, serial) };
    default:
      return {
        op: 'auto-import',
        mode: dice.pick(conflictModes),
        prefixes: dice.pick(prefixes),
        deletions: dice.below(4) !== 0,
        during: duringPolls(dice, serial),
      };
  }
}

function duringPolls(dice: Dice, serial: number): readonly During[] {
  return Array.from({ length: 1 + dice.below(3) }, (_, poll) => duringPoll(dice, `${serial}.${poll}`));
}

/** One change a blob: what a poll sees of two is the last. */
function duringPoll(dice: Dice, serial: string): During {
  const remote = Array.from({ length: 1 + dice.below(3) }, (_, n) => remoteOp(dice, `${serial}.${n}`));
  const local = Array.from({ length: dice.below(3) }, (_, n) => localOp(dice, `${serial}.${n}`));
  return [...local, ...new Map(remote.map((change) => [change.name, change])).values()];
}
