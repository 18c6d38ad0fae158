/** What outlives its daemon, or dies beside it: a mapping of an application, a transfer thread. */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import t, { type Test } from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { content, CrashLab } from '../helpers/crash-lab.js';
import { FaultServer } from '../helpers/fault-server.js';
import { lfs, states } from '../helpers/lfs.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';

/** Maps a file, then stores a byte at an offset for every line `OFFSET BYTE`, answering each; ends with its input. */
const mapper = `
import mmap, sys
with open(sys.argv[1], 'r+b') as file: memory = mmap.mmap(file.fileno(), 0)
print('mapped', flush=True)
for line in sys.stdin:
    at, byte = map(int, line.split())
    memory[at] = byte
    print('stored', at, flush=True)
`;

class Mapping {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #ended: Promise<unknown>;
  #said = '';

  constructor(path: string) {
    this.#child = spawn('python3', ['-c', mapper, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout.on('data', (part: Buffer) => (this.#said += part.toString()));
    this.#ended = once(this.#child, 'close');
  }

  async mapped(): Promise<void> {
    await until(() => this.#said.includes('mapped'), { what: 'a file to be mapped' });
  }

  /** Stores a byte; the application has gone on when it resolves. */
  async store(at: number, byte: number): Promise<void> {
    this.#child.stdin.write(`${at} ${byte}\n`);
    await until(() => this.#said.includes(`stored ${at}\n`), { what: `a store at ${at}` });
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#ended;
  }
}

t.test(
  'an application goes on storing through a mapping when the daemon is dead',
  { skip: cannotMount },
  async (t) => {
    const azurite = await Azurite.start();
    t.teardown(() => azurite[Symbol.asyncDispose]());
    // Stores: before the daemon dies, while there is none, under the next one.
    const rows = [
      ['before, between and under the next', true, true],
      ['between', false, true],
      ['under the next daemon only', false, false],
    ] as const;
    const blobs = Object.fromEntries(rows.map(([name]) => [name, content(name)]));
    await using lab = await CrashLab.start(t, azurite, { blobs });
    if ((await lab.mount.status())?.passthrough !== true) {
      t.pass('without passthrough a mapping dies with its daemon', { skip: 'no FUSE passthrough here' });
      return;
    }
    for (const [name, before, between] of rows) {
      await t.test(`rule 1: stores ${name}`, async (t) => {
        await lab.restore(name);
        const bytes = Buffer.from(lab.sure(name));
        const mapping = new Mapping(lab.at(name));
        t.teardown(() => mapping.end());
        const store = async (at: number): Promise<void> => {
          const byte = (bytes[at] ?? 0) ^ 0xff;
          await mapping.store(at, byte);
          bytes[at] = byte;
          lab.expect(name, Buffer.from(bytes));
        };
        await mapping.mapped();
        if (before) await store(1);
        await lab.mount.kill();
        if (between) await store(2);
        await lab.revive();
        if (between) await isDirty(t, lab, name, 'under the next daemon');
        else t.not((await lfs(['hsm_release', lab.at(name)])).code, 0, 'a mapped file is not released');
        // Into a page that was written already, and into another one.
        await store(3);
        await isDirty(t, lab, name, 'after a store under the next daemon');
        await store(100_000);
        await isDirty(t, lab, name, 'after one more');
        t.ok((await readFile(lab.at(name))).equals(bytes), 'all stores are seen');
        await mapping.end();
        await isDirty(t, lab, name, 'when the application has ended');
        await lab.check(t, name);
      });
    }
  },
);

async function isDirty(t: Test, lab: CrashLab, path: string, when: string): Promise<void> {
  t.equal(await lab.flag(path), states.dirty, `dirty ${when}`);
  t.not((await lfs(['hsm_release', lab.at(path)])).code, 0, `and not released ${when}`);
}

/** Loaded into every thread of a daemon: a transfer thread dies when the file of this name appears. */
const assassin = `
import { isMainThread } from 'node:worker_threads';
import { existsSync, renameSync } from 'node:fs';
const victim = process.env.TEST_KILL_THREAD;
if (!isMainThread && victim !== undefined) {
  setInterval(() => {
    if (!existsSync(victim)) return;
    try { renameSync(victim, victim + '.done'); } catch { return; }
    throw new Error('a transfer thread dies');
  }, 10).unref();
}`;

t.test('a transfer thread that dies', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start();
  const faults = await FaultServer.start(azurite.url);
  const folder = await mkdtemp(join(tmpdir(), 'lustrite-thread-'));
  t.teardown(async () => {
    await faults[Symbol.asyncDispose]();
    await azurite[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });
  const program = join(folder, 'assassin.mjs');
  await writeFile(program, assassin);
  const victim = join(folder, 'victim');
  await using lab = await CrashLab.start(t, azurite, {
    blobs: { stub: content('stub'), dirty: content('dirty') },
    env: {
      AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(faults.url),
      LUSTRITE_TRANSFER_WORKERS: '1',
      NODE_OPTIONS: `--import=${program}`,
      TEST_KILL_THREAD: victim,
    },
  });
  const killThread = async (): Promise<void> => {
    await writeFile(victim, '');
    await until(() => existsSync(`${victim}.done`), { what: 'a transfer thread to die' });
    await rm(`${victim}.done`);
  };

  await t.test('its reader gets ENODATA, the file stays a stub, the next read restores it', async (t) => {
    faults.inject({ method: 'GET', blob: 'stub' }, { kind: 'stall', after: 1000 });
    faults.clearLog();
    const reading = readFile(lab.at('stub')).then(
      () => 'read',
      (error: unknown) => (error as NodeJS.ErrnoException).code,
    );
    await until(() => faults.requests({ method: 'GET', blob: 'stub' }).some(({ bytes }) => bytes >= 1000), {
      what: 'a download that has begun',
    });
    await killThread();
    t.equal(await reading, 'ENODATA');
    faults.clear();
    t.equal(await lab.flag('stub'), states.stub);
    await until(() => lab.restore('stub').then(() => true), { what: 'a read that works' });
    t.equal(await lab.flag('stub'), states.clean);
  });

  await t.test(
    'a file that was being uploaded stays dirty, its blob is the old one, the next export takes it',
    async (t) => {
      const old = lab.sure('dirty');
      const next = content('another dirty');
      await lab.change('dirty', next, () => writeFile(lab.at('dirty'), next));
      let go: () => void = () => undefined;
      const gate = new Promise<void>((resolve) => (go = resolve));
      faults.inject({ method: 'PUT', blob: 'dirty', query: 'comp=block' }, { kind: 'hold', until: gate });
      faults.clearLog();
      const { name } = (await lab.mount.control('POST', '/v1/jobs/export', {})) as { name: string };
      await until(() => faults.count({ method: 'PUT', blob: 'dirty' }) > 0, {
        what: 'an upload that has begun',
      });
      await killThread();
      await until(async () => (await lab.mount.status())?.runningJob === null, { what: 'the export to end' });
      go();
      faults.clear();
      t.match(
        (await lab.jobs()).find((job) => job.name === name)?.properties.status,
        { totalFilesFailed: 1, totalFilesExported: 0 },
        'the export says so',
      );
      t.equal(await lab.flag('dirty'), states.dirty);
      t.ok((await lab.blob('dirty'))?.equals(old), 'the old blob');
      await lab.check(t, '');
    },
  );
});
