/** The states of lustre-hsm 3.9 that a file can be in, and what reading, writing and truncating it makes of each. */
import { open, readFile, truncate } from 'node:fs/promises';
import { HS } from '../helpers/lfs.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

const { RELEASED, LOST } = HS;

interface Row {
  readonly state: number;
  /** How a file gets there that is new, clean or a stub. */
  readonly from: 'new' | 'clean' | 'stub';
  readonly by?: readonly string[];
  /** What a read leaves. */
  readonly read: number;
  /** What a write and a truncate leave. */
  readonly written: number;
}

/** A row whose file nobody can read ends ENODATA, whatever is tried. */
const rows: readonly Row[] = [
  { state: 0x00, from: 'new', read: 0x00, written: 0x00 },
  { state: 0x01, from: 'new', by: ['hsm_set --exists'], read: 0x01, written: 0x03 },
  { state: 0x03, from: 'new', by: ['hsm_set --exists --dirty'], read: 0x03, written: 0x03 },
  { state: 0x02, from: 'clean', by: ['hsm_set --dirty', 'hsm_remove'], read: 0x02, written: 0x02 },
  { state: 0x08, from: 'clean', by: ['hsm_clear --exists'], read: 0x08, written: 0x08 },
  { state: 0x09, from: 'clean', read: 0x09, written: 0x0b },
  { state: 0x0b, from: 'clean', by: ['hsm_set --dirty'], read: 0x0b, written: 0x0b },
  { state: 0x0d, from: 'stub', read: 0x09, written: 0x0b },
  { state: 0x19, from: 'clean', by: ['hsm_set --norelease'], read: 0x19, written: 0x1b },
  { state: 0x20, from: 'new', by: ['hsm_set --noarchive'], read: 0x20, written: 0x20 },
  { state: 0x29, from: 'clean', by: ['hsm_set --noarchive'], read: 0x29, written: 0x2b },
  { state: 0x2d, from: 'stub', by: ['hsm_set --noarchive'], read: 0x29, written: 0x2b },
  { state: 0x49, from: 'clean', by: ['hsm_set --lost'], read: 0x49, written: 0x4b },
  { state: 0x4d, from: 'stub', by: ['hsm_set --lost'], read: 0x4d, written: 0x4d },
];

const content = 'content';

interface Operation {
  readonly name: 'read' | 'write' | 'truncate';
  readonly run: (path: string) => Promise<unknown>;
  /** Of the file afterwards. */
  readonly leaves: string;
}

const operations: readonly Operation[] = [
  { name: 'read', run: (path) => readFile(path), leaves: content },
  {
    name: 'write',
    async run(path) {
      const file = await open(path, 'r+');
      try {
        await file.write('C');
      } finally {
        await file.close();
      }
    },
    leaves: 'Content',
  },
  { name: 'truncate', run: (path) => truncate(path, 4), leaves: 'cont' },
];

function nameOf({ state }: Row, { name }: Operation): string {
  return `${hex(state)} ${name}`;
}

/** Files of the rows, three a row, each in its state: as few commands as there can be. */
async function prepare(lab: Lab): Promise<void> {
  const names = (which: (row: Row) => boolean): readonly string[] =>
    rows.filter(which).flatMap((row) => operations.map((operation) => nameOf(row, operation)));
  for (const name of names(() => true)) await lab.write(name, content);
  const archived = names(({ from }) => from !== 'new');
  await lab.ok('hsm_archive', ...archived);
  for (const name of archived) await lab.untilFlags(name, 0x09);
  for (const name of names(({ from }) => from === 'stub')) await lab.released(name);
  for (const row of rows)
    for (const command of row.by ?? []) await lab.ok(command, ...names((one) => one === row));
  for (const row of rows)
    for (const name of names((one) => one === row)) await lab.untilFlags(name, row.state);
}

export const stateTable: Theme = {
  cases: [
    hsm('3.9', 'a read, a write and a truncate of a file in each of the states', async (t, lab) => {
      await prepare(lab);
      for (const row of rows) {
        const unreadable = (row.state & RELEASED) !== 0 && (row.state & LOST) !== 0;
        for (const operation of operations) {
          const name = nameOf(row, operation);
          const done = operation.run(lab.at(name));
          if (unreadable) await t.rejects(done, { code: 'ENODATA' }, name);
          else await done;
          const then = operation.name === 'read' ? row.read : row.written;
          t.equal(hex(await lab.flags(name)), hex(then), name);
          if (unreadable) await lab.ok('hsm_clear --lost', name);
          t.equal(await lab.text(name), unreadable ? content : operation.leaves, name);
        }
      }
    }),
  ],
};

function hex(flags: number): string {
  return `0x${flags.toString(16).padStart(2, '0')}`;
}
