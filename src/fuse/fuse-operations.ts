/** libfuse 2.9's operations over the store: by path, beneath its root, and never through the mount itself. */
import * as fs from 'node:fs/promises';
import { close, fsync, read, write } from 'node:fs';
import { constants } from 'node:os';
import { promisify } from 'node:util';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { flagsText } from '../hsm/flags.js';
import { errnoOf } from '../hsm/movers.js';
import type { Fid, FileState, NativeStore } from '../store/inodes.js';
import type { FuseCallback, FuseOperations, FuseStat, FuseStatfs } from './fuse-native-loader.js';

const { EIO, EINVAL, ENODATA, ENOTSUP, EBADF } = constants.errno;

/** fcntl.h of Linux. */
const O_RDONLY = 0o0;
const O_RDWR = 0o2;
const O_ACCMODE = 0o3;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_NONBLOCK = 0o4000;
const O_DIRECTORY = 0o200000;
const O_PATH = 0o10000000;
const O_CLOEXEC = 0o2000000;

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const unchangedId = 0xffff_ffff;
const nsPerMs = 1_000_000n;

/** What `lfs setstripe` was told (native/abi.h), and where the store keeps it (native/store/extended_attributes.h). */
const layoutXattr = 'lustre.lustrite.layout';
const layoutKept = 'trusted.lustrite.layout';
/** sizeof(struct lustrite_layout) */
const maxLayout = 8 + 16 * 40;

const closeFd = promisify(close);
const fsyncFd = promisify(fsync);
const readFd = promisify(read);
const writeFd = promisify(write);

interface OpenHandle {
  readonly handle: number;
  readonly fd: number;
  /** Opened for writing without waiting: the first write waits instead. */
  toAdmit?: boolean;
}

export interface FuseOperationsOptions {
  readonly native: NativeStore;
  readonly log: Log;
  /** What getxattr(user.lustrite.socket) answers. */
  readonly socketPath: string;
}

export interface ServedOperations {
  readonly operations: FuseOperations;
  /** Closes what the kernel did not: after a lazy unmount. */
  closeAll(): Promise<void>;
  stats(): Readonly<Record<string, number>>;
}

export function fuseOperations(options: FuseOperationsOptions): ServedOperations {
  const { native, log, socketPath } = options;
  const handles = new Map<number, OpenHandle>();
  let lastHandle = 0;
  let requests = 0;

  /** Answers with 0, or with the errno of whatever goes wrong. */
  function serve(done: FuseCallback, work: () => Promise<unknown>): void {
    requests++;
    work().then(
      () => done(0),
      (error: unknown) => done(-errnoFor(error, log)),
    );
  }

  /** As `serve`, with a result. */
  function give<Result>(done: FuseCallback<[Result]>, work: () => Promise<Result>): void {
    requests++;
    work().then(
      (result) => done(0, result),
      (error: unknown) => done(-errnoFor(error, log)),
    );
  }

  /** As `serve`, for read and write: the number of bytes is the answer. */
  function serveBytes(done: FuseCallback<[number]>, work: () => Promise<number>): void {
    requests++;
    work().then(
      (bytes) => done(bytes),
      (error: unknown) => done(-errnoFor(error, log)),
    );
  }

  function keep(opened: OpenHandle): number {
    // An int32 in the package, in which 0 means none.
    do lastHandle = (lastHandle % 0x7fff_ffff) + 1;
    while (handles.has(lastHandle));
    handles.set(lastHandle, opened);
    return lastHandle;
  }

  function handleOf(fh: number): OpenHandle {
    const opened = handles.get(fh);
    if (opened === undefined) throw Object.assign(new Error('no such handle'), { errno: EBADF });
    return opened;
  }

  /** Runs work on a name by way of its directory's fd, so that no component on the way can be swapped for a link. */
  async function atParent<T>(path: string, work: (there: string) => Promise<T>): Promise<T> {
    const slash = path.lastIndexOf('/');
    const fd = await native.openBeneath(beneath(path.slice(0, slash)), O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    try {
      return await work(`/proc/self/fd/${fd}/${path.slice(slash + 1)}`);
    } finally {
      await closeFd(fd);
    }
  }

  async function getattr(path: string): Promise<FuseStat> {
    const stat = await native.stat(beneath(path));
    const ms = (ns: bigint): number => Number(ns / nsPerMs);
    return {
      mode: stat.mode,
      uid: stat.uid,
      gid: stat.gid,
      size: stat.size,
      dev: 0,
      nlink: stat.nlink,
      ino: Number(BigInt.asUintN(32, stat.ino)),
      rdev: Number(BigInt.asUintN(32, stat.rdev)),
      blksize: 4096,
      blocks: stat.blocks,
      atime: ms(stat.atimeNs),
      mtime: ms(stat.mtimeNs),
      ctime: ms(stat.ctimeNs),
    };
  }

  async function create(path: string, mode: number): Promise<OpenHandle> {
    const opened = await native.openHandle(
      beneath(path),
      O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
      mode & 0o7777,
    );
    // The kernel has applied the caller's umask already; ours is not wanted.
    await native.setAttributes(beneath(path), { mode: mode & 0o7777 });
    return opened;
  }

  async function setLayout(path: string, value: Buffer | null): Promise<void> {
    await native.setAttributes(path, { extended: { [layoutKept]: value } });
  }

  const operations: FuseOperations = {
    getattr: (path, done) => give(done, () => getattr(path)),
    fgetattr: (path, _fh, done) => give(done, () => getattr(path)),
    statfs: (_path, done) => give(done, () => Promise.resolve(shownStatfs(native))),
    readdir: (path, done) =>
      give(done, async () => {
        const fd = await native.openBeneath(beneath(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        try {
          return await fs.readdir(`/proc/self/fd/${fd}`);
        } finally {
          await closeFd(fd);
        }
      }),
    readlink: (path, done) => give(done, () => atParent(path, (there) => fs.readlink(there))),
    open: (path, flags, done) =>
      give(done, async () => {
        const opened = await native.openHandle(beneath(path), flags | O_CLOEXEC, 0);
        const toAdmit = (flags & O_ACCMODE) !== O_RDONLY && (flags & O_NONBLOCK) !== 0;
        return keep({ ...opened, toAdmit });
      }),
    create: (path, mode, done) => give(done, async () => keep(await create(path, mode))),
    read: (_path, fh, into, length, offset, done) =>
      serveBytes(done, async () => {
        const { handle, fd } = handleOf(fh);
        // The whole of it: a restore that fails could take early bytes away between the two calls.
        await native.admitRead(handle, 0, Number.MAX_SAFE_INTEGER);
        return (await readFd(fd, into, 0, length, offset)).bytesRead;
      }),
    write: (_path, fh, from, length, offset, done) =>
      serveBytes(done, async () => {
        const opened = handleOf(fh);
        const { fd } = opened;
        if (opened.toAdmit === true) {
          await native.admitWrite(opened.handle);
          opened.toAdmit = false;
        }
        let written = 0;
        while (written < length) {
          written += (await writeFd(fd, from, written, length - written, offset + written)).bytesWritten;
        }
        return written;
      }),
    flush: (_path, _fh, done) => done(0),
    fsync: (_path, _dataOnly, fh, done) =>
      serve(done, async () => {
        await fsyncFd(handleOf(fh).fd);
      }),
    release: (_path, fh, done) =>
      serve(done, async () => {
        const { handle } = handleOf(fh);
        handles.delete(fh);
        await native.closeHandle(handle);
      }),
    truncate: (path, size, done) => serve(done, () => native.truncate(beneath(path), size)),
    ftruncate: (path, _fh, size, done) => serve(done, () => native.truncate(beneath(path), size)),
    utimens: (path, atime, mtime, done) =>
      serve(done, () => native.setTimes(beneath(path), nsOf(atime), nsOf(mtime))),
    chmod: (path, mode, done) =>
      serve(done, () => native.setAttributes(beneath(path), { mode: mode & 0o7777 })),
    chown: (path, uid, gid, done) =>
      serve(done, () =>
        native.setAttributes(beneath(path), {
          ...(uid >>> 0 === unchangedId ? {} : { uid: uid >>> 0 }),
          ...(gid >>> 0 === unchangedId ? {} : { gid: gid >>> 0 }),
        }),
      ),
    mknod: (path, mode, _device, done) =>
      serve(done, async () => {
        if ((mode & S_IFMT) !== S_IFREG)
          throw Object.assign(new Error('regular files only'), { errno: ENOTSUP });
        await native.closeHandle((await create(path, mode)).handle);
      }),
    mkdir: (path, mode, done) =>
      serve(done, async () => {
        await atParent(path, (there) => fs.mkdir(there, { mode: mode & 0o7777 }));
        await native.setAttributes(beneath(path), { mode: mode & 0o7777 });
      }),
    unlink: (path, done) => serve(done, () => native.unlinkName(beneath(path))),
    rmdir: (path, done) => serve(done, () => atParent(path, (there) => fs.rmdir(there))),
    rename: (from, to, done) => serve(done, () => native.rename(beneath(from), beneath(to))),
    link: (from, to, done) => serve(done, () => native.link(beneath(from), beneath(to))),
    symlink: (target, path, done) => serve(done, () => atParent(path, (there) => fs.symlink(target, there))),
    getxattr: (path, name, _position, done) =>
      give(done, () => xattr(native, socketPath, beneath(path), name)),
    setxattr: (path, name, value, _position, _flags, done) => {
      if (name === layoutXattr && value.length > maxLayout) done(-EINVAL);
      else if (name === layoutXattr) serve(done, () => setLayout(beneath(path), Buffer.from(value)));
      else done(isIgnored(name) ? 0 : -ENOTSUP);
    },
    listxattr: (_path, done) => done(0, []),
    removexattr: (path, name, done) => {
      if (name === layoutXattr) serve(done, () => setLayout(beneath(path), null));
      else done(isIgnored(name) ? 0 : -ENOTSUP);
    },
  };

  return {
    operations,
    async closeAll() {
      const open = [...handles.values()];
      handles.clear();
      await Promise.allSettled(open.map(({ handle }) => native.closeHandle(handle)));
    },
    stats: () => ({ requests, handles: handles.size }),
  };
}

/** As the store names it: without the leading '/', '' for the root. */
function beneath(path: string): string {
  return path.replace(/^\/+/, '');
}

function nsOf(ms: number): bigint {
  return BigInt(Math.trunc(ms)) * nsPerMs;
}

function errnoFor(error: unknown, log: Log): number {
  const errno = errnoOf(error);
  if (errno !== undefined) return errno;
  log.error({ cause: messageChain(error) }, 'a file system request failed unexpectedly');
  return EIO;
}

/** The package's fields are 32 bits wide: bigger file systems are shown in bigger blocks. */
function shownStatfs(native: NativeStore): FuseStatfs {
  const { bsize, blocks, bfree, bavail, files, ffree } = native.statfs();
  const max = 0xffff_ffffn;
  let shift = 0n;
  while (blocks >> shift > max) shift++;
  const inodes = (count: bigint): number => Number(count > max ? max : count);
  return {
    bsize: bsize * 2 ** Number(shift),
    frsize: bsize * 2 ** Number(shift),
    blocks: Number(blocks >> shift),
    bfree: Number(bfree >> shift),
    bavail: Number(bavail >> shift),
    files: inodes(files),
    ffree: inodes(ffree),
    favail: inodes(ffree),
    namemax: 255,
  };
}

/** Lustre ignores attempts to change them; so does every front end. */
function isIgnored(name: string): boolean {
  return /^[a-z]+\.(?:hsm|lhsm_|lustrite)/.test(name);
}

async function xattr(native: NativeStore, socketPath: string, path: string, name: string): Promise<Buffer> {
  if (name === 'user.lustrite.socket') return Buffer.from(socketPath);
  if (name === 'system.lustrite.fid') return fidBytes(native.fidOf(path));
  const kept = name === layoutXattr ? await native.extended(path, layoutKept) : undefined;
  if (kept !== undefined) return kept;
  const shown = shownXattrs[name];
  const value = shown === undefined ? undefined : shown(await native.state(native.fidOf(path)));
  if (value === undefined) throw Object.assign(new Error('no such attribute'), { errno: ENODATA });
  return Buffer.from(value);
}

type ShownXattr = (state: FileState) => string | Buffer | undefined;

const shownXattrs: Readonly<Record<string, ShownXattr | undefined>> = {
  'trusted.hsm': lustreXattr,
  'trusted.lhsm_uuid': ({ copy }) => copy?.blob,
  'user.hsm.state': ({ flags }) => (flags === 0 ? undefined : flagsText(flags)),
  'user.hsm.blob': ({ copy }) => copy?.blob,
  'user.hsm.etag': ({ copy }) => copy?.etag,
};

/** struct hsm_attrs (lustre-hsm 4.1), as InodeImpl::ShowXattr has it. */
function lustreXattr({ flags, archiveId, copy }: FileState): Buffer | undefined {
  if (flags === 0 && archiveId === 0 && copy === undefined) return undefined;
  const bytes = Buffer.alloc(24);
  bytes.writeUInt32LE(flags, 4);
  bytes.writeBigUInt64LE(BigInt(archiveId), 8);
  bytes.writeBigUInt64LE(BigInt(copy?.lastModifiedMs ?? 0), 16);
  return bytes;
}

/** struct lu_fid of native/abi.h. */
export function fidBytes(fid: Fid): Buffer {
  const [sequence = '0', object = '0', version = '0'] = fid.slice(1, -1).split(':');
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(sequence), 0);
  bytes.writeUInt32LE(Number(object), 8);
  bytes.writeUInt32LE(Number(version), 12);
  return bytes;
}
