/** Answers List Blobs for a container of any size without holding it: blobs are made up page by page. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FakeBlob {
  readonly name: string;
  readonly size: number;
  readonly etag: string;
  readonly lastModified: string;
  readonly md5?: string;
  readonly tier?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Of accounts with a hierarchical namespace: `Owner`, `Group`, `Permissions`, `Acl`, `ResourceType`. */
  readonly account?: Readonly<Record<string, string>>;
  /** As newer service versions write names that XML cannot carry. */
  readonly encoded?: boolean;
}

export interface ListServerOptions {
  readonly total: number;
  /** The blob at an index; indices are the order of names. */
  readonly blob: (index: number) => FakeBlob;
  /** Page sizes that the service chooses itself, in turn; asked-for sizes by default. 0 is an empty page. */
  readonly pageSizes?: readonly number[];
  /** Sends the blobs of the first full page on every full page: a large container for the price of a small one. */
  readonly repeat?: boolean;
  /** Starts every page with a byte order mark, as the service does. */
  readonly bom?: boolean;
}

export interface ListServer extends AsyncDisposable {
  /** Of an account; any container name below it will do. */
  readonly url: string;
  readonly pages: number;
}

function escapeXml(text: string): string {
  return text
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/"/g, '&quot;')
    .replace(/[\r\n\t]/g, (c) => `&#x${c.charCodeAt(0).toString(16).toUpperCase()};`);
}

/** One `<Blob>` with the elements that the service sends, in its order. */
export function blobXml(blob: FakeBlob): string {
  const name =
    blob.encoded === true
      ? `<Name Encoded="true">${encodeURIComponent(blob.name)}</Name>`
      : `<Name>${escapeXml(blob.name)}</Name>`;
  const metadata = Object.entries(blob.metadata ?? {});
  const account = Object.entries(blob.account ?? {}).map(([k, v]) => `<${k}>${escapeXml(v)}</${k}>`);
  return (
    `<Blob>${name}<Properties><Creation-Time>${blob.lastModified}</Creation-Time>` +
    `<Last-Modified>${blob.lastModified}</Last-Modified><Etag>${blob.etag}</Etag>` +
    `<Content-Length>${String(blob.size)}</Content-Length><Content-Type>application/octet-stream</Content-Type>` +
    `<Content-Encoding /><Content-Language /><Content-CRC64 />` +
    (blob.md5 === undefined ? '<Content-MD5 />' : `<Content-MD5>${blob.md5}</Content-MD5>`) +
    `<Cache-Control /><Content-Disposition /><BlobType>BlockBlob</BlobType>` +
    (blob.tier === undefined
      ? ''
      : `<AccessTier>${blob.tier}</AccessTier>${blob.tier === 'Archive' ? '' : '<AccessTierInferred>true</AccessTierInferred>'}`) +
    `<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted>${account.join('')}</Properties>` +
    (metadata.length === 0
      ? '<Metadata />'
      : `<Metadata>${metadata.map(([k, v]) => (v === '' ? `<${k} />` : `<${k}>${escapeXml(v)}</${k}>`)).join('')}</Metadata>`) +
    `<OrMetadata /></Blob>`
  );
}

export async function startListServer(options: ListServerOptions): Promise<ListServer> {
  let pages = 0;
  let full = '';
  const server = http.createServer((request, response) => {
    const query = new URL(request.url ?? '/', 'http://h').searchParams;
    const start = Number(query.get('marker') ?? '0');
    const sizes = options.pageSizes ?? [];
    const size =
      sizes.length > 0 ? (sizes[pages % sizes.length] ?? 0) : Number(query.get('maxresults') ?? '5000');
    pages++;
    const end = Math.min(start + size, options.total);
    let blobs = options.repeat === true && end - start === size ? full : '';
    if (blobs === '') {
      for (let index = start; index < end; index++) blobs += blobXml(options.blob(index));
      if (end - start === size) full = blobs;
    }
    // A marker must move on even over an empty page.
    const marker =
      end < options.total
        ? `<NextMarker>${String(end).padStart(10 + (pages % 2), '0')}</NextMarker>`
        : '<NextMarker />';
    response.writeHead(200, { 'content-type': 'application/xml' });
    response.end(
      `${options.bom === true ? '\ufeff' : ''}<?xml version="1.0" encoding="utf-8"?>` +
        `<EnumerationResults ServiceEndpoint="http://h/" ContainerName="c"><Blobs>${blobs}</Blobs>${marker}</EnumerationResults>`,
    );
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${String((server.address() as AddressInfo).port)}/account`,
    get pages() {
      return pages;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
