/** Import and auto-import of the reference: seeds 000 and 001, DESIGN 12. */
import type { ConflictMode } from '../../src/jobs/import/conflict-mode.js';
import { noImportCounters } from '../../src/jobs/import/import-record.js';
import { withoutRoot, type During } from './jobs-operations.js';
import {
  ancestors,
  type Attributes,
  type Blob,
  type Counts,
  type Entry,
  type Reference,
} from './jobs-reference.js';
import { testDefaults } from './memory-jobs.js';

/** An import job; the full sync of auto-import; what follows it. */
type Phase = 'import' | 'scan' | 'sync';

const noCounts = { ...noImportCounters, deletions: 0 };

/** The first conflict is the last, and nothing here is an error; the other statistics of a job that failed may be incomplete. */
const failed: Counts = { state: 'Failed', totalConflicts: 1, totalErrors: 0 };

type How = 'imported' | 'preexisting';

/** Its data is here, and its blob was gone. */
function isLost({ lost, data }: Entry): boolean {
  return lost && data !== undefined;
}

const implied: Attributes = {
  mode: testDefaults.dirMode,
  owner: `${testDefaults.uid}:${testDefaults.gid}`,
  mtime: undefined,
};

export class ReferenceImport {
  readonly #tree: Reference;
  readonly #mode: ConflictMode;
  readonly #prefixes: readonly string[];
  #counts = { ...noCounts };
  /** Conflicts that the mode did not end. */
  #stayed = 0;
  /** Directories whose blobs are gone and in which something was left. */
  readonly #left = new Map<string, Entry>();
  /** With deletions: what has kept blobs of that name, or below it, from being imported. */
  #contested: Map<string, Entry> | undefined;

  constructor(
    tree: Reference,
    { mode, prefixes }: { readonly mode: ConflictMode; readonly prefixes: readonly string[] },
  ) {
    this.#tree = tree;
    this.#mode = mode;
    this.#prefixes = prefixes.map(withoutRoot);
  }

  job(): Counts {
    this.#tree.begin();
    this.#import([...this.#tree.blobs.keys()], 'import');
    if (this.#hasFailed()) return failed;
    const { deletions: _, ...counts } = this.#counts;
    return { state: this.#stayed === 0 ? 'Completed' : 'CompletedPartial', ...counts };
  }

  /** A full sync and what follows: what changes `during` two polls each. */
  follow(during: readonly During[], deletions: boolean): Counts {
    this.#tree.begin();
    if (deletions) this.#contested = new Map();
    this.#import([...this.#tree.blobs.keys()], 'scan');
    if (this.#hasFailed()) return failed;
    const { deletions: _, ...scan } = this.#counts;
    this.#counts = { ...noCounts };
    this.#retryContested();
    if (this.#hasFailed()) return failed;
    for (const changes of during) {
      const { blobs } = this.#tree;
      const changed = new Set<string>();
      for (const change of changes) {
        if (change.op === 'put' || (change.op === 'delete' && blobs.has(change.name)))
          changed.add(change.name);
        this.#tree.change(change);
      }
      this.#tree.begin();
      this.#removeImplied(this.#emptied());
      const wanted = this.#wanted(changed);
      const absent = wanted.filter((name) => !blobs.has(name));
      const emptied = this.#delete(absent, deletions);
      const present = wanted.filter((name) => blobs.has(name));
      for (const name of present) this.#left.delete(name);
      this.#import(present, 'sync');
      if (this.#hasFailed()) return failed;
      if (deletions) this.#removeImplied([...absent, ...emptied]);
      this.#retryContested();
      if (this.#hasFailed()) return failed;
    }
    const { totalBlobsWalked: __, ...sync } = this.#counts;
    const named = (prefix: string, counts: object): Counts =>
      Object.fromEntries(Object.entries(counts).map(([key, value]) => [`${prefix} ${key}`, Number(value)]));
    return { state: 'Disabled', ...named('scan', scan), ...named('sync', sync) };
  }

  #hasFailed(): boolean {
    return this.#mode === 'Fail' && this.#stayed > 0;
  }

  #import(names: readonly string[], phase: Phase): void {
    const listed = this.#wanted(names).sort();
    /** Files and symlinks that are those of their blobs, by the counter that has them. */
    const leaves = new Map<string, `${How}${'Files' | 'Symlinks'}`>();
    const wonByDirectories: string[] = [];
    for (const name of listed) {
      const blob = this.#tree.blobs.get(name);
      if (blob === undefined) continue;
      this.#counts.totalBlobsWalked++;
      const stub = stubOf(name, blob);
      if (!this.#makeWay(name, leaves, wonByDirectories)) {
        // What is no directory stands where a directory above it would be.
        this.#contest(ancestors(name).find((above) => this.#tree.entries.get(above)?.kind !== 'directory'));
        this.#conflict();
        continue;
      }
      const there = this.#tree.entries.get(name);
      const shadowed = stub.kind !== 'directory' && listed.some((other) => other.startsWith(`${name}/`));
      if (shadowed && (there === undefined || there.kind === 'directory')) {
        // Other blobs lie below its name: the directory wins.
        wonByDirectories.push(name);
        this.#conflict();
        continue;
      }
      const how = there === undefined ? this.#made(name, stub) : this.#met(name, there, stub, phase);
      if (how !== 'left') {
        const counted = this.#count(stub, how);
        if (counted !== undefined) leaves.set(name, counted);
      }
    }
    if (!this.#keeps()) for (const name of wonByDirectories) this.#contest(name);
    for (const name of listed) this.#tree.keepRenamed(name);
  }

  /** Prefixes are the beginnings of names. */
  #wanted(names: Iterable<string>): string[] {
    return [...names].filter((name) => this.#prefixes.some((prefix) => name.startsWith(prefix)));
  }

  #made(name: string, stub: Entry): How {
    this.#tree.makeParents(name, implied);
    this.#tree.entries.set(name, stub);
    return 'imported';
  }

  /**
   * The directory wins against a file that is nothing but its blob, as far as that is in the listing: it makes way, and
   * its blob is a conflict; in `Skip` only one that this job has made. False: something else is in the way.
   */
  #makeWay(
    name: string,
    leaves: Map<string, `${How}${'Files' | 'Symlinks'}`>,
    wonByDirectories: string[],
  ): boolean {
    const parts = name.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      const there = this.#tree.entries.get(parent);
      if (there === undefined || there.kind === 'directory') continue;
      const counted = leaves.get(parent);
      if (counted === undefined || there.modified || there.copy?.name !== parent) return false;
      if (this.#mode === 'Skip' && counted.startsWith('preexisting')) return false;
      this.#tree.entries.delete(parent);
      leaves.delete(parent);
      wonByDirectories.push(parent);
      this.#counts[counted]--;
      if (counted.startsWith('imported')) this.#counts.totalBlobsImported--;
      this.#conflict();
    }
    return true;
  }

  #count({ kind }: Entry, how: How): `${How}${'Files' | 'Symlinks'}` | undefined {
    if (how === 'imported') this.#counts.totalBlobsImported++;
    if (kind === 'directory') {
      this.#counts[`${how}Directories`]++;
      return undefined;
    }
    const counter = `${how}${kind === 'file' ? 'Files' : 'Symlinks'}` as const;
    this.#counts[counter]++;
    return counter;
  }

  /** A conflict that stays. */
  #conflict(): 'left' {
    this.#counts.totalConflicts++;
    this.#stayed++;
    return 'left';
  }

  /** A blob whose name is taken; how it is counted. */
  #met(name: string, there: Entry, stub: Entry, phase: Phase): How | 'left' {
    if (there.kind !== stub.kind) return this.#replaced(name, stub);
    switch (there.kind) {
      case 'directory':
        return this.#metDirectory(there, stub, phase);
      case 'symlink':
        // What a symlink is has no mode and no time.
        return there.data === stub.data && there.attributes.owner === stub.attributes.owner
          ? 'preexisting'
          : this.#replaced(name, stub);
      case 'file':
        return this.#metFile(name, there, stub, phase);
    }
  }

  #metDirectory(there: Entry, stub: Entry, phase: Phase): How | 'left' {
    const { mode, owner } = there.attributes;
    if (mode === stub.attributes.mode && owner === stub.attributes.owner) return 'preexisting';
    if (phase === 'import' || !isImplied(there)) {
      if (this.#keeps()) return this.#conflict();
      this.#counts.totalConflicts++;
    }
    Object.assign(there.attributes, stub.attributes);
    return 'imported';
  }

  #metFile(name: string, there: Entry, stub: Entry, phase: Phase): How | 'left' {
    const current = there.copy?.name === name && there.copy.version === stub.copy?.version;
    if (there.modified) {
      // A change of the very version that is in the container is no conflict for blob sync.
      return phase === 'sync' && current ? 'preexisting' : this.#replaced(name, stub);
    }
    const lost = isLost(there);
    if (lost && !current) return this.#replaced(name, stub);
    const same = current && agree(there.attributes, stub.attributes);
    if (there.data === undefined) {
      if (same) return 'preexisting';
      if (this.#keeps()) return this.#conflict();
      return this.#over(there, stub);
    }
    if (same && (lost || phase === 'sync' || this.#mode !== 'OverwriteAlways')) return 'preexisting';
    if (this.#keeps()) return this.#conflict();
    // Clean data that is current, and in an import job any clean data, stays: it gets the blob's attributes.
    if (this.#mode === 'OverwriteIfDirty' && (current || phase === 'import')) {
      this.#counts.totalConflicts++;
      Object.assign(there.attributes, stub.attributes);
      return 'imported';
    }
    if (lost) return this.#conflict();
    this.#over(there, stub);
    return same ? 'preexisting' : 'imported';
  }

  /** The file is released, as that of the blob. */
  #over(there: Entry, stub: Entry): How {
    this.#counts.totalConflicts++;
    Object.assign(there.attributes, stub.attributes);
    Object.assign(there, { data: undefined, copy: stub.copy, lost: false });
    return 'imported';
  }

  /** What is there is deleted, and the blob imported; a directory that is not empty stays. */
  #replaced(name: string, stub: Entry): How | 'left' {
    if (!this.#keeps() && this.#tree.isFull(name)) this.#contest(name);
    if (this.#keeps() || this.#tree.isFull(name)) return this.#conflict();
    this.#counts.totalConflicts++;
    this.#tree.entries.set(name, stub);
    return 'imported';
  }

  #keeps(): boolean {
    return this.#mode === 'Skip' || this.#mode === 'Fail';
  }

  /** Blobs that are gone, children first; the directories that go because they are empty now. */
  #delete(absent: readonly string[], enabled: boolean): readonly string[] {
    const { entries } = this.#tree;
    const emptied: string[] = [];
    for (const name of absent) this.#tree.saveOthers(name, entries.get(name));
    for (const name of [...absent].sort().reverse()) {
      const there = entries.get(name);
      if (there === undefined) continue;
      if (there.kind === 'directory') {
        if (!enabled || (there.copy !== undefined && there.copy.name !== name)) continue;
        this.#left.set(name, there);
        emptied.push(...this.#emptied());
        continue;
      }
      const modified = there.modified || isLost(there) || there.copy?.name !== name;
      if (!enabled) {
        if (!modified && there.kind === 'file' && there.data !== undefined) there.lost = true;
        continue;
      }
      // A conflict, too, where the mode ends it.
      if (modified) this.#counts.totalConflicts++;
      if (modified && this.#keeps()) {
        this.#stayed++;
        continue;
      }
      entries.delete(name);
      this.#counts.deletions++;
    }
    return [...emptied, ...this.#emptied()];
  }

  /** Directories that only names of blobs imply go with the last of them: those above what is gone. */
  #removeImplied(gone: readonly string[]): void {
    const { entries, blobs } = this.#tree;
    for (const name of [...new Set(gone.flatMap(ancestors))].sort().reverse()) {
      const there = entries.get(name);
      if (there?.kind !== 'directory' || !isImplied(there) || blobs.has(name)) continue;
      if (!this.#tree.isFull(name)) entries.delete(name);
    }
  }

  /** What is there keeps a blob of that name, or below it, from being imported. */
  #contest(path = ''): void {
    const there = this.#tree.entries.get(path);
    if (there !== undefined) this.#contested?.set(path, there);
  }

  /** What the container has of names that are given up since: what was there is gone, or empty. */
  #retryContested(): void {
    const given = [...(this.#contested ?? [])].filter(([path, entry]) => {
      const isThere = this.#tree.entries.get(path) === entry;
      return !isThere || (entry.kind === 'directory' && !this.#tree.isFull(path));
    });
    for (const [path] of given) {
      this.#contested?.delete(path);
      const names = [...this.#tree.blobs.keys()].filter(
        (name) => name === path || name.startsWith(`${path}/`),
      );
      for (const name of this.#wanted(names)) this.#left.delete(name);
      this.#import(names, 'sync');
      if (this.#hasFailed()) return;
    }
  }

  #emptied(): readonly string[] {
    const emptied: string[] = [];
    for (const [name, entry] of [...this.#left].sort(([a], [b]) => (a < b ? 1 : -1))) {
      const gone = this.#tree.entries.get(name) !== entry;
      if (!gone && this.#tree.isFull(name)) continue;
      this.#left.delete(name);
      emptied.push(name);
      if (gone) continue;
      this.#tree.entries.delete(name);
      this.#counts.deletions++;
    }
    return emptied;
  }
}

/** Nothing says what it is but names below it. */
function isImplied({ copy, attributes: { mode, owner } }: Entry): boolean {
  return copy === undefined && mode === implied.mode && owner === implied.owner;
}

function agree(one: Attributes, other: Attributes): boolean {
  return one.mode === other.mode && one.owner === other.owner && one.mtime === other.mtime;
}

/** What an import makes of a blob. */
export function stubOf(name: string, { kind, data, said, version, lastModified }: Blob): Entry {
  const { fileMode, dirMode, uid, gid } = testDefaults;
  const attributes = {
    mode: kind === 'symlink' ? 0o777 : (said.mode ?? (kind === 'directory' ? dirMode : fileMode)),
    owner: said.owner ?? `${uid}:${gid}`,
    mtime: 'mtime' in said ? said.mtime : lastModified,
  };
  const target = kind === 'symlink' ? data : undefined;
  return { kind, attributes, data: target, modified: false, lost: false, copy: { name, version } };
}
