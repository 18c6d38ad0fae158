/** Data-safety rules 5-7, 9 and 12 on a real mount: stubs, restores, releases. */
import { existsSync } from 'node:fs';
import { readdir, readFile, readlink, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Application } from '../helpers/application.js';
import { hsmFlags, states, untilFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, run } from '../helpers/run.js';
import { StoreImage } from '../helpers/store-image.js';

const { EBUSY, EPERM } = constants.errno;
const MiB = 2 ** 20;
/** Of the second version another letter at every offset. */
const big = (letter: string): Buffer => Buffer.alloc(12 * MiB, letter);
const blobs = {
  '6/cut': Buffer.alloc(MiB, 'c'),
  '6/partial': big('p'),
  '7/restoring': big('r'),
  '7/read': 'read',
  '7/mapped': 'mapped',
  '7/directory/program': 'program',
  '7/modified': 'modified',
  '9/changed': big('1'),
  '9/pinned': 'pinned',
  '12/unlinked': 'unlinked',
  '12/canceled': 'canceled',
  '12/descriptors': 'descriptors',
};

t.test('stubs, restores and releases', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, blobs, {
    env: { LUSTRITE_HYDRATE_PARALLEL_RANGES: '1', LUSTRITE_HYDRATE_RANGE_BYTES: String(8 * MiB) },
  });
  const { mount, storage } = lab;
  const at = (name: string): string => lab.at(name);
  const flags = (name: string): Promise<number> => hsmFlags(at(name));
  const blocks = async (name: string): Promise<number> => (await stat(lab.backing(name))).blocks;
  const application = (t: Test): Application => {
    const made = new Application();
    t.teardown(() => made[Symbol.asyncDispose]());
    return made;
  };
  t.beforeEach(() => {
    storage.clear();
    storage.clearLog();
  });

  await t.test('rule 6: a failed restore leaves no byte, and the next one starts anew', async (t) => {
    storage.inject({ method: 'GET', blob: '6/cut', times: 1 }, { kind: 'cut', after: 300_000 });
    storage.inject({ method: 'GET', blob: '6/cut' }, { kind: 'status', status: 403 });
    t.match(await run('tail', ['-c', '5', at('6/cut')]), {
      code: 1,
      stdout: '',
      stderr: /No data available/,
    });
    await until(async () => (await blocks('6/cut')) === 0, { what: 'what came to be punched out' });
    t.equal(await flags('6/cut'), states.stub);
    t.match(mount.log(), /6\/cut/, 'the log names the blob');
    storage.clear();
    const content = await until(() => readFile(at('6/cut')), { what: 'the file to be readable again' });
    t.ok(content.equals(blobs['6/cut']));
  });

  await t.test('rule 6: RELEASED goes when all data is there; writers wait for that', async (t) => {
    const name = '6/partial';
    const [reader, writer] = [application(t), application(t)];
    const open = holdSecondRange(lab, name);
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at(name));
    t.equal(await reader.do('os.pread(fd, 4, 0)'), 'pppp', 'early bytes');
    let admitted = false;
    const writing = writer.do('fd = os.open(args[0], os.O_RDWR)', at(name)).then(() => {
      admitted = true;
    });
    t.equal(await flags(name), states.stub);
    t.equal(await lab.lfs('hsm_release', name), EBUSY, 'not while it is restored');
    t.notOk(admitted);
    open();
    await writing;
    t.equal(await flags(name), states.clean);
    t.equal(await writer.do('os.pread(fd, 4, args[0])', 12 * MiB - 4), 'pppp');
  });

  await t.test('rule 7: a release waits for a restore that nobody has the file open for', async (t) => {
    const name = '7/restoring';
    const open = holdSecondRange(lab, name);
    t.equal(await lab.lfs('hsm_restore', name), 0);
    let ended = false;
    const releasing = lab.lfs('hsm_release', name).then((code) => {
      ended = true;
      return code;
    });
    t.equal(await flags(name), states.stub);
    t.notOk(ended);
    open();
    t.equal(await releasing, 0);
    t.same([await flags(name), await blocks(name)], [states.stub, 0]);
  });

  await t.test('rule 7: an open reader makes a release EBUSY', async (t) => {
    const reader = application(t);
    await readFile(at('7/read'));
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('7/read'));
    t.equal(await lab.lfs('hsm_release', '7/read'), EBUSY);
    t.equal(await reader.do('os.pread(fd, 10, 0)'), 'read');
    await reader.do('os.close(fd)');
    await lab.released('7/read');
    t.same([await flags('7/read'), await blocks('7/read')], [states.stub, 0]);
    t.equal(await readFile(at('7/read'), 'utf8'), 'read');
  });

  await t.test('rule 7: so does a mapping without a handle, and a handle past the mount', async (t) => {
    const reader = application(t);
    await readFile(at('7/mapped'));
    await reader.do(
      'fd = os.open(args[0], os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ); os.close(fd)',
      at('7/mapped'),
    );
    t.equal(await lab.lfs('hsm_release', '7/mapped'), EBUSY);
    t.equal(await reader.do('m[0:10]'), 'mapped');
    await reader.do('m.close(); fd = os.open(args[0], os.O_RDONLY)', lab.backing('7/mapped'));
    t.equal(await lab.lfs('hsm_release', '7/mapped'), EBUSY);
    await reader.do('os.close(fd)');
    await lab.released('7/mapped');
  });

  await t.test('rule 7: a modified file is not released, whatever its flags say', async (t) => {
    await writeFile(at('7/modified'), 'MODIFIED');
    await untilFlags(at('7/modified'), states.dirty);
    t.equal(await lab.lfs('hsm_clear', '7/modified', '--dirty'), 0);
    t.equal(await lab.lfs('hsm_release', '7/modified'), EPERM);
    t.equal(await readFile(at('7/modified'), 'utf8'), 'MODIFIED');
    t.equal(await lab.export('7'), 'Completed');
    t.equal(await lab.blob('7/modified'), 'MODIFIED');
  });

  await t.test('rule 9: a handle that was given bytes of one ETag gets ENODATA under another', async (t) => {
    const name = '9/changed';
    const [first, second] = [application(t), application(t)];
    const open = holdSecondRange(lab, name);
    await first.do('fd = os.open(args[0], os.O_RDONLY)', at(name));
    t.equal(await first.do('os.pread(fd, 4, 0)'), '1111');
    await lab.upload({ [name]: big('2') });
    open();
    await second.do('fd = os.open(args[0], os.O_RDONLY)', at(name));
    const end = 12 * MiB - 4;
    await t.rejects(first.do('os.pread(fd, 4, args[0])', end), { code: 'ENODATA' });
    // The kernel keeps pages for all handles of a file: while the first one lives, nobody can be given the new version.
    await t.rejects(second.do('os.pread(fd, 4, args[0])', end), { code: 'ENODATA' });
    t.equal(await flags(name), states.stub);
    t.match(mount.log(), /9\/changed.*bytes of another version/, 'the log has the cause');
    await first.do('os.close(fd)');
    await second.do('os.close(fd)');
    const content = await until(() => readFile(at(name)), { what: 'the new version' });
    t.ok(content.equals(big('2')), 'all of it is new');
    t.equal(await flags(name), states.clean);
  });

  await t.test('rule 9: every GET is pinned to an ETag', async (t) => {
    await readFile(at('9/pinned'));
    const gets = storage.requests({ method: 'GET', blob: '9/pinned' });
    t.ok(gets.length > 0);
    for (const { headers } of gets) t.match(headers['if-match'], /^"0x/);
  });

  await t.test('rule 12: an unlinked stub is restored for who has it open', async (t) => {
    const reader = application(t);
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('12/unlinked'));
    await unlink(at('12/unlinked'));
    t.equal(await reader.do('os.pread(fd, 10, 0)'), 'unlinked');
    t.equal(await reader.do('os.fstat(fd).st_nlink'), 0);
  });

  await t.test('rule 12: after a cancelled restore the next one is whole and its own', async (t) => {
    const name = '12/canceled';
    const reader = application(t);
    const open = lab.hold({ method: 'GET', blob: name, times: 1 });
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at(name));
    const reading = reader.do('os.pread(fd, 10, 0)');
    const failed = t.rejects(reading, { code: 'ENODATA' });
    await lab.arrived({ method: 'GET', blob: name });
    t.equal(await lab.lfs('hsm_cancel', name), 0);
    await failed;
    t.equal(await flags(name), states.stub);
    await lab.upload({ [name]: 'Canceled' });
    open();
    await until(async () => (await readFile(at(name), 'utf8')) === 'Canceled', { what: 'the new content' });
    t.equal(await flags(name), states.clean);
  });

  await t.test('rule 12: descriptors of the store reach no child process', async (t) => {
    const reader = application(t);
    const open = lab.hold({ method: 'GET', blob: '12/descriptors' });
    await reader.do('fd = os.open(args[0], os.O_RDONLY)', at('12/descriptors'));
    const reading = reader.do('os.pread(fd, 20, 0)');
    await lab.arrived({ method: 'GET', blob: '12/descriptors' });
    const proc = `/proc/${mount.pid}`;
    const inherited: string[] = [];
    let seen = 0;
    for (const fd of await readdir(`${proc}/fd`)) {
      const target = await readlink(`${proc}/fd/${fd}`).catch(() => '');
      if (!target.startsWith(mount.store)) continue;
      const info = await readFile(`${proc}/fdinfo/${fd}`, 'utf8').catch(() => '');
      const bits = Number.parseInt(/^flags:\s+([0-7]+)/m.exec(info)?.[1] ?? '02000000', 8);
      seen++;
      if ((bits & 0o2000000) === 0) inherited.push(target);
    }
    t.ok(seen > 3, 'the folders, the lock and the file that is being restored');
    t.same(inherited, [], 'all are close-on-exec');
    open();
    t.equal(await reading, 'descriptors');
  });

  await t.test('rule 5: a stub never takes the place of what has its name', async (t) => {
    await ok('mkdir', [at('5')]);
    await writeFile(at('5/taken'), 'mine');
    await lab.upload({ '5/taken': 'from elsewhere', '5/free': 'free' });
    t.match(await lab.import(), /^Completed/);
    t.same([await readFile(at('5/taken'), 'utf8'), await flags('5/taken')], ['mine', states.new]);
    t.equal(await readFile(at('5/free'), 'utf8'), 'free');
  });

  await t.test(
    'rule 5: a stub is whole or not there, when the daemon is killed while it is built',
    async (t) => {
      const made = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`5/made/${i}`, `content ${i}`]));
      await lab.upload(made);
      await mount.unmount();
      await mount.remount({ env: { LUSTRITE_CRASH: 'stub.built:3' } });
      const importing = lab.import().catch(() => 'killed');
      t.match(await mount.ended(), { signal: 'SIGKILL' });
      await importing;
      const found = await ok('sh', [
        '-euc',
        'for f in "$1"/*; do getfattr -h --only-values -n trusted.lustrite "$f" > /dev/null; done 2>&1; ls "$1"',
        'sh',
        lab.backing('5/made'),
      ]).catch((error: unknown) => String(error));
      t.notMatch(found, 'No such attribute', 'what is there has its record');
      await mount.remount();
      for (const name of await readdir(at('5/made')))
        t.same(await readFile(at(`5/made/${name}`), 'utf8'), `content ${name}`);
      t.match(await lab.import(), /^Completed/);
      t.same(await readdir(join(mount.store, 'staging')), []);
      for (const [name, content] of Object.entries(made)) t.equal(await readFile(at(name), 'utf8'), content);
    },
  );
});

const noImage = cannotMount || (existsSync('/dev/loop-control') ? false : 'there are no loop devices');
t.test('rule 6: ENOSPC at restore comes before a byte', { skip: noImage }, async (t) => {
  const image = await StoreImage.create('ext4', 64 * MiB);
  if (image === undefined) throw new Error('no file system on a loop device');
  t.teardown(() => image[Symbol.asyncDispose]());
  const lab = await MountedContainer.start(
    t,
    { large: Buffer.alloc(80 * MiB), small: 'small' },
    { store: image.path },
  );
  const { mount, storage } = lab;
  const file = lab.at('large');
  t.match(await run('tail', ['-c', '5', file]), {
    code: 1,
    stdout: '',
    stderr: /No data available|No space left/,
  });
  t.equal(storage.count({ method: 'GET', blob: 'large' }), 0, 'nothing was fetched');
  t.match(mount.log(), /ENOSPC|[Nn]o space/, 'the log has the cause');
  t.equal(await hsmFlags(file), states.stub);
  t.equal((await stat(lab.backing('large'))).blocks, 0);
  t.equal(await readFile(lab.at('small'), 'utf8'), 'small', 'what has room is restored');
  await rm(file);
});

/** Holds the GET of everything but the first range of a big blob. */
function holdSecondRange(lab: MountedContainer, blob: string): () => void {
  return lab.hold({ method: 'GET', blob, skip: 1 });
}
