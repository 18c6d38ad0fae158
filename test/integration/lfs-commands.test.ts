/** What `lfs` can beside the HSM commands, through a real mount of every front end (lustre-hsm 8). */
import { statfsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { HS, hsmFlags, lfs, states } from '../helpers/lfs.js';
import { TestMount } from '../helpers/mount.js';
import { cannotMount } from '../helpers/mounts.js';

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
  return { mount: await TestMount.start(t, { container: name, env, frontEnd }), name, frontEnd };
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
    await finding(t, at);
    await twoWords(t, at);
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
