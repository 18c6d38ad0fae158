/** Loads the npm package fuse-native with the libfuse 2 that it ships: Debian has none any more. */
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';

/** dlfcn.h; Node has no name for it. Without it Node closes a library that is not an addon. */
const RTLD_NODELETE = 0x1000;

export interface FuseStat {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly dev: number;
  readonly nlink: number;
  readonly ino: number;
  readonly rdev: number;
  readonly blksize: number;
  readonly blocks: number;
  /** Milliseconds. */
  readonly atime: number;
  readonly mtime: number;
  readonly ctime: number;
}

/** A callback takes 0 or a negative errno, then the result. */
export type FuseCallback<Result extends unknown[] = []> = (errno: number, ...result: Result | []) => void;

export interface FuseStatfs {
  readonly bsize: number;
  readonly frsize: number;
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly favail: number;
  readonly namemax: number;
}

/** The operations that we serve; paths begin with '/'. */
export interface FuseOperations {
  getattr(path: string, done: FuseCallback<[FuseStat]>): void;
  fgetattr(path: string, fh: number, done: FuseCallback<[FuseStat]>): void;
  statfs(path: string, done: FuseCallback<[FuseStatfs]>): void;
  readdir(path: string, done: FuseCallback<[readonly string[]]>): void;
  readlink(path: string, done: FuseCallback<[string]>): void;
  open(path: string, flags: number, done: FuseCallback<[number]>): void;
  create(path: string, mode: number, done: FuseCallback<[number]>): void;
  /** `done` takes the number of bytes, or a negative errno. */
  read(
    path: string,
    fh: number,
    into: Buffer,
    length: number,
    offset: number,
    done: FuseCallback<[number]>,
  ): void;
  write(
    path: string,
    fh: number,
    from: Buffer,
    length: number,
    offset: number,
    done: FuseCallback<[number]>,
  ): void;
  flush(path: string, fh: number, done: FuseCallback): void;
  fsync(path: string, dataOnly: number, fh: number, done: FuseCallback): void;
  release(path: string, fh: number, done: FuseCallback): void;
  truncate(path: string, size: number, done: FuseCallback): void;
  ftruncate(path: string, fh: number, size: number, done: FuseCallback): void;
  /** Milliseconds. */
  utimens(path: string, atime: number, mtime: number, done: FuseCallback): void;
  chmod(path: string, mode: number, done: FuseCallback): void;
  chown(path: string, uid: number, gid: number, done: FuseCallback): void;
  mknod(path: string, mode: number, device: number, done: FuseCallback): void;
  mkdir(path: string, mode: number, done: FuseCallback): void;
  unlink(path: string, done: FuseCallback): void;
  rmdir(path: string, done: FuseCallback): void;
  rename(from: string, to: string, done: FuseCallback): void;
  link(from: string, to: string, done: FuseCallback): void;
  symlink(target: string, path: string, done: FuseCallback): void;
  getxattr(path: string, name: string, position: number, done: FuseCallback<[Buffer]>): void;
  setxattr(
    path: string,
    name: string,
    value: Buffer,
    position: number,
    flags: number,
    done: FuseCallback,
  ): void;
  listxattr(path: string, done: FuseCallback<[readonly string[]]>): void;
  removexattr(path: string, name: string, done: FuseCallback): void;
}

export interface FuseOptions {
  readonly timeout: false;
  readonly allowOther: boolean;
  readonly defaultPermissions: boolean;
  readonly fsname: string;
  readonly subtype: string;
  readonly attrTimeout: string;
}

export interface Fuse {
  mount(done: (error: Error | null) => void): void;
}

export type FuseConstructor = new (
  mountPoint: string,
  operations: FuseOperations,
  options: FuseOptions,
) => Fuse;

/**
 * Its own libfuse is loaded first, by path, so that the addon's NEEDED libfuse.so.2 is met by it whatever the linker
 * would find elsewhere.
 */
export function loadFuseNative(): FuseConstructor {
  const require = createRequire(import.meta.url);
  const folder = dirname(require.resolve('fuse-native/package.json'));
  const library = join(folder, 'prebuilds', `linux-${process.arch}`, 'libfuse.so');
  const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
  try {
    process.dlopen({ exports: {} }, library, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  } catch (error) {
    // "Module did not self-register": it is no addon, and it stays loaded, which is all we want.
    if (!(error instanceof Error && error.message.includes('did not self-register'))) throw error;
  }
  return require('fuse-native') as FuseConstructor;
}
