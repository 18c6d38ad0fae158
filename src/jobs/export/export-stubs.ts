/** The blobs that stand for directories and symlinks. */
import { constants } from 'node:os';
import { BlobError, UserError } from '../../base/errors.js';
import { metadataFor, posixOf } from '../../blob/metadata.js';
import { blobOfPath } from '../../blob/names.js';
import type { BlobProperties, BlobVersion, Container, WriteOptions } from '../../blob/port.js';
import type { Coordinator } from '../../hsm/coordinator.js';
import { directoryInTheWay } from '../../hsm/directory-in-the-way.js';
import { keptOf } from '../../hsm/kept.js';
import { hasErrno } from '../../hsm/movers.js';
import type { NativeStore, WalkEntry } from '../../store/inodes.js';

const { EBUSY, EINVAL, ENOENT, ENOTSUP, EPERM, ESTALE } = constants.errno;

export interface StubExportOptions {
  readonly native: NativeStore;
  readonly container: Container;
  readonly coordinator: Pick<Coordinator, 'withBlob'>;
  readonly extended: boolean;
  /** Do not overwrite a blob that somebody else wrote. */
  readonly ifMatch: boolean;
  readonly signal: AbortSignal;
}

/** Which stubs of directories are written. */
export type DirectoryRule =
  /** Missing ones, and those that say something else: a file in it, or its attributes, are new. */
  | 'changed'
  /** Missing ones, and those of another owner or mode: nobody knows what was exported of it before. */
  | 'found'
  /** Those of another owner or mode: missing ones are implied by what lies below. */
  | 'implied';

/** 'file': the name is a blob with content, or a file of a hierarchical account, which stays. */
export type DirectoryResult = 'written' | 'same' | 'gone' | 'file';

/** Writes the hdi_isfolder stub of a directory. */
export async function exportDirectory(
  options: StubExportOptions,
  path: string,
  rule: DirectoryRule,
): Promise<DirectoryResult> {
  const { native, container, coordinator, extended, signal } = options;
  const [state] = await native.lookup([path]);
  if (state?.type !== 'directory') return 'gone';
  const metadata = metadataFor({ ...state, kind: 'directory' }, { extended });
  // A directory that came with rclone's marker keeps that one.
  const marker = `${path}/`;
  const name = state.copy?.blob === marker ? marker : blobName(path);
  const before = await lookAt(container, name, signal);
  if (before === undefined && rule === 'implied') return 'same';
  if (before !== undefined && isFile(container, before)) return 'file';
  if (before !== undefined && carries(before.metadata, metadata)) return 'same';
  if (before !== undefined && rule !== 'changed' && agrees(before.metadata, metadata)) return 'same';
  return coordinator.withBlob(
    name,
    state.fid,
    async () => {
      // Again: the name may have been waited for, and a file's content never makes way.
      const found = await lookAt(container, name, signal);
      if (found !== undefined && isFile(container, found)) return 'file';
      if (found !== undefined && carries(found.metadata, metadata)) return 'same';
      const kept = keptOf(found, 'directory', { strict: !extended });
      try {
        await writeDirectory(
          container,
          name,
          { ...kept, metadata: { ...kept.metadata, ...metadata } },
          found,
          signal,
        );
      } catch (error) {
        if (!(error instanceof BlobError) || (error.kind !== 'changed' && error.kind !== 'exists'))
          throw error;
        // Our own write, whose answer was lost and which the client sent again; or another client was faster.
        const now = await lookAt(container, name, signal);
        if (now === undefined || !carries(now.metadata, metadata)) throw error;
      }
      return 'written' as const;
    },
    signal,
  );
}

function isFile({ namespace }: Container, found: BlobProperties): boolean {
  return found.size > 0 || (namespace.hierarchical && found.kind !== 'directory');
}

/** A directory that a hierarchical account has is no blob to write again: only its metadata changes, but for its mark. */
async function writeDirectory(
  container: Container,
  name: string,
  written: Pick<WriteOptions, 'metadata' | 'headers' | 'tier'>,
  found: BlobProperties | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (!container.namespace.hierarchical || found === undefined) {
    await container.write(name, '', { ...written, ...only(found), signal });
    return;
  }
  const { hdi_isfolder: _, ...rest } = written.metadata;
  await container.setMetadata(name, rest, { ifMatch: found.etag, signal });
}

export interface SymlinkResult {
  /** Bytes; undefined when the container had exactly this one. */
  readonly written: number | undefined;
  /** The directories above it are there, too. Else it is as new as it was. */
  readonly complete: boolean;
}

/** Writes a symlink's blob, then `above` the directories above it, by this rule; only then it is recorded as exported. */
export async function exportSymlink(
  options: StubExportOptions,
  entry: WalkEntry,
  above: (rule: DirectoryRule) => Promise<boolean>,
): Promise<SymlinkResult> {
  const { native, container, coordinator, extended, signal } = options;
  const target = entry.target ?? (await native.readlink(entry.fid));
  if (target === null) return { written: undefined, complete: true };
  const name = blobName(entry.pathBytes ?? entry.path);
  const metadata = metadataFor({ ...entry, kind: 'symlink' }, { extended });
  return coordinator.withBlob(
    name,
    entry.fid,
    async () => {
      const found = await lookAt(container, name, signal);
      const inTheWay = directoryInTheWay(container, name, found);
      if (inTheWay !== undefined) throw new UserError('Conflict', inTheWay);
      const same = await sameSymlink(container, name, found, target, signal);
      if (same === undefined && found !== undefined && options.ifMatch) {
        throw new UserError('Conflict', `the blob ${name} was written by somebody else`);
      }
      const condition = options.ifMatch ? only(found) : {};
      const kept = keptOf(found, 'symlink', { strict: !extended });
      const all = { ...kept, metadata: { ...kept.metadata, ...metadata } };
      const version: BlobVersion =
        same ?? (await container.write(name, target, { ...all, ...condition, signal }));
      const written = same === undefined ? target.length : undefined;
      // One that is there may be of an export that could not write what is above it.
      const complete = await above(same === undefined ? 'changed' : 'found');
      if (!complete || entry.nlink > 1) return { written, complete };
      const { etag, size, lastModifiedMs } = version;
      try {
        // So that the next export knows it; symlinks of an unprivileged store carry no record and are compared instead.
        await native.replaceCopy(entry.fid, {
          path: entry.path,
          kind: 'symlink',
          mode: entry.mode,
          uid: entry.uid,
          gid: entry.gid,
          mtimeNs: entry.mtimeNs,
          size: 0,
          target,
          copy: { blob: name, etag, size, lastModifiedMs },
        });
        // What was renamed, or got another name, meanwhile is new where it is now.
        const [there] = await native.lookup([entry.path]);
        if (there?.fid !== entry.fid || there.nlink > 1) await native.forgetCopy(entry.fid);
      } catch (error) {
        if (!hasErrno(error, EBUSY, EINVAL, ENOENT, ENOTSUP, EPERM, ESTALE)) throw error;
      }
      return { written, complete };
    },
    signal,
  );
}

async function sameSymlink(
  container: Container,
  name: string,
  found: BlobProperties | undefined,
  target: Buffer,
  signal: AbortSignal,
): Promise<BlobProperties | undefined> {
  if (found?.kind !== 'symlink' || found.size !== target.length) return undefined;
  const read = await container.read(name, { ifMatch: found.etag, signal });
  return read.body.equals(target) ? found : undefined;
}

async function lookAt(
  container: Container,
  name: string,
  signal: AbortSignal,
): Promise<BlobProperties | undefined> {
  try {
    return await container.properties(name, signal);
  } catch (error) {
    if (error instanceof BlobError && error.kind === 'missing') return undefined;
    throw error;
  }
}

/** The condition that a blob is still as it was found. */
function only(found: BlobProperties | undefined): { ifMatch: string } | { ifNoneMatch: '*' } {
  return found === undefined ? { ifNoneMatch: '*' } : { ifMatch: found.etag };
}

function carries(found: Readonly<Record<string, string>>, wanted: Readonly<Record<string, string>>): boolean {
  return Object.entries(wanted).every(([key, value]) => found[key] === value);
}

/** Whether they say the same of owner and mode, as far as the found one says anything, in whichever dialect. */
function agrees(found: Readonly<Record<string, string>>, wanted: Readonly<Record<string, string>>): boolean {
  const [there, here] = [posixOf(found), posixOf(wanted)];
  return (['uid', 'gid', 'mode'] as const).every(
    (key) => there[key] === undefined || there[key] === here[key],
  );
}

function blobName(path: string | Buffer): string {
  const name = blobOfPath(path);
  if ('refused' in name) throw new UserError('InvalidName', name.refused);
  return name.name;
}
