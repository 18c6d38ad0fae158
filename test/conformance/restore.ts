/** What brings the data of a released file back, and what a reader gets when that fails. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { states } from '../helpers/lfs.js';
import { environment, ok, run, shell } from '../helpers/run.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

const MiB = 2 ** 20;
/** Different at every offset that a test looks at. */
const content = Buffer.alloc(
  MiB - 12_345,
  Uint8Array.from({ length: 9973 }, (_, i) => (i * 31) % 256),
);
const refused = { code: 1, stderr: /Operation not permitted/ };
const noData = { code: 1, stdout: '', stderr: /No data available/ };
const tree = Object.fromEntries(
  Array.from({ length: 25 }, (_, i) => [`dir.${Math.floor(i / 5)}/file.${i % 5}`, `${i}\n`]),
);

export const restore: Theme = {
  cases: [
    hsm(
      '11a',
      'an imported blob is a released file of its size',
      async (t, lab) => {
        t.equal(await lab.state('f'), '(0x0000000d) released exists archived, archive_id:1');
        t.match(await stat(lab.at('f')), { size: content.length, blocks: 1 });
        t.equal((await lab.lfs('getstripe -L', 'f')).stdout.trim(), 'released');
        t.equal(lab.count('GET', 'f'), 0);
      },
      { blobs: { f: content } },
    ),

    hsm(
      '12a',
      'an imported file is restored when it is asked for',
      async (t, lab) => {
        await lab.ok('hsm_restore', 'f');
        await lab.untilFlags('f', states.clean);
        t.ok((await lab.read('f')).equals(content));
        t.equal(lab.count('GET', 'f'), 1);
      },
      { blobs: { f: content } },
    ),

    hsm(
      '12b 12n',
      'an imported file is restored when it is read, and may be released at once',
      async (t, lab) => {
        t.ok((await lab.cat('f').ended).stdoutBytes.equals(content));
        t.equal(await lab.flags('f'), states.clean);
        await lab.ok('hsm_release', 'f');
        t.equal(await lab.flags('f'), states.stub);
        t.ok((await lab.cat('f').ended).stdoutBytes.equals(content));
      },
      { blobs: { f: content } },
    ),

    hsm('1b 12f', 'a released file is restored when it is asked for', async (t, lab) => {
      await lab.clean('f', content);
      await lab.ok('hsm_release', 'f');
      t.equal(await lab.flags('f'), states.stub);
      await lab.ok('hsm_restore', 'f');
      await lab.untilFlags('f', states.clean);
      t.ok((await lab.read('f')).equals(content));
    }),

    hsm('12c 12g 12h 12m', 'a released file is restored when somebody reads it', async (t, lab) => {
      await lab.stub('f', content);
      const reference = join(lab.container.mount.store, 'reference');
      await shell('cat > "$1"', [reference], { input: content });
      t.equal((await run('cmp', [reference, lab.at('f')])).code, 0);
      await rm(reference);
      t.equal(await lab.flags('f'), states.clean);
      await lab.released('f');
      const [one, other] = await Promise.all([lab.cat('f').ended, lab.cat('f').ended]);
      t.ok(one.stdoutBytes.equals(content) && other.stdoutBytes.equals(content), 'two at a time');
    }),

    hsm('1a', 'a mapping of a released file gets its pages', async (t, lab) => {
      await lab.stub('f', content);
      const application = lab.application();
      await application.do(
        'fd = os.open(args[0], os.O_RDONLY); m = mmap.mmap(fd, 0, prot=mmap.PROT_READ); os.close(fd)',
        lab.at('f'),
      );
      t.equal(await lab.flags('f'), states.stub, 'mapping alone restores nothing');
      const sums = 'sum(m[i] for i in range(0, len(m), 4096))';
      const expected = content.reduce((sum, byte, i) => (i % 4096 === 0 ? sum + byte : sum), 0);
      t.equal(await application.do(sums), expected);
      t.equal(await lab.flags('f'), states.clean);
    }),

    hsm('12d', 'what is not released needs no restore', async (t, lab) => {
      await lab.write('new', 'content');
      await lab.clean('clean', 'content');
      for (const name of ['new', 'clean']) {
        await lab.ok('hsm_restore', name);
        t.equal(await lab.action(name), 'NOOP');
        t.equal(lab.count('GET', name), 0);
      }
      t.same([await lab.flags('new'), await lab.flags('clean')], [states.new, states.clean]);
    }),

    hsm('12e', 'a dirty file is not restored', async (t, lab) => {
      await lab.clean('f', 'content');
      await shell('printf more >> "$1"', [lab.at('f')]);
      t.match(await lab.lfs('hsm_restore', 'f'), refused);
      t.equal(await lab.flags('f'), states.dirty);
      t.equal(await lab.text('f'), 'contentmore');
    }),

    hsm('12p', 'a file is released and read again and again', async (t, lab) => {
      await lab.clean('f', content);
      for (let i = 0; i < 3; i++) {
        t.ok((await lab.read('f')).equals(content));
        await lab.released('f');
      }
      t.equal(lab.count('GET', 'f'), 2);
    }),

    hsm('12r', 'SEEK_DATA and SEEK_HOLE restore, the other seeks do not', async (t, lab) => {
      await lab.stub('f', 'content of a file');
      const application = lab.application();
      await application.do('fd = os.open(args[0], os.O_RDONLY)', lab.at('f'));
      t.equal(await application.do('os.lseek(fd, 0, os.SEEK_END)'), 17);
      t.equal(await lab.flags('f'), states.stub);
      t.equal(await application.do('os.lseek(fd, 7, os.SEEK_DATA)'), 7);
      t.equal(await lab.flags('f'), states.clean);
      t.equal(await application.do('os.lseek(fd, 7, os.SEEK_HOLE)'), 17);
    }),

    hsm(
      '13',
      'a tree is imported, and restored file by file',
      async (t, lab) => {
        await shell('find "$1" -type f -exec "$2" hsm_restore {} \\;', [
          lab.path,
          join(lab.container.mount.path, '../lfs'),
        ]);
        for (const [name, text] of Object.entries(tree)) {
          await lab.untilFlags(name, states.clean);
          t.equal(await lab.text(name), text);
          t.equal(lab.count('GET', name), 1);
        }
      },
      { blobs: tree },
    ),

    hsm(
      '30a',
      'an imported program runs',
      async (t, lab) => {
        await chmod(lab.at('f'), 0o755);
        t.equal(await lab.flags('f'), states.stub);
        t.match(await run('sh', ['-c', 'exec "$1"', 'sh', lab.at('f')]), { code: 0, stdout: '', stderr: '' });
        t.equal(await lab.flags('f'), states.clean);
      },
      { blobs: { f: await program('true') } },
    ),

    hsm('30b', 'a released program runs', async (t, lab) => {
      await lab.stub('f', await program('true'));
      await chmod(lab.at('f'), 0o755);
      t.match(await run('sh', ['-c', 'exec "$1"', 'sh', lab.at('f')]), { code: 0, stdout: '', stderr: '' });
      t.equal(await lab.flags('f'), states.clean);
    }),

    hsm('30c', 'a released program that runs cannot be written to', async (t, lab) => {
      const bytes = await program('cat');
      await lab.stub('f', bytes);
      await chmod(lab.at('f'), 0o755);
      // By way of a shell: Node waits for the exec of its child, and the storage is served by this process.
      const running = spawn('sh', ['-c', 'exec "$1"', 'sh', lab.at('f')], {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: environment(),
      });
      const ended = once(running, 'exit');
      t.teardown(() => running.kill('SIGKILL'));
      // It has begun when it answers.
      running.stdin.write('x');
      await once(running.stdout, 'data');
      t.match(await run('sh', ['-c', 'echo Hi > "$1"', 'sh', lab.at('f')]), { stderr: /Text file busy/ });
      running.stdin.end();
      t.same(await ended, [0, null]);
      t.ok((await lab.read('f')).equals(bytes));
      t.equal(await lab.flags('f'), states.clean);
    }),

    hsm('24e', 'tar reads released files, sparse or not', async (t, lab) => {
      await lab.stub('f', content);
      const archived = await shell('tar -cf - -C "$1" . | tar -xOf - ./f | md5sum', [lab.path]);
      t.equal(archived, await shell('md5sum', [], { input: content }));
      t.equal(await lab.flags('f'), states.clean);
    }),

    hsm('24f', 'a file that went through tar --xattrs is a new one with its content', async (t, lab) => {
      await lab.stub('f', content);
      await shell(
        'cd "$1"; tar --xattrs --xattrs-include="*" -cf f.tar f 2>&1; rm f; tar --xattrs --xattrs-include="*" -xf f.tar 2>&1',
        [lab.path],
      ).then((said) => t.equal(said, ''));
      t.ok((await lab.read('f')).equals(content));
      t.equal(await lab.flags('f'), states.new);
      await lab.container.archived(lab.blobName('f'));
      await lab.released('f');
      t.ok((await lab.read('f')).equals(content));
    }),

    hsm('228', 'cp and tar that look for holes get the whole content', async (t, lab) => {
      const sparse = Buffer.concat([Buffer.alloc(MiB / 2), content.subarray(0, MiB / 2)]);
      for (const name of ['cp', 'tar']) await lab.stub(name, sparse);
      await shell('cd "$1"; cp --sparse=auto cp copied; mkdir to; tar cf - --sparse tar | tar xf - -C to', [
        lab.path,
      ]);
      t.ok((await lab.read('copied')).equals(sparse));
      t.ok((await lab.read('to/tar')).equals(sparse));
    }),

    hsm(
      '25a',
      'a lost file that was imported reads as ENODATA until it is found',
      async (t, lab) => {
        await lab.ok('hsm_set --lost', 'f');
        t.match(await run('cat', [lab.at('f')]), noData);
        t.match(await lab.lfs('hsm_restore', 'f'), refused);
        t.equal(await lab.flags('f'), 0x4d);
        t.equal(lab.count('GET', 'f'), 0);
        await lab.ok('hsm_clear --lost', 'f');
        t.equal(await lab.text('f'), 'content');
      },
      { blobs: { f: 'content' } },
    ),

    hsm('25b', 'a lost file that was released reads as ENODATA until it is found', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.ok('hsm_set --lost', 'f');
      t.match(await run('cat', [lab.at('f')]), noData);
      t.match(await lab.lfs('hsm_restore', 'f'), refused);
      t.match(await lab.lfs('hsm_release', 'f'), refused);
      t.equal(await lab.flags('f'), 0x4d);
      await lab.ok('hsm_clear --lost', 'f');
      t.equal(await lab.text('f'), 'content');
    }),

    hsm(
      '12o',
      'a restore that fails leaves the file released; the next read restores it',
      async (t, lab) => {
        lab.storage.inject({ method: 'GET', blob: lab.blobName('f') }, { kind: 'status', status: 403 });
        const fid = await lab.fid('f');
        t.match(await run('cat', [lab.at('f')]), noData);
        await lab.untilFinished(fid, 'RESTORE', 'FAILED');
        t.equal(await lab.flags('f'), states.stub);
        t.match(await stat(lab.at('f')), { size: content.length, blocks: 1 });
        lab.storage.clear();
        t.ok((await lab.cat('f').ended).stdoutBytes.equals(content));
        await lab.untilFinished(fid, 'RESTORE', 'SUCCEED');
      },
      { blobs: { f: content } },
    ),

    hsm(
      '111a',
      'a restore of an imported file whose blob is gone fails, until the blob is back',
      async (t, lab) => {
        await lab.deleteBlob('f');
        const fid = await lab.fid('f');
        await lab.ok('hsm_restore', 'f');
        await lab.untilFinished(fid, 'RESTORE', 'FAILED');
        t.equal(await lab.action('f'), 'NOOP');
        t.equal(await lab.flags('f'), states.stub);
        t.match(await run('cat', [lab.at('f')]), noData);
        await lab.put('f', 'content');
        t.equal(await lab.text('f'), 'content');
      },
      { blobs: { f: 'content' } },
    ),

    hsm('111b', 'so does that of a released one', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.deleteBlob('f');
      const fid = await lab.fid('f');
      t.match(await run('cat', [lab.at('f')]), noData);
      await lab.untilFinished(fid, 'RESTORE', 'FAILED');
      t.equal(await lab.flags('f'), states.stub);
      await lab.put('f', 'content');
      t.equal(await lab.text('f'), 'content');
    }),

    hsm('58', 'a truncate of a released file restores what stays, and makes it dirty', async (t, lab) => {
      const half = content.length >> 1;
      for (const [name, size] of [
        ['grown', 2 * content.length],
        ['cut', half],
        ['emptied', 0],
      ] as const) {
        await lab.stub(name, content);
        await truncate(lab, name, size);
        t.equal(await lab.flags(name), states.dirty, name);
        t.equal(await lab.size(name), size, name);
        const expected = Buffer.alloc(size);
        content.copy(expected);
        t.ok((await lab.read(name)).equals(expected), name);
      }
      t.equal(lab.count('GET', 'cut'), 1);
      t.equal(lab.count('GET', 'emptied'), 0, 'nothing of it stays (SEMANTICS.md)');
      await lab.stub('reopened', content);
      const handle = await open(lab.at('reopened'), 'w');
      await handle.close();
      t.equal(await lab.flags('reopened'), states.dirty);
      t.equal(await lab.size('reopened'), 0);
    }),

    hsm('3.6', 'opening restores nothing, writing keeps what it does not replace', async (t, lab) => {
      await lab.stub('f', content);
      const application = lab.application();
      await application.do('fd = os.open(args[0], os.O_RDONLY)', lab.at('f'));
      t.equal(await application.do('len(os.read(fd, 0))'), 0);
      await application.do('os.fsync(fd); os.close(fd)');
      t.equal(await lab.flags('f'), states.stub);
      await shell('printf NEW | dd of="$1" bs=1 seek=5 conv=notrunc status=none', [lab.at('f')]);
      t.equal(await lab.flags('f'), states.dirty);
      const expected = Buffer.from(content);
      expected.write('NEW', 5);
      t.ok((await lab.read('f')).equals(expected));
    }),

    hsm('3.6f', 'room and holes restore first, and make the file dirty', async (t, lab) => {
      for (const [name, options, becomes] of [
        [
          'punched',
          '-p -o 5 -l 10',
          Buffer.concat([content.subarray(0, 5), Buffer.alloc(10), content.subarray(15)]),
        ],
        ['longer', `-l ${content.length + 100}`, Buffer.concat([content, Buffer.alloc(100)])],
      ] as const) {
        await lab.stub(name, content);
        await ok('fallocate', [...options.split(' '), lab.at(name)]);
        t.equal(await lab.flags(name), states.dirty, name);
        t.ok((await lab.read(name)).equals(becomes), name);
        t.equal(lab.count('GET', name), 1, name);
      }
    }),

    hsm('3.6z', 'a read of an empty file has nothing to wait for', async (t, lab) => {
      await lab.stub('f', '');
      t.equal(await lab.text('f'), '');
      t.equal(await lab.flags('f'), states.stub);
      t.equal(lab.count('GET', 'f'), 0);
    }),

    hsm(
      '3.6n',
      'with O_NONBLOCK an open for writing waits for nothing, the first write does',
      async (t, lab) => {
        await lab.stub('f', 'content');
        await ok('touch', [lab.at('f')]);
        await lab.ok('hsm_set --norelease', 'f');
        await lab.ok('hsm_clear --norelease', 'f');
        t.equal(await lab.flags('f'), states.stub);
        const application = lab.application();
        await application.do('fd = os.open(args[0], os.O_RDWR | os.O_NONBLOCK)', lab.at('f'));
        t.equal(await lab.flags('f'), states.stub);
        t.equal(lab.count('GET', 'f'), 0);
        const open = lab.hold('GET', 'f');
        const writing = application.do('os.pwrite(fd, b"C", 0)');
        await lab.arrived('GET', 'f');
        open();
        t.equal(await writing, 1);
        t.equal(await application.do('os.pwrite(fd, b"T", 6)'), 1);
        await application.do('os.close(fd)');
        t.equal(await lab.text('f'), 'ContenT');
        t.equal(await lab.flags('f'), states.dirty);
      },
    ),

    hsm('3.7', 'a blob of another size gives the file that size', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.put('f', 'much longer content');
      await lab.ok('hsm_restore', 'f');
      await lab.untilFlags('f', states.clean);
      t.equal(await lab.size('f'), 19);
      t.equal(await lab.text('f'), 'much longer content');
    }),
  ],
};

/** By name, as truncate(2); Node's opens the file for writing first. */
function truncate(lab: Lab, name: string, size: number): Promise<string> {
  return ok('python3', [
    '-c',
    'import os, sys; os.truncate(sys.argv[1], int(sys.argv[2]))',
    lab.at(name),
    String(size),
  ]);
}

async function program(name: string): Promise<Buffer> {
  const { stdoutBytes } = await run('cat', [(await ok('which', [name])).trim()]);
  return stdoutBytes;
}
