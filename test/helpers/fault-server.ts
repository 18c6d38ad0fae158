/** A proxy in front of Azurite that fails on demand and counts what passes. Signatures do not cover host and port. */
import http from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export type Fault =
  /** An answer of our own instead of Azurite's. */
  | { readonly kind: 'status'; readonly status: number; readonly code?: string; readonly message?: string }
  /** The connection ends after so many bytes of the body. */
  | { readonly kind: 'cut'; readonly after: number }
  /** The body stops after so many bytes and the connection stays. */
  | { readonly kind: 'stall'; readonly after: number }
  /** No answer at all, the connection stays. */
  | { readonly kind: 'hang' }
  /** The connection ends before an answer. */
  | { readonly kind: 'reset' }
  /** Azurite does what was asked, and the answer is lost. */
  | { readonly kind: 'lose-answer' }
  /** Headers of the answer replaced, removed where undefined. */
  | { readonly kind: 'headers'; readonly headers: Readonly<Record<string, string | undefined>> }
  /** The status of Azurite's answer replaced, its headers and body kept. */
  | { readonly kind: 'as-status'; readonly status: number }
  /** The body replaced by one of another length, correctly announced. */
  | { readonly kind: 'body'; readonly body: Buffer }
  /** One byte of the body flipped. */
  | { readonly kind: 'flip'; readonly at: number }
  /** A listing comes in pages of so many names; only with a SAS, whose signature does not cover what is asked. */
  | { readonly kind: 'small-pages'; readonly names: number }
  /** The request waits until `until` resolves. */
  | { readonly kind: 'hold'; readonly until: Promise<unknown> };

export interface Match {
  readonly method?: string;
  /** The blob's name without its container, decoded; '' for requests to the container. */
  readonly blob?: string | RegExp;
  /** Part of the query, e.g. `comp=block`. */
  readonly query?: string;
  /** How often; for ever by default. */
  readonly times?: number;
  /** Matching requests that pass first. */
  readonly skip?: number;
}

export interface Logged {
  readonly method: string;
  readonly container: string;
  readonly blob: string;
  readonly query: string;
  readonly headers: http.IncomingHttpHeaders;
  /** Of the answer; absent while it has not come. */
  status?: number;
  fault?: Fault['kind'];
  /** Bytes of the answer's body that were passed on. */
  bytes: number;
}

interface Rule extends Match {
  readonly fault: Fault;
  left: number;
  toSkip: number;
}

export class FaultServer implements AsyncDisposable {
  /** Every request since the start or the last `clearLog()`. */
  readonly log: Logged[] = [];
  readonly #upstream: URL;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #agent = new http.Agent({ keepAlive: true });
  #rules: Rule[] = [];
  #port = 0;

  private constructor(upstream: string) {
    this.#upstream = new URL(upstream);
    this.#server = http.createServer((request, response) => {
      this.#serve(request, response);
    });
    this.#server.keepAliveTimeout = 600_000;
    this.#server.requestTimeout = 0;
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  /** `upstream`: an Azurite's `url`. */
  static async start(upstream: string): Promise<FaultServer> {
    const server = new FaultServer(upstream);
    await server.up();
    return server;
  }

  /** To be used in place of the upstream's url. */
  get url(): string {
    return `http://127.0.0.1:${String(this.#port)}${this.#upstream.pathname}`;
  }

  /** Requests that match get `fault`; the rule added first wins. */
  inject(match: Match, fault: Fault): void {
    this.#rules.push({
      ...match,
      fault,
      left: match.times ?? Number.POSITIVE_INFINITY,
      toSkip: match.skip ?? 0,
    });
  }

  /** No more faults. */
  clear(): void {
    this.#rules = [];
  }

  clearLog(): void {
    this.log.length = 0;
  }

  /** Requests that match, from the log. */
  requests(match: Pick<Match, 'method' | 'blob' | 'query'>): readonly Logged[] {
    return this.log.filter((entry) => matches(match, entry));
  }

  count(match: Pick<Match, 'method' | 'blob' | 'query'>): number {
    return this.requests(match).length;
  }

  /** Refuses connections and ends those there are. */
  async down(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Listens, after `down()` on the same port again. */
  async up(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#port, '127.0.0.1', () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    if (this.#server.listening) await this.down();
  }

  #fault(entry: Logged): Fault | undefined {
    for (const rule of this.#rules) {
      if (rule.left <= 0 || !matches(rule, entry)) continue;
      if (rule.toSkip > 0) {
        rule.toSkip--;
        continue;
      }
      rule.left--;
      return rule.fault;
    }
    return undefined;
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', this.#upstream.origin);
    // The first segment is the account.
    const [, , container = '', ...rest] = url.pathname.split('/').map(decodeURIComponent);
    const entry: Logged = {
      method: request.method ?? '',
      container,
      blob: rest.join('/'),
      query: url.search.slice(1),
      headers: request.headers,
      bytes: 0,
    };
    this.log.push(entry);
    const fault = this.#fault(entry);
    if (fault) entry.fault = fault.kind;
    switch (fault?.kind) {
      case 'status': {
        entry.status = fault.status;
        const code = fault.code ?? '';
        const body = `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>${fault.message ?? 'injected'}</Message></Error>`;
        request.resume();
        request.once('end', () => {
          response.writeHead(fault.status, { 'x-ms-error-code': code, 'content-type': 'application/xml' });
          response.end(request.method === 'HEAD' ? undefined : body);
        });
        return;
      }
      case 'hang':
        request.resume();
        return;
      case 'reset':
        request.socket.destroy();
        return;
      case 'hold':
        void fault.until.then(() => {
          this.#forward(request, response, entry, undefined);
        });
        return;
      case 'small-pages':
        request.url = request.url?.replace(/maxresults=\d+/, `maxresults=${String(fault.names)}`) ?? '/';
        this.#forward(request, response, entry, undefined);
        return;
      default:
        this.#forward(request, response, entry, fault);
    }
  }

  #forward(
    request: IncomingMessage,
    response: ServerResponse,
    entry: Logged,
    fault: Fault | undefined,
  ): void {
    const onward = http.request(
      {
        host: this.#upstream.hostname,
        port: this.#upstream.port,
        method: request.method,
        path: request.url,
        headers: { ...request.headers, host: this.#upstream.host },
        agent: this.#agent,
      },
      (answer) => {
        entry.status = answer.statusCode ?? 0;
        this.#answer(answer, response, entry, fault);
      },
    );
    onward.on('error', () => {
      response.destroy();
    });
    response.on('close', () => {
      if (!response.writableFinished) onward.destroy();
    });
    request.pipe(onward);
  }

  #answer(answer: IncomingMessage, response: ServerResponse, entry: Logged, fault: Fault | undefined): void {
    if (fault?.kind === 'lose-answer') {
      answer.resume();
      answer.once('end', () => {
        response.destroy();
      });
      return;
    }
    const headers: http.OutgoingHttpHeaders = { ...answer.headers };
    if (fault?.kind === 'headers') {
      for (const [name, value] of Object.entries(fault.headers)) {
        if (value === undefined) Reflect.deleteProperty(headers, name);
        else headers[name] = value;
      }
    }
    if (fault?.kind === 'body') {
      answer.resume();
      Reflect.deleteProperty(headers, 'transfer-encoding');
      response.writeHead(entry.status ?? 200, { ...headers, 'content-length': fault.body.length });
      response.end(fault.body);
      return;
    }
    response.writeHead(fault?.kind === 'as-status' ? fault.status : (entry.status ?? 200), headers);
    if (fault?.kind !== 'cut' && fault?.kind !== 'stall' && fault?.kind !== 'flip') {
      answer.on('data', (chunk: Buffer) => {
        entry.bytes += chunk.length;
      });
      answer.on('error', () => response.destroy());
      answer.pipe(response);
      return;
    }
    if (fault.kind !== 'flip' && fault.after === 0) response.flushHeaders();
    answer.on('data', (chunk: Buffer) => {
      if (fault.kind === 'flip') {
        const at = fault.at - entry.bytes;
        entry.bytes += chunk.length;
        if (at >= 0 && at < chunk.length) chunk[at] = (chunk[at] ?? 0) ^ 0xff;
        response.write(chunk);
        return;
      }
      const room = fault.after - entry.bytes;
      const passed = chunk.subarray(0, Math.max(room, 0));
      entry.bytes += passed.length;
      if (passed.length > 0) response.write(passed);
      if (room > chunk.length) return;
      answer.destroy();
      // Ended after what was written has left, not reset before it.
      if (fault.kind === 'cut') response.socket?.end();
    });
    answer.on('end', () => {
      response.end();
    });
    answer.on('error', () => undefined);
  }
}

function matches(match: Pick<Match, 'method' | 'blob' | 'query'>, entry: Logged): boolean {
  if (match.method !== undefined && match.method !== entry.method) return false;
  if (match.query !== undefined && !entry.query.includes(match.query)) return false;
  if (match.blob === undefined) return true;
  return typeof match.blob === 'string' ? match.blob === entry.blob : match.blob.test(entry.blob);
}
