/** The control API and its client, with a control that is made up. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { BulkView, JobView, StatusReport } from '../../src/base/control-api.js';
import { BlobError, FsError, UserError } from '../../src/base/errors.js';
import { createLog } from '../../src/base/log.js';
import { socketAddress } from '../../src/base/unix-socket.js';
import { DaemonClient } from '../../src/cli/client.js';
import type { FinishedTransfer } from '../../src/hsm/transfers.js';
import type { JobRecord } from '../../src/jobs/job.js';
import type { Control } from '../../src/http/control.js';
import { toHttpError } from '../../src/http/errors.js';
import { lastErrorOf, lastJobOf } from '../../src/http/last-error.js';
import { createServer } from '../../src/http/server.js';
import { until } from '../helpers/poll.js';

const job = (name: string, state: string): JobView => ({
  kind: 'export',
  name,
  properties: { status: { state } },
});

const log = createLog({ level: 'fatal', pretty: false, destination: { write: () => undefined } });

async function* bulkViews(verb: BulkView['verb']): AsyncGenerator<BulkView> {
  const [files, bytes] = [2, 20];
  const view = {
    verb,
    dryRun: false,
    total: { files, bytes },
    movedBytes: 0,
    there: 0,
    kept: {},
    failed: 0,
    failures: [],
  };
  yield await Promise.resolve({ ...view, state: 'InProgress', done: { files: 1, bytes: 10 } });
  yield { ...view, state: 'Done', done: { files, bytes } };
}

function madeUp(calls: unknown[]): Control {
  return {
    jobs: {
      createImport: (request) => {
        calls.push(request);
        return Promise.resolve(job('i1', 'InProgress'));
      },
      createExport: (request) => {
        calls.push(request);
        return Promise.reject(new UserError('Conflict', "the import job 'i1' is running"));
      },
      createAutoImport: (request) => {
        calls.push(request);
        return Promise.resolve(job('i1', 'InProgress'));
      },
      createAutoExport: (request) => {
        calls.push(request);
        return Promise.resolve(job('i1', 'InProgress'));
      },
      list: (kind) => (kind === 'export' ? [] : [job('i1', 'InProgress')]),
      get: (name) => {
        if (name !== 'i1') throw new UserError('NotFound', `there is no job '${name}'`);
        return job(name, 'Canceled');
      },
      cancel: (name) => {
        calls.push(['cancel', name]);
        return Promise.resolve();
      },
      delete: (name) => {
        calls.push(['delete', name]);
        return Promise.resolve();
      },
      async *watch(name) {
        yield await Promise.resolve(job(name, 'InProgress'));
        yield job(name, 'Completed');
      },
    },
    changelog: {
      read: ({ start, end, limit }) => Promise.resolve({ value: [], missing: start, next: end - limit }),
      readers: () => Promise.resolve({ currentIndex: 7, value: [] }),
      register: () => Promise.resolve({ id: 'cl1', cleared: 7, missing: 0 }),
      deregister: (id) => {
        calls.push(['deregister', id]);
        return Promise.resolve();
      },
      clear: (id, end) =>
        end > 7
          ? Promise.reject(new UserError('InvalidParameter', 'the last record of the changelog is 7'))
          : Promise.resolve({ id, cleared: end, missing: 0 }),
    },
    status: () => Promise.resolve({ version: '1' } as StatusReport),
    dirty: (limit) => Promise.resolve({ count: limit, first: [] }),
    unmount: (lazy) => {
      calls.push(['unmount', lazy]);
      return lazy
        ? Promise.resolve({ dirty: { count: 0, first: [] }, lingering: false })
        : Promise.reject(new UserError('Busy', 'in use', { status: 409 }));
    },
    answered: () => calls.push('answered'),
    parameters: (patterns) => ({ value: patterns.map((name) => ({ name, value: '1' })) }),
    setParameters: (assignments, persistent) => {
      calls.push(['parameters', persistent]);
      const [first] = assignments;
      if (first?.value === '0') return Promise.reject(new FsError('EINVAL', 'a whole number from 1'));
      return Promise.resolve({ value: assignments.map(({ pattern, value }) => ({ name: pattern, value })) });
    },
    hydrate: (request) => {
      calls.push(request);
      return Promise.resolve(bulkViews('hydrate'));
    },
    release: (request) =>
      request.paths.includes('/none')
        ? Promise.reject(new UserError('NotFound', 'there is no /none in the mount'))
        : Promise.resolve(bulkViews('release')),
    hsm: (verb, path) => Promise.resolve({ verb, path, mtimeNs: 5n }),
  };
}

const parameter = (value: string): object => ({ assignments: [{ pattern: 'hsm.max_requests', value }] });

t.test('requests are checked, and refusals have one envelope', async (t) => {
  const calls: unknown[] = [];
  const server = createServer(madeUp(calls), log);
  t.teardown(() => server.close());
  type Row = readonly [
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    url: string,
    body: object | undefined,
    status: number,
    answer: unknown,
  ];
  const failed = (code: string, message: RegExp) => ({ error: { code, message } });
  // As `find -print0 | xargs -0 lustrite hydrate` sends them.
  const manyPaths = Array.from({ length: 20_000 }, (_, n) => `/${'d'.repeat(90)}/${n}`);
  const rows: readonly Row[] = [
    ['GET', '/v1/status', undefined, 200, { version: '1' }],
    ['GET', '/v1/dirty', undefined, 200, { count: 20 }],
    ['GET', '/v1/dirty?limit=3', undefined, 200, { count: 3 }],
    ['GET', '/v1/dirty?limit=-1', undefined, 400, failed('InvalidParameter', /^limit: /)],
    ['GET', '/v1/jobs', undefined, 200, { value: [{ name: 'i1' }] }],
    ['GET', '/v1/jobs?kind=export', undefined, 200, { value: [] }],
    ['GET', '/v1/jobs?kind=x', undefined, 400, failed('InvalidParameter', /^kind: /)],
    ['GET', '/v1/jobs/i1', undefined, 200, { name: 'i1' }],
    ['GET', '/v1/jobs/i2', undefined, 404, failed('NotFound', /no job 'i2'/)],
    ['GET', '/v1/jobs/-', undefined, 400, failed('InvalidParameter', /^name: must be 2 to 80/)],
    ['GET', '/v1/jobs/none/watch', undefined, 404, failed('NotFound', /no job 'none'/)],
    ['POST', '/v1/jobs/import', {}, 201, { name: 'i1' }],
    ['POST', '/v1/jobs/import', { prefixes: [] }, 400, failed('InvalidParameter', /^prefixes: /)],
    ['POST', '/v1/jobs/import', { maximumErrors: -2 }, 400, failed('InvalidParameter', /^maximumErrors: /)],
    ['POST', '/v1/jobs/import', { mode: 'x' }, 400, failed('InvalidParameter', /mode/)],
    ['POST', '/v1/jobs/export', { name: 'e1' }, 409, failed('Conflict', /'i1' is running/)],
    ['POST', '/v1/jobs/i1/cancel', undefined, 200, { name: 'i1' }],
    ['DELETE', '/v1/jobs/i1', undefined, 200, { name: 'i1' }],
    ['DELETE', '/v1/jobs/i2', undefined, 404, failed('NotFound', /no job 'i2'/)],
    ['DELETE', '/v1/jobs/-', undefined, 400, failed('InvalidParameter', /^name: /)],
    ['POST', '/v1/umount', { lazy: 'no' }, 400, failed('InvalidParameter', /^lazy: /)],
    ['POST', '/v1/umount', {}, 409, failed('Busy', /in use/)],
    ['POST', '/v1/umount', { lazy: true }, 200, { lingering: false }],
    ['POST', '/v1/hsm/state', { path: 'a' }, 200, { result: { verb: 'state', path: 'a', mtimeNs: '5' } }],
    ['POST', '/v1/hydrate', { paths: [] }, 400, failed('InvalidParameter', /^paths: /)],
    ['POST', '/v1/hydrate', { paths: [''] }, 400, failed('InvalidParameter', /^paths\.0: /)],
    ['POST', '/v1/hydrate', { paths: ['/'], concurrency: 0 }, 400, failed('InvalidParameter', /^concurr/)],
    [
      'POST',
      '/v1/hydrate',
      { paths: manyPaths, concurrency: 0 },
      400,
      failed('InvalidParameter', /^concurr/),
    ],
    ['POST', '/v1/release', { paths: [...manyPaths, '/none'] }, 404, failed('NotFound', /no \/none in/)],
    ['POST', '/v1/release', { paths: ['/'], unusedForMs: -1 }, 400, failed('InvalidParameter', /^unused/)],
    ['POST', '/v1/release', { paths: ['/none'] }, 404, failed('NotFound', /no \/none in the mount/)],
    ['GET', '/v1/hsm/parameters?pattern=a', undefined, 200, { value: [{ name: 'a', value: '1' }] }],
    [
      'GET',
      '/v1/hsm/parameters?pattern=a&pattern=b',
      undefined,
      200,
      { value: [{ name: 'a' }, { name: 'b' }] },
    ],
    ['GET', '/v1/hsm/parameters', undefined, 400, failed('InvalidParameter', /^pattern: /)],
    ['PUT', '/v1/hsm/parameters', parameter('2'), 200, { value: [{ name: 'hsm.max_requests', value: '2' }] }],
    ['PUT', '/v1/hsm/parameters', parameter('0'), 400, failed('EINVAL', /whole number/)],
    ['PUT', '/v1/hsm/parameters', { assignments: [] }, 400, failed('InvalidParameter', /^assignments: /)],
    ['GET', '/v1/changelog?start=3&end=9&limit=2', undefined, 200, { value: [], missing: 3, next: 7 }],
    ['GET', '/v1/changelog?start=-1', undefined, 400, failed('InvalidParameter', /^start: /)],
    ['GET', '/v1/changelog?limit=10001', undefined, 400, failed('InvalidParameter', /^limit: /)],
    ['GET', '/v1/changelog/readers', undefined, 200, { currentIndex: 7 }],
    ['POST', '/v1/changelog/readers', {}, 201, { id: 'cl1' }],
    ['POST', '/v1/changelog/readers/cl1/clear', { end: 7 }, 200, { id: 'cl1', cleared: 7 }],
    ['POST', '/v1/changelog/readers/cl1/clear', { end: 8 }, 400, failed('InvalidParameter', /is 7$/)],
    ...[null, '', '7', [], false, -1, 1.5, 2 ** 53, undefined].map((end): Row => [
      'POST',
      '/v1/changelog/readers/cl1/clear',
      { end },
      400,
      failed('InvalidParameter', /^end: /),
    ]),
    ['GET', '/v1/changelog?start=', undefined, 400, failed('InvalidParameter', /^start: /)],
    ['GET', '/v1/changelog?end=1e3', undefined, 400, failed('InvalidParameter', /^end: /)],
    ['POST', '/v1/changelog/readers/x/clear', { end: 1 }, 400, failed('InvalidParameter', /^id: /)],
    ['DELETE', '/v1/changelog/readers/cl1', undefined, 200, { id: 'cl1' }],
    ['POST', '/v1/hsm/explode', { path: 'a' }, 400, failed('InvalidParameter', /^verb: /)],
    ['POST', '/v1/nowhere', {}, 404, failed('NotFound', /no route POST/)],
    ['POST', '/v1/jobs/import', { name: 'x'.repeat(70_000) }, 413, failed('InvalidParameter', /large/)],
  ];
  for (const [method, url, body, status, answer] of rows) {
    const response = await server.inject({ method, url, ...(body && { payload: body }) });
    t.equal(response.statusCode, status, `${method} ${url} ${JSON.stringify(body ?? '').slice(0, 60)}`);
    t.match(response.json(), answer);
  }
  t.same(calls.slice(0, 2), [{ prefixes: ['/'] }, { name: 'e1', filesystemPath: '/' }]);
});

t.test('the last error is the newest failure of this daemon, whatever failed', (t) => {
  const since = '2026-01-01T00:00:00.000Z';
  const at = (second: number): string => `2026-01-01T00:00:0${second}.000Z`;
  const ended = (name: string, state: string, end: string): JobRecord =>
    ({
      kind: 'import',
      name,
      properties: { status: { state, statusMessage: 'why', lastCompletionTime: end } },
    }) as unknown as JobRecord;
  const transfer: FinishedTransfer = {
    fid: '[0x1:0x2:0x0]' as FinishedTransfer['fid'],
    action: 'RESTORE',
    result: 'FAILED',
    blob: 'a/b',
    cause: '403',
    at: Date.parse(at(2)),
  };
  const past = { since, logged: null, transfer: undefined, jobs: [] };
  const logged = { time: at(1), message: 'logged' };
  t.equal(lastErrorOf(past), null);
  t.same(lastErrorOf({ ...past, logged }), logged);
  t.same(lastErrorOf({ ...past, logged, transfer }), { time: at(2), message: 'restore of a/b failed: 403' });
  const jobs = [
    ended('before', 'Failed', '2025-12-31T23:59:59.000Z'),
    ended('some', 'CompletedPartial', at(3)),
    ended('canceled', 'Canceled', at(4)),
    ended('good', 'Completed', at(5)),
    ended('running', 'InProgress', at(6)),
  ];
  t.same(lastErrorOf({ ...past, logged, transfer, jobs }), {
    time: at(3),
    message: 'import some CompletedPartial: why',
  });
  t.equal(lastErrorOf({ ...past, jobs: jobs.slice(0, 1) }), null);
  t.equal(lastJobOf(jobs)?.name, 'good');
  t.equal(lastJobOf([]), null);
  t.end();
});

t.test('every kind of error has its answer, without secrets', (t) => {
  const rows: readonly (readonly [unknown, number, string])[] = [
    [new UserError('Conflict', 'x'), 409, 'Conflict'],
    [new UserError('InvalidParameter', 'x'), 400, 'InvalidParameter'],
    [new FsError('EINVAL', 'x'), 400, 'EINVAL'],
    [new FsError('ENOENT', 'x'), 404, 'ENOENT'],
    [new FsError('EBUSY', 'x'), 409, 'EBUSY'],
    [new FsError('EIO', 'x'), 500, 'EIO'],
    [new BlobError('forbidden', 'x'), 502, 'Blob.forbidden'],
    [Object.assign(new Error('x'), { code: 'EPERM', errno: 1 }), 403, 'EPERM'],
    [Object.assign(new Error('x'), { statusCode: 413 }), 413, 'InvalidParameter'],
    [new Error('x'), 500, 'InternalError'],
  ];
  for (const [error, status, code] of rows) {
    t.match(toHttpError(error), { status, body: { error: { code, message: 'x' } } });
  }
  t.notMatch(toHttpError(new Error('http://h?sig=secret')).body.error.message, /secret/);
  t.end();
});

t.test('the client speaks over a socket of any path length', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'lustrite-socket-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  for (const directory of [folder, join(folder, 'long'.repeat(30))]) {
    await mkdir(directory, { recursive: true });
    const calls: unknown[] = [];
    const server = createServer(madeUp(calls), log);
    const socket = join(directory, 'daemon.sock');
    const address = socketAddress(socket);
    await server.listen({ path: address.path });
    const client = new DaemonClient({
      mountPoint: '/m',
      store: '/s',
      socket,
      container: 'c',
      pid: 1,
      startTime: '1',
    });
    t.same(await client.get('/v1/status'), { version: '1' });
    await t.rejects(client.post('/v1/umount', { lazy: false }), {
      name: 'UserError',
      code: 'Busy',
      message: 'in use',
    });
    t.match(await client.post('/v1/umount', { lazy: true }), { lingering: false });
    const states: string[] = [];
    for await (const { properties } of client.watch('i1', new AbortController().signal)) {
      states.push(properties.status.state);
    }
    t.same(states, ['InProgress', 'Completed']);
    await until(() => calls.filter((call) => call === 'answered').length === 2, {
      what: 'the daemon to learn that its answers are out',
    });
    await server.close();
    address.close();
    await t.rejects(client.get('/v1/status'), {
      message: /the daemon of \/m \(pid 1\) does not answer on .*daemon\.sock/,
    });
  }
});
