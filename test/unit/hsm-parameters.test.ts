/** The coordinator's parameters by lctl's names (lustre-hsm 5.1, 5.2), and what each of them does. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import t from 'tap';
import { BlobError, FsError } from '../../src/base/errors.js';
import { callerOf } from '../../src/hsm/caller.js';
import {
  HUA_ARCHIVE,
  HUA_CANCEL,
  HUA_RELEASE,
  HUA_REMOVE,
  HUA_RESTORE,
  requestNames,
  type RequestName,
} from '../../src/hsm/flags.js';
import {
  controlCommand,
  defaultParameters,
  parameterMatches,
  parameterTable,
} from '../../src/hsm/parameters.js';
import { isPrivileged, permitRequest } from '../../src/hsm/request-rules.js';
import type { Caller, Fid, HsmRequest } from '../../src/store/inodes.js';
import { caller, root } from '../helpers/callers.js';
import { gate, MemoryHsm } from '../helpers/memory-hsm.js';
import { until } from '../helpers/poll.js';

const { EAGAIN, EINVAL, ENODATA, EPERM, EROFS } = constants.errno;

function parameter(name: string) {
  const found = parameterTable.find((one) => one.name === `hsm.${name}`);
  if (found === undefined) throw new RangeError(name);
  return found;
}

function errnoOf(work: () => unknown): number {
  try {
    work();
    return 0;
  } catch (error) {
    return error instanceof FsError ? error.errno : -1;
  }
}

t.test('parameters are read and written as lctl does', (t) => {
  const numbers = [
    'active_request_timeout',
    'grace_delay',
    'loop_period',
    'max_requests',
    'default_archive_id',
  ];
  type Row = readonly [name: string, now: string, written: string, then: string | typeof EINVAL];
  const rows: readonly Row[] = [
    ['active_request_timeout', '3600', '10', '10'],
    ['grace_delay', '60', ' 7\n', '7'],
    ['loop_period', '10', '1', '1'],
    ['max_requests', '3', '300000', '300000'],
    ['default_archive_id', '1', '33', '33'],
    ...numbers.flatMap((name): readonly Row[] =>
      ['0', '-1', '1.5', 'x', '', '2147483648', '1 2', '0x10'].map((text) => [name, '', text, EINVAL]),
    ),
    ['policy', 'NonBlockingRestore [NoRetryAction]', '+NBR', '[NonBlockingRestore] [NoRetryAction]'],
    ['policy', '', '-NRA', 'NonBlockingRestore NoRetryAction'],
    ['policy', '', '+NBR -NRA', '[NonBlockingRestore] NoRetryAction'],
    ['policy', '', '+NonBlockingRestore', '[NonBlockingRestore] [NoRetryAction]'],
    ['policy', '', 'NBR', '[NonBlockingRestore] NoRetryAction'],
    ['policy', '', 'NonBlockingRestore NRA', '[NonBlockingRestore] [NoRetryAction]'],
    ['policy', '', 'NBR -NBR', 'NonBlockingRestore NoRetryAction'],
    ['policy', '', 'wrong', EINVAL],
    ['policy', '', '+', EINVAL],
    ['policy', '', '', EINVAL],
    ['policy', '', 'nbr', EINVAL],
    ['user_request_mask', 'RESTORE', 'archive Restore', 'ARCHIVE RESTORE'],
    ['group_request_mask', 'RESTORE', 'CANCEL', 'CANCEL'],
    ['other_request_mask', 'RESTORE', '', ''],
    ['other_request_mask', 'RESTORE', requestNames.join(' '), requestNames.join(' ')],
    ['other_request_mask', 'RESTORE', 'RELEASE', EINVAL],
    ['remove_archive_on_last_unlink', '0', '1', '1'],
    ['remove_archive_on_last_unlink', '0', '2', EINVAL],
  ];
  for (const [name, now, written, then] of rows) {
    const one = parameter(name);
    const title = `${name}=${JSON.stringify(written)}`;
    if (now !== '') t.equal(one.read(defaultParameters), now, `${name} by default`);
    if (typeof then === 'string') t.equal(one.read(one.write(written, defaultParameters)), then, title);
    else
      t.equal(
        errnoOf(() => one.write(written, defaultParameters)),
        then,
        title,
      );
  }
  t.equal(
    errnoOf(() => controlCommand('start')),
    EINVAL,
  );
  t.equal(controlCommand(' purge\n'), 'purge');
  t.end();
});

t.test('a pattern names parameters by path, or by the end of one', (t) => {
  const rows: readonly (readonly [pattern: string, name: string, matches: boolean])[] = [
    ['mdt.data-MDT0000.hsm.policy', 'hsm.policy', true],
    ['mdt/data-MDT0000/hsm/policy', 'hsm.policy', true],
    ['mdt.*.hsm.*', 'hsm.policy', true],
    ['mdt.*.hsm.*', 'hsm_control', false],
    ['mdt.*.hsm_control', 'hsm_control', true],
    ['mdt.other-MDT0000.hsm.policy', 'hsm.policy', false],
    ['mdt.data-MDT000?.hsm.*_request_mask', 'hsm.user_request_mask', true],
    ['hsm.*', 'hsm.policy', true],
    ['max_requests', 'hsm.max_requests', true],
    ['hsm_control', 'hsm_control', true],
    ['max.requests', 'hsm.max_requests', false],
    ['.*', 'hsm_control', false],
    ['(', 'hsm_control', false],
    ['', 'hsm_control', false],
    [`hsm.${'*'.repeat(200)}!`, 'hsm.policy', false],
    [`hsm.${'*a'.repeat(100)}`, 'hsm.policy', false],
    ['osc.*.hsm.policy', 'hsm.policy', false],
  ];
  for (const [pattern, name, matches] of rows)
    t.equal(parameterMatches(pattern, name, 'data'), matches, `${pattern}: ${name}`);
  t.end();
});

t.test('24c: the request masks say what others than root may ask for', (t) => {
  const file = { uid: 1000, gid: 50 };
  const callers = {
    user: caller(1000, 1),
    group: caller(2, 1, [50]),
    other: caller(2),
  } satisfies Record<string, Caller>;
  const actions: Readonly<Partial<Record<RequestName, number>>> = {
    ARCHIVE: HUA_ARCHIVE,
    RESTORE: HUA_RESTORE,
    REMOVE: HUA_REMOVE,
    CANCEL: HUA_CANCEL,
  };
  const none = { user: [], group: [], other: [] };
  for (const who of ['user', 'group', 'other'] as const) {
    for (const [name, action] of Object.entries(actions)) {
      const masks = { ...none, [who]: [name as RequestName] };
      for (const [what, asks] of Object.entries(callers)) {
        const wanted = what === who ? 0 : EPERM;
        const title = `${name} by ${what} under ${who}_request_mask=${name}`;
        t.equal(permitRequest(action, asks, file, { readOnly: false, masks }), wanted, title);
      }
      t.equal(permitRequest(action, root, file, { readOnly: false, masks: none }), 0, 'root may everything');
      const readOnly = permitRequest(action, root, file, { readOnly: true, masks });
      t.equal(readOnly, name === 'RESTORE' ? 0 : EROFS, `${name} on a read-only mount`);
    }
  }
  t.equal(
    permitRequest(HUA_CANCEL, callers.user, undefined, { readOnly: false, masks: none }),
    EPERM,
    'gone',
  );
  t.end();
});

function request(action: number, fids: readonly Fid[], caller = root, data = ''): HsmRequest {
  return { action, fids, caller, archiveId: 0, data: Buffer.from(data) };
}

async function released(hsm: MemoryHsm, ...paths: readonly string[]): Promise<readonly Fid[]> {
  for (const path of paths) {
    const { etag, size, lastModifiedMs } = hsm.container.put(path, path);
    const stub = { path, kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 5n, size } as const;
    const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n };
    await hsm.store.createStubs([{ ...stub, copy: { blob: path, etag, size, lastModifiedMs } }], defaults);
  }
  return paths.map((path) => hsm.store.fidOf(path));
}

const flags = (hsm: MemoryHsm, path: string, wanted: number): Promise<unknown> =>
  until(() => hsm.store.flags(path) === wanted, {
    what: `${path} to be 0x${wanted.toString(16)}`,
    intervalMs: 1,
  });

const set = (hsm: MemoryHsm, text: string, persistent = false): Promise<unknown> => {
  const [name = '', value = ''] = text.split('=');
  return hsm.coordinator.control.set(name, value, persistent);
};

const get = (hsm: MemoryHsm, name: string): string => hsm.coordinator.control.get([name])[0]?.value ?? '';

t.test('a disabled coordinator lets requests and readers wait', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [asked, read] = (await released(hsm, 'asked', 'read')) as [Fid, Fid];
  await set(hsm, 'hsm_control=disabled');
  t.equal(get(hsm, 'hsm_control'), 'disabled');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [asked])), 0);
  hsm.coordinator.restoreNeeded(read, 1);
  t.same(hsm.pool.calls, []);
  t.match(get(hsm, 'hsm.actions'), /action=RESTORE .*status=WAITING.*\n.*status=WAITING/);
  await set(hsm, 'hsm_control=enabled');
  await Promise.all([flags(hsm, 'asked', 0x09), flags(hsm, 'read', 0x09)]);
});

t.test(
  'a coordinator that is shut down takes nothing, its readers go without, and what was asked for goes on later',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const [runs, waits, read, joined] = (await released(hsm, 'runs', 'waits', 'read', 'joined')) as [
      Fid,
      Fid,
      Fid,
      Fid,
    ];
    await set(hsm, 'hsm.max_requests=1');
    hsm.pool.gate = () => new Promise(() => undefined);
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [runs, waits])), 0);
    await until(() => hsm.pool.calls.length === 1, { what: 'the first download', intervalMs: 1 });
    await set(hsm, 'hsm_control=disabled');
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [joined])), 0);
    hsm.coordinator.restoreNeeded(joined, 1);
    hsm.coordinator.restoreNeeded(read, 1);
    await set(hsm, 'hsm_control=shutdown');
    t.equal(get(hsm, 'hsm_control'), 'stopped');
    await t.rejects(set(hsm, 'hsm_control=disabled'), { code: 'EINVAL' });
    const letGo = (path: string): Promise<unknown> =>
      until(() => hsm.store.events.includes(`failRestore ${ENODATA} ${path}`), {
        what: `the readers of ${path}`,
        intervalMs: 1,
      });
    await Promise.all(['read', 'joined', 'runs'].map(letGo));
    const idle = hsm.store.write('new', 'x');
    for (const action of [HUA_ARCHIVE, HUA_RESTORE, HUA_REMOVE, HUA_CANCEL])
      for (const fid of [read, idle, waits])
        t.equal(await hsm.coordinator.request(request(action, [fid])), EAGAIN, `${action} ${fid}`);
    t.equal(await hsm.coordinator.request(request(HUA_RELEASE, [read])), 0, 'a release asks nobody');
    hsm.store.events.length = 0;
    hsm.coordinator.restoreNeeded(read, 1);
    await letGo('read');
    await until(() => /STARTED/.exec(get(hsm, 'hsm.actions')) === null, { what: 'the first one to end' });
    t.equal(hsm.coordinator.status().durable, 3, 'what was asked for stays');
    t.equal(hsm.pool.calls.length, 1);

    hsm.pool.gate = () => undefined;
    await set(hsm, 'hsm_control=enabled');
    await Promise.all(['runs', 'waits', 'joined'].map((path) => flags(hsm, path, 0x09)));
    await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
    t.equal(hsm.store.flags('read'), 0x0d, 'nobody reads it any more');
    t.equal(hsm.store.openFds, 0);
  },
);

t.test('103: a purge cancels everything, and the coordinator goes on', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fids = await released(hsm, 'a', 'b', 'c');
  hsm.pool.gate = () => new Promise(() => undefined);
  await set(hsm, 'hsm.max_requests=1');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await set(hsm, 'hsm_control=purge', true);
  await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
  t.equal(get(hsm, 'hsm.actions').match(/status=CANCELED/g)?.length, 3);
  t.notMatch(get(hsm, 'hsm.actions'), 'action=CANCEL');
  hsm.pool.gate = () => undefined;
  await hsm.restart();
  t.equal(get(hsm, 'hsm_control'), 'enabled', 'it is no setting');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await flags(hsm, 'c', 0x09);
});

t.test('250: max_requests holds for what is asked for next', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fids = await released(hsm, 'a', 'b', 'c', 'd');
  const held = gate();
  hsm.pool.gate = () => held.opened;
  await set(hsm, 'hsm.max_requests=2');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await until(() => hsm.pool.calls.length > 0, { what: 'the downloads', intervalMs: 1 });
  t.equal(hsm.coordinator.status().running.explicit, 2);
  await set(hsm, 'hsm.max_requests=3');
  t.equal(hsm.coordinator.status().running.explicit, 3);
  t.equal(get(hsm, 'hsm.restore_count'), '3');
  held.open();
  await flags(hsm, 'd', 0x09);
});

t.test('251: a request without progress is canceled after active_request_timeout', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  hsm.pool.gate = () => new Promise(() => undefined);
  await set(hsm, 'hsm.active_request_timeout=100');
  hsm.coordinator.restoreNeeded(fid, 1);
  await until(() => hsm.pool.calls.length === 1, { what: 'the download', intervalMs: 1 });
  hsm.clock.ms += 99_000;
  hsm.coordinator.housekeep();
  t.equal(hsm.coordinator.status().running.implicit, 1);
  hsm.clock.ms += 1000;
  hsm.coordinator.housekeep();
  await until(() => hsm.coordinator.status().running.implicit === 0, { what: 'its end', intervalMs: 1 });
  t.match(hsm.coordinator.status().recent, [{ result: 'CANCELED', cause: /no progress for 100 s/ }]);
  t.equal(hsm.store.flags('a'), 0x0d);
});

t.test(
  '111, 112: what the storage does not answer fails, or waits where the policy says retry',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const [fid] = (await released(hsm, 'a')) as [Fid];
    let fails = 3;
    hsm.pool.gate = () => (fails-- > 0 ? Promise.reject(new BlobError('unreachable', 'down')) : undefined);
    await t.rejects(hsm.coordinator.restore(fid), { code: 'ENODATA' });
    await set(hsm, 'hsm.policy=-NRA');
    await hsm.coordinator.restore(fid);
    t.equal(hsm.store.flags('a'), 0x09);
    t.same(hsm.clock.sleeps, [10_000, 10_000], 'a loop_period apart');

    hsm.store.write('a', 'changed');
    fails = 2;
    t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), 0);
    await flags(hsm, 'a', 0x09);
    t.equal(hsm.container.text('a'), 'changed');
    hsm.pool.gate = () => Promise.reject(new BlobError('forbidden', 'no'));
    hsm.store.write('a', 'again');
    t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), 0);
    await until(() => hsm.coordinator.status().failed === 2, {
      what: 'what is no outage to fail',
      intervalMs: 1,
    });
  },
);

t.test("110: the policy NonBlockingRestore is the store's to keep", async (t) => {
  await using hsm = await MemoryHsm.start();
  t.equal(hsm.store.nonBlockingRestore, false);
  await set(hsm, 'hsm.policy=+NBR');
  t.equal(hsm.store.nonBlockingRestore, true);
  const [fid] = (await released(hsm, 'a')) as [Fid];
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), ENODATA, 'and lfs hsm_restore says so');
  await flags(hsm, 'a', 0x09);
});

t.test('a reader that is shut out is let go, also from what somebody asked for before', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  await set(hsm, 'hsm_control=disabled');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), 0);
  await set(hsm, 'hsm_control=shutdown');
  for (let reader = 1; reader <= 3; reader++) {
    hsm.store.events.length = 0;
    hsm.coordinator.restoreNeeded(fid, reader);
    // One more, while the first is being let go.
    hsm.coordinator.restoreNeeded(fid, reader);
    await until(() => hsm.store.events.filter((event) => event === `failRestore ${ENODATA} a`).length === 2, {
      what: 'both to be let go',
      intervalMs: 1,
    });
  }
  t.equal(hsm.coordinator.status().durable, 1);
  await set(hsm, 'hsm_control=enabled');
  await flags(hsm, 'a', 0x09);
});

const notRoot = process.getuid?.() === 0 ? false : 'takes another user';

t.test('capabilities are those of our user namespace, whoever has them', { skip: notRoot }, async (t) => {
  const nobody = { uid: 65534, gid: 65534 };
  const rows: readonly (readonly [
    args: readonly string[],
    ids: object,
    uid: number,
    administrator: boolean,
  ])[] = [
    [['setpriv', '--reuid=0'], {}, 0, true],
    [['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-all'], {}, 0, false],
    [['unshare', '--user', '--map-root-user'], nobody, 65534, false],
    [
      ['setpriv', '--reuid=65534', '--inh-caps=+sys_admin', '--ambient-caps=+sys_admin', '--clear-groups'],
      {},
      65534,
      true,
    ],
  ];
  for (const [[program = '', ...args], ids, uid, administrator] of rows) {
    const process = spawn(program, [...args, 'sh', '-c', 'echo; read line'], ids);
    t.teardown(() => process.kill());
    await once(process.stdout, 'data');
    const by = await callerOf(process.pid ?? 0);
    t.equal(by.uid, uid, program);
    t.equal(isPrivileged(by), administrator, [program, ...args].join(' '));
  }
});

t.test(
  'a reader without the mask is refused, but never a restore that runs',
  { skip: notRoot },
  async (t) => {
    const user = spawn('sleep', ['600'], { uid: 65534, gid: 65534 });
    t.teardown(() => user.kill());
    const pid = user.pid ?? 0;
    await using hsm = await MemoryHsm.start();
    const [refused, running] = (await released(hsm, 'refused', 'running')) as [Fid, Fid];
    for (const who of ['user', 'group', 'other']) await set(hsm, `hsm.${who}_request_mask=NOOP`);
    hsm.coordinator.restoreNeeded(refused, pid);
    await until(() => hsm.store.events.includes(`failRestore ${ENODATA} refused`), { what: 'the refusal' });
    t.match(hsm.coordinator.status().recent, [{ result: 'FAILED', errno: EPERM }]);

    const held = gate();
    hsm.pool.gate = () => held.opened;
    hsm.coordinator.restoreNeeded(running, pid);
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [running])), 0, 'root asks meanwhile');
    await until(() => hsm.pool.calls.length === 1, { what: 'the download', intervalMs: 1 });
    await hsm.store.state(running);
    const begun = hsm.store.events.indexOf('beginRestore running');
    t.not(begun, -1);
    const since = hsm.store.events.slice(begun);
    t.notOk(since.includes(`failRestore ${ENODATA} running`), 'nobody takes its file away');
    held.open();
    await flags(hsm, 'running', 0x09);
  },
);

t.test('who gives a restore up waits no longer, and what others want goes on', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [waits, runs] = (await released(hsm, 'waits', 'runs')) as [Fid, Fid];
  await set(hsm, 'hsm_control=disabled');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [waits])), 0);
  const stop = new AbortController();
  const waiting = hsm.coordinator.restore(waits, { signal: stop.signal });
  stop.abort(new Error('given up'));
  await t.rejects(waiting, { message: 'given up' });
  t.match(hsm.coordinator.status(), { waiting: { restore: 1 }, durable: 1 });
  await set(hsm, 'hsm_control=enabled');
  await flags(hsm, 'waits', 0x09);

  const held = gate();
  hsm.pool.gate = () => held.opened;
  const later = new AbortController();
  const running = hsm.coordinator.restore(runs, { signal: later.signal });
  await until(() => hsm.pool.calls.includes('download runs'), { what: 'the download', intervalMs: 1 });
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [runs])), 0);
  t.equal(hsm.coordinator.status().durable, 1, 'asked for by name, it is durable');
  later.abort(new Error('given up'));
  await t.rejects(running, { message: 'given up' });
  held.open();
  await flags(hsm, 'runs', 0x09);
});

t.test("the copies of any number of deleted files go, but not what is a newer file's", async (t) => {
  await using hsm = await MemoryHsm.start();
  const names = Array.from({ length: 500 }, (_, at) => `f${at}`);
  const gone = names.map((name, at) => {
    const { etag, size, lastModifiedMs } = hsm.container.put(name, name);
    const copy = { blob: name, etag, size, lastModifiedMs };
    return { fid: `[0x9:0x${at.toString(16)}:0x0]` as Fid, copy };
  });
  hsm.container.put('f7', 'another version');
  for (const { fid, copy } of gone) hsm.coordinator.fileGone(fid, copy, 1);
  await until(() => hsm.coordinator.status().durable === 0 && hsm.container.blobs.size === 1, {
    what: 'all but one to go',
    intervalMs: 1,
  });
  t.equal(hsm.container.text('f7'), 'another version');
  t.match(hsm.coordinator.status(), { removed: 499, failed: 1 });
});

t.test('persistent values are those of the next daemon, others end with this one', async (t) => {
  await using hsm = await MemoryHsm.start();
  await set(hsm, 'hsm.max_requests=7');
  await set(hsm, 'hsm.policy=+NBR', true);
  await set(hsm, 'hsm_control=disabled', true);
  await hsm.restart();
  t.equal(get(hsm, 'hsm.max_requests'), '4');
  t.equal(get(hsm, 'hsm.policy'), '[NonBlockingRestore] [NoRetryAction]');
  t.equal(get(hsm, 'hsm_control'), 'disabled');
});

t.test('what a persistent value does not name stays as persistent as it was', async (t) => {
  await using hsm = await MemoryHsm.start();
  await set(hsm, 'hsm.policy=+NBR', true);
  await set(hsm, 'hsm.policy=-NRA', true);
  await hsm.restart();
  t.equal(get(hsm, 'hsm.policy'), '[NonBlockingRestore] NoRetryAction');
  await set(hsm, 'hsm.policy=-NBR');
  await set(hsm, 'hsm.policy=+NRA', true);
  t.equal(get(hsm, 'hsm.policy'), 'NonBlockingRestore [NoRetryAction]');
  await hsm.restart();
  t.equal(get(hsm, 'hsm.policy'), '[NonBlockingRestore] [NoRetryAction]');
  await set(hsm, 'hsm.policy=NRA', true);
  await hsm.restart();
  t.equal(get(hsm, 'hsm.policy'), 'NonBlockingRestore [NoRetryAction]');
});

t.test('a refused value changes nothing, of any parameter that the pattern names', async (t) => {
  await using hsm = await MemoryHsm.start();
  const now = (): readonly string[] =>
    hsm.coordinator.control.get(['hsm.*', 'hsm_control']).map(({ name, value }) => `${name}=${value}`);
  const before = now();
  type Row = readonly [
    pattern: string,
    value: string,
    error: { readonly code: string; readonly message: RegExp },
  ];
  const rows: readonly Row[] = [
    ['hsm.max_requests', '0', { code: 'EINVAL', message: /a whole number from 1/ }],
    ['hsm.*', '5', { code: 'EACCES', message: /hsm.archive_count can only be read/ }],
    ['hsm.*_request_mask', '5', { code: 'EINVAL', message: /the requests are/ }],
    ['hsm.actions', '1', { code: 'EACCES', message: /hsm.actions can only be read/ }],
    ['hsm.nothing', '1', { code: 'ENOENT', message: /no parameter is called 'hsm.nothing'/ }],
    ['hsm_control', 'start', { code: 'EINVAL', message: /enabled shutdown disabled purge help/ }],
    ['hsm_control', 'help', { code: 'EINVAL', message: /enabled shutdown disabled purge help/ }],
  ];
  for (const [pattern, value, error] of rows) {
    await t.rejects(hsm.coordinator.control.set(pattern, value, true), error, `${pattern}=${value}`);
    t.same(now(), before);
  }
  t.throws(() => hsm.coordinator.control.get(['nothing']), FsError);
  await hsm.restart();
  t.same(now(), before, 'nor persistently');
});

t.test('200, 201: a cancel is a request that is listed with the cookie of what it ended', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fids = (await released(hsm, 'runs', 'waits')) as [Fid, Fid];
  hsm.pool.gate = () => new Promise(() => undefined);
  await set(hsm, 'hsm.max_requests=1');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await until(() => hsm.pool.calls.length === 1, { what: 'the download', intervalMs: 1 });
  t.equal(await hsm.coordinator.request(request(HUA_CANCEL, fids)), 0);
  await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
  const columns = get(hsm, 'hsm.actions')
    .split('\n')
    .map((line) => line.split(' '))
    .map((line) => ({ fid: line[3]?.slice(4), cookie: line[5], said: `${line[6] ?? ''} ${line[12] ?? ''}` }));
  const cookies = new Set(columns.map(({ cookie }) => cookie));
  t.equal(cookies.size, 2);
  for (const fid of fids) {
    const about = columns.filter((line) => line.fid === fid);
    t.same(
      about.map(({ said }) => said),
      ['action=RESTORE status=CANCELED', 'action=CANCEL status=SUCCEED'],
    );
    t.equal(about[0]?.cookie, about[1]?.cookie);
  }
  t.equal(hsm.coordinator.status().recent.length, 2, 'the history is of transfers');
});

t.test('requests are listed to the letter, and finished ones for the grace delay', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  const held = gate();
  hsm.pool.gate = () => held.opened;
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid], root, 'CEA-data')), 0);
  await until(() => hsm.pool.calls.length === 1, { what: 'the download', intervalMs: 1 });
  const request14 = (status: string): RegExp =>
    new RegExp(
      `^lrh=\\[type=10680000 len=136 idx=1/1\\] fid=\\[0x\\w+:0x\\w+:0x\\w+\\] dfid=\\[\\S+\\] compound/cookie=0x0/0x[0-9a-f]+ action=RESTORE archive#=1 flags=0x0 extent=0x0-0xffffffffffffffff gid=0x0 datalen=8 status=${status} data=\\[4345412D64\\]$`,
    );
  t.match(get(hsm, 'hsm.actions'), request14('STARTED'));
  t.match(
    get(hsm, 'hsm.active_requests'),
    /^fid=\S+ dfid=\S+ compound\/cookie=0x0\/0x\S+ action=RESTORE archive#=1 flags=0x0 extent=0x0-0xffffffffffffffff gid=0x0 data=\[4345412D64\] canceled=0 uuid=store-1 done=0$/,
  );
  t.equal(get(hsm, 'hsm.agents'), 'uuid=store-1 archive_id=ANY requests=[current:1 ok:0 errors:0]');
  held.open();
  await flags(hsm, 'a', 0x09);
  await until(() => hsm.coordinator.status().durable === 0, { what: 'the end', intervalMs: 1 });
  t.match(get(hsm, 'hsm.actions'), request14('SUCCEED'));
  t.equal(get(hsm, 'hsm.active_requests'), '');
  t.equal(get(hsm, 'hsm.agents'), 'uuid=store-1 archive_id=ANY requests=[current:0 ok:1 errors:0]');
  hsm.clock.ms += 60_001;
  t.equal(get(hsm, 'hsm.actions'), '');
});

t.test(
  'a request is listed with the archive of its file, else with what was the default when it was queued',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const [asked, read] = (await released(hsm, 'asked', 'read')) as [Fid, Fid];
    for (const fid of [asked, read]) await hsm.store.changeFlags(fid, 0, 0, 3);
    const fresh = hsm.store.write('fresh', 'x');
    const exists = hsm.store.write('exists', 'x');
    await hsm.store.changeFlags(exists, 0x01, 0, 0);
    await set(hsm, 'hsm_control=disabled');
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [asked])), 0);
    t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fresh, exists])), 0);
    await set(hsm, 'hsm.default_archive_id=7');
    const archives = (): readonly (readonly string[])[] =>
      [...get(hsm, 'hsm.actions').matchAll(/ action=(\w+) archive#=(\d+)/g)].map(([, action, id]) => [
        action ?? '',
        id ?? '',
      ]);
    const listed = [
      ['RESTORE', '3'],
      ['ARCHIVE', '1'],
      ['ARCHIVE', '1'],
    ];
    t.same(archives(), listed);
    await set(hsm, 'hsm_control=enabled');
    for (const name of ['asked', 'fresh', 'exists']) await flags(hsm, name, 0x09);
    hsm.coordinator.restoreNeeded(read, 1);
    await flags(hsm, 'read', 0x09);
    t.same(archives(), [...listed, ['RESTORE', '3']]);
    for (const fid of [fresh, exists]) t.match(await hsm.store.state(fid), { archiveId: 1 });
  },
);
