/**
 * `node list-server.js N`: a container of N blobs that can only be listed, its pages made before the clock starts.
 * Names are `dNNN/fNNNNNNN` with the metadata AMLFS writes. Answers Get Container Properties and List Blobs to anybody.
 */
import { createServer } from 'node:http';

const PAGE = 5000;
const total = Number(process.argv[2] ?? '100000');

/** @param {number} start */
function page(start) {
  const parts = [
    '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="bench"><Blobs>',
  ];
  const end = Math.min(total, start + PAGE);
  for (let i = start; i < end; i++) {
    const name = `d${String(Math.floor(i / 1000)).padStart(4, '0')}/f${String(i).padStart(7, '0')}`;
    parts.push(
      `<Blob><Name>${name}</Name><Properties><Creation-Time>Tue, 01 Sep 2026 10:00:00 GMT</Creation-Time>` +
        `<Last-Modified>Tue, 01 Sep 2026 10:00:00 GMT</Last-Modified><Etag>0x8DC${i.toString(16).toUpperCase().padStart(12, '0')}</Etag>` +
        `<Content-Length>${String(i % 100000)}</Content-Length><Content-Type>application/octet-stream</Content-Type><Content-Encoding />` +
        `<Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus>` +
        `<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties><Metadata><owner>1000</owner><group>1000</group>` +
        `<permissions>0644</permissions><modtime>2026-09-01 10:00:00 +0000</modtime></Metadata></Blob>`,
    );
  }
  parts.push(`</Blobs><NextMarker>${end < total ? String(end) : ''}</NextMarker></EnumerationResults>`);
  return Buffer.from(parts.join(''));
}

const pages = new Map(Array.from({ length: Math.ceil(total / PAGE) }, (_, i) => [i * PAGE, page(i * PAGE)]));

const server = createServer((incoming, answer) => {
  const query = new URL(incoming.url ?? '/', 'http://localhost').searchParams;
  incoming.resume();
  const version = { 'x-ms-version': '2026-04-06', 'x-ms-request-id': '0' };
  if (query.get('comp') === 'list') {
    const body = pages.get(Number(query.get('marker') ?? '0')) ?? page(total);
    answer
      .writeHead(200, { ...version, 'content-type': 'application/xml', 'content-length': body.length })
      .end(body);
  } else {
    answer
      .writeHead(200, { ...version, etag: '"0x1"', 'last-modified': 'Tue, 01 Sep 2026 10:00:00 GMT' })
      .end();
  }
});
server.keepAliveTimeout = 600_000;
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(`listening on http://127.0.0.1:${String(typeof address === 'object' ? address?.port : '')}`);
});
