/**
 * An account with a hierarchical namespace: a proxy in front of Azurite, which has none. It makes directories real, lists
 * them in the service's order, and knows the owner, group, permissions and ACL of every path. Signatures do not cover host
 * and port. Blobs have to be written through it.
 */
import http from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { BlobServiceClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { ContainerClient } from '@azure/storage-blob';
import { compareListed } from '../../src/blob/listing-order.js';
import { ancestors } from '../../src/jobs/import/import.js';
import { type Azurite, azuriteAccount, azuriteKey } from './azurite.js';
import { blobXml } from './list-server.js';

export interface Access {
  readonly owner: string;
  readonly group: string;
  /** `rwxr-x---`, with a `+` where the ACL says more. */
  readonly permissions: string;
  readonly acl: string;
}

interface Answer {
  readonly status: number;
  readonly headers: http.OutgoingHttpHeaders;
  readonly body: Buffer;
}

const newFile: Access = {
  owner: '$superuser',
  group: '$superuser',
  permissions: 'rw-r-----',
  acl: 'user::rw-,group::r--,other::---',
};
const newDirectory: Access = {
  owner: '$superuser',
  group: '$superuser',
  permissions: 'rwxr-x---',
  acl: 'user::rwx,group::r-x,other::---',
};
const folderKey = 'hdi_isfolder';
const folderHeader = `x-ms-meta-${folderKey}`;

export class HierarchicalServer implements AsyncDisposable {
  /** Answers 403 when it is asked what kind of account it is, as to a SAS that may not. */
  tellsNothing = false;
  /** Queries of the listings that were asked for. */
  readonly listings: string[] = [];
  readonly #azurite: Azurite;
  readonly #server: Server;
  readonly #agent = new http.Agent({ keepAlive: true });
  /** `container/path` of directories. */
  readonly #directories = new Set<string>();
  readonly #access = new Map<string, Partial<Access>>();

  private constructor(azurite: Azurite) {
    this.#azurite = azurite;
    this.#server = http.createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
    this.#server.keepAliveTimeout = 600_000;
  }

  static async start(azurite: Azurite): Promise<HierarchicalServer> {
    const server = new HierarchicalServer(azurite);
    await new Promise<void>((resolve) => {
      server.#server.listen(0, '127.0.0.1', resolve);
    });
    return server;
  }

  /** To be used in place of Azurite's. */
  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${String(port)}/${azuriteAccount}`;
  }

  /** The real SDK's client, by way of this server. */
  client(container: string): ContainerClient {
    const credential = new StorageSharedKeyCredential(azuriteAccount, azuriteKey);
    return new BlobServiceClient(this.url, credential).getContainerClient(container);
  }

  /** As the Data Lake endpoint's setAccessControl does. */
  setAccess(container: string, path: string, access: Partial<Access>): void {
    const key = `${container}/${path}`;
    this.#access.set(key, { ...this.#access.get(key), ...access });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.#azurite.origin);
    const [, , container = '', ...rest] = url.pathname.split('/').map(decodeURIComponent);
    const path = rest.join('/');
    const body = await buffer(request);
    const refused = await this.#refusal(request, container, path, url.searchParams);
    const answer = refused ?? (await this.#forward(request, body));
    const good = answer.status < 300;
    if (good && refused === undefined) await this.#follow(request, container, path, url.searchParams);
    const listing =
      good && url.searchParams.get('comp') === 'list' && container !== '' && path === ''
        ? await this.#listing(container, url)
        : undefined;
    const headers = { ...answer.headers };
    if (url.searchParams.get('restype') === 'account' && good) headers['x-ms-is-hns-enabled'] = 'true';
    if (good && path !== '' && (request.method === 'GET' || request.method === 'HEAD'))
      Object.assign(headers, this.#headersOf(container, path));
    if (listing !== undefined) {
      delete headers['transfer-encoding'];
      headers['content-length'] = listing.length;
    }
    response.writeHead(answer.status, headers);
    response.end(request.method === 'HEAD' ? undefined : (listing ?? answer.body));
  }

  /** What the service refuses and Azurite would not. */
  async #refusal(
    { method, headers }: IncomingMessage,
    container: string,
    path: string,
    query: URLSearchParams,
  ): Promise<Answer | undefined> {
    if (query.get('restype') === 'account' && this.tellsNothing)
      return failure(403, 'AuthorizationPermissionMismatch');
    if (path === '') return undefined;
    const isDirectory = this.#directories.has(`${container}/${path}`);
    const comp = query.get('comp');
    if (method === 'DELETE' && isDirectory) {
      const below = `${container}/${path}/`;
      const names = await this.#names(container);
      return names.some(({ name }) => `${container}/${name}`.startsWith(below))
        ? failure(409, 'DirectoryIsNotEmpty')
        : undefined;
    }
    if (method !== 'PUT') return undefined;
    if (comp === 'metadata')
      return isDirectory && headers[folderHeader] !== undefined ? failure(400, 'InvalidInput') : undefined;
    const makesDirectory = headers[folderHeader] === 'true';
    const existing = (await this.#names(container)).map(({ name }) => name);
    const isFile = (name: string): boolean =>
      existing.includes(name) && !this.#directories.has(`${container}/${name}`);
    if (ancestors(path).some(isFile)) return failure(409, 'PathConflict');
    const exists = existing.includes(path);
    if (exists && headers['if-none-match'] === '*') return undefined; // Azurite refuses it by itself
    return exists && isDirectory !== makesDirectory ? failure(409, 'ResourceTypeMismatch') : undefined;
  }

  /** What the service does besides: a path makes the directories above it. */
  async #follow(
    { method, headers }: IncomingMessage,
    container: string,
    path: string,
    query: URLSearchParams,
  ): Promise<void> {
    const comp = query.get('comp');
    if (path === '') return;
    if (method === 'DELETE') {
      this.#directories.delete(`${container}/${path}`);
      this.#access.delete(`${container}/${path}`);
    }
    if (method !== 'PUT' || (comp !== null && comp !== 'blocklist' && comp !== 'appendblock')) return;
    if (headers[folderHeader] === 'true') this.#directories.add(`${container}/${path}`);
    for (const above of ancestors(path)) {
      const key = `${container}/${above}`;
      if (this.#directories.has(key)) continue;
      this.#directories.add(key);
      const metadata = { [folderKey]: 'true' };
      await this.#azurite.client(container).getBlockBlobClient(above).upload('', 0, { metadata });
    }
  }

  #headersOf(container: string, path: string): http.OutgoingHttpHeaders {
    const { owner, group, permissions, acl } = this.#accessOf(container, path);
    const isDirectory = this.#directories.has(`${container}/${path}`);
    return {
      'x-ms-owner': owner,
      'x-ms-group': group,
      'x-ms-permissions': permissions,
      'x-ms-acl': acl,
      'x-ms-resource-type': isDirectory ? 'directory' : 'file',
      ...(isDirectory && { [folderHeader]: 'true' }),
    };
  }

  #accessOf(container: string, path: string): Access {
    const key = `${container}/${path}`;
    return { ...(this.#directories.has(key) ? newDirectory : newFile), ...this.#access.get(key) };
  }

  async #names(container: string) {
    const found = [];
    for await (const blob of this.#azurite.client(container).listBlobsFlat({ includeMetadata: true }))
      found.push(blob);
    return found;
  }

  async #listing(container: string, url: URL): Promise<Buffer> {
    const query = url.searchParams;
    this.listings.push(url.search.slice(1));
    const include = (query.get('include') ?? '').split(',');
    const prefix = query.get('prefix') ?? '';
    const after = query.get('marker') ?? '';
    const size = Number(query.get('maxresults') ?? '5000');
    const names = (await this.#names(container))
      .filter(({ name }) => name.startsWith(prefix))
      .filter(({ name }) => after === '' || compareListed(name, after, true) > 0)
      .sort((a, b) => compareListed(a.name, b.name, true));
    const page = names.slice(0, size).map(({ name, properties, metadata }) => {
      const isDirectory = this.#directories.has(`${container}/${name}`);
      const { owner, group, permissions, acl } = this.#accessOf(container, name);
      const access = { Owner: owner, Group: group, Permissions: permissions, Acl: acl };
      return blobXml({
        name,
        size: properties.contentLength ?? 0,
        etag: properties.etag,
        lastModified: properties.lastModified.toUTCString(),
        ...(properties.contentMD5 && { md5: Buffer.from(properties.contentMD5).toString('base64') }),
        ...(properties.accessTier && { tier: properties.accessTier }),
        account: {
          ResourceType: isDirectory ? 'directory' : 'file',
          ...(include.includes('permissions') && access),
        },
        ...(include.includes('metadata') && {
          metadata: { ...metadata, ...(isDirectory && { [folderKey]: 'true' }) },
        }),
      });
    });
    const last = names[size - 1]?.name ?? '';
    const marker =
      names.length > size ? `<NextMarker>${last.replace(/&/g, '&amp;')}</NextMarker>` : '<NextMarker />';
    return Buffer.from(
      `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="${this.url}" ContainerName="${container}">` +
        `<Blobs>${page.join('')}</Blobs>${marker}</EnumerationResults>`,
    );
  }

  #forward(request: IncomingMessage, body: Buffer): Promise<Answer> {
    const { hostname, port, host } = new URL(this.#azurite.origin);
    return new Promise((resolve, reject) => {
      const onward = http.request(
        {
          host: hostname,
          port,
          method: request.method,
          path: request.url,
          headers: { ...request.headers, host },
          agent: this.#agent,
        },
        (answer) => {
          buffer(answer).then((received) => {
            resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: received });
          }, reject);
        },
      );
      onward.on('error', reject);
      onward.end(body);
    });
  }
}

function failure(status: number, code: string): Answer {
  const body = `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>refused by the fake account</Message></Error>`;
  return {
    status,
    headers: { 'x-ms-error-code': code, 'content-type': 'application/xml' },
    body: Buffer.from(body),
  };
}
