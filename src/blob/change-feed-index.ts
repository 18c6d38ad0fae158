/** Where the change feed keeps what: segments of about an hour, their manifests, their shards (azurite 3). */
import { z } from 'zod';
import { BlobError } from '../base/errors.js';

export const changeFeedContainer = '$blobchangefeed';
/** Says up to which segment the feed may be read. */
export const consumableBlob = 'meta/segments.json';
export const segmentsPrefix = 'idx/segments/';

const segmentPattern = /^idx\/segments\/(\d{4}\/\d\d\/\d\d\/\d{4})\/meta\.json$/;

/** The segment that begins at this time: `2026/01/31/1200`. In the order of time, as strings. */
export function segmentAt(ms: number): string {
  const [date = '', time = ''] = new Date(ms).toISOString().split('T');
  return `${date.replaceAll('-', '/')}/${time.slice(0, 5).replace(':', '')}`;
}

/** The segment whose manifest has this name. */
export function segmentOfManifest(blob: string): string | undefined {
  return segmentPattern.exec(blob)?.[1];
}

export function manifestOf(segment: string): string {
  return `${segmentsPrefix}${segment}/meta.json`;
}

/** What the names of all manifests from one segment to another begin with. */
export function manifestsPrefix(from: string, to: string): string {
  let same = 0;
  while (same < from.length && from[same] === to[same]) same++;
  return segmentsPrefix + from.slice(0, same);
}

const shardPath = z.string().startsWith(`${changeFeedContainer}/log/`).endsWith('/');
const manifest = z
  .object({ status: z.string(), chunkFilePaths: z.array(shardPath) })
  .transform(({ status, chunkFilePaths }) => ({
    /** Nothing is appended to it any more. */
    final: status === 'Finalized',
    /** What the names of each shard's chunks begin with. */
    shards: chunkFilePaths.map((path) => path.slice(changeFeedContainer.length + 1)),
  }));
export type SegmentManifest = z.infer<typeof manifest>;

const consumable = z
  .object({ lastConsumable: z.iso.datetime({ offset: true }) })
  .transform(({ lastConsumable }) => Date.parse(lastConsumable));

/** A BlobError `corrupt` that names the blob where the text is no manifest. */
export function parseManifest(blob: string, text: Buffer): SegmentManifest {
  return parse(manifest, blob, text);
}

/** The time up to which segments may be read, in ms since the epoch. */
export function parseConsumable(text: Buffer): number {
  return parse(consumable, consumableBlob, text);
}

function parse<T>(schema: z.ZodType<T>, blob: string, text: Buffer): T {
  try {
    return schema.parse(JSON.parse(text.toString('utf8')));
  } catch (error) {
    throw new BlobError('corrupt', `the change feed's ${blob} cannot be understood`, { cause: error });
  }
}
