/** kill -9 at random moments while an auto-import follows a container that others change and applications use the mount. */
import { createHash } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerClient } from '@azure/storage-blob';
import t from 'tap';
import type { AutoImportRecord } from '../../src/jobs/auto-import/auto-import-record.js';
import { Azurite } from '../helpers/azurite.js';
import { CrashLab } from '../helpers/crash-lab.js';
import { HourlyFeed } from '../helpers/hourly-feed.js';
import { cannotMount } from '../helpers/mounts.js';
import { Dice, differences, readTree, type Entry, type Tree } from '../helpers/tree.js';

/** Of a run to be repeated: what others and applications do is the same then, but not where a kill finds the daemon. */
const seed = process.env['KILL_SEED'];
const kills = 20;
const firstBlobs = 60;
/** Of a round, now and then. */
const burst = 150;
const roundsPerBurst = 7;
const modes = [0o600, 0o644, 0o755];
const folderModes = [0o700, 0o755, 0o1777];

/** What somebody has changed here is no difference that an auto-import mends: only these are changed, and told apart. */
const used = (name: string): boolean => name.startsWith('d0/');

for (const source of ['listing', 'feed'] as const) {
  void t.test(
    `after ${String(kills)} kill -9 during an auto-import by ${source} the namespace is what the container has`,
    { skip: cannotMount },
    async (t) => {
      const dice = new Dice(seed === undefined ? undefined : Number(seed));
      t.comment(`seed ${dice.seed}`);
      // Each its own, as their turns depend on the machine.
      const [changes, uses] = [new Dice(dice.seed + 1), new Dice(dice.seed + 2)];
      const azurite = await Azurite.start();
      t.teardown(() => azurite[Symbol.asyncDispose]());
      const feed = source === 'feed' ? await HourlyFeed.start(azurite) : undefined;
      await using lab = await CrashLab.start(t, azurite);
      const others = new Others(lab.client, changes, feed);
      await others.begin();
      await lab.follow('');

      const touched = new Set<string>();
      for (let round = 1; round <= kills; round++) {
        const work = round % roundsPerBurst === 0 ? others.burst(burst) : others.change(1 + dice.below(12));
        const using = use(lab, uses, [...others.files.keys()], touched);
        // By what has been done and not by the clock, so that slow machines get into the thick of it, too.
        await work;
        await delay(dice.below(400));
        await lab.mount.kill();
        await using;
        await lab.mount.remount({ ready: round % 3 === 0 ? 'mounted' : 'started' });
      }
      await others.overwrite(touched);
      await lab.untilReady();

      // An import sets them by what the test does not say, and applications by their writes.
      const wrong = differences(others.wanted(), await readTree(lab.at('')), ['mtime']);
      t.same(wrong, [], `the same names, content, modes and owners, seed ${dice.seed}`);
      t.ok(
        [...others.files.keys()].some((name) => !used(name)),
        'some of them were never touched here',
      );
      t.ok(others.turned > 0 && others.turnedBack > 0, 'files became directories, and directories files');
      const job = (await lab.jobs()).find(({ kind }) => kind === 'auto-import') as AutoImportRecord;
      t.match(job.properties, {
        changeSource: source,
        status: { state: 'Disabled', blobSyncEvents: { totalErrors: 0 } },
      });
    },
  );
}

/** By the defaults of the mount. */
const impliedDirectory: Entry = { kind: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: 0, size: 0 };

interface Blob {
  readonly body: Buffer;
  readonly mode: number;
}

/** Other clients of the container, and what they have left in it. */
class Others {
  readonly files = new Map<string, Blob>();
  turned = 0;
  turnedBack = 0;
  /** Names of files that are directories now, or were until the last blob below went. */
  readonly #turned = new Set<string>();
  readonly #folders = new Map<string, number>();
  /** Name -> target. */
  readonly #links = new Map<string, string>();
  readonly #client: ContainerClient;
  readonly #dice: Dice;
  readonly #feed: HourlyFeed | undefined;
  #made = 0;

  constructor(client: ContainerClient, dice: Dice, feed: HourlyFeed | undefined) {
    this.#client = client;
    this.#dice = dice;
    this.#feed = feed;
  }

  async begin(): Promise<void> {
    while (this.#made < firstBlobs) await this.#put(this.#newName());
    for (const n of [0, 1, 2, 3]) await this.#putFolder(`d${n}`);
    await this.#putFolder('empty');
  }

  async change(times: number): Promise<void> {
    const dice = this.#dice;
    for (let n = 0; n < times; n++) {
      const name = dice.pick([...this.files.keys()]);
      switch (dice.below(11)) {
        case 0:
        case 1:
          await this.#put(this.#newName());
          break;
        case 2:
          await this.#put(name);
          break;
        case 3:
          // Its attributes alone.
          await this.#put(name, this.files.get(name)?.body);
          break;
        case 4:
          await this.#delete(name);
          break;
        case 5:
          await this.#putFolder(dice.pick([...this.#folders.keys()]));
          break;
        case 6:
          if (dice.below(2) === 0) await this.#putFolder(`empty${this.#made++}`);
          else await this.#delete(dice.pick([...this.#folders.keys()].filter((one) => one.startsWith('e'))));
          // One stays for `pick`.
          if (!this.#folders.has('empty')) await this.#putFolder('empty');
          break;
        case 7:
          await this.#changeLink(n);
          break;
        case 8:
          await this.#turn(name);
          break;
        case 9:
          if (this.#turned.size > 0) await this.#turnBack(dice.pick([...this.#turned]));
          break;
        default:
          // As rename does on a flat account.
          await this.#put(this.#newName(), this.files.get(name)?.body);
          await this.#delete(name);
      }
    }
    await this.#feed?.tell();
  }

  /** As many at once: of files and symlinks new ones, changed ones, and deletions; and files that become directories. */
  async burst(times: number): Promise<void> {
    const names = [...this.files.keys()];
    const change = (n: number): Promise<void> => {
      const name = names[n];
      if (name !== undefined && n % 9 === 0) return this.#turn(name);
      if (n % 4 === 0) return this.#changeLink(n);
      if (name === undefined || n % 4 === 1) return this.#put(this.#newName());
      return n % 4 === 2 ? this.#put(name) : this.#delete(name);
    };
    await Promise.all(Array.from({ length: times }, (_, n) => change(n)));
    await this.#feed?.tell();
  }

  /** What the container has still got of these names. */
  async overwrite(names: Iterable<string>): Promise<void> {
    for (const name of names) if (this.files.has(name)) await this.#put(name, this.#dice.bytes(100));
    await this.#feed?.tell();
  }

  /** What the mount has to show, with the directories that names of blobs imply. */
  wanted(): Tree {
    const common = { uid: 7, gid: 8, mtime: 0 };
    const above = [...this.files.keys(), ...this.#links.keys(), ...this.#folders.keys()].flatMap(directories);
    const implied = above.map((name): [string, Entry] => [name, impliedDirectory]);
    const folders = [...this.#folders].map(([name, mode]): [string, Entry] => [
      name,
      { ...common, kind: 'directory', mode, size: 0 },
    ]);
    const files = [...this.files].map(([name, { body, mode }]): [string, Entry] => {
      const sha256 = createHash('sha256').update(body).digest('hex');
      return [name, { ...common, kind: 'file', mode, size: body.length, sha256 }];
    });
    const links = [...this.#links].map(([name, target]): [string, Entry] => [
      name,
      { ...common, kind: 'symlink', mode: 0o777, size: target.length, target },
    ]);
    return new Map([...implied, ...folders, ...files, ...links]);
  }

  #newName(): string {
    return `d${this.#dice.below(4)}/e${this.#dice.below(3)}/f${this.#made++}`;
  }

  async #put(
    name: string,
    body: Buffer = this.#dice.bytes(1 + this.#dice.below(4000)),
    mode: number = this.#dice.pick(modes),
  ): Promise<void> {
    await this.#client.getBlockBlobClient(name).uploadData(body, { metadata: posix(mode) });
    this.files.set(name, { body, mode });
    this.#feed?.add('BlobCreated', this.#client.containerName, name);
  }

  async #putFolder(name: string, mode: number = this.#dice.pick(folderModes)): Promise<void> {
    const metadata = { ...posix(mode), hdi_isfolder: 'true' };
    await this.#client.getBlockBlobClient(name).upload('', 0, { metadata });
    this.#folders.set(name, mode);
    this.#feed?.add('BlobCreated', this.#client.containerName, name);
  }

  /** A new one, or one that leads elsewhere, or is gone; `n` keeps those of one moment apart. */
  async #changeLink(n: number): Promise<void> {
    const old = [...this.#links.keys()][n];
    if (old !== undefined && this.#dice.below(2) === 0) return this.#delete(old);
    const name = old ?? `d${this.#dice.below(4)}/e${this.#dice.below(3)}/l${this.#made++}`;
    const target = `f${this.#dice.below(1000)}`;
    const metadata = { ...posix(0o777), is_symlink: 'true' };
    await this.#client.getBlockBlobClient(name).upload(target, target.length, { metadata });
    this.#links.set(name, target);
    this.#feed?.add('BlobCreated', this.#client.containerName, name);
  }

  /** The file is a directory from now on: by a blob of its own in its place, or by nothing but a name below it. */
  async #turn(name: string): Promise<void> {
    // All dice first: a burst is many of these at once. One name is always the same kind of directory, as one that is never
    // seen to go in between keeps the attributes of its blob.
    const marked = /[02468]$/.test(name);
    const deletes = !marked || this.#dice.below(2) === 0;
    const below = marked && this.#dice.below(3) === 0 ? [] : [`${name}/f${this.#made++}`];
    const body = this.#dice.bytes(1 + this.#dice.below(4000));
    const [mode, folderMode] = [this.#dice.pick(modes), this.#dice.pick(folderModes)];
    // The file is no file that somebody else may pick meanwhile.
    this.files.delete(name);
    this.#turned.add(name);
    this.turned++;
    if (deletes) await this.#delete(name);
    if (marked) await this.#putFolder(name, folderMode);
    for (const one of below) await this.#put(one, body, mode);
  }

  /** The directory is a file from now on; in between the container may have both. */
  async #turnBack(name: string): Promise<void> {
    const below = [...this.files.keys(), ...this.#folders.keys()].filter((one) => one.startsWith(`${name}/`));
    for (const one of [name, ...this.#turned])
      if (one === name || one.startsWith(`${name}/`)) this.#turned.delete(one);
    this.turnedBack++;
    const early = this.#dice.below(2) === 0;
    if (early) await this.#put(name);
    for (const one of below) await this.#delete(one);
    if (!early) await this.#put(name);
    this.#folders.delete(name);
  }

  async #delete(name: string): Promise<void> {
    await this.#client.deleteBlob(name);
    this.files.delete(name);
    this.#folders.delete(name);
    this.#links.delete(name);
    this.#feed?.add('BlobDeleted', this.#client.containerName, name);
  }
}

/** The directories that the name of a blob implies. */
function directories(name: string): readonly string[] {
  const parts = name.split('/');
  return parts.slice(1).map((_, n) => parts.slice(0, n + 1).join('/'));
}

function posix(mode: number): Record<string, string> {
  return { owner: '7', group: '8', permissions: `0${mode.toString(8)}` };
}

/** Applications read and hold files, and write and delete some, until the daemon dies under them; what fails then is no failure. */
async function use(lab: CrashLab, dice: Dice, names: readonly string[], touched: Set<string>): Promise<void> {
  for (let step = 0; !lab.mount.gone && step < 1000; step++) {
    const name = dice.pick(names);
    const path = lab.at(name);
    const what = used(name) ? dice.below(4) : 2;
    if (what < 2) touched.add(name);
    try {
      switch (what) {
        case 0:
          // Only what is there: a file that somebody makes stays without a blob.
          await opened(path, 'r+', (file) => file.write(dice.bytes(50)));
          break;
        case 1:
          await rm(path);
          break;
        default:
          await opened(path, 'r', async (file) => {
            await file.readFile();
            await delay(dice.below(30));
          });
      }
    } catch {
      await delay(5);
    }
  }
}

async function opened(
  path: string,
  flags: string,
  work: (file: FileHandle) => Promise<unknown>,
): Promise<void> {
  const file = await open(path, flags);
  try {
    await work(file);
  } finally {
    await file.close();
  }
}
