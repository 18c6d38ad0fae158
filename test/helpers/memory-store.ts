/** The part of NativeStore that the coordinator and the jobs use, in memory, by the rules of src/native/binding.ts. */
import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import { posix } from 'node:path';
import { FsError } from '../../src/base/errors.js';
import { HS_ARCHIVED, HS_DIRTY, HS_EXISTS, HS_LOST, HS_NORELEASE, HS_RELEASED } from '../../src/hsm/flags.js';
import type {
  ArchivePlan,
  Attributes,
  Caller,
  Change,
  Copy,
  Fid,
  FileState,
  FileType,
  NativeStore,
  NativeWalk,
  Probe,
  RestorePlan,
  ShownAction,
  ShownStat,
  Stub,
  StubDefaults,
  StubResult,
  WalkEntry,
} from '../../src/native/binding.js';

const {
  EACCES,
  EALREADY,
  EBUSY,
  EEXIST,
  EINVAL,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  ENOTSUP,
  EPERM,
  ESTALE,
} = constants.errno;

/** Of a call that is for no one file. */
const nothing = '' as Fid;

interface Node {
  readonly fid: Fid;
  readonly type: FileType;
  flags: number;
  archiveId: number;
  modified: boolean;
  copy?: Copy | undefined;
  mode: number;
  uid: number;
  gid: number;
  mtimeNs: bigint;
  atimeNs: bigint;
  size: number;
  data: Buffer;
  target?: Buffer | undefined;
  /** Changes of the content, to see whether an archive was quiet. */
  writes: number;
  readers: number;
  writers: number;
  fd?: number | undefined;
}

interface Archive {
  readonly node: Node;
  readonly fd: number;
  readonly writes: number;
}

/** As the native store sees it when a clean file is to give its data up. */
function isOnlyHere({ flags, modified }: Node): boolean {
  return (flags & HS_RELEASED) === 0 && (modified || (flags & (HS_DIRTY | HS_LOST)) !== 0);
}

export class MemoryStore implements NativeStore {
  readonly probe: Probe = {
    fileSystem: 'memory',
    handles: true,
    leases: true,
    punchHole: true,
    xattrRoom: 0,
    privileged: true,
  };
  readonly names = new Map<string, Node>();
  /** `restoreProgress`, `failRestore 61`, …, with the path. */
  readonly events: string[] = [];
  readonly shown = new Map<Fid, ShownAction>();
  /** Asked before each asynchronous call that a test wants to hold or fail. */
  before: (call: string, fid: Fid) => void | Promise<void> = () => undefined;
  walks = 0;
  /** Names that are no text: what stands for them in `names`, and what they are. */
  readonly #raw = new Map<string, Buffer>();
  readonly #nodes = new Map<Fid, Node>();
  readonly #fds = new Map<number, Node>();
  readonly #archives = new Map<number, Archive>();
  #nextFid = 1;
  #nextFd = 1000;
  #nextToken = 1;
  #renames = 0;

  // ---- what tests do as users of the mount would

  mkdir(path: string, attributes: Attributes = {}): Fid {
    return this.#make(path, 'directory', { mode: 0o755, ...attributes }).fid;
  }

  write(path: string, content: string): Fid {
    const node = this.names.get(path) ?? this.#make(path, 'file', { mode: 0o644 });
    if ((node.flags & HS_RELEASED) !== 0) throw new FsError(EBUSY, 'restore it first');
    node.data = Buffer.from(content);
    node.size = node.data.length;
    this.#modify(node);
    return node.fid;
  }

  /** Another name, of any bytes; only a walk comes to one that is not UTF-8. */
  linkRaw(from: string, to: Buffer): void {
    const text = to.toString();
    this.names.set(text, this.#named(from));
    this.#raw.set(text, to);
  }

  symlink(path: string, target: string): Fid {
    const node = this.#make(path, 'symlink', { mode: 0o777 });
    node.target = Buffer.from(target);
    return node.fid;
  }

  special(path: string): Fid {
    return this.#make(path, 'special', {}).fid;
  }

  unlink(path: string): void {
    this.names.delete(path);
    this.#raw.delete(path);
  }

  chmod(path: string, mode: number): void {
    this.#named(path).mode = mode;
  }

  /** As rename() has it, at once. */
  move(from: string, to: string): void {
    this.#named(from);
    this.#renames++;
    for (const [path, node] of [...this.names]) {
      if (path !== from && !path.startsWith(`${from}/`)) continue;
      this.names.delete(path);
      this.names.set(to + path.slice(from.length), node);
    }
  }

  unlinkName(path: string): Promise<void> {
    this.unlink(path);
    return Promise.resolve();
  }

  /** Opens for writing, so that archives are busy, until closed. */
  hold(path: string): () => void {
    const node = this.#named(path);
    node.writers++;
    return () => node.writers--;
  }

  content(path: string): string {
    return this.#named(path).data.toString();
  }

  flags(path: string): number {
    return this.#named(path).flags;
  }

  paths(): readonly string[] {
    return [...this.names.keys()].sort();
  }

  /** For the transfers of memory-transfers.ts. */
  dataOf(fd: number): { read(): Buffer; write(bytes: Buffer): void } {
    const node = this.#fds.get(fd);
    if (node === undefined) throw new Error(`no such fd: ${fd}`);
    return {
      read: () => node.data,
      write(bytes) {
        node.data = bytes;
      },
    };
  }

  get openFds(): number {
    return this.#fds.size;
  }

  // ---- NativeStore

  stats(): Readonly<Record<string, number>> {
    return {};
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }

  fidOf(path: string): Fid {
    return this.#named(path).fid;
  }

  async state(fid: Fid): Promise<FileState> {
    await this.before('state', fid);
    return this.#stateOf(this.#node(fid));
  }

  async lookup(paths: readonly string[]): Promise<readonly (FileState | undefined)[]> {
    await Promise.resolve();
    return paths.map((path) => {
      const node = this.#raw.has(path) ? undefined : this.names.get(path);
      return node === undefined ? undefined : this.#stateOf(node);
    });
  }

  statfs(): ReturnType<NativeStore['statfs']> {
    return { bsize: 4096, blocks: 0n, bfree: 0n, bavail: 0n, files: 0n, ffree: 0n };
  }

  async createStubs(stubs: readonly Stub[], defaults: StubDefaults): Promise<readonly StubResult[]> {
    await this.before('createStubs', nothing);
    await Promise.resolve();
    return stubs.map((stub) => this.#stub(stub, defaults));
  }

  async setAttributes(path: string, { fid, ...attributes }: Attributes): Promise<void> {
    await this.before('setAttributes', fid ?? nothing);
    const node = this.#named(path);
    if (fid !== undefined && node.fid !== fid) throw new FsError(ESTALE, path);
    Object.assign(node, attributes);
  }

  async replaceCopy(fid: Fid, stub: Stub, { lost = false } = {}): Promise<void> {
    await this.before('replaceCopy', fid);
    const node = this.#node(fid);
    if (node.readers + node.writers > 0) throw new FsError(EBUSY, stub.path);
    if (node.type === 'file' && isOnlyHere(node)) throw new FsError(ESTALE, stub.path);
    const { copy, mode, uid, gid, mtimeNs, size } = stub;
    if (node.type === 'symlink') {
      node.copy = copy;
      return;
    }
    Object.assign(node, { copy, mode, uid, gid, mtimeNs, size, data: Buffer.alloc(0) });
    node.flags = HS_EXISTS | HS_ARCHIVED | HS_RELEASED | (lost ? HS_LOST : 0);
  }

  async barrier(): Promise<void> {
    await this.before('barrier', nothing);
    await Promise.resolve();
  }

  async replaceEntry(fid: Fid, stub: Stub): Promise<Fid> {
    await this.before('replaceEntry', fid);
    const node = this.#named(stub.path);
    if (node.readers + node.writers > 0) throw new FsError(EBUSY, stub.path);
    await this.remove(stub.path, fid);
    const made = this.#stub(stub, { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n });
    if (made.kind !== 'created') throw new FsError(EEXIST, stub.path);
    return made.fid;
  }

  async remove(path: string, fid: Fid, { onlyClean = false } = {}): Promise<void> {
    await this.before('remove', fid);
    const node = this.#named(path);
    if (node.fid !== fid) throw new FsError(ENOENT, path);
    if (onlyClean && node.readers + node.writers > 0) throw new FsError(EBUSY, path);
    if (onlyClean && node.type === 'file' && isOnlyHere(node)) throw new FsError(ESTALE, path);
    if ([...this.names.keys()].some((other) => other.startsWith(`${path}/`)))
      throw new FsError(ENOTEMPTY, path);
    this.names.delete(path);
  }

  walk(options: {
    readonly path?: string;
    readonly select: 'all' | 'changed';
    readonly batch: number;
  }): NativeWalk {
    this.walks++;
    const below = options.path === undefined ? '' : `${options.path}/`;
    const entries: WalkEntry[] = [];
    for (const path of this.paths()) {
      const node = this.names.get(path);
      if (node === undefined || !path.startsWith(below)) continue;
      if (options.select === 'changed' && node.type === 'file' && !this.#stateOf(node).modified) continue;
      const [{ target }, pathBytes] = [node, this.#raw.get(path)];
      entries.push({
        ...this.#stateOf(node),
        path,
        ...(target === undefined ? {} : { target }),
        ...(pathBytes === undefined ? {} : { pathBytes }),
      });
    }
    let told = false;
    return {
      next: async () => {
        await this.before('walk', nothing);
        const { path } = options;
        if (!told && path !== undefined && this.names.get(path)?.type !== 'directory') {
          told = true;
          throw new FsError(this.names.has(path) ? ENOTDIR : ENOENT, 'walk');
        }
        return entries.length === 0 ? null : entries.splice(0, options.batch);
      },
      close: () => undefined,
    };
  }

  async census(): Promise<Readonly<Record<string, number>>> {
    await Promise.resolve();
    return { files: this.names.size };
  }

  async readlink(fid: Fid): Promise<Buffer | null> {
    await Promise.resolve();
    return this.#node(fid).target ?? null;
  }

  async beginRestore(fid: Fid, copy?: Copy): Promise<RestorePlan> {
    await this.before('beginRestore', fid);
    const node = this.#node(fid);
    this.#event(`beginRestore${copy === undefined ? '' : ' again'}`, node);
    if ((node.flags & HS_RELEASED) === 0) throw new FsError(EALREADY, 'resident');
    if (node.fd !== undefined) {
      if (copy === undefined) throw new FsError(EALREADY, 'restoring');
      this.#fds.delete(node.fd);
    }
    node.data = Buffer.alloc(0);
    node.fd = this.#open(node);
    return { fd: node.fd, size: copy?.size ?? node.size };
  }

  restoreProgress(fid: Fid): void {
    this.#event('restoreProgress', this.#node(fid));
  }

  restoreCanceled(fid: Fid): void {
    const node = this.#nodes.get(fid);
    if (node !== undefined) this.#event('restoreCanceled', node);
  }

  async finishRestore(fid: Fid, copy: Copy): Promise<void> {
    await this.before('finishRestore', fid);
    const node = this.#node(fid);
    if (node.fd === undefined) throw new FsError(EINVAL, 'no restore');
    this.#event('finishRestore', node);
    this.#fds.delete(node.fd);
    node.fd = undefined;
    node.flags &= ~(HS_RELEASED | HS_DIRTY);
    node.copy = copy;
    node.size = copy.size;
  }

  async failRestore(fid: Fid, errno: number): Promise<void> {
    await this.before('failRestore', fid);
    const node = this.#node(fid);
    this.#event(`failRestore ${errno}`, node);
    if (node.fd !== undefined) this.#fds.delete(node.fd);
    node.fd = undefined;
    if ((node.flags & HS_RELEASED) !== 0) node.data = Buffer.alloc(0);
  }

  async beginArchive(fid: Fid, archiveId: number): Promise<ArchivePlan> {
    await this.before('beginArchive', fid);
    const node = this.#node(fid);
    if ((node.flags & HS_RELEASED) !== 0) throw new FsError(ENODATA, 'released');
    if (node.writers > 0) throw new FsError(EBUSY, 'open for writing');
    node.flags |= HS_EXISTS;
    node.archiveId = archiveId;
    const token = this.#nextToken++;
    const fd = this.#open(node);
    this.#archives.set(token, { node, fd, writes: node.writes });
    const { size, mode, uid, gid, mtimeNs, copy } = node;
    return { token, fd, size, mode, uid, gid, mtimeNs, ...(copy === undefined ? {} : { copy }) };
  }

  archiveQuiet(token: number): boolean {
    const { node, writes } = this.#archive(token);
    return node.writes === writes && node.writers === 0;
  }

  async finishArchive(
    token: number,
    copy: Copy,
    { partly } = { partly: false },
  ): Promise<'clean' | 'partly' | 'dirty'> {
    await Promise.resolve();
    const { node } = this.#archive(token);
    const quiet = this.archiveQuiet(token);
    await this.abortArchive(token);
    node.copy = copy;
    if (!quiet) return 'dirty';
    node.flags = (node.flags | HS_EXISTS | HS_ARCHIVED) & ~(HS_DIRTY | HS_LOST);
    node.modified = partly;
    if (partly) node.flags |= HS_DIRTY;
    return partly ? 'partly' : 'clean';
  }

  async abortArchive(token: number): Promise<void> {
    await Promise.resolve();
    this.#fds.delete(this.#archive(token).fd);
    this.#archives.delete(token);
  }

  async release(fid: Fid): Promise<void> {
    await this.before('release', fid);
    const node = this.#node(fid);
    if ((node.flags & HS_ARCHIVED) === 0) throw new FsError(EPERM, 'not archived');
    if ((node.flags & (HS_DIRTY | HS_NORELEASE | HS_LOST)) !== 0)
      throw new FsError(EPERM, 'not to be released');
    if (node.modified) throw new FsError(EPERM, 'modified');
    if (node.writers + node.readers > 0) throw new FsError(EBUSY, 'open');
    node.flags |= HS_RELEASED;
    node.data = Buffer.alloc(0);
  }

  /** By the mode alone: ACLs and capabilities are the kernel's. */
  async mayWrite(fid: Fid, { uid, gid, groups }: Omit<Caller, 'pid'>): Promise<void> {
    await Promise.resolve();
    const node = this.#node(fid);
    const shift = uid === node.uid ? 6 : gid === node.gid || groups.includes(node.gid) ? 3 : 0;
    if (uid !== 0 && ((node.mode >> shift) & 0o2) === 0) throw new FsError(EACCES, 'not to be written');
  }

  async changeFlags(fid: Fid, set: number, clear: number, archiveId: number): Promise<void> {
    await Promise.resolve();
    const node = this.#node(fid);
    node.flags = (node.flags | set) & ~clear;
    if (archiveId !== 0) node.archiveId = archiveId;
    this.#event('changeFlags', node);
  }

  async markModified(fid: Fid): Promise<void> {
    await this.before('markModified', fid);
    const node = this.#node(fid);
    if ((node.flags & HS_RELEASED) !== 0) throw new FsError(ENODATA, 'released');
    this.#event('markModified', node);
    node.copy = undefined;
    node.modified = true;
    if ((node.flags & HS_EXISTS) !== 0) node.flags |= HS_DIRTY;
  }

  async beginRemove(fid: Fid): Promise<void> {
    await this.before('beginRemove', fid);
    const node = this.#node(fid);
    if ((node.flags & HS_RELEASED) !== 0) throw new FsError(EPERM, 'released');
    this.#event('beginRemove', node);
    node.flags = (node.flags | HS_EXISTS) & ~(HS_ARCHIVED | HS_LOST);
    node.modified = true;
  }

  async forgetCopy(fid: Fid): Promise<void> {
    await Promise.resolve();
    const node = this.#node(fid);
    node.copy = undefined;
    node.flags &= ~(HS_EXISTS | HS_ARCHIVED | HS_LOST);
    node.modified = true;
  }

  showAction(fid: Fid, action: ShownAction | undefined): void {
    if (action === undefined) this.shown.delete(fid);
    else this.shown.set(fid, action);
  }

  nonBlockingRestore = false;

  setTellGone(): void {
    // Nothing here has a last name to lose.
  }

  setTellChanges(): void {
    // Nobody makes changes here that it would see.
  }

  takeChanges(): { readonly changes: readonly Change[]; readonly lost: number } {
    return { changes: [], lost: 0 };
  }

  setNonBlockingRestore(on: boolean): void {
    this.nonBlockingRestore = on;
  }

  renames(): number {
    return this.#renames;
  }

  everRenamed(): boolean {
    return this.#renames > 0;
  }

  async orphans(): Promise<readonly FileState[]> {
    await Promise.resolve();
    const named = new Set(this.names.values());
    return [...this.#nodes.values()]
      .filter((node) => !named.has(node) && node.readers + node.writers > 0)
      .map((node) => this.#stateOf(node));
  }

  async openBeneath(path: string): Promise<number> {
    await Promise.resolve();
    if (this.names.has(path)) throw new FsError(EEXIST, path);
    this.#make(path, 'file', { mode: 0o444 });
    const fd = openSync('/dev/null', 'r');
    return fd;
  }

  openHandle(): Promise<{ readonly handle: number; readonly fd: number }> {
    return Promise.reject(new FsError(ENOTSUP, 'openHandle'));
  }

  admitRead(): Promise<void> {
    return Promise.reject(new FsError(ENOTSUP, 'admitRead'));
  }

  admitWrite(): Promise<void> {
    return Promise.reject(new FsError(ENOTSUP, 'admitWrite'));
  }

  async closeHandle(handle: number): Promise<void> {
    await Promise.resolve();
    closeSync(handle);
  }

  truncate(): Promise<void> {
    return Promise.reject(new FsError(ENOTSUP, 'truncate'));
  }

  setTimes(): Promise<void> {
    return Promise.reject(new FsError(ENOTSUP, 'setTimes'));
  }

  async rename(from: string, to: string): Promise<void> {
    await Promise.resolve();
    this.move(from, to);
  }

  async link(from: string, to: string): Promise<void> {
    await Promise.resolve();
    this.#renames++;
    this.names.set(to, this.#named(from));
  }

  extended(): Promise<Buffer | undefined> {
    return Promise.reject(new FsError(ENOTSUP, 'extended'));
  }

  async stat(path: string): Promise<ShownStat> {
    await Promise.resolve();
    const { mode, uid, gid, size, mtimeNs, writes } = this.#named(path);
    const times = { atimeNs: mtimeNs, mtimeNs, ctimeNs: BigInt(writes) };
    return { ino: 0n, nlink: 1, rdev: 0n, blocks: 0, mode, uid, gid, size, ...times };
  }

  // ---- inside

  #make(path: string, type: FileType, attributes: Attributes): Node {
    const parent = posix.dirname(path);
    if (parent !== '.' && !this.names.has(parent)) this.mkdir(parent);
    if (parent !== '.' && this.names.get(parent)?.type !== 'directory') throw new FsError(ENOTDIR, path);
    const node: Node = {
      fid: `[0x${(this.#nextFid++).toString(16)}:0x1:0x0]` as Fid,
      type,
      flags: 0,
      archiveId: 0,
      modified: type === 'file',
      mode: attributes.mode ?? 0o644,
      uid: attributes.uid ?? 0,
      gid: attributes.gid ?? 0,
      mtimeNs: attributes.mtimeNs ?? 0n,
      atimeNs: 0n,
      size: 0,
      data: Buffer.alloc(0),
      writes: 0,
      readers: 0,
      writers: 0,
    };
    this.#nodes.set(node.fid, node);
    this.names.set(path, node);
    return node;
  }

  #stub(stub: Stub, defaults: StubDefaults): StubResult {
    const found = this.names.get(stub.path);
    if (found !== undefined) return { kind: 'exists', state: this.#stateOf(found) };
    const parent = posix.dirname(stub.path);
    try {
      if (parent !== '.' && !this.names.has(parent)) {
        const made = this.#stub(
          { ...defaults, path: parent, kind: 'directory', mode: defaults.dirMode, size: 0 },
          defaults,
        );
        if (made.kind === 'failed') return made;
      }
      const node = this.#make(stub.path, stub.kind, stub);
      node.size = stub.size;
      node.copy = stub.copy;
      node.target = stub.target;
      node.modified = false;
      if (stub.kind === 'file') {
        node.flags = HS_EXISTS | HS_ARCHIVED | HS_RELEASED;
        node.archiveId = 1;
      }
      return { kind: 'created', fid: node.fid };
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      return { kind: 'failed', errno: error.errno, code: error.code };
    }
  }

  #modify(node: Node): void {
    node.writes++;
    node.modified = true;
    if ((node.flags & HS_EXISTS) !== 0) node.flags |= HS_DIRTY;
  }

  #stateOf(node: Node): FileState {
    const {
      fid,
      type,
      flags,
      archiveId,
      modified,
      copy,
      mode,
      uid,
      gid,
      size,
      mtimeNs,
      atimeNs,
      writers,
      readers,
    } = node;
    const nlink = [...this.names.values()].filter((other) => other === node).length;
    return {
      ...{
        fid,
        type,
        flags,
        archiveId,
        // Only the content of a file can be.
        modified: type === 'file' && modified,
        mode,
        uid,
        gid,
        size,
        mtimeNs,
        atimeNs,
        nlink,
        writers,
        readers,
      },
      ...(copy === undefined ? {} : { copy }),
      allocated: node.data.length,
      restoring: node.fd !== undefined,
    };
  }

  #open(node: Node): number {
    const fd = this.#nextFd++;
    this.#fds.set(fd, node);
    return fd;
  }

  #archive(token: number): Archive {
    const archive = this.#archives.get(token);
    if (archive === undefined) throw new FsError(EINVAL, 'no archive');
    return archive;
  }

  #event(what: string, node: Node): void {
    const path = [...this.names].find(([, other]) => other === node)?.[0] ?? node.fid;
    this.events.push(`${what} ${path}`);
  }

  #node(fid: Fid): Node {
    const node = this.#nodes.get(fid);
    if (node === undefined) throw new FsError(ENOENT, fid);
    const named = [...this.names.values()].includes(node);
    if (!named && node.readers + node.writers === 0) throw new FsError(ENOENT, fid);
    return node;
  }

  #named(path: string): Node {
    const node = this.names.get(path);
    if (node === undefined || this.#raw.has(path)) throw new FsError(ENOENT, path);
    return node;
  }
}
