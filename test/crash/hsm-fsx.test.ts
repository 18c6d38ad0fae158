/**
 * fsx on files that other processes archive, release, restore, cancel, remove and rename meanwhile, and whose daemon is
 * killed now and then. FSX_SECONDS and FSX_SEED: `scripts/fsx`.
 */
import { lstatSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { messageChain } from '../../src/base/errors.js';
import { Application } from '../helpers/application.js';
import { Azurite } from '../helpers/azurite.js';
import { content, differenceOf, FsxFile, learn } from '../helpers/fsx.js';
import { gaugesOf, openInStore } from '../helpers/gauges.js';
import { hsmFlags, lfs, reachable, states } from '../helpers/lfs.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { Dice } from '../helpers/tree.js';

const seconds = Number(process.env['FSX_SECONDS'] ?? 30);
const seed = process.env['FSX_SEED'];
const progressMs = 30_000;
/** However slow the machine is. */
const roundMs = 7_000;
const fileCount = 6;
/** Errnos of `lfs hsm_*` that say no: EPERM, EBUSY, ENOENT or ENODEV where the name has just moved. */
const refusals: readonly (number | null)[] = [0, 1, 2, 16, 19];

t.test(
  'fsx, HSM requests and kill -9 on the same files',
  { skip: cannotMount, timeout: (seconds + 300) * 1000 },
  async (t) => {
    const dice = new Dice(seed === undefined ? undefined : Number(seed));
    t.comment(`seed ${dice.seed}`);
    const azurite = await Azurite.start();
    t.teardown(() => azurite[Symbol.asyncDispose]());
    const fsx = await Fsx.start(t, azurite, dice);
    const end = performance.now() + seconds * 1000;
    let next = performance.now() + progressMs;
    try {
      do {
        await fsx.round(end);
        if (performance.now() < next) continue;
        t.comment(fsx.summary);
        next += progressMs;
      } while (performance.now() < end);
      await fsx.finish(t);
    } catch (error) {
      t.fail(`seed ${dice.seed}, round ${fsx.rounds}: ${messageChain(error)}`);
    }
    t.comment(fsx.summary);
  },
);

/** Size, mtime and ctime. */
async function timesOf(path: string): Promise<string> {
  const { size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return [size, mtimeNs, ctimeNs].join(' ');
}

class Fsx {
  rounds = 0;
  dying = false;
  cancels = 0;
  cancelling = 0;
  readonly #azurite: Azurite;
  readonly #container: string;
  readonly #mount: TestMount;
  readonly #dice: Dice;
  readonly #files: readonly FsxFile[];
  readonly #names: readonly string[];
  readonly reader: Application;
  readonly #mover = new Application();
  readonly #done: Record<string, number> = {};
  #stopped = false;
  readonly #wrong: string[] = [];

  private constructor(
    azurite: Azurite,
    container: string,
    mount: TestMount,
    dice: Dice,
    files: readonly FsxFile[],
    names: readonly string[],
    reader: Application,
  ) {
    this.reader = reader;
    this.#azurite = azurite;
    this.#container = container;
    this.#mount = mount;
    this.#dice = dice;
    this.#files = files;
    this.#names = names;
  }

  static async start(t: Test, azurite: Azurite, dice: Dice): Promise<Fsx> {
    const container = await azurite.newContainer('fsx');
    const client = azurite.client(container);
    // More names than files, so that a name becomes another file's.
    const names = Array.from({ length: fileCount + 3 }, (_, index) => `dir${index % 2}/file${index}`);
    const blobs = [...names.slice(0, fileCount), 'source'].map((name, index) => ({
      name,
      body: content(name, 200_000 + 997 * index),
    }));
    await Promise.all(blobs.map(({ name, body }) => client.getBlockBlobClient(name).uploadData(body)));
    const mount = await TestMount.start(t, {
      container,
      env: {
        AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString,
        LUSTRITE_HYDRATE_RANGE_BYTES: '65536',
        LUSTRITE_TRANSFER_BLOCK_BYTES: '65536',
      },
    });
    const source = { path: mount.at('source'), content: blobs.at(-1)?.body ?? Buffer.alloc(0) };
    const files = blobs.slice(0, fileCount).map(({ name, body }, index) => {
      const path = mount.at(name);
      // This process serves no mount: the daemon does.
      const { ino } = lstatSync(path);
      const file = new FsxFile(
        `${dice.seed}.${index}`,
        { path, ino, content: body },
        new Dice(dice.seed + 1 + index),
        source,
      );
      t.teardown(() => file[Symbol.asyncDispose]());
      return file;
    });
    const reader = await learn(new Application());
    t.teardown(() => reader[Symbol.asyncDispose]());
    const fsx = new Fsx(
      azurite,
      container,
      mount,
      dice,
      files,
      names.map((name) => mount.at(name)),
      reader,
    );
    t.teardown(() => fsx.#mover[Symbol.asyncDispose]());
    return fsx;
  }

  get summary(): string {
    const steps = this.#files.reduce((sum, file) => sum + file.steps, 0);
    const requests = Object.entries(this.#done).map(([what, count]) => `${count} ${what}`);
    return `${this.rounds} rounds, ${steps} operations, ${requests.join(', ')}`;
  }

  /** Operations and requests for a while; then the daemon is killed, or not, and every file is looked at. */
  async round(end: number): Promise<void> {
    this.rounds++;
    const kill = this.#dice.below(2) === 0;
    const enough = 20 + this.#dice.below(400);
    this.#stopped = false;
    this.#wrong.length = 0;
    const before = this.#steps();
    const actors = Array.from({ length: 3 }, (_, index) => new Dice(this.#dice.below(2 ** 31) + index));
    // The model keeps one operation of a file that may have happened: nobody begins another under a dead daemon.
    const over = (): boolean => this.#stopped || this.dying;
    const repeat = async (step: () => Promise<unknown>): Promise<void> => {
      while (!over()) await step();
    };
    const busy = [
      ...this.#files.map((file) =>
        repeat(async () => {
          await file.step(this).catch((error: unknown) => {
            this.#fail(`${file.path} (ino ${file.ino}): ${messageChain(error)}\n  ${file.trail}`);
          });
          if (this.#steps() - before >= enough && !kill) this.#stopped = true;
        }),
      ),
      ...actors.map((actor) => repeat(() => this.#act(actor))),
    ];
    const latest = Math.min(end, performance.now() + roundMs);
    const done = (): boolean => over() || this.#steps() - before >= enough || performance.now() >= latest;
    await until(done, { what: 'operations', intervalMs: 5 });
    if (kill && this.#wrong.length === 0) {
      this.dying = true;
      this.#count('kills');
      await this.#mount.kill();
    }
    this.#stopped = true;
    await Promise.all(busy);
    if (this.#wrong.length > 0) throw new Error(this.#wrong.join('\n'));
    if (kill) {
      // #check waits for the jobs.
      await this.#mount.remount({ ready: 'mounted' });
      this.dying = false;
      for (const file of this.#files) {
        // What passes the daemon by outlives it, and keeps the file open.
        await file.killed();
        this.#find(file);
      }
    }
    await this.#check();
  }

  #steps(): number {
    return this.#files.reduce((sum, file) => sum + file.steps, 0);
  }

  #fail(message: string): void {
    this.#wrong.push(message);
    this.#stopped = true;
  }

  #count(what: string): void {
    this.#done[what] = (this.#done[what] ?? 0) + 1;
  }

  /** After a rename that nobody saw the end of. */
  #find(file: FsxFile): void {
    const path = this.#names.find((name) => lstatSync(name, { throwIfNoEntry: false })?.ino === file.ino);
    if (path === undefined) throw new Error(`${file.names.join(' or ')} is gone`);
    file.names = [path];
  }

  /** What other processes do with a file. */
  async #act(dice: Dice): Promise<void> {
    const file = dice.pick(this.#files);
    const choice = dice.below(40);
    if (choice < 10) return this.#request('hsm_archive', file);
    if (choice < 24) return this.#request('hsm_release', file);
    if (choice < 29) return this.#request('hsm_restore', file);
    if (choice < 31) return this.#request('hsm_cancel', file);
    if (choice < 32) return this.#request('hsm_remove', file);
    if (choice < 33) {
      this.#count('exports');
      // One job at a time.
      await this.#mount.control('POST', '/v1/jobs/export', {}).catch(() => undefined);
      return;
    }
    if (choice < 35) {
      await this.#lfs('hsm_release', this.#mount.at('source'));
      return;
    }
    await file.exclusive(() => this.#rename(file, dice));
  }

  async #rename(file: FsxFile, dice: Dice): Promise<void> {
    const taken = new Set(this.#files.flatMap(({ names }) => names));
    const to = dice.pick(this.#names.filter((name) => !taken.has(name)));
    const from = file.path;
    file.names = [from, to];
    try {
      await this.#mover.do('os.rename(*args)', from, to);
      this.#count('renames');
      file.names = [to];
    } catch (error) {
      if (!this.dying) this.#fail(`mv ${from} ${to}: ${messageChain(error)}`);
    }
  }

  async #request(what: string, file: FsxFile): Promise<void> {
    if (what !== 'hsm_cancel') return this.#lfs(what, file.path);
    this.cancels++;
    this.cancelling++;
    await this.#lfs(what, file.path);
    this.cancels++;
    this.cancelling--;
  }

  async #lfs(what: string, path: string): Promise<void> {
    const { code, stderr } = await lfs([what, path]);
    if (code === 0) this.#count(what);
    if (!this.dying && !refusals.includes(code)) this.#fail(`${what} ${path}: ${String(code)} ${stderr}`);
  }

  async #idle(): Promise<void> {
    let last = '';
    const idle = async (): Promise<boolean> => {
      const status = await this.#mount.status();
      if (status === undefined) return false;
      // The application has its files open all the time.
      const { 'counters.handles': _, ...gauges } = gaugesOf(status);
      last = JSON.stringify(gauges);
      return Object.values(gauges).every((count) => count === 0);
    };
    await until(idle, { what: 'every request to end' }).catch((error: unknown) => {
      throw new Error(`not idle: ${last}`, { cause: error });
    });
  }

  /** What must be true whenever nothing is under way. */
  async #check(): Promise<void> {
    await this.#idle();
    for (const [index, file] of this.#files.entries()) {
      const { path } = file;
      const flags = await hsmFlags(path);
      const shown = `${path} (0x${flags.toString(16)}, ino ${file.ino})`;
      if (!reachable.includes(flags)) throw new Error(`${shown}: no such state`);
      const { size } = await stat(path);
      const read = await readFile(path);
      try {
        file.settle(read);
      } catch (error) {
        throw new Error(`${shown}: ${messageChain(error)}\n  ${file.trail}`, { cause: error });
      }
      if (size !== read.length) throw new Error(`${shown} shows ${size} bytes and has ${read.length}`);
      if (flags !== states.clean && flags !== states.stub) continue;
      this.#same(shown, file, await this.#copyOf(path));
      if (index % 2 === this.rounds % 2) await this.#comeBack(file);
    }
  }

  /** A clean file is released and restored. */
  async #comeBack(file: FsxFile): Promise<void> {
    await file.close();
    const { path } = file;
    const before = await timesOf(path);
    let last = '';
    const released = async (): Promise<boolean> => {
      const { code, stderr } = await lfs(['hsm_release', path]);
      last = stderr;
      return code === 0;
    };
    await until(released, { what: `${path} to be released` }).catch((error: unknown) => {
      throw new Error(`${path} is clean and cannot be released: ${last}\n  ${file.trail}`, { cause: error });
    });
    if ((await hsmFlags(path)) !== states.stub) throw new Error(`${path} is not released`);
    this.#same(`${path}, restored`, file, await readFile(path));
    const restored = await hsmFlags(path);
    // A read of nothing needs no data.
    if (restored !== (file.content.length === 0 ? states.stub : states.clean))
      throw new Error(
        `${path} is 0x${restored.toString(16)} after a read of ${file.content.length} bytes\n  ${file.trail}`,
      );
    const after = await timesOf(path);
    if (after !== before) throw new Error(`${path} shows ${before} and, restored, ${after}`);
  }

  #same(what: string, file: FsxFile, found: Buffer): void {
    if (found.equals(file.content)) return;
    throw new Error(`${what}: ${differenceOf(file.content, found)}\n  ${file.trail}`);
  }

  async #blobOf(path: string): Promise<string> {
    const name = await this.#mover.do('os.getxattr(args[0], "user.hsm.blob").decode("latin1")', path);
    return String(name);
  }

  async #copyOf(path: string): Promise<Buffer> {
    const client = this.#azurite.client(this.#container);
    return client.getBlockBlobClient(await this.#blobOf(path)).downloadToBuffer();
  }

  /** After an export another mount of the container has the same files, under the names of their blobs. */
  async finish(t: Test): Promise<void> {
    for (const file of this.#files) await file[Symbol.asyncDispose]();
    await until(async () => (await this.#exported()) === 0, { what: 'an export that finds nothing' });
    await this.#idle();
    const { pid, store } = this.#mount;
    const nothingOpen = (): boolean => {
      const { files, leases } = openInStore({ pid, store });
      return files.length + leases === 0;
    };
    await until(nothingOpen, { what: 'the daemon to close what nobody uses' });
    const env = { AZURE_STORAGE_CONNECTION_STRING: this.#azurite.connectionString };
    await using other = await TestMount.start(t, { container: this.#container, env });
    for (const file of this.#files) {
      const { path } = file;
      const flags = await hsmFlags(path);
      if (flags !== states.clean && flags !== states.stub)
        throw new Error(`${path} is 0x${flags.toString(16)} after the export`);
      const blob = await this.#blobOf(path);
      this.#same(`${path}, ${blob} of another mount`, file, await readFile(other.at(blob)));
    }
    t.pass(`${this.#files.length} files are the same in another mount`);
  }

  async #exported(): Promise<number> {
    const { properties } = await this.#mount.job('export', {});
    const { state, filesDiscovered } = properties.status as { state: string; filesDiscovered: number };
    if (state !== 'Completed') throw new Error(`the export ended ${JSON.stringify(properties.status)}`);
    return filesDiscovered;
  }
}
