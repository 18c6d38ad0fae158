/**
 * What the documents say of a namespace, its container and the jobs, for one file system with nobody else on it: seeds 000
 * and 001, DESIGN 12 and src/SEMANTICS.md. It knows nothing of flags, ETags, batches or walks.
 */
import { iterations, type Kind, type LocalOp, type Op, type RemoteOp, type Said } from './jobs-operations.js';
import { ReferenceExport } from './jobs-reference-export.js';
import { ReferenceImport, stubOf } from './jobs-reference-import.js';

export interface Attributes {
  mode: number;
  owner: string;
  /** The same text, the same time; undefined: the clock's, as far as nobody has told it. */
  mtime: string | undefined;
}

export interface Blob {
  readonly kind: Kind;
  readonly data: string;
  readonly version: number;
  /** What its metadata says. */
  readonly said: Partial<Attributes>;
  readonly lastModified: string;
}

export interface Entry {
  readonly kind: Kind;
  readonly attributes: Attributes;
  /** Of files, undefined: released; of symlinks, where they lead. */
  data: string | undefined;
  /** Files: the content is in no blob that it knows. */
  modified: boolean;
  lost: boolean;
  /** The blob that it is. */
  copy: { readonly name: string; readonly version: number } | undefined;
}

export type Counts = Readonly<Record<string, number | string>>;

export interface Picture {
  readonly entries: Readonly<Record<string, string>>;
  readonly blobs: Readonly<Record<string, string>>;
}

export class Reference {
  readonly entries = new Map<string, Entry>();
  readonly blobs = new Map<string, Blob>();
  #before = { entries: new Map<string, Entry>() };
  #version = 0;
  #puts = 0;

  /**
   * Whether what is left depends on when it was interrupted: in `Skip` a file that the first of the jobs has made stays,
   * and one that the same job finds makes way for the blobs below its name.
   */
  isUndecided(op: Op): boolean {
    if (op.op !== 'interrupted' || op.job.op !== 'import' || op.job.mode !== 'Skip') return false;
    return [...this.blobs.keys()].some((name) => ancestors(name).some((above) => this.blobs.has(above)));
  }

  /** What a job counts and how it ends; undefined: it is no job. */
  apply(op: Op): Counts | undefined {
    switch (op.op) {
      case 'import':
        return new ReferenceImport(this, op).job();
      case 'export':
        return new ReferenceExport(this, op.prefix).job();
      case 'auto-export':
        return new ReferenceExport(this, op.prefix).follow(op.during);
      case 'auto-import':
        return new ReferenceImport(this, op).follow(op.during, op.deletions);
      case 'interrupted':
        for (let n = 0; n < iterations; n++) this.apply(op.job);
        return undefined;
      case 'read': {
        const entry = this.entries.get(op.name);
        if (entry?.kind === 'file') this.restored(entry);
        return undefined;
      }
      case 'release': {
        const entry = this.entries.get(op.name);
        if (entry?.kind === 'file' && !entry.modified && !entry.lost && entry.copy !== undefined)
          entry.data = undefined;
        return undefined;
      }
      case 'write': {
        const entry = this.entries.get(op.name);
        if (entry?.kind === 'file') this.restored(entry);
        this.change(op);
        return undefined;
      }
      default:
        this.change(op);
        return undefined;
    }
  }

  /** What needs no data from the container; a write to a released file does nothing. */
  change(op: RemoteOp | LocalOp): void {
    const entry = this.entries.get(op.name);
    switch (op.op) {
      case 'put':
        this.put(op.name, { ...op, said: op.said ?? {}, lastModified: `put ${++this.#puts}` });
        return;
      case 'delete':
        this.blobs.delete(op.name);
        return;
      case 'write':
        if (entry === undefined) this.#make(op.name, { kind: 'file', mode: 0o644, data: op.data });
        else if (entry.kind === 'file' && entry.data !== undefined)
          Object.assign(entry, { data: op.data, modified: true });
        return;
      case 'symlink':
        if (entry === undefined) this.#make(op.name, { kind: 'symlink', mode: 0o777, data: op.target });
        return;
      case 'mkdir':
        if (entry === undefined) this.#make(op.name, { kind: 'directory', mode: 0o755 });
        return;
      case 'chmod':
        if (entry !== undefined && entry.kind !== 'symlink') entry.attributes.mode = op.mode;
        return;
      case 'rm':
        if (!this.isFull(op.name)) this.entries.delete(op.name);
        return;
      case 'mv':
        this.#move(op.name, op.to);
    }
  }

  /** Puts a blob; returns its version. */
  put(name: string, blob: Omit<Blob, 'version' | 'lastModified'> & { lastModified?: string }): number {
    const { kind, data, said, lastModified = '' } = blob;
    this.blobs.set(name, { kind, data, said, lastModified, version: ++this.#version });
    return this.#version;
  }

  #make(name: string, { kind, mode, data }: { kind: Kind; mode: number; data?: string }): void {
    if (!this.makeParents(name, { mode: 0o755, owner: '0:0', mtime: 'local' })) return;
    const attributes = { mode, owner: '0:0', mtime: 'local' };
    const modified = kind === 'file';
    this.entries.set(name, { kind, attributes, data, modified, lost: false, copy: undefined });
  }

  /** False: one of them is something else. */
  makeParents(name: string, attributes: Attributes): boolean {
    const parents = ancestors(name);
    if (parents.some((parent) => (this.entries.get(parent)?.kind ?? 'directory') !== 'directory'))
      return false;
    for (const parent of parents) {
      if (this.entries.has(parent)) continue;
      this.entries.set(parent, directory({ ...attributes }, undefined));
    }
    return true;
  }

  #move(name: string, to: string): void {
    const entry = this.entries.get(name);
    if (entry === undefined || name === to || to.startsWith(`${name}/`)) return;
    const there = this.entries.get(to);
    if (there !== undefined) {
      if (this.isFull(to) || (there.kind === 'directory') !== (entry.kind === 'directory')) return;
    }
    if (!this.makeParents(to, { mode: 0o755, owner: '0:0', mtime: 'local' })) return;
    this.entries.delete(to);
    for (const [path, one] of [...this.entries]) {
      if (path !== name && !path.startsWith(`${name}/`)) continue;
      this.entries.delete(path);
      this.entries.set(to + path.slice(name.length), one);
    }
  }

  /** A directory with something in it. */
  isFull(name: string): boolean {
    return [...this.entries.keys()].some((path) => path.startsWith(`${name}/`));
  }

  /** Whether a file's data is here, now or after a restore: of what the blob has now, if that is a file. */
  restored(entry: Entry): boolean {
    if (entry.data !== undefined) return true;
    const { copy } = entry;
    const blob = copy && this.blobs.get(copy.name);
    if (blob?.kind !== 'file') return false;
    entry.data = blob.data;
    entry.copy = { ...copy, name: copy?.name ?? '', version: blob.version };
    return true;
  }

  /**
   * Rule 8: whoever else has this blob as its copy has the only data from now on. False: it is not here and cannot be
   * brought, and the blob must not be touched.
   */
  saveOthers(name: string, owner: Entry | undefined, { replaced = false } = {}): boolean {
    for (const entry of this.entries.values()) {
      if (entry === owner || entry.copy?.name !== name || entry.kind === 'directory') continue;
      if (entry.modified && entry.data !== undefined) continue;
      // What is released, and whose blob is gone or no file's any more, has nothing left to lose.
      if (entry.kind === 'symlink' || this.restored(entry)) disown(entry);
      else if (this.blobs.get(name)?.kind === 'file') return false;
      // What comes there is another file's.
      else if (replaced) entry.lost = true;
    }
    return true;
  }

  /** Rule 8: a renamed file that has the data of another version of this blob has the only data there is. */
  keepRenamed(name: string): void {
    const blob = this.blobs.get(name);
    if (blob === undefined) return;
    for (const [path, entry] of this.entries) {
      const { copy, kind, data, modified } = entry;
      if (path === name || copy?.name !== name || copy.version === blob.version || modified) continue;
      if (kind !== 'directory' && data !== undefined) disown(entry);
    }
  }

  /**
   * What an interrupted job may leave as it was: the times of directories and, where the files in them were exported, what
   * the container says of the directories.
   */
  adoptDirectories(
    { blobs }: Pick<Reference, 'blobs'>,
    seen: Picture['blobs'],
    timeOf: (path: string) => string | undefined,
  ): void {
    for (const [path, { kind, attributes }] of this.entries)
      if (kind === 'directory') attributes.mtime = timeOf(path);
    for (const [name, blob] of this.blobs) {
      const before = blobs.get(name);
      if (blob.kind !== 'directory' || shownBlob(blob) === seen[name]) continue;
      if (before === undefined) this.blobs.delete(name);
      else this.blobs.set(name, before);
    }
  }

  /** Directories that were made by the clock have these times. */
  learnTimes(timeOf: (path: string) => string | undefined): void {
    for (const [path, { attributes }] of this.entries) attributes.mtime ??= timeOf(path);
  }

  /** From here on a job does what it may not do as a whole. */
  begin(): void {
    this.#before = this.snapshot();
  }

  /** A copy, to go back to. */
  snapshot(): Pick<Reference, 'entries' | 'blobs'> {
    return { entries: structuredClone(this.entries), blobs: new Map(this.blobs) };
  }

  /** What a job that failed has done of what it would have: a path is as it was before, as it is now, or a new stub. */
  adopt(seen: Picture['entries']): void {
    const { entries: before } = this.#before;
    for (const path of new Set([...before.keys(), ...this.entries.keys()])) {
      const [is, was, blob] = [this.entries.get(path), before.get(path), this.blobs.get(path)];
      const made = was === undefined && blob !== undefined ? stubOf(path, blob) : was;
      const shows = (entry: Entry | undefined): boolean =>
        (entry === undefined ? undefined : this.#shown(entry)) === seen[path];
      const found = [is, was, made].find(shows);
      if (found !== undefined) this.entries.set(path, found);
      else if (seen[path] === undefined && shows(was)) this.entries.delete(path);
    }
  }

  picture(): Picture {
    return {
      entries: Object.fromEntries([...this.entries].map(([path, entry]) => [path, this.#shown(entry)])),
      blobs: Object.fromEntries([...this.blobs].map(([name, blob]) => [name, shownBlob(blob)])),
    };
  }

  #shown({ kind, attributes, data, modified, lost, copy }: Entry): string {
    const { mode, owner, mtime } = attributes;
    const which = [kind, ...(kind === 'symlink' ? [] : [mode.toString(8)]), owner];
    if (kind === 'directory') return [...which, mtime].join(' ');
    const from = copy === undefined ? 'new' : `of ${copy.name}`;
    if (kind === 'symlink') return [...which, `-> ${data ?? ''}`, from].join(' ');
    const state = data === undefined ? 'released' : modified ? 'modified' : 'clean';
    const current = copy !== undefined && this.blobs.get(copy.name)?.version === copy.version;
    const words = [...which, mtime, state, from, current ? 'current' : 'old', lost ? 'lost' : ''];
    return [...words, data ?? ''].join(' ');
  }
}

function disown(entry: Entry): void {
  entry.copy = undefined;
  if (entry.kind === 'file') entry.modified = true;
}

export function directory(attributes: Attributes, copy: Entry['copy']): Entry {
  return { kind: 'directory', attributes, data: undefined, modified: false, lost: false, copy };
}

export function shownBlob({
  kind,
  data,
  said,
}: Pick<Blob, 'kind' | 'data'> & {
  readonly said: { readonly [Key in keyof Attributes]?: Attributes[Key] | undefined };
}): string {
  const { mode, owner, mtime } = said;
  const words = [kind, mode === undefined || kind === 'symlink' ? '' : mode.toString(8), owner, mtime, data];
  return words.map((word) => word ?? '').join(' ');
}

/** What its metadata says, as an exported entry has it. */
export function saidOf({ attributes }: Pick<Entry, 'attributes'>): Said & Attributes {
  return { ...attributes };
}

/** `a`, `a/b` of `a/b/c`. */
export function ancestors(path: string): readonly string[] {
  const parts = path.split('/');
  return parts.slice(1).map((_, at) => parts.slice(0, at + 1).join('/'));
}
