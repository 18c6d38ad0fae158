/**
 * Where the copytool of production looks for the blob of a file: at what the request's `--data` names, else at the
 * present path of the file, whatever blob it came from (amlfs 3.1). Only under `compat.strict`: a renamed stub is not
 * found so.
 */
import { FsError } from '../base/errors.js';
import { blobOfPath } from '../blob/names.js';

/**
 * @param data what `--data` had, in hexadecimal digits: JSON with a `file_id`, or anything else
 * @param present the names of blobs that the file's paths have
 * @throws FsError EINVAL for a `file_id` that is no name of a blob
 */
export async function strictName(
  data: string | undefined,
  present: () => Promise<readonly string[]>,
): Promise<string> {
  const fileId = fileIdOf(data);
  if (fileId === undefined) {
    const [name] = await present();
    if (name === undefined) throw new FsError('EINVAL', 'no name of the file can be the name of a blob');
    return name;
  }
  const blob = blobOfPath(fileId);
  if ('refused' in blob)
    throw new FsError('EINVAL', `file_id ${JSON.stringify(fileId)} is no blob: ${blob.refused}`);
  return blob.name;
}

function fileIdOf(data: string | undefined): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(data ?? '', 'hex').toString('utf8'));
  } catch {
    // It may be meant for another copytool.
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('file_id' in value)) return undefined;
  return typeof value.file_id === 'string' ? value.file_id : undefined;
}
