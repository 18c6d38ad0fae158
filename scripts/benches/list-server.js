/**
 * `node list-server.js N`: a container of N blobs that can be listed and looked up, its pages made before the clock
 * starts. Names are `dNNN/fNNNNNNN` with the metadata AMLFS writes. Answers Get Container Properties, List Blobs and Get
 * Blob Properties to anybody. `--latency MS`: how long each page and each look-up of a blob take. `POST /change?count=C` overwrites three of five of C blobs, deletes one and makes a new one.
 * `--feed`: a change feed tells of that.
 */
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const PAGE = 5000;
/** Names of a directory. */
const FILES = 1000;
const { values: flags } = parseArgs({
  args: process.argv.slice(3),
  options: { feed: { type: 'boolean', default: false }, latency: { type: 'string', default: '0' } },
});
const latencyMs = Number(flags.latency);
const total = Number(process.argv[2] ?? '100000');
/** Every fifth name is free at first, for the blobs that come later. @param {number} i */
const firstVersion = (i) => (i % 5 === 4 ? 0 : 1);
/** Index -> version; 0: there is no such blob. */
const versions = Uint32Array.from({ length: Math.ceil(total * 1.25) }, (_, i) => firstVersion(i));
let changed = 0;
const feed = flags.feed ? new (await import('./feed.js')).Feed() : undefined;
await feed?.create();

/** @param {number} i */
const directoryOf = (i) => `d${String(Math.floor(i / FILES)).padStart(4, '0')}/`;
/** @param {number} i */
const nameOf = (i) => `${directoryOf(i)}f${String(i).padStart(7, '0')}`;
/** @param {number} i */
const etagOf = (i) =>
  `0x8DC${i.toString(16).toUpperCase().padStart(8, '0')}${String(versions[i]).padStart(4, '0')}`;

const metadata = {
  owner: '1000',
  group: '1000',
  permissions: '0644',
  modtime: '2026-09-01 10:00:00 +0000',
};
const modified = 'Tue, 01 Sep 2026 10:00:00 GMT';

const opening =
  '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="bench"><Blobs>';

/** The blobs of a directory, as a page has them. @param {number} start */
function blobsFrom(start) {
  const inXml = Object.entries(metadata).map(([key, value]) => `<${key}>${value}</${key}>`);
  const parts = [];
  for (let i = start; i < Math.min(versions.length, start + FILES); i++) {
    if (versions[i] === 0) continue;
    parts.push(
      `<Blob><Name>${nameOf(i)}</Name><Properties><Creation-Time>${modified}</Creation-Time>` +
        `<Last-Modified>${modified}</Last-Modified><Etag>${etagOf(i)}</Etag>` +
        `<Content-Length>${String(i % 100000)}</Content-Length><Content-Type>application/octet-stream</Content-Type><Content-Encoding />` +
        `<Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus>` +
        `<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties>` +
        `<Metadata>${inXml.join('')}</Metadata></Blob>`,
    );
  }
  return Buffer.from(parts.join(''));
}

/** By the number of the directory. @type {Buffer[]} */
const directories = [];
const makePages = () => {
  for (let start = 0; start < versions.length; start += FILES) directories[start / FILES] = blobsFrom(start);
};
makePages();

/** What a listing answers. @param {URLSearchParams} query */
function listed(query) {
  const of = query.get('prefix') ?? '';
  const first = of === '' ? Number(query.get('marker') ?? '0') / FILES : Number(of.slice(1, -1));
  const count = of === '' ? PAGE / FILES : 1;
  const parts =
    query.get('delimiter') === '/' && of === ''
      ? directories.map((_, at) =>
          Buffer.from(`<BlobPrefix><Name>${directoryOf(at * FILES)}</Name></BlobPrefix>`),
        )
      : directories.slice(first, first + count);
  const more = of === '' && parts.length < directories.length && first + count < directories.length;
  const next = more ? String((first + count) * FILES) : '';
  const closing = `</Blobs><NextMarker>${next}</NextMarker></EnumerationResults>`;
  return Buffer.concat([Buffer.from(opening), ...parts, Buffer.from(closing)]);
}

/** Blobs all over the container; resolves with how many were not deleted already. @param {number} count */
async function change(count) {
  /** @type {Map<string, boolean>} */ const changes = new Map();
  const fives = Math.floor(versions.length / 5);
  for (let n = 0; n < count / 5; n++) {
    const five = 5 * ((changed++ * 7919) % fives);
    for (const at of [five, five + 1, five + 2]) versions[at] = (versions[at] ?? 0) + 1;
    versions[five + 4] = (versions[five + 4] ?? 0) + 1;
    for (const at of [five, five + 1, five + 2, five + 4]) changes.set(nameOf(at), true);
    if (versions[five + 3] !== 0) changes.set(nameOf(five + 3), false);
    versions[five + 3] = 0;
  }
  makePages();
  await feed?.tell(changes);
  return changes.size;
}

/** @param {number} i @param {import('node:http').ServerResponse} answer */
function lookUp(i, answer) {
  if (versions[i] === 0) {
    answer.writeHead(404, { ...common, 'x-ms-error-code': 'BlobNotFound' }).end();
    return;
  }
  /** @type {[string, string][]} */
  const meta = Object.entries(metadata).map(([key, value]) => [`x-ms-meta-${key}`, value]);
  answer
    .writeHead(200, {
      ...common,
      ...Object.fromEntries(meta),
      etag: `"${etagOf(i)}"`,
      'last-modified': modified,
      'content-length': String(i % 100000),
      'x-ms-blob-type': 'BlockBlob',
    })
    .end();
}

const common = { 'x-ms-version': '2026-04-06', 'x-ms-request-id': '0' };
const server = createServer((incoming, answer) => {
  const url = new URL(incoming.url ?? '/', 'http://localhost');
  const query = url.searchParams;
  incoming.resume();
  if (url.pathname === '/change') {
    void change(Number(query.get('count'))).then((count) => answer.writeHead(200).end(String(count)));
    return;
  }
  if (feed !== undefined && url.pathname.includes('blobchangefeed')) {
    const { status, headers, body } = feed.answer(url, incoming.headers['x-ms-range']?.toString());
    answer.writeHead(status, { ...common, ...headers, 'content-length': body.length }).end(body);
    return;
  }
  if (query.get('comp') === 'list') {
    const body = listed(query);
    const headers = { ...common, 'content-type': 'application/xml', 'content-length': body.length };
    setTimeout(() => answer.writeHead(200, headers).end(body), latencyMs);
    return;
  }
  const blob = /\/f(\d+)$/.exec(url.pathname)?.[1];
  if (blob === undefined) {
    const found = url.pathname.includes('$') ? 404 : 200;
    answer.writeHead(found, { ...common, etag: '"0x1"', 'last-modified': modified }).end();
    return;
  }
  // A timer would take a millisecond.
  if (latencyMs === 0) lookUp(Number(blob), answer);
  else setTimeout(() => lookUp(Number(blob), answer), latencyMs);
});
server.keepAliveTimeout = 600_000;
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(`listening on http://127.0.0.1:${String(typeof address === 'object' ? address?.port : '')}`);
});
