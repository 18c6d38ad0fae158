/**
 * One container as HTTP sees it: transport, the SDK's own retry and auth policies, URLs. Small and hot requests go
 * through `send`, which skips the SDK's operation layer (most of what a small GET costs); everything that the SDK
 * does well goes through `client`.
 */
import type { TokenCredential } from '@azure/core-auth';
import {
  bearerTokenAuthenticationPolicy,
  createEmptyPipeline,
  createHttpHeaders,
  createPipelineRequest,
  userAgentPolicy,
} from '@azure/core-rest-pipeline';
import type { HttpMethods, Pipeline, PipelineResponse } from '@azure/core-rest-pipeline';
import type { ContainerClient } from '@azure/storage-blob';
import { storageRetryPolicy, storageSharedKeyCredentialPolicy } from '@azure/storage-common';
import { BlobError } from '../base/errors.js';
import { kindOfStatus, toBlobError, withoutSecrets } from './azure-errors.js';
import { Deadline } from './deadline.js';
import { entraCredential } from './entra-credential.js';
import { encodeBlobName, unaddressable } from './names.js';
import { Outage } from './outage.js';
import type { ContainerConfig } from './port.js';
import { asStorageHttpClient, UndiciClient } from './undici-client.js';
import type { UndiciBody } from './undici-client.js';

/** The version that @azure/storage-blob 12.32 speaks; raw requests must not differ from it. */
export const serviceVersion = '2026-04-06';
const userAgent = 'lustrite/0.1';
const storageScope = 'https://storage.azure.com/.default';

const everyStatus = new Set([Number.POSITIVE_INFINITY]);

export interface RawRequest {
  readonly method: HttpMethods;
  /** Absent: the container itself. */
  readonly blob?: string | undefined;
  /** Already percent-encoded, without '?'. */
  readonly query?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Sent whole, and again when the retry policy repeats the request. */
  readonly body?: Buffer | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What the request is, for messages: "read of a/b". */
  readonly what: string;
}

export interface RawResponse {
  readonly status: number;
  header(name: string): string | undefined;
  readonly headers: PipelineResponse['headers'];
  /** Undefined for HEAD. */
  readonly body: UndiciBody | undefined;
}

export class BlobConnection implements AsyncDisposable {
  readonly config: ContainerConfig;
  readonly stallMs: number;
  readonly outage: Outage;
  readonly #transport: UndiciClient;
  readonly #retry: { maxTries: number; retryDelayInMs: number; maxRetryDelayInMs: number };
  #pipeline: Promise<Pipeline> | undefined;
  #client: Promise<ContainerClient> | undefined;
  #token: Promise<TokenCredential> | undefined;

  constructor(config: ContainerConfig, outage = new Outage()) {
    this.config = config;
    this.stallMs = config.stallMs ?? 30_000;
    this.#retry = {
      maxTries: config.retry?.maxTries ?? 5,
      retryDelayInMs: config.retry?.retryDelayInMs ?? 1000,
      maxRetryDelayInMs: config.retry?.maxRetryDelayInMs ?? 16_000,
    };
    this.outage = outage;
    this.#transport = new UndiciClient({ stallMs: this.stallMs, outage });
  }

  /** The longest that a call without a large body can take, all its tries included. */
  get callDeadlineMs(): number {
    const { maxTries, retryDelayInMs, maxRetryDelayInMs } = this.#retry;
    let delays = 0;
    for (let n = 1; n < maxTries; n++)
      delays += Math.min((2 ** (n - 1) - 1) * retryDelayInMs, maxRetryDelayInMs);
    return maxTries * (this.stallMs + 2000) + delays;
  }

  /** Sends one request, retried by the SDK's policy. Rejects with a BlobError for every status that is not 2xx. */
  async send(request: RawRequest): Promise<RawResponse> {
    const refused = request.blob === undefined ? undefined : unaddressable(request.blob);
    if (refused !== undefined) throw new BlobError('unsupported', `${request.what}: ${refused}`);
    let response: PipelineResponse;
    try {
      this.#pipeline ??= this.#openPipeline();
      response = await (
        await this.#pipeline
      ).sendRequest(
        this.#transport,
        createPipelineRequest({
          url: this.#url(request),
          method: request.method,
          headers: createHttpHeaders({ 'x-ms-version': serviceVersion, ...request.headers }),
          ...(request.body && { body: request.body }),
          ...(request.signal && { abortSignal: request.signal }),
          streamResponseStatusCodes: everyStatus,
          allowInsecureConnection: true,
        }),
      );
    } catch (error) {
      throw toBlobError(error, request.what, request.signal);
    }
    const body = response.readableStreamBody as UndiciBody | undefined;
    if (response.status < 200 || response.status > 299) throw await failure(response, body, request.what);
    return {
      status: response.status,
      header: (name) => response.headers.get(name),
      headers: response.headers,
      body,
    };
  }

  /** `send` with a deadline over request and body; resolves with the whole body of the answer. */
  async call(
    request: RawRequest,
    deadlineMs = this.callDeadlineMs,
  ): Promise<RawResponse & { readonly bytes: Buffer }> {
    using deadline = new Deadline(deadlineMs, request.signal);
    try {
      for (let tries = 1; ; tries++) {
        const response = await this.send({ ...request, signal: deadline.signal });
        try {
          const bytes = response.body ? Buffer.from(await response.body.arrayBuffer()) : Buffer.alloc(0);
          return { ...response, bytes };
        } catch (error) {
          // The answer broke off after its head. What a write says there is of no interest; a read is asked again.
          if (request.method !== 'GET') return { ...response, bytes: Buffer.alloc(0) };
          if (!deadline.signal.aborted) this.outage.failed(`${request.what}: the answer broke off`);
          if (tries >= this.#retry.maxTries || deadline.signal.aborted)
            throw toBlobError(error, request.what);
        }
      }
    } catch (error) {
      if (request.signal?.aborted === true) throw new BlobError('aborted', `${request.what}: cancelled`);
      if (deadline.signal.aborted) throw new BlobError('unreachable', `${request.what}: no answer in time`);
      throw error;
    }
  }

  /** The SDK's client of the container, on the same transport, retry and credential; loaded when first needed. */
  client(): Promise<ContainerClient> {
    this.#client ??= this.#openClient();
    return this.#client;
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #url(request: RawRequest): string {
    const { url, auth } = this.config;
    const path = request.blob === undefined ? url : `${url}/${encodeBlobName(request.blob)}`;
    const queries = [request.query, auth.kind === 'sas' ? auth.token : undefined].filter(
      (q) => q !== undefined,
    );
    return queries.length === 0 ? path : `${path}?${queries.join('&')}`;
  }

  async #openPipeline(): Promise<Pipeline> {
    const pipeline = createEmptyPipeline();
    pipeline.addPolicy(userAgentPolicy({ userAgentPrefix: userAgent }));
    pipeline.addPolicy(storageRetryPolicy(this.#retry), { phase: 'Retry' });
    const { auth, account } = this.config;
    switch (auth.kind) {
      case 'key':
        pipeline.addPolicy(
          storageSharedKeyCredentialPolicy({
            accountName: account,
            accountKey: Buffer.from(auth.accountKey, 'base64'),
          }),
          { phase: 'Sign' },
        );
        break;
      case 'entra': {
        this.#token ??= entraCredential();
        const credential = await this.#token;
        pipeline.addPolicy(bearerTokenAuthenticationPolicy({ credential, scopes: storageScope }), {
          phase: 'Sign',
        });
        break;
      }
      case 'sas':
        break; // in the URL
    }
    return pipeline;
  }

  async #openClient(): Promise<ContainerClient> {
    const sdk = await import('@azure/storage-blob');
    const { url, account, auth } = this.config;
    this.#token ??= auth.kind === 'entra' ? entraCredential() : undefined;
    const credential =
      auth.kind === 'key' ? new sdk.StorageSharedKeyCredential(account, auth.accountKey) : await this.#token;
    const options = {
      httpClient: asStorageHttpClient(this.#transport),
      retryOptions: this.#retry,
      userAgentOptions: { userAgentPrefix: userAgent },
    };
    return new sdk.ContainerClient(
      auth.kind === 'sas' ? `${url}?${auth.token}` : url,
      sdk.newPipeline(credential ?? new sdk.AnonymousCredential(), options),
    );
  }
}

/** What an answer that is not 2xx means; reads a little of its body for the message. */
async function failure(
  response: PipelineResponse,
  body: UndiciBody | undefined,
  what: string,
): Promise<BlobError> {
  const status = response.status;
  let text = '';
  if (body) {
    try {
      for await (const chunk of body) {
        text += chunk.toString('latin1');
        if (text.length > 16_384) break;
      }
    } catch {
      // The status says enough.
    }
  }
  const serviceCode = response.headers.get('x-ms-error-code') ?? /<Code>([^<]+)<\/Code>/.exec(text)?.[1];
  const message = /<Message>([^<\r\n]*)/.exec(text)?.[1]?.trim() ?? '';
  // Azurite says it in the message, the service by the header's name.
  const kind =
    status === 400 && /API version|x-ms-version/i.test(text)
      ? 'unsupported'
      : kindOfStatus(status, serviceCode);
  return new BlobError(
    kind,
    withoutSecrets(
      [`${what}: ${String(status)}`, serviceCode].filter((s) => s !== undefined).join(' ') +
        (message === '' ? '' : `: ${message}`),
    ),
    { status, serviceCode },
  );
}
