/** What is not ours to drop when a blob is written again. */
import type { BlobKind, BlobProperties, WriteOptions } from '../blob/port.js';

/** Keys that say what metadata/ownership a blob has, in any dialect: an export replaces them all by its own. */
const attributeKeys = new Set([
  ...['owner', 'group', 'permissions', 'modtime', 'mtime', 'hdi_isfolder', 'is_symlink', 'ftype', 'symlink'],
  ...[
    'lustrite_stat',
    'lustrite_upload',
    'uid',
    'gid',
    'perm',
    'hdi_permission',
    'asv_permission',
    'asv_isfolder',
  ],
  ...['is_fifo', 'is_socket', 'is_block_dev', 'is_char_dev'],
]);

/**
 * What a blob keeps when an entry of this kind is written over it: its HTTP headers, its tier, and the metadata that is no
 * POSIX attribute. Nothing where it was something else, or under `strict`: the copytool of production writes all anew.
 */
export function keptOf(
  found: BlobProperties | undefined,
  kind: BlobKind,
  { strict }: { readonly strict: boolean },
): Pick<WriteOptions, 'metadata' | 'headers' | 'tier'> {
  if (strict || found?.kind !== kind) return { metadata: {} };
  const tier = onlineTier(found.tier);
  return {
    metadata: foreignMetadata(found.metadata),
    headers: found.headers,
    ...(tier === undefined ? {} : { tier }),
  };
}

/** A blob that is written anew must be readable: the archive tier is not kept. */
function onlineTier(tier: string | undefined): string | undefined {
  return tier === 'Hot' || tier === 'Cool' || tier === 'Cold' ? tier : undefined;
}

/** Keys in lower case. */
function foreignMetadata(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(metadata).filter(
      ([key]) => !attributeKeys.has(key) && !key.startsWith('posix_') && !key.startsWith('linux_'),
    ),
  );
}
