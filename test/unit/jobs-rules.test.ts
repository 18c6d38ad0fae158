import t from 'tap';
import { finalStates } from '../../src/base/control-api.js';
import { exportScope } from '../../src/jobs/export/export.js';
import { deletedOf, deletionActions } from '../../src/jobs/auto-import/deletion.js';
import { ancestors } from '../../src/jobs/import/import.js';
import {
  actionOf,
  conflictActions,
  differenceOf,
  situationOf,
  type Existing,
} from '../../src/jobs/import/conflict.js';
import {
  endedExport,
  interruptedExport,
  noExportCounters,
  type ExportRecord,
} from '../../src/jobs/export/export-record.js';
import { endedImport, noImportCounters, type ImportRecord } from '../../src/jobs/import/import-record.js';
import { transitions } from '../../src/jobs/job.js';
import { JobFailure } from '../../src/jobs/job-end.js';
import { compactTime, isMarker, markerName } from '../../src/jobs/marker.js';
import { Parallel } from '../../src/jobs/parallel.js';
import { blobPrefixes } from '../../src/jobs/import/prefixes.js';
import { readAhead } from '../../src/jobs/import/read-ahead.js';
import { jobNamePattern } from '../../src/jobs/record-fields.js';
import type { Stub } from '../../src/store/inodes.js';

type PrefixRow = readonly [given: readonly string[], wanted: readonly string[] | RegExp];
const overlap = /^the import prefixes '.*' and '.*' overlap$/;

const flatPrefixes: readonly PrefixRow[] = [
  [[], ['']],
  [['/'], ['']],
  [['/data'], ['data']],
  [
    ['/a/', 'b'],
    ['a/', 'b'],
  ],
  [['//x'], ['x']],
  [['/data', '/data2'], /^the import prefixes '\/data' and '\/data2' overlap$/],
  [['/data2', '/data'], overlap],
  [['/', 'x'], overlap],
  [['x', 'x'], overlap],
  [['a', 'b', '/b/c'], overlap],
];

const pathPrefixes: readonly PrefixRow[] = [
  [[], ['']],
  [['/'], ['']],
  [['/data'], ['data']],
  [['/data/'], ['data']],
  [['//data//x/'], ['data/x']],
  [
    ['/data/', '/data2', '/x/data'],
    ['data', 'data2', 'x/data'],
  ],
  [['/data', '/data2'], /^the import prefixes '\/data' and '\/data2' overlap$/],
  [['/data/x2', '/data/x'], overlap],
  [['/data', '/data/x'], /^the import prefixes '\/data' and '\/data\/x' overlap$/],
  [['/data/x', '/data'], overlap],
  [['/data', 'data/'], overlap],
  [['data//x', 'data/x/y'], overlap],
  [['/', '/x'], overlap],
  [['/a/../b'], /^the import prefix '\/a\/\.\.\/b' is no path in the account: /],
  [['a\\b'], /is no path in the account: /],
];

await t.test(
  'prefixes are strings on flat accounts and paths on hierarchical ones, and overlap as strings',
  (t) => {
    for (const [hierarchical, rows] of [
      [false, flatPrefixes],
      [true, pathPrefixes],
    ] as const) {
      for (const [given, wanted] of rows) {
        const title = `${hierarchical ? 'paths' : 'strings'} ${JSON.stringify(given)}`;
        if (!(wanted instanceof RegExp)) t.same(blobPrefixes(given, hierarchical), wanted, title);
        else {
          const error = { name: 'UserError', code: 'InvalidParameter', message: wanted };
          t.throws(() => blobPrefixes(given, hierarchical), error, title);
        }
      }
    }
    t.end();
  },
);

await t.test('names of jobs follow the rule of ARM', (t) => {
  const rows: readonly (readonly [string, boolean])[] = [
    ['ab', true],
    ['import-1_x', true],
    ['a', false],
    ['-ab', false],
    ['ab-', false],
    ['a'.repeat(80), true],
    ['a'.repeat(81), false],
    ['../x', false],
  ];
  for (const [name, good] of rows) t.equal(jobNamePattern.test(name), good, name);
  t.end();
});

await t.test('every state leads to a final one, and final ones lead nowhere', (t) => {
  for (const table of Object.values(transitions) as Record<string, readonly string[]>[]) {
    const finals = Object.keys(table).filter((state) => table[state]?.length === 0);
    t.same(
      finals.filter((state) => !finalStates.includes(state)),
      [],
    );
    for (const [state, next] of Object.entries(table)) {
      t.ok(finals.includes(state) || next.some((one) => finals.includes(one)), state);
      for (const one of next) t.ok(one in table, one);
    }
  }
  t.end();
});

const copy = { blob: 'a', etag: '0x1', size: 3, lastModifiedMs: 5 };
const there: Existing = {
  type: 'file',
  flags: 0x0d,
  modified: false,
  copy,
  mode: 0o100644,
  uid: 1,
  gid: 2,
  mtimeNs: 7n,
  nlink: 1,
};
const blob: Stub = { path: 'a', kind: 'file', mode: 0o644, uid: 1, gid: 2, mtimeNs: 7n, size: 3, copy };
const directory: Stub = { path: 'd', kind: 'directory', mode: 0o755, uid: 1, gid: 2, mtimeNs: 7n, size: 0 };
const link: Stub = {
  path: 'l',
  kind: 'symlink',
  mode: 0o777,
  uid: 1,
  gid: 2,
  mtimeNs: 7n,
  size: 0,
  target: Buffer.from('x'),
};

const implied = { uid: 10, gid: 20, dirMode: 0o750 };

await t.test('what is there stands to a blob in one of thirteen ways, and the reason says in which', (t) => {
  const resident = { ...there, flags: 0x09 };
  const linked = { ...resident, nlink: 2 };
  const hashed: Stub = { ...blob, copy: { ...copy, md5: 'x' } };
  const other = { ...copy, etag: '0x2' };
  const dir: Existing = { ...there, type: 'directory', flags: 0, mode: 0o40755 };
  const symlink: Existing = { ...there, type: 'symlink', flags: 0, target: Buffer.from('x') };
  const { copy: _none, ...without } = resident;
  const rows: readonly (readonly [string, Existing, Stub, string, RegExp | undefined])[] = [
    ['the same stub', there, blob, 'same', undefined],
    ['the same file', resident, blob, 'same-resident', undefined],
    ['the same file, never_release', { ...there, flags: 0x19 }, blob, 'same', undefined],
    ['a modified file', { ...resident, flags: 0x0b, modified: true }, blob, 'dirty-current', /new or changed/],
    ['a modified file of another version', { ...resident, copy: other, modified: true }, blob, 'dirty', /new or changed/],
    ['a file that hsm_set called dirty', { ...resident, flags: 0x0b }, blob, 'dirty-current', /new or changed/],
    ['a new file', { ...without, flags: 0, modified: true }, blob, 'new', /new or changed/],
    ['a changed file of another blob', { ...resident, copy: { ...copy, blob: 'b' }, modified: true }, blob, 'new', /new or changed/],
    ['a new symlink', { ...without, type: 'symlink', flags: 0, target: Buffer.from('y') }, link, 'new', /leads to 'y'/],
    ['a new symlink for a file', { ...without, type: 'symlink', flags: 0, target: Buffer.from('y') }, blob, 'new', /is a symlink/],
    ['a new directory for a file', { ...without, type: 'directory', flags: 0, mode: 0o40700 }, blob, 'new', /is a directory/],
    ['an implied directory for a file', { ...without, type: 'directory', flags: 0, mode: 0o40750, uid: 10, gid: 20 }, blob, 'other-type', /is a directory/],
    ['a clean file without a copy', without, blob, 'new', /new or changed/],
    ['another version, released', { ...there, copy: other }, blob, 'released', /another version/],
    ['another version', { ...resident, copy: other }, blob, 'clean', /another version/],
    ['another version, never_release', { ...resident, flags: 0x19, copy: other }, blob, 'never-release', /another version/],
    ['a file whose blob was lost and is back', { ...resident, flags: 0x49 }, blob, 'same', undefined],
    ['such a file of another mode', { ...resident, flags: 0x49, mode: 0o100600 }, blob, 'never-release', /the mode 0600/],
    ['a file whose blob was lost, and another is there', { ...resident, flags: 0x49, copy: other }, blob, 'dirty', /another version/],
    ['a released file whose blob was lost', { ...there, flags: 0x4d, copy: other }, blob, 'released', /another version/],
    ['a file of another blob', { ...there, copy: { ...copy, blob: 'b' } }, blob, 'released', /from the blob 'b'/],
    ['a link to the same content', { ...linked, copy: { ...copy, blob: 'b', md5: 'x' } }, hashed, 'same', undefined],
    ['a link to other content', { ...linked, copy: { ...copy, blob: 'b', md5: 'y' } }, hashed, 'clean', /from the blob 'b'/],
    ['a link to content of another size', { ...linked, copy: { ...copy, blob: 'b', size: 4, md5: 'x' } }, hashed, 'clean', /from the blob 'b'/],
    ['a link to content that nobody has hashed', { ...linked, copy: { ...copy, blob: 'b' } }, blob, 'clean', /from the blob 'b'/],
    ['a renamed file of the same content', { ...resident, copy: { ...copy, blob: 'b', md5: 'x' } }, hashed, 'clean', /from the blob 'b'/],
    ['another mode', { ...resident, mode: 0o100600 }, blob, 'attributes', /the mode 0600, the blob's has 0644/],
    ['another owner', { ...there, uid: 9 }, blob, 'released', /belongs to 9:2, the blob's to 1:2/],
    ['another group', { ...there, gid: 9 }, blob, 'released', /belongs to 1:9/],
    ['another time', { ...there, mtimeNs: 8n }, blob, 'released', /another modification time/],
    ['a directory for a file', dir, blob, 'other-type', /there is a directory/],
    ['a file for a directory', there, directory, 'other-type', /there is a file/],
    ['a device', { ...there, type: 'special' }, blob, 'other-type', /there is a special/],
    ['the same directory', { ...dir, mtimeNs: 99n }, directory, 'same', undefined],
    ['a directory of another mode', { ...dir, mode: 0o40700 }, directory, 'directory', /the mode 0700/],
    ['an implied directory', { ...without, type: 'directory', flags: 0, mode: 0o40750, uid: 10, gid: 20 }, directory, 'implied-directory', /belongs to 10:20/],
    ['an implied directory of another mode', { ...without, type: 'directory', flags: 0, mode: 0o40700, uid: 10, gid: 20 }, directory, 'directory', /belongs to 10:20/],
    ['an exported directory', { ...dir, mode: 0o40750, uid: 10, gid: 20 }, directory, 'directory', /belongs to 10:20/],
    ['the same symlink', symlink, link, 'same', undefined],
    ['a symlink elsewhere', { ...symlink, target: Buffer.from('y') }, link, 'symlink', /leads to 'y'/],
    ['a symlink of another owner', { ...symlink, uid: 9 }, link, 'symlink', /belongs to 9:2/],
  ]; // prettier-ignore
  for (const [what, existing, stub, situation, reason] of rows) {
    t.equal(situationOf(existing, stub, implied), situation, what);
    if (reason === undefined) t.equal(differenceOf(existing, stub), undefined, what);
    else t.match(differenceOf(existing, stub), reason, what);
  }
  t.same([...new Set(rows.map((row) => row[3]))].sort(), Object.keys(conflictActions).sort(), 'all of them');
  t.end();
});

await t.test('a file never gets the record of a blob that only one of its names stands for', (t) => {
  const other = { ...copy, blob: 'b' };
  const rows: readonly (readonly [string, Existing, string])[] = [
    ['one name', { ...there, copy: other }, 'release'],
    ['two names, of this version', { ...there, nlink: 2, mode: 0o100600 }, 'release'],
    ['two names, of another version', { ...there, nlink: 2, copy: { ...copy, etag: '0x2' } }, 'replace'],
    ['two names, of another blob', { ...there, nlink: 2, copy: other }, 'replace'],
  ];
  for (const [what, existing, action] of rows)
    t.equal(actionOf(conflictActions, 'OverwriteAlways', existing, blob, implied), action, what);
  t.equal(actionOf(conflictActions, 'Skip', { ...there, nlink: 2, copy: other }, blob, implied), 'skip');
  t.end();
});

await t.test(
  'what a deleted blob leaves is judged by what it is, and the modes by the table of the seed',
  (t) => {
    const without = { ...there, flags: 0 };
    const elsewhere = { ...there, copy: { ...copy, blob: 'b' } };
    const rows = [
      ['its released file', { ...there }, 'unmodified'],
      ['a changed file', { ...there, flags: 0x0b, modified: true }, 'modified'],
      ['a file that hsm_set called dirty', { ...there, flags: 0x0b }, 'modified'],
      ['a file whose blob was lost before', { ...there, flags: 0x49 }, 'modified'],
      ['a released file whose blob was lost before', { ...there, flags: 0x4d }, 'unmodified'],
      ['a new file', { type: 'file', flags: 0, modified: true, nlink: 1 }, 'modified'],
      ['a file that came from another name', elsewhere, 'modified'],
      ['a file whose other name it came from', { ...elsewhere, nlink: 2 }, 'unmodified'],
      ['its symlink', { ...without, type: 'symlink' }, 'unmodified'],
      ['a new symlink', { type: 'symlink', flags: 0, modified: false, nlink: 1 }, 'modified'],
      ['a directory', { type: 'directory', flags: 0, modified: false, nlink: 2 }, 'directory'],
      ['a device', { type: 'special', flags: 0, modified: false, nlink: 1 }, undefined],
    ] as const;
    for (const [what, existing, wanted] of rows) t.equal(deletedOf(existing, 'a'), wanted, what);
    // Seed 001: modified or not x "Overwrite if dirty" and "Skip" -> deletion or not.
    const performed = (what: 'modified' | 'unmodified', mode: 'Skip' | 'OverwriteIfDirty'): boolean =>
      deletionActions[what][mode].startsWith('delete');
    t.equal(performed('modified', 'OverwriteIfDirty'), true);
    t.equal(performed('modified', 'Skip'), false);
    t.equal(performed('unmodified', 'OverwriteIfDirty'), true);
    t.equal(performed('unmodified', 'Skip'), true);
    t.end();
  },
);

await t.test('markers are named by state and start, and recognised in the root only', (t) => {
  const name = markerName('Importing', '2026-01-31T23:59:58.123Z');
  t.equal(name, 'IMPORT_Importing.20260131T235958Z');
  t.equal(compactTime('2026-01-31T23:59:58.123Z'), '20260131T235958Z');
  const rows: readonly (readonly [string, boolean])[] = [
    [name, true],
    ['IMPORT_Failed.20260131T235958Z', true],
    ['IMPORT_Done.20260131T235958Z', false],
    [`d/${name}`, false],
    [`${name}.txt`, false],
  ];
  for (const [path, is] of rows) t.equal(isMarker(path), is, path);
  t.end();
});

await t.test('an export walks the directory of its path prefix', (t) => {
  const rows: readonly (readonly [string, string, string])[] = [
    ['/', '', ''],
    ['', '', ''],
    ['/results', '', 'results'],
    ['/results/', 'results', 'results/'],
    ['/results/a/b', 'results/a', 'results/a/b'],
    ['results/a', 'results', 'results/a'],
  ];
  for (const [given, below, prefix] of rows) t.same(exportScope(given), { directory: below, prefix }, given);
  t.same(ancestors('a/b/c'), ['a', 'a/b']);
  t.same(ancestors('a'), []);
  t.end();
});

const start = '2026-01-01T00:00:00.000Z';
const end = '2026-01-01T00:00:10.000Z';

await t.test('the record of an import says how it ended', (t) => {
  const record: ImportRecord = {
    kind: 'import',
    name: 'one',
    properties: {
      adminStatus: 'Active',
      importPrefixes: ['/'],
      conflictResolutionMode: 'Skip',
      maximumErrors: 0,
      status: {
        ...noImportCounters,
        state: 'InProgress',
        statusMessage: '',
        lastStartedTime: start,
        totalBlobsWalked: 100,
        totalBlobsImported: 50,
        totalConflicts: 2,
        totalErrors: 1,
      },
    },
  };
  const rows = [
    [
      { kind: 'done', result: { state: 'Completed', firstProblem: undefined } },
      'Completed',
      'Import job completed successfully',
    ],
    [
      {
        kind: 'done',
        result: { state: 'CompletedPartial', firstProblem: 'b: there is a directory of this name' },
      },
      'CompletedPartial',
      'some blobs were not imported, the first: b: there is a directory of this name; the log of the job names all of them',
    ],
    [{ kind: 'failed', failure: new JobFailure('X', 'because') }, 'Failed', 'because'],
    [{ kind: 'canceled' }, 'Canceled', 'Import job was canceled'],
  ] as const;
  for (const [how, state, statusMessage] of rows) {
    const { status } = endedImport(record, how, end).properties;
    t.match(status, { state, statusMessage, lastCompletionTime: end });
    t.match(status, { blobsWalkedPerSecond: 10, blobsImportedPerSecond: 5 });
  }
  t.end();
});

await t.test('an export that could not export a file has failed', (t) => {
  const record = (totalFilesFailed: number): ExportRecord => ({
    kind: 'export',
    name: 'one',
    properties: {
      adminStatus: 'Active',
      filesystemPath: '/',
      status: {
        ...noExportCounters,
        filesExportedPerSecond: 0,
        mibExportedPerSecond: 0,
        state: 'InProgress',
        lastStartedTime: start,
        percentComplete: 50,
        totalFilesFailed,
      },
    },
  });
  const done = { kind: 'done', result: { firstProblem: 'a/f: because' } } as const;
  t.match(endedExport(record(0), done, end).properties.status, { state: 'Completed', percentComplete: 100 });
  t.match(endedExport(record(1), done, end).properties.status, {
    state: 'Failed',
    errorCode: 'FilesFailed',
    errorMessage: '1 file was not exported: a/f: because; the next export tries it again',
  });
  t.match(endedExport(record(2), done, end).properties.status, {
    errorMessage: /^2 files were not exported, the first: a\/f: because; the log of the job names all/,
  });
  t.match(endedExport(record(1), { kind: 'canceled' }, end).properties.status, { state: 'Canceled' });
  const failure = new JobFailure('InvalidPath', 'no');
  t.match(endedExport(record(0), { kind: 'failed', failure }, end).properties.status, {
    state: 'Failed',
    errorCode: 'InvalidPath',
    percentComplete: 50,
  });
  t.match(endedExport(record(0), { kind: 'stopped' }, end).properties.status, { errorCode: 'Interrupted' });
  t.match(interruptedExport(record(0), true, end).properties.status, { state: 'Canceled' });
  t.end();
});

await t.test(
  'a source is read ahead by no more than asked, and its failure arrives in its place',
  async (t) => {
    let produced = 0;
    async function* source(): AsyncGenerator<number, void, undefined> {
      for (let n = 1; n <= 10; n++) {
        await Promise.resolve();
        produced = n;
        yield n;
      }
      throw new Error('the end of it');
    }
    const seen: number[] = [];
    await t.rejects(
      async () => {
        for await (const n of readAhead(source(), 3)) {
          seen.push(n);
          t.ok(produced <= n + 3, `${produced} were made when ${n} arrived`);
          await new Promise((resolve) => setImmediate(resolve));
        }
      },
      { message: 'the end of it' },
    );
    t.same(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for await (const n of readAhead(source(), 3)) if (n === 2) break;
    t.pass('leaving early ends the source');
  },
);

await t.test('no more runs at a time than allowed, and the first failure is the one reported', async (t) => {
  const work = new Parallel(2);
  let running = 0;
  let most = 0;
  for (let n = 0; n < 10; n++) {
    await work.start(async () => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
    });
  }
  await work.finish();
  t.equal(most, 2);
  const failing = new Parallel(1);
  await failing.start(() => Promise.reject(new Error('first')));
  await t.rejects(
    failing.start(() => Promise.resolve()),
    { message: 'first' },
  );
  await t.rejects(failing.finish(), { message: 'first' });
});
