/** Job records on disk: one folder a job under STORE/jobs, with record.json and log.jsonl. */
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { replaceFile, syncDirectory } from '../store/atomic-file.js';
import { conflictModes, exportStates, importStates, jobNamePattern, type JobRecord } from './job.js';

const count = z.number().nonnegative();
const adminStatus = z.enum(['Active', 'Cancel']);

const importRecord = z.object({
  kind: z.literal('import'),
  name: z.string().regex(jobNamePattern),
  properties: z.object({
    adminStatus,
    importPrefixes: z.array(z.string()),
    conflictResolutionMode: z.enum(conflictModes),
    maximumErrors: z.int(),
    status: z.object({
      state: z.enum(importStates),
      statusMessage: z.string(),
      lastStartedTime: z.string(),
      lastCompletionTime: z.string().exactOptional(),
      blobsWalkedPerSecond: count.exactOptional(),
      blobsImportedPerSecond: count.exactOptional(),
      totalBlobsWalked: count,
      totalBlobsImported: count,
      importedFiles: count,
      importedDirectories: count,
      importedSymlinks: count,
      preexistingFiles: count,
      preexistingDirectories: count,
      preexistingSymlinks: count,
      totalErrors: count,
      totalConflicts: count,
    }),
  }),
});

const exportRecord = z.object({
  kind: z.literal('export'),
  name: z.string().regex(jobNamePattern),
  properties: z.object({
    adminStatus,
    filesystemPath: z.string(),
    status: z.object({
      state: z.enum(exportStates),
      lastStartedTime: z.string(),
      lastCompletionTime: z.string().exactOptional(),
      percentComplete: count,
      errorCode: z.string().exactOptional(),
      errorMessage: z.string().exactOptional(),
      filesDiscovered: count,
      totalFilesExported: count,
      totalBytesExported: count,
      totalMiBExported: count,
      totalFilesFailed: count,
      totalFilesSkipped: count,
      totalDirectoriesExported: count,
    }),
  }),
});

const schema = z.discriminatedUnion('kind', [importRecord, exportRecord]);

export class JobRecords {
  readonly #folder: string;
  readonly #writes = new Map<string, Promise<void>>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Everything that can be read; what cannot is logged and left alone. */
  async load(log: Log): Promise<readonly JobRecord[]> {
    const records: JobRecord[] = [];
    for (const name of (await readdir(this.#folder)).sort()) {
      const file = join(this.#folder, name, 'record.json');
      try {
        records.push(schema.parse(JSON.parse(await readFile(file, 'utf8'))));
      } catch (error) {
        log.warn({ file, cause: messageChain(error) }, 'a job record cannot be read');
      }
    }
    return records;
  }

  /** Makes the folder of a new job. */
  async create(record: JobRecord): Promise<void> {
    await mkdir(join(this.#folder, record.name), { recursive: true, mode: 0o700 });
    await this.write(record, { durable: true });
    await syncDirectory(this.#folder);
  }

  /** Writes of one record happen in the order of the calls. */
  async write(record: JobRecord, options: { readonly durable: boolean }): Promise<void> {
    const { name } = record;
    const file = join(this.#folder, name, 'record.json');
    const before = this.#writes.get(name) ?? Promise.resolve();
    const mine = before.then(() => replaceFile(file, `${JSON.stringify(record, null, 2)}\n`, options));
    const settled = mine.catch(() => undefined);
    this.#writes.set(name, settled);
    try {
      await mine;
    } finally {
      if (this.#writes.get(name) === settled) this.#writes.delete(name);
    }
  }

  /** Durably; a folder without a record is no job any more. */
  async remove(name: string): Promise<void> {
    await this.#writes.get(name);
    await rm(join(this.#folder, name), { recursive: true });
    await syncDirectory(this.#folder);
  }

  logFile(name: string): string {
    return join(this.#folder, name, 'log.jsonl');
  }
}
