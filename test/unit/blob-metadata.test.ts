import t from 'tap';
import { kindOf, lowerCaseKeys, metadataFor, posixOf, specialFileOf } from '../../src/blob/metadata.js';
import type { BlobKind, PosixAttributes } from '../../src/blob/port.js';
import { dialects } from '../helpers/dialects.js';

const march = 1_679_065_211_000_000_000n; // 2023-03-17 15:00:11 UTC

/** What the table of dialects has not: finer than a second, or no metadata at all. */
const further: readonly [title: string, metadata: Record<string, string>, expected: PosixAttributes][] = [
  [
    'AzCopy, standard style',
    { posix_owner: '1000', posix_group: '1000', permissions: '33188', modtime: '1679065211123456789' },
    { uid: 1000, gid: 1000, mode: 0o644, mtimeNs: march + 123_456_789n },
  ],
  ['Hadoop, no JSON', { hdi_permission: 'rwx' }, {}],
  ['rclone', { Mtime: '2023-03-17T15:00:11.000000007Z' }, { mtimeNs: march + 7n }],
  ['no metadata', {}, {}],
  [
    'a modtime with a fraction and a zone name',
    { modtime: '2023-03-17 15:00:11.5 +0000 UTC' },
    { mtimeNs: march + 500_000_000n },
  ],
  ['a negative integer modtime', { modtime: '-1' }, { mtimeNs: -1n }],
  [
    'our own extension',
    {
      owner: '1',
      permissions: '0755',
      modtime: '2023-03-17 15:00:11 +0000',
      lustrite_stat: '4755 1679065211000000007',
    },
    { uid: 1, mode: 0o4755, mtimeNs: march + 7n },
  ],
  [
    'our own extension after another tool changed the public keys',
    {
      owner: '1',
      permissions: '0700',
      modtime: '2024-03-17 15:00:11 +0000',
      lustrite_stat: '4755 1679065211000000007',
    },
    { uid: 1, mode: 0o700, mtimeNs: 1_710_687_611_000_000_000n },
  ],
];

const second = 1_000_000_000n;

t.test('the attributes of every dialect are read', (t) => {
  for (const [title, metadata, expected] of further)
    t.same(posixOf(lowerCaseKeys(metadata)), expected, title);
  for (const { name: dialect, rows } of dialects) {
    for (const [{ name, body = '', metadata = {} }, , meaning] of rows) {
      const keys = lowerCaseKeys(metadata);
      if (meaning === undefined) {
        t.type(specialFileOf(keys), 'string', `${dialect}: ${name}`);
        continue;
      }
      const { kind, mtimeMs, ...told } = meaning;
      const { mtimeNs, mode, ...read } = posixOf(keys);
      // Nobody asks for the mode of a symlink.
      t.same(
        kind === 'symlink' ? read : { ...read, ...(mode !== undefined && { mode }) },
        told,
        `${dialect}: ${name}`,
      );
      t.equal(
        mtimeNs === undefined ? undefined : Number(mtimeNs / second) * 1000,
        mtimeMs,
        `${dialect}: ${name}`,
      );
      if (!name.endsWith('/')) t.equal(kindOf(keys, body.length), kind, `${dialect}: ${name}`);
    }
  }
  t.end();
});

const kinds: readonly [title: string, metadata: Record<string, string>, size: number, expected: BlobKind][] =
  [
    ['nothing', {}, 0, 'file'],
    ['a folder stub', { hdi_isfolder: 'true' }, 0, 'directory'],
    ['a folder stub, capitalised', { Hdi_isfolder: 'True' }, 0, 'directory'],
    ['an old Hadoop folder', { asv_isfolder: 'true' }, 0, 'directory'],
    ['hdi_isfolder=false', { hdi_isfolder: 'false' }, 0, 'file'],
    ['a folder stub with content, which must not be hidden', { hdi_isfolder: 'true' }, 1, 'file'],
    ['a symlink of AzCopy and blobfuse2', { is_symlink: 'true' }, 5, 'symlink'],
    ['a symlink of the copytool of 2020', { ftype: 'LNK' }, 5, 'symlink'],
    ['another ftype', { ftype: 'REG' }, 5, 'file'],
  ];

t.test('the kind of a blob follows its metadata', (t) => {
  for (const [title, metadata, size, expected] of kinds)
    t.equal(kindOf(lowerCaseKeys(metadata), size), expected, title);
  t.equal(specialFileOf({ is_fifo: 'true' }), 'fifo');
  t.equal(specialFileOf({ is_socket: 'true' }), 'socket');
  t.equal(specialFileOf({ is_block_dev: 'true' }), 'block device');
  t.equal(specialFileOf({ is_char_dev: 'true' }), 'character device');
  t.equal(specialFileOf({ owner: '0' }), undefined);
  t.end();
});

t.test('files are written as the copytool writes them', (t) => {
  const file = { kind: 'file', uid: 1000, gid: 100, mode: 0o100644, mtimeNs: march } as const;
  const plain = { owner: '1000', group: '100', permissions: '0644', modtime: '2023-03-17 15:00:11 +0000' };
  t.same(metadataFor(file, { extended: true }), plain, 'nothing more where nothing is lost');
  t.same(metadataFor({ ...file, mode: 0o41777, kind: 'directory' }, { extended: true }), {
    ...plain,
    permissions: '1777',
    hdi_isfolder: 'true',
  });
  t.same(metadataFor({ ...file, kind: 'symlink', mode: 0o120777 }, { extended: true }), {
    owner: '1000',
    group: '100',
    modtime: plain.modtime,
    is_symlink: 'true',
    ftype: 'LNK',
  });
  t.same(metadataFor({ ...file, mode: 0o104755, mtimeNs: march + 7n }, { extended: false }), {
    ...plain,
    permissions: '0755',
  });
  t.same(metadataFor({ ...file, mode: 0o104755, mtimeNs: march + 7n }, { extended: true }), {
    ...plain,
    permissions: '0755',
    lustrite_stat: '4755 1679065211000000007',
  });
  t.equal(metadataFor({ ...file, mode: 0o7 }, { extended: false })['permissions'], '0007');
  t.equal(
    metadataFor({ ...file, mtimeNs: -1n }, { extended: false })['modtime'],
    '1969-12-31 23:59:59 +0000',
  );
  t.end();
});

t.test('what is written is read back', (t) => {
  for (const mode of [0, 0o644, 0o1777, 0o4755, 0o2750, 0o7777]) {
    for (const mtimeNs of [0n, march, march + 1n, -1n, -1_500_000_000n, 4_102_444_800_999_999_999n]) {
      const attributes = { kind: 'file', uid: 0, gid: 65534, mode, mtimeNs } as const;
      t.same(posixOf(metadataFor(attributes, { extended: true })), { uid: 0, gid: 65534, mode, mtimeNs });
    }
  }
  t.end();
});
