/** STORE/meta.json: which container and which format a store belongs to. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { isDiskFull, UserError } from '../base/errors.js';
import { replaceFile } from './atomic-file.js';

/** Grows when an older lustrite could damage the store. */
export const storeFormat = 1;

export interface StoreMeta {
  readonly format: number;
  readonly fsId: string;
  readonly fsName: string;
  /** Account and container. */
  readonly container: string;
  /** Kernel boot of the last daemon: file times are evidence only within one boot. */
  readonly bootId: string;
}

const schema = z.object({
  format: z.int().positive(),
  fsId: z.string(),
  fsName: z.string(),
  container: z.string(),
  bootId: z.string(),
});

/** Who opens the store, and where. */
export interface StoreIdentity {
  readonly identity: string;
  readonly fsName: string;
  readonly bootId: string;
}

/** What meta.json shall say, from what it says (null: no such file). Refuses what would mix two containers or formats. */
export function nextMeta(path: string, text: string | null, wanted: StoreIdentity): StoreMeta {
  const { identity, fsName, bootId } = wanted;
  if (text === null) return { format: storeFormat, fsId: randomUUID(), fsName, container: identity, bootId };
  const found = parse(path, text);
  if (found.format > storeFormat) {
    throw new UserError(
      'StoreFormat',
      `the store has format ${found.format}, this lustrite knows ${storeFormat}: ${path}; use a newer lustrite or another --store`,
    );
  }
  if (found.container !== identity) {
    throw new UserError(
      'StoreMismatch',
      `the store belongs to the container ${found.container}, not to ${identity}: ${path}; use another --store`,
    );
  }
  return { ...found, format: storeFormat, bootId };
}

/** Reads, checks and rewrites meta.json; durable when it resolves, unless the disk is full and it says whose the store is. */
export async function openMeta(path: string, wanted: StoreIdentity): Promise<StoreMeta> {
  const text = await readOrNull(path);
  const meta = nextMeta(path, text, wanted);
  const next = `${JSON.stringify(meta, null, 2)}\n`;
  if (next === text) return meta;
  try {
    await replaceFile(path, next, { durable: true });
  } catch (error) {
    if (text === null || !isDiskFull(error) || parse(path, text).format !== meta.format) throw error;
  }
  return meta;
}

function parse(path: string, text: string): StoreMeta {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UserError('StoreDamaged', `${path} is not JSON; restore it or use another --store`, {
      cause: error,
    });
  }
  // A newer format may have other fields: its number has to be readable all the same.
  const format = z.object({ format: z.int().positive() }).safeParse(json);
  if (format.success && format.data.format > storeFormat) {
    return { fsId: '', fsName: '', container: '', bootId: '', format: format.data.format };
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  throw new UserError('StoreDamaged', `${path} is damaged: ${z.prettifyError(result.error)}`);
}

async function readOrNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
