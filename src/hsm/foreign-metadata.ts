/** Blob metadata that is not ours to drop when a blob is written again. */

/** Keys that say what metadata/ownership a blob has, in any dialect: an export replaces them all by its own. */
const attributeKeys = new Set([
  ...['owner', 'group', 'permissions', 'modtime', 'hdi_isfolder', 'is_symlink', 'ftype', 'symlink'],
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

/** What remains of a blob's metadata without the POSIX attributes of any dialect. Keys in lower case. */
export function foreignMetadata(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(metadata).filter(
      ([key]) => !attributeKeys.has(key) && !key.startsWith('posix_') && !key.startsWith('linux_'),
    ),
  );
}
