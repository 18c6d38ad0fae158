/** kill -9 at random moments while applications, a release and an export, or an auto-export, are at work; a model knows what may be there. */
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { StatusReport } from '../../src/base/control-api.js';
import { messageChain } from '../../src/base/errors.js';
import { Azurite } from '../helpers/azurite.js';
import { content, CrashLab } from '../helpers/crash-lab.js';
import { lfs } from '../helpers/lfs.js';
import { cannotMount } from '../helpers/mounts.js';
import { Dice } from '../helpers/tree.js';

const rounds = 10;
const files = 8;
/** A write of one page is done or not; nothing in between. */
const page = 4096;

t.test('kill -9 at random moments loses and tears nothing', { skip: cannotMount }, async (t) => {
  const dice = new Dice();
  t.comment(`seed ${dice.seed}`);
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const names = Array.from({ length: files }, (_, index) => `dir${index % 2}/file${index}`);
  const blobs = Object.fromEntries(names.map((name) => [name, content(name, 4 * page)]));
  await using lab = await CrashLab.start(t, azurite, { blobs });

  for (let round = 1; round <= rounds; round++) {
    const work = new Work(lab, dice, names);
    const busy = [...names.map((name) => work.write(name)), work.read(), work.release(), work.export()];
    // By what has been done and not by the clock, so that slow machines get into the thick of it, too.
    const enough = 1 + dice.below(60);
    await work.until(enough);
    await delay(dice.below(30));
    work.stop();
    await lab.mount.kill();
    await Promise.all(busy);
    t.same(work.wrong, [], `round ${round} after ${work.done} steps: nothing failed before`);
    await lab.revive();
    await lab.check(t, '');
    if (!t.passing()) {
      t.fail(`round ${round}, seed ${dice.seed}`);
      return;
    }
  }
});

/** Applications on a mount whose daemon is about to die; whatever fails then is no failure. */
class Work {
  done = 0;
  readonly wrong: string[] = [];
  readonly #lab: CrashLab;
  readonly #dice: Dice;
  readonly #names: readonly string[];
  #stopped = false;
  #enough = Number.POSITIVE_INFINITY;
  #reached: () => void = () => undefined;

  constructor(lab: CrashLab, dice: Dice, names: readonly string[]) {
    this.#lab = lab;
    this.#dice = dice;
    this.#names = names;
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Resolves when so many steps are done. */
  until(steps: number): Promise<void> {
    this.#enough = steps;
    return new Promise((resolve) => {
      this.#reached = resolve;
      this.#count(0);
    });
  }

  /** One writer has one file, so that its content is certain between two of its steps. */
  async write(name: string): Promise<void> {
    const lab = this.#lab;
    await this.#repeat(`writer of ${name}`, async () => {
      const now = lab.sure(name);
      const bytes = this.#dice.bytes(page);
      switch (this.#dice.below(4)) {
        case 0: {
          const next = Buffer.concat([now.subarray(0, now.length - (now.length % page)), bytes]);
          if (next.length > 16 * page) return this.#cut(name, page);
          return lab.change(name, next, () => writeAt(lab.at(name), bytes, next.length - page));
        }
        case 1: {
          const at = page * this.#dice.below(Math.max(1, Math.floor(now.length / page)));
          const next = Buffer.concat([now.subarray(0, at), bytes, now.subarray(at + page)]);
          return lab.change(name, next, () => writeAt(lab.at(name), bytes, at));
        }
        case 2:
          return this.#cut(name, page * this.#dice.below(1 + now.length / page));
        default: {
          // Emptied by the open; then one page.
          lab.expect(name, now, Buffer.alloc(0), bytes);
          await writeFile(lab.at(name), bytes);
          lab.expect(name, bytes);
        }
      }
    });
  }

  #cut(name: string, size: number): Promise<void> {
    const lab = this.#lab;
    return lab.change(name, lab.sure(name).subarray(0, size), () => truncate(lab.at(name), size));
  }

  async read(): Promise<void> {
    await this.#repeat('reader', async () => {
      const name = this.#dice.pick(this.#names);
      const read = await readFile(this.#lab.at(name));
      if (read.length % page !== 0) this.wrong.push(`${name} has ${read.length} bytes`);
    });
  }

  async release(): Promise<void> {
    await this.#repeat('release', () => lfs(['hsm_release', this.#lab.at(this.#dice.pick(this.#names))]));
  }

  async export(): Promise<void> {
    await this.#repeat('export', async () => {
      const { runningJob } = (await this.#lab.mount.control('GET', '/v1/status')) as StatusReport;
      if (runningJob !== null) return;
      const auto = this.#dice.below(2) === 0;
      await (auto
        ? this.#lab.mount.control('POST', '/v1/jobs/auto-export', { pollIntervalMs: 100 })
        : this.#lab.mount.control('POST', '/v1/jobs/export', {}));
    });
  }

  async #repeat(what: string, step: () => Promise<unknown>): Promise<void> {
    const stopped = (): boolean => this.#stopped;
    while (!stopped()) {
      try {
        await step();
        this.#count(1);
      } catch (error) {
        // After this a writer would not know what it goes on from.
        if (!stopped()) this.wrong.push(`${what}: ${messageChain(error)}`);
        return;
      }
      await delay(1 + this.#dice.below(20));
    }
  }

  #count(steps: number): void {
    this.done += steps;
    if (this.done >= this.#enough) this.#reached();
  }
}

async function writeAt(path: string, bytes: Buffer, at: number): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.write(bytes, 0, bytes.length, at);
  } finally {
    await file.close();
  }
}
