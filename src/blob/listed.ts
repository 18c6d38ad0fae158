/** A blob that was looked up, as a listing would have shown it. */
import type { BlobProperties, ListedBlob } from './port.js';

export function listedBlob(name: string, properties: BlobProperties): ListedBlob {
  const { kind, size, etag, lastModifiedMs, md5, tier, posix, metadata } = properties;
  return {
    name,
    kind,
    size,
    etag,
    lastModifiedMs,
    posix,
    metadata,
    ...(md5 !== undefined && { md5 }),
    ...(tier !== undefined && { tier }),
  };
}
