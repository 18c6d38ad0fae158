import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import {
  HPS_RUNNING,
  HPS_WAITING,
  HUA_ARCHIVE,
  HUA_CANCEL,
  HUA_RELEASE,
  HUA_REMOVE,
  HUA_RESTORE,
} from '../../src/hsm/flags.js';
import type { Fid, HsmRequest } from '../../src/store/inodes.js';
import { replay } from '../../src/store/journal.js';
import { caller, root } from '../helpers/callers.js';
import { datasyncIs } from '../helpers/datasync.js';
import { gate, MemoryHsm, testConfig } from '../helpers/memory-hsm.js';
import { until } from '../helpers/poll.js';

const { EACCES, EAGAIN, EBUSY, EINVAL, ENODATA, ENOENT, ENOSPC, EPERM, EROFS } = constants.errno;

const user = caller(1000);

function request(action: number, fids: readonly Fid[], caller = root, archiveId = 0): HsmRequest {
  return { action, fids, caller, archiveId, data: Buffer.alloc(0) };
}

/** Makes released files of blobs that hold their own names. */
async function released(hsm: MemoryHsm, ...paths: readonly string[]): Promise<readonly Fid[]> {
  return Promise.all(
    paths.map(async (path) => {
      const { etag, size, lastModifiedMs } = hsm.container.put(path, path);
      const stub = { path, kind: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 5n, size } as const;
      const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n };
      await hsm.store.createStubs([{ ...stub, copy: { blob: path, etag, size, lastModifiedMs } }], defaults);
      return hsm.store.fidOf(path);
    }),
  );
}

const idle = (hsm: MemoryHsm): Promise<unknown> =>
  until(
    () => {
      const { running, waiting } = hsm.coordinator.status();
      const left = running.implicit + running.explicit + Object.values(waiting).reduce((a, b) => a + b);
      return left === 0;
    },
    { what: 'the coordinator to be idle', intervalMs: 1 },
  );

await t.test('any number of readers, and an explicit restore, are served by one download', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  const held = gate();
  hsm.pool.gate = () => held.opened;
  hsm.coordinator.restoreNeeded(fid, 1);
  const explicit = hsm.coordinator.restore(fid);
  hsm.coordinator.restoreNeeded(fid, 2);
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), 0, 'a duplicate is ignored');
  await until(() => hsm.pool.calls.length > 0, { what: 'the download' });
  t.match(hsm.store.shown.get(fid), { state: HPS_RUNNING, action: HUA_RESTORE });
  held.open();
  await explicit;
  await idle(hsm);
  t.same(hsm.pool.calls, ['download a']);
  t.equal(hsm.store.content('a'), 'a');
  t.equal(hsm.store.flags('a'), 0x09);
  t.equal(hsm.store.shown.size, 0);
  t.match(hsm.coordinator.status(), { restored: 1, failed: 0, bytesRestored: 1, durable: 0 });
});

await t.test(
  'an archive that leaves out a name writes the others, fails, and the file is dirty',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const fid = hsm.store.write('a', 'x');
    for (const name of ['b\\', 'c']) await hsm.store.link('a', name);
    t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), 0);
    await idle(hsm);
    t.same([...hsm.container.blobs.keys()].sort(), ['a', 'c']);
    t.equal(hsm.store.flags('a'), 0x0b);
    t.match(await hsm.store.state(fid), { modified: true, copy: { blob: 'a' } });
    t.match(hsm.coordinator.status(), { archived: 0, failed: 1, durable: 0 });
  },
);

await t.test('an archive during which the file gets a name fails, and the file is dirty', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fid = hsm.store.write('a', 'x');
  hsm.pool.gate = () => hsm.store.link('a', 'b');
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), 0);
  await idle(hsm);
  t.match(await hsm.store.state(fid), { modified: true, flags: 0x0b, copy: { blob: 'a' } });
  t.match(hsm.coordinator.status(), { archived: 0, failed: 1, durable: 0 });
  hsm.pool.gate = () => undefined;
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), 0);
  await idle(hsm);
  t.equal(hsm.container.text('b'), 'x');
  t.equal(hsm.store.flags('a'), 0x09);
});

await t.test(
  'a failed restore leaves the file released, answers ENODATA and the next need tries again',
  async (t) => {
    const rows: readonly (readonly [string, Error])[] = [
      ['the blob is gone', new BlobError('missing', 'gone')],
      ['no connection', new BlobError('unreachable', 'down')],
      ['a full disk', Object.assign(new Error('ENOSPC'), { errno: ENOSPC, code: 'ENOSPC' })],
    ];
    for (const [what, cause] of rows) {
      await using hsm = await MemoryHsm.start();
      const [fid] = (await released(hsm, 'a')) as [Fid];
      hsm.pool.gate = () => Promise.reject(cause);
      await t.rejects(hsm.coordinator.restore(fid), { code: 'ENODATA' }, what);
      t.equal(hsm.store.flags('a'), 0x0d, what);
      t.ok(hsm.store.events.includes(`failRestore ${ENODATA} a`), what);
      t.match(hsm.coordinator.status(), {
        failed: 1,
        lastError: { blob: 'a', action: 'RESTORE', result: 'FAILED' },
      });
      t.equal(hsm.store.openFds, 0);
      hsm.pool.gate = () => undefined;
      hsm.coordinator.restoreNeeded(fid, 1);
      await idle(hsm);
      t.equal(hsm.store.flags('a'), 0x09, what);
    }
  },
);

await t.test('ENOSPC before the first byte is answered like every failure', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  hsm.store.before = (call) => {
    if (call === 'beginRestore') throw Object.assign(new Error('ENOSPC'), { errno: ENOSPC });
  };
  await t.rejects(hsm.coordinator.restore(fid), { code: 'ENODATA' });
  t.same(hsm.pool.calls, []);
  t.equal(hsm.store.flags('a'), 0x0d);
});

await t.test('a need that arrives when a restore is just ending gets a restore of its own', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  let fail = true;
  hsm.pool.gate = () => (fail ? Promise.reject(new BlobError('unreachable', 'down')) : undefined);
  hsm.store.before = (call) => {
    if (call !== 'failRestore' || !fail) return;
    fail = false;
    // The store has woken the first reader, which comes again before we know.
    queueMicrotask(() => {
      hsm.coordinator.restoreNeeded(fid, 1);
    });
  };
  hsm.coordinator.restoreNeeded(fid, 1);
  await until(() => hsm.store.flags('a') === 0x09, { what: 'the second restore', intervalMs: 1 });
  t.same(hsm.pool.calls, ['download a', 'download a']);
});

await t.test(
  'a blob that was replaced is restored whole as it is now, and given up when it keeps changing',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const [fid, other] = (await released(hsm, 'a', 'b')) as [Fid, Fid];
    const now = hsm.container.put('a', 'the new content');
    await hsm.coordinator.restore(fid);
    t.equal(hsm.store.content('a'), 'the new content');
    t.equal((await hsm.store.state(fid)).size, 15);
    t.equal((await hsm.store.state(fid)).copy?.etag, now.etag);
    t.equal((await hsm.store.state(fid)).mtimeNs, 5n, 'its mtime stays');
    t.ok(hsm.store.events.includes('beginRestore again a'));
    t.notOk(
      hsm.store.events.some((event) => event.startsWith('failRestore')),
      'its readers stay',
    );

    hsm.pool.calls.length = 0;
    hsm.pool.gate = (_kind, blob) => {
      hsm.container.put(blob, 'again');
    };
    await t.rejects(hsm.coordinator.restore(other), { code: 'ENODATA' });
    t.same(hsm.pool.calls, ['download b', 'download b', 'download b']);
    t.equal(hsm.store.flags('b'), 0x0d);
  },
);

await t.test('a blob that has become a directory is not the content of a file', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  hsm.container.put('a', '', { hdi_isfolder: 'true' });
  await t.rejects(hsm.coordinator.restore(fid), { code: 'ENODATA' });
});

await t.test('implicit restores overtake everything explicit', async (t) => {
  await using hsm = await MemoryHsm.start({ hsm: { maxRequests: 1, defaultArchiveId: 1 } });
  const paths = ['r1', 'r2', 'r3', 'i1'];
  const [r1, r2, r3, i1] = (await released(hsm, ...paths)) as [Fid, Fid, Fid, Fid];
  const held = gate();
  hsm.pool.gate = (_kind, blob) => (blob === 'r1' ? held.opened : undefined);
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [r1, r2, r3], user)), 0, 'anybody may restore');
  t.match(hsm.store.shown.get(r3), { state: HPS_WAITING, action: HUA_RESTORE, length: 2n ** 64n - 1n });
  t.equal(hsm.coordinator.status().durable, 3);
  hsm.coordinator.restoreNeeded(i1, 1);
  await until(() => hsm.store.flags('i1') === 0x09, { what: 'the reader', intervalMs: 1 });
  t.equal(hsm.store.flags('r1'), 0x0d);
  hsm.coordinator.restoreNeeded(r3, 1);
  await until(() => hsm.store.flags('r3') === 0x09, { what: 'the promoted request', intervalMs: 1 });
  held.open();
  await until(() => hsm.coordinator.status().durable === 0, { what: 'the rest', intervalMs: 1 });
  t.same(
    paths.map((path) => hsm.store.flags(path)),
    [9, 9, 9, 9],
  );
});

await t.test('explicit requests survive a restart, and what had started waits again', async (t) => {
  await using hsm = await MemoryHsm.start({ hsm: { maxRequests: 1, defaultArchiveId: 1 } });
  const fids = await released(hsm, 'a', 'b');
  hsm.pool.gate = () => new Promise(() => undefined);
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await until(() => hsm.pool.calls.length === 1, { what: 'the first download', intervalMs: 1 });
  const before = hsm.coordinator;
  const restarted = hsm.restart();
  hsm.pool.gate = () => undefined;
  await restarted;
  t.equal(await before.request(request(HUA_RESTORE, fids)), EAGAIN, 'the old one takes nothing more');
  await until(() => hsm.coordinator.status().durable === 0, { what: 'both restores', intervalMs: 1 });
  t.same([hsm.store.flags('a'), hsm.store.flags('b')], [9, 9]);
});

await t.test(
  'a cancel ends what waits and what runs, and needs root only when there is something',
  async (t) => {
    await using hsm = await MemoryHsm.start({ hsm: { maxRequests: 1, defaultArchiveId: 1 } });
    const [a, b, c] = (await released(hsm, 'a', 'b', 'c')) as [Fid, Fid, Fid];
    hsm.pool.gate = () => new Promise(() => undefined);
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [a, b])), 0);
    t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [c], user)), 0, 'nothing to cancel');
    t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [a], user)), EPERM);
    t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [b])), 0);
    t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [a])), 0);
    await idle(hsm);
    t.same([hsm.store.flags('a'), hsm.store.flags('b')], [0x0d, 0x0d]);
    t.ok(hsm.store.events.includes(`failRestore ${ENODATA} b`), 'a reader of a waiting one is let go');
    await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
    t.same(
      hsm.coordinator.status().recent.map(({ result }) => result),
      ['CANCELED', 'CANCELED'],
    );
    t.equal(hsm.store.openFds, 0);
    t.equal(hsm.store.shown.size, 0);
  },
);

const shutdown = (hsm: MemoryHsm): Promise<unknown> =>
  hsm.coordinator.control.set('hsm_control', 'shutdown', false);
const enable = (hsm: MemoryHsm): Promise<unknown> =>
  hsm.coordinator.control.set('hsm_control', 'enabled', false);

/** A restore of `a` runs and is given up; whoever had it given up may go on before its worker has acknowledged that. */
async function windingDown(
  hsm: MemoryHsm,
  how: 'hsm_cancel' | 'purge' | 'shutdown' | 'hydrate' | 'timeout',
  { read = false } = {},
): Promise<{ readonly fid: Fid; readonly over: () => void }> {
  const [fid] = (await released(hsm, 'a')) as [Fid];
  const [begun, acknowledged] = [gate(), gate()];
  const { download } = hsm.pool;
  hsm.pool.gate = () => {
    begun.open();
    return new Promise(() => undefined);
  };
  hsm.pool.download = (task, hooks) =>
    download(task, hooks).catch(async (error: unknown) => {
      await acknowledged.opened;
      throw error;
    });
  const stop = new AbortController();
  if (how === 'hydrate') hsm.coordinator.restore(fid, { signal: stop.signal }).catch(() => undefined);
  else t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), 0);
  await begun.opened;
  if (read) hsm.coordinator.restoreNeeded(fid, 1);
  if (how === 'hydrate') stop.abort();
  else if (how === 'timeout') {
    hsm.clock.ms += 3_600_000;
    hsm.coordinator.housekeep();
  } else if (how === 'purge') await hsm.coordinator.cancelAll();
  else if (how === 'shutdown') await shutdown(hsm);
  else t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [fid])), 0);
  hsm.pool.gate = () => undefined;
  return {
    fid,
    over: () => {
      acknowledged.open();
    },
  };
}

const restores: Readonly<Record<string, (hsm: MemoryHsm, fid: Fid) => unknown>> = {
  hsm_restore: async (hsm, fid) => {
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), 0);
  },
  'a reader': (hsm, fid) => {
    hsm.coordinator.restoreNeeded(fid, 1);
  },
  'a hydrate': (hsm, fid) => void hsm.coordinator.restore(fid).catch(() => undefined),
};

for (const how of ['hsm_cancel', 'hydrate'] as const)
  for (const [who, restore] of Object.entries(restores))
    await t.test(`rule 12: ${who} that comes while a canceled ${how} ends is served behind it`, async (t) => {
      await using hsm = await MemoryHsm.start();
      const { fid, over } = await windingDown(hsm, how);
      await restore(hsm, fid);
      t.same(hsm.pool.calls, ['download a'], 'one worker at a time');
      const { waiting } = hsm.coordinator.status();
      t.same(
        [waiting.implicit, waiting.restore],
        who === 'a reader' ? [1, 0] : [0, 1],
        'it waits for its turn',
      );
      over();
      await idle(hsm);
      t.same(hsm.pool.calls, ['download a', 'download a']);
      t.equal(hsm.store.flags('a'), 0x09);
      t.notOk(hsm.store.events.includes(`failRestore ${ENODATA} a`), 'who waits goes on waiting');
      t.same(
        hsm.coordinator.status().recent.map(({ result }) => result),
        ['CANCELED', 'SUCCEED'],
      );
      await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
      t.equal(hsm.store.openFds, 0);
    });

for (const how of ['hsm_cancel', 'purge', 'timeout'] as const)
  await t.test(
    `rule 12: who reads after a ${how} is served, though somebody has read before it`,
    async (t) => {
      await using hsm = await MemoryHsm.start();
      const { fid, over } = await windingDown(hsm, how, { read: true });
      /** As the store does: it tells of nobody else before that is over, or canceled. */
      const readers = (canceled: number): void => {
        const told = hsm.store.events.filter((event) => event === 'restoreCanceled a');
        if (told.length === canceled) hsm.coordinator.restoreNeeded(fid, 2);
      };
      readers(1);
      t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [fid])), 0, 'what waits behind it');
      readers(3);
      over();
      await idle(hsm);
      t.same([hsm.pool.calls, hsm.store.flags('a')], [['download a', 'download a'], 0x09]);
      t.notOk(hsm.store.events.includes(`failRestore ${ENODATA} a`));
    },
  );

await t.test('what waits behind a canceled restore can be canceled, purged and stopped, too', async (t) => {
  const ends: Readonly<Record<string, (hsm: MemoryHsm, fid: Fid) => unknown>> = {
    cancel: (hsm, fid) => hsm.coordinator.request(request(HUA_CANCEL, [fid])),
    purge: (hsm) => hsm.coordinator.cancelAll(),
    shutdown: (hsm) => hsm.coordinator.control.set('hsm_control', 'shutdown', false),
    restart: (hsm) => hsm.restart(),
  };
  for (const [how, end] of Object.entries(ends)) {
    await using hsm = await MemoryHsm.start();
    const { fid, over } = await windingDown(hsm, 'hsm_cancel');
    for (const who of ['hsm_restore', 'a reader']) await restores[who]?.(hsm, fid);
    const ended = end(hsm, fid);
    over();
    await ended;
    if (how !== 'restart') {
      const told = (): boolean => hsm.store.events.includes(`failRestore ${ENODATA} a`);
      await until(told, { what: `${how}: ENODATA for its readers`, intervalMs: 1 });
      t.same(hsm.pool.calls, ['download a'], how);
      t.equal(hsm.store.flags('a'), 0x0d, how);
      await hsm.coordinator.control.set('hsm_control', 'enabled', false);
    }
    await idle(hsm);
    await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
    t.equal(hsm.store.flags('a'), how === 'cancel' || how === 'purge' ? 0x0d : 0x09, how);
    t.equal(hsm.store.openFds, 0);
  }
});

await t.test('what was canceled or purged stays so, whatever stops before its worker knows', async (t) => {
  const stops = { shutdown, restart: (hsm: MemoryHsm) => hsm.restart() };
  for (const how of ['hsm_cancel', 'purge'] as const)
    for (const [what, stop] of Object.entries(stops)) {
      await using hsm = await MemoryHsm.start();
      const { over } = await windingDown(hsm, how);
      const stopped = stop(hsm);
      t.equal(hsm.coordinator.status().durable, 0, `${how}, ${what}`);
      over();
      await stopped;
      if (what === 'shutdown') {
        const ended = (): boolean => hsm.coordinator.status().recent[0]?.result === 'CANCELED';
        await until(ended, { what: `${how}, ${what}: its end`, intervalMs: 1 });
      }
      await enable(hsm);
      await idle(hsm);
      t.same([hsm.pool.calls, hsm.store.flags('a')], [['download a'], 0x0d], `${how}, ${what}`);
    }
});

for (const how of ['hsm_cancel', 'purge'])
  await t.test(`${how}: what it was answered for never begins again, whenever the daemon dies`, async (t) => {
    await using hsm = await MemoryHsm.start({ hsm: { maxRequests: 1, defaultArchiveId: 1 } });
    const [begun, acknowledged, sizing, slow] = [gate(), gate(), gate(), gate()];
    const { upload } = hsm.pool;
    hsm.pool.gate = () => {
      begun.open();
      return new Promise(() => undefined);
    };
    hsm.pool.upload = (task, hooks) =>
      upload(task, hooks).catch(async (error: unknown) => {
        await acknowledged.opened;
        throw error;
      });
    const [runs, waits, unqueued] = ['runs', 'waits', 'unqueued'].map((path) =>
      hsm.store.write(path, 'x'),
    ) as [Fid, Fid, Fid];
    t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [runs, waits])), 0);
    let looks = 0;
    hsm.store.before = (call, fid) => {
      if (call !== 'state' || fid !== unqueued || ++looks !== 2) return undefined;
      sizing.open();
      return slow.opened;
    };
    const asked = hsm.coordinator.request(request(HUA_ARCHIVE, [unqueued]));
    await Promise.all([begun.opened, sizing.opened]);

    const [syncing, disk] = [gate(), gate()];
    await datasyncIs(t, () => {
      syncing.open();
      return disk.opened;
    });
    let answered = false;
    const cancel = (): Promise<unknown> =>
      how === 'purge'
        ? hsm.coordinator.control.set('hsm_control', 'purge', false)
        : hsm.coordinator.request(request(HUA_CANCEL, [runs, waits, unqueued]));
    const canceled = cancel().then(() => {
      answered = true;
    });
    await syncing.opened;
    t.equal(answered, false, 'the disk does not have it yet');
    disk.open();
    await canceled;
    const left = replay(await readFile(join(hsm.folder, 'journal'))).live;
    t.equal(left.size, 0, 'the next daemon would find none of them');
    t.equal(hsm.coordinator.changing, 1, 'one is not over yet');
    acknowledged.open();
    slow.open();
    await asked;
    await until(() => hsm.coordinator.changing === 0, { what: 'its end', intervalMs: 1 });
    t.same(hsm.pool.calls, ['upload runs']);
  });

await t.test('a restart takes up a restore that a shutdown has interrupted', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { over } = await windingDown(hsm, 'shutdown');
  const restarted = hsm.restart();
  over();
  await restarted;
  await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
  t.equal(hsm.store.flags('a'), 0x09);
});

await t.test(
  'who reads once the coordinator is enabled again waits, also while the stop winds down',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const { fid, over } = await windingDown(hsm, 'shutdown');
    await enable(hsm);
    hsm.coordinator.restoreNeeded(fid, 1);
    over();
    await idle(hsm);
    t.notOk(hsm.store.events.includes(`failRestore ${ENODATA} a`));
    t.same([hsm.pool.calls, hsm.store.flags('a')], [['download a', 'download a'], 0x09]);
  },
);

await t.test(
  'who reads once it is enabled again waits, also where a restore stands behind a canceled one',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const { fid, over } = await windingDown(hsm, 'hsm_cancel');
    for (const who of ['hsm_restore', 'a reader']) await restores[who]?.(hsm, fid);
    await shutdown(hsm);
    await enable(hsm);
    hsm.coordinator.restoreNeeded(fid, 1);
    over();
    await until(() => hsm.coordinator.status().durable === 0, { what: 'the restore', intervalMs: 1 });
    t.notOk(hsm.store.events.includes(`failRestore ${ENODATA} a`));
    t.equal(hsm.store.flags('a'), 0x09);
  },
);

await t.test('a shutdown lets readers go, also where a restore stands behind a canceled one', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { fid, over } = await windingDown(hsm, 'hsm_cancel');
  await restores['hsm_restore']?.(hsm, fid);
  await shutdown(hsm);
  over();
  const told = (errno: number) => (): boolean => hsm.store.events.includes(`failRestore ${errno} a`);
  await until(told(0), { what: 'the end of the canceled one', intervalMs: 1 });
  // A reader that waited is told to ask again.
  hsm.coordinator.restoreNeeded(fid, 1);
  await until(told(ENODATA), { what: 'ENODATA', intervalMs: 1 });
  t.same(hsm.pool.calls, ['download a']);
  await enable(hsm);
  await idle(hsm);
  await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
  t.equal(hsm.store.flags('a'), 0x09);
  t.match(hsm.coordinator.status().recent, [{ result: 'CANCELED' }, { result: 'SUCCEED' }]);
});

await t.test('a restore that is asked for while one is refused begins behind it', async (t) => {
  for (const who of ['hsm_restore', 'a hydrate']) {
    await using hsm = await MemoryHsm.start();
    const { fid, over } = await windingDown(hsm, 'hydrate');
    await shutdown(hsm);
    hsm.coordinator.restoreNeeded(fid, 1);
    await enable(hsm);
    await restores[who]?.(hsm, fid);
    over();
    await idle(hsm);
    await until(() => hsm.coordinator.status().durable === 0, { what: 'the journal', intervalMs: 1 });
    t.same([hsm.pool.calls, hsm.store.flags('a')], [['download a', 'download a'], 0x09], who);
    t.match(
      hsm.coordinator.status().recent,
      [{ result: 'CANCELED' }, { result: 'FAILED' }, { result: 'SUCCEED' }],
      who,
    );
  }
});

await t.test('requests run in the order they were asked for, whatever the store answers first', async (t) => {
  await using hsm = await MemoryHsm.start({ hsm: { maxRequests: 1, defaultArchiveId: 1 } });
  const [a, b] = (await released(hsm, 'a', 'b')) as [Fid, Fid];
  const slow = gate();
  const asked = new Map<Fid, number>();
  hsm.store.before = (call, fid) => {
    if (call !== 'state') return undefined;
    const times = (asked.get(fid) ?? 0) + 1;
    asked.set(fid, times);
    // Once it was asked whether the request is needed, and now as it is queued.
    if (fid === b && times === 2)
      setImmediate(() => {
        slow.open();
      });
    return fid === a && times === 2 ? slow.opened : undefined;
  };
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [a, b])), 0);
  await until(() => hsm.coordinator.status().durable === 0, { what: 'both restores', intervalMs: 1 });
  t.same(hsm.pool.calls, ['download a', 'download b']);
});

for (const how of ['a cancel', 'a purge'])
  await t.test(`${how} ends a request that is journaled and waits to be queued`, async (t) => {
    await using hsm = await MemoryHsm.start();
    const [a, b] = (await released(hsm, 'a', 'b')) as [Fid, Fid];
    const [slow, reached] = [gate(), gate()];
    let times = 0;
    hsm.store.before = (call, fid) => {
      if (call !== 'state' || fid !== a || ++times < 2) return undefined;
      reached.open();
      return slow.opened;
    };
    const asked = hsm.coordinator.request(request(HUA_RESTORE, [a, b]));
    await reached.opened;
    if (how === 'a purge') await hsm.coordinator.cancelAll();
    else t.equal(await hsm.coordinator.request(request(HUA_CANCEL, [b])), 0);
    slow.open();
    t.equal(await asked, 0);
    await idle(hsm);
    t.same(hsm.pool.calls, how === 'a purge' ? [] : ['download a']);
    t.equal(hsm.coordinator.status().durable, 0);
  });

await t.test('a release waits for a restore that nobody else waits for (lustre-hsm 3.3)', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  const [slow, reached] = [gate(), gate()];
  hsm.pool.gate = () => {
    reached.open();
    return slow.opened;
  };
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), 0);
  await reached.opened;
  const ends: string[] = [];
  const releasing = hsm.coordinator.request(request(HUA_RELEASE, [fid])).then((errno) => {
    ends.push(`release ${String(errno)}`);
  });
  await hsm.store.state(fid);
  t.same(ends, []);
  slow.open();
  await releasing;
  t.same([...ends, hsm.store.flags('a')], ['release 0', 0x0d]);
});

for (const command of ['disabled', 'shutdown'])
  await t.test(`${command}: a release waits for no restore that waits for the coordinator`, async (t) => {
    await using hsm = await MemoryHsm.start({ hsm: { maxRequests: 1, defaultArchiveId: 1 } });
    const { fid: a, over } = await windingDown(hsm, 'shutdown');
    const answers: string[] = [];
    const release = (fid: Fid): void => {
      const answer = hsm.coordinator.request(request(HUA_RELEASE, [fid]));
      void answer.then((errno) => answers.push(`${hsm.store.shown.get(fid)?.state ?? 'none'}: ${errno}`));
    };
    const answered = (count: number): Promise<unknown> =>
      until(() => answers.length === count, { what: `answer ${count}`, intervalMs: 1 });
    release(a);
    await hsm.store.state(a);
    t.same(answers, [], 'its worker has the file');
    over();
    await answered(1);
    release(a);
    await answered(2);

    const slow = gate();
    hsm.pool.gate = () => slow.opened;
    await enable(hsm);
    const [b] = (await released(hsm, 'b')) as [Fid];
    t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [b])), 0);
    await until(() => hsm.pool.calls.length === 2, { what: 'the restore of a', intervalMs: 1 });
    release(b);
    await hsm.store.state(b);
    t.equal(answers.length, 2, 'it has its turn yet');
    await hsm.coordinator.control.set('hsm_control', command, false);
    await answered(3);
    t.same(answers, Array(3).fill(`${HPS_WAITING}: 0`));
    t.equal(hsm.store.flags('b'), 0x0d);
    slow.open();
    await enable(hsm);
    await until(() => hsm.coordinator.status().durable === 0, { what: 'both restores', intervalMs: 1 });
    t.same([hsm.store.flags('a'), hsm.store.flags('b')], [0x09, 0x09], 'what was asked for stays');
  });

await t.test('items are taken in order and stop at the first refused one', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [stub] = (await released(hsm, 'stub')) as [Fid];
  const dirty = hsm.store.write('dirty', 'x');
  await hsm.store.changeFlags(dirty, 0x03, 0, 1);
  const [later] = (await released(hsm, 'later')) as [Fid];
  const gone = '[0x999:0x1:0x0]' as Fid;
  const folder = hsm.store.mkdir('folder');
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [stub, stub, dirty, later])), EPERM);
  await idle(hsm);
  t.equal(hsm.store.flags('stub'), 0x09, 'what came before stays');
  t.equal(hsm.store.flags('later'), 0x0d, 'what comes after was not looked at');
  const rows: readonly (readonly [string, HsmRequest, number])[] = [
    ['a restore of nothing', request(HUA_RESTORE, [gone]), ENOENT],
    ['a remove of nothing by root', request(HUA_REMOVE, [gone]), 0],
    ['a remove of nothing by a user', request(HUA_REMOVE, [gone], user), ENOENT],
    ['an archive by a user', request(HUA_ARCHIVE, [dirty], user), EPERM],
    ['an archive of a directory', request(HUA_ARCHIVE, [folder]), EINVAL],
    ['an unknown action', request(99, [dirty]), EINVAL],
    ['a release of a dirty file', request(HUA_RELEASE, [dirty]), EPERM],
    ['a release of a clean one', request(HUA_RELEASE, [stub]), 0],
    ['a release of nothing', request(HUA_RELEASE, [gone]), ENOENT],
  ];
  for (const [what, asked, errno] of rows) t.equal(await hsm.coordinator.request(asked), errno, what);
  t.equal(hsm.store.flags('stub'), 0x0d);
});

await t.test('while it is blocked, lfs is refused with EBUSY and reads still restore', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  hsm.coordinator.setBlocked('auto-import is on');
  for (const action of [HUA_ARCHIVE, HUA_RESTORE, HUA_RELEASE, HUA_REMOVE, HUA_CANCEL]) {
    t.equal(await hsm.coordinator.request(request(action, [fid])), EBUSY);
  }
  t.equal(await hsm.coordinator.stateSet({ fid, set: 0x10, clear: 0, caller: root }), EBUSY);
  t.equal(hsm.coordinator.status().blocked, 'auto-import is on');
  hsm.coordinator.restoreNeeded(fid, 1);
  await idle(hsm);
  t.equal(hsm.store.flags('a'), 0x09);
  hsm.coordinator.setBlocked(null);
  t.equal(await hsm.coordinator.stateSet({ fid, set: 0x10, clear: 0, caller: root }), 0);
  t.equal(hsm.store.flags('a'), 0x19);
});

await t.test('the flags of a file are for those who may write it, however they have opened it', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fid = hsm.store.write('a', 'content');
  const change = { fid, set: 0x10, clear: 0 };
  t.equal(await hsm.coordinator.stateSet({ ...change, caller: user }), EACCES);
  t.equal(hsm.store.flags('a'), 0);
  t.equal(await hsm.coordinator.stateSet({ ...change, caller: root }), 0);
  t.equal(hsm.store.flags('a'), 0x10);
});

await t.test('a read-only mount allows nothing but restores', async (t) => {
  await using hsm = await MemoryHsm.start({ readOnly: true });
  const [fid] = (await released(hsm, 'a')) as [Fid];
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), EROFS);
  t.equal(await hsm.coordinator.request(request(HUA_RELEASE, [fid])), EROFS);
  t.equal(await hsm.coordinator.stateSet({ fid, set: 0x10, clear: 0, caller: root }), EROFS);
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, [fid])), 0);
  await idle(hsm);
  t.equal(hsm.store.flags('a'), 0x09);
});

await t.test('hsm_archive finds the path of a FID and writes the blob of that name', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fid = hsm.store.write('dir/new file', 'content');
  await hsm.store.setAttributes('dir/new file', {
    mode: 0o600,
    uid: 7,
    gid: 8,
    mtimeNs: 1_500_000_000_000_000_000n,
  });
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid], root, 5)), 0);
  await idle(hsm);
  t.equal(hsm.container.text('dir/new file'), 'content');
  t.match(hsm.container.metadata('dir/new file'), {
    owner: '7',
    group: '8',
    permissions: '0600',
    modtime: '2017-07-14 02:40:00 +0000',
  });
  t.match(await hsm.store.state(fid), { flags: 0x09, archiveId: 5, modified: false });
  hsm.store.write('dir/new file', 'more');
  t.equal(hsm.store.flags('dir/new file'), 0x0b);
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid], root, 6)), EPERM, 'another archive');
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), 0);
  await idle(hsm);
  t.equal(hsm.container.text('dir/new file'), 'more');
  t.match(hsm.coordinator.status(), { archived: 2, bytesArchived: 11 });
});

await t.test('hsm_archive of a never_archive file is refused, and an export of it, too', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fid = hsm.store.write('a', 'x');
  t.equal(await hsm.coordinator.stateSet({ fid, set: 0x20, clear: 0, caller: root }), 0);
  t.equal(await hsm.coordinator.request(request(HUA_ARCHIVE, [fid])), EPERM);
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), { kind: 'refused', code: 'NoArchive' });
  t.equal(hsm.container.blobs.size, 0);
});

await t.test('hsm_remove deletes the blob, and the file is as new', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [fid] = (await released(hsm, 'a')) as [Fid];
  t.equal(await hsm.coordinator.request(request(HUA_REMOVE, [fid])), EPERM, 'its only copy');
  await hsm.coordinator.restore(fid);
  t.equal(await hsm.coordinator.request(request(HUA_REMOVE, [fid])), 0);
  await idle(hsm);
  t.equal(hsm.container.blobs.size, 0);
  t.match(await hsm.store.state(fid), { flags: 0x00, archiveId: 1, modified: true, copy: undefined });
  t.equal(await hsm.coordinator.request(request(HUA_RELEASE, [fid])), EPERM);
});

await t.test(
  'hsm_remove leaves the blob that somebody else wrote, and a failed one leaves the file in no copy',
  async (t) => {
    await using hsm = await MemoryHsm.start();
    const [fid] = (await released(hsm, 'a')) as [Fid];
    await hsm.coordinator.restore(fid);
    hsm.container.put('a', 'theirs');
    t.equal(await hsm.coordinator.request(request(HUA_REMOVE, [fid])), 0);
    await idle(hsm);
    t.equal(hsm.container.text('a'), 'theirs');
    t.match(await hsm.store.state(fid), { flags: 0x01, modified: true });
    await using strict = await MemoryHsm.start({ compat: { strict: true } });
    const [other] = (await released(strict, 'a')) as [Fid];
    await strict.coordinator.restore(other);
    strict.container.put('a', 'theirs');
    t.equal(await strict.coordinator.request(request(HUA_REMOVE, [other])), 0);
    await idle(strict);
    t.equal(strict.container.blobs.size, 0, 'as production does');
  },
);

await t.test('compat.strict looks for a blob at the present path of its file, or at file_id', async (t) => {
  await using hsm = await MemoryHsm.start({ compat: { strict: true } });
  const [fid] = (await released(hsm, 'a')) as [Fid];
  hsm.container.put('elsewhere', 'asked for');
  await hsm.store.rename('a', 'b');
  await t.rejects(hsm.coordinator.restore(fid), { code: 'ENODATA' }, 'it is not found there');
  t.equal(hsm.store.flags('b'), 0x0d, 'a stub');
  hsm.container.put('b', 'there now');
  await hsm.coordinator.restore(fid);
  t.equal(hsm.store.content('b'), 'there now');
  t.equal((await hsm.store.state(fid)).copy?.blob, 'b');

  await hsm.coordinator.release(fid);
  const data = Buffer.from('{"file_id":"elsewhere"}');
  t.equal(await hsm.coordinator.request({ ...request(HUA_RESTORE, [fid]), data }), 0);
  await idle(hsm);
  t.equal(hsm.store.content('b'), 'asked for');
  t.equal(await hsm.coordinator.request({ ...request(HUA_REMOVE, [fid]), data }), 0);
  await idle(hsm);
  t.same([...hsm.container.blobs.keys()].sort(), ['a', 'b']);
  t.equal(hsm.store.content('b'), 'asked for', 'the file stays');
});

await t.test('compat.strict saves a renamed stub from its blob before that is another file', async (t) => {
  await using hsm = await MemoryHsm.start({ compat: { strict: true } });
  const [fid] = (await released(hsm, 'a')) as [Fid];
  const was = hsm.container.text('a');
  await hsm.store.rename('a', 'b');
  await hsm.coordinator.withBlob('a', undefined, () => hsm.container.delete('a'));
  t.equal(hsm.store.content('b'), was);
  t.match(await hsm.store.state(fid), { modified: true });
});

await t.test('an archive keeps what it does not own of the blob it replaces', async (t) => {
  await using hsm = await MemoryHsm.start();
  const { etag, size, lastModifiedMs } = hsm.container.store('a', Buffer.from('old'), {
    metadata: { Project: 'x', owner: '99', posix_owner: '99', is_fifo: 'true' },
    headers: { contentType: 'text/csv', cacheControl: 'no-store' },
    tier: 'Cool',
  });
  const stub = { path: 'a', kind: 'file', mode: 0o644, uid: 1, gid: 2, mtimeNs: 0n, size } as const;
  const defaults = { dirMode: 0o755, uid: 0, gid: 0, mtimeNs: 0n };
  await hsm.store.createStubs([{ ...stub, copy: { blob: 'a', etag, size, lastModifiedMs } }], defaults);
  const fid = hsm.store.fidOf('a');
  await hsm.coordinator.restore(fid);
  hsm.store.write('a', 'new');
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), { kind: 'archived' });
  const blob = hsm.container.blobs.get('a');
  t.match(blob?.options, { headers: { contentType: 'text/csv', cacheControl: 'no-store' }, tier: 'Cool' });
  t.match(blob?.options.metadata, { project: 'x', owner: '1' });
  t.notOk('posix_owner' in (blob?.options.metadata ?? {}));
});

await t.test(
  'a blob that somebody else wrote is overwritten, or refused when the configuration says so',
  async (t) => {
    const rows: readonly (readonly [string, boolean, boolean])[] = [
      ['a new file', false, false],
      ['a known file', true, false],
      ['a new file, export.ifMatch', false, true],
      ['a known file, export.ifMatch', true, true],
    ];
    for (const [what, known, ifMatch] of rows) {
      await using hsm = await MemoryHsm.start({ export: { ifMatch } });
      if (known) {
        const [fid] = (await released(hsm, 'a')) as [Fid];
        await hsm.coordinator.restore(fid);
      }
      const fid = hsm.store.write('a', 'ours');
      hsm.container.put('a', 'theirs');
      const outcome = await hsm.coordinator.archive(fid, { path: 'a' });
      t.match(outcome, ifMatch ? { kind: 'refused', code: 'Conflict' } : { kind: 'archived' }, what);
      t.equal(hsm.container.text('a'), ifMatch ? 'theirs' : 'ours', what);
      t.equal((await hsm.store.state(fid)).modified, ifMatch, what);
    }
  },
);

await t.test('export.ifMatch lets a store overwrite what it wrote itself', async (t) => {
  await using hsm = await MemoryHsm.start({ export: { ifMatch: true } });
  const first = hsm.store.write('a', 'one');
  t.match(await hsm.coordinator.archive(first, { path: 'a' }), { kind: 'archived' });
  hsm.store.unlink('a');
  const second = hsm.store.write('a', 'two');
  t.match(
    await hsm.coordinator.archive(second, { path: 'a' }),
    { kind: 'archived' },
    'as an editor saves: another file has the name',
  );
  const { metadata = {} } = hsm.container.blobs.get('a')?.options ?? {};
  t.match(metadata['lustrite_upload'], /^store-1\//);
  hsm.container.put('b', 'theirs', metadata);
  t.match(
    await hsm.coordinator.archive(hsm.store.write('b', 'ours'), { path: 'b' }),
    { kind: 'refused', code: 'Conflict' },
    "somebody's copy of our blob is not ours",
  );
  hsm.container.put('a', 'theirs', { ...metadata, lustrite_upload: 'store-2/x' });
  hsm.store.write('a', 'three');
  t.match(await hsm.coordinator.archive(second, { path: 'a' }), {
    kind: 'refused',
    code: 'Conflict',
    reason: 'the blob a is not the version that this file comes from',
  });
  t.equal(hsm.container.text('a'), 'theirs');
});

await t.test('an archive that waits for the restore of another file can be canceled', async (t) => {
  await using hsm = await MemoryHsm.start();
  const [old] = (await released(hsm, 'a')) as [Fid];
  await hsm.store.rename('a', 'b');
  const held = gate();
  hsm.pool.gate = (kind) => (kind === 'download' ? held.opened : undefined);
  const fresh = hsm.store.write('a', 'new');
  const stop = new AbortController();
  const archive = hsm.coordinator.archive(fresh, { path: 'a', signal: stop.signal });
  await until(() => hsm.pool.calls.some((call) => call.startsWith('download')), {
    what: 'the restore of what was renamed',
    intervalMs: 1,
  });
  stop.abort();
  t.match(await archive, { kind: 'canceled' });
  t.equal(hsm.container.text('a'), 'a', 'nothing was overwritten');
  held.open();
  await hsm.coordinator.restore(old);
});

await t.test('an upload whose answer was lost is recognised as our own', async (t) => {
  await using hsm = await MemoryHsm.start({ export: { ifMatch: true } });
  const fid = hsm.store.write('a', 'ours');
  const { upload } = hsm.pool;
  hsm.pool.upload = async (task, hooks) => {
    await upload(task, hooks);
    throw new BlobError('exists', 'the client sent it twice');
  };
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), { kind: 'archived' });
  t.equal(hsm.store.flags('a'), 0x09);
});

await t.test('a file that changes during its upload is never committed, and stays dirty', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fid = hsm.store.write('a', 'one');
  hsm.pool.gate = () => {
    hsm.store.write('a', 'two');
  };
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), { kind: 'busy' });
  t.equal(hsm.container.blobs.size, 0);
  t.equal((await hsm.store.state(fid)).modified, true);
  t.equal(hsm.store.flags('a'), 0x03);
  hsm.pool.gate = () => undefined;
  const close = hsm.store.hold('a');
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), { kind: 'busy' }, 'open for writing');
  close();
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), { kind: 'archived' });
  t.equal(hsm.container.text('a'), 'two');
  t.equal(hsm.store.openFds, 0);
});

await t.test('an archive answers what it could not do', async (t) => {
  await using hsm = await MemoryHsm.start();
  const fid = hsm.store.write('a', 'one');
  const [stub] = (await released(hsm, 'stub')) as [Fid];
  t.match(await hsm.coordinator.archive(fid, { path: 'a\\b' }), { kind: 'refused', code: 'InvalidName' });
  t.match(await hsm.coordinator.archive(fid, { path: Buffer.from([0x61, 0xff]) }), { code: 'InvalidName' });
  t.match(await hsm.coordinator.archive('[0x999:0x1:0x0]' as Fid, { path: 'x' }), { kind: 'gone' });
  t.match(await hsm.coordinator.archive(stub, { path: 'stub' }), { kind: 'not-needed' });
  hsm.pool.gate = () => Promise.reject(new BlobError('forbidden', 'no'));
  t.match(await hsm.coordinator.archive(fid, { path: 'a' }), {
    kind: 'failed',
    error: { kind: 'forbidden' },
  });
  hsm.pool.gate = () => new Promise(() => undefined);
  const stop = new AbortController();
  const stopped = hsm.coordinator.archive(fid, { path: 'a', signal: stop.signal });
  await until(() => hsm.pool.calls.length === 2, { what: 'the upload', intervalMs: 1 });
  stop.abort();
  t.match(await stopped, { kind: 'canceled' });
  t.match(await hsm.coordinator.archive(fid, { path: 'a', signal: stop.signal }), { kind: 'canceled' });
  t.equal(hsm.store.openFds, 0);
});

await t.test('the strict configuration runs three explicit requests at a time', async (t) => {
  await using hsm = await MemoryHsm.start({
    hsm: { ...testConfig.hsm, maxRequests: 3 },
    compat: { strict: true },
  });
  const fids = await released(hsm, 'a', 'b', 'c', 'd');
  const held = gate();
  hsm.pool.gate = () => held.opened;
  t.equal(await hsm.coordinator.request(request(HUA_RESTORE, fids)), 0);
  await until(() => hsm.pool.calls.length === 3, { what: 'three downloads', intervalMs: 1 });
  t.match(hsm.coordinator.status(), { running: { explicit: 3 }, waiting: { restore: 1 } });
  held.open();
  await idle(hsm);
  const fid = hsm.store.write('new', 'x');
  await hsm.coordinator.archive(fid, { path: 'new' });
  t.same(Object.keys(hsm.container.metadata('new') ?? {}).sort(), [
    'group',
    'modtime',
    'owner',
    'permissions',
  ]);
});
