/**
 * The coordinator's parameters as `lctl get_param` and `set_param` have them on a metadata server (mdt_coordinator.c:
 * lustre-hsm 5.1): names, defaults, what may be written and how it is read, as data.
 */
import { constants } from 'node:os';
import { FsError } from '../base/errors.js';
import { requestNames, type RequestName } from './flags.js';

/** Whose file is it: the request masks (lustre-hsm 2.4). */
export interface RequestMasks {
  readonly user: readonly RequestName[];
  readonly group: readonly RequestName[];
  readonly other: readonly RequestName[];
}

export interface HsmParameters {
  /** Whoever needs the data of a released file gets ENODATA at once; the restore runs nevertheless. */
  readonly nonBlockingRestore: boolean;
  /** Off: what fails because the storage does not answer is tried again until it does. */
  readonly noRetryAction: boolean;
  readonly defaultArchiveId: number;
  /** Explicit requests that run at a time. */
  readonly maxRequests: number;
  /** Seconds between two looks at requests that wait or stall. */
  readonly loopPeriod: number;
  /** Seconds that a request stays listed when it is over. */
  readonly graceDelay: number;
  /** Seconds without progress after which a running request is canceled. */
  readonly activeRequestTimeout: number;
  readonly masks: RequestMasks;
  /** The copy of a file is removed when its last name and its last handle are gone. */
  readonly removeArchiveOnLastUnlink: boolean;
}

export const defaultParameters: HsmParameters = {
  nonBlockingRestore: false,
  noRetryAction: true,
  defaultArchiveId: 1,
  maxRequests: 3,
  loopPeriod: 10,
  graceDelay: 60,
  activeRequestTimeout: 3600,
  masks: { user: ['RESTORE'], group: ['RESTORE'], other: ['RESTORE'] },
  removeArchiveOnLastUnlink: false,
};

/** One that can be written: its text, and the parameters after a text was written. */
interface Parameter {
  readonly name: string;
  read(now: HsmParameters): string;
  /** The text that comes to the same wherever it is written; absent: every text does. */
  whole?(now: HsmParameters): string;
  /** Throws EINVAL. */
  write(text: string, now: HsmParameters): HsmParameters;
}

type NumberKey = 'defaultArchiveId' | 'maxRequests' | 'loopPeriod' | 'graceDelay' | 'activeRequestTimeout';

const invalid = (what: string): FsError => new FsError(constants.errno.EINVAL, what);

/** Lustre refuses 0 for each of them. */
function positive(name: string, key: NumberKey): Parameter {
  return {
    name,
    read: (now) => String(now[key]),
    write(text, now) {
      const value = /^\s*\d{1,10}\s*$/.test(text) ? Number(text) : 0;
      if (value < 1 || value > 2 ** 31 - 1) throw invalid(`a whole number from 1 to ${2 ** 31 - 1}`);
      return { ...now, [key]: value };
    },
  };
}

function mask(who: keyof RequestMasks): Parameter {
  return {
    name: `hsm.${who}_request_mask`,
    read: ({ masks }) => masks[who].join(' '),
    write(text, now) {
      const named = words(text).map((word) => word.toUpperCase());
      const unknown = named.find((word) => !requestNames.some((name) => name === word));
      if (unknown !== undefined) throw invalid(`'${unknown}': the requests are ${requestNames.join(' ')}`);
      return { ...now, masks: { ...now.masks, [who]: requestNames.filter((name) => named.includes(name)) } };
    },
  };
}

const policies = [
  { key: 'nonBlockingRestore', name: 'NonBlockingRestore', nickname: 'NBR' },
  { key: 'noRetryAction', name: 'NoRetryAction', nickname: 'NRA' },
] as const;

/** `+NBR -NRA` change what is there; names without a sign replace it. */
const policy: Parameter = {
  name: 'hsm.policy',
  read: (now) => policies.map(({ key, name }) => (now[key] ? `[${name}]` : name)).join(' '),
  whole: (now) => policies.map(({ key, nickname }) => (now[key] ? '+' : '-') + nickname).join(' '),
  write(text, now) {
    const named = words(text).map((word) => {
      const sign = /^[+-]/.exec(word)?.[0];
      const name = word.slice(sign?.length ?? 0);
      const found = policies.find((one) => one.name === name || one.nickname === name);
      if (found === undefined)
        throw invalid(`'${name}': the policies are NonBlockingRestore and NoRetryAction`);
      return { sign, key: found.key };
    });
    if (named.length === 0) throw invalid('no policy is named');
    const replaces = named.some(({ sign }) => sign === undefined);
    const on = (key: (typeof policies)[number]['key']): boolean => {
      const last = named.findLast((one) => one.key === key);
      return last === undefined ? !replaces && now[key] : last.sign !== '-';
    };
    return { ...now, nonBlockingRestore: on('nonBlockingRestore'), noRetryAction: on('noRetryAction') };
  },
};

const removeOnLastUnlink: Parameter = {
  name: 'hsm.remove_archive_on_last_unlink',
  read: (now) => (now.removeArchiveOnLastUnlink ? '1' : '0'),
  write(text, now) {
    const value = text.trim();
    if (value !== '0' && value !== '1') throw invalid('0 or 1');
    return { ...now, removeArchiveOnLastUnlink: value === '1' };
  },
};

/** What can be written but for `hsm_control`, in lctl's order. */
export const parameterTable: readonly Parameter[] = [
  positive('hsm.active_request_timeout', 'activeRequestTimeout'),
  positive('hsm.default_archive_id', 'defaultArchiveId'),
  positive('hsm.grace_delay', 'graceDelay'),
  mask('group'),
  positive('hsm.loop_period', 'loopPeriod'),
  positive('hsm.max_requests', 'maxRequests'),
  mask('other'),
  policy,
  removeOnLastUnlink,
  mask('user'),
];

/** In a pattern: no name has so many parts. */
const maxStars = 8;

/** What `hsm_control` can be told, in the order of its `help`. */
export const controlCommands = ['enabled', 'shutdown', 'disabled', 'purge', 'help'] as const;
export type ControlCommand = (typeof controlCommands)[number];

/** Throws EINVAL. */
export function controlCommand(text: string): ControlCommand {
  const command = controlCommands.find((name) => name === text.trim());
  if (command === undefined) throw invalid(`'${text.trim()}': the commands are ${controlCommands.join(' ')}`);
  return command;
}

function words(text: string): readonly string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

/**
 * Whether a pattern of `lctl get_param` names a parameter of the file system `fsName`: `mdt.*.hsm.*`,
 * `mdt/fs-MDT0000/hsm_control`, and, what lctl does not know, the end of a name alone: `hsm.policy`, `max_requests`.
 */
export function parameterMatches(pattern: string, name: string, fsName: string): boolean {
  if (pattern.split('*').length > maxStars) return false;
  const wanted = pattern.split(/[./]/);
  const whole = parameterPath(name, fsName).split('.');
  const part = wanted[0] === 'mdt' ? whole : whole.slice(-wanted.length);
  return part.length === wanted.length && part.every((text, at) => glob(wanted[at] ?? '').test(text));
}

/** `mdt.data-MDT0000.hsm.policy` of `hsm.policy`. */
export function parameterPath(name: string, fsName: string): string {
  return `mdt.${fsName}-MDT0000.${name}`;
}

function glob(pattern: string): RegExp {
  // Of many in a row the search would never end.
  const source = pattern
    .replace(/\*+/g, '*')
    .replace(/[\\^$.*+?()[\]{}|]/g, (one) => (one === '*' ? '.*' : one === '?' ? '.' : `\\${one}`));
  return new RegExp(`^${source}$`);
}
