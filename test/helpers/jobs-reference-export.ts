/** Export and auto-export of the reference: seed 000 "Which files are exported during an export job?", amlfs 2.4 and 2.5. */
import { iterations, withoutRoot, type During } from './jobs-operations.js';
import {
  ancestors,
  saidOf,
  shownBlob,
  type Attributes,
  type Blob,
  type Counts,
  type Entry,
  type Reference,
} from './jobs-reference.js';

export class ReferenceExport {
  readonly #tree: Reference;
  readonly #prefix: string;
  #files = 0;
  #bytes = 0;
  #directories = 0;
  #failed = 0;
  #failedFiles = 0;
  /** The directories above what was exported, each once an export. */
  #tried = new Map<string, 'done' | 'failed'>();
  /** What an auto-export has seen of directories: undefined for an export, which looks for none. */
  #seen: Map<Entry, string> | undefined;
  /** What it has written and is new all the same, as a directory above it has no blob. */
  readonly #incomplete = new Map<Entry, string>();

  constructor(tree: Reference, prefix: string) {
    this.#tree = tree;
    this.#prefix = withoutRoot(prefix);
  }

  job(): Counts {
    const { entries } = this.#tree;
    let before = new Set([...entries.values()].filter(isNew));
    this.#iterate();
    // What has changed by what was written: it had its content from a blob of another name.
    for (;;) {
      const left = [...entries].filter(([, entry]) => isNew(entry) && !before.has(entry));
      if (left.length === 0) break;
      before = new Set([...before, ...left.map(([, entry]) => entry)]);
      for (const [name, entry] of left.sort(([a], [b]) => (a < b ? -1 : 1)))
        if (name.startsWith(this.#prefix)) this.#write(name, entry);
    }
    return {
      state: this.#failed === 0 ? 'Completed' : 'Failed',
      filesDiscovered: this.#files + this.#failedFiles,
      totalFilesExported: this.#files,
      totalBytesExported: this.#bytes,
      totalFilesFailed: this.#failed,
      totalFilesSkipped: 0,
      totalDirectoriesExported: this.#directories,
    };
  }

  /** One export after the other: some behind each change. */
  follow(during: readonly During[]): Counts {
    this.#seen = new Map();
    let [count, before, failedBefore] = [0, 0, 0];
    for (const changes of [[], ...during]) {
      for (const change of changes) this.#tree.change(change);
      for (let n = 0; n < iterations; n++) {
        [before, failedBefore] = [this.#files, this.#failed];
        this.#failedFiles = 0;
        this.#iterate();
        count++;
        // Of those since the last one that exported everything.
        if (this.#failed === failedBefore) this.#failed = 0;
      }
    }
    const [exported, failed] = [this.#files - before, this.#failed === 0 ? 0 : this.#failed - failedBefore];
    return {
      state: failed === 0 ? 'Disabled' : 'DisableFailed',
      totalFilesExported: this.#files,
      totalFilesFailed: this.#failed,
      exportIterationCount: count,
      currentIterationFilesDiscovered: exported + this.#failedFiles,
      currentIterationFilesExported: exported,
      currentIterationFilesFailed: failed,
    };
  }

  #iterate(): void {
    const { entries } = this.#tree;
    const wanted = [...entries].filter(([name]) => name.startsWith(this.#prefix));
    this.#tried = new Map();
    // What becomes new by what is written is for the next export.
    const all = wanted.map(([name, entry]) => ({ name, entry, isNew: isNew(entry) }));
    for (const { name, entry, isNew } of all.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (isNew) this.#write(name, entry);
      if (entry.kind === 'directory') this.#look(name, entry);
    }
    // What was not met, as it was moved out of the path, is new when it comes back.
    for (const entry of this.#seen?.keys() ?? [])
      if (!all.some((one) => one.entry === entry)) this.#seen?.delete(entry);
  }

  #write(name: string, entry: Entry): void {
    const { blobs } = this.#tree;
    const { kind, data = '' } = entry;
    const written = `${name} ${data}`;
    if (this.#incomplete.get(entry) === written && !this.#above(name)) return;
    this.#incomplete.delete(entry);
    if (!this.#tree.saveOthers(name, entry, { replaced: kind === 'file' })) {
      this.#failed++;
      this.#failedFiles++;
      return;
    }
    const there = blobs.get(name);
    if (kind === 'symlink' && there?.kind === 'symlink' && there.data === data) {
      // The container has it.
      const { version } = there;
      if (
        !ancestors(name)
          .map((parent) => this.#found(parent))
          .includes('failed')
      )
        entry.copy = { name, version };
      return;
    }
    const version = this.#tree.put(name, { kind, data, said: saidOf(entry) });
    this.#files++;
    this.#bytes += Buffer.byteLength(data);
    const isComplete = this.#above(name);
    if (!isComplete && this.#seen !== undefined) this.#incomplete.set(entry, written);
    const modified = kind === 'file' && !isComplete;
    if (kind === 'file' || isComplete)
      Object.assign(entry, { modified, lost: false, copy: { name, version } });
  }

  /** Whether every directory above has what is to be written of it. */
  #above(name: string): boolean {
    return !ancestors(name)
      .map((parent) => this.#changed(parent))
      .includes('failed');
  }

  /** Auto-export: new directories that no blob below them implies, and those whose attributes have changed since it looked at them. */
  #look(name: string, entry: Entry): void {
    if (this.#seen === undefined) return;
    const [before, now] = [this.#seen.get(entry), JSON.stringify(entry.attributes)];
    if (before === now) return;
    const written = this.#directories;
    const result =
      before !== undefined
        ? this.#changed(name)
        : this.#isImplied(name)
          ? this.#directory(name, contradictsThere)
          : this.#found(name);
    if (result === 'failed') return;
    this.#seen.set(entry, now);
    if (this.#directories > written) this.#above(name);
  }

  /** Something in it came from a blob below it. */
  #isImplied(name: string): boolean {
    return [...this.#tree.entries].some(
      ([path, { copy }]) => path.startsWith(`${name}/`) && copy?.name.startsWith(`${name}/`),
    );
  }

  #changed(name: string): 'done' | 'failed' {
    return this.#once(`changed ${name}`, () => this.#directory(name, differs));
  }

  #found(name: string): 'done' | 'failed' {
    const tried = this.#tried.get(`changed ${name}`);
    return tried ?? this.#once(`found ${name}`, () => this.#directory(name, contradicts));
  }

  #once(key: string, work: () => 'done' | 'failed'): 'done' | 'failed' {
    const result = this.#tried.get(key) ?? work();
    this.#tried.set(key, result);
    return result;
  }

  /** Writes the blob of a directory, if it is wanted; a blob with content is never overwritten by one. */
  #directory(
    name: string,
    isWanted: (there: Blob | undefined, wanted: Attributes) => boolean,
  ): 'done' | 'failed' {
    const entry = this.#tree.entries.get(name);
    const there = this.#tree.blobs.get(name);
    if (entry === undefined || (there !== undefined && there.kind !== 'directory')) return 'done';
    if (!isWanted(there, entry.attributes)) return 'done';
    if (!this.#tree.saveOthers(name, entry)) {
      this.#failed++;
      return 'failed';
    }
    this.#tree.put(name, { kind: 'directory', data: '', said: saidOf(entry) });
    this.#directories++;
    return 'done';
  }
}

/** New symlinks, files with new or changed content. */
function isNew({ kind, modified, data, copy }: Entry): boolean {
  return kind === 'symlink' ? copy === undefined : kind === 'file' && modified && data !== undefined;
}

/** Missing, or it says anything else. */
function differs(there: Blob | undefined, wanted: Attributes): boolean {
  const blob = { kind: 'directory', data: '', said: wanted } as const;
  return there === undefined || shownBlob(there) !== shownBlob(blob);
}

/** Missing, or of another owner or mode, as far as it says. */
function contradicts(there: Blob | undefined, wanted: Attributes): boolean {
  return there === undefined || contradictsThere(there, wanted);
}

function contradictsThere(there: Blob | undefined, { mode, owner }: Attributes): boolean {
  return (there?.said.mode ?? mode) !== mode || (there?.said.owner ?? owner) !== owner;
}
