/** What readers, exports and mounts see when the blob service fails: the right bytes or an error, and the cause in the log. */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlockBlobClient } from '@azure/storage-blob';
import { ContainerSASPermissions } from '@azure/storage-blob';
import t, { type Test } from 'tap';
import type { JobView } from '../../src/base/control-api.js';
import type { JobLogLine } from '../../src/jobs/job-log.js';
import { Azurite } from '../helpers/azurite.js';
import { FaultServer, type Fault, type Match } from '../helpers/fault-server.js';
import { Host } from '../helpers/host.js';
import { hsmFlags, lfs, states, untilFlags } from '../helpers/lfs.js';
import { lustrite, TestMount } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount, mountAt } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, run, shell, start, type Ended } from '../helpers/run.js';
import { Dice } from '../helpers/tree.js';

const dice = new Dice(4711);
/** Through one GET; through one range; through three. */
const sizes = { small: 5_000, medium: 600_000, big: 2_500_000 } as const;
const content: Readonly<Record<keyof typeof sizes, Buffer>> = {
  small: dice.bytes(sizes.small),
  medium: dice.bytes(sizes.medium),
  big: dice.bytes(sizes.big),
};
const settings = {
  LUSTRITE_HYDRATE_RANGE_BYTES: String(1024 * 1024),
  LUSTRITE_TRANSFER_TRIES: '3',
  LUSTRITE_TRANSFER_STALL_MS: '2000',
};

const everySize = ['small', 'medium', 'big'] as const;
const ranged = ['medium', 'big'] as const;

/** A stub, what happens to its blob, and what a reader gets. */
interface Row {
  readonly what: string;
  readonly on?: readonly (keyof typeof sizes)[];
  /** Injected for the GETs of the blob. */
  readonly fault?: Fault;
  readonly times?: number;
  /** Done to the blob after the import. */
  readonly change?: (blob: BlockBlobClient) => Promise<unknown>;
  /** The cause of ENODATA that the log names; none: the read succeeds. */
  readonly cause?: RegExp;
  /** What a reader gets in place of the old content. */
  readonly becomes?: Buffer;
  /** Undoes `change`. */
  readonly heal?: (blob: BlockBlobClient, body: Buffer) => Promise<unknown>;
}

const upload = (blob: BlockBlobClient, body: Buffer): Promise<unknown> => blob.upload(body, body.length);
const forbidden: Fault = { kind: 'status', status: 403, code: 'AuthenticationFailed' };
const busy: Fault = { kind: 'status', status: 503, code: 'ServerBusy' };
const longer = dice.bytes(8_000);
const shorter = dice.bytes(100);
const sameSize = dice.bytes(sizes.small);

const rows: readonly Row[] = [
  { what: 'a blob that is deleted', change: (blob) => blob.delete(), cause: /404/, heal: upload },
  { what: 'a blob that became longer', change: (blob) => upload(blob, longer), becomes: longer },
  { what: 'a blob that became shorter', change: (blob) => upload(blob, shorter), becomes: shorter },
  { what: 'another blob of the same size', change: (blob) => upload(blob, sameSize), becomes: sameSize },
  {
    what: 'a big blob that became short',
    on: ['big'],
    change: (blob) => upload(blob, shorter),
    becomes: shorter,
  },
  {
    what: 'a blob in the archive tier',
    change: (blob) => blob.setAccessTier('Archive'),
    cause: /BlobArchived|archive/i,
    heal: (blob) => blob.setAccessTier('Hot'),
  },
  { what: 'a leased blob', change: (blob) => blob.getBlobLeaseClient().acquireLease(-1) },
  { what: 'a refused key', on: everySize, fault: forbidden, cause: /403 AuthenticationFailed/ },
  { what: 'a short 503 storm', on: everySize, fault: busy, times: 2 },
  { what: 'a long 503 storm', on: everySize, fault: busy, cause: /503 ServerBusy/ },
  { what: 'a server error', fault: { kind: 'status', status: 500 }, cause: /500/ },
  { what: 'a connection that is reset once', on: everySize, fault: { kind: 'reset' }, times: 1 },
  { what: 'connections that are reset', fault: { kind: 'reset' }, cause: /closed|reset|socket|hang up/i },
  { what: 'one answer that never comes', fault: { kind: 'hang' }, times: 1 },
  { what: 'answers that never come', fault: { kind: 'hang' }, cause: /time|no answer|slow/i },
  { what: 'a body that is cut once', on: everySize, fault: { kind: 'cut', after: 1_000 }, times: 1 },
  {
    what: 'bodies that are cut',
    on: everySize,
    fault: { kind: 'cut', after: 500 },
    cause: /cut|closed|terminated/,
  },
  { what: 'a body that stalls once', on: everySize, fault: { kind: 'stall', after: 1_000 }, times: 1 },
  {
    what: 'bodies that stall',
    on: ['small', 'big'],
    fault: { kind: 'stall', after: 0 },
    cause: /time|slow/i,
  },
  {
    what: 'a range of other bytes',
    on: ['big'],
    fault: { kind: 'headers', headers: { 'content-range': 'bytes 7-1048582/2500000' } },
    cause: /asked for bytes/,
  },
  {
    what: 'a range that is none',
    on: ['big'],
    fault: { kind: 'as-status', status: 200 },
    cause: /asked for/,
  },
  {
    what: 'a body of another length',
    on: everySize,
    fault: { kind: 'body', body: shorter },
    cause: /100 bytes|Content-MD5/,
  },
  { what: 'an empty body', on: ranged, fault: { kind: 'body', body: Buffer.alloc(0) }, cause: /0 bytes/ },
  {
    what: 'another version than was asked for',
    on: everySize,
    fault: { kind: 'headers', headers: { etag: '"0x8DC0000000000000"' } },
    cause: /another version/,
  },
  { what: 'a flipped bit', fault: { kind: 'flip', at: 2_345 }, cause: /Content-MD5/ },
];

interface Case extends Row {
  readonly name: string;
  readonly body: Buffer;
}

const cases: readonly Case[] = rows.flatMap((row) =>
  (row.on ?? ['small']).map((size) => ({ ...row, name: `${row.what} (${size})`, body: content[size] })),
);

/** Reads a whole file as a program does. */
const cat = (path: string): Promise<Ended> => run('cat', [path], { timeoutMs: 180_000 });

async function catAgain(path: string): Promise<Buffer> {
  return until(
    async () => {
      const { code, stdoutBytes } = await cat(path);
      return code === 0 && stdoutBytes;
    },
    { what: `${path} to be readable again` },
  );
}

/** Lines of the daemon's log about a failed restore of a blob. */
const causes = (mount: TestMount, blob: string): readonly string[] =>
  mount
    .log()
    .split('\n')
    .filter((line) => line.includes('restore failed') && line.includes(JSON.stringify(blob)));

/** A reader got nothing but the beginning of the right content and an error, and the file is a stub still. */
async function isEnodata(t: Test, mount: TestMount, name: string, body: Buffer, ended: Ended): Promise<void> {
  t.equal(ended.code, 1, `${name}: an error`);
  t.match(ended.stderr, 'No data available', name);
  const { stdoutBytes } = ended;
  t.ok(stdoutBytes.length < body.length, `${name}: not everything`);
  t.ok(body.subarray(0, stdoutBytes.length).equals(stdoutBytes), `${name}: no wrong byte`);
  t.equal(await hsmFlags(mount.at(name)), states.stub, `${name}: a stub still`);
  t.match(await stat(mount.at(name)), { size: body.length, blocks: 1 }, `${name}: of its size`);
}

t.test('a job that waits for the storage says so, and since when', { skip: cannotMount }, async (t) => {
  const { mount, storage } = await MountedContainer.start(t, { a: 'a' });
  storage.inject({ query: 'comp=list' }, busy);
  const created = mount.control('POST', '/v1/jobs/import', { name: 'waits' });
  const shown = async (): Promise<JobView> => (await mount.control('GET', '/v1/jobs/waits')) as JobView;
  await created;
  const waits = await until(
    async () => {
      const job = await shown();
      return job.storageOutage && job;
    },
    { what: 'the outage to be known' },
  );
  t.match(waits, { properties: { status: { state: 'InProgress' } }, storageOutage: { message: /503/ } });
  t.equal((await mount.status())?.storageOutage?.since, waits.storageOutage?.since);
  const { stdout } = await lustrite(['status', mount.path]);
  t.match(stdout, /container +\S+; the storage is unavailable since 20\S+Z: HTTP status 503/);
  storage.clear();
  const ended = await until(
    async () => {
      const job = await shown();
      return job.properties.status.state === 'Completed' && job;
    },
    { what: 'the import to end' },
  );
  t.equal(ended.storageOutage, undefined);
  t.equal((await mount.status())?.storageOutage, undefined);
});

t.test(
  'many requests that wait for the storage leave only JSON lines in daemon.log',
  { skip: cannotMount },
  async (t) => {
    const azurite = await Azurite.start();
    t.teardown(() => azurite[Symbol.asyncDispose]());
    await azurite.service.createContainer('data');
    const big = Buffer.alloc(16 * 1024 * 1024);
    await azurite.client('data').getBlockBlobClient('big').uploadData(big);
    const storage = await FaultServer.start(azurite.url);
    t.teardown(() => storage[Symbol.asyncDispose]());
    const host = await Host.create(t, {
      ...settings,
      LUSTRITE_HYDRATE_PARALLEL_RANGES: '16',
      LUSTRITE_TRANSFER_PARALLEL_BLOCKS: '16',
      LUSTRITE_TRANSFER_BLOCK_BYTES: String(1024 * 1024),
      AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(storage.url),
    });
    t.match(await host.mount('--wait'), { code: 0 });
    t.ok((await readFile(host.at('big'))).equals(big));
    for (let n = 0; n < 30; n++) await writeFile(host.at(`new-${String(n)}`), 'new');
    await writeFile(host.at('new-big'), big);
    storage.inject({ method: 'PUT' }, { kind: 'reset' });
    const ended = await host.lustrite('export', 'create', host.mnt, '--wait');
    t.match(ended, { code: 1 }, 'nothing was exported');
    t.match(await host.umount(), { code: 0 });
    const lines = (await host.log()).trimEnd().split('\n');
    t.same(
      lines.filter((line) => !line.startsWith('{')),
      [],
    );
  },
);

/** Reads every file to its end, eight at a time, three times each and in each way; prints which were not whole. */
const readers = `
import collections, os, sys, threading
root, names, size, wrong = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), []
def whole(path):
    file = os.open(path, os.O_RDONLY)
    parts = []
    while part := os.read(file, 1 << 17): parts.append(part)
    os.close(file)
    return b''.join(parts)
def copied(send):
    def copy(path):
        file, out = os.open(path, os.O_RDONLY), os.open(f'{root}/{threading.get_ident()}', os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        while send(file, out): pass
        os.close(file)
        copy = os.pread(out, size + 1, 0)
        os.close(out)
        return copy
    return copy
ways = {
    'read': whole,
    'sendfile': copied(lambda file, out: os.sendfile(out, file, None, 1 << 17)),
    'copy_file_range': copied(lambda file, out: os.copy_file_range(file, out, 1 << 17)),
}
def read_all(way):
    for n in range(names):
        for _ in range(3):
            if ways[way](f'{root}/f{n}') != b'x' * size: wrong.append(way)
threads = [threading.Thread(target=read_all, args=(way,)) for way in ['read', 'read', *ways, *ways]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(collections.Counter(wrong) or 'all whole')
`;

t.test(
  'rule 2: readers side by side of blobs that became longer all get the whole',
  { skip: cannotMount },
  async (t) => {
    const names = Array.from({ length: 200 }, (_, n) => `f${n}`);
    const blobs = Object.fromEntries(names.map((name) => [name, 'x'.repeat(5000)]));
    const { mount, container } = await MountedContainer.start(t, blobs);
    const longer = 'x'.repeat(8000);
    await Promise.all(names.map((name) => container.getBlockBlobClient(name).upload(longer, longer.length)));
    const read = await run('python3', ['-c', readers, mount.path, String(names.length), '8000']);
    t.match(read, { code: 0, stdout: 'all whole\n' });
  },
);

t.test(
  'a daemon that is killed while its kernel learns new sizes is gone',
  { skip: cannotMount },
  async (t) => {
    const rounds = 4;
    const files = 30;
    const names = Array.from({ length: rounds * files }, (_, n) => `f${n}`);
    const { mount, container, storage } = await MountedContainer.start(
      t,
      Object.fromEntries(names.map((name) => [name, 'x'.repeat(5000)])),
    );
    const longer = 'x'.repeat(8000);
    await Promise.all(names.map((name) => container.getBlockBlobClient(name).upload(longer, longer.length)));
    for (let round = 0; round < rounds; round++) {
      storage.clearLog();
      const reader = run('xargs', ['-P8', '-n1', 'cat'], {
        input: names
          .slice(round * files, (round + 1) * files)
          .map((name) => mount.at(name))
          .join('\n'),
      });
      await until(() => storage.log.length > round * 4, { what: 'restores' });
      await mount.kill();
      await reader;
      await mount.remount();
    }
    t.ok((await shell('cat "$1"/f*', [mount.path])) === longer.repeat(names.length), 'all are whole');
  },
);

/** Changes files whose blobs have other sizes by now, each beside a reader; prints which changes failed or came out wrong. */
const changers = `
import fcntl, os, sys, threading, time
root, size, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def beside(path):
    file, out = os.open(path, os.O_RDONLY), os.memfd_create('copy')
    try:
        while os.sendfile(out, file, None, 1 << 17): pass
    except OSError: pass
    os.close(file)
    os.close(out)
def opened(flags, change):
    def by_handle(path):
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK | flags)
        change(file)
        os.close(file)
    return by_handle
def appended(flags):
    def by_handle(path):
        file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | flags)
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
        left = b'y' * 30000
        while left:
            try: left = left[os.write(file, left):]
            except BlockingIOError: time.sleep(0.01)
        with open(path, 'rb') as other:
            if other.read() != whole + b'y' * 30000: print('another handle has another content of', path)
        os.close(file)
    return by_handle
whole = b'x' * size
changes = {
    'shorter': (lambda path: os.truncate(path, 4), whole[:4]),
    'longer': (lambda path: os.truncate(path, 12000), whole.ljust(12000, b'\\0')),
    'ftruncate': (opened(0, lambda file: os.ftruncate(file, 12000)), whole.ljust(12000, b'\\0')),
    'append': (opened(os.O_APPEND, lambda file: os.write(file, b'y')), whole + b'y'),
    'appends': (appended(os.O_APPEND), whole + b'y' * 30000),
    'late': (appended(0), whole + b'y' * 30000),
    'behind': (opened(0, lambda file: os.pwrite(file, b'y', 12000)), whole.ljust(12000, b'\\0') + b'y'),
}
for n in range(rounds):
    for name, (change, becomes) in changes.items():
        path = f'{root}/{name}{n}'
        reader = threading.Thread(target=beside, args=(path,))
        reader.start()
        try: change(path)
        except OSError as error: print(name, error)
        reader.join()
        with open(path, 'rb') as file: content = file.read()
        if content != becomes: print(name, len(content), 'instead of', len(becomes))
print('done')
`;

for (const [what, size] of [
  ['longer', 8000],
  ['shorter', 3000],
] as const) {
  t.test(
    `a stub whose blob became ${what} is truncated and written like any other`,
    { skip: cannotMount },
    async (t) => {
      const rounds = 6;
      const names = ['shorter', 'longer', 'ftruncate', 'append', 'appends', 'late', 'behind'].flatMap(
        (name) => Array.from({ length: rounds }, (_, n) => `${name}${n}`),
      );
      const { mount, container } = await MountedContainer.start(
        t,
        Object.fromEntries(names.map((name) => [name, 'x'.repeat(5000)])),
      );
      const becomes = 'x'.repeat(size);
      await Promise.all(names.map((name) => container.getBlockBlobClient(name).upload(becomes, size)));
      const changed = await run('python3', ['-c', changers, mount.path, String(size), String(rounds)]);
      t.match(changed, { code: 0, stdout: 'done\n' });
    },
  );
}

/** Copies a file that is open while something else is mounted over the mount, and again when that is gone. */
const covered = `
import errno, os, subprocess, sys
root, size = sys.argv[1], int(sys.argv[2])
def copied():
    out = os.memfd_create('copy')
    try:
        os.lseek(file, 0, os.SEEK_SET)
        while os.sendfile(out, file, None, 1 << 17): pass
    except OSError as error:
        return errno.errorcode[error.errno]
    return 'whole' if os.pread(out, size + 1, 0) == b'x' * size else 'torn'
file = os.open(f'{root}/grown', os.O_RDONLY)
subprocess.run(['mount', '-t', 'tmpfs', 'cover', root], check=True)
try: print(copied())
finally: subprocess.run(['umount', root], check=True)
print(copied())
`;

t.test(
  'rule 2: where the kernel cannot be told the new size of a file, its readers get ENODATA and no part of it',
  { skip: cannotMount },
  async (t) => {
    const { mount, container } = await MountedContainer.start(t, { grown: 'x'.repeat(5000) });
    await container.getBlockBlobClient('grown').upload('x'.repeat(8000), 8000);
    t.match(await run('python3', ['-c', covered, mount.path, '8000']), {
      code: 0,
      stdout: 'ENODATA\nwhole\n',
    });
    t.equal((await readFile(mount.at('grown'))).length, 8000);
  },
);

t.test('storage faults', { skip: cannotMount }, async (t) => {
  const azurite = await Azurite.start({ persist: true });
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const faults = await FaultServer.start(azurite.url);
  t.teardown(() => faults[Symbol.asyncDispose]());
  const env = { ...settings, AZURE_STORAGE_CONNECTION_STRING: azurite.connectionStringAt(faults.url) };
  const container = await azurite.newContainer();
  const client = azurite.client(container);
  const blob = (name: string): BlockBlobClient => client.getBlockBlobClient(name);
  const get = (name: string): Match => ({ method: 'GET', blob: name });
  const others = ['append', 'truncate', 'open for writing', 'map', 'run', 'mixed', 'down', 'restarted'];
  await Promise.all([
    ...cases.map(({ name, body }) => upload(blob(name), body)),
    ...others.map((name) => upload(blob(name), content.big)),
  ]);
  const pages = Buffer.alloc(1024, 'page');
  await client.getPageBlobClient('a page blob').create(1024);
  await client.getPageBlobClient('a page blob').uploadPages(pages, 0, 1024);
  await client.getAppendBlobClient('an append blob').create();
  await client.getAppendBlobClient('an append blob').appendBlock('appended', 8);
  const mount = await TestMount.start(t, { container, env });

  await t.test('a reader of a stub gets the right bytes or ENODATA', async (t) => {
    await Promise.all(
      cases.map(async ({ name, body, change, fault, times, cause, becomes }) => {
        await change?.(blob(name));
        if (fault) faults.inject({ ...get(name), ...(times !== undefined && { times }) }, fault);
        const path = mount.at(name);
        const ended = await cat(path);
        if (cause === undefined) {
          t.match(ended, { code: 0, stderr: '' }, name);
          t.ok(ended.stdoutBytes.equals(becomes ?? body), `${name}: the right bytes`);
        } else {
          await isEnodata(t, mount, name, body, ended);
          t.match(causes(mount, name)[0], cause, `${name}: the log names blob and cause`);
        }
      }),
    );
    faults.clear();
    await Promise.all(
      cases.map(async ({ name, body, becomes, cause, heal }) => {
        if (cause !== undefined) await heal?.(blob(name), body);
        const expected = becomes ?? body;
        t.ok((await catAgain(mount.at(name))).equals(expected), `${name}: right when the fault is over`);
        t.equal(await hsmFlags(mount.at(name)), states.clean, name);
        t.equal((await stat(mount.at(name))).size, expected.length, name);
      }),
    );
  });

  await t.test('page blobs and append blobs are read like others', async (t) => {
    t.ok((await cat(mount.at('a page blob'))).stdoutBytes.equals(pages));
    t.equal((await cat(mount.at('an append blob'))).stdout, 'appended');
  });

  await t.test('whoever needs the data of a stub that cannot be had is told so', async (t) => {
    const touched = ['append', 'truncate', 'open for writing', 'map', 'run'];
    for (const name of touched) faults.inject(get(name), forbidden);
    const mapping = `import mmap, os, sys; mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)[0]`;
    const table: readonly (readonly [string, string, RegExp | NodeJS.Signals])[] = [
      ['append', 'echo x >> "$1"', /No data available/],
      ['truncate', 'truncate -s 10 "$1"', /No data available/],
      ['open for writing', 'dd if=/dev/zero of="$1" bs=1 count=1 conv=notrunc', /No data available/],
      ['map', `exec python3 -c '${mapping}' "$1"`, 'SIGBUS'],
      ['run', 'chmod +x "$1"; exec "$1"', /./],
    ];
    for (const [name, script, expected] of table) {
      const ended = await run('bash', ['-c', script, 'bash', mount.at(name)]);
      if (typeof expected === 'string') t.equal(ended.signal, expected, name);
      else t.match(ended, { stderr: expected }, name);
      t.not(ended.code, 0, name);
      t.equal(await hsmFlags(mount.at(name)), states.stub, `${name}: nothing has changed`);
      t.equal((await stat(mount.at(name))).size, sizes.big, name);
    }
    faults.clear();
    for (const name of touched) {
      t.ok((await catAgain(mount.at(name))).equals(content.big), `${name}: readable afterwards`);
    }
  });

  await t.test('rule 9: a reader never gets bytes of two versions', async (t) => {
    let release = (): void => undefined;
    const until = new Promise<void>((resolve) => {
      release = resolve;
    });
    // One of the three ranges comes, the other two wait until the blob is another one.
    faults.inject({ ...get('mixed'), skip: 1, times: 2 }, { kind: 'hold', until });
    const script = `import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
got = b''
while True:
    try: part = os.read(fd, 65536)
    except OSError as error: sys.exit(error.errno)
    if not part: break
    sys.stdout.buffer.write(part); sys.stdout.buffer.flush()`;
    const reader = start('python3', ['-c', script, mount.at('mixed')]);
    await new Promise((resolve) => reader.child.stdout?.once('data', resolve));
    const replacement = dice.bytes(sizes.big);
    await upload(blob('mixed'), replacement);
    release();
    const { code, stdoutBytes } = await reader.ended;
    t.equal(code, 61, 'ENODATA');
    t.ok(stdoutBytes.length > 0 && stdoutBytes.length < sizes.big, 'after some bytes');
    t.ok(content.big.subarray(0, stdoutBytes.length).equals(stdoutBytes), 'of the old version only');
    faults.clear();
    t.ok((await catAgain(mount.at('mixed'))).equals(replacement), 'a new reader gets the new one');
  });

  await t.test('storage that is down is no data; when it is back, everything goes on', async (t) => {
    await faults.down();
    await isEnodata(t, mount, 'down', content.big, await cat(mount.at('down')));
    t.match(causes(mount, 'down')[0], /ECONNREFUSED/);
    t.equal((await lfs(['hsm_restore', mount.at('down')])).code, 0, 'a request is taken');
    t.equal((await mount.status())?.pid, mount.pid, 'the daemon is well');
    await faults.up();
    t.ok((await catAgain(mount.at('down'))).equals(content.big), 'without a new mount');

    await azurite.kill('SIGTERM');
    await isEnodata(t, mount, 'restarted', content.big, await cat(mount.at('restarted')));
    await azurite.restart();
    t.ok((await catAgain(mount.at('restarted'))).equals(content.big), 'after a restart of the service');
    await untilFlags(mount.at('restarted'), states.clean);
  });

  await t.test(
    'exports lose nothing: what failed is named, stays dirty, and goes with the next one',
    async (t) => {
      const put = (name: string): Match => ({ method: 'PUT', blob: name });
      /** What the newest export said of files. */
      const exportLog = async (): Promise<readonly JobLogLine[]> => {
        const jobs = join(mount.store, 'jobs');
        const newest =
          (await readdir(jobs))
            .filter((name) => name.includes('export'))
            .sort()
            .at(-1) ?? '';
        const lines = (await readFile(join(jobs, newest, 'log.jsonl'), 'utf8')).split('\n').filter(Boolean);
        return lines.map((line) => JSON.parse(line) as JobLogLine).filter(({ path }) => path !== undefined);
      };
      const block = { query: 'comp=block&' };
      const table: readonly {
        readonly name: string;
        readonly size: number;
        readonly match?: Partial<Match>;
        readonly fault?: Fault;
        readonly fails?: true;
      }[] = [
        { name: 'well', size: 100 },
        { name: 'well big', size: 2_500_000 },
        { name: 'busy', size: 100, fault: busy, fails: true },
        { name: 'busy for a moment', size: 100, match: { times: 2 }, fault: busy },
        { name: 'refused', size: 100, fault: forbidden, fails: true },
        { name: 'reset', size: 100, fault: { kind: 'reset' }, fails: true },
        { name: 'no answer', size: 100, fault: { kind: 'hang' }, fails: true },
        { name: 'lost answer', size: 100, match: { times: 1 }, fault: { kind: 'lose-answer' } },
        { name: 'a block', size: 2_500_000, match: block, fault: busy, fails: true },
        {
          name: 'a block for a moment',
          size: 2_500_000,
          match: { ...block, times: 1 },
          fault: { kind: 'reset' },
        },
        {
          name: 'the commit',
          size: 2_500_000,
          match: { query: 'comp=blocklist' },
          fault: forbidden,
          fails: true,
        },
        {
          name: 'the answer to the commit',
          size: 2_500_000,
          match: { query: 'comp=blocklist', times: 1 },
          fault: { kind: 'lose-answer' },
        },
      ];
      await t.test('one by one', async (t) => {
        const mib = String(1024 * 1024);
        await mount.unmount();
        await mount.remount({ env: { LUSTRITE_TRANSFER_BLOCK_BYTES: mib } });
        // A clean file that is changed, and new ones.
        await ok('cat', [mount.at('a leased blob (small)')]);
        await blob('a leased blob (small)').getBlobLeaseClient().breakLease(0);
        await shell('echo changed >> "$1"', [mount.at('a leased blob (small)')]);
        faults.inject(put('a leased blob (small)'), busy);
        await Promise.all(
          table.map(async ({ name, size, match, fault }) => {
            await shell('head -c "$2" /dev/urandom > "$1"', [mount.at(name), String(size)]);
            if (fault) faults.inject({ ...put(name), ...match }, fault);
          }),
        );
        const failing = table.filter((row) => row.fails);
        const { code, stdout } = await lustrite(['export', 'create', mount.path, '--wait', '--json'], {
          env,
        });
        t.equal(code, 1);
        t.match(JSON.parse(stdout), {
          properties: {
            status: {
              state: 'Failed',
              errorCode: 'FilesFailed',
              totalFilesFailed: failing.length + 1,
              totalFilesExported: table.length - failing.length,
            },
          },
        });
        const named = (await exportLog()).filter((line) => line.level === 'error');
        t.same(
          named.map(({ path }) => path).sort(),
          ['a leased blob (small)', ...failing.map(({ name }) => name)].sort(),
          'the log names each file that failed, once',
        );
        for (const { path, message } of named)
          t.match(message, /503|403|ECONNRESET|time|closed/i, path ?? '');
        t.equal(await hsmFlags(mount.at('a leased blob (small)')), states.dirty);
        for (const { name, fails } of table) {
          const flags = await hsmFlags(mount.at(name));
          if (!fails) t.equal(flags, states.clean, name);
          else {
            t.equal(flags & ~1, 0, `${name}: as before`);
            t.equal(await blob(name).exists(), false, `${name}: no blob`);
          }
        }
        faults.clear();
        const again = await lustrite(['export', 'create', mount.path, '--wait', '--json'], { env });
        t.equal(again.code, 0);
        t.match(JSON.parse(again.stdout), {
          properties: {
            status: { state: 'Completed', totalFilesFailed: 0, totalFilesExported: failing.length + 1 },
          },
        });
        for (const name of ['a leased blob (small)', ...table.map((row) => row.name)]) {
          t.equal(await hsmFlags(mount.at(name)), states.clean, name);
          const { stdoutBytes } = await cat(mount.at(name));
          t.ok((await blob(name).downloadToBuffer()).equals(stdoutBytes), `${name}: the blob is the file`);
        }
      });
      await t.test('and all of them', async (t) => {
        await shell('echo new > "$1"', [mount.at('new')]);
        await shell('echo changed >> "$1"', [mount.at('well')]);
        await faults.down();
        const { code, stdout } = await lustrite(['export', 'create', mount.path, '--wait', '--json'], {
          env,
        });
        t.equal(code, 1);
        t.match(JSON.parse(stdout), { properties: { status: { state: 'Failed', totalFilesFailed: 2 } } });
        t.match(
          (await exportLog()).toSorted((a, b) => (a.path ?? '').localeCompare(b.path ?? '')),
          [
            { path: 'new', level: 'error' },
            { path: 'well', level: 'error' },
          ],
        );
        t.equal(await hsmFlags(mount.at('well')), states.dirty);
        await faults.up();
        t.equal((await lustrite(['export', 'create', mount.path, '--wait'], { env })).code, 0);
        t.equal((await blob('new').downloadToBuffer()).toString(), 'new\n');
      });
    },
  );

  await t.test('a SAS that may list and not read shows everything and reads nothing', async (t) => {
    const secured = await azurite.newContainer();
    await azurite.client(secured).getBlockBlobClient('f').upload('hello', 5);
    const sas = async (permissions: string, minutes: number): Promise<string> => {
      const url = await azurite.client(secured).generateSasUrl({
        permissions: ContainerSASPermissions.parse(permissions),
        expiresOn: new Date(Date.now() + minutes * 60_000),
      });
      return `BlobEndpoint=${faults.url};SharedAccessSignature=${new URL(url).search.slice(1)}`;
    };
    const AZURE_STORAGE_CONNECTION_STRING = await sas('l', 60);
    await using mount = await TestMount.start(t, {
      container: secured,
      env: { ...settings, AZURE_STORAGE_CONNECTION_STRING },
    });
    await isEnodata(t, mount, 'f', Buffer.from('hello'), await cat(mount.at('f')));
    t.match(causes(mount, 'f')[0], /403/);
    t.notMatch(mount.log(), /sig=(?!\*)/, 'no secret in the log');

    const host = await Host.create(t, {});
    const expired = await sas('rl', -60);
    const versions = { kind: 'status', status: 400, code: 'InvalidHeaderValue' } as const;
    const message = 'The value for one of the HTTP headers is not in the correct format: x-ms-version';
    faults.inject({ blob: '' }, forbidden);
    const table: readonly (readonly [string, string, Fault | undefined, RegExp])[] = [
      ['an expired SAS', expired, undefined, /SAS is wrong, expired/],
      [
        'a service that does not know the version',
        env.AZURE_STORAGE_CONNECTION_STRING,
        { ...versions, message },
        /--skipApiVersionCheck/,
      ],
      ['a service that is busy for good', env.AZURE_STORAGE_CONNECTION_STRING, busy, /503|busy/i],
    ];
    for (const [what, connection, fault, expected] of table) {
      faults.clear();
      if (fault) faults.inject({ blob: '' }, fault);
      const ended = await lustrite(['mount', host.mnt, '--container', secured, '--store', host.store], {
        env: { ...settings, AZURE_STORAGE_CONNECTION_STRING: connection },
      });
      t.equal(ended.code, 1, what);
      t.match(ended.stderr, expected, what);
      t.notMatch(ended.stderr, /\n {4}at |sig=(?!\*)/, `${what}: no stack, no secret`);
      t.equal(mountAt(host.mnt), undefined, what);
    }
    faults.clear();
  });
});
