import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { FsError } from '../../src/base/errors.js';
import { environment } from './run.js';

/** Whoever takes longer hangs. */
const patienceMs = 60_000;

const interpreter = `
import ctypes, json, mmap, os, sys, threading
scope = {'ctypes': ctypes, 'mmap': mmap, 'os': os, 'threading': threading}
def text(value):
    return value.decode('latin1') if isinstance(value, bytes) else repr(value)
for line in sys.stdin:
    code, scope['args'] = json.loads(line)
    try:
        try:
            program = compile(code, 'test', 'eval')
        except SyntaxError:
            program = compile(code, 'test', 'exec')
        answer = {'value': eval(program, scope)}
    except OSError as error:
        answer = {'errno': error.errno, 'message': str(error)}
    except BaseException as error:
        answer = {'message': repr(error)}
    print(json.dumps(answer, default=text), flush=True)
`;

interface Answer {
  readonly value?: unknown;
  readonly errno?: number;
  readonly message?: string;
}

/**
 * A process of its own that uses files as an application does, step by step: Python, since Node has no mmap. Handles
 * and mappings stay until the next step or the end of the process.
 */
export class Application implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #waiting: ((answer: Answer) => void)[] = [];

  constructor() {
    this.child = spawn('python3', ['-c', interpreter], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: environment(),
    });
    this.child.stdin?.on('error', () => undefined);
    this.#ended = once(this.child, 'exit').then(([code, signal]) => {
      const message = `the application ended (${String(signal ?? code)})`;
      for (const answer of this.#waiting.splice(0)) answer({ message });
    });
    if (this.child.stdout === null) throw new Error('no stdout');
    createInterface(this.child.stdout).on('line', (line) =>
      this.#waiting.shift()?.(JSON.parse(line) as Answer),
    );
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('no python3');
    return this.child.pid;
  }

  /**
   * The value of a Python expression, or undefined after statements; `args` is the list of that name there. Steps
   * are done in order. Rejects with an FsError for an OSError, and when nothing was answered for a minute.
   */
  async do(code: string, ...args: readonly unknown[]): Promise<unknown> {
    const answer = new Promise<Answer>((resolve) => this.#waiting.push(resolve));
    this.child.stdin?.write(`${JSON.stringify([code, args])}\n`);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<Answer>((resolve) => {
      timer = setTimeout(resolve, patienceMs, { message: `blocked for ${patienceMs / 1000} s in ${code}` });
    });
    const { value, errno, message } = await Promise.race([answer, late]);
    clearTimeout(timer);
    if (errno !== undefined) throw new FsError(errno, message ?? code);
    if (message !== undefined) throw new Error(message);
    return value ?? undefined;
  }

  /** Resolves when it is gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<NodeJS.Signals | null> {
    this.child.kill(signal);
    await this.ended();
    return this.child.signalCode;
  }

  async ended(): Promise<void> {
    await this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
