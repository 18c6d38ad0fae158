import { constants } from 'node:os';
import t from 'tap';
import {
  actionName,
  flagsText,
  HUA_ARCHIVE,
  HUA_CANCEL,
  HUA_REMOVE,
  HUA_RESTORE,
} from '../../src/hsm/flags.js';
import { defaultParameters } from '../../src/hsm/parameters.js';
import { decideRequest, permitRelease, permitRequest } from '../../src/hsm/request-rules.js';
import { decideStateSet } from '../../src/hsm/state-set-rules.js';
import type { Caller } from '../../src/store/inodes.js';
import { caller, root } from '../helpers/callers.js';

const { EINVAL, EPERM, EROFS } = constants.errno;

const owner = caller(1000);
const other = caller(1002);
/** Root whose capabilities were taken, and a user who was given some. */
const bare = caller(0);
const administrator: Caller = { ...other, capabilities: 1n << 21n };
const fowner: Caller = { ...other, capabilities: 1n << 3n };

await t.test('flags are worded in the order of lfs hsm_state', (t) => {
  const rows: readonly (readonly [number, string])[] = [
    [0x00, ''],
    [0x01, 'exists'],
    [0x03, 'exists dirty'],
    [0x09, 'exists archived'],
    [0x0b, 'exists dirty archived'],
    [0x0d, 'released exists archived'],
    [0x1d, 'released exists archived never_release'],
    [0x20, 'never_archive'],
    [0x4d, 'released exists archived lost_from_hsm'],
    [0x7f, 'released exists dirty archived never_release never_archive lost_from_hsm'],
  ];
  for (const [flags, text] of rows) t.equal(flagsText(flags), text, flags.toString(16));
  t.equal(actionName(HUA_RESTORE), 'RESTORE');
  t.equal(actionName(99), '99');
  t.end();
});

await t.test('archive, restore and remove are decided by flags as in lustre-hsm 3.9', (t) => {
  // q: queued, -: success and nothing queued, P: EPERM.
  const rows: readonly (readonly [number, string])[] = [
    [0x00, 'q--'],
    [0x01, 'q-q'],
    [0x03, 'qPq'],
    [0x02, 'qP-'],
    [0x08, '--q'],
    [0x09, '--q'],
    [0x0b, 'qPq'],
    [0x0d, '-qP'],
    [0x19, '--q'],
    [0x20, 'P--'],
    [0x29, '--q'],
    [0x2b, 'PPq'],
    [0x2d, '-qP'],
    [0x49, '--q'],
    [0x4b, 'qPq'],
    [0x4d, '-PP'],
    [0x05, 'qPP'],
  ];
  for (const [flags, wanted] of rows) {
    const decided = ([HUA_ARCHIVE, HUA_RESTORE, HUA_REMOVE] as const).map((action) => {
      const decision = decideRequest(action, { flags, archiveId: 1 }, 0);
      if (decision.kind === 'refused') t.equal(decision.errno, EPERM);
      return { queue: 'q', 'not-needed': '-', refused: 'P' }[decision.kind];
    });
    t.equal(decided.join(''), wanted, `0x${flags.toString(16)}`);
  }
  t.end();
});

await t.test('an archive to another archive id than the file has is refused once it exists', (t) => {
  const rows: readonly (readonly [number, number, number, string])[] = [
    [0x00, 0, 5, 'queue'],
    [0x03, 1, 0, 'queue'],
    [0x03, 1, 1, 'queue'],
    [0x03, 1, 2, 'refused'],
    [0x02, 1, 2, 'queue'],
    [0x09, 1, 2, 'not-needed'],
  ];
  for (const [flags, archiveId, requested, wanted] of rows) {
    t.equal(decideRequest(HUA_ARCHIVE, { flags, archiveId }, requested).kind, wanted);
  }
  t.equal(decideRequest(HUA_REMOVE, { flags: 0x09, archiveId: 1 }, 2).kind, 'queue');
  t.end();
});

await t.test('it takes CAP_SYS_ADMIN to do more than restore; a read-only mount allows nothing else', (t) => {
  const rows: readonly (readonly [number, Caller, boolean, number])[] = [
    [HUA_RESTORE, other, false, 0],
    [HUA_RESTORE, other, true, 0],
    [HUA_ARCHIVE, other, false, EPERM],
    [HUA_ARCHIVE, owner, false, EPERM],
    [HUA_ARCHIVE, root, false, 0],
    [HUA_ARCHIVE, root, true, EROFS],
    [HUA_REMOVE, root, false, 0],
    [HUA_REMOVE, other, false, EPERM],
    [HUA_CANCEL, root, false, 0],
    [HUA_CANCEL, other, false, EPERM],
    [HUA_ARCHIVE, bare, false, EPERM],
    [HUA_RESTORE, bare, false, 0],
    [HUA_ARCHIVE, administrator, false, 0],
    [HUA_ARCHIVE, fowner, false, EPERM],
  ];
  for (const [action, caller, readOnly, errno] of rows) {
    t.equal(
      permitRequest(action, caller, { uid: 1000, gid: 50 }, { readOnly, masks: defaultParameters.masks }),
      errno,
      `${actionName(action)} by ${caller.uid}`,
    );
  }
  t.end();
});

await t.test('a release is refused for its flags before anything else', (t) => {
  const rows: readonly (readonly [flags: number, readOnly: boolean, errno: number])[] = [
    [0x00, false, EPERM],
    [0x00, true, EPERM],
    [0x01, true, EPERM],
    [0x0b, true, EPERM],
    [0x19, true, EPERM],
    [0x1d, true, EPERM],
    [0x4d, false, EPERM],
    [0x08, false, 0],
    [0x09, false, 0],
    [0x0d, false, 0],
    [0x29, false, 0],
    [0x09, true, EROFS],
    [0x0d, true, EROFS],
  ];
  for (const [flags, readOnly, errno] of rows)
    t.equal(permitRelease(flags, readOnly), errno, `0x${flags.toString(16)}${readOnly ? ', read-only' : ''}`);
  t.end();
});

await t.test('hsm_set and hsm_clear follow the checks of lustre-hsm 2.2 in their order', (t) => {
  interface Row {
    readonly what: string;
    readonly flags: number;
    readonly set?: number;
    readonly clear?: number;
    readonly archiveId?: number;
    readonly caller?: Caller;
    readonly wanted: number | 'nothing' | 'change';
  }
  const rows: readonly Row[] = [
    { what: 'an unknown bit', flags: 0, set: 0x80, wanted: EINVAL },
    { what: 'an unknown bit from a user', flags: 0, set: 0x80, caller: owner, wanted: EINVAL },
    { what: 'an unknown bit beyond 32', flags: 0, clear: 2 ** 40, wanted: EINVAL },
    { what: 'archived by its owner', flags: 0x01, set: 0x08, caller: owner, wanted: EPERM },
    { what: 'norelease by its owner', flags: 0x09, set: 0x10, caller: owner, wanted: 'change' },
    { what: 'norelease by somebody else', flags: 0x09, set: 0x10, caller: other, wanted: EPERM },
    { what: 'dirty by its owner', flags: 0x09, set: 0x02, caller: owner, wanted: 'change' },
    { what: 'archived by root without capabilities', flags: 0x01, set: 0x08, caller: bare, wanted: EPERM },
    { what: 'archived by an administrator', flags: 0x01, set: 0x08, caller: administrator, wanted: EPERM },
    { what: 'norelease with CAP_FOWNER', flags: 0x09, set: 0x10, caller: fowner, wanted: 'change' },
    { what: 'archived with CAP_FOWNER', flags: 0x01, set: 0x08, caller: fowner, wanted: EPERM },
    { what: 'dirty on a new file', flags: 0x00, set: 0x02, wanted: EINVAL },
    { what: 'dirty on a released file', flags: 0x0d, set: 0x02, wanted: EINVAL },
    { what: 'lost without archived', flags: 0x01, set: 0x40, wanted: EINVAL },
    { what: 'archived cleared on a released file', flags: 0x0d, clear: 0x08, wanted: EINVAL },
    { what: 'exists cleared on a dirty file', flags: 0x0b, clear: 0x01, wanted: EINVAL },
    { what: 'archived without exists', flags: 0x00, set: 0x08, wanted: 'change' },
    { what: 'norelease on a released file', flags: 0x0d, set: 0x10, wanted: 'change' },
    { what: 'an id on a file without exists', flags: 0x00, set: 0x20, archiveId: 3, wanted: 'nothing' },
    { what: 'an id with exists', flags: 0x00, set: 0x01, archiveId: 3, wanted: 'change' },
    { what: 'id 0 means none', flags: 0x00, set: 0x20, archiveId: 0, wanted: 'change' },
    { what: 'flags that are set already', flags: 0x19, set: 0x10, wanted: 'nothing' },
    { what: 'released set', flags: 0x09, set: 0x04, wanted: EPERM },
    { what: 'released cleared', flags: 0x0d, clear: 0x04, wanted: EPERM },
    { what: 'set and clear of one bit clears', flags: 0x09, set: 0x10, clear: 0x10, wanted: 'nothing' },
  ];
  for (const { what, flags, set = 0, clear = 0, archiveId, caller = root, wanted } of rows) {
    const change = decideStateSet(
      { flags, archiveId: 1, uid: 1000 },
      { set, clear, caller, ...(archiveId === undefined ? {} : { archiveId }) },
    );
    t.equal(change.kind === 'refused' ? change.errno : change.kind, wanted, what);
  }
  t.end();
});
