/**
 * Random local operations, random changes by other clients and random jobs, against a reference that knows what the seeds
 * say of each. Tree, states, counters and container are compared after every step; what fails is shrunk.
 */
import t from 'tap';
import { randomOp, type Op } from '../helpers/jobs-operations.js';
import { Reference } from '../helpers/jobs-reference.js';
import { JobsUnderTest } from '../helpers/jobs-under-test.js';
import { Dice } from '../helpers/tree.js';

function sorted(value: unknown): string {
  const plain = (_: string, one: unknown): unknown =>
    typeof one === 'object' && one !== null && !Array.isArray(one)
      ? Object.fromEntries(Object.entries(one).sort(([x], [y]) => (x < y ? -1 : 1)))
      : one;
  return JSON.stringify(value, plain, 1);
}

/** What differs first, and where; undefined: nothing does. */
async function difference(ops: readonly Op[]): Promise<string | undefined> {
  await using real = await JobsUnderTest.start();
  const reference = new Reference();
  for (const [at, op] of ops.entries()) {
    if (reference.isUndecided(op)) continue;
    const before = reference.snapshot();
    const [counts, expected] = [await real.apply(op), reference.apply(op)];
    reference.learnTimes((path) => real.timeOf(path));
    const picture = real.picture();
    if (op.op === 'interrupted')
      reference.adoptDirectories(before, picture.blobs, (path) => real.timeOf(path));
    // An export that failed has done all that it could.
    if (expected?.['state'] === 'Failed' && op.op !== 'export') reference.adopt(picture.entries);
    const seen = sorted({ ...picture, counts });
    const wanted = sorted({ ...reference.picture(), counts: expected });
    if (seen !== wanted) return `after step ${at + 1} (${op.op})\n${lines(wanted, seen)}`;
  }
  return undefined;
}

function lines(wanted: string, seen: string): string {
  const [want, see] = [wanted.split('\n'), seen.split('\n')];
  const only = (these: readonly string[], those: readonly string[], sign: string): readonly string[] =>
    these.filter((line) => !those.includes(line)).map((line) => sign + line);
  return [...only(want, see, '-'), ...only(see, want, '+')].join('\n');
}

/** As few of the steps as still fail. */
async function shrunk(ops: readonly Op[]): Promise<readonly Op[]> {
  let few = [...ops];
  for (let at = few.length - 1; at >= 0; at--) {
    const fewer = few.filter((_, index) => index !== at);
    if ((await difference(fewer)) !== undefined) few = fewer;
  }
  return few;
}

const runs = Number(process.env['MODEL_RUNS'] ?? '16');
const steps = 25;

await t.test(
  'whatever happens, tree, states, counters and container are what the reference says',
  async (t) => {
    for (let run = 0; run < runs; run++) {
      const seed = process.env['MODEL_SEED'];
      const dice = new Dice(seed === undefined ? undefined : Number(seed));
      const ops = Array.from({ length: steps }, (_, serial) => randomOp(dice, serial));
      if ((await difference(ops)) === undefined) continue;
      const few = await shrunk(ops);
      t.fail(
        `seed ${dice.seed}: ${JSON.stringify(few)}\n${(await difference(few)) ?? 'it does not fail again'}`,
      );
      return;
    }
    t.pass(`${runs} runs of ${steps} steps`);
  },
);
