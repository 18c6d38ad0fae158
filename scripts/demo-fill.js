// The container of scripts/demo.sh, with the metadata that Azure Managed Lustre writes.
//   demo-fill.js fill CONTAINER...   creates the containers, and fills the first
//   demo-fill.js list CONTAINER      prints name, size and metadata of each blob, one a line
// The account is that of AZURE_STORAGE_CONNECTION_STRING.
import { createHash } from 'node:crypto';
import { BlobServiceClient } from '@azure/storage-blob';

const service = BlobServiceClient.fromConnectionString(process.env['AZURE_STORAGE_CONNECTION_STRING'] ?? '');
const modtime = '2023-03-17 15:00:11 +0000';

/**
 * @param {string} permissions
 * @param {number} owner
 */
function posix(permissions, owner = 1000) {
  return { owner: String(owner), group: '100', permissions, modtime };
}

/**
 * Bytes that are the same in every run.
 * @param {number} size
 */
function bytes(size) {
  const block = createHash('sha512').update(String(size)).digest();
  return Buffer.alloc(size, block);
}

/** @type {readonly (readonly [string, string | Buffer, Record<string, string>])[]} */
const blobs = [
  ['a', '', { ...posix('0750'), hdi_isfolder: 'true' }],
  ['a/b.bin', bytes(5 * 1024 * 1024 + 17), posix('0640')],
  ['a/notes.txt', 'read me first\n', posix('0644', 1001)],
  ['a/empty', '', posix('0600')],
  ['tools/hello', '#!/bin/sh\necho hello from a stub\n', posix('0755', 0)],
  ['tools/latest', 'hello', { ...posix('0777', 0), is_symlink: 'true', ftype: 'LNK' }],
  ['with blanks and ünïcode/it\'s "here".txt', 'odd names are names\n', posix('1644')],
  ['plain.txt', 'no metadata at all\n', {}],
  ...Array.from({ length: 40 }, (_, i) => {
    const name = `many/${String(i).padStart(2, '0')}.dat`;
    return /** @type {const} */ ([name, bytes(1000 + i), posix('0644')]);
  }),
];

const [verb, ...containers] = process.argv.slice(2);
const [first] = containers.map((name) => service.getContainerClient(name));
if (first === undefined || (verb !== 'fill' && verb !== 'list')) {
  process.stderr.write('usage: demo-fill.js fill CONTAINER... | list CONTAINER\n');
  process.exit(2);
}
if (verb === 'fill') {
  for (const name of containers) await service.getContainerClient(name).createIfNotExists();
  for (const [name, content, metadata] of blobs) {
    const body = Buffer.from(content);
    await first.getBlockBlobClient(name).upload(body, body.length, { metadata });
  }
} else {
  for await (const blob of first.listBlobsFlat({ includeMetadata: true })) {
    const metadata = Object.entries(blob.metadata ?? {})
      .filter(([key]) => !key.startsWith('lustrite_'))
      .map(([key, value]) => `${key}=${value}`);
    process.stdout.write(
      `${blob.name}\t${blob.properties.contentLength ?? 0}\t${metadata.sort().join(' ')}\n`,
    );
  }
}
