/** The HTTP transport under everything in src/blob: undici, in the two shapes that the Azure packages want. */
import { Agent } from 'undici';
import { AbortError } from '@azure/abort-controller';
import { createHttpHeaders, RestError } from '@azure/core-rest-pipeline';
import type { HttpClient, PipelineRequest, PipelineResponse } from '@azure/core-rest-pipeline';
import type { StoragePipelineOptions } from '@azure/storage-blob';
import type { Outage } from './outage.js';

/** undici's codes in the words that storageRetryPolicy knows to retry. */
const retriableCode: Readonly<Record<string, string>> = {
  UND_ERR_SOCKET: 'ECONNRESET',
  UND_ERR_CLOSED: 'ECONNRESET',
  UND_ERR_CONNECT_TIMEOUT: 'ETIMEDOUT',
  UND_ERR_HEADERS_TIMEOUT: 'ETIMEDOUT',
  UND_ERR_BODY_TIMEOUT: 'ETIMEDOUT',
};

/** More than an auto-import looks up at a time (128), so that everybody else finds one that is free. */
const defaultConnections = 192;

/** Slower than this and an upload counts as stalled: the answer's time limit grows with the body by it. */
const slowestUploadBytesPerMs = 64;

export interface UndiciClientOptions {
  /** Milliseconds without a byte after which a request counts as stalled. */
  readonly stallMs: number;
  readonly connections?: number;
  /** Hears of every request. */
  readonly outage?: Outage;
}

/** What undici's response bodies have beyond a Readable. */
export type UndiciBody = NodeJS.ReadableStream &
  AsyncIterable<Buffer> & {
    arrayBuffer(): Promise<ArrayBuffer>;
    dump(options?: { limit: number }): Promise<void>;
    destroy(error?: Error): unknown;
  };

export class UndiciClient implements HttpClient {
  readonly #agent: Agent;
  readonly #stallMs: number;
  readonly #outage: Outage | undefined;

  constructor(options: UndiciClientOptions) {
    this.#outage = options.outage;
    this.#stallMs = options.stallMs;
    this.#agent = new Agent({
      connections: options.connections ?? defaultConnections,
      pipelining: 1,
      keepAliveTimeout: 30_000,
      bodyTimeout: options.stallMs,
      headersTimeout: options.stallMs,
      connect: { timeout: options.stallMs },
    });
  }

  async sendRequest(request: PipelineRequest): Promise<PipelineResponse> {
    const url = new URL(request.url);
    const body = typeof request.body === 'function' ? request.body() : request.body;
    const headers: Record<string, string> = {};
    for (const [name, value] of request.headers) headers[name] = value;
    const bodyBytes = Number(headers['content-length'] ?? 0);
    let answer: Awaited<ReturnType<Agent['request']>>;
    try {
      answer = await this.#agent.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: request.method,
        headers,
        body: (body ?? null) as Buffer | null,
        signal: request.abortSignal,
        headersTimeout: this.#stallMs + Math.ceil(bodyBytes / slowestUploadBytesPerMs),
        bodyTimeout: this.#stallMs,
        // undici closes the connection behind a HEAD, for servers that answer it with a body: the blob service does not.
        ...(request.method === 'HEAD' && { reset: false }),
      });
    } catch (error) {
      throw this.#failed(error, request);
    }
    this.#outage?.answered(answer.statusCode);
    const response: PipelineResponse = {
      request,
      status: answer.statusCode,
      headers: createHttpHeaders(answer.headers as Record<string, string>),
    };
    if (request.method === 'HEAD') {
      answer.body.resume();
      return response;
    }
    const streamed = request.streamResponseStatusCodes;
    if (streamed?.has(Number.POSITIVE_INFINITY) === true || streamed?.has(answer.statusCode) === true) {
      // A body that is never read must not end the process with an unhandled 'error' event.
      answer.body.on('error', () => undefined);
      response.readableStreamBody = answer.body;
      return response;
    }
    try {
      response.bodyAsText = await answer.body.text();
    } catch (error) {
      throw this.#failed(error, request);
    }
    return response;
  }

  #failed(error: unknown, request: PipelineRequest): Error {
    const failure = transportError(error, request);
    if (failure instanceof RestError) this.#outage?.failed(failure.message);
    return failure;
  }

  /** Ends idle connections and those in use. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

function transportError(error: unknown, request: PipelineRequest): Error {
  const known = error as { name?: string; code?: string; message?: string };
  // AbortSignal.timeout() rejects with TimeoutError, which the retry policy would repeat: whatever happens after
  // our own signal fired is an abort.
  if (request.abortSignal?.aborted === true || known.name === 'AbortError') {
    return new AbortError('The operation was aborted.');
  }
  const code = retriableCode[known.code ?? ''] ?? known.code ?? RestError.REQUEST_SEND_ERROR;
  return new RestError(known.message ?? 'the request failed', { code, request });
}

type CompatClient = NonNullable<StoragePipelineOptions['httpClient']>;
type CompatRequest = Parameters<CompatClient['sendRequest']>[0];
type CompatResponse = Awaited<ReturnType<CompatClient['sendRequest']>>;

/** The same client in the older shape that `StoragePipelineOptions.httpClient` takes. */
export function asStorageHttpClient(client: UndiciClient): CompatClient {
  return {
    async sendRequest(web: CompatRequest): Promise<CompatResponse> {
      const raw: Record<string, string> = {};
      for (const header of web.headers.headersArray()) raw[header.name] = header.value;
      const request = { ...web, url: web.url, method: web.method, headers: createHttpHeaders(raw) };
      const response = await client.sendRequest(request);
      const Headers = web.headers.constructor as new (
        raw: Record<string, string>,
      ) => CompatResponse['headers'];
      return {
        request: web,
        status: response.status,
        headers: new Headers(response.headers.toJSON({ preserveCase: true })),
        ...(response.readableStreamBody && { readableStreamBody: response.readableStreamBody }),
        ...(response.bodyAsText !== undefined && { bodyAsText: response.bodyAsText }),
      };
    },
  };
}
