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
    name: 'lemur',
    rows: [
      [{ name: 'd', metadata: { ...lemur(7, 8, '1777'), ...folder } }, 'd', { kind: 'directory', uid: 7, gid: 8, mode: 0o1777, mtimeMs: modtimeMs }],
      [{ name: 'd/file', body: 'x', metadata: lemur(1000, 100, '0640') }, 'd/file', { kind: 'file', uid: 1000, gid: 100, mode: 0o640, mtimeMs: modtimeMs }],
      [{ name: 'd/old', body: 'x', metadata: { Uid: '5', Gid: '6', Perm: '600', ModTime: modtimeText } }, 'd/old', { kind: 'file', uid: 5, gid: 6, mode: 0o600, mtimeMs: modtimeMs }],
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
