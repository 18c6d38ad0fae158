/** Writes one file to its blob, one for each of its names, with its attributes, and never a mix of two contents. */
import { createHash, randomUUID } from 'node:crypto';
import { constants } from 'node:os';
import { crashPoint } from '../base/crash.js';
import { BlobError, messageChain } from '../base/errors.js';
import { metadataFor, uploadIdKey } from '../blob/metadata.js';
import type { BlobProperties, BlobVersion } from '../blob/port.js';
import type { ArchivePlan, Copy, Fid } from '../store/inodes.js';
import { directoryInTheWay } from './directory-in-the-way.js';
import { keptOf } from './kept.js';
import { hasErrno, type MoverContext, type TransferHooks } from './movers.js';

const { EBUSY, ENODATA, ENOENT, ESTALE, ETXTBSY } = constants.errno;

/** What became of an archive. Unless `archived`, and that wholly, the file is as dirty as it was. */
export type ArchiveOutcome =
  | {
      readonly kind: 'archived';
      readonly copy: Copy;
      /** That of the copy first. */ readonly blobs: BlobNames;
      /** Not all that the container shall have is there: the file is dirty. */ readonly partly: boolean;
    }
  /** A writer or a mapping was in the way, or the file changed meanwhile: worth another try. */
  | { readonly kind: 'busy'; readonly reason: string }
  | { readonly kind: 'not-needed'; readonly reason: string }
  /** The file is deleted. */
  | { readonly kind: 'gone' }
  /** Another file, or none, has the path. */
  | { readonly kind: 'moved' }
  /** One of its names has no blob, as it came meanwhile: worth another try with the names that it has now. */
  | { readonly kind: 'more-names' }
  | {
      readonly kind: 'refused';
      readonly code: 'InvalidName' | 'NoArchive' | 'Conflict';
      readonly reason: string;
    }
  | { readonly kind: 'failed'; readonly error: unknown }
  | { readonly kind: 'canceled' };

/** The name that the record keeps, then the further names of the file. */
export type BlobNames = readonly [string, ...string[]];

export interface ArchiveRequest {
  readonly fid: Fid;
  readonly blobs: BlobNames;
  readonly archiveId: number;
  /** Asked when the blobs are there: whether the container has whatever else it shall have before the file is clean. */
  readonly complete?: ((blobs: BlobNames) => Promise<boolean>) | undefined;
}

/** What is in the container under the name before we write it. */
type Replaced = BlobProperties | 'nothing' | 'unknown';

/** Uploads that lose against another client's write before the archive gives up. */
const maxUploads = 4;

/**
 * Archives `fid` as the first of `blobs`, and the same content under the others before: the file is dirty until all of
 * them have it. The caller holds the names (BlobOwners), so that no other file's only copy is overwritten. Never rejects.
 */
export async function archiveFile(
  context: MoverContext,
  request: ArchiveRequest,
  hooks: TransferHooks,
): Promise<ArchiveOutcome> {
  const { native } = context;
  let plan: ArchivePlan;
  try {
    plan = await native.beginArchive(request.fid, request.archiveId);
  } catch (error) {
    return outcomeOf(error, hooks.signal);
  }
  const quiet = { lost: false };
  try {
    const { fid, blobs } = request;
    const [blob, ...links] = blobs;
    let sent = 0;
    const onProgress = (bytes: number): void => {
      hooks.onProgress(sent + bytes);
    };
    for (const link of links) {
      await upload(context, { fid, blob: link }, plan, { ...hooks, onProgress }, quiet);
      sent += plan.size;
      crashPoint('archive.linked');
    }
    const version = await upload(context, { fid, blob }, plan, { ...hooks, onProgress }, quiet);
    crashPoint('archive.uploaded');
    const partly = (await request.complete?.(blobs)) === false;
    const copy: Copy = { blob, ...version };
    const state = await native.finishArchive(plan.token, copy, { partly });
    return state === 'dirty'
      ? { kind: 'busy', reason: 'the file changed while it was uploaded' }
      : { kind: 'archived', copy, blobs, partly };
  } catch (error) {
    await native.abortArchive(plan.token).catch((failure: unknown) => {
      context.log.debug(
        { fid: request.fid, cause: messageChain(failure) },
        'the file of a failed archive is gone',
      );
    });
    if (error instanceof Conflict) return { kind: 'refused', code: 'Conflict', reason: error.message };
    if (quiet.lost)
      return { kind: 'busy', reason: 'the file changed while it was uploaded; the blob is as it was' };
    return outcomeOf(error, hooks.signal);
  }
}

class Conflict extends Error {}

async function upload(
  context: MoverContext,
  { fid, blob }: { readonly fid: Fid; readonly blob: string },
  plan: ArchivePlan,
  hooks: TransferHooks,
  quiet: { lost: boolean },
): Promise<BlobVersion> {
  const { storeId, container, pool, log, config } = context;
  const ours = uploadsOf(storeId, blob);
  const uploadId = config.compat.strict ? undefined : `${ours}${randomUUID()}`;
  const recorded = plan.copy?.blob === blob ? plan.copy : undefined;
  // A small new file is uploaded under If-None-Match at once; a HEAD is cheaper than uploading a big one twice.
  const look = recorded !== undefined || plan.size > config.transfer.blockBytes;
  let replaced: Replaced = look ? await lookAt(context, blob, hooks.signal) : 'unknown';

  for (let attempt = 1; ; attempt++) {
    const found = typeof replaced === 'object' ? replaced : undefined;
    const inTheWay = directoryInTheWay(container, blob, found);
    if (inTheWay !== undefined) throw new Conflict(inTheWay);
    if (found !== undefined && !isOurs(found, recorded, ours)) {
      const reason =
        recorded === undefined
          ? `there is a blob ${blob} that this file does not come from`
          : `the blob ${blob} is not the version that this file comes from`;
      if (config.export.ifMatch) throw new Conflict(reason);
      log.info({ fid, blob, etag: found.etag, recorded: recorded?.etag }, `${reason}: it is overwritten`);
    }
    const { metadata: kept, headers, tier } = keptOf(found, 'file', config.compat);
    try {
      hooks.onProgress(0);
      const { version } = await pool.upload(
        {
          container: container.workerConfig,
          blob,
          fd: plan.fd,
          size: plan.size,
          metadata: {
            ...kept,
            ...metadataFor({ ...plan, kind: 'file' }, { extended: !config.compat.strict }),
            ...(uploadId === undefined ? {} : { [uploadIdKey]: uploadId }),
          },
          headers,
          tier,
          ...(found === undefined ? { ifNoneMatch: '*' as const } : { ifMatch: found.etag }),
          blockBytes: config.transfer.blockBytes,
          parallelBlocks: config.transfer.parallelBlocks,
        },
        {
          signal: hooks.signal,
          onProgress: hooks.onProgress,
          beforeCommit() {
            crashPoint('archive.staged');
            quiet.lost = !context.native.archiveQuiet(plan.token);
            return Promise.resolve(!quiet.lost);
          },
        },
      );
      return version;
    } catch (error) {
      const lost = error instanceof BlobError && ['changed', 'exists', 'missing'].includes(error.kind);
      if (!lost || attempt === maxUploads) throw error;
      replaced = await lookAt(context, blob, hooks.signal);
      // Our own upload, whose answer was lost and which the client sent again.
      if (
        typeof replaced === 'object' &&
        uploadId !== undefined &&
        replaced.metadata[uploadIdKey] === uploadId
      ) {
        return replaced;
      }
    }
  }
}

/** What the ids of this store's uploads to a blob begin with; a copy that somebody makes of it has another name. */
function uploadsOf(storeId: string, blob: string): string {
  return `${storeId}/${createHash('sha256').update(blob).digest('hex').slice(0, 16)}/`;
}

/** The version that the file comes from, or an upload of this store that nobody has overwritten since. */
function isOurs(found: BlobProperties, recorded: Copy | undefined, ours: string): boolean {
  return found.etag === recorded?.etag || found.metadata[uploadIdKey]?.startsWith(ours) === true;
}

async function lookAt({ container }: MoverContext, blob: string, signal: AbortSignal): Promise<Replaced> {
  try {
    return await container.properties(blob, signal);
  } catch (error) {
    if (error instanceof BlobError && error.kind === 'missing') return 'nothing';
    throw error;
  }
}

function outcomeOf(error: unknown, signal: AbortSignal): ArchiveOutcome {
  if (signal.aborted) return { kind: 'canceled' };
  if (hasErrno(error, ENOENT, ESTALE)) return { kind: 'gone' };
  if (hasErrno(error, ENODATA)) return { kind: 'not-needed', reason: 'the file is released' };
  if (hasErrno(error, EBUSY, ETXTBSY))
    return { kind: 'busy', reason: 'the file is open for writing or mapped' };
  return { kind: 'failed', error };
}
