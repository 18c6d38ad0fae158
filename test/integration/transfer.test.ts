import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import t from 'tap';
import { openContainer } from '../../src/blob/azure-container.js';
import type { BlobVersion, ContainerConfig } from '../../src/blob/port.js';
import type { Control, DownloadTask, UploadTask } from '../../src/workers/messages.js';
import { TransferPool } from '../../src/workers/pool.js';
import { closeConnections, runTransfer } from '../../src/workers/transfer.js';
import { Azurite } from '../helpers/azurite.js';
import { fails } from '../helpers/failure.js';
import { FaultServer } from '../helpers/fault-server.js';

const kib = 1024;
const mib = 1024 ** 2;
const azurite = await Azurite.start();
const faults = await FaultServer.start(azurite.url);
const dir = await mkdtemp(join(tmpdir(), 'lustrite-transfer-'));
const pool = new TransferPool();
t.teardown(async () => {
  await pool.close();
  await closeConnections();
  await faults[Symbol.asyncDispose]();
  await azurite[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

type Download = Omit<DownloadTask, 'kind' | 'port'>;
type Upload = Omit<UploadTask, 'kind' | 'port'>;

const md5Of = (bytes: Buffer): string => createHash('md5').update(bytes).digest('base64');

async function put(body: Buffer): Promise<{ config: ContainerConfig; blob: string; version: BlobVersion }> {
  const config = azurite.config(await azurite.newContainer(), { url: faults.url });
  await using container = openContainer(config);
  const version = await container.write('b', body, { metadata: {} });
  faults.clear();
  faults.clearLog();
  return { config, blob: 'b', version };
}

let files = 0;
async function newFile(size: number): Promise<{ path: string; handle: FileHandle } & AsyncDisposable> {
  const path = join(dir, String(files++));
  const handle = await open(path, 'w+');
  await handle.truncate(size);
  return { path, handle, [Symbol.asyncDispose]: () => handle.close() };
}

/** A way to run a task: on a thread of the pool, and on this one, where its lines can be stepped through. */
interface Runner {
  readonly name: string;
  download(
    task: Download,
    hooks?: { onProgress?: (bytes: number) => void; signal?: AbortSignal },
  ): Promise<unknown>;
}

const inline: Runner = {
  name: 'inline',
  async download(task, hooks = {}) {
    const { port1, port2 } = new MessageChannel();
    port1.on('message', (message: { bytes: number }) => hooks.onProgress?.(message.bytes));
    hooks.signal?.addEventListener('abort', () => {
      port1.postMessage({ cancel: true } satisfies Control);
    });
    try {
      const answer = await runTransfer({ ...task, kind: 'download', port: port2 });
      if ('failure' in answer) throw Object.assign(new Error(answer.failure.message), answer.failure);
      return answer;
    } finally {
      port1.close();
    }
  },
};
const pooled: Runner = { name: 'pooled', download: (task, hooks) => pool.download(task, hooks) };

t.test('a blob of any size lands byte for byte in the file', async (t) => {
  for (const size of [0, 1, 4096, 64 * kib + 1, 300 * kib, mib, 3 * mib + 1]) {
    const body = randomBytes(size);
    const { config, blob, version } = await put(body);
    for (const md5 of [undefined, md5Of(body)]) {
      for (const runner of [inline, pooled]) {
        await using file = await newFile(size);
        const progress: number[] = [];
        const result = await runner.download(
          {
            container: config,
            blob,
            fd: file.handle.fd,
            size,
            etag: version.etag,
            md5,
            rangeBytes: mib,
            parallelRanges: 3,
          },
          { onProgress: (bytes) => progress.push(bytes) },
        );
        t.match(result, { version: { etag: version.etag, size } }, `${runner.name} ${String(size)}`);
        t.ok((await readFile(file.path)).equals(body));
        t.same(
          progress,
          progress.toSorted((a, b) => a - b),
          'the prefix only grows',
        );
        t.ok((progress.at(-1) ?? 0) <= size);
      }
    }
    for (const { headers } of faults.requests({ method: 'GET' }))
      t.equal(headers['if-match'], `"${version.etag}"`);
    if (size <= mib)
      t.notOk(faults.requests({ method: 'GET' })[0]?.headers['x-ms-range'], 'one GET without a range');
    else t.equal(faults.count({ method: 'GET' }), 16, 'four ranges each');
  }
});

t.test('the progress of a download is a prefix that is in the file', async (t) => {
  const body = randomBytes(8 * mib);
  const { config, blob, version } = await put(body);
  await using file = await newFile(body.length);
  const checks: Promise<boolean>[] = [];
  await pool.download(
    {
      container: config,
      blob,
      fd: file.handle.fd,
      size: body.length,
      etag: version.etag,
      rangeBytes: mib,
      parallelRanges: 4,
    },
    {
      onProgress: (bytes) => {
        checks.push(
          readFile(file.path).then((now) => now.subarray(0, bytes).equals(body.subarray(0, bytes))),
        );
      },
    },
  );
  const checked = await Promise.all(checks);
  t.ok(checked.length > 0);
  t.ok(checked.every(Boolean));
});

t.test('that everything is there is told once, by the answer', async (t) => {
  const body = randomBytes(4096);
  const { config, blob, version } = await put(body);
  await using file = await newFile(body.length);
  const task = {
    container: config,
    blob,
    fd: file.handle.fd,
    size: body.length,
    etag: version.etag,
    rangeBytes: mib,
    parallelRanges: 4,
  };
  const { port1, port2 } = new MessageChannel();
  t.match(await runTransfer({ ...task, kind: 'download', port: port2 }), { version });
  t.equal(receiveMessageOnPort(port1), undefined);
  port1.close();
  const progress: number[] = [];
  await pool.download(task, { onProgress: (bytes) => progress.push(bytes) });
  t.same(progress, [body.length]);
});

t.test('a download survives cut bodies and 503, in every range', async (t) => {
  const body = randomBytes(4 * mib);
  const { config, blob, version } = await put(body);
  const task = {
    container: config,
    blob,
    size: body.length,
    etag: version.etag,
    md5: md5Of(body),
    rangeBytes: mib,
    parallelRanges: 4,
  };
  faults.inject({ method: 'GET', times: 4 }, { kind: 'cut', after: 300_000 });
  faults.inject({ method: 'GET', times: 4 }, { kind: 'status', status: 503, code: 'ServerBusy' });
  for (const runner of [inline, pooled]) {
    await using file = await newFile(body.length);
    await runner.download({ ...task, fd: file.handle.fd });
    t.ok((await readFile(file.path)).equals(body));
  }
});

t.test('a download that cannot be right fails by its kind', async (t) => {
  const body = randomBytes(3 * mib);
  const { config, blob, version } = await put(body);
  for (const runner of [inline, pooled]) {
    for (const rangeBytes of [mib, 4 * mib]) {
      await using file = await newFile(body.length);
      const task = {
        container: config,
        blob,
        fd: file.handle.fd,
        size: body.length,
        etag: version.etag,
        rangeBytes,
        parallelRanges: 4,
      };
      await fails(t, runner.download({ ...task, etag: '0x123' }), { kind: 'changed', status: 412 });
      // A condition on a blob that is not there: 412 from Azurite, and 404 is as good.
      await fails(t, runner.download({ ...task, blob: 'none' }), { kind: /changed|missing/ });
      await fails(t, runner.download({ ...task, md5: md5Of(Buffer.from('other')) }), {
        kind: 'corrupt',
        message: /MD5/,
      });
      await fails(t, runner.download({ ...task, size: body.length - 1 }), { kind: 'corrupt' });
      await fails(t, runner.download({ ...task, size: body.length + 1 }), { kind: 'corrupt' });
      // Every GET: a range of the failed download before, cancelled on its way, would use up a single one.
      faults.inject({ method: 'GET' }, { kind: 'flip', at: 1000 });
      await fails(t, runner.download({ ...task, md5: md5Of(body) }), { kind: 'corrupt', message: /MD5/ });
      faults.clear();
      faults.inject({ method: 'GET' }, { kind: 'status', status: 409, code: 'BlobArchived' });
      await fails(t, runner.download(task), { kind: 'archived' });
      faults.clear();
    }
    await using file = await newFile(10);
    const small = {
      container: config,
      blob,
      fd: file.handle.fd,
      etag: version.etag,
      rangeBytes: mib,
      parallelRanges: 4,
    };
    await fails(
      t,
      runner.download({ ...small, size: 10 }),
      { kind: 'corrupt' },
      'a blob larger than was said',
    );
  }
});

t.test('a file that cannot take the bytes gives its errno', async (t) => {
  const body = randomBytes(3 * mib);
  const { config, blob, version } = await put(body);
  const small = await put(randomBytes(4096));
  const full = await open('/dev/full', 'w');
  const readOnly = await open('/dev/null', 'r');
  for (const runner of [inline, pooled]) {
    for (const rangeBytes of [mib, 4 * mib]) {
      const task = {
        container: config,
        blob,
        size: body.length,
        etag: version.etag,
        rangeBytes,
        parallelRanges: 4,
      };
      await fails(t, runner.download({ ...task, fd: full.fd }), { errno: constants.errno.ENOSPC });
      await fails(t, runner.download({ ...task, fd: readOnly.fd }), { errno: constants.errno.EBADF });
    }
    const task = {
      container: small.config,
      blob: small.blob,
      size: 4096,
      etag: small.version.etag,
      rangeBytes: mib,
      parallelRanges: 4,
    };
    await fails(t, runner.download({ ...task, fd: full.fd }), { errno: constants.errno.ENOSPC });
  }
  await full.close();
  await readOnly.close();
});

t.test('a cancelled download settles as aborted and writes no more', async (t) => {
  const body = randomBytes(8 * mib);
  const { config, blob, version } = await put(body);
  for (const runner of [inline, pooled]) {
    await using file = await newFile(body.length);
    faults.inject({ method: 'GET', blob, skip: 2 }, { kind: 'stall', after: 1000 });
    const gone = new AbortController();
    const running = runner.download(
      {
        container: config,
        blob,
        fd: file.handle.fd,
        size: body.length,
        etag: version.etag,
        rangeBytes: mib,
        parallelRanges: 2,
      },
      {
        signal: gone.signal,
        onProgress: () => {
          gone.abort();
        },
      },
    );
    await fails(t, running, { kind: 'aborted' }, runner.name);
    faults.clear();
    const blank = Buffer.alloc(body.length);
    await file.handle.write(blank, 0, blank.length, 0);
    // Another transfer on the same threads: whatever was still under way would have been written by its end.
    await using other = await newFile(body.length);
    await runner.download({
      container: config,
      blob,
      fd: other.handle.fd,
      size: body.length,
      etag: version.etag,
      rangeBytes: mib,
      parallelRanges: 2,
    });
    t.ok((await readFile(file.path)).equals(blank));
  }
  await using file = await newFile(10);
  const task = {
    container: config,
    blob,
    fd: file.handle.fd,
    size: body.length,
    etag: version.etag,
    rangeBytes: mib,
    parallelRanges: 2,
  };
  await fails(t, pool.download(task, { signal: AbortSignal.abort() }), { kind: 'aborted' });
});

async function uploadTask(
  body: Buffer,
  over: Partial<Upload> = {},
): Promise<Upload & { path: string } & AsyncDisposable> {
  const path = join(dir, String(files++));
  await writeFile(path, body);
  const handle = await open(path, 'r');
  const config = azurite.config(await azurite.newContainer(), { url: faults.url });
  faults.clear();
  faults.clearLog();
  return {
    container: config,
    blob: 'up',
    fd: handle.fd,
    size: body.length,
    metadata: { owner: '1' },
    blockBytes: mib,
    parallelBlocks: 3,
    ...over,
    path,
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

function sendable({
  container,
  blob,
  fd,
  size,
  metadata,
  headers,
  tier,
  ifMatch,
  ifNoneMatch,
  blockBytes,
  parallelBlocks,
}: Upload): Upload {
  return {
    container,
    blob,
    fd,
    size,
    metadata,
    headers,
    tier,
    ifMatch,
    ifNoneMatch,
    blockBytes,
    parallelBlocks,
  };
}

t.test('a file of any size becomes a blob, committed once when it was allowed', async (t) => {
  for (const size of [0, 1, mib, 3 * mib + 1]) {
    const body = randomBytes(size);
    await using task = await uploadTask(body, { headers: { contentType: 'text/x-test' }, tier: 'Cool' });
    await using container = openContainer(task.container);
    const progress: number[] = [];
    let asked = 0;
    const { version } = await pool.upload(sendable(task), {
      onProgress: (bytes) => progress.push(bytes),
      beforeCommit: async () => {
        asked++;
        await fails(t, container.properties('up'), { kind: 'missing' }, 'nothing is there before the commit');
        return true;
      },
    });
    t.equal(asked, 1);
    t.equal(version.md5, md5Of(body));
    t.equal(progress.at(-1) ?? 0, size);
    t.ok((await container.read('up', { ifMatch: version.etag })).body.equals(body));
    t.match(await container.properties('up'), {
      ...version,
      metadata: { owner: '1' },
      tier: 'Cool',
      headers: { contentType: 'text/x-test' },
    });
    await fails(t, pool.upload({ ...sendable(task), ifNoneMatch: '*' }), { kind: 'exists' });
    await fails(t, pool.upload({ ...sendable(task), ifMatch: '0x1' }), { kind: 'changed' });
  }
});

t.test('an upload that is refused, cancelled or cut short never touches the blob', async (t) => {
  const body = randomBytes(3 * mib);
  for (const blockBytes of [mib, 4 * mib]) {
    await using task = await uploadTask(body, { blockBytes });
    await using container = openContainer(task.container);
    await container.write('up', 'old', { metadata: {} });
    await fails(t, pool.upload(sendable(task), { beforeCommit: () => Promise.resolve(false) }), {
      kind: 'aborted',
    });
    await fails(t, pool.upload(sendable(task), { beforeCommit: () => Promise.reject(new Error('no')) }), {
      kind: 'aborted',
    });
    const gone = new AbortController();
    const cancelled = pool.upload(sendable(task), {
      signal: gone.signal,
      beforeCommit: () => {
        gone.abort();
        return new Promise(() => undefined); // never answers
      },
    });
    await fails(t, cancelled, { kind: 'aborted' });
    await fails(t, pool.upload({ ...sendable(task), size: body.length + 1 }), {
      kind: 'aborted',
      message: /shorter/,
    });
    faults.inject(
      { method: 'PUT', blob: 'up' },
      { kind: 'status', status: 403, code: 'AuthorizationFailure' },
    );
    await fails(t, pool.upload(sendable(task)), { kind: 'forbidden', status: 403 });
    faults.clear();
    t.equal((await container.read('up')).body.toString(), 'old');
  }
});

t.test(
  'more transfers than the threads take wait their turn, and closing the pool ends them all',
  async (t) => {
    const body = randomBytes(5000);
    const { config, blob, version } = await put(body);
    const narrow = new TransferPool({ workers: 1, tasksPerWorker: 2 });
    let release: () => void = () => undefined;
    faults.inject(
      { method: 'GET', times: 2 },
      { kind: 'hold', until: new Promise<void>((resolve) => (release = resolve)) },
    );
    const gone = new AbortController();
    const handles = await Promise.all(Array.from({ length: 8 }, () => newFile(body.length)));
    const task = {
      container: config,
      blob,
      size: body.length,
      etag: version.etag,
      rangeBytes: mib,
      parallelRanges: 1,
    };
    const running = handles.map((file, index) =>
      narrow.download({ ...task, fd: file.handle.fd }, index === 5 ? { signal: gone.signal } : {}),
    );
    t.equal(narrow.size, 8);
    gone.abort();
    await fails(
      t,
      running[5] ?? Promise.resolve(),
      { kind: 'aborted' },
      'one that waits is cancelled at once',
    );
    release();
    for (const [index, file] of handles.entries()) {
      if (index !== 5) {
        await running[index];
        t.ok((await readFile(file.path)).equals(body));
      }
      await file[Symbol.asyncDispose]();
    }
    t.equal(narrow.size, 0);

    faults.inject({ method: 'GET' }, { kind: 'hang' });
    await using file = await newFile(body.length);
    const last = Array.from({ length: 4 }, () => narrow.download({ ...task, fd: file.handle.fd }));
    const settled = Promise.all(last.map((one) => fails(t, one, { kind: 'aborted' }, 'closing cancels it')));
    await narrow.close();
    await settled;
    await fails(
      t,
      narrow.download({ ...task, fd: file.handle.fd }),
      { kind: 'aborted' },
      'a closed pool takes nothing',
    );
    faults.clear();
  },
);

t.test('a thread that dies fails its transfers, and the pool goes on', async (t) => {
  const worker = join(dir, 'dying.mjs');
  await writeFile(
    worker,
    `export function runTransfer({ blob, size }) {
       if (blob === 'exit') process.exit(3);
       if (blob === 'throw') return new Promise(() => setImmediate(() => { throw new Error('boom'); }));
       return { version: { etag: blob, size, lastModifiedMs: 0 } };
     }`,
  );
  await using frail = new TransferPool({ workers: 1, workerFile: worker });
  await using file = await newFile(1);
  const task = {
    container: azurite.config('none'),
    fd: file.handle.fd,
    size: 1,
    etag: '0x1',
    rangeBytes: mib,
    parallelRanges: 1,
  };
  for (const death of ['exit', 'throw']) {
    const [dying, beside] = [
      frail.download({ ...task, blob: death }),
      frail.download({ ...task, blob: 'throw' }),
    ];
    await fails(t, dying, { kind: 'other', message: /transfer thread died/ });
    await fails(t, beside, { kind: 'other', message: /transfer thread died/ });
    t.match(await frail.download({ ...task, blob: 'fine' }), { version: { etag: 'fine' } });
  }
});

t.test('a thread that cannot start fails what waits for it instead of leaving it waiting', async (t) => {
  const worker = join(dir, 'broken.mjs');
  await writeFile(worker, `throw new Error('broken');`);
  const { config, blob, version } = await put(Buffer.from('x'));
  await using broken = new TransferPool({ workers: 1, tasksPerWorker: 2, workerFile: worker });
  await using file = await newFile(1);
  const task = {
    container: config,
    blob,
    fd: file.handle.fd,
    size: 1,
    etag: version.etag,
    rangeBytes: mib,
    parallelRanges: 1,
  };
  await Promise.all(
    [1, 2, 3].map(() => fails(t, broken.download(task), { kind: 'other', message: /transfer thread died/ })),
  );
});
