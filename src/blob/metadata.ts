/**
 * POSIX attributes in blob metadata: every dialect that tools write (AMLFS copytool old and new, AzCopy in both of its
 * styles, blobfuse2, Hadoop WASB, rclone, and the community sync tools) is read; the copytool's is written.
 */
import type { BlobKind, PosixAttributes } from './port.js';

type Metadata = Readonly<Record<string, string>>;

/** Key of the private extension that carries setuid, setgid and the nanoseconds of mtime. */
export const statKey = 'lustrite_stat';
/** Key of the id by which an upload is recognised as ours when its answer was lost. */
export const uploadIdKey = 'lustrite_upload';

/** Permission bits, sticky, setgid, setuid. */
const modeMask = 0o7777;
const plainMask = 0o1777;
/** (uid_t)-1 means "unchanged" to chown. */
const maxId = 0xffff_fffe;
const nsPerSecond = 1_000_000_000n;

/** Metadata with its keys in lower case: listings show them as written, GET and HEAD in lower case. */
export function lowerCaseKeys(metadata: Metadata): Record<string, string> {
  const lower: Record<string, string> = {};
  for (const [key, value] of Object.entries(metadata)) lower[key.toLowerCase()] = value;
  return lower;
}

/** What a blob stands for. A folder stub with content stays a file, so that no byte is hidden. Keys in lower case. */
export function kindOf(metadata: Metadata, size: number): BlobKind {
  if (isTrue(metadata['is_symlink']) || metadata['ftype']?.toUpperCase() === 'LNK') return 'symlink';
  if (size === 0 && (isTrue(metadata['hdi_isfolder']) || isTrue(metadata['asv_isfolder'])))
    return 'directory';
  return 'file';
}

/** AzCopy's placeholders for what no blob can hold; undefined for everything else. Keys in lower case. */
export function specialFileOf(metadata: Metadata): string | undefined {
  if (isTrue(metadata['is_fifo'])) return 'fifo';
  if (isTrue(metadata['is_socket'])) return 'socket';
  if (isTrue(metadata['is_block_dev'])) return 'block device';
  if (isTrue(metadata['is_char_dev'])) return 'character device';
  return undefined;
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && value.trim().toLowerCase() === 'true';
}

/** The attributes that the metadata tells, in whichever dialect. Keys in lower case. */
export function posixOf(metadata: Metadata): PosixAttributes {
  const hadoop = hadoopPermission(metadata['hdi_permission'] ?? metadata['asv_permission']);
  const uid =
    idOf(metadata['owner']) ?? idOf(metadata['posix_owner']) ?? idOf(metadata['uid']) ?? idOf(hadoop?.owner);
  const gid =
    idOf(metadata['group']) ?? idOf(metadata['posix_group']) ?? idOf(metadata['gid']) ?? idOf(hadoop?.group);
  const octal = metadata['owner'] !== undefined || metadata['group'] !== undefined;
  let mode =
    permissionsOf(metadata['permissions'], octal) ??
    goFileMode(metadata['perm']) ??
    textMode(hadoop?.permissions);
  let mtimeNs = mtimeOf(metadata['modtime']) ?? rcloneTime(metadata['mtime']);
  const stat = statOf(metadata[statKey]);
  if (stat) {
    // Only where it still agrees with the public keys: another tool may have changed those since.
    if (mode !== undefined && (stat.mode & plainMask) === (mode & plainMask)) mode = stat.mode;
    if (mtimeNs !== undefined && floorSeconds(stat.mtimeNs) === floorSeconds(mtimeNs)) mtimeNs = stat.mtimeNs;
  }
  // Property by property: spreads of optional ones cost as much as all of the above, a million times an import.
  const posix: { -readonly [Key in keyof PosixAttributes]: PosixAttributes[Key] } = {};
  if (uid !== undefined) posix.uid = uid;
  if (gid !== undefined) posix.gid = gid;
  if (mode !== undefined) posix.mode = mode;
  if (mtimeNs !== undefined) posix.mtimeNs = mtimeNs;
  return posix;
}

/** A numeric id; names (`$superuser`, Entra object ids, Hadoop users) are nobody here. */
export function idOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\s*\d{1,10}\s*$/.test(text)) return undefined;
  const id = Number(text);
  return id <= maxId ? id : undefined;
}

/**
 * `permissions`: "rwxr-xr-x" text first; then octal if an AMLFS-style `owner` or `group` is beside it or it starts
 * with 0, else decimal, as AzCopy tells its two styles apart.
 */
function permissionsOf(text: string | undefined, octal: boolean): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim();
  const fromText = textMode(value);
  if (fromText !== undefined) return fromText;
  if (octal || value.startsWith('0'))
    return /^[0-7]{1,11}$/.test(value) ? Number.parseInt(value, 8) & modeMask : undefined;
  return /^\d{1,10}$/.test(value) ? Number(value) & modeMask : undefined;
}

/** "rwxr-xr-t", also with the file type in front and an ACL mark behind ("-rw-r--r--+"). */
export function textMode(text: string | undefined): number | undefined {
  const match = /^[-dlpscbD]?([-r][-w][-xsS])([-r][-w][-xsS])([-r][-w][-xtT])[+.@]?$/.exec(
    text?.trim() ?? '',
  );
  if (!match) return undefined;
  let mode = 0;
  for (const [index, triple] of match.slice(1).entries()) {
    const special = (triple[2] ?? '-').toLowerCase();
    const bits =
      (triple.startsWith('r') ? 4 : 0) |
      (triple[1] === 'w' ? 2 : 0) |
      (/[xst]/.test(triple[2] ?? '') ? 1 : 0);
    mode |= bits << (6 - 3 * index);
    if (special === 's' || special === 't') mode |= 0o4000 >> index;
  }
  return mode;
}

/** The copytool of 2019 wrote `perm` as octal of Go's os.FileMode, whose special bits are elsewhere than in st_mode. */
function goFileMode(text: string | undefined): number | undefined {
  if (text === undefined || !/^\s*[0-7]{1,11}\s*$/.test(text)) return undefined;
  const value = Number.parseInt(text, 8);
  const has = (bit: number): boolean => Math.floor(value / 2 ** bit) % 2 === 1;
  return (value & modeMask) | (has(23) ? 0o4000 : 0) | (has(22) ? 0o2000 : 0) | (has(20) ? 0o1000 : 0);
}

interface HadoopPermission {
  readonly owner?: string | undefined;
  readonly group?: string | undefined;
  readonly permissions?: string | undefined;
}

function hadoopPermission(text: string | undefined): HadoopPermission | undefined {
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const field = (key: string): string | undefined => {
      const found = (value as Record<string, unknown>)[key];
      return typeof found === 'string' ? found : undefined;
    };
    return { owner: field('owner'), group: field('group'), permissions: field('permissions') };
  } catch {
    return undefined;
  }
}

/** `modtime`: an integer is nanoseconds (AzCopy), else Go's layout `2006-01-02 15:04:05 -0700`. */
function mtimeOf(text: string | undefined): bigint | undefined {
  if (text === undefined) return undefined;
  const value = text.trim();
  if (/^-?\d{1,20}$/.test(value)) return BigInt(value);
  const m =
    /^(\d{4,6})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? ?(?:(Z)|([+-])(\d\d):?(\d\d))(?: [A-Z]{1,5})?$/.exec(
      value,
    );
  if (!m) return undefined;
  const part = (index: number): number => Number(m[index] ?? '0');
  const [year, month, day, hour, minute, second] = [part(1), part(2), part(3), part(4), part(5), part(6)];
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  // A date that rolled over (month 13, 31 June) was none.
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return undefined;
  if (hour > 23 || minute > 59 || second > 60) return undefined;
  const zone = (part(10) * 60 + part(11)) * (m[9] === '-' ? -1 : 1);
  const seconds = date.getTime() / 1000 + hour * 3600 + (minute - zone) * 60 + second;
  return BigInt(seconds) * nsPerSecond + BigInt((m[7] ?? '').padEnd(9, '0'));
}

/** `mtime` of rclone is RFC 3339; of others, which count from different beginnings, nothing is taken. */
function rcloneTime(text: string | undefined): bigint | undefined {
  return text?.includes('T') === true ? mtimeOf(text) : undefined;
}

function floorSeconds(ns: bigint): bigint {
  const seconds = ns / nsPerSecond;
  return ns < 0n && seconds * nsPerSecond !== ns ? seconds - 1n : seconds;
}

interface Stat {
  readonly mode: number;
  readonly mtimeNs: bigint;
}

function statOf(text: string | undefined): Stat | undefined {
  const match = /^([0-7]{4}) (-?\d{1,20})$/.exec(text?.trim() ?? '');
  return match ? { mode: Number.parseInt(match[1] ?? '0', 8), mtimeNs: BigInt(match[2] ?? '0') } : undefined;
}

export interface ExportedAttributes {
  readonly kind: BlobKind;
  readonly uid: number;
  readonly gid: number;
  /** Of st_mode; only the permission bits are used. */
  readonly mode: number;
  readonly mtimeNs: bigint;
}

/**
 * The metadata that the AMLFS copytool writes (all keys in lower case, mtime in UTC and whole seconds); symlinks
 * carry both keys that tools look for. `extended` adds `lustrite_stat` where those keys lose something.
 */
export function metadataFor(
  attributes: ExportedAttributes,
  options: { readonly extended: boolean },
): Record<string, string> {
  const { kind, uid, gid, mtimeNs } = attributes;
  const mode = attributes.mode & modeMask;
  const metadata: Record<string, string> = { owner: String(uid), group: String(gid) };
  if (kind !== 'symlink') metadata['permissions'] = octal(mode & plainMask);
  metadata['modtime'] = goTime(mtimeNs);
  if (kind === 'directory') metadata['hdi_isfolder'] = 'true';
  if (kind === 'symlink') {
    metadata['is_symlink'] = 'true';
    metadata['ftype'] = 'LNK';
  }
  if (options.extended && (mode !== (mode & plainMask) || mtimeNs % nsPerSecond !== 0n)) {
    metadata[statKey] = `${octal(mode)} ${String(mtimeNs)}`;
  }
  return metadata;
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

/** Go layout `2006-01-02 15:04:05 -0700` in UTC, fractions dropped towards the past. */
function goTime(ns: bigint): string {
  const date = new Date(Number(floorSeconds(ns)) * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${String(date.getUTCFullYear()).padStart(4, '0')}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
  return `${day} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000`;
}
