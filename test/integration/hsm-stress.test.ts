/** Many readers, releases, renames, unlinks, signals and cancels at once: nothing hangs, no byte is wrong, nothing is left over. */
import { readFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { StatusReport } from '../../src/base/control-api.js';
import { FsError } from '../../src/base/errors.js';
import { Application } from '../helpers/application.js';
import { AutoImport } from '../helpers/auto-import.js';
import { content } from '../helpers/fsx.js';
import { gaugesOf, openInStore } from '../helpers/gauges.js';
import { lfs } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { Dice } from '../helpers/tree.js';

const stubs = Array.from({ length: 500 }, (_, index) => `stubs/${index}`);
const readers = 64;
const sizeOf = (name: string): number => 1000 + 37 * Number(name.slice(name.indexOf('/') + 1));
const blobs = Object.fromEntries(stubs.map((name) => [name, content(name, sizeOf(name))]));
/** EPERM never; ENOENT and ENODEV: the name has just gone. */
const answers: readonly (number | null)[] = [0, 2, 16, 19];
/** Of one command. */
const most = 50;
/** Whatever `lustrite status --json` counts that is no total; files that the daemon has open, and its leases. */
const zeros = {
  held: 0,
  jobs: 0,
  ...zero('counters', ['handles', 'listings', 'questions', 'queued']),
  'hsm.durable': 0,
  ...zero('hsm.running', ['implicit', 'explicit', 'bytes']),
  ...zero('hsm.waiting', ['implicit', 'restore', 'archive', 'remove']),
  leases: 0,
  files: 0,
};

/** Threads that read stubs, each name in an order of its own; what is not as it must be is in `wrong`. */
const reading = `
import errno, hashlib, random
threading.stack_size(262144)
wrong, counts, gone = [], [], set()
def check(root, name, fd):
    number = int(name.split('/')[1])
    want = hashlib.shake_128(name.encode()).digest(1000 + 37 * number)
    data = b''
    while part := os.read(fd, 1 << 20):
        data += part
    if data != want:
        wrong.append(f'{name}: {len(data)} bytes of {len(want)}')
def reader(root, seed, rounds):
    dice = random.Random(seed)
    done = 0
    for i in range(rounds):
        name = f'stubs/{dice.randrange(500)}'
        try:
            fd = os.open(f'{root}/{name}', os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            check(root, name, fd)
            done += 1
        except OSError as error:
            wrong.append(f'{name}: {error}')
        os.close(fd)
    counts.append(done)
`;

/** Threads that read files of which another client and jobs replace the one body by the other: each letter has its size. */
const turning = `
over, seen = False, {}
def follow(root, names, sizes, seed):
    dice = random.Random(seed)
    while not over:
        name = dice.choice(names)
        fd = os.open(f'{root}/{name}', os.O_RDONLY)
        try:
            before, data = os.fstat(fd).st_size, b''
            while part := os.read(fd, 1 << 20):
                data += part
            letter, after = data[:1].decode(), os.fstat(fd).st_size
            said = f'{name}: {len(data)} bytes {letter!r} under the size {before}, then {after}'
            if data != letter.encode() * sizes.get(letter, -1):
                wrong.append('torn: ' + said)
            elif after != len(data) or before not in sizes.values():
                wrong.append('another size: ' + said)
            seen[letter] = seen.get(letter, 0) + 1
        except OSError as error:
            if error.errno != errno.ENODATA:
                wrong.append(f'{name}: {error}')
            seen['refused'] = seen.get('refused', 0) + 1
        os.close(fd)
`;

t.test('64 readers on 500 stubs', { skip: cannotMount }, async (t) => {
  const dice = new Dice();
  t.comment(`seed ${dice.seed}`);
  const lab = await MountedContainer.start(t, blobs);
  const { mount, storage } = lab;
  const application = async (t: Test): Promise<Application> => {
    const made = new Application();
    t.teardown(() => made[Symbol.asyncDispose]());
    await made.do(reading);
    return made;
  };
  const release = async (names: readonly string[]): Promise<number | null> =>
    (await lfs(['hsm_release', ...names.map((name) => lab.at(name))])).code;
  let gauges: object = {};
  const isQuiet = async (): Promise<boolean> => {
    const status = await statusOf(lab);
    const { files, leases } = openInStore(status);
    const counts = { ...gaugesOf(status), leases, files: files.length };
    gauges = counts;
    return Object.values(counts).every((count) => count === 0);
  };
  const quiet = async (t: Test): Promise<void> => {
    await until(isQuiet, { what: 'all gauges to be back to zero' }).catch(() => undefined);
    t.same(gauges, zeros, 'all gauges are back to zero');
  };

  await t.test('releases, renames and unlinks race with them', async (t) => {
    const [reads, mover] = [await application(t), await application(t)];
    const done = reads.do(
      `
threads = [threading.Thread(target=reader, args=(args[0], args[1] + i, 60)) for i in range(${readers})]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
`,
      mount.path,
      dice.seed,
    );
    const race = { over: false };
    const over = done.finally(() => {
      race.over = true;
    });
    const counts = { released: 0, renamed: 0 };
    const releasing = async (): Promise<void> => {
      while (!race.over) {
        const code = await release(Array.from({ length: 10 }, () => dice.pick(stubs)));
        if (code === 0) counts.released++;
        if (!answers.includes(code)) t.fail(`a release answers ${String(code)}`);
      }
    };
    const moving = async (): Promise<void> => {
      while (!race.over) {
        const name = dice.pick(stubs);
        await mover.do('os.rename(args[0], args[0] + ".away")', lab.at(name));
        await mover.do('os.rename(args[0] + ".away", args[0])', lab.at(name));
        counts.renamed++;
      }
    };
    const unlinking = async (): Promise<void> => {
      // A link of the file takes the name again: who has opened the name reads on.
      while (!race.over) {
        const name = stubs[499 - dice.below(20)] ?? '';
        await mover
          .do(
            'os.link(args[0], args[0] + ".link"); os.unlink(args[0]); os.rename(args[0] + ".link", args[0])',
            lab.at(name),
          )
          .catch((error: unknown) => {
            // Renamed at that moment.
            if (!(error instanceof FsError) || error.code !== 'ENOENT') throw error;
          });
      }
    };
    await Promise.all([over, releasing(), releasing(), moving(), unlinking()]);
    t.same(await reads.do('wrong'), [], 'every byte is right');
    t.ok(Number(await reads.do('sum(counts)')) > readers * 30, 'most reads found their name');
    t.comment(counts);
    await quiet(t);
  });

  await t.test('a file that is unlinked or renamed while it is restored is read to its end', async (t) => {
    const reads = await application(t);
    const names = stubs.slice(0, readers);
    await untilReleased(lab, names);
    const go = lab.hold({ method: 'GET', blob: /^stubs\// });
    await reads.do(
      `
fds = [os.open(f'{args[0]}/{name}', os.O_RDONLY) for name in args[1]]
threads = [threading.Thread(target=check, args=(args[0], name, fd)) for name, fd in zip(args[1], fds)]
[thread.start() for thread in threads]
`,
      mount.path,
      names,
    );
    await until(async () => (await heldRequests(lab)) >= readers, { what: 'every reader to be held' });
    const mover = await application(t);
    for (const [index, name] of names.entries()) {
      await mover.do(
        index % 2 === 0 ? 'os.unlink(args[0])' : 'os.rename(*args)',
        lab.at(name),
        ...(index % 2 === 0 ? [] : [lab.at(`moved-${index}`)]),
      );
    }
    go();
    await reads.do('[thread.join() for thread in threads] and None');
    t.same(await reads.do('wrong'), []);
    await reads.do('[os.close(fd) for fd in fds] and None');
    await quiet(t);
  });

  await t.test(
    'blocked readers are gone at once, though the storage never answers; all can be cancelled',
    async (t) => {
      const names = stubs.slice(100, 100 + readers);
      await untilReleased(lab, names);
      storage.clear();
      storage.inject({ method: 'GET', blob: /^stubs\// }, { kind: 'hang' });
      const signals = ['SIGKILL', 'SIGTERM', 'SIGINT'] as const;
      const parent = await application(t);
      const pids = (await parent
        .do(
          `
import signal
children = []
for name in args[1]:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            os.read(os.open(f'{args[0]}/{name}', os.O_RDONLY), 100)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    children.append(pid)
`,
          mount.path,
          names,
        )
        .then(() => parent.do('children'))) as readonly number[];
      await until(async () => (await heldRequests(lab)) >= readers, { what: 'every reader to be held' });
      const ended = new Map<number, number>();
      let slowestMs = 0;
      // Half of them by signals, one at a time: each is gone before the next one is told.
      for (const [index, pid] of pids.slice(0, readers / 2).entries()) {
        const signal = signals[index % signals.length] ?? 'SIGKILL';
        const at = performance.now();
        process.kill(pid, signal);
        ended.set(pid, Number(await parent.do('os.waitpid(args[0], 0)[1]', pid)));
        slowestMs = Math.max(slowestMs, performance.now() - at);
      }
      t.comment(`the slowest of ${ended.size} was gone after ${Math.round(slowestMs)} ms`);
      t.same(new Set(ended.values()), new Set([9, 15, 2]), 'by the signal itself');
      t.ok((await heldRequests(lab)) >= readers / 2, 'the others wait on');

      for (let at = 0; at < names.length; at += most) {
        const chunk = names.slice(at, at + most).map((name) => lab.at(name));
        t.equal((await lfs(['hsm_cancel', ...chunk])).code, 0);
      }
      const statuses = (await parent.do(
        '[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in args[0]]',
        pids.slice(readers / 2),
      )) as readonly number[];
      t.same(new Set(statuses), new Set([61]), 'a cancelled restore is ENODATA');
      await quiet(t);
      storage.clear();
      for (const name of names) {
        if (!content(name, sizeOf(name)).equals(await readFile(lab.at(name)))) t.fail(`${name} is wrong`);
      }
      await quiet(t);
      // What the daemon, or the kernel for it, had not closed could not be released.
      await untilReleased(lab, stubs.slice(readers));
    },
  );

  await t.test(
    'a read is one version of the blob whole, whatever imports and blob sync replace',
    async (t) => {
      const names = Array.from({ length: 12 }, (_, index) => `turning/${index}`);
      const sizes = { a: 5000, b: 150_001 };
      const prefix = 'turning/';
      const put = (round: number): Promise<void> => {
        const letter = round % 2 === 0 ? 'a' : 'b';
        return lab.upload(Object.fromEntries(names.map((name) => [name, letter.repeat(sizes[letter])])));
      };
      const importAll = {
        prefixes: [`/${prefix}`],
        conflictResolutionMode: 'OverwriteAlways',
        maximumErrors: -1,
      };
      await put(0);
      await mount.job('import', importAll);
      const reads = await application(t);
      await reads.do(turning);
      await reads.do(
        `
threads = [threading.Thread(target=follow, args=(*args[:3], args[3] + i)) for i in range(4)]
[thread.start() for thread in threads]
`,
        ...[mount.path, names, sizes, dice.seed],
      );
      for (let round = 1; round <= 6; round++) {
        await put(round);
        await mount.job('import', importAll);
      }
      const job = await AutoImport.enable(mount, { name: 'turning', prefix, mode: 'OverwriteAlways' });
      for (let round = 1; round <= 6; round++) {
        await put(round);
        await job.synced();
      }
      await reads.do('over = True');
      await reads.do('[thread.join() for thread in threads] and None');
      t.same(await reads.do('wrong'), [], 'no read was torn, or of a size that is not its own');
      const seen = (await reads.do('seen')) as Readonly<Record<string, number>>;
      t.comment(seen);
      t.ok((seen['a'] ?? 0) > 0 && (seen['b'] ?? 0) > 0, 'both bodies were read');
      await job.disable();
      await quiet(t);
    },
  );
});

function zero(group: string, names: readonly string[]): Readonly<Record<string, number>> {
  return Object.fromEntries(names.map((name) => [`${group}.${name}`, 0]));
}

/** Releases what is resident of these; whoever has read them last may still be closing. */
async function untilReleased(lab: MountedContainer, names: readonly string[]): Promise<void> {
  for (let at = 0; at < names.length; at += most) {
    const paths = names.slice(at, at + most).map((name) => lab.at(name));
    await until(async () => (await lfs(['hsm_release', ...paths])).code === 0, { what: 'a release' });
  }
}

async function statusOf({ mount }: MountedContainer): Promise<StatusReport> {
  const status = await mount.status();
  if (status === undefined) throw new Error('no status');
  return status;
}

async function heldRequests(lab: MountedContainer): Promise<number> {
  return (await statusOf(lab)).heldRequests;
}
