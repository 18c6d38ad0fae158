/** kill -9 at random moments while an auto-import follows a container that others change and applications use the mount. */
import { open, readdir, readFile, rm, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerClient } from '@azure/storage-blob';
import t from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { CrashLab } from '../helpers/crash-lab.js';
import { cannotMount } from '../helpers/mounts.js';
import { Dice } from '../helpers/tree.js';

const kills = 20;
const firstBlobs = 60;

t.test(
  'after 20 kill -9 during an auto-import the namespace is what the container has',
  { skip: cannotMount },
  async (t) => {
    const dice = new Dice();
    t.comment(`seed ${dice.seed}`);
    const azurite = await Azurite.start();
    t.teardown(() => azurite[Symbol.asyncDispose]());
    const names = Array.from({ length: firstBlobs }, (_, n) => nameOf(dice, n));
    const blobs = Object.fromEntries(names.map((name) => [name, dice.bytes(1 + dice.below(4000))]));
    await using lab = await CrashLab.start(t, azurite, { blobs });
    const others = new Others(lab.client, dice, blobs);
    await lab.follow('');

    for (let round = 1; round <= kills; round++) {
      const work = others.change(1 + dice.below(12));
      const used = use(lab, dice, [...others.blobs.keys()]);
      // By what has been done and not by the clock, so that slow machines get into the thick of it, too.
      await work;
      await delay(dice.below(400));
      await lab.mount.kill();
      await used;
      await lab.mount.remount({ ready: round % 3 === 0 ? 'mounted' : 'started' });
    }
    // What was changed here since the container last changed would be a difference that nobody wants mended.
    await others.overwriteAll();
    await lab.untilReady();

    const there = await readAll(lab);
    t.same([...there.keys()].sort(), [...others.blobs.keys()].sort(), `the same names, seed ${dice.seed}`);
    const wrong = [...there].filter(([name, body]) => others.blobs.get(name)?.equals(body) === false);
    t.same(
      wrong.map(([name]) => name),
      [],
      `the same content, seed ${dice.seed}`,
    );
    const [job] = (await lab.jobs()).filter(({ kind }) => kind === 'auto-import');
    t.match(job?.properties.status, { state: 'Disabled', blobSyncEvents: { totalErrors: 0 } });
  },
);

function nameOf(dice: Dice, n: number): string {
  return `d${dice.below(4)}/e${dice.below(3)}/f${n}`;
}

/** Other clients of the container, and what they have left in it. */
class Others {
  readonly blobs: Map<string, Buffer>;
  readonly #client: ContainerClient;
  readonly #dice: Dice;
  #made = firstBlobs;

  constructor(client: ContainerClient, dice: Dice, blobs: Readonly<Record<string, Buffer>>) {
    this.#client = client;
    this.#dice = dice;
    this.blobs = new Map(Object.entries(blobs));
  }

  async change(times: number): Promise<void> {
    const dice = this.#dice;
    for (let n = 0; n < times; n++) {
      const name = dice.pick([...this.blobs.keys()]);
      switch (dice.below(5)) {
        case 0:
        case 1:
          await this.#put(nameOf(dice, this.#made++), dice.bytes(1 + dice.below(4000)));
          break;
        case 2:
          await this.#put(name, dice.bytes(1 + dice.below(4000)));
          break;
        case 3:
          await this.#delete(name);
          break;
        default:
          // As rename does on a flat account.
          await this.#put(nameOf(dice, this.#made++), this.blobs.get(name) ?? Buffer.alloc(0));
          await this.#delete(name);
      }
    }
  }

  async overwriteAll(): Promise<void> {
    for (const name of this.blobs.keys()) await this.#put(name, this.#dice.bytes(100));
  }

  async #put(name: string, body: Buffer): Promise<void> {
    await this.#client.getBlockBlobClient(name).uploadData(body);
    this.blobs.set(name, body);
  }

  async #delete(name: string): Promise<void> {
    await this.#client.deleteBlob(name);
    this.blobs.delete(name);
  }
}

/** Applications read, hold, write and delete until the daemon dies under them; what fails then is no failure. */
async function use(lab: CrashLab, dice: Dice, names: readonly string[]): Promise<void> {
  for (let step = 0; !lab.mount.gone && step < 1000; step++) {
    const path = lab.at(dice.pick(names));
    try {
      switch (dice.below(4)) {
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

async function readAll(lab: CrashLab): Promise<Map<string, Buffer>> {
  const entries = await readdir(lab.at(''), { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const read = await Promise.all(
    files.map(async (file) => {
      const path = `${file.parentPath}/${file.name}`;
      return [path.slice(lab.at('').length).replace(/^\//, ''), await readFile(path)] as const;
    }),
  );
  return new Map(read);
}
