/**
 * The typed face of the addon (native/): the one place where TypeScript and C++ meet. C++ owns inodes, records, leases
 * and the FUSE protocol; TypeScript owns blobs, jobs and policy.
 *
 * Every failing call throws or rejects with an Error whose `errno` is a positive number and whose `code` is its name
 * ("EBUSY"). Calls that touch the disk for longer than a few microseconds return promises and run on the addon's own
 * threads, never on the event loop.
 */
import { createRequire } from 'node:module';

/** `[0x200000401:0x5:0x0]`: Lustre's notation; here built from inode number and generation. */
export type Fid = string & { readonly __brand: 'Fid' };

export type FileType = 'file' | 'directory' | 'symlink' | 'special';

/** The copy of a file in the container, as its record names it. ETags have no quotes. */
export interface Copy {
  readonly blob: string;
  readonly etag: string;
  readonly size: number;
  readonly lastModifiedMs: number;
  /** Base64 Content-MD5. Kept only where it does not cost the stub a disk block of its own. */
  readonly md5?: string;
}

/** What HSM knows of an inode at this moment, computed when asked. */
export interface FileState {
  readonly fid: Fid;
  readonly type: FileType;
  /** HS_* bits as `lfs hsm_state` shows them. */
  readonly flags: number;
  readonly archiveId: number;
  /** The content is not the copy's: never released, always exported. Implies nothing about HS_DIRTY, which users may clear. */
  readonly modified: boolean;
  readonly copy?: Copy;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeNs: bigint;
  /** When it was read last, as exactly as the store's file system keeps that (relatime: within a day). */
  readonly atimeNs: bigint;
  readonly nlink: number;
  /** Bytes on disk. */
  readonly allocated: number;
  /** Open handles that can write / that cannot, on any front end. */
  readonly writers: number;
  readonly readers: number;
  readonly restoring: boolean;
}

export interface WalkEntry extends FileState {
  /** Relative to the root, no leading slash. U+FFFD stands for what is not UTF-8; then `pathBytes` has the name. */
  readonly path: string;
  readonly pathBytes?: Buffer;
  /** Symlinks only. */
  readonly target?: Buffer;
}

/**
 * By their names, null where there is to be none. `system.posix_acl_access` has a say in the mode, and without it a file
 * gets what its directory's `system.posix_acl_default` says.
 */
export type ExtendedAttributes = Readonly<Record<string, Buffer | null>>;

export interface Stub {
  /** Relative, checked by blob/names.ts; C++ checks again and resolves beneath the store without following links. */
  readonly path: string;
  readonly kind: 'file' | 'directory' | 'symlink';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly size: number;
  /** Symlinks: any bytes but NUL. */
  readonly target?: Buffer;
  /** Files and symlinks: the blob this stands for. Directories may carry it too (their hdi_isfolder stub). */
  readonly copy?: Copy;
  /** Not of symlinks. */
  readonly extended?: ExtendedAttributes;
}

/** `exists`: something else is there, untouched (for a directory over a directory: its attributes are untouched too). */
export type StubResult =
  | { readonly kind: 'created'; readonly fid: Fid }
  | { readonly kind: 'exists'; readonly state: FileState }
  | { readonly kind: 'failed'; readonly errno: number; readonly code: string };

export interface StubDefaults {
  /** For directories that only a blob's name implies. */
  readonly dirMode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
}

export interface Probe {
  /** ext4, xfs, btrfs, … as statfs names it. */
  readonly fileSystem: string;
  readonly handles: boolean;
  readonly leases: boolean;
  readonly punchHole: boolean;
  /** Bytes of record that fit into an inode (0: every record costs a block, or not measured). */
  readonly xattrRoom: number;
  readonly privileged: boolean;
}

export interface Attributes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeNs?: bigint;
  readonly extended?: ExtendedAttributes;
  /** Only while the path is this inode's: ESTALE. */
  readonly fid?: Fid;
}

export interface RestorePlan {
  /** Borrowed by the mover until finishRestore/failRestore, which close it. Space for `size` bytes is allocated. */
  readonly fd: number;
  readonly size: number;
}

export interface ArchivePlan {
  /** Names this archive to the calls below. */
  readonly token: number;
  /** Read-only, borrowed until finishArchive/abortArchive. */
  readonly fd: number;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly copy?: Copy;
}

export interface ShownAction {
  /** HPS_* and HUA_* of native/abi.h. */
  readonly state: number;
  readonly action: number;
  readonly offset: bigint;
  readonly length: bigint;
}

/** What happened to a file, for the changelog. */
export interface Change {
  readonly kind: 'state' | 'release' | 'restore' | 'unlink' | 'rename';
  readonly atNs: bigint;
  /** `rename`: of what was at the new name, absent where nothing was. */
  readonly fid?: Fid;
  /** `state`: the HS_* bits that it has now. */
  readonly flags?: number;
  /** `unlink`, `rename`: `fid` had no other name; the container may have a copy of it. */
  readonly last?: boolean;
  readonly exists?: boolean;
  /** The name that went, or the new one. */
  readonly parent?: Fid;
  readonly name?: Buffer;
  /** `rename`: the file, and its old name. */
  readonly moved?: Fid;
  readonly movedParent?: Fid;
  readonly movedName?: Buffer;
}

export interface StoreEvents {
  /**
   * Somebody waits for the data of `fid`, or would. Fired once per restore, from the first request that needs it, also
   * where it runs already, again only after that restore was finished, failed or canceled. Answer with beginRestore …
   * finishRestore/failRestore, or failRestore alone.
   */
  restoreNeeded(fid: Fid, pid: number): void;
  /** The last name and the last handle of a file with a copy are gone; only after setTellGone(true). */
  fileGone?(fid: Fid, copy: Copy, archiveId: number): void;
  /** takeChanges has something, where it had nothing; only after setTellChanges(true). */
  changed?(): void;
}

export interface NativeStore {
  readonly probe: Probe;
  /** Inodes that hold state in memory, held requests, … : gauges for status and leak tests. */
  stats(): Readonly<Record<string, number>>;
  close(): Promise<void>;

  /** The FID at a path; symlinks are not followed. ENOENT, ENOTDIR, … */
  fidOf(path: string): Fid;
  /**
   * One of the inode's names, relative to the root, where the kernel knows it (/proc/self/fd of its handle) and it still
   * leads to this inode; undefined otherwise, and then the caller walks.
   */
  pathOf?(fid: Fid): Promise<Buffer | undefined>;
  state(fid: Fid): Promise<FileState>;
  /**
   * Whoever needs the data of a released file from now on gets ENODATA at once; `restoreNeeded` is told as always
   * (the policy NonBlockingRestore: lustre-hsm 3.8).
   */
  setNonBlockingRestore(on: boolean): void;
  /** Whether StoreEvents.fileGone is called. */
  setTellGone(on: boolean): void;
  /** Whether changes are kept for takeChanges; off, what was kept is forgotten. */
  setTellChanges(on: boolean): void;
  /** The oldest ones, in order, also those of which `changed` was not called yet. `lost`: how many were, behind them. */
  takeChanges(): { readonly changes: readonly Change[]; readonly lost: number };
  /** One entry per path, undefined where nothing is. */
  lookup(paths: readonly string[]): Promise<readonly (FileState | undefined)[]>;
  statfs(): {
    readonly bsize: number;
    readonly blocks: bigint;
    /** More than `bavail` where some are kept for root. */
    readonly bfree: bigint;
    readonly bavail: bigint;
    readonly files: bigint;
    readonly ffree: bigint;
  };

  createStubs(stubs: readonly Stub[], defaults: StubDefaults): Promise<readonly StubResult[]>;
  /** Attributes of an existing entry (import: directories after their children, skip-mode never). */
  setAttributes(path: string, attributes: Attributes): Promise<void>;
  /**
   * A new record on a path that exists and is clean or released (import, overwrite modes); `lost`: the blob is known not
   * to have the content. EBUSY when open, ESTALE when it changed meanwhile. Of a symlink only the copy is recorded.
   * `durable: false`: where no data and no other blob is given up for it, the next barrier makes it durable. `links`: ESTALE
   * unless the file has the stub's path and so many names, up to the moment when the record says so.
   */
  replaceCopy(
    fid: Fid,
    stub: Stub,
    options?: { readonly lost?: boolean; readonly durable?: boolean; readonly links?: number },
  ): Promise<void>;
  /**
   * Whatever was made, changed or removed before the call is durable no later than what the caller makes durable after
   * it has resolved: before a record that says that it is done.
   */
  barrier(): Promise<void>;
  /**
   * Gives the stub the name of `fid`, which is gone then, whatever it is and however dirty (import, overwrite modes). One
   * step, but for an empty directory. Resolves with the new FID. ESTALE: the name is another's; EBUSY: open, mapped,
   * archived or restored; ENOTEMPTY.
   */
  replaceEntry(fid: Fid, stub: Stub): Promise<Fid>;
  /**
   * Removes a file, symlink or empty directory by path, if it is still `fid`: ESTALE. `onlyClean`: a file only while nobody
   * has it open (EBUSY) and its copy has what it has (ESTALE).
   */
  remove(path: string, fid: Fid, options?: { readonly onlyClean: boolean }): Promise<void>;

  /**
   * Depth-first, in directory order, batches of up to `batch` entries. `select` 'changed': regular files that an export
   * would copy (new or modified), and everything that is no regular file; 'all': everything.
   * Under `path` (a directory) only.
   */
  walk(options: {
    readonly path?: string;
    readonly select: 'all' | 'changed';
    readonly batch: number;
  }): NativeWalk;
  /** {files, directories, symlinks, special, resident, released, dirty, new}: counts and bytes, by a walk in C++. */
  census(): Promise<Readonly<Record<string, number>>>;

  /** Read a symlink's target or `null` when it is none any more. */
  readlink(fid: Fid): Promise<Buffer | null>;

  // ---- restore (SEMANTICS "Restore")
  /**
   * ENOENT: gone. EALREADY: not released, or running. ENOSPC/EDQUOT before a byte is written. `copy` where the blob has
   * another version than the record's: then no byte is shown before the end. With `copy` while a restore runs, that one
   * starts again: its fd is closed, what it wrote is punched, whoever waits goes on waiting.
   */
  beginRestore(fid: Fid, copy?: Copy): Promise<RestorePlan>;
  /** The first `bytes` bytes are on disk: readers below go on. Cheap, any rate. */
  restoreProgress(fid: Fid, bytes: number): void;
  /** It is about to fail, for those who wait by now: of the next one who needs the data `restoreNeeded` is told. Cheap. */
  restoreCanceled(fid: Fid): void;
  /** Durable, RELEASED cleared, readers woken. Group commit inside. */
  finishRestore(fid: Fid, copy: Copy): Promise<void>;
  /** Punched, still released; held requests get `errno`, or with 0 ask for the data anew. Works without beginRestore too. */
  failRestore(fid: Fid, errno: number): Promise<void>;

  // ---- archive (SEMANTICS "Archive")
  /** Takes the lease, fsyncs, samples; sets HS_EXISTS and the archive id. EBUSY: a writer or mapping is in the way; ENODATA: released; ENOENT. */
  beginArchive(fid: Fid, archiveId: number): Promise<ArchivePlan>;
  /** Nobody wrote since beginArchive. False is final. */
  archiveQuiet(token: number): boolean;
  /**
   * Records the copy. 'clean', or 'dirty' when somebody wrote meanwhile. `partly`: the container has not all that it shall
   * have of the file, which stays dirty; 'partly' where nobody wrote.
   */
  finishArchive(
    token: number,
    copy: Copy,
    options?: { readonly partly: boolean },
  ): Promise<'clean' | 'partly' | 'dirty'>;
  abortArchive(token: number): Promise<void>;

  // ---- release (lustre-hsm 3.3): EPERM, EBUSY, … ; already released: resolves.
  release(fid: Fid): Promise<void>;

  /** Rejects with what open(2) for writing would say to him: mode, ACLs and capabilities as the kernel judges them. */
  mayWrite(fid: Fid, caller: Omit<Caller, 'pid'>): Promise<void>;

  /** Sets and clears flag bits durably; TypeScript has already applied lustre-hsm 2.2. `archiveId` 0 = unchanged. */
  changeFlags(fid: Fid, set: number, clear: number, archiveId: number): Promise<void>;
  /** The file's copy is no longer its own (rule "a blob name has one owner"): durable, flags as for a write. */
  markModified(fid: Fid): Promise<void>;
  /**
   * Before hsm_remove deletes the blob: durable, EXISTS without ARCHIVED and LOST, the content counts as in no copy, the
   * record goes on naming it. DIRTY says what it said. EPERM: released.
   */
  beginRemove(fid: Fid): Promise<void>;
  /** After hsm_remove: durable, neither EXISTS, ARCHIVED nor LOST; no copy. EPERM: released. */
  forgetCopy(fid: Fid): Promise<void>;
  /** What LL_IOC_HSM_ACTION answers; undefined = NOOP. */
  showAction(fid: Fid, action: ShownAction | undefined): void;

  /** Grows whenever a name was changed by rename, link or exchange since the store was opened. */
  renames(): number;
  /** Durable: some name in this store was ever changed by rename, link or exchange, so that a copy's blob may not be its path. */
  everRenamed(): boolean;
  /** Inodes without a name that somebody still has open. */
  orphans(): Promise<readonly FileState[]>;

  // ---- path-based handles, for the fuse-native front end only
  /** An fd beneath the namespace (O_CLOEXEC, symlinks refused); HSM rules are the caller's. */
  openBeneath(path: string, flags: number, mode: number): Promise<number>;
  /**
   * HSM-aware open: waits for a restore and suspends as the native front end would. With O_NONBLOCK the wait is left to
   * `admitWrite`. `close` must follow.
   */
  openHandle(
    path: string,
    flags: number,
    mode: number,
  ): Promise<{ readonly handle: number; readonly fd: number }>;
  /** Resolves when [offset, offset+length) may be read. */
  admitRead(handle: number, offset: number, length: number): Promise<void>;
  /** Before the first write of a handle that was opened for writing with O_NONBLOCK, which waits for nothing. */
  admitWrite(handle: number): Promise<void>;
  closeHandle(handle: number): Promise<void>;
  /** Truncate by path, HSM-aware. */
  truncate(path: string, size: number): Promise<void>;
  setTimes(path: string, atimeNs: bigint | null, mtimeNs: bigint | null): Promise<void>;
  unlinkName(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  link(from: string, to: string): Promise<void>;
  /** An extended attribute of the backing inode, undefined where it has none of that name. */
  extended(path: string, name: string): Promise<Buffer | undefined>;
  /** stat(2) as shown: released sizes, st_blocks 1, application's ctime. */
  stat(path: string): Promise<ShownStat>;
}

export interface ShownStat {
  readonly ino: bigint;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: bigint;
  readonly size: number;
  readonly blocks: number;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

export interface NativeWalk {
  /** Null at the end. An unreadable directory rejects once and the walk goes on with the next call. */
  next(): Promise<readonly WalkEntry[] | null>;
  close(): void;
}

/** Who sent a request, as the kernel says. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly pid: number;
  /** Effective ones, bits of capabilities(7); none that hold in a user namespace of the caller's own only. */
  readonly capabilities: bigint;
}

export interface HsmRequest {
  /** HUA_* */
  readonly action: number;
  readonly archiveId: number;
  readonly fids: readonly Fid[];
  readonly data: Buffer;
  readonly caller: Caller;
}

export interface HsmStateSet {
  readonly fid: Fid;
  readonly set: number;
  readonly clear: number;
  /** Undefined when the call names none. */
  readonly archiveId?: number;
  readonly caller: Caller;
}

export interface SessionEvents {
  /** Answer with session.answer(id, errno); the caller's ioctl waits meanwhile. */
  request(id: number, request: HsmRequest): void;
  stateSet(id: number, request: HsmStateSet): void;
  /** Root asks for a name of an inode; answer with session.answerLink, or with session.answer and an errno. */
  linkAsked(id: number, fid: Fid, link: number): void;
  /** The kernel ended the session (umount, abort); fired once, after the last thread has stopped. */
  closed(): void;
}

export interface SessionOptions {
  readonly mountPoint: string;
  /** What /proc/mounts shows as the source, e.g. the container's identity. */
  readonly source: string;
  readonly readOnly: boolean;
  readonly passthrough: boolean;
  readonly threads: number;
  /** Requests held for restores, over all inodes; beyond it they fail with ENODATA. */
  readonly maxHeld: number;
  /** Readers get bytes as they arrive. */
  readonly partialReads: boolean;
}

export interface NativeSession {
  /** False where the kernel or our rights do not allow it. Known once mount() has resolved. */
  readonly passthrough: boolean;
  answer(id: number, errno: number): void;
  /** How many names there are, and the one that was asked for. ENAMETOOLONG where lfs has no room for it. */
  answerLink(id: number, links: number, path: Buffer): void;
  /** umount2. EBUSY while in use unless lazy. Resolves when the kernel has let go; `closed` fires too. */
  unmount(lazy: boolean): Promise<void>;
  stats(): Readonly<Record<string, number>>;
}

export interface Addon {
  readonly version: number;
  /** Opens or creates STORE's `ns/`; STORE itself (0700, flock'ed by the caller through lockFile) exists. ENOTSUP names what the file system lacks in `message`. */
  openStore(path: string, events: StoreEvents): Promise<NativeStore>;
  /** Exclusive flock on a file, held until the process ends or unlock(); EWOULDBLOCK when another process has it. */
  lockFile(path: string): { unlock(): void };
  mount(store: NativeStore, options: SessionOptions, events: SessionEvents): Promise<NativeSession>;
  /** umount2(MNT_DETACH) of a dead mount. */
  detach(mountPoint: string): void;
  /** fsync of a directory. */
  syncDirectory(path: string): void;
  /** Names of all crash points compiled in (native/store/crash_points.def). */
  crashPoints(): readonly string[];
  /** prctl(PR_SET_DUMPABLE, 0) and RLIMIT_CORE 0: secrets never reach a core file. */
  hardenProcess(): void;
}

const require = createRequire(import.meta.url);

/** Loads build/Release/lustrite.node; the depth is the same from src/native and dist/native. */
export function loadAddon(): Addon {
  return require('../../build/Release/lustrite.node') as Addon;
}
