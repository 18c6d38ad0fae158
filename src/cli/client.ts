/** The control API's client. */
import { request, type IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import type { ErrorEnvelope, JobView } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import type { RegisteredMount } from '../base/registry.js';
import { socketAddress } from '../base/unix-socket.js';

/** Walks of a big namespace take their time; a daemon that hangs is noticed all the same. */
const answerWithinMs = 600_000;

export class DaemonClient {
  readonly #mount: RegisteredMount;

  constructor(mount: RegisteredMount) {
    this.#mount = mount;
  }

  async get<T>(path: string): Promise<T> {
    return JSON.parse(await body(await this.#send('GET', path))) as T;
  }

  /** Throws a UserError with the daemon's own code and message when it refuses. */
  async post<T>(path: string, content: unknown = {}): Promise<T> {
    return JSON.parse(await body(await this.#send('POST', path, content))) as T;
  }

  /** As `post`. */
  async put<T>(path: string, content: unknown): Promise<T> {
    return JSON.parse(await body(await this.#send('PUT', path, content))) as T;
  }

  /** The job now and after every change, until it is final, `signal` is aborted, or the daemon ends. */
  watch(job: string, signal: AbortSignal): AsyncGenerator<JobView> {
    return this.#follow('GET', `/v1/jobs/${encodeURIComponent(job)}/watch`, undefined, signal);
  }

  /** What a request has come to, until it is over; as `watch`. Whoever stops listening stops it. */
  follow<T>(path: string, content: unknown, signal: AbortSignal): AsyncGenerator<T> {
    return this.#follow('POST', path, content, signal);
  }

  async *#follow<T>(method: string, path: string, content: unknown, signal: AbortSignal): AsyncGenerator<T> {
    const response = await this.#send(method, path, content, signal);
    const lines = createInterface({ input: response });
    try {
      for await (const line of lines) {
        if (line !== '') yield JSON.parse(line) as T;
      }
    } catch (error) {
      // The daemon has gone: the end, without a final state.
      if (signal.aborted || (error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
    } finally {
      lines.close();
      response.destroy();
    }
  }

  async delete(path: string): Promise<void> {
    await body(await this.#send('DELETE', path));
  }

  async #send(
    method: string,
    path: string,
    content?: unknown,
    signal?: AbortSignal,
  ): Promise<IncomingMessage> {
    const { mountPoint, pid, socket } = this.#mount;
    let response: IncomingMessage;
    const address = socketAddress(socket);
    try {
      response = await new Promise<IncomingMessage>((resolve, reject) => {
        const text = content === undefined ? undefined : JSON.stringify(content);
        const sent = request(
          {
            socketPath: address.path,
            method,
            path,
            agent: false,
            headers: text === undefined ? {} : { 'content-type': 'application/json' },
            ...(signal !== undefined && { signal }),
          },
          resolve,
        );
        if (signal === undefined) {
          sent.setTimeout(answerWithinMs, () => sent.destroy(new Error('no answer within 10 minutes')));
        }
        sent.on('error', reject);
        sent.end(text);
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw new UserError(
        'Unreachable',
        `the daemon of ${mountPoint} (pid ${pid}) does not answer on ${socket}: ${messageChain(error)}`,
      );
    } finally {
      address.close();
    }
    const status = response.statusCode ?? 500;
    if (status < 400) return response;
    const { error } = JSON.parse(await body(response)) as ErrorEnvelope;
    throw new UserError(error.code, error.message, { status });
  }
}

async function body(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
