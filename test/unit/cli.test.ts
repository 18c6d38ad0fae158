/** The command line without a mount: usage, settings and messages. */
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { pathText } from '../../src/base/path-text.js';
import { isWithin, parseMountInfo, resolvedPath } from '../../src/base/mount-table.js';
import { flockHolders, isRunning, startTimeOf } from '../../src/base/processes.js';
import { firstMountOf, readFirstMount, withFirstMount, writeFirstMount } from '../../src/base/first-mount.js';
import { storesLastMountedAt, writeLastMount } from '../../src/base/last-mount.js';
import { settings } from '../../src/base/config-keys.js';
import { unknownVariables } from '../../src/base/variables.js';
import { resolveSettings, type ConfigInput } from '../../src/base/config.js';
import { parameterTexts } from '../../src/cli/hsm.js';
import { bytesText, counted, table } from '../../src/cli/output.js';
import type { JobView } from '../../src/base/control-api.js';
import { fieldRows, jobLine, nothingFound } from '../../src/cli/job-text.js';
import { fateOf } from '../../src/cli/stopped-job.js';
import { storeWarning } from '../../src/store/durability.js';
import { start } from '../helpers/run.js';
import { nobodyCannotRun } from '../helpers/host.js';
import { lustrite, lustriteAsNobody } from '../helpers/mount.js';

async function scratch(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lustrite-cli-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

t.test('every refusal names what is wrong, with exit code 2 for usage and 1 otherwise', async (t) => {
  const folder = await scratch(t);
  await writeFile(join(folder, 'file'), '');
  await writeFile(join(folder, 'bad.json'), '{"import":{"prefix":1}}');
  await writeFile(join(folder, 'broken.json'), '{');
  const store = join(folder, 'store');
  const rows: readonly (readonly [string, readonly string[], number, RegExp])[] = [
    ['no command argument', ['mount'], 2, /missing required argument 'mnt'/],
    ['unknown command', ['frob'], 2, /unknown command 'frob'\n\(lustrite --help explains\)/],
    ['no verb', ['import', folder], 2, /unknown command .*\n\(lustrite import --help explains\)/],
    ['jobs of no mount', ['jobs', folder], 1, /has not mounted/],
    ['unknown option', ['umount', '/x', '--force'], 2, /unknown option '--force'/],
    ['no container', ['mount', folder], 2, /which container\? --container NAME/],
    [
      'bad number',
      ['mount', folder, '--container', 'data', '--uid', 'me'],
      2,
      /--uid: 'me' is not a whole number/,
    ],
    [
      'bad mode',
      ['mount', folder, '--container', 'data', '--file-mode', '9'],
      2,
      /--file-mode: '9' is not octal/,
    ],
    [
      'bad choice',
      ['mount', folder, '--front-end', 'x'],
      2,
      /--front-end: 'x' is not one of native, fuse-native/,
    ],
    ['contradiction', ['mount', folder, '--no-import', '--import-prefix', 'a'], 2, /exclude each other/],
    [
      'one container twice',
      ['mount', folder, '--container', 'data', '--logging-container', 'data'],
      2,
      /logs need another/,
    ],
    [
      'two paths',
      ['export', 'create', '/x', '--path', '/a', '--path', '/b'],
      2,
      /A job has one: '\/a' or '\/b'/,
    ],
    ['foreground and wait', ['mount', folder, '--foreground', '--wait'], 2, /exclude each other/],
    [
      'misspelt key',
      ['config', 'show', '--config', join(folder, 'bad.json')],
      2,
      /no setting 'import.prefix'/,
    ],
    ['broken file', ['config', 'show', '--config', join(folder, 'broken.json')], 2, /broken\.json/],
    ['no file', ['config', 'show', '--config', join(folder, 'none.json')], 2, /none\.json.*ENOENT/],
    [
      'missing mount point',
      ['mount', join(folder, 'no'), '--container', 'data', '--store', store],
      1,
      /does not exist: mkdir -p/,
    ],
    [
      'mount point is a file',
      ['mount', join(folder, 'file'), '--container', 'data', '--store', store],
      1,
      /not a directory/,
    ],
    [
      'store in the mount',
      ['mount', folder, '--container', 'data', '--store', store],
      1,
      /inside its own mount/,
    ],
    [
      'mount in the store',
      ['mount', join(folder, 'mnt'), '--container', 'data', '--store', folder],
      1,
      /is inside the store/,
    ],
    ['status of nothing', ['status', folder], 1, /lustrite has not mounted/],
    ['umount of nothing', ['umount', folder], 1, /lustrite has not mounted/],
    ['export of nothing', ['export', 'create', folder], 1, /lustrite has not mounted/],
    ['unknown conflict mode', ['import', 'create', folder, '--conflict', 'x'], 2, /not one of fail, skip/],
    ['daemon by hand', ['daemon'], 2, /started by lustrite mount/],
  ];
  const rootOnly = [
    'missing mount point',
    'mount point is a file',
    'store in the mount',
    'mount in the store',
  ];
  for (const [what, args, code, message] of rows) {
    if (process.geteuid?.() !== 0 && rootOnly.includes(what)) continue;
    const ended = await lustrite(args);
    t.equal(ended.code, code, `${what}: exit code`);
    t.match(ended.stderr, message, `${what}: message`);
    t.equal(ended.stdout, '', `${what}: nothing on stdout`);
    t.notMatch(ended.stderr, /\n {4}at /, `${what}: no stack trace`);
  }
});

t.test('without root, mount says what to do', { skip: await nobodyCannotRun() }, async (t) => {
  const args = ['mount', '/tmp', '--container', 'data', '--store', '/nowhere'];
  const ended = await lustriteAsNobody(args);
  t.equal(ended.code, 1);
  t.match(ended.stderr, /needs root: sudo/);
});

t.test('with --json, a failure is JSON on stdout and a line on stderr', async (t) => {
  const folder = await scratch(t);
  const rows: readonly (readonly [readonly string[], number, string, RegExp])[] = [
    [['jobs', 'list', folder, '--json'], 1, 'NotFound', /lustrite has not mounted/],
    [['mount', folder, '--json'], 2, 'Usage', /which container/],
    [['jobs', 'list', '--json'], 2, 'Usage', /missing required argument/],
  ];
  for (const [args, code, kind, message] of rows) {
    const ended = await lustrite(args);
    t.match(ended, { code, stderr: message }, args.join(' '));
    t.match(JSON.parse(ended.stdout), { error: { code: kind, message } }, args.join(' '));
  }
});

t.test('umount says of a job what becomes of it, and what is to be done', (t) => {
  const rows = [
    ['import', 'InProgress', /^import job was stopped; the next mount begins it again/],
    ['import', 'Cancelling', /^import job was being canceled; the next mount does not go on with it$/],
    ['export', 'InProgress', /^export job was stopped; .* create another export after the next mount$/],
    ['export', 'Cancelling', /^export job was being canceled; .* does not go on with it$/],
    ['auto-import', 'InProgress', /^auto-import job was stopped; the next mount goes on with it$/],
    ['auto-import', 'Disabling', /^auto-import job was being disabled; .* does not go on with it$/],
    ['auto-export', 'InProgress', /^auto-export job was stopped; the next mount goes on with it$/],
    [
      'auto-export',
      'Disabling',
      /^auto-export job was being disabled, and its last iteration was stopped; .* create an export after the next mount, which shows this job as DisableFailed$/,
    ],
  ] as const;
  const lingering = {
    InProgress: /goes on until the daemon ends, and is stopped then; the next mount goes on with it/,
    Disabling: /last iteration is stopped when the daemon ends; .* create an export/,
  };
  for (const [kind, state, line] of rows)
    t.match(fateOf({ kind, name: 'job', properties: { status: { state } } }, false), line);
  for (const [state, line] of Object.entries(lingering))
    t.match(fateOf({ kind: 'auto-export', name: 'job', properties: { status: { state } } }, true), line);
  t.end();
});

t.test('a store that is not on a disk, or on an unknown one, is warned of', (t) => {
  for (const fileSystem of ['ext4', 'xfs', 'btrfs']) t.equal(storeWarning('/s', { fileSystem }), undefined);
  t.match(storeWarning('/s', { fileSystem: 'tmpfs' }), /\/s is on tmpfs: .* do not survive a reboot/);
  t.match(
    storeWarning('/s', { fileSystem: '0x6969' }),
    /\(0x6969\) that lustrite is not tested on; take ext4/,
  );
  t.end();
});

t.test('every command has help with an example', async (t) => {
  const jobs = (kind: string, stop: string): readonly string[] =>
    ['create', 'list', 'show', stop, 'delete'].map((verb) => `${kind} ${verb}`);
  const commands = ['', 'mount', 'umount', 'status', 'jobs list', 'config show', ...jobs('import', 'cancel'), ...jobs('export', 'cancel'),
    ...jobs('auto-import', 'disable'), ...jobs('auto-export', 'disable'),
    'changelog', 'changelog register', 'changelog deregister', 'changelog clear', 'changelog readers']; // prettier-ignore
  for (const command of commands) {
    const { code, stdout } = await lustrite([...command.split(' ').filter(Boolean), '--help']);
    t.equal(code, 0, command);
    t.match(stdout, new RegExp(`Examples?:\n {2}\\$ lustrite ${command}`), command);
  }
});

t.test('config show tells where each value was said', async (t) => {
  const { code, stdout } = await lustrite(['config', 'show', '--json', '--uid', '7'], {
    env: { LUSTRITE_DEFAULTS_GID: '8' },
  });
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    'defaults.uid': { value: 7, source: 'flag', origin: '--uid' },
    'defaults.gid': { value: 8, source: 'environment', origin: 'LUSTRITE_DEFAULTS_GID' },
    'defaults.fileMode': {
      value: 0o644,
      source: 'default',
      flag: '--file-mode',
      variable: 'LUSTRITE_DEFAULTS_FILE_MODE',
    },
    store: { value: null },
    account: { value: null },
  });
});

t.test(
  'config show tells where each value can be said, the account and the store that follows',
  async (t) => {
    const env = {
      AZURE_STORAGE_CONNECTION_STRING: 'UseDevelopmentStorage=true',
      LUSTRITE_CONTAINER: 'data',
      LUSTRITE_CONTANER: 'other',
    };
    const { code, stdout, stderr } = await lustrite(['config', 'show'], { env });
    t.equal(code, 0);
    t.match(stdout, /^JSON KEY +VALUE +FROM +FLAG +VARIABLE\n/);
    t.match(stdout, /^defaults\.uid +0 +default +--uid +LUSTRITE_DEFAULTS_UID +owner of/m);
    t.match(stdout, /^log\.level +"info" +default +- +LUSTRITE_LOG_LEVEL /m);
    t.match(stdout, /^store +"\/var\/lib\/lustrite\/devstoreaccount1-data" +default /m);
    t.match(stdout, /^\(account\) +devstoreaccount1 +credentials /m);
    t.match(stderr, /^lustrite: there is no variable LUSTRITE_CONTANER, .* LUSTRITE_CONTAINER \(/);
  },
);

t.test('variables that nothing reads are told with the nearest that is read', (t) => {
  const env = {
    LUSTRITE_DEFAULT_UID: '1',
    LUSTRITE_CONFIG: 'x',
    LUSTRITE_UID: '',
    PATH: '/',
    LUSTRITE_STORE: '/s',
  };
  t.match(unknownVariables(env), [
    /no variable LUSTRITE_DEFAULT_UID.* LUSTRITE_DEFAULTS_UID /,
    /no variable LUSTRITE_UID.* LUSTRITE_/,
  ]);
  t.equal(unknownVariables(env).length, 2);
  t.same(unknownVariables(Object.fromEntries(settings.map((setting) => [setting.env, '']))), []);
  t.end();
});

t.test('the stores that were last mounted at a place are found', async (t) => {
  const folder = await scratch(t);
  for (const name of ['b', 'a', 'elsewhere', 'never']) await mkdir(join(folder, name));
  for (const name of ['a', 'b', 'elsewhere']) writeLastMount(join(folder, name), '/mnt/one');
  writeLastMount(join(folder, 'elsewhere'), '/mnt/two');
  t.same(storesLastMountedAt('/mnt/one', folder), [join(folder, 'a'), join(folder, 'b')]);
  t.same(storesLastMountedAt('/mnt/two', folder), [join(folder, 'elsewhere')]);
  t.same(storesLastMountedAt('/mnt/three', folder), []);
  t.same(storesLastMountedAt('/mnt/one', join(folder, 'none')), []);
});

t.test('parameters are printed as lctl prints them', (t) => {
  const name = 'mdt.data-MDT0000.hsm.actions';
  const line = 'x'.repeat(78 - name.length);
  const rows: readonly (readonly [value: string, printed: readonly string[]])[] = [
    ['', []],
    [line, [`${name}=${line}`]],
    [`${line}x`, [`${name}=`, `${line}x`]],
    ['a\nb', [`${name}=`, 'a\nb']],
  ];
  for (const [value, printed] of rows) t.same(parameterTexts({ name, value }), printed);
  t.same(parameterTexts({ name, value: '' }, true), []);
  t.same(parameterTexts({ name, value: `${line}x` }, true), [`${line}x`]);
  const mask = { name: 'mdt.data-MDT0000.hsm.user_request_mask', value: '' };
  t.same(parameterTexts(mask), [`${mask.name}=`], 'an empty value is a line');
  t.end();
});

t.test('a reader that goes away is no error', async (t) => {
  const { child, ended } = start(process.execPath, ['dist/cli.js', 'config', 'show']);
  child.stdout?.destroy();
  const { code, stderr } = await ended;
  t.equal(code, 0);
  t.equal(stderr, '');
});

t.test('the mount table is read with its escapes, the topmost mount last', (t) => {
  const text =
    '36 35 98:0 / /mnt/a\\040b\\134c rw,noatime master:1 - fuse.lustrite h/c rw\n' +
    '37 35 98:1 /x /mnt/\\303\\251 rw - ext4 /dev/sda rw\n';
  t.same(parseMountInfo(text), [
    { mountPoint: '/mnt/a b\\c', type: 'fuse.lustrite', source: 'h/c' },
    { mountPoint: '/mnt/é', type: 'ext4', source: '/dev/sda' },
  ]);
  t.end();
});

t.test('paths are resolved through links, also where the end does not exist', async (t) => {
  const folder = resolvedPath(await scratch(t));
  await mkdir(join(folder, 'real'));
  await symlink('real', join(folder, 'link'));
  await symlink(join(folder, 'link'), join(folder, 'far'));
  await symlink('loop', join(folder, 'loop'));
  t.equal(resolvedPath(join(folder, 'far/x/../y')), join(folder, 'real/y'));
  t.equal(resolvedPath(join(folder, 'link')), join(folder, 'real'));
  t.equal(resolvedPath(join(folder, 'loop/a')), join(folder, 'loop/a'));
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['/a/b', '/a', true],
    ['/a', '/a', true],
    ['/ab', '/a', false],
    ['/a', '/', true],
    ['/a', '/a/b', false],
  ];
  for (const [inner, outer, within] of rows) t.equal(isWithin(inner, outer), within, `${inner} in ${outer}`);
});

t.test('a process is known by its start time', (t) => {
  const startTime = startTimeOf(process.pid) ?? '';
  t.match(startTime, /^\d+$/);
  t.ok(isRunning({ pid: process.pid, startTime }));
  t.notOk(isRunning({ pid: process.pid, startTime: '1' }));
  t.equal(startTimeOf(2 ** 30), undefined);
  t.end();
});

t.test('who has a lock is found', async (t) => {
  const file = join(await scratch(t), 'lock');
  await writeFile(file, '');
  t.same(flockHolders(file), []);
  const { child, ended } = start('flock', ['--no-fork', file, 'sh', '-c', 'echo ready; exec sleep 600']);
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout ?? child, 'data');
  t.same(flockHolders(file), [child.pid]);
  child.kill('SIGKILL');
  await ended;
  t.same(flockHolders(join(file, 'none')), []);
});

t.test('a later mount may leave out what the first one decided, and not change it', async (t) => {
  const store = await scratch(t);
  const resolve = (flags: ConfigInput['flags']) => resolveSettings({ flags, env: {} });
  t.equal(readFirstMount(store), undefined);
  writeFirstMount(store, firstMountOf(resolve({ container: 'data', 'import.prefixes': ['a/'] })));
  writeFirstMount(store, firstMountOf(resolve({ container: 'other' })));
  const first = readFirstMount(store);
  const value = (flags: ConfigInput['flags'], path: string) =>
    withFirstMount(resolve(flags), first, store).find(({ setting }) => setting.path === path)?.value;
  t.equal(value({}, 'container'), 'data');
  t.same(value({}, 'import.prefixes'), ['a/']);
  t.equal(value({ container: 'data' }, 'container'), 'data');
  t.equal(value({ 'defaults.uid': '3' }, 'defaults.uid'), 3, 'other settings may change');
  const rows: readonly (readonly [ConfigInput['flags'], string])[] = [
    [{ container: 'logs' }, '--container data, not logs (--container)'],
    [{ loggingContainer: 'logs' }, '--logging-container none, not logs (--logging-container)'],
    [{ 'import.prefixes': ['a/', 'b/'] }, '--import-prefix a/, not a/,b/ (--import-prefix)'],
    [{ 'import.none': true }, '--no-import false, not true (--no-import)'],
    [{ 'import.conflict': 'fail' }, '--import-conflict skip, not fail (--import-conflict)'],
  ];
  for (const [flags, words] of rows) {
    t.throws(() => withFirstMount(resolve(flags), first, store), {
      message: `the store ${store} was first mounted with ${words}: leave it out, or take another --store`,
    });
  }
});

t.test('people read numbers with units, and names on one line', (t) => {
  t.equal(bytesText(0), '0 B');
  t.equal(bytesText(1023), '1023 B');
  t.equal(bytesText(1536), '1.5 KiB');
  t.equal(bytesText(3 * 2 ** 40), '3.0 TiB');
  t.equal(counted(1, 'file'), '1 file');
  t.equal(counted(0, 'file'), '0 files');
  t.equal(pathText('a b/é'), 'a b/é');
  t.equal(pathText('a\nb'), '"a\\nb"');
  t.equal(
    pathText('\u007f\u0080\u0085\u009f\u00a0\u2028\u2029'),
    '"\\u007f\\u0080\\u0085\\u009f\u00a0\\u2028\\u2029"',
  );
  t.equal(pathText(Buffer.from('a b/é')), 'a b/é');
  t.equal(pathText(Buffer.from('é\xff\xc3/\n\xe9b\xed\xa0\x80', 'latin1')), '"\\xe9\\xff\\xc3/\\n\\xe9b\\xed\\xa0\\x80"'); // prettier-ignore
  t.equal(pathText(Buffer.concat([Buffer.from('é😀'), Buffer.from([0xff])])), '"é😀\\xff"');
  t.equal(pathText('\\xff'), '"\\\\xff"', 'a backslash of the name itself');
  t.equal(table([['a', 'b'], ['ccc', '']]), 'a    b\nccc'); // prettier-ignore
  const status = { state: 'CompletedPartial', totalBlobsWalked: 3, totalBlobsImported: 2, totalErrors: 1, totalConflicts: 0, statusMessage: 'why' }; // prettier-ignore
  t.equal(
    jobLine({ kind: 'import', name: 'i', properties: { status } }),
    'i CompletedPartial: 2 of 3 blobs imported, 1 error, 0 conflicts (why)',
  );
  const again = { ...status, preexistingFiles: 1 };
  t.equal(
    jobLine({ kind: 'import', name: 'i', properties: { status: again } }),
    'i CompletedPartial: 2 of 3 blobs imported, 1 there already, 1 error, 0 conflicts (why)',
  );
  t.same(fieldRows({ a: 1, b: 'two', c: { d: [3], e: { f: true } } }), [
    ['a', '1'],
    ['b', 'two'],
    ['c.d', '[3]'],
    ['c.e.f', 'true'],
  ]);
  const exporting = { state: 'InProgress', percentComplete: 40, totalFilesExported: 1, totalMiBExported: 1.26, totalFilesFailed: 0, filesExportedPerSecond: 2, mibExportedPerSecond: 2.5 }; // prettier-ignore
  t.equal(
    jobLine({ kind: 'export', name: 'e', properties: { status: exporting } }),
    'e InProgress: 40 %, 1 file exported, 1.3 MiB, 0 failed, 2 files/s, 2.5 MiB/s',
  );
  const sending = { state: 'InProgress', totalFilesExported: 3, totalMiBExported: 0, totalFilesFailed: 220, currentIterationFilesFailed: 2, exportIterationCount: 110, statusMessage: 'why' }; // prettier-ignore
  t.equal(
    jobLine({ kind: 'auto-export', name: 'e', properties: { status: sending } }),
    'e InProgress: 3 files exported, 0 MiB, iteration 110: 2 failed (why)',
  );
  const imported = (importPrefixes: readonly string[], totalBlobsWalked: number) =>
    nothingFound({ kind: 'import', name: 'i', properties: { importPrefixes, status: { state: 'Completed', totalBlobsWalked } } } as JobView); // prettier-ignore
  t.equal(imported(['/'], 0), 'the container is empty');
  t.equal(imported(['/a', 'b/'], 0), "no blob has a name that begins with '/a' or 'b/'");
  t.equal(imported(['/'], 1), undefined);
  t.end();
});
