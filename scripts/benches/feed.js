/** The change feed of the list server's account, in memory. Loads the tests' writer: node --import @tapjs/typescript/import. */
import { ChangeFeedWriter } from '../../test/helpers/change-feed-writer.js';

const HOUR = 3_600_000;
const BLOCK_EVENTS = 500;

export class Feed {
  /** @type {Map<string, Buffer>} */
  #blobs = new Map();
  #writer = new ChangeFeedWriter(
    {
      put: (name, body) => this.#put(name, body),
      append: (name, bytes) =>
        this.#put(name, Buffer.concat([this.#blobs.get(name) ?? Buffer.alloc(0), bytes])),
    },
    { shards: 3, blocksPerChunk: 100 },
  );
  #hourMs = Math.floor(Date.now() / HOUR) * HOUR;

  async create() {
    await this.#writer.create(this.#hourMs);
  }

  /** An hour in which these were created (true) or deleted. @param {ReadonlyMap<string, boolean>} changes */
  async tell(changes) {
    const timeMs = Date.now();
    const events = [...changes].map(([blob, there]) => {
      const type = /** @type {'BlobCreated' | 'BlobDeleted'} */ (there ? 'BlobCreated' : 'BlobDeleted');
      return { type, container: 'bench', blob, timeMs };
    });
    for (let at = 0; at < events.length; at += BLOCK_EVENTS)
      await this.#writer.append(this.#hourMs, events.slice(at, at + BLOCK_EVENTS));
    await this.#writer.finalize(this.#hourMs);
    this.#hourMs += HOUR;
    await this.#writer.setConsumable(this.#hourMs);
  }

  /** Get Container Properties, List Blobs in one page, Get Blob with a range. @param {URL} url @param {string | undefined} range */
  answer(url, range) {
    const query = url.searchParams;
    const name = decodeURIComponent(url.pathname).split('/').slice(2).join('/');
    if (query.get('comp') === 'list') return { status: 200, headers: {}, body: this.#list(query) };
    if (name === '') return { status: 200, headers: { etag: '"0x1"' }, body: Buffer.alloc(0) };
    const blob = this.#blobs.get(name);
    if (blob === undefined)
      return { status: 404, headers: { 'x-ms-error-code': 'BlobNotFound' }, body: Buffer.alloc(0) };
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
    const [from, to] = [Number(first), Math.min(blob.length, last === '' ? Infinity : Number(last) + 1)];
    if (from >= blob.length && blob.length > 0)
      return { status: 416, headers: { 'x-ms-error-code': 'InvalidRange' }, body: Buffer.alloc(0) };
    return {
      status: range === undefined ? 200 : 206,
      headers: {
        'content-range': `bytes ${String(from)}-${String(to - 1)}/${String(blob.length)}`,
        etag: '"0x1"',
        'last-modified': new Date().toUTCString(),
        'x-ms-blob-type': 'AppendBlob',
      },
      body: blob.subarray(from, to),
    };
  }

  /** @param {string} name @param {Buffer} body */
  #put(name, body) {
    this.#blobs.set(name, body);
    return Promise.resolve();
  }

  /** @param {URLSearchParams} query */
  #list(query) {
    const prefix = query.get('prefix') ?? '';
    const names = [...this.#blobs.keys()].filter((name) => name.startsWith(prefix)).toSorted();
    const blobs = names.map(
      (name) =>
        `<Blob><Name>${name}</Name><Properties><Last-Modified>Tue, 01 Sep 2026 10:00:00 GMT</Last-Modified><Etag>0x1</Etag>` +
        `<Content-Length>${String(this.#blobs.get(name)?.length)}</Content-Length><BlobType>AppendBlob</BlobType></Properties></Blob>`,
    );
    return Buffer.from(
      `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="$blobchangefeed"><Blobs>${blobs.join('')}</Blobs><NextMarker /></EnumerationResults>`,
    );
  }
}
