/**
 * Blobs as the tools write them that people use beside Azure Managed Lustre, what they stand for, and how each tool reads
 * a blob. Written after the tools (amlfs 3.1, 3.3 and 3.4), not after lustrite's own code.
 */

export interface DialectBlob {
  readonly name: string;
  readonly body?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** What is told; the rest is as a blob without metadata has it. */
export interface Meaning {
  readonly kind: 'file' | 'directory' | 'symlink';
  readonly uid?: number;
  readonly gid?: number;
  /** Permission bits. */
  readonly mode?: number;
  /** Milliseconds. */
  readonly mtimeMs?: number;
}

/** A blob that lustrite has written. Keys in lower case. */
export interface WrittenBlob {
  readonly name: string;
  readonly size: number;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface Dialect {
  readonly name: string;
  /** Blob and what an import makes of it; undefined: it is refused. */
  readonly rows: readonly (readonly [blob: DialectBlob, path: string, meaning: Meaning | undefined])[];
  readonly read: (blob: WrittenBlob) => Meaning;
}

const modtimeText = '2023-03-17 16:00:11 +0100';
const modtimeNs = '1679065211123456789';
const modtimeMs = 1_679_065_211_000;
const folder = { hdi_isfolder: 'true' };
const link = { is_symlink: 'true' };

const lemur = (uid: number, gid: number, permissions: string): Readonly<Record<string, string>> => ({
  owner: String(uid),
  group: String(gid),
  permissions,
  modtime: modtimeText,
});

/** What `--preserve-posix-properties` always adds. */
const azcopyStat = (mode: number): Readonly<Record<string, string>> => ({
  posix_nlink: '1',
  posix_ino: '42',
  posix_dev: '2049',
  posix_atime: modtimeNs,
  posix_ctime: modtimeNs,
  linux_statx_mask: '4095',
  linux_attribute: String(mode === 0 ? 0 : 1),
});

const azcopyStandard = (uid: number, gid: number, mode: number): Readonly<Record<string, string>> => ({
  ...azcopyStat(mode),
  posix_owner: String(uid),
  posix_group: String(gid),
  permissions: String(mode),
  modtime: modtimeNs,
});

const azcopyAmlfs = (uid: number, gid: number, permissions: string): Readonly<Record<string, string>> => ({
  ...azcopyStat(0),
  ...lemur(uid, gid, permissions),
});

const hadoop = (owner: string, permissions: string): Readonly<Record<string, string>> => ({
  hdi_permission: JSON.stringify({ owner, group: '200', permissions }),
});

export const dialects: readonly Dialect[] = [
  {
    // What the documentation allows and people type, and what means nothing.
    name: 'by hand',
    rows: [
      [{ name: 'd', metadata: { owner: '7', group: '8', permissions: 'rwxrwxrwt', ...folder } }, 'd', { kind: 'directory', uid: 7, gid: 8, mode: 0o1777 }],
      [{ name: 'd/text', body: 'x', metadata: { ...lemur(1000, 100, 'rwxrwxrwx') } }, 'd/text', { kind: 'file', uid: 1000, gid: 100, mode: 0o777, mtimeMs: modtimeMs }],
      [{ name: 'd/text alone', body: 'x', metadata: { permissions: 'rw-r-----' } }, 'd/text alone', { kind: 'file', mode: 0o640 }],
      [{ name: 'd/T', body: 'x', metadata: { permissions: 'rwxrwxrwT' } }, 'd/T', { kind: 'file', mode: 0o1776 }],
      [{ name: 'd/s', body: 'x', metadata: { permissions: 'rwsr-Sr--' } }, 'd/s', { kind: 'file', mode: 0o6744 }],
      [{ name: 'd/as ls has it', body: 'x', metadata: { permissions: '-rwxr-x---+' } }, 'd/as ls has it', { kind: 'file', mode: 0o750 }],
      [{ name: 'd/owner', body: 'x', metadata: { owner: '1', permissions: '644' } }, 'd/owner', { kind: 'file', uid: 1, mode: 0o644 }],
      [{ name: 'd/group', body: 'x', metadata: { group: '1', permissions: '644' } }, 'd/group', { kind: 'file', gid: 1, mode: 0o644 }],
      [{ name: 'd/decimal', body: 'x', metadata: { permissions: '420' } }, 'd/decimal', { kind: 'file', mode: 0o644 }],
      [{ name: 'd/octal', body: 'x', metadata: { permissions: '0420' } }, 'd/octal', { kind: 'file', mode: 0o420 }],
      [{ name: 'd/capitals', body: 'x', metadata: { Owner: '7', Group: '8', Permissions: '0750', ModTime: modtimeText } }, 'd/capitals', { kind: 'file', uid: 7, gid: 8, mode: 0o750, mtimeMs: modtimeMs }],
      [{ name: 'd/names', body: 'x', metadata: { owner: '$superuser', group: 'a1b2-c3' } }, 'd/names', { kind: 'file' }],
      [{ name: 'd/nobody', body: 'x', metadata: { owner: '4294967295', group: '4294967294' } }, 'd/nobody', { kind: 'file', gid: 4_294_967_294 }],
      [{ name: 'd/sesame', body: 'x', metadata: { permissions: 'sesame' } }, 'd/sesame', { kind: 'file' }],
      [{ name: 'd/8', body: 'x', metadata: { owner: '1', permissions: '0688' } }, 'd/8', { kind: 'file', uid: 1 }],
      [{ name: 'd/west', body: 'x', metadata: { modtime: '2023-03-17 08:30:11 -0630' } }, 'd/west', { kind: 'file', mtimeMs: modtimeMs }],
      [{ name: 'd/1969', body: 'x', metadata: { modtime: '1969-12-31 23:59:59 +0000' } }, 'd/1969', { kind: 'file', mtimeMs: -1000 }],
      [{ name: 'd/month 13', body: 'x', metadata: { modtime: '2023-13-01 00:00:00 +0000' } }, 'd/month 13', { kind: 'file' }],
      [{ name: 'd/31 June', body: 'x', metadata: { modtime: '2023-06-31 00:00:00 +0000' } }, 'd/31 June', { kind: 'file' }],
      [{ name: 'd/yesterday', body: 'x', metadata: { modtime: 'yesterday' } }, 'd/yesterday', { kind: 'file' }],
      [{ name: 'd/seconds', body: 'x', metadata: { mtime: '1679065211' } }, 'd/seconds', { kind: 'file' }],
      [{ name: 'd/no folder', metadata: { hdi_isfolder: 'false' } }, 'd/no folder', { kind: 'file' }],
      [{ name: 'd/folder with content', body: 'x', metadata: folder }, 'd/folder with content', { kind: 'file' }],
      [{ name: 'd/folder', metadata: { Hdi_isfolder: 'True' } }, 'd/folder', { kind: 'directory' }],
      [{ name: 'd/REG', body: 'x', metadata: { ftype: 'REG' } }, 'd/REG', { kind: 'file' }],
    ],
    read: azcopyMeaning,
  },
  {
    // What an export of ours adds, also after somebody has changed the rest.
    name: 'lustrite',
    rows: [
      [{ name: 'setuid', body: 'x', metadata: { ...lemur(1, 2, '0755'), lustrite_stat: '4755 1679065211000000007' } }, 'setuid', { kind: 'file', uid: 1, gid: 2, mode: 0o4755, mtimeMs: modtimeMs }],
      [{ name: 'chmodded', body: 'x', metadata: { ...lemur(1, 2, '0700'), lustrite_stat: '4755 1679065211000000007' } }, 'chmodded', { kind: 'file', uid: 1, gid: 2, mode: 0o700, mtimeMs: modtimeMs }],
      [{ name: 'broken', body: 'x', metadata: { ...lemur(1, 2, '0755'), lustrite_stat: '9999 x' } }, 'broken', { kind: 'file', uid: 1, gid: 2, mode: 0o755, mtimeMs: modtimeMs }],
    ],
    read: azcopyMeaning,
  },
  {
    name: 'lemur',
    rows: [
      [{ name: 'd', metadata: { ...lemur(7, 8, '1777'), ...folder } }, 'd', { kind: 'directory', uid: 7, gid: 8, mode: 0o1777, mtimeMs: modtimeMs }],
      [{ name: 'd/file', body: 'x', metadata: lemur(1000, 100, '0640') }, 'd/file', { kind: 'file', uid: 1000, gid: 100, mode: 0o640, mtimeMs: modtimeMs }],
      [{ name: 'd/old', body: 'x', metadata: { Uid: '5', Gid: '6', Perm: '600', ModTime: modtimeText } }, 'd/old', { kind: 'file', uid: 5, gid: 6, mode: 0o600, mtimeMs: modtimeMs }],
      [{ name: 'd/2019', metadata: { perm: '20000000755', ...folder } }, 'd/2019', { kind: 'directory', mode: 0o755 }],
      [{ name: 'd/special', body: 'x', metadata: { perm: '64000755' } }, 'd/special', { kind: 'file', mode: 0o7755 }],
      [{ name: 'd/2020', body: 'd/file', metadata: { ...lemur(1, 2, '0777'), ftype: 'LNK' } }, 'd/2020', { kind: 'symlink', uid: 1, gid: 2, mtimeMs: modtimeMs }],
    ],
    read: ({ metadata }) => ({
      kind: metadata['hdi_isfolder'] === 'true' ? 'directory' : metadata['ftype'] === 'LNK' ? 'symlink' : 'file',
      ...amlfsAttributes(metadata),
    }),
  },
  {
    name: 'azcopy',
    rows: [
      [{ name: 'd', metadata: { ...azcopyStandard(7, 8, 0o40750), Hdi_isfolder: 'true' } }, 'd', { kind: 'directory', uid: 7, gid: 8, mode: 0o750, mtimeMs: modtimeMs }],
      [{ name: 'd/file', body: 'x', metadata: azcopyStandard(1000, 100, 0o100644) }, 'd/file', { kind: 'file', uid: 1000, gid: 100, mode: 0o644, mtimeMs: modtimeMs }],
      [{ name: 'd/setuid', body: 'x', metadata: azcopyStandard(0, 0, 0o104755) }, 'd/setuid', { kind: 'file', uid: 0, gid: 0, mode: 0o4755, mtimeMs: modtimeMs }],
      [{ name: 'd/link', body: '../d/file', metadata: { ...azcopyStandard(9, 9, 0o120777), ...link } }, 'd/link', { kind: 'symlink', uid: 9, gid: 9, mtimeMs: modtimeMs }],
      [{ name: 'd/pipe', metadata: { ...azcopyStandard(9, 9, 0o10644), is_fifo: 'true' } }, 'd/pipe', undefined],
      [{ name: 'd/socket', metadata: { ...azcopyStandard(9, 9, 0o140644), is_socket: 'true' } }, 'd/socket', undefined],
      [{ name: 'd/disk', metadata: { ...azcopyStandard(9, 9, 0o60644), is_block_dev: 'true' } }, 'd/disk', undefined],
      [{ name: 'd/tty', metadata: { ...azcopyStandard(9, 9, 0o20644), is_char_dev: 'true' } }, 'd/tty', undefined],
    ],
    read: azcopyMeaning,
  },
  {
    name: 'azcopy-amlfs',
    rows: [
      [{ name: 'd', metadata: { ...azcopyAmlfs(7, 8, '0750'), ...folder } }, 'd', { kind: 'directory', uid: 7, gid: 8, mode: 0o750, mtimeMs: modtimeMs }],
      [{ name: 'd/file', body: 'x', metadata: azcopyAmlfs(1000, 100, '0644') }, 'd/file', { kind: 'file', uid: 1000, gid: 100, mode: 0o644, mtimeMs: modtimeMs }],
      [{ name: 'd/link', body: 'file', metadata: { ...azcopyAmlfs(9, 9, '0777'), ...link } }, 'd/link', { kind: 'symlink', uid: 9, gid: 9, mtimeMs: modtimeMs }],
    ],
    read: azcopyMeaning,
  },
  {
    name: 'blobfuse2',
    rows: [
      [{ name: 'd', metadata: folder }, 'd', { kind: 'directory' }],
      [{ name: 'd/file', body: 'x' }, 'd/file', { kind: 'file' }],
      [{ name: 'd/link', body: 'file', metadata: link }, 'd/link', { kind: 'symlink' }],
    ],
    read: ({ metadata }) => ({
      kind: metadata['hdi_isfolder'] === 'true' ? 'directory' : metadata['is_symlink'] === 'true' ? 'symlink' : 'file',
    }),
  },
  {
    name: 'wasb',
    rows: [
      [{ name: 'd', metadata: { ...folder, ...hadoop('100', 'rwxr-x---') } }, 'd', { kind: 'directory', uid: 100, gid: 200, mode: 0o750 }],
      [{ name: 'd/part-0', body: 'x', metadata: hadoop('hive', 'rw-r-----') }, 'd/part-0', { kind: 'file', gid: 200, mode: 0o640 }],
      [{ name: 'asv', metadata: { asv_isfolder: 'true', asv_permission: hadoop('1', 'rwx------')['hdi_permission'] ?? '' } }, 'asv', { kind: 'directory', uid: 1, gid: 200, mode: 0o700 }],
    ],
    read: ({ metadata }) => ({ kind: metadata['hdi_isfolder'] === 'true' ? 'directory' : 'file' }),
  },
  {
    name: 'las',
    rows: [
      [{ name: 'd', metadata: { ...lemur(7, 8, '0755'), ...folder } }, 'd', { kind: 'directory', uid: 7, gid: 8, mode: 0o755, mtimeMs: modtimeMs }],
      [{ name: 'd/link', body: 'file', metadata: { owner: '1', group: '2', modtime: modtimeText, ftype: 'LNK', symlink: 'file' } }, 'd/link', { kind: 'symlink', uid: 1, gid: 2, mtimeMs: modtimeMs }],
    ],
    read: ({ metadata }) => ({
      kind: metadata['ftype'] === 'LNK' ? 'symlink' : metadata['hdi_isfolder'] === 'true' ? 'directory' : 'file',
      ...amlfsAttributes(metadata),
    }),
  },
  {
    // rclone 1.63 and later with --azureblob-directory-markers; goofys makes the first kind of marker.
    name: 'rclone',
    rows: [
      [{ name: 'plain/' }, 'plain', { kind: 'directory' }],
      [{ name: 'marked/', metadata: { ...folder, mtime: '2023-03-17T15:00:11.000000000Z' } }, 'marked', { kind: 'directory', mtimeMs: modtimeMs }],
      [{ name: 'marked/file', body: 'x', metadata: { mtime: '2023-03-17T15:00:11.000000000Z' } }, 'marked/file', { kind: 'file', mtimeMs: modtimeMs }],
    ],
    read: ({ name, size, metadata }) => ({
      kind: size === 0 && (name.endsWith('/') || metadata['hdi_isfolder'] === 'true') ? 'directory' : 'file',
    }),
  },
]; // prettier-ignore

/** The copytool's and LAS' common part. */
function amlfsAttributes(metadata: Readonly<Record<string, string>>): Omit<Meaning, 'kind'> {
  const { owner, group, permissions, modtime } = metadata;
  return {
    uid: Number(owner),
    gid: Number(group),
    ...(permissions !== undefined && { mode: Number.parseInt(permissions, 8) }),
    mtimeMs: goTime(modtime ?? ''),
  };
}

/** AzCopy's reader knows both of its styles by what else is there. */
function azcopyMeaning({ size, metadata }: WrittenBlob): Meaning {
  const { permissions = '', modtime = '' } = metadata;
  const octal =
    metadata['owner'] !== undefined || metadata['group'] !== undefined || permissions.startsWith('0');
  const isFolder = size === 0 && metadata['hdi_isfolder']?.toLowerCase() === 'true';
  return {
    kind: isFolder ? 'directory' : metadata['is_symlink'] === 'true' ? 'symlink' : 'file',
    uid: Number(metadata['posix_owner'] ?? metadata['owner']),
    gid: Number(metadata['posix_group'] ?? metadata['group']),
    ...(permissions !== '' && { mode: Number.parseInt(permissions, octal ? 8 : 10) & 0o7777 }),
    mtimeMs: /^\d+$/.test(modtime) ? Number(BigInt(modtime) / 1_000_000n) : goTime(modtime),
  };
}

/** Go's layout `2006-01-02 15:04:05 -0700`. */
function goTime(text: string): number {
  const [date = '', time = '', zone = ''] = text.split(' ');
  return Date.parse(`${date}T${time}${zone.slice(0, 3)}:${zone.slice(3)}`);
}
