import { createHash, randomInt } from 'node:crypto';
import { createReadStream } from 'node:fs';
import {
  chmod,
  chown,
  lchown,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  readlink,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** A repeatable source of numbers: mulberry32. Print the seed in the message of whatever fails. */
export class Dice {
  readonly seed: number;
  #state: number;

  constructor(seed: number = randomInt(2 ** 31)) {
    this.seed = seed;
    this.#state = seed;
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return Math.floor(this.next() * below);
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error('nothing to pick from');
    return item;
  }

  bytes(length: number): Buffer {
    const buffer = Buffer.allocUnsafe(length);
    const words = length >>> 2;
    for (let i = 0; i < words; i++) buffer.writeUInt32LE(Math.floor(this.next() * 2 ** 32), i * 4);
    for (let i = words * 4; i < length; i++) buffer[i] = this.below(256);
    return buffer;
  }
}

/** One entry of a tree, as a test wants it and as `readTree` finds it. */
export interface Entry {
  readonly kind: 'file' | 'directory' | 'symlink';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Whole seconds: what a blob's metadata keeps. */
  readonly mtime: number;
  readonly size: number;
  /** Files: SHA-256 in hex, unless the content was not asked for. */
  readonly sha256?: string;
  /** Symlinks. */
  readonly target?: string;
}

/** Path relative to the root -> entry. The root itself is not in it. */
export type Tree = ReadonlyMap<string, Entry>;

/** Names that programs get wrong: spaces, quotes, UTF-8, a newline, 255 bytes, glob characters, a leading dash or dot. */
export const oddNames: readonly string[] = [
  'with space',
  ' leading and trailing ',
  `quote's "double" \`back\``,
  'grüße-日本語-🦀',
  'new\nline',
  'x'.repeat(255),
  '*?[a-z]{b,c}',
  '-rf',
  '.hidden',
  'percent%20%2F',
  'plus+&=;#fragment',
  'tab\there',
];

export interface RandomTreeOptions {
  readonly files: number;
  readonly directories?: number;
  readonly maxSize?: number;
  /** uid/gid pairs to pick from; needs root. Default: unchanged. */
  readonly owners?: readonly (readonly [uid: number, gid: number])[];
}

/** Fills `root` (which exists) with random directories, files, symlinks and every odd name; the same dice, the same tree. */
export async function growTree(root: string, dice: Dice, options: RandomTreeOptions): Promise<void> {
  const { files, directories = Math.ceil(files / 20), maxSize = 64 * 1024 } = options;
  const folders = [''];
  for (let i = 0; i < directories; i++) {
    const folder = join(dice.pick(folders), `dir-${i}`);
    await mkdir(join(root, folder));
    folders.push(folder);
  }
  const names = [
    ...oddNames,
    ...Array.from({ length: Math.max(0, files - oddNames.length) }, (_, i) => `file-${i}`),
  ];
  for (const name of names) {
    const path = join(root, dice.pick(folders), name);
    const size = dice.below(10) === 0 ? 0 : dice.below(dice.below(4) === 0 ? maxSize : 4096);
    await writeFile(path, dice.bytes(size));
    await dress(path, dice, options, dice.pick([0o600, 0o640, 0o644, 0o664, 0o700, 0o755, 0o444]));
    if (dice.below(20) === 0) {
      const link = `${path.slice(0, -name.length)}link-${dice.below(1e9)}`;
      await symlink(name, link);
      if (options.owners !== undefined) await lchown(link, ...dice.pick(options.owners));
      const seconds = someTime(dice);
      await lutimes(link, seconds, seconds);
    }
  }
  // Children first: filling a directory changes its mtime.
  for (const folder of folders.slice(1).reverse()) {
    await dress(join(root, folder), dice, options, dice.pick([0o755, 0o750, 0o1777, 0o700]));
  }
}

async function dress(path: string, dice: Dice, { owners }: RandomTreeOptions, mode: number): Promise<void> {
  if (owners !== undefined) await chown(path, ...dice.pick(owners));
  await chmod(path, mode);
  const seconds = someTime(dice);
  await utimes(path, seconds, seconds);
}

/** Between 2001 and 2023, in seconds. */
function someTime(dice: Dice): number {
  return 1_000_000_000 + dice.below(700_000_000);
}

export interface ReadTreeOptions {
  /** Whether to read the files (default). Without, nothing is opened. */
  readonly content?: boolean;
}

/** Everything below `root`, in path order. */
export async function readTree(root: string, options: ReadTreeOptions = {}): Promise<Tree> {
  const { content = true } = options;
  const found: [string, Entry][] = [];
  const visit = async (folder: string): Promise<void> => {
    for (const name of await readdir(join(root, folder))) {
      const path = join(folder, name);
      const full = join(root, path);
      const stat = await lstat(full);
      const { uid, gid, size } = stat;
      const common = { mode: stat.mode & 0o7777, uid, gid, mtime: Math.floor(stat.mtimeMs / 1000) };
      if (stat.isDirectory()) {
        found.push([path, { ...common, kind: 'directory', size: 0 }]);
        await visit(path);
      } else if (stat.isSymbolicLink()) {
        found.push([path, { ...common, kind: 'symlink', size, target: await readlink(full) }]);
      } else if (stat.isFile()) {
        found.push([path, { ...common, kind: 'file', size, ...(content && { sha256: await sha256(full) }) }]);
      }
    }
  };
  await visit('');
  return new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** SHA-256 of a file in hex, read in order. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** A file of random content that may be too big for one buffer; returns its SHA-256. */
export async function growFile(path: string, size: number, dice: Dice): Promise<string> {
  await mkdir(dirname(path), { recursive: true });
  const hash = createHash('sha256');
  const block = dice.bytes(Math.min(size, 1 << 20));
  const handle = await open(path, 'wx');
  try {
    for (let at = 0; at < size; at += block.length) {
      // The block number makes every range of the file different.
      if (block.length >= 8) block.writeBigUInt64LE(BigInt(at), 0);
      const part = block.subarray(0, Math.min(block.length, size - at));
      hash.update(part);
      await handle.writeFile(part);
    }
  } finally {
    await handle.close();
  }
  return hash.digest('hex');
}

/** What is different between two trees, one line an entry; empty when nothing is. `ignore`d fields are not compared. */
export function differences(want: Tree, got: Tree, ignore: readonly (keyof Entry)[] = []): readonly string[] {
  const lines: string[] = [];
  for (const path of new Set([...want.keys(), ...got.keys()])) {
    const [a, b] = [want.get(path), got.get(path)];
    if (a === undefined) lines.push(`${JSON.stringify(path)}: not wanted`);
    else if (b === undefined) lines.push(`${JSON.stringify(path)}: missing`);
    else {
      const keys = (Object.keys({ ...a, ...b }) as (keyof Entry)[]).filter((key) => !ignore.includes(key));
      const wrong = keys
        .filter((key) => a[key] !== b[key])
        .map((key) => `${key} ${show(a[key])} -> ${show(b[key])}`);
      if (wrong.length > 0) lines.push(`${JSON.stringify(path)}: ${wrong.join(', ')}`);
    }
  }
  return lines;
}

function show(value: string | number | undefined): string {
  return value === undefined ? 'none' : JSON.stringify(value);
}
