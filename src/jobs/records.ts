/** Job records on disk: one folder a job under STORE/jobs, with record.json and log.jsonl. */
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageChain } from '../base/errors.js';
import type { Log } from '../base/log.js';
import { replaceFile, syncDirectory } from '../store/atomic-file.js';
import { jobRecord, type JobRecord } from './job.js';

export class JobRecords {
  readonly #root: string;
  readonly #writes = new Map<string, Promise<void>>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Everything that can be read; what cannot is logged and left alone. */
  async load(log: Log): Promise<readonly JobRecord[]> {
    const records: JobRecord[] = [];
    for (const name of (await readdir(this.#root)).sort()) {
      const file = join(this.#root, name, 'record.json');
      try {
        records.push(jobRecord.parse(JSON.parse(await readFile(file, 'utf8'))));
      } catch (error) {
        log.warn({ file, cause: messageChain(error) }, 'a job record cannot be read');
      }
    }
    return records;
  }

  /** Makes the folder of a new job. */
  async create(record: JobRecord): Promise<void> {
    await mkdir(join(this.#root, record.name), { recursive: true, mode: 0o700 });
    await this.write(record, { durable: true });
    await syncDirectory(this.#root);
  }

  /** Writes of one record happen in the order of the calls. */
  async write(record: JobRecord, options: { readonly durable: boolean }): Promise<void> {
    const { name } = record;
    const file = join(this.#root, name, 'record.json');
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
    // Of a job that could not be recorded there may be none.
    await rm(join(this.#root, name), { recursive: true, force: true });
    await syncDirectory(this.#root);
  }

  logFile(name: string): string {
    return join(this.folder(name), 'log.jsonl');
  }

  folder(name: string): string {
    return join(this.#root, name);
  }
}
