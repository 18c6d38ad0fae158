/** Data-safety rules 1-4, 10 and 11 on a real mount: what is clean, what is dirty, and who decides. */
import { existsSync } from 'node:fs';
import { readFile, stat, utimes } from 'node:fs/promises';
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { Application } from '../helpers/application.js';
import { hsmFlags, states, untilFlags } from '../helpers/lfs.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok } from '../helpers/run.js';
import { StoreImage } from '../helpers/store-image.js';

const { EPERM } = constants.errno;
const text = 'as it is in the container';
const changedText = 'AB it is in the container';
const names = [
  '1/opened', '1/mapped', '1/mapped-stub', '1/truncated', '1/extended', '1/copied',
  '2/writer', '2/during', '2/mapping',
  '3/other-boot', '3/this-boot', '3/written-after',
  '4/touched-behind', '4/utimes',
  '10/in-handle', '10/closed', '10/mapped', '10/two-handles', '10/only-touched',
  '11/own', '11/foreign',
]; // prettier-ignore
const map = 'fd = os.open(args[0], os.O_RDWR); m = mmap.mmap(fd, 0); os.close(fd)';

t.test('clean and dirty', { skip: cannotMount }, async (t) => {
  const blobs = Object.fromEntries(names.map((name) => [name, text]));
  const lab = await MountedContainer.start(t, blobs);
  const { mount, storage } = lab;
  const passthrough = (await mount.status())?.passthrough === true;
  const at = (name: string): string => lab.at(name);
  const flags = (name: string): Promise<number> => hsmFlags(at(name));
  const record = async (name: string): Promise<Buffer> => {
    const hex = await ok('python3', [
      '-c',
      'import os,sys; print(os.getxattr(sys.argv[1], "trusted.lustrite").hex())',
      lab.backing(name),
    ]);
    return Buffer.from(hex.trim(), 'hex');
  };
  const suspended = async (name: string): Promise<boolean> =>
    ((await record(name)).readUInt16LE(2) & (1 << 10)) !== 0;
  const resident = async (...those: readonly string[]): Promise<void> => {
    for (const name of those) await readFile(at(name));
    for (const name of those) await untilFlags(at(name), states.clean);
  };
  const application = (t: Test): Application => {
    const made = new Application();
    t.teardown(() => made[Symbol.asyncDispose]());
    return made;
  };
  await resident(...names.filter((name) => name !== '1/mapped-stub' && !name.startsWith('4/')));

  await t.test('rule 1: an open for writing is answered when "suspended" is in the record', async (t) => {
    const writer = application(t);
    t.notOk(await suspended('1/opened'));
    await writer.do('fd = os.open(args[0], os.O_RDWR)', at('1/opened'));
    t.ok(await suspended('1/opened'));
    t.equal(await flags('1/opened'), states.clean, 'nothing was written');
    await writer.do('os.close(fd)');
    t.ok(
      await until(async () => (await flags('1/opened')) === states.clean && !(await suspended('1/opened')), {
        what: 'the statement to be back',
      }),
    );
  });

  for (const [name, how] of [
    ['1/mapped', 'a resident file'],
    ['1/mapped-stub', 'a file that was a stub when it was opened'],
  ] as const) {
    await t.test(
      `rule 1: a store through a mapping that outlives its handle shows as dirty, ${how}`,
      async (t) => {
        const writer = application(t);
        await writer.do(map, at(name));
        t.equal(await flags(name), states.clean, 'mapped and not changed');
        await writer.do('m[0:2] = b"AB"');
        t.equal(await flags(name), states.dirty);
        t.equal(await lab.lfs('hsm_release', name), EPERM);
        await writer.do('m.close()');
        t.equal(await flags(name), states.dirty, 'without the mapping, too');
        t.equal(await lab.lfs('hsm_release', name), EPERM);
        t.equal(await readFile(at(name), 'utf8'), changedText);
      },
    );
  }

  await t.test('rule 1: whatever else changes the content shows as dirty while it is open', async (t) => {
    const writer = application(t);
    await writer.do('fd = os.open(args[0], os.O_RDWR)', at('1/truncated'));
    await writer.do('os.ftruncate(fd, 3)');
    t.equal(await flags('1/truncated'), states.dirty);
    await writer.do('fd = os.open(args[0], os.O_RDWR)', at('1/extended'));
    await writer.do('os.posix_fallocate(fd, 0, 100)');
    t.equal(await flags('1/extended'), states.dirty);
    await writer.do('fd = os.open(args[0], os.O_RDWR)', at('1/copied'));
    await writer.do('os.copy_file_range(os.open(args[0], os.O_RDONLY), fd, 5)', at('1/opened'));
    t.equal(await flags('1/copied'), states.dirty);
  });

  await t.test('rule 2: an archive waits for no writer: it ends EBUSY, the file stays dirty', async (t) => {
    const writer = application(t);
    await writer.do('fd = os.open(args[0], os.O_RDWR)', at('2/writer'));
    await writer.do('os.pwrite(fd, b"AB", 0)');
    t.equal(await lab.archive('2/writer'), 0, 'the request is taken');
    t.equal(await flags('2/writer'), states.dirty);
    t.equal(await lab.blob('2/writer'), text);
    await writer.do('os.close(fd)');
    await lab.archived('2/writer');
    t.equal(await lab.blob('2/writer'), changedText);
  });

  await t.test('rule 2: a mapping is a writer', async (t) => {
    const writer = application(t);
    await writer.do(`${map}; m[0:2] = b"AB"`, at('2/mapping'));
    await lab.archive('2/mapping');
    t.equal(await flags('2/mapping'), states.dirty);
    t.equal(await lab.blob('2/mapping'), text);
    await writer.do('m.close()');
    await lab.archived('2/mapping');
    t.equal(await lab.blob('2/mapping'), changedText);
  });

  await t.test('rule 2: what is written during the upload leaves the file dirty', async (t) => {
    const writer = application(t);
    const name = '2/during';
    const edit = 'fd = os.open(args[0], os.O_RDWR); os.pwrite(fd, args[1].encode(), 0); os.close(fd)';
    await writer.do(edit, at(name), '1');
    storage.clearLog();
    const open = lab.hold({ method: 'PUT', blob: name });
    await lab.uploading(name);
    await writer.do(edit, at(name), '2');
    open();
    await lab.idle(name);
    storage.clear();
    t.equal(await flags(name), states.dirty, 'though an upload has succeeded');
    t.equal(await lab.lfs('hsm_release', name), EPERM);
    await lab.archived(name);
    t.equal(await lab.blob(name), `2${text.slice(1)}`);
  });

  await t.test("rule 4: a stub is never dirty: its size and times are its record's", async (t) => {
    const name = '4/touched-behind';
    const mtimeMs = (await lab.container.getBlobClient(name).getProperties()).lastModified?.getTime();
    await utimes(lab.backing(name), 1, 1);
    t.equal(await flags(name), states.stub);
    t.match(await stat(at(name)), { size: text.length, mtimeMs });
    t.equal(await readFile(at(name), 'utf8'), text);
    await untilFlags(at(name), states.clean);
    t.match(await stat(at(name)), { size: text.length, mtimeMs }, 'the restore sets them right');
    t.match(await stat(lab.backing(name)), { mtimeMs });
  });

  await t.test('rule 4: times that are set on a stub are those of the restored file', async (t) => {
    const name = '4/utimes';
    await utimes(at(name), 1_000_000_000.25, 1_000_000_000.25);
    t.equal(await flags(name), states.stub);
    t.equal(await readFile(at(name), 'utf8'), text);
    await untilFlags(at(name), states.clean);
    t.match(await stat(at(name)), { mtimeMs: 1_000_000_000_250 });
  });

  await t.test('rule 10: utimes after a write never makes it clean', async (t) => {
    const writer = application(t);
    await writer.do('before = {}; fds = {}');
    for (const name of ['in-handle', 'closed', 'mapped', 'two-handles', 'only-touched']) {
      await writer.do('before[args[0]] = os.stat(args[1]).st_mtime_ns', name, at(`10/${name}`));
    }
    const back = 'os.utime(args[0], ns=(before[args[1]], before[args[1]]))';
    await writer.do('fd = os.open(args[0], os.O_RDWR); os.pwrite(fd, b"AB", 0)', at('10/in-handle'));
    await writer.do(back, at('10/in-handle'), 'in-handle');
    t.equal(await flags('10/in-handle'), states.dirty, 'while the handle is open');
    await writer.do('os.close(fd)');
    await writer.do(
      'fd = os.open(args[0], os.O_RDWR); os.pwrite(fd, b"AB", 0); os.close(fd)',
      at('10/closed'),
    );
    await writer.do(back, at('10/closed'), 'closed');
    await writer.do(`${map}; m[0:2] = b"AB"; m.close()`, at('10/mapped'));
    await writer.do(back, at('10/mapped'), 'mapped');
    await writer.do(
      'a = os.open(args[0], os.O_RDWR); b = os.open(args[0], os.O_RDWR); os.pwrite(a, b"AB", 0); os.utime(b, ns=(before[args[1]], before[args[1]])); os.close(a); os.close(b)',
      at('10/two-handles'),
      'two-handles',
    );
    await writer.do(
      'fd = os.open(args[0], os.O_RDWR); os.utime(fd, ns=(before[args[1]] + 1, before[args[1]] + 1)); os.close(fd)',
      at('10/only-touched'),
      'only-touched',
    );
    for (const name of ['in-handle', 'closed', 'mapped', 'two-handles'])
      t.equal(await flags(`10/${name}`), states.dirty, name);
    t.equal(await flags('10/only-touched'), states.clean, 'touch alone changes no content');
    t.equal(await lab.lfs('hsm_release', '10/closed'), EPERM);
  });

  for (const [name, how] of [
    ['11/own', 'through the mount'],
    ['11/foreign', 'past the mount'],
  ] as const) {
    await t.test(`rule 11: a lease holds up no writer and no daemon, ${how}`, async (t) => {
      const writer = application(t);
      const edit = 'fd = os.open(args[0], os.O_RDWR); os.pwrite(fd, b"AB", 0); os.close(fd)';
      await writer.do(edit, at(name));
      storage.clearLog();
      const open = lab.hold({ method: 'PUT', blob: name });
      await lab.uploading(name);
      await writer.do(edit.replace('AB', 'CD'), how === 'past the mount' ? lab.backing(name) : at(name));
      open();
      await lab.idle(name);
      storage.clear();
      t.equal(await flags(name), states.dirty, 'the daemon lives, and knows that its lease was broken');
      await lab.archived(name);
      t.equal(await lab.blob(name), `CD${text.slice(2)}`);
    });
  }

  await t.test('after the daemon was killed', async (t) => {
    const writer = application(t);
    for (const name of ['3/other-boot', '3/this-boot'])
      await writer.do('os.open(args[0], os.O_RDWR)', at(name));
    await writer.do(`${map}; m[0]`, at('3/written-after'));
    await mount.kill();
    // As if the machine had been started again since.
    await ok('python3', [
      '-c',
      `
import os, sys
boot = 0xcbf29ce484222325
for byte in open('/proc/sys/kernel/random/boot_id', 'rb').read():
    boot = (boot ^ byte) * 0x100000001b3 & 0xffffffffffffffff
boot = boot.to_bytes(8, 'little')
record = os.getxattr(sys.argv[1], 'trusted.lustrite')
assert boot in record, record
os.setxattr(sys.argv[1], 'trusted.lustrite', record.replace(boot, bytes(b ^ 255 for b in boot)))`,
      lab.backing('3/other-boot'),
    ]);
    if (passthrough) await writer.do('m[0:2] = b"AB"');
    await mount.remount();

    await t.test(
      'rule 1: a store through a mapping that outlived the daemon shows as dirty',
      {
        skip: passthrough ? false : 'no FUSE passthrough',
      },
      async (t) => {
        t.equal(await flags('3/written-after'), states.dirty);
        t.equal(await lab.lfs('hsm_release', '3/written-after'), EPERM);
        t.equal(await readFile(at('3/written-after'), 'utf8'), changedText);
      },
    );
    await t.test('rule 3: times are evidence within one boot only', async (t) => {
      t.equal(await flags('3/other-boot'), states.dirty);
      t.equal(await lab.lfs('hsm_release', '3/other-boot'), EPERM);
      t.equal(await flags('3/this-boot'), states.clean);
    });
    await t.test('rule 10: what utimes hid is dirty for the next daemon, too', async (t) => {
      for (const name of ['in-handle', 'closed', 'mapped', 'two-handles'])
        t.equal(await flags(`10/${name}`), states.dirty, name);
      t.equal(await flags('10/only-touched'), states.clean);
      t.equal(await lab.export('10'), 'Completed');
      t.equal(await lab.blob('10/closed'), changedText);
    });
  });
});

const noImage = cannotMount || (existsSync('/dev/loop-control') ? false : 'there are no loop devices');
t.test('rule 10: utimes hides no write where file times are coarse', { skip: noImage }, async (t) => {
  const image = await StoreImage.create('ext3', 64 * 2 ** 20);
  if (image === undefined) throw new Error('no file system on a loop device');
  t.teardown(() => image[Symbol.asyncDispose]());
  const touched = Array.from({ length: 20 }, (_, n) => `touched/${n}`);
  const blobs = Object.fromEntries(touched.map((name) => [name, text]));
  const lab = await MountedContainer.start(t, blobs, { store: image.path });
  for (const name of touched) await readFile(lab.at(name));
  const edit = `
import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR)
    os.utime(path)
    os.pwrite(fd, b'AB', 0)
    os.close(fd)`;
  await ok('python3', ['-c', edit, ...touched.map((name) => lab.at(name))]);
  for (const name of touched) {
    t.equal(await hsmFlags(lab.at(name)), states.dirty, name);
    t.equal(await lab.lfs('hsm_release', name), EPERM);
  }
  t.equal(await lab.export('touched'), 'Completed');
  for (const name of touched) t.equal(await lab.blob(name), changedText);
});
