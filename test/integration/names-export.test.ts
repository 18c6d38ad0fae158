/** A name that no blob can have is a failure, counted and logged; nothing is written under another one. */
import { isUtf8 } from 'node:buffer';
import { mkdir, readFile, readlink, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { pathText } from '../../src/base/path-text.js';
import { blobOfPath } from '../../src/blob/names.js';
import type { AutoExportStatus } from '../../src/jobs/export/auto-export-record.js';
import type { HsmStatus } from '../../src/hsm/coordinator.js';
import { lfsPath, states } from '../helpers/lfs.js';
import { lustrite } from '../helpers/mount.js';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { namesIn, type Name } from '../helpers/names.js';
import { until } from '../helpers/poll.js';
import { ok } from '../helpers/run.js';

type Kind = 'file' | 'symlink' | 'directory' | 'empty directory';
const kinds: readonly Kind[] = ['file', 'symlink', 'directory'];

interface Made extends Name {
  readonly kind: Kind;
  /** What an export has to write: a directory that is not empty has a file in it. */
  readonly leaf: Buffer;
}

function table(folder: string, of: readonly Kind[] = kinds): readonly Made[] {
  return of.flatMap((kind) =>
    namesIn(`${folder}/${kind}`).flatMap((name): readonly Made[] => {
      if (kind !== 'directory') return [{ ...name, kind, leaf: name.path }];
      if (name.exact === true) return [];
      return [{ ...name, kind, leaf: Buffer.concat([name.path, Buffer.from('/in')]) }];
    }),
  );
}

// Node cannot pass on names that no text can hold.
const program = `
import json, os, re, subprocess, sys
lfs, root, what = sys.argv[1:4]
states = []
for kind, path in json.load(sys.stdin):
    path = os.path.join(os.fsencode(root), bytes.fromhex(path))
    if what == 'make':
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if kind == 'symlink': os.symlink(b'target', path)
        elif kind == 'empty directory': os.mkdir(path)
        else: open(path, 'xb').write(b'content')
    elif kind in ('file', 'directory'):
        said = subprocess.run([lfs, what, path], check=True, stdout=subprocess.PIPE).stdout
        states += [int(flags, 16) for flags in re.findall(rb'\\(0x(\\w+)\\)[^()]*$', said)]
print(json.dumps(states))
`;

t.test('names that a blob can and cannot have', { skip: cannotMount }, async (t) => {
  const lab = await MountedContainer.start(t, {});
  const { mount, container } = lab;

  const forEach = async (what: string, made: readonly Made[]): Promise<readonly number[]> => {
    const input = JSON.stringify(made.map(({ kind, leaf }) => [kind, leaf.toString('hex')]));
    const said = await ok('python3', ['-c', program, lfsPath, mount.path, what], { input });
    return JSON.parse(said) as number[];
  };
  const names = async (folder: string, directories: boolean): Promise<readonly string[]> => {
    const found: string[] = [];
    const all = container.listBlobsFlat({ prefix: `${folder}/`, includeMetadata: true });
    for await (const { name, metadata } of all)
      // The SDK leaves the one character reference of a listing as it is.
      if ((metadata?.['hdi_isfolder'] === 'true') === directories) found.push(name.replaceAll('&#xD;', '\r'));
    return found.sort();
  };
  const listed = (made: readonly Made[]): readonly string[] => made.map(({ leaf }) => leaf.toString()).sort();
  const parents = (made: readonly Made[]): readonly string[] => [
    ...new Set(listed(made).flatMap((name) => ancestors(name).filter((path) => path.includes('/')))),
  ];
  const failures = async (job: string): Promise<readonly Readonly<Record<string, string>>[]> => {
    const text = await readFile(join(mount.store, 'jobs', job, 'log.jsonl'), 'utf8');
    return jsonLines(text).filter(({ level }) => level === 'error');
  };
  const refusedOf = (made: readonly Made[]): readonly Made[] => made.filter(({ refused }) => refused);
  const possible = (made: readonly Made[]): readonly Made[] => made.filter(({ refused }) => !refused);
  /** What both kinds of job have to make of the table. */
  const check = async (
    t: Test,
    made: readonly Made[],
    folder: string,
    job: string,
    more: readonly string[] = [],
  ): Promise<void> => {
    const [empty, full] = [possible(made).filter(isEmpty), possible(made).filter((one) => !isEmpty(one))];
    t.same(await names(folder, false), listed(full), 'these blobs and no others');
    const above = new Set([...parents(possible(made)), ...listed(empty), ...more]);
    t.same(await names(folder, true), [...above].sort(), 'and the directories above them');
    const lines = await failures(job);
    for (const { kind, what, leaf, refused } of refusedOf(made)) {
      const path = isUtf8(leaf) ? leaf.toString() : pathText(leaf);
      const [line, ...more] = lines.filter((line) => line['path'] === path);
      t.match(line, { level: 'error', code: 'InvalidName', message: refused }, `${kind}: ${what}`);
      t.same(more, [], 'said once');
    }
    t.equal(lines.length, refusedOf(made).length);
    const files = made.filter(({ kind }) => kind === 'file' || kind === 'directory');
    t.same(
      await forEach('hsm_state', files),
      files.map(({ refused }) => (refused ? states.new : states.clean)),
      'what has no blob is as dirty as it was',
    );
  };

  await t.test('export', async (t) => {
    const made = table('export');
    await forEach('make', made);
    const args = ['export', 'create', mount.path, '--name', 'job', '--path', '/export', '--wait', '--json'];
    const ended = await lustrite(args);
    t.equal(ended.code, 1);
    t.match(JSON.parse(ended.stdout), {
      properties: {
        status: {
          state: 'Failed',
          errorCode: 'FilesFailed',
          errorMessage: `${String(refusedOf(made).length)} files were not exported`,
          totalFilesExported: possible(made).length,
          totalFilesFailed: refusedOf(made).length,
        },
      },
    });
    await check(t, made, 'export', 'job');
  });

  await t.test('auto-export', async (t) => {
    const all = table('auto', [...kinds, 'empty directory']);
    await forEach('make', all);
    // Of a name that is no text nobody can say what lies below it.
    const unknown = all.filter(({ kind, path }) => kind === 'directory' && !isUtf8(path));
    const made: readonly Made[] = [
      ...all,
      ...unknown.map((one): Made => ({ ...one, kind: 'empty directory', leaf: one.path })),
    ];
    const args = ['--name', 'auto', '--path', '/auto', '--poll-interval', '100ms'];
    const created = await lustrite(['auto-export', 'create', mount.path, ...args]);
    t.equal(created.code, 0, created.stderr);
    const status = async (): Promise<AutoExportStatus> => {
      const job = (await mount.jobs()).find(({ name }) => name === 'auto');
      return job?.properties.status as AutoExportStatus;
    };
    await until(async () => (await status()).exportIterationCount > 2, { what: 'two iterations' });
    t.match(await status(), {
      state: 'InProgress',
      statusMessage: /not everything could be exported/,
      currentIterationFilesFailed: refusedOf(made).length,
    });
    t.equal((await lustrite(['auto-export', 'disable', mount.path])).code, 0);
    await mount.untilJobsEnd();
    const files = possible(made).filter((one) => !isEmpty(one));
    t.match(await status(), { state: 'DisableFailed', totalFilesExported: files.length });
    // A directory with nothing in it that a blob could stand for is new, and nothing implies it.
    const holders = refusedOf(made).filter(({ path }) => isUtf8(path));
    const inside = holders.flatMap(({ path }) => ancestors(path.toString()));
    const more = inside.filter((name) => name.includes('/') && !('refused' in blobOfPath(name)));
    await check(t, made, 'auto', 'auto', more);
  });

  await t.test('hsm_archive', async (t) => {
    const made = table('archive').filter(({ kind }) => kind === 'file');
    await forEach('make', made);
    await forEach('hsm_archive', made);
    const transfers = async (): Promise<HsmStatus | undefined> => (await mount.status())?.hsm as HsmStatus;
    const idle = async (): Promise<boolean> => {
      const { waiting, running } = (await transfers()) ?? {};
      return waiting?.archive === 0 && running?.explicit === 0;
    };
    await until(idle, { what: 'all requests to end' });
    t.same(await names('archive', false), listed(possible(made)));
    t.same(await names('archive', true), []);
    t.same(
      await forEach('hsm_state', made),
      made.map(({ refused }) => (refused ? states.new : states.clean)),
    );
    const causes = jsonLines(mount.log()).flatMap(({ msg, cause }) =>
      msg === 'HSM request failed' ? [cause ?? ''] : [],
    );
    for (const { what, leaf, refused } of refusedOf(made)) {
      const named = `${pathText(leaf)} cannot be the name of a blob: `;
      t.match(
        causes.filter((cause) => cause.startsWith(named)),
        [refused],
        what,
      );
    }
    t.equal(causes.length, refusedOf(made).length);
  });

  await t.test('the target of a symlink is carried as it is, whatever its bytes', async (t) => {
    const targets = ['\ufffd', Buffer.from([0xff, 0x2f, 0x01]), 'a\\b.', '\ud7ff\n'].map((target) =>
      Buffer.from(target),
    );
    await mkdir(join(mount.path, 'links'));
    const paths = targets.map((_, at) => `links/${String(at)}`);
    for (const [at, path] of paths.entries()) await symlink(targets[at] ?? '', join(mount.path, path));
    await mount.job('export', { filesystemPath: '/links' });
    const bodies = await Promise.all(paths.map((path) => container.getBlobClient(path).downloadToBuffer()));
    t.same(bodies, targets, 'exported');
    await rm(join(mount.path, 'links'), { recursive: true });
    await mount.job('import', { prefixes: ['/links'] });
    const read = await Promise.all(paths.map((path) => readlink(join(mount.path, path), 'buffer')));
    t.same(read, targets, 'imported');
  });
});

function isEmpty({ kind }: Made): boolean {
  return kind === 'empty directory';
}

/** `a`, `a/b` of `a/b/c`. */
function ancestors(path: string): readonly string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, at) => parts.slice(0, at + 1).join('/'));
}

function jsonLines(text: string): readonly Readonly<Record<string, string>>[] {
  const lines = text.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as Record<string, string>);
}
