import t from 'tap';
import { kindOf, lowerCaseKeys, metadataFor, posixOf, specialFileOf } from '../../src/blob/metadata.js';
import type { BlobKind, PosixAttributes } from '../../src/blob/port.js';

const march = 1_679_065_211_000_000_000n; // 2023-03-17 15:00:11 UTC

const dialects: readonly [title: string, metadata: Record<string, string>, expected: PosixAttributes][] = [
  [
    'the AMLFS copytool',
    { owner: '1000', group: '1001', permissions: '0644', modtime: '2023-03-17 15:00:11 +0000' },
    { uid: 1000, gid: 1001, mode: 0o644, mtimeNs: march },
  ],
  [
    'the copytool with the sticky bit',
    { owner: '0', group: '0', permissions: '1777' },
    { uid: 0, gid: 0, mode: 0o1777 },
  ],
  [
    'the copytool of 2020, capitalised',
    { Owner: '7', Group: '8', Permissions: '0750', ModTime: '2023-03-17 16:00:11 +0100' },
    { uid: 7, gid: 8, mode: 0o750, mtimeNs: march },
  ],
  ['the copytool of 2019', { Uid: '7', Gid: '8', Perm: '644' }, { uid: 7, gid: 8, mode: 0o644 }],
  ['the copytool of 2019, a directory', { perm: '20000000755' }, { mode: 0o755 }],
  ['the copytool of 2019, sticky, setuid and setgid as Go has them', { perm: '64000755' }, { mode: 0o7755 }],
  [
    'AzCopy, standard style',
    { posix_owner: '1000', posix_group: '1000', permissions: '33188', modtime: '1679065211123456789' },
    { uid: 1000, gid: 1000, mode: 0o644, mtimeNs: march + 123_456_789n },
  ],
  [
    'AzCopy, standard style, a setuid file',
    { posix_owner: '0', permissions: '35309' },
    { uid: 0, mode: 0o4755 },
  ],
  [
    'AzCopy, AMLFS style',
    {
      owner: '1000',
      group: '1000',
      permissions: '0644',
      modtime: '2023-03-17 15:00:11 +0000',
      posix_atime: '1',
    },
    { uid: 1000, gid: 1000, mode: 0o644, mtimeNs: march },
  ],
  [
    'octal without a leading zero beside an owner',
    { owner: '1', permissions: '644' },
    { uid: 1, mode: 0o644 },
  ],
  [
    'octal without a leading zero beside a group',
    { group: '1', permissions: '644' },
    { gid: 1, mode: 0o644 },
  ],
  ['decimal without owner, group and leading zero', { permissions: '420' }, { mode: 0o644 }],
  ['octal by a leading zero alone', { permissions: '0420' }, { mode: 0o420 }],
  ['text', { permissions: 'rwxr-xr-x' }, { mode: 0o755 }],
  ['text beside an owner', { owner: '1', permissions: 'rw-r-----' }, { uid: 1, mode: 0o640 }],
  ['text with the file type in front and an ACL mark', { permissions: 'drwxr-x---+' }, { mode: 0o750 }],
  ['text with t', { permissions: 'rwxrwxrwt' }, { mode: 0o1777 }],
  ['text with T', { permissions: 'rwxrwxrwT' }, { mode: 0o1776 }],
  ['text with s and S', { permissions: 'rwsr-Sr--' }, { mode: 0o6744 }],
  [
    'Hadoop',
    { hdi_permission: '{"owner":"1","group":"2","permissions":"rwxr-xr-x"}' },
    { uid: 1, gid: 2, mode: 0o755 },
  ],
  [
    'Hadoop, old key and named owners',
    { asv_permission: '{"owner":"hive","group":"x","permissions":"rw-r--r--"}' },
    { mode: 0o644 },
  ],
  ['Hadoop, no JSON', { hdi_permission: 'rwx' }, {}],
  ['blobfuse2, which writes none', { is_symlink: 'true' }, {}],
  ['rclone', { Mtime: '2023-03-17T15:00:11.000000007Z' }, { mtimeNs: march + 7n }],
  ['an mtime of somebody else', { mtime: '1679065211' }, {}],
  ['no metadata', {}, {}],
  ['owners that are no numbers', { owner: '$superuser', group: 'a1b2-c3' }, {}],
  [
    'an owner that chown takes for "unchanged"',
    { owner: '4294967295', group: '4294967294' },
    { gid: 4_294_967_294 },
  ],
  ['permissions that are none', { permissions: 'sesame' }, {}],
  ['octal with a digit 8', { owner: '1', permissions: '0688' }, { uid: 1 }],
  ['a modtime in a zone west', { modtime: '2023-03-17 08:30:11 -0630' }, { mtimeNs: march }],
  [
    'a modtime with a fraction and a zone name',
    { modtime: '2023-03-17 15:00:11.5 +0000 UTC' },
    { mtimeNs: march + 500_000_000n },
  ],
  ['a modtime before 1970', { modtime: '1969-12-31 23:59:59 +0000' }, { mtimeNs: -1_000_000_000n }],
  ['a negative integer modtime', { modtime: '-1' }, { mtimeNs: -1n }],
  ['a modtime of month 13', { modtime: '2023-13-01 00:00:00 +0000' }, {}],
  ['a modtime of 31 June', { modtime: '2023-06-31 00:00:00 +0000' }, {}],
  ['a modtime of another kind', { modtime: 'yesterday' }, {}],
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
  ['a broken extension', { permissions: '0755', lustrite_stat: '9999 x' }, { mode: 0o755 }],
];

t.test('the attributes of every dialect are read', (t) => {
  for (const [title, metadata, expected] of dialects)
    t.same(posixOf(lowerCaseKeys(metadata)), expected, title);
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
