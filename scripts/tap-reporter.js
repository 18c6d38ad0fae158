// tap streams its TAP through this: a line a test file, then what failed, then `N passed, N failed[, N skipped]`
// as the very last line. It only counts and prints; the exit code stays tap's.
import { Transform } from 'node:stream';
import { Parser } from 'tap-parser';

/**
 * @typedef {import('tap-parser').Result} Result
 * @typedef {{ readonly name: string, readonly diag: Readonly<Record<string, unknown>> }} Failure
 */

export default class ClosingLine extends Transform {
  #parser = new Parser();
  #passed = 0;
  #skipped = 0;
  /** @type {Failure[]} */
  #failures = [];
  /** What has been counted since the last finished file. */
  #file = { passed: 0, failed: 0, skipped: 0 };

  constructor() {
    super({ encoding: 'utf8' });
    this.#watch(this.#parser, 0);
    this.#parser.on('bailout', (/** @type {string} */ reason) => {
      this.#fail({ name: `Bail out! ${reason}`, diag: {} });
    });
  }

  /**
   * @param {Parser} parser
   * @param {number} depth 0: its test points are whole test files
   */
  #watch(parser, depth) {
    parser.on('child', (/** @type {Parser} */ child) => {
      this.#watch(child, depth + 1);
    });
    parser.on('assert', (/** @type {Result} */ result) => {
      this.#count(result);
      if (depth === 0) this.#endFile(result);
    });
  }

  /** @param {Result} result */
  #count(result) {
    if (result.skip !== false || result.todo !== false) {
      this.#skipped++;
      this.#file.skipped++;
    } else if (result.ok) {
      // The last point of a subtest repeats what its leaves said.
      if (result.closingTestPoint) return;
      this.#passed++;
      this.#file.passed++;
    } else {
      // A subtest that failed with no failing leaf ended early: crashed, killed, timed out, wrong plan.
      const inside = `${result.fullname} > `;
      if (result.closingTestPoint && this.#failures.some(({ name }) => name.startsWith(inside))) return;
      /** @type {unknown} */
      const diag = result.diag ?? {};
      this.#fail({ name: result.fullname, diag: /** @type {Failure['diag']} */ (diag) });
    }
  }

  /** @param {Failure} failure */
  #fail(failure) {
    this.#failures.push(failure);
    this.#file.failed++;
  }

  /** @param {Result} result */
  #endFile(result) {
    const { passed, failed, skipped } = this.#file;
    const seconds = result.time === null ? '' : ` ${(result.time / 1000).toFixed(1)}s`;
    const counts = closing(passed, failed, skipped);
    this.push(`${result.ok ? 'ok    ' : 'FAILED'} ${result.name}: ${counts}${seconds}\n`);
    this.#file = { passed: 0, failed: 0, skipped: 0 };
  }

  /**
   * @override
   * @param {Buffer | string} chunk
   * @param {BufferEncoding} _encoding
   * @param {() => void} done
   */
  _transform(chunk, _encoding, done) {
    this.#parser.write(String(chunk));
    done();
  }

  /**
   * @override
   * @param {() => void} done
   */
  _flush(done) {
    this.#parser.end();
    for (const failure of this.#failures) this.push(describe(failure));
    this.push(`\n${closing(this.#passed, this.#failures.length, this.#skipped)}\n`);
    done();
  }
}

/** @type {(passed: number, failed: number, skipped: number) => string} */
function closing(passed, failed, skipped) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** @type {(failure: Failure) => string} */
function describe({ name, diag }) {
  const lines = ['', `FAILED ${name}`];
  const at = /** @type {{ fileName?: unknown, lineNumber?: unknown } | undefined} */ (diag['at']);
  if (at?.fileName !== undefined) lines.push(`  at ${print(at.fileName)}:${print(at.lineNumber)}`);
  if (diag['expired'] !== undefined) {
    lines.push(`  timed out: ${print(diag['expired'])}`);
  } else if (diag['command'] !== undefined) {
    const how = diag['signal'] === null ? `exit code ${print(diag['exitCode'])}` : print(diag['signal']);
    lines.push(`  the test file's process ended with ${how}`);
  }
  for (const [key, value] of Object.entries(diag)) {
    if (uninteresting.has(key)) continue;
    const text = print(value).trimEnd();
    if (text.includes('\n')) lines.push(`  ${key}:`, ...text.split('\n').map((line) => `    ${line}`));
    else lines.push(`  ${key}: ${text}`);
  }
  return `${lines.join('\n')}\n`;
}

/** @type {(value: unknown) => string} */
function print(value) {
  if (typeof value === 'string') return value;
  if (value === undefined) return 'nothing';
  return JSON.stringify(
    value,
    (key, /** @type {unknown} */ inner) => (uninteresting.has(key) ? undefined : inner),
    2,
  );
}

/** Said already, or of no help to a reader of a log. */
const uninteresting = new Set(
  'at source expired signal exitCode command args stdio cwd externalID jobId columnNumber typeName'.split(
    ' ',
  ),
);
