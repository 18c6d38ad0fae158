/** kill -9 at every named crash point: one table of scenarios, each of which drives the real daemon into its point. */
import { link, mkdir, open, readdir, readFile, stat, rename, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { CRASH_POINTS } from '../../src/base/crash.js';
import { HS_NORELEASE } from '../../src/hsm/flags.js';
import { loadAddon } from '../../src/native/binding.js';
import { Azurite } from '../helpers/azurite.js';
import { content, CrashLab } from '../helpers/crash-lab.js';
import { HS, lfs, states, untilFlags } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok } from '../helpers/run.js';

/** What a scenario has: a folder of its own on a mount that others have had before. */
interface Stage {
  readonly lab: CrashLab;
  /** A file of the folder, relative to the mount. */
  readonly file: (name: string) => string;
  /** The same on the mount. */
  readonly at: (name: string) => string;
}

interface Scenario {
  readonly point: string;
  readonly title: string;
  /** Before the daemon may die. The folder has `stub` and `clean`. */
  readonly prepare?: (stage: Stage) => Promise<unknown>;
  /** What brings the daemon to the point. May fail: the daemon dies under it. */
  readonly drive: (stage: Stage) => Promise<unknown>;
  /** What the next daemon shows, before the checks that every scenario gets. */
  readonly then?: (t: Test, stage: Stage) => Promise<unknown>;
}

/** Points on the way of a daemon's first start, on a store of its own. */
interface FirstStart extends Pick<Scenario, 'point' | 'title'> {
  /** Which passage of the point is the last. */
  readonly nth?: number;
}

const cut = 1000;

async function append(path: string, bytes: Buffer): Promise<void> {
  const file = await open(path, 'a');
  try {
    await file.write(bytes);
  } finally {
    await file.close();
  }
}

async function openForWriting(path: string): Promise<void> {
  await (await open(path, 'r+')).close();
}

/** Appends to a file of the stage, in the model as well. */
function grow({ lab, file, at }: Stage, name: string): Promise<void> {
  const more = content(`more of ${file(name)}`, cut);
  return lab.change(file(name), Buffer.concat([lab.sure(file(name)), more]), () => append(at(name), more));
}

function cutTo(size: number, name: string) {
  return ({ lab, file, at }: Stage): Promise<void> =>
    lab.change(file(name), lab.sure(file(name)).subarray(0, size), () =>
      // truncate(2): Node's own opens the file for writing, which restores it.
      ok('python3', [
        '-c',
        'import os,sys; os.truncate(sys.argv[1], int(sys.argv[2]))',
        at(name),
        String(size),
      ]),
    );
}

function create({ lab, file, at }: Stage, name: string, size?: number): Promise<void> {
  const body = content(`new ${file(name)}`, size);
  return lab.change(file(name), body, () => writeFile(at(name), body));
}

const exportAll = ({ lab }: Stage): Promise<unknown> => lab.export();

const hsm =
  (verb: string, name: string) =>
  ({ at }: Stage): Promise<unknown> =>
    lfs([`hsm_${verb}`, at(name)]);

const read =
  (name: string) =>
  ({ at }: Stage): Promise<unknown> =>
    readFile(at(name));

/**
 * Changes `clean`, and asks for its state until the daemon has died on it: a file that its last writer is still about to
 * leave when the daemon hears of the close is settled by who asks next.
 */
const untilSettled =
  (change: NonNullable<Scenario['prepare']>) =>
  async (stage: Stage): Promise<void> => {
    await change(stage);
    await until(
      async () => {
        if (!stage.lab.mount.gone) await lfs(['hsm_state', stage.at('clean')]);
        return stage.lab.mount.gone;
      },
      { what: 'the daemon to die' },
    );
  };

const shows =
  (name: string, flags: number) =>
  async (t: Test, { lab, file }: Stage): Promise<void> => {
    t.equal(await lab.flag(file(name)), flags, `${name} is 0x${flags.toString(16)}`);
  };

const becomes =
  (name: string, flags: number) =>
  (_t: Test, { at }: Stage): Promise<void> =>
    untilFlags(at(name), flags);

/** A file whose restore was cut off is a stub again, and has given its space back. */
async function isEmptyStub(t: Test, { lab, file }: Stage): Promise<void> {
  t.equal(await lab.flag(file('stub')), states.stub, 'still a stub');
  t.ok((await lab.allocated(file('stub'))) <= 8192, 'its space is free again');
}

/** The next commands set the flag, and clear it. */
async function norelease(t: Test, stage: Stage, flags: number): Promise<void> {
  const path = stage.at('clean');
  t.equal((await lfs(['hsm_set', '--norelease', path])).code, 0);
  await shows('clean', flags | HS_NORELEASE)(t, stage);
  t.equal((await lfs(['hsm_clear', '--norelease', path])).code, 0);
  await shows('clean', flags)(t, stage);
}

async function hasFailedExport(t: Test, { lab }: Stage): Promise<void> {
  const last = (await lab.jobs()).filter(({ kind }) => kind === 'export').at(-1);
  t.match(
    last?.properties.status,
    { state: 'Failed', errorMessage: /./ },
    'the export has failed, with a reason',
  );
}

/** The next export has written what this one had not, directories, too. */
function isExported(...directories: readonly string[]): NonNullable<Scenario['then']> {
  return async (t, stage) => {
    const { lab, file } = stage;
    await hasFailedExport(t, stage);
    await exportAll(stage);
    for (const directory of directories) {
      const { metadata } = await lab.client.getBlobClient(file(directory)).getProperties();
      t.equal(metadata?.['hdi_isfolder'], 'true', directory);
    }
  };
}

/** Another client writes the blob of a file here, and an import takes it over whatever the file is. */
async function overwritten({ lab, file }: Stage, name: string): Promise<void> {
  const body = content(`another ${file(name)}`, 150_000);
  await lab.client.getBlockBlobClient(file(name)).uploadData(body);
  const prefix = ['--prefix', `/${file(name)}`];
  await lab.change(file(name), body, () =>
    lustrite(['import', 'create', lab.mount.path, '--conflict', 'overwrite-always', '--wait', ...prefix]),
  );
}

/** Another client changes, creates and deletes blobs of the folder, which an auto-import follows. */
async function changedElsewhere({ lab, file }: Stage): Promise<void> {
  await Promise.all(
    ['clean', 'new'].map(async (name) => {
      const body = content(`elsewhere ${file(name)}`, 150_000);
      await lab.client.getBlockBlobClient(file(name)).uploadData(body);
      lab.expect(file(name), body);
    }),
  );
  await Promise.all(['stub', 'gone'].map((name) => lab.client.deleteBlob(file(name))));
  for (const name of ['stub', 'gone']) lab.gone(file(name));
}

/** What it shows then; the checks of every scenario read the rest. */
async function isFollowed(t: Test, { lab, at }: Stage): Promise<void> {
  t.same((await readdir(at(''))).sort(), ['clean', 'new'], 'the names that the container has');
  const last = (await lab.jobs()).filter(({ kind }) => kind === 'auto-import').at(-1);
  t.equal(last?.properties.status.state, 'Disabled', 'it went on until it was disabled');
}

const followed: Omit<Scenario, 'point' | 'title'> = {
  async prepare(stage) {
    const { lab, file, at } = stage;
    await create(stage, 'gone');
    await exportAll(stage);
    await read('clean')(stage);
    await writeFile(at('stub'), content('changed here'));
    lab.expect(file('stub'), content('changed here'));
  },
  async drive(stage) {
    await stage.lab.follow(stage.file(''));
    await changedElsewhere(stage);
  },
  then: isFollowed,
};

const scenarios: readonly Scenario[] = [
  {
    point: 'suspend.recorded',
    title: 'an open for writing dies before it is answered',
    prepare: read('clean'),
    drive: ({ at }) => openForWriting(at('clean')),
  },
  {
    point: 'suspend.durable',
    title: 'a truncate of a resident file dies before it is done',
    prepare: read('clean'),
    drive: cutTo(cut, 'clean'),
  },
  {
    point: 'settle.dirty-recorded',
    title: 'an append that was answered is there and dirty',
    prepare: read('clean'),
    drive: (stage) => grow(stage, 'clean'),
    then: shows('clean', states.dirty),
  },
  {
    point: 'settle.mtime-given',
    title: 'a touch dies when the file has its new mtime, and its record the old one',
    prepare: read('clean'),
    drive: untilSettled(({ at }) => ok('touch', ['-d', '2001-02-03', at('clean')])),
    then: async (t, { at }) => {
      t.equal((await stat(at('clean'))).mtime.getFullYear(), 2001, 'the mtime is the new one');
    },
  },
  {
    point: 'settle.clean-recorded',
    title: 'a file that was opened for writing and not written is clean',
    prepare: read('clean'),
    drive: untilSettled(({ at }) => openForWriting(at('clean'))),
    then: shows('clean', states.clean),
  },
  { point: 'restore.begun', title: 'a read restores nothing', drive: read('stub'), then: isEmptyStub },
  {
    point: 'restore.allocated',
    title: 'an open for writing of a stub dies with space taken for it',
    drive: (stage) => grow(stage, 'stub'),
    then: isEmptyStub,
  },
  {
    point: 'restore.downloaded',
    title: 'a read of a stub dies when all bytes are there',
    drive: read('stub'),
    then: isEmptyStub,
  },
  {
    point: 'restore.data-written',
    title: 'a truncate of a stub dies when all bytes are there',
    drive: cutTo(cut, 'stub'),
    then: isEmptyStub,
  },
  {
    point: 'restore.data-durable',
    title: 'lfs hsm_restore goes on under the next daemon',
    drive: hsm('restore', 'stub'),
    then: becomes('stub', states.clean),
  },
  {
    point: 'restore.recorded',
    title: 'a restored file is clean',
    drive: read('stub'),
    then: shows('stub', states.clean),
  },
  {
    point: 'restore.failed-punched',
    title: 'a file whose blob is gone stays a stub, and is read when the blob is back',
    async drive({ lab, file, at }) {
      await lab.client.deleteBlob(file('stub'));
      await readFile(at('stub'));
    },
    async then(t, stage) {
      await isEmptyStub(t, stage);
      const { lab, file } = stage;
      await lab.client.getBlockBlobClient(file('stub')).uploadData(lab.sure(file('stub')));
    },
  },
  ...['release.recorded', 'release.flags-durable', 'release.punched'].map((point) => ({
    point,
    title: 'a file that was about to be released is a stub',
    prepare: read('clean'),
    drive: hsm('release', 'clean'),
    then: shows('clean', states.stub),
  })),
  {
    point: 'archive.begun',
    title: 'a new file whose export dies is still to be exported',
    prepare: (stage) => create(stage, 'new'),
    drive: exportAll,
    async then(t, stage) {
      await hasFailedExport(t, stage);
      await shows('new', 1)(t, stage);
      t.equal(await stage.lab.blob(stage.file('new')), undefined, 'no blob');
    },
  },
  {
    point: 'archive.staged',
    title: 'a blob is the old one until all of the new one is there',
    prepare: (stage) => grow(stage, 'stub'),
    drive: exportAll,
    async then(t, stage) {
      const { lab, file } = stage;
      await hasFailedExport(t, stage);
      await shows('stub', states.dirty)(t, stage);
      t.ok(lab.sure(file('stub')).indexOf((await lab.blob(file('stub'))) ?? 'no blob') === 0, 'the old blob');
    },
  },
  {
    point: 'archive.linked',
    title: 'a file of which one of two blobs was uploaded is as new as it was, and both are written then',
    async prepare(stage) {
      await create(stage, 'one');
      await link(stage.at('one'), stage.at('two'));
    },
    drive: exportAll,
    async then(t, stage) {
      await shows('one', 1)(t, stage);
      const { lab, file } = stage;
      const ended = await lustrite(['export', 'create', lab.mount.path, '--wait']);
      t.equal(ended.code, 0, ended.stderr);
      for (const name of ['one', 'two'])
        t.ok((await lab.blob(file(name)))?.equals(lab.sure(file('one'))), `the blob ${name}`);
    },
  },
  {
    point: 'archive.uploaded',
    title: 'a file that was uploaded and not recorded is dirty and uploaded again',
    prepare: (stage) => grow(stage, 'clean'),
    drive: exportAll,
    async then(t, stage) {
      const { lab, file } = stage;
      await shows('clean', states.dirty)(t, stage);
      t.ok((await lab.blob(file('clean')))?.equals(lab.sure(file('clean'))), 'the new blob');
    },
  },
  {
    point: 'archive.uploaded',
    title: 'a new file that was uploaded and not recorded is uploaded again',
    prepare: (stage) => create(stage, 'new'),
    drive: exportAll,
    then: shows('new', 1),
  },
  {
    point: 'archive.begun',
    title: 'a dirty file whose lfs hsm_archive dies is archived by the next daemon',
    prepare: (stage) => grow(stage, 'clean'),
    drive: hsm('archive', 'clean'),
    then: becomes('clean', states.clean),
  },
  {
    point: 'archive.recorded',
    title: 'a dirty file whose new copy is recorded is clean',
    prepare: (stage) => grow(stage, 'clean'),
    drive: exportAll,
    then: shows('clean', states.clean),
  },
  {
    point: 'archive.durable',
    title: 'a new file whose new copy is recorded is clean, and its request has nothing left to do',
    prepare: (stage) => create(stage, 'new'),
    drive: hsm('archive', 'new'),
    then: becomes('new', states.clean),
  },
  {
    point: 'state-set.dirty-recorded',
    title:
      'hsm_set on a file that is being written dies when it knows of the write: the file is dirty, the flag not set',
    prepare: read('clean'),
    async drive(stage) {
      const { lab, file, at } = stage;
      const writer = await open(at('clean'), 'a');
      try {
        const more = content('written', cut);
        const whole = Buffer.concat([lab.sure(file('clean')), more]);
        await lab.change(file('clean'), whole, () => writer.write(more));
        await lfs(['hsm_set', '--norelease', at('clean')]);
      } finally {
        await writer.close().catch(() => undefined);
      }
    },
    async then(t, stage) {
      await shows('clean', states.dirty)(t, stage);
      await norelease(t, stage, states.dirty);
    },
  },
  {
    point: 'state-set.recorded',
    title: 'a flag that hsm_set has recorded is set, and can be cleared',
    prepare: read('clean'),
    drive: ({ at }) => lfs(['hsm_set', '--norelease', at('clean')]),
    async then(t, stage) {
      await shows('clean', states.clean | HS_NORELEASE)(t, stage);
      await norelease(t, stage, states.clean);
    },
  },
  {
    point: 'truncate.emptied',
    title: 'a stub whose truncate to nothing dies half way has its content',
    drive: cutTo(0, 'stub'),
    then: shows('stub', states.stub),
  },
  {
    point: 'truncate.recorded',
    title: 'a stub that was truncated to nothing is empty and dirty',
    drive: ({ lab, file, at }) =>
      lab.change(file('stub'), Buffer.alloc(0), async () => (await open(at('stub'), 'w')).close()),
    then: shows('stub', states.dirty),
  },
  {
    point: 'stub.linked',
    title: 'an import of later blobs goes on',
    async prepare({ lab, file }) {
      const body = content(file('later'));
      await lab.client.getBlockBlobClient(file('later')).uploadData(body);
      lab.expect(file('later'), body);
    },
    drive: ({ lab }) => lustrite(['import', 'create', lab.mount.path]),
    then: shows('later', states.stub),
  },
  {
    point: 'stub.exchanged',
    title: 'a changed file whose name a blob took is that blob',
    async prepare(stage) {
      await read('clean')(stage);
      await grow(stage, 'clean');
    },
    drive: (stage) => overwritten(stage, 'clean'),
    then: shows('clean', states.stub),
  },
  ...['replace.recorded', 'replace.flags-durable', 'replace.punched'].map((point) => ({
    point,
    title: 'a resident file that gets another copy has the new content and never a mix',
    prepare: read('clean'),
    drive: (stage: Stage) => overwritten(stage, 'clean'),
    then: shows('clean', states.stub),
  })),
  {
    point: 'request.journaled',
    title: 'an archive that was accepted is done by the next daemon',
    prepare: (stage) => create(stage, 'new'),
    drive: hsm('archive', 'new'),
    then: becomes('new', states.clean),
  },
  ...(
    [
      ['remove.marked', true],
      ['remove.deleted', false],
    ] as const
  ).map(([point, there]) => ({
    point,
    title: `a file is resident and ${there ? 'its blob still there' : 'its blob gone'}, and the next daemon ends the remove`,
    prepare: read('clean'),
    async drive({ lab, at, file }: Stage) {
      await lfs(['hsm_remove', at('clean')]);
      await until(() => lab.mount.gone, { what: 'the daemon to die' });
      if (((await lab.blob(file('clean'))) !== undefined) !== there) throw new Error('not at this point');
    },
    async then(t: Test, { lab, file }: Stage) {
      await until(async () => (await lab.blob(file('clean'))) === undefined, {
        what: 'the blob to be deleted',
      });
      await until(async () => (await lab.flag(file('clean'))) !== HS.EXISTS, {
        what: 'the remove to end',
      });
      t.equal(await lab.flag(file('clean')), states.new);
    },
  })),
  {
    point: 'owner.restored',
    title: 'a renamed stub whose blob is about to be overwritten keeps its content',
    async prepare(stage) {
      const { lab, file, at } = stage;
      await rename(at('stub'), at('moved'));
      lab.moved(file('stub'), file('moved'));
      await create(stage, 'stub');
    },
    drive: exportAll,
  },
  {
    point: 'export.file',
    title: 'an export of several files dies behind the first',
    async prepare(stage) {
      await mkdir(stage.at('above'));
      for (const name of ['one', 'two', 'three']) await create(stage, `above/${name}`);
    },
    drive: exportAll,
    then: isExported('above'),
  },
  {
    point: 'export.directory',
    title: 'an export dies behind a directory',
    async prepare(stage) {
      await mkdir(stage.at('deep/er'), { recursive: true });
      await create(stage, 'deep/er/file', 10);
    },
    drive: exportAll,
    then: isExported('deep', 'deep/er'),
  },
  {
    point: 'auto-import.scanned',
    title: 'an auto-import that dies behind its full sync does it again',
    async prepare({ lab, file }) {
      const body = content(`elsewhere ${file('new')}`);
      await lab.client.getBlockBlobClient(file('new')).uploadData(body);
      lab.expect(file('new'), body);
    },
    drive: ({ lab, file }) => lab.follow(file('')),
    async then(t, { lab, at }) {
      t.same((await readdir(at(''))).sort(), ['clean', 'new', 'stub']);
      const last = (await lab.jobs()).filter(({ kind }) => kind === 'auto-import').at(-1);
      t.equal(last?.properties.status.state, 'Disabled', 'it went on until it was disabled');
    },
  },
  ...['auto-import.planned', 'auto-import.deleted', 'auto-import.applied'].map((point) => ({
    point,
    title: 'an auto-import that dies among changes shows all of them under the next daemon',
    ...followed,
  })),
  {
    point: 'job.created',
    title: 'an export that died at once has failed',
    prepare: (stage) => create(stage, 'new'),
    drive: exportAll,
    then: hasFailedExport,
  },
  {
    point: 'job.log-written',
    title: 'an export that died with its log written has failed, its files are clean',
    prepare: (stage) => create(stage, 'new'),
    drive: exportAll,
    async then(t, stage) {
      await hasFailedExport(t, stage);
      await shows('new', states.clean)(t, stage);
      const logs = [];
      for await (const { name } of stage.lab.logs.listBlobsFlat()) logs.push(name);
      t.ok(
        logs.some((name) => name.includes('/export/')),
        'the log is in the logging container',
      );
    },
  },
];

const firstStarts: readonly FirstStart[] = [
  { point: 'meta.written', title: 'the first mount dies before there is a namespace' },
  { point: 'job.created', title: 'the first import dies at once' },
  { point: 'stub.built', nth: 3, title: 'the first import dies beside a half-made stub' },
  { point: 'stub.linked', nth: 2, title: 'the first import dies behind a stub' },
  { point: 'import.batch', title: 'the first import dies behind a batch of stubs' },
  { point: 'job.log-written', title: 'the first import dies with its log written' },
];

t.test('every crash point has a scenario, and every scenario a point', (t) => {
  const [native, own] = [loadAddon().crashPoints(), Object.keys(CRASH_POINTS)];
  t.same(
    own.filter((name) => native.includes(name)),
    [],
    'no point of one side has the name of a point of the other',
  );
  const known = [...native, ...own].sort();
  const driven = [...new Set([...scenarios, ...firstStarts].map(({ point }) => point))].sort();
  t.same(driven, known);
  t.end();
});

t.test('kill -9 at every crash point', { skip: cannotMount }, async (t) => {
  t.jobs = 3;
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  const chains = 2;
  for (let chain = 0; chain < chains; chain++) {
    const own = scenarios.filter((_, index) => index % chains === chain);
    void t.test(`scenarios ${chain}`, { buffered: true }, (t) => runChain(t, azurite, own));
  }
  void t.test('first starts', { buffered: true }, (t) => runFirstStarts(t, azurite));
});

/** Scenario after scenario on one mount, each in a folder of its own. */
async function runChain(t: Test, azurite: Azurite, own: readonly Scenario[]): Promise<void> {
  const folder = (index: number): string => `${index}-${own[index]?.point ?? ''}`;
  const names = own.flatMap((_, index) => [`${folder(index)}/stub`, `${folder(index)}/clean`]);
  const blobs = Object.fromEntries(names.map((name) => [name, content(name)]));
  await using lab = await CrashLab.start(t, azurite, { blobs });
  for (const [index, scenario] of own.entries()) {
    const file = (name: string): string => `${folder(index)}/${name}`;
    const stage: Stage = { lab, file, at: (name) => lab.at(file(name)) };
    await t.test(`${scenario.point}: ${scenario.title}`, async (t) => {
      try {
        await crash(t, scenario, stage);
        await scenario.then?.(t, stage);
        await lab.check(t, `${folder(index)}/`);
      } finally {
        // The next scenario begins with a daemon in any case.
        if (lab.mount.gone) await lab.mount.ended().catch(() => undefined);
      }
    });
    if (!t.passing()) return;
  }
}

/** Lets a daemon die at the point of the scenario; another one runs afterwards. */
async function crash(t: Test, scenario: Scenario, stage: Stage): Promise<void> {
  const { lab } = stage;
  const { point, drive } = scenario;
  await scenario.prepare?.(stage);
  await lab.arm(point);
  // What its caller was told counts; that a call failed does not.
  const driven = drive(stage).catch(() => undefined);
  await seenToDie(t, lab, point);
  await driven;
  await lab.revive();
}

async function seenToDie(t: Test, lab: CrashLab, point: string): Promise<void> {
  t.match(await lab.mount.ended(), { signal: 'SIGKILL' }, 'the daemon is killed');
  t.equal(
    lab.mount
      .log()
      .match(/^crash point .*$/gm)
      ?.at(-1),
    `crash point ${point}`,
    'at this point',
  );
}

async function runFirstStarts(t: Test, azurite: Azurite): Promise<void> {
  const names = ['a', 'dir/b', 'dir/deep/c', 'dir/deep/d', 'e'];
  const blobs = Object.fromEntries(names.map((name) => [name, content(name, 5000)]));
  for (const { point, nth, title } of firstStarts) {
    await t.test(`${point}: ${title}`, async (t) => {
      const env = { LUSTRITE_CRASH: nth === undefined ? point : `${point}:${nth}` };
      await using lab = await CrashLab.start(t, azurite, { blobs, env, await: 'nothing' });
      await seenToDie(t, lab, point);
      await lab.revive({ LUSTRITE_CRASH: undefined });
      const [first] = await lab.jobs();
      t.match(first, { kind: 'import', properties: { status: { state: 'Completed' } } }, 'imported');
      t.same(
        await lab.flags(...names),
        names.map(() => states.stub),
        'stubs',
      );
      await lab.check(t, '');
    });
  }
}
