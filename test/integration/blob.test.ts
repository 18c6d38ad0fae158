import { randomBytes } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import t from 'tap';
import { openContainer } from '../../src/blob/azure-container.js';
import type { AzureContainer } from '../../src/blob/azure-container.js';
import { BlobConnection, serviceVersion } from '../../src/blob/connection.js';
import { uploadIdKey } from '../../src/blob/metadata.js';
import type { ContainerConfig, ListedBlob } from '../../src/blob/port.js';
import { FastBlobReader } from '../../src/blob/reader.js';
import { uploadBlob } from '../../src/blob/upload.js';
import type { UploadOptions } from '../../src/blob/upload.js';
import { Azurite } from '../helpers/azurite.js';
import { fails } from '../helpers/failure.js';
import { FaultServer } from '../helpers/fault-server.js';

const mib = 1024 ** 2;
const azurite = await Azurite.start();
const faults = await FaultServer.start(azurite.url);
t.teardown(async () => {
  await faults[Symbol.asyncDispose]();
  await azurite[Symbol.asyncDispose]();
});

/** A new container, lustrite's view of it through the fault server, and a clean slate of faults. */
async function scene(
  options: Pick<ContainerConfig, 'stallMs' | 'retry'> = {},
): Promise<{ name: string; container: AzureContainer; connection: BlobConnection } & AsyncDisposable> {
  const name = await azurite.newContainer();
  const config = azurite.config(name, { url: faults.url, ...options });
  const container = openContainer(config);
  const connection = new BlobConnection(config);
  faults.clear();
  faults.clearLog();
  return {
    name,
    container,
    connection,
    [Symbol.asyncDispose]: async () => {
      faults.clear();
      await container.close();
      await connection.close();
    },
  };
}

async function listed(container: AzureContainer, prefix?: string): Promise<ListedBlob[]> {
  const all: ListedBlob[] = [];
  for await (const page of container.list(prefix === undefined ? {} : { prefix })) all.push(...page);
  return all;
}

function upload(
  connection: BlobConnection,
  name: string,
  body: Buffer,
  options: UploadOptions,
): ReturnType<typeof uploadBlob> {
  return uploadBlob(
    connection,
    name,
    body.length,
    (at, count) => Promise.resolve(body.subarray(at, at + count)),
    options,
  );
}

async function readRange(
  connection: BlobConnection,
  name: string,
  size: number,
  etag: string,
  signal?: AbortSignal,
  offset = 0,
  count = size,
): Promise<Buffer> {
  const into = Buffer.alloc(count);
  await new FastBlobReader(connection).range(
    name,
    { offset, count, size },
    (chunk, at) => {
      chunk.copy(into, at - offset);
    },
    { etag, signal },
  );
  return into;
}

t.test('what is written is read, listed and looked up, under odd names too', async (t) => {
  await using s = await scene();
  const names = [
    'plain',
    'a/b/c.txt',
    ' lead and trail ',
    'quotes"\'',
    'per%25cent',
    'query?and#hash',
    'plus+amp&<xml>',
    'tab\tnew\nline',
    'Icon\r',
    'del\u007f',
    'trailing.',
    '\u00e4\u20ac\ud83d\ude00',
    'nfd-a\u0308',
    'nfd-\u00e4',
    `long/${'x'.repeat(255)}`,
    "it's(1)*!~",
  ];
  const metadata = { owner: '1', group: '2', permissions: '0640', modtime: '2023-03-17 15:00:11 +0000' };
  for (const name of names) {
    const body = `content of ${name}`;
    const version = await s.container.write(name, body, { metadata });
    const size = Buffer.byteLength(body);
    t.match(version, { size, etag: /^0x/, md5: /==$/ }, JSON.stringify(name));
    const read = await s.container.read(name, { ifMatch: version.etag });
    t.equal(read.body.toString(), body);
    t.same(read.version, version);
    t.match(await s.container.properties(name), { ...version, kind: 'file', metadata });
  }
  const all = await listed(s.container);
  t.same(all.map(({ name }) => name).sort(), names.toSorted());
  for (const blob of all) {
    t.same(blob.posix, { uid: 1, gid: 2, mode: 0o640, mtimeNs: 1_679_065_211_000_000_000n });
    t.match(await s.container.properties(blob.name), {
      etag: blob.etag,
      size: blob.size,
      lastModifiedMs: blob.lastModifiedMs,
      md5: blob.md5,
    });
  }
  t.same(
    (await listed(s.container, 'a/')).map(({ name }) => name),
    ['a/b/c.txt'],
  );
  t.same(
    (await listed(s.container, 'query?')).map(({ name }) => name),
    ['query?and#hash'],
  );
});

t.test('a listing of several pages has every blob once, in order', async (t) => {
  await using s = await scene();
  const names = Array.from({ length: 23 }, (_, index) => `n${String(index).padStart(2, '0')}`);
  for (const name of names) await s.container.write(name, name, { metadata: {} });
  const pages: number[] = [];
  const seen: string[] = [];
  for await (const page of s.container.list({ pageSize: 5 })) {
    pages.push(page.length);
    seen.push(...page.map(({ name }) => name));
  }
  t.same(pages, [5, 5, 5, 5, 3]);
  t.same(seen, names);
  for await (const page of s.container.list({ pageSize: 5 })) {
    t.equal(page.length, 5);
    break; // a listing may be left at any page
  }
  const gone = new AbortController();
  await fails(
    t,
    (async () => {
      for await (const page of s.container.list({ pageSize: 5, signal: gone.signal })) {
        t.equal(page.length, 5);
        gone.abort();
      }
    })(),
    { kind: 'aborted' },
  );
});

t.test('a listing of several directories at a time has every blob once, in order', async (t) => {
  await using s = await scene();
  const directories = ['a', 'a-b', 'a/b', 'c d', 'ä'];
  const names = [
    ...directories.flatMap((directory) => Array.from({ length: 9 }, (_, n) => `${directory}/${String(n)}`)),
    ...['a', 'a.txt', 'a0', 'b', 'z'],
  ].sort();
  for (const name of names) await s.container.write(name, name, { metadata: {} });
  for (const prefix of ['', 'a', 'a/']) {
    const seen: string[] = [];
    for await (const page of s.container.list({ prefix, pageSize: 4 }))
      seen.push(...page.map(({ name }) => name));
    t.same(
      seen,
      names.filter((name) => name.startsWith(prefix)),
      `under '${prefix}'`,
    );
  }
});

t.test('names that a URL cannot carry to the service are refused before anything is sent', async (t) => {
  await using s = await scene();
  for (const name of ['', '.', '../x', 'a/../b', 'a/./b', 'a\\b', 'a\0b', '\ud800']) {
    await fails(t, s.container.read(name), { kind: 'unsupported' }, JSON.stringify(name));
    await fails(t, s.container.write(name, 'x', { metadata: {} }), { kind: 'unsupported' });
    await fails(t, s.container.properties(name), { kind: 'unsupported' });
    await fails(t, s.container.delete(name), { kind: 'unsupported' });
  }
  await fails(t, s.container.write('a', 'x', { metadata: { 'not-a-key': '1' } }), { kind: 'unsupported' });
  await fails(t, s.container.write('a', 'x', { metadata: { key: '\u00e4' } }), { kind: 'unsupported' });
  await fails(t, s.container.write('a', 'x', { metadata: { key: 'x'.repeat(8192) } }), {
    kind: 'unsupported',
  });
  t.equal(faults.log.length, 0);
});

t.test(
  'conditions are kept: nothing is read, replaced or deleted but the version that was meant',
  async (t) => {
    await using s = await scene();
    const first = await s.container.write('a', 'first', { metadata: {}, ifNoneMatch: '*' });
    await fails(t, s.container.write('a', 'x', { metadata: {}, ifNoneMatch: '*' }), {
      kind: 'exists',
      status: 409,
    });
    const second = await s.container.write('a', 'second', { metadata: {}, ifMatch: first.etag });
    await fails(t, s.container.write('a', 'x', { metadata: {}, ifMatch: first.etag }), {
      kind: 'changed',
      status: 412,
    });
    await fails(t, s.container.read('a', { ifMatch: first.etag }), { kind: 'changed', status: 412 });
    await fails(t, s.container.delete('a', { ifMatch: first.etag }), { kind: 'changed' });
    t.equal((await s.container.read('a', { ifMatch: second.etag })).body.toString(), 'second');
    const big = randomBytes(3 * mib);
    await fails(t, upload(s.connection, 'a', big, { metadata: {}, blockBytes: mib, ifMatch: first.etag }), {
      kind: 'changed',
    });
    await fails(t, upload(s.connection, 'a', big, { metadata: {}, blockBytes: mib, ifNoneMatch: '*' }), {
      kind: 'exists',
    });
    t.equal(
      (await s.container.read('a')).body.toString(),
      'second',
      'a refused upload leaves the blob as it was',
    );
    const third = await upload(s.connection, 'a', big, {
      metadata: {},
      blockBytes: mib,
      ifMatch: second.etag,
    });
    t.ok((await s.container.read('a', { ifMatch: third.etag })).body.equals(big));
    await s.container.delete('a', { ifMatch: third.etag });
    await fails(t, s.container.read('a'), { kind: 'missing', status: 404, message: /read of a/ });
    await fails(t, s.container.properties('a'), { kind: 'missing' });
    await fails(t, s.container.delete('a'), { kind: 'missing' });
  },
);

t.test('metadata, headers and tier come with the data, and every PUT has its MD5', async (t) => {
  await using s = await scene();
  const headers = {
    contentType: 'text/x-test',
    contentEncoding: 'identity',
    contentLanguage: 'de',
    contentDisposition: 'inline',
    cacheControl: 'no-cache',
  };
  const metadata = { owner: '1', group: '1', permissions: '0644', empty: 'x' };
  const body = randomBytes(2.5 * mib);
  for (const [name, blockBytes] of [
    ['single', 8 * mib],
    ['blocks', mib],
  ] as const) {
    const version = await upload(s.connection, name, body, { metadata, headers, tier: 'Cool', blockBytes });
    const found = await s.container.properties(name);
    const posix = { uid: 1, gid: 1, mode: 0o644 };
    t.same(found, { ...version, kind: 'file', posix, metadata, tier: 'Cool', headers }, name);
    t.ok(
      await s.connection
        .client()
        .then(async (c) => (await c.getBlobClient(name).downloadToBuffer()).equals(body)),
    );
  }
  const puts = faults.requests({ method: 'PUT' }).filter(({ query }) => !query.includes('comp=blocklist'));
  t.equal(puts.length, 4, 'one PUT, three blocks');
  for (const put of puts) t.match(put.headers['content-md5'], /==$/);
  for (const { headers: sent, query } of faults.log)
    t.equal(sent['x-ms-version'], serviceVersion, `the SDK and the raw requests speak one version ${query}`);
});

t.test('an empty blob is written and read', async (t) => {
  await using s = await scene();
  const version = await s.container.write('empty', '', { metadata: { hdi_isfolder: 'true' } });
  t.equal(version.size, 0);
  t.equal((await s.container.read('empty', { ifMatch: version.etag })).body.length, 0);
  t.match(await listed(s.container), [{ name: 'empty', kind: 'directory', size: 0 }]);
});

t.test('page and append blobs are read as files', async (t) => {
  await using s = await scene();
  const client = azurite.client(s.name);
  const page = randomBytes(1024);
  await client.getPageBlobClient('page').create(1024);
  await client.getPageBlobClient('page').uploadPages(page, 0, 1024);
  await client.getAppendBlobClient('append').create();
  await client.getAppendBlobClient('append').appendBlock('text', 4);
  for (const blob of await listed(s.container)) {
    const expected = blob.name === 'page' ? page : Buffer.from('text');
    t.equal(blob.size, expected.length);
    t.ok((await s.container.read(blob.name, { ifMatch: blob.etag })).body.equals(expected), blob.name);
    t.ok(
      (await readRange(s.connection, blob.name, blob.size, blob.etag, undefined, 1, 3)).equals(
        expected.subarray(1, 4),
      ),
    );
  }
});

t.test('a blob in the archive tier is listed with its tier, and a read says so', async (t) => {
  await using s = await scene();
  const { etag } = await s.container.write('cold', 'content', { metadata: {} });
  await azurite.client(s.name).getBlobClient('cold').setAccessTier('Archive');
  t.match(await listed(s.container), [{ name: 'cold', tier: 'Archive', etag }]);
  await fails(t, s.container.read('cold', { ifMatch: etag }), { kind: 'archived', message: /cold/ });
});

t.test('a leased blob is read, and a write says that it is leased', async (t) => {
  await using s = await scene();
  const { etag } = await s.container.write('leased', 'content', { metadata: {} });
  const lease = azurite.client(s.name).getBlobClient('leased').getBlobLeaseClient();
  await lease.acquireLease(-1);
  t.equal((await s.container.read('leased', { ifMatch: etag })).body.toString(), 'content');
  await fails(t, s.container.write('leased', 'x', { metadata: {} }), { kind: 'leased' });
  await fails(t, upload(s.connection, 'leased', randomBytes(2048), { metadata: {}, blockBytes: 1024 }), {
    kind: 'leased',
  });
  await fails(t, s.container.delete('leased'), { kind: 'leased' });
  await lease.releaseLease();
});

t.test('log lines are appended in order, once, also when an answer is lost', async (t) => {
  await using s = await scene();
  await Promise.all(['1\n', '2\n', '3\n'].map((line) => s.container.appendLog('log', line)));
  faults.inject({ method: 'PUT', blob: 'log', query: 'comp=appendblock', times: 1 }, { kind: 'lose-answer' });
  await s.container.appendLog('log', '4\n');
  await using other = openContainer(azurite.config(s.name));
  await other.appendLog('log', '5\n');
  await s.container.appendLog('log', '6\n');
  t.equal((await s.container.read('log')).body.toString(), '1\n2\n3\n4\n5\n6\n');
  t.equal(await s.container.logLength('log'), 12);
  t.equal(await s.container.logLength('none'), 0);
  await s.container.appendLog('big', 'x'.repeat(5 * mib));
  t.equal((await s.container.properties('big')).size, 5 * mib);
});

t.test('check says what to do', async (t) => {
  await using s = await scene();
  await s.container.check();
  const check = async (over: object): Promise<void> => {
    await using container = openContainer({ ...azurite.config(s.name, { url: faults.url }), ...over });
    await container.check();
  };
  await fails(t, check({ url: `${faults.url}/none-such`, container: 'none-such' }), {
    kind: 'missing',
    message: /container 'none-such' of account 'devstoreaccount1' does not exist/,
  });
  await fails(t, check({ auth: { kind: 'key', accountKey: 'd3Jvbmc=' } }), {
    kind: 'forbidden',
    message: /the account key or this host's clock is wrong/,
  });
  await fails(
    t,
    check({ auth: { kind: 'sas', token: 'sv=2025-01-05&sr=c&sp=rl&se=2000-01-01&sig=eA%3D%3D' } }),
    {
      kind: 'forbidden',
      message: /SAS is wrong, expired/,
    },
  );
  faults.inject({}, { kind: 'reset' });
  await fails(t, check({}), { kind: 'unreachable', message: /no answer from http/ });
  faults.clear();
  faults.inject({}, { kind: 'status', status: 503, code: 'ServerBusy' });
  await fails(t, check({}), { kind: 'throttled' });
  await fails(t, s.container.check(AbortSignal.abort()), { kind: 'aborted' });
});

t.test('an Azurite that refuses our API version is named with its remedy', async (t) => {
  await using s = await scene();
  faults.inject(
    {},
    {
      kind: 'status',
      status: 400,
      code: 'InvalidHeaderValue',
      message: 'The API version 2099-01-01 is not supported by Azurite.',
    },
  );
  await fails(t, s.container.check(), { kind: 'unsupported', message: /--skipApiVersionCheck/ });
});

t.test('a SAS is as good as a key', async (t) => {
  await using s = await scene();
  const { ContainerSASPermissions } = await import('@azure/storage-blob');
  const url = await azurite.client(s.name).generateSasUrl({
    permissions: ContainerSASPermissions.parse('racwdl'),
    expiresOn: new Date(Date.now() + 3600e3),
  });
  const config = azurite.config(s.name, { url: faults.url });
  const sas = { ...config, auth: { kind: 'sas', token: new URL(url).search.slice(1) } } as const;
  await using container = openContainer(sas);
  await using connection = new BlobConnection(sas);
  await container.check();
  const body = randomBytes(3000);
  const version = await upload(connection, 'a b', body, { metadata: {}, blockBytes: 1000 });
  await container.write('c', 'd', { metadata: {} });
  await container.appendLog('log', 'line\n');
  t.ok((await readRange(connection, 'a b', body.length, version.etag)).equals(body));
  t.same(
    (await listed(container)).map(({ name }) => name),
    ['a b', 'c', 'log'],
  );
  t.notMatch(container.identity, /sig/);
  t.notMatch(JSON.stringify(container), /sig/);
  await container.delete('c');
  faults.inject({}, { kind: 'status', status: 403, code: 'AuthorizationFailure' });
  const refused: unknown = await container.read('a b').catch((error: unknown) => error);
  t.match(refused, { kind: 'forbidden', status: 403, serviceCode: 'AuthorizationFailure' });
  t.notMatch(String(refused), /sig=[^*]/);
});

t.test('a body that is cut is resumed from its last byte, under the same version', async (t) => {
  await using s = await scene();
  const body = randomBytes(3 * mib);
  const { etag } = await s.container.write('cut', body, { metadata: {} });
  faults.inject({ method: 'GET', blob: 'cut', times: 2 }, { kind: 'cut', after: mib });
  t.ok((await readRange(s.connection, 'cut', body.length, etag)).equals(body));
  const gets = faults.requests({ method: 'GET', blob: 'cut' });
  t.equal(gets.length, 3);
  t.notOk(gets[0]?.headers['x-ms-range'], 'the whole blob was asked for without a range');
  for (const get of gets) t.equal(get.headers['if-match'], `"${etag}"`);
  t.match(gets[2]?.headers['x-ms-range'], /^bytes=[1-9]\d*-3145727$/);
  faults.inject({ method: 'GET', blob: 'cut', times: 1 }, { kind: 'cut', after: mib });
  t.ok((await s.container.read('cut', { ifMatch: etag })).body.equals(body), 'a small read starts again');
});

t.test('a body that is cut for ever is unreachable in the end', async (t) => {
  await using s = await scene();
  const { etag } = await s.container.write('cut', randomBytes(mib), { metadata: {} });
  faults.inject({ method: 'GET', blob: 'cut' }, { kind: 'cut', after: 0 });
  await fails(t, readRange(s.connection, 'cut', mib, etag), { kind: 'unreachable', message: /read of cut/ });
  await fails(t, s.container.read('cut'), { kind: 'unreachable' });
});

t.test('a stalled body is resumed', async (t) => {
  await using s = await scene({ stallMs: 2000 });
  const body = randomBytes(mib);
  await azurite.client(s.name).getBlockBlobClient('stall').uploadData(body);
  const { etag } = await s.container.properties('stall');
  faults.inject({ method: 'GET', blob: 'stall', times: 1 }, { kind: 'stall', after: 100_000 });
  t.ok((await readRange(s.connection, 'stall', body.length, etag)).equals(body));
  t.ok(faults.count({ method: 'GET', blob: 'stall' }) >= 2);
});

t.test('a server that never answers is given up', async (t) => {
  await using s = await scene({ stallMs: 1000, retry: { maxTries: 2, retryDelayInMs: 10 } });
  faults.inject({}, { kind: 'hang' });
  await Promise.all([
    fails(t, s.container.properties('a'), { kind: 'unreachable' }),
    fails(t, s.container.read('a'), { kind: 'unreachable' }),
    fails(t, s.container.write('a', 'x', { metadata: {} }), { kind: 'unreachable' }),
    fails(t, upload(s.connection, 'a', randomBytes(3000), { metadata: {}, blockBytes: 1000 }), {
      kind: 'unreachable',
    }),
    fails(t, s.container.appendLog('l', 'x'), { kind: 'unreachable' }),
    fails(t, listed(s.container), { kind: 'unreachable' }),
    fails(t, readRange(s.connection, 'a', 10, '0x1'), { kind: 'unreachable' }),
  ]);
});

t.test('a blob that is replaced between a cut and its resumption is never mixed', async (t) => {
  await using s = await scene();
  const { etag } = await s.container.write('torn', randomBytes(2 * mib), { metadata: {} });
  faults.inject({ method: 'GET', blob: 'torn', times: 1 }, { kind: 'cut', after: mib });
  let replaced = false;
  const read = new FastBlobReader(s.connection).range(
    'torn',
    { offset: 0, count: 2 * mib, size: 2 * mib },
    async () => {
      if (replaced) return;
      replaced = true;
      await azurite
        .client(s.name)
        .getBlockBlobClient('torn')
        .uploadData(randomBytes(2 * mib));
    },
    { etag },
  );
  await fails(t, read, { kind: 'changed', status: 412 });
});

t.test('what an answer says about itself is checked', async (t) => {
  await using s = await scene();
  const body = randomBytes(10_000);
  const { etag } = await s.container.write('lie', body, { metadata: {} });
  const get = { method: 'GET', blob: 'lie', times: 1 } as const;
  const range = (): Promise<Buffer> =>
    readRange(s.connection, 'lie', body.length, etag, undefined, 1000, 500);
  const whole = (): Promise<Buffer> => readRange(s.connection, 'lie', body.length, etag);
  faults.inject(get, { kind: 'headers', headers: { 'content-range': 'bytes 0-499/10000' } });
  await fails(t, range(), { kind: 'corrupt' }, 'another range');
  faults.inject(get, { kind: 'headers', headers: { 'content-range': 'bytes 1000-1499/20000' } });
  await fails(t, range(), { kind: 'corrupt' }, 'another size');
  faults.inject(get, { kind: 'headers', headers: { 'content-range': undefined } });
  await fails(t, range(), { kind: 'corrupt' }, 'no range');
  faults.inject(get, { kind: 'as-status', status: 200 });
  await fails(t, range(), { kind: 'corrupt' }, 'the range ignored');
  faults.inject(get, { kind: 'as-status', status: 206 });
  await fails(t, whole(), { kind: 'corrupt' }, 'a part of what was asked for whole');
  faults.inject(get, { kind: 'body', body: Buffer.alloc(499) });
  await fails(t, range(), { kind: 'corrupt' }, 'too short');
  faults.inject(get, { kind: 'body', body: Buffer.alloc(501) });
  await fails(t, range(), { kind: 'corrupt' }, 'too long');
  faults.inject(get, { kind: 'headers', headers: { etag: '"0xOTHER"' } });
  await fails(t, range(), { kind: 'changed' }, 'another version');
  faults.inject(get, { kind: 'flip', at: 5000 });
  await fails(
    t,
    s.container.read('lie', { ifMatch: etag }),
    { kind: 'corrupt', message: /Content-MD5/ },
    'a flipped byte',
  );
  faults.inject(get, { kind: 'headers', headers: { etag: '"0xOTHER"' } });
  await fails(t, s.container.read('lie', { ifMatch: etag }), { kind: 'changed' });
  t.ok((await range()).equals(body.subarray(1000, 1500)), 'and without a lie it is read');
});

t.test('a storm of 503 is ridden out by reads, writes and listings', async (t) => {
  await using s = await scene();
  const busy = { kind: 'status', status: 503, code: 'ServerBusy' } as const;
  const body = randomBytes(3000);
  faults.inject({ method: 'PUT', times: 3 }, busy);
  await s.container.write('a', 'small', { metadata: {} });
  faults.inject({ method: 'PUT', times: 3 }, busy);
  const { etag } = await upload(s.connection, 'b', body, { metadata: {}, blockBytes: 1000 });
  faults.inject({ method: 'GET', times: 3 }, busy);
  t.equal((await s.container.read('a')).body.toString(), 'small');
  faults.inject({ method: 'GET', times: 3 }, busy);
  t.ok((await readRange(s.connection, 'b', body.length, etag)).equals(body));
  faults.inject({ method: 'GET', times: 3 }, busy);
  t.equal((await listed(s.container)).length, 2);
  faults.inject({}, busy);
  await fails(t, s.container.read('a'), { kind: 'throttled', status: 503 });
  await fails(t, upload(s.connection, 'b', body, { metadata: {}, blockBytes: 1000 }), { kind: 'throttled' });
});

t.test('connections that end and servers that are down', async (t) => {
  await using s = await scene();
  await s.container.write('a', 'x', { metadata: {} });
  faults.inject({ times: 2 }, { kind: 'reset' });
  t.equal((await s.container.read('a')).body.toString(), 'x');
  await faults.down();
  await fails(t, s.container.read('a'), { kind: 'unreachable' });
  await fails(t, s.container.write('a', 'y', { metadata: {} }), { kind: 'unreachable' });
  await fails(t, listed(s.container), { kind: 'unreachable' });
  await faults.up();
  t.equal((await s.container.read('a')).body.toString(), 'x', 'and it works again when they are back');
});

t.test('a cancelled call ends at once as aborted, and takes its connection with it', async (t) => {
  await using s = await scene();
  const body = randomBytes(2 * mib);
  const { etag } = await s.container.write('a', body, { metadata: {} });
  faults.inject({ method: 'GET', blob: 'a' }, { kind: 'stall', after: 1000 });
  const gone = new AbortController();
  let chunks = 0;
  const read = new FastBlobReader(s.connection).range(
    'a',
    { offset: 0, count: body.length, size: body.length },
    () => {
      chunks++;
      gone.abort();
    },
    { etag, signal: gone.signal },
  );
  await fails(t, read, { kind: 'aborted' });
  t.equal(chunks, 1);
  faults.clear();
  faults.inject({}, { kind: 'hang' });
  for (const call of [
    (signal: AbortSignal) => s.container.read('a', { signal }),
    (signal: AbortSignal) => s.container.properties('a', signal),
    (signal: AbortSignal) => s.container.delete('a', { signal }),
    (signal: AbortSignal) => s.container.write('a', 'x', { metadata: {}, signal }),
    (signal: AbortSignal) => s.container.appendLog('l', 'x', signal),
    (signal: AbortSignal) => upload(s.connection, 'a', body, { metadata: {}, blockBytes: mib, signal }),
  ]) {
    await fails(t, call(AbortSignal.abort()), { kind: 'aborted' });
    const later = new AbortController();
    faults.clearLog();
    const running = call(later.signal);
    running.catch(() => undefined);
    while (faults.log.length === 0) await new Promise((resolve) => setImmediate(resolve));
    later.abort();
    await fails(t, running, { kind: 'aborted' });
  }
});

t.test('an upload that is given up before its commit leaves the blob as it was', async (t) => {
  await using s = await scene();
  await s.container.write('a', 'old', { metadata: {} });
  const body = randomBytes(5000);
  for (const blockBytes of [1000, 10_000]) {
    const progress: number[] = [];
    const refused = upload(s.connection, 'a', body, {
      metadata: {},
      blockBytes,
      onProgress: (bytes) => progress.push(bytes),
      beforeCommit: () => Promise.resolve(false),
    });
    await fails(t, refused, { kind: 'aborted', message: /before the commit/ });
    t.equal(progress.length, blockBytes === 1000 ? 5 : 0, 'it was asked when only the commit was left');
    t.equal((await s.container.read('a')).body.toString(), 'old');
  }
  await fails(
    t,
    uploadBlob(s.connection, 'a', 5000, () => Promise.reject(new Error('the disk is gone')), {
      metadata: {},
      blockBytes: 1000,
    }),
    { message: 'the disk is gone' },
  );
  t.equal((await s.container.read('a')).body.toString(), 'old');
});

t.test(
  'a small blob is written where a large upload was given up, and nothing is replaced by that',
  async (t) => {
    await using s = await scene();
    const body = randomBytes(5000);
    const small = { metadata: {}, blockBytes: 10_000, ifNoneMatch: '*' } as const;
    const givenUp = async (name: string): Promise<void> => {
      const beforeCommit = (): Promise<boolean> => Promise.resolve(false);
      const large = upload(s.connection, name, body, { metadata: {}, blockBytes: 1000, beforeCommit });
      await fails(t, large, { kind: 'aborted' });
    };
    for (const [name, length] of [
      ['one byte', 1],
      ['empty', 0],
    ] as const) {
      await givenUp(name);
      await upload(s.connection, name, body.subarray(0, length), small);
      t.same((await s.container.read(name)).body, body.subarray(0, length), name);
    }
    await s.container.write('there', 'other', { metadata: {} });
    await givenUp('there');
    await fails(t, upload(s.connection, 'there', body, small), { kind: 'exists' });
    t.equal((await s.container.read('there')).body.toString(), 'other');
  },
);

t.test('a commit whose answer was lost is known by its id', async (t) => {
  await using s = await scene();
  const body = randomBytes(5000);
  for (const [name, blockBytes, query] of [
    ['single', 10_000, ''],
    ['blocks', 1000, 'comp=blocklist'],
  ] as const) {
    faults.inject({ method: 'PUT', blob: name, query, times: 1 }, { kind: 'lose-answer' });
    const made = await upload(s.connection, name, body, {
      metadata: { [uploadIdKey]: 'id-1' },
      blockBytes,
      ifNoneMatch: '*',
    });
    t.equal(made.etag, (await s.container.properties(name)).etag, name);
    faults.inject({ method: 'PUT', blob: name, query, times: 1 }, { kind: 'lose-answer' });
    const again = await upload(s.connection, name, body, {
      metadata: { [uploadIdKey]: 'id-2' },
      blockBytes,
      ifMatch: made.etag,
    });
    t.equal(again.etag, (await s.container.properties(name)).etag);
    await fails(
      t,
      upload(s.connection, name, body, {
        metadata: { [uploadIdKey]: 'id-3' },
        blockBytes,
        ifMatch: made.etag,
      }),
      { kind: 'changed' },
    );
  }
});

t.test('blocks go up in parallel and come out in order', async (t) => {
  await using s = await scene();
  const body = randomBytes(10 * 4096 + 17);
  let most = 0;
  let open = 0;
  const progress: number[] = [];
  const version = await uploadBlob(
    s.connection,
    'a',
    body.length,
    (at, count) => {
      open++;
      most = Math.max(most, open);
      return Promise.resolve(body.subarray(at, at + count)).finally(() => open--);
    },
    { metadata: {}, blockBytes: 4096, parallelBlocks: 4, onProgress: (bytes) => progress.push(bytes) },
  );
  t.equal(most, 1, 'the file is read in order');
  t.same(
    progress,
    progress.toSorted((a, b) => a - b),
  );
  t.equal(progress.at(-1), body.length);
  t.ok((await s.container.read('a', { ifMatch: version.etag })).body.equals(body));
});

t.test('the fault server and Azurite agree on what a request is', async (t) => {
  // Guards the helper: a proxy that changed anything signed would make every test above pass for a wrong reason.
  const status = await new Promise<number | undefined>((resolve) => {
    httpRequest(`${faults.url}?comp=list`, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    }).end();
  });
  t.equal(status, 403);
});
