/** What `lfs` can beside the HSM commands, through a real mount of every front end (lustre-hsm 8). */
import { statfsSync, statSync } from 'node:fs';
import {
  appendFile,
  chmod,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { nobody, runAs } from '../helpers/as-user.js';
import { Azurite } from '../helpers/azurite.js';
import { HS, hsmFlags, lfs, lfsPath, states, untilFlags } from '../helpers/lfs.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';
import { until } from '../helpers/poll.js';
import { ok, run } from '../helpers/run.js';

const azurite = await Azurite.start();
t.teardown(() => azurite[Symbol.asyncDispose]());

interface Mounted {
  readonly mount: TestMount;
  /** What plays the file system's name. */
  readonly name: string;
  readonly frontEnd: 'native' | 'fuse-native';
}

async function mounted(t: Test, frontEnd: Mounted['frontEnd']): Promise<Mounted> {
  const name = await azurite.newContainer();
  const container = azurite.client(name);
  for (const [blob, content] of Object.entries({ 'a.txt': 'aaa\n', 'sub/b.bin': 'b'.repeat(5000) }))
    await container.getBlockBlobClient(blob).upload(content, content.length);
  const env = { AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString };
  const mount = await TestMount.start(t, { container: name, env, frontEnd });
  // Others may come as far as the mount.
  await chmod(dirname(mount.path), 0o755);
  return { mount, name, frontEnd };
}

/** What a command printed on stdout; throws where it failed or complained. */
async function said(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await lfs(args);
  if (code !== 0 || stderr !== '')
    throw new Error(`lfs ${args.join(' ')}: exit code ${String(code)}\n${stderr}`);
  return stdout;
}

for (const frontEnd of ['native', 'fuse-native'] as const) {
  t.test(frontEnd, { skip: cannotMount }, async (t) => {
    const at = await mounted(t, frontEnd);
    await targets(t, at);
    await names(t, at);
    await versions(t, at);
    await finding(t, at);
    await striping(t, at);
    await twoWords(t, at);
    await byFid(t, at);
  });
}

async function targets(t: Test, { mount, name }: Mounted): Promise<void> {
  const { path } = mount;
  await t.test('osts, mdts and check name the targets of the mount that a path is on', async (t) => {
    t.equal(await said('osts', mount.at('sub')), `OBDS:\n0: ${name}-OST0000_UUID ACTIVE\n`);
    t.equal(await said('mdts', path), `MDTS:\n0: ${name}-MDT0000_UUID ACTIVE\n`);
    t.match(await said('osts'), `${name}-OST0000_UUID`);
    const all = new RegExp(
      `^MGC[^ ]+@tcp active\\.\n${name}-MDT0000-mdc-[0-9a-f]{16} active\\.\n${name}-OST0000-osc-[0-9a-f]{16} active\\.\n$`,
    );
    for (const servers of ['all', 'servers']) t.match(await said('check', servers, path), all);
    t.match(await said('check', 'osts', path), /^[^ ]+-OST0000-osc-[0-9a-f]{16} active\.\n$/);
    t.match(await said('check', 'mds'), `${name}-MDT0000-mdc-`);
  });

  await t.test('df prints the targets and their sum', async (t) => {
    const { blocks, bsize } = statfsSync(path);
    const [header, mdt = '', ost = '', blank, sum, ...rest] = (await said('df', mount.at('a.txt'))).split(
      '\n',
    );
    t.equal(header, 'UUID                   1K-blocks        Used   Available Use% Mounted on');
    t.match(mdt.split(/ +/), [`${name}-MDT0000_UUID`, String((blocks * bsize) / 1024)]);
    t.ok(mdt.endsWith(`% ${path}[MDT:0]`), mdt);
    t.ok(ost.startsWith(`${name}-OST0000_UUID `) && ost.endsWith(`% ${path}[OST:0]`), ost);
    t.same([blank, ...rest], ['', '', '']);
    t.match(sum, new RegExp(`^filesystem_summary: +\\d+ +\\d+ +\\d+ +\\d+% ${path}$`));
    t.match(await said('df', '-i', path), /^UUID +Inodes +IUsed +IFree IUse% Mounted on\n/);
    t.match(await said('df', '--human-readable', path), /^UUID +bytes +Used .*\n.* \d+\.\d[KMGTPE] /);
    t.notMatch(await said('df', '-o', path), 'MDT');
  });

  await t.test('quota prints no limits, and usage in the brackets of what is not exact', async (t) => {
    const row = new RegExp(`^ *${path} \\[\\d+\\] +0 +0 +- +\\[\\d+\\] +0 +0 +-\n$`);
    t.match(await said('quota', '-q', '-u', 'root', path), row);
    t.match(await said('quota', '-g', '0', path), /^Disk quotas for grp 0 \(gid 0\):\n +Filesystem +kbytes/);
    t.match(await said('quota', path), /^Disk quotas for usr root [^]*\nDisk quotas for grp root /);
    t.equal(await said('quota', '-t', '-u', path), 'Block grace time: 1w; Inode grace time: 1w\n');
    t.match(await said('quota', '-U', path), /^Disk default usr quota:\n.*\n.* 0 +0 +0 +0 +0 +0\n$/);
  });
}

async function names(t: Test, { mount, name }: Mounted): Promise<void> {
  const fid = async (path: string): Promise<string> => (await said('path2fid', path)).trim();

  await t.test('fid2path prints every name of a FID', async (t) => {
    const own = mount.at('sub/own');
    await writeFile(own, 'x');
    await link(own, mount.at('other'));
    const both = await fid(own);
    const paths = [mount.at('other'), own];
    t.equal(await said('fid2path', mount.path, both), paths.map((path) => `${path}\n`).join(''));
    t.equal(await said('fid2path', name, both.slice(1, -1)), 'other\nsub/own\n');
    t.equal(await said('fid2path', '-f', '-c', name, both), `${both} 0 other\n${both} 1 sub/own\n`);
    t.equal(await said('fid2path', '--link', '1', own, both), `${own}\n`);
    const parents = [`${await fid(mount.path)}/other`, `${await fid(mount.at('sub'))}/own`];
    t.equal(await said('path2fid', '--parents', own), `${parents.join('\t')}\n`);
    t.equal(
      await said('path2fid', '--parents', own, mount.at('sub')),
      `${own}: ${parents.join('\t')}\n${mount.at('sub')}: ${await fid(mount.path)}/sub\n`,
    );
    t.equal(
      await said('path2fid', own, mount.at('sub')),
      `${own}: ${both}\n${mount.at('sub')}: ${await fid(mount.at('sub'))}\n`,
    );
    t.equal(await said('fid2path', '-0', '-n', name, both), 'other\0own\0');
    t.equal(await said('fid2path', mount.path, await fid(mount.at('sub'))), `${mount.at('sub')}\n`);
    t.equal(await said('fid2path', mount.path, await fid(mount.path)), `${mount.path}//\n`);
    t.equal(await said('fid2path', name, await fid(mount.path)), '/\n');
    t.equal(
      await said('fid2path', name, await fid(mount.at('a.txt')), await fid(mount.at('sub/b.bin'))),
      'a.txt\nsub/b.bin\n',
    );
    await rename(mount.at('sub'), mount.at('moved'));
    t.equal(await said('fid2path', name, both), 'moved/own\nother\n');
    await rename(mount.at('moved'), mount.at('sub'));

    t.match(await lfs(['fid2path', '-l', '2', mount.path, both]), {
      code: 61,
      stdout: '',
      stderr: `lfs fid2path: cannot find ${mount.path} ${both}: No data available\n`,
    });
    await Promise.all(paths.map((path) => rm(path)));
    for (const gone of [both, '[0x200000400:0xfffffff0:0x1]', '[0x1:0x2:0x0]'])
      t.match(await lfs(['fid2path', mount.path, gone, await fid(mount.at('a.txt'))]), {
        code: 2,
        stdout: `${mount.at('a.txt')}\n`,
        stderr: `lfs fid2path: cannot find ${mount.path} ${gone}: No such file or directory\n`,
      });
    t.equal(await hsmFlags(mount.at('a.txt')), states.stub);
  });

  await t.test('only root may ask for the names of a FID', async (t) => {
    const text = await fid(mount.at('a.txt'));
    const asked = [lfsPath, 'fid2path', mount.path, text];
    t.match(await runAs(nobody, 'env', ['-u', 'NODE_OPTIONS', ...asked]), {
      code: 1,
      stdout: '',
      stderr: `lfs fid2path: cannot find ${mount.path} ${text}: Operation not permitted\n`,
    });
  });
}

async function versions(t: Test, { mount }: Mounted): Promise<void> {
  await t.test('data_version changes with the data, and is 0 without', async (t) => {
    const version = async (path: string): Promise<string> => (await said('data_version', path)).trim();
    const [path, stub] = [mount.at('versioned'), mount.at('sub/b.bin')];
    t.equal(await version(stub), '0');
    t.equal(await hsmFlags(stub), states.stub);
    await writeFile(path, '');
    t.equal(await version(path), '0', 'never written');
    await writeFile(path, 'one');
    const one = await version(path);
    t.match(one, /^[1-9]\d*$/);
    for (const option of ['-n', '-r', '-w', '-rw', '--nosync'])
      t.equal((await said('data_version', option, path)).trim(), one, option);
    t.equal(await said('hsm_archive', path), '');
    await untilFlags(path, states.clean);
    t.equal(await version(path), one, 'archived');
    t.equal((await said('data_version', '-ws', path)).trim(), one, 'there is nothing to set');
    await until(async () => (await lfs(['hsm_release', path])).code === 0, { what: 'the release' });
    t.equal(await version(path), '0', 'released');
    t.equal(await readFile(path, 'utf8'), 'one');
    t.equal(await version(path), one, 'restored');
    await pause(20);
    const { atime, mtime } = await stat(path);
    await writeFile(path, 'two');
    await utimes(path, atime, mtime);
    t.not(await version(path), one, 'written, and its time set back');
    t.match(await lfs(['data_version', path + '/x']), { code: 20 });
    t.match(await lfs(['data_version', mount.path]), { code: 25 });
    await rm(path);
  });

  await t.test('data_version -s makes no file releasable that the container does not have', async (t) => {
    const path = mount.at('forced');
    await writeFile(path, 'only here');
    t.equal(await said('hsm_set', '--exists', '--archived', path), '');
    const { code, stderr } = await lfs(['data_version', '-ws', path]);
    t.equal(code, 1);
    t.match(stderr, /^lfs data_version: cannot set version \d+ for '.*': Operation not permitted\n$/);
    t.not((await lfs(['hsm_release', path])).code, 0);
    t.equal(await readFile(path, 'utf8'), 'only here');
    await rm(path);
  });
}

async function finding(t: Test, { mount }: Mounted): Promise<void> {
  await t.test('find tells released files from others, and restores none', async (t) => {
    const found = async (...args: readonly string[]): Promise<readonly string[]> =>
      (await said('find', mount.path, ...args)).split('\n').slice(0, -1).sort();
    const [text, bin, own] = [mount.at('a.txt'), mount.at('sub/b.bin'), mount.at('own')];
    await writeFile(own, 'new\n');
    const directories = [mount.path, mount.at('sub')];
    t.same(await found('--layout', 'released'), [text, bin]);
    t.same(await found('-L', 'released', '-size', '+4k'), [bin]);
    t.same(await found('!', '--layout', 'released'), [mount.path, own, mount.at('sub')]);
    t.same(await found('-type', 'f', '!', '-layout', 'released'), [own]);
    t.same(await found('-type', 'f', '-layout', 'raid0'), [text, own, bin]);
    t.same(await found('-type', 'd', '-layout', 'raid0'), directories);
    t.same(await found('-type', 'f', '-layout', 'mdt'), []);
    t.equal(await hsmFlags(bin), states.stub);
    await rm(own);
  });
}

async function striping(t: Test, { mount }: Mounted): Promise<void> {
  const [directory, file, stub] = [mount.at('striped'), mount.at('striped/f'), mount.at('a.txt')];

  await t.test('setstripe is remembered and shown', async (t) => {
    t.equal(await said('mkdir', '-i', '0', '-c', '1', directory), '');
    const line = 'stripe_count:  1 stripe_size:   1048576 pattern:       raid0 stripe_offset: -1\n\n';
    t.equal(await said('getstripe', '-d', directory), line);
    t.equal(await said('setstripe', '-c', '-1', '-S', '4M', '--pool', 'flash', directory), '');
    t.equal(
      await said('getstripe', directory),
      `${directory}\nstripe_count:  -1 stripe_size:   4194304 pattern:       raid0 stripe_offset: -1 pool:          flash\n\n`,
    );
    t.equal(await said('setstripe', '-d', directory), '');
    t.equal(await said('setstripe', '-d', directory), '', 'a second time');
    t.equal(await said('getstripe', '-d', directory), line);

    t.equal(await said('setstripe', '--stripe-count', '2', '-i', '3', '--stripe-size', '64k', file), '');
    const [, oid = ''] = (await said('path2fid', file)).split(':');
    t.equal(
      await said('getstripe', file),
      `${file}\nlmm_stripe_count:  2\nlmm_stripe_size:   65536\nlmm_pattern:       raid0\nlmm_layout_gen:    0\n` +
        'lmm_stripe_offset: 3\n\tobdidx\t\t objid\t\t objid\t\t group\n' +
        [3, 4]
          .map((index) => {
            const object = [String(Number(oid)).padStart(14), oid.padStart(13)];
            return `\t${String(index).padStart(6)}\t${object.join('\t')}\t${'0'.padStart(14)}\n`;
          })
          .join('') +
        '\n',
    );
    await writeFile(file, 'data\n');
    for (const [option, value] of [
      ['-c', '2'],
      ['-S', '65536'],
      ['-i', '3'],
      ['-L', 'raid0'],
      ['-g', '0'],
      ['--mdt-index', '0\n'],
      ['--component-count', '0\n'],
    ] as const)
      t.equal((await said('getstripe', option, file)).trimEnd(), value.trimEnd(), option);
    t.ok((await said('getstripe', directory)).includes(`${file}\nlmm_stripe_count:  2\n`));
    const again = await lfs(['setstripe', '-c', '1', file]);
    t.match(again, {
      code: 17,
      stderr: `lfs setstripe: setstripe error for '${file}': stripe already set\n`,
    });
    t.equal(await readFile(file, 'utf8'), 'data\n');
    t.equal(await said('getstripe', '-L', stub), 'released\n\n');
    t.equal(await hsmFlags(stub), states.stub);
    t.match(
      await said('getstripe', stub),
      /lmm_pattern: {7}released\nlmm_layout_gen: {4}0\nlmm_stripe_offset: 0\n\n$/,
    );
    const { stdout } = await run('getfattr', ['-d', '-m', '-', '--absolute-names', file, directory]);
    t.notMatch(stdout, 'lustrite', 'what cp -a and tar would copy');
  });

  await t.test('a composite layout is shown by its components', async (t) => {
    const composite = mount.at('striped/c');
    t.equal(
      await said(
        'setstripe',
        '-E',
        '1M',
        '-L',
        'mdt',
        '-E',
        '64M',
        '-c',
        '1',
        '-E',
        '-1',
        '-c',
        '4',
        composite,
      ),
      '',
    );
    const shown = await said('getstripe', composite);
    t.ok(
      shown.startsWith(
        `${composite}\n  lcm_layout_gen:    3\n  lcm_mirror_count:  1\n  lcm_entry_count:   3\n`,
      ),
    );
    t.match(shown, /lcme_id: {13}1\n {4}lcme_mirror_id: {6}0\n {4}lcme_flags: {10}init\n/);
    t.match(
      shown,
      /lcme_extent.e_start: 67108864\n {4}lcme_extent.e_end: {3}EOF\n {6}lmm_stripe_count: {2}4\n/,
    );
    t.equal(await said('getstripe', '--component-count', composite), '3\n');
    t.match(
      await said('getstripe', '-y', composite),
      /^lcm_layout_gen: {4}3\n[^]*\ncomponents:\n {2}- lcme_id: {13}1\n/,
    );
    t.equal(await said('setstripe', '--copy', composite, directory), '');
    t.match(
      await said('getstripe', '-d', directory),
      /lcme_id: {13}N\/A\n[^]* {6}stripe_count: {2}4 {7}stripe_size/,
    );
  });

  await t.test('mkdir makes directories, with the mode that it is told', async (t) => {
    const path = mount.at('made');
    t.equal(await said('mkdir', '-c', '2', '-H', 'crush', '--mode', '1770', path), '');
    t.equal(statSync(path).mode & 0o7777, 0o1770);
    t.equal((await lfs(['setdirstripe', path])).code, 17);
    t.equal(await said('setdirstripe', '-D', '-c', '1', path), '');
    t.equal(
      await said('getdirstripe', path),
      'lmv_stripe_count: 0 lmv_stripe_offset: 0 lmv_hash_type: none\n',
    );
    t.equal(await said('getdirstripe', '-i', path), '0\n');
  });

  await t.test('who may not write may not set a layout', async (t) => {
    const env = ['-u', 'NODE_OPTIONS'];
    const { stderr } = await runAs(nobody, 'env', [
      ...env,
      lfsPath,
      'setstripe',
      '-c',
      '1',
      directory,
      mount.at('x'),
    ]);
    t.match(stderr, `setstripe error for '${directory}': Permission denied\n`);
    t.match(stderr, `setstripe error for '${mount.at('x')}': Permission denied\n`);
    await rm(directory, { recursive: true });
  });
}

async function twoWords(t: Test, { mount }: Mounted): Promise<void> {
  await t.test('lfs hsm COMMAND is lfs hsm_COMMAND', async (t) => {
    const path = mount.at('a.txt');
    t.equal(await said('hsm', 'state', path), await said('hsm_state', path));
    t.equal(await said('hsm', 'set', '--norelease', path), '');
    t.equal((await hsmFlags(path)) & HS.NORELEASE, HS.NORELEASE);
    t.equal(await said('hsm', 'clear', '--norelease', path), '');
    t.equal((await hsmFlags(path)) & HS.NORELEASE, 0);
    t.equal(await said('hsm', 'action', path), `${path}: NOOP\n`);
    t.equal(await said('hsm', 'release', path), '');
  });
}

/** The FID of an inode that the mount has not seen, from its number and generation. */
async function fidIn(store: string, name: string): Promise<string> {
  const script = [
    'import array, fcntl, os, sys',
    'fd = os.open(sys.argv[1], os.O_RDONLY)',
    'generation = array.array("I", [0, 0])',
    'fcntl.ioctl(fd, 0x80087601, generation)',
    'ino = os.fstat(fd).st_ino',
    'print("[0x%x:0x%x:0x%x]" % (0x200000400 + (ino >> 32), ino & 0xffffffff, generation[0]))',
  ].join('\n');
  return (await ok('python3', ['-c', script, join(store, name)])).trim();
}

async function byFid(t: Test, { mount, frontEnd }: Mounted): Promise<void> {
  const skip = frontEnd === 'fuse-native' && 'the package has paths, and a FID is none (SEMANTICS.md)';
  const fid = async (path: string): Promise<string> => (await said('path2fid', path)).trim();
  const at = (text: string): string => mount.at('.lustre/fid', text);

  await t.test('.lustre/fid/FID is the file itself', { skip }, async (t) => {
    const text = await fid(mount.at('a.txt'));
    t.equal(
      await said('hsm_state', at(text)),
      (await said('hsm_state', mount.at('a.txt'))).replace(mount.at('a.txt'), at(text)),
    );
    t.equal(await hsmFlags(at(text)), states.stub);
    t.equal((await stat(at(text))).ino, (await stat(mount.at('a.txt'))).ino);
    t.equal(await readFile(at(text.slice(1, -1)), 'utf8'), 'aaa\n', 'also without brackets; it is restored');
    t.equal(await hsmFlags(mount.at('a.txt')), states.clean);
    await appendFile(at(text), 'more');
    t.equal(await hsmFlags(mount.at('a.txt')), HS.EXISTS | HS.ARCHIVED | HS.DIRTY);
    t.equal(await said('path2fid', at(text)), `${text}\n`);

    const handle = await open(at(text));
    t.teardown(() => handle.close());
    await rename(mount.at('a.txt'), mount.at('renamed'));
    t.equal(await readFile(at(text), 'utf8'), 'aaa\nmore', 'a rename changes no FID');
    await link(at(text), mount.at('a.txt'));
    await rm(mount.at('renamed'));
    t.equal(await readFile(at(text), 'utf8'), 'aaa\nmore');
    await rm(mount.at('a.txt'));
    await t.rejects(stat(at(text)), { code: 'ENOENT' }, 'without a name it has no FID');
    t.equal(await handle.readFile('utf8'), 'aaa\nmore', 'who has it open has it still');
  });

  await t.test('.lustre/fid/FID of a directory is the directory', { skip }, async (t) => {
    const text = await fid(mount.at('sub'));
    t.same(await readdir(at(text)), ['b.bin']);
    t.equal((await readFile(`${at(text)}/b.bin`)).length, 5000);
    await writeFile(`${at(text)}/new`, 'new');
    t.equal(await readFile(mount.at('sub/new'), 'utf8'), 'new');
    t.same((await readdir(mount.at('sub'))).sort(), ['b.bin', 'new']);
    await rm(mount.at('sub/new'));
    await t.rejects(readdir(at(await fid(mount.path))), { code: 'ELOOP' }, 'not that of the root');
  });

  await t.test('what the mount has not seen is found, what is not in it is not', { skip }, async (t) => {
    await writeFile(join(mount.store, 'ns', 'unseen'), 'unseen');
    await writeFile(join(mount.store, 'outside'), 'outside');
    t.equal(await readFile(at(await fidIn(mount.store, 'ns/unseen')), 'utf8'), 'unseen');
    await t.rejects(stat(at(await fidIn(mount.store, 'outside'))), { code: 'ENOENT' });
    // A copy of the store's files has the records, too.
    await run('cp', ['-a', join(mount.store, 'ns/sub/b.bin'), join(mount.store, 'copied')]);
    await t.rejects(stat(at(await fidIn(mount.store, 'copied'))), { code: 'ENOENT' });
    const [seq, oid] = (await fid(mount.at('sub/b.bin'))).slice(1).split(':');
    await t.rejects(stat(at(`${seq}:${oid}:0x0`)), { code: 'ENOENT' }, 'another generation');
    await t.rejects(stat(at(await fidIn(mount.store, 'unlinked'))), { code: 'ENOENT' });
    for (const text of ['[0x200000400:0xfffffff0:0x1]', '[0x1:0x2:0x0]', '0x1:0x2:0x0'])
      await t.rejects(stat(at(text)), { code: 'ENOENT' }, text);
    for (const text of [
      'x',
      '[0x200000400:0x5:0x0',
      '0x200000400:0x5',
      '[0x200000400:0x5:0x0]x',
      '[ 0x200000400:0x5:0x0]',
      '[0x200000400:-5:0x0]',
    ])
      await t.rejects(stat(at(text)), { code: 'EINVAL' }, text);
    await rm(mount.at('unseen'));
  });

  await t.test('.lustre is not listed, for root alone, and nothing changes in it', { skip }, async (t) => {
    const text = await fid(mount.at('sub/b.bin'));
    t.notOk((await readdir(mount.path)).includes('.lustre'));
    for (const folder of ['.lustre', '.lustre/fid']) t.same(await readdir(mount.at(folder)), []);
    await t.rejects(stat(mount.at('.lustre/other')), { code: 'ENOENT' });
    t.match(await runAs(nobody, 'cat', [at(text)]), { code: 1, stderr: /Permission denied/ });
    const helpless = ['--bounding-set=-all', '--inh-caps=-all', 'cat', at(text)];
    t.match(await run('setpriv', helpless), { code: 1, stderr: /Permission denied/ }, 'also root');
    const refused = { code: 'EPERM' };
    await t.rejects(writeFile(at('x'), 'x'), { code: 'EINVAL' });
    await t.rejects(writeFile(mount.at('.lustre/x'), 'x'), refused);
    await t.rejects(mkdir(mount.at('.lustre/x')), refused);
    await t.rejects(chmod(mount.at('.lustre/fid'), 0o755), refused);
    await t.rejects(rm(at(text)), refused);
    await t.rejects(rename(at(text), mount.at('moved')), refused);
    await t.rejects(rename(mount.at('sub/b.bin'), mount.at('.lustre/moved')), refused);
    await t.rejects(rmdir(mount.at('.lustre')), refused);
    await t.rejects(rename(mount.at('.lustre'), mount.at('moved')), refused);
    await t.rejects(mkdir(mount.at('.lustre')), { code: 'EEXIST' });
    t.equal(await fid(mount.at('sub/b.bin')), text);
  });
}
