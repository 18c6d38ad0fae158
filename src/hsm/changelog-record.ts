/** Records of the changelog with Lustre's numbers, flags and text (lustre-hsm 6). */
import type { ChangelogRecordView } from '../base/control-api.js';
import { pathText } from '../base/path-text.js';
import type { Change } from '../store/inodes.js';
import { HS_DIRTY, HUA_ARCHIVE, HUA_REMOVE, HUA_RESTORE } from './flags.js';

export const changelogTypes = { MARK: 0, UNLNK: 6, RENME: 8, HSM: 16 } as const;
export type ChangelogType = keyof typeof changelogTypes;

export type ChangelogRecord = Omit<ChangelogRecordView, 'text'> & { readonly type: ChangelogType };
export type ChangelogEvent = Omit<ChangelogRecord, 'index'>;

/** Where there is no file. */
export const noFid = '[0:0x0:0x0]';

const HE_ARCHIVE = 0;
const HE_RESTORE = 1;
const HE_CANCEL = 2;
const HE_RELEASE = 3;
const HE_REMOVE = 4;
const HE_STATE = 5;

/** An errno that has no room: bits 0 to 6. */
const overflow = 0x7f;
const dirtyBit = 0x400;
/** UNLNK and RENME: the last name; a copy may be left. */
const lastName = 0x1;
const copyLeft = 0x2;

/** The flags word of an HSM event: errno in bits 0 to 6, event in 7 to 9, dirty in 10. */
export function hsmWord(event: number, errno: number, dirty: boolean): number {
  return Math.min(errno, overflow) | (event << 7) | (dirty ? dirtyBit : 0);
}

/** The word for the end of a request: HUA_* and errno. */
export function endWord(action: number, errno: number, dirty: boolean): number {
  const events = new Map([
    [HUA_ARCHIVE, HE_ARCHIVE],
    [HUA_RESTORE, HE_RESTORE],
    [HUA_REMOVE, HE_REMOVE],
  ]);
  return hsmWord(events.get(action) ?? HE_CANCEL, errno, dirty);
}

/** What the store has seen. */
export function eventOfChange(change: Change): ChangelogEvent {
  const common = { time: String(change.atNs), target: change.fid ?? noFid };
  switch (change.kind) {
    case 'state':
      return {
        type: 'HSM',
        flags: hsmWord(HE_STATE, 0, ((change.flags ?? 0) & HS_DIRTY) !== 0),
        ...common,
      };
    case 'release':
      return { type: 'HSM', flags: hsmWord(HE_RELEASE, 0, false), ...common };
    case 'restore':
      return { type: 'HSM', flags: hsmWord(HE_RESTORE, 0, false), ...common };
    case 'unlink':
      return { type: 'UNLNK', flags: nameWord(change), ...common, ...place(change) };
    case 'rename':
      return {
        type: 'RENME',
        flags: nameWord(change),
        ...common,
        ...place(change),
        source: change.moved ?? noFid,
        sourceParent: change.movedParent ?? noFid,
        sourceName: pathText(change.movedName ?? ''),
      };
  }
}

/** The line of `lfs changelog`: UTC, to the nanosecond. A name with a space is quoted: fields end there. A mark is text. */
export function recordText(record: ChangelogRecord): string {
  const { index, type, flags, time, target, parent, name, source, sourceParent, sourceName } = record;
  const ns = BigInt(time);
  const [date = '', clock = ''] = new Date(Number(ns / 1_000_000n)).toISOString().split('T');
  const fraction = String(ns % 1_000_000_000n).padStart(9, '0');
  const number = String(changelogTypes[type]).padStart(2, '0');
  const what = `${number}${type.padEnd(5)}`;
  const when = `${clock.slice(0, 8)}.${fraction} ${date.replaceAll('-', '.')}`;
  const at = name === undefined ? '' : ` p=${parent ?? noFid} ${type === 'MARK' ? name : field(name)}`;
  const from =
    source === undefined ? '' : ` s=${source} sp=${sourceParent ?? noFid} ${field(sourceName ?? '')}`;
  return `${index} ${what} ${when} 0x${flags.toString(16)} t=${target}${at}${from}`;
}

function field(name: string): string {
  return name.includes(' ') && !name.startsWith('"') ? `"${name}"` : name;
}

function nameWord({ last, exists }: Change): number {
  return last === true ? lastName | (exists === true ? copyLeft : 0) : 0;
}

function place({ parent, name }: Change): Pick<ChangelogEvent, 'parent' | 'name'> {
  return { parent: parent ?? noFid, name: pathText(name ?? '') };
}
