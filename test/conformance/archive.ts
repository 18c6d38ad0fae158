/** hsm_archive: what goes into the container, and what a file that changes meanwhile becomes. */
import { rm, stat } from 'node:fs/promises';
import { HS, lfsPath, states } from '../helpers/lfs.js';
import { download } from '../helpers/copytool.js';
import { ok, shell } from '../helpers/run.js';
import { until } from '../helpers/poll.js';
import { hsm, type Theme } from './theme.js';

const MiB = 2 ** 20;
/** EXISTS while a new file is archived. */
const archiving = HS.EXISTS;
const failed = HS.EXISTS | HS.DIRTY;
const refused = { code: 1, stderr: /Operation not permitted/ };

export const archive: Theme = {
  cases: [
    hsm('8 10d', 'without a number a file goes to the default archive', async (t, lab) => {
      await lab.clean('f', 'content');
      t.equal(await lab.state('f'), '(0x00000009) exists archived, archive_id:1');
    }),

    hsm('9A', 'with a number a file belongs to that archive, and to no other after', async (t, lab) => {
      await lab.write('f', 'content');
      await lab.ok('hsm_archive --archive 3', 'f');
      await lab.untilFlags('f', states.clean);
      t.equal(await lab.state('f'), '(0x00000009) exists archived, archive_id:3');
      await shell('printf more >> "$1"', [lab.at('f')]);
      t.match(await lab.lfs('hsm_archive --archive 4', 'f'), refused);
      await lab.ok('hsm_archive', 'f');
      await lab.untilFlags('f', states.clean);
      t.equal(await lab.state('f'), '(0x00000009) exists archived, archive_id:3');
      t.match(await lab.lfs('hsm_restore -a 3', 'f'), {
        code: 4,
        stderr: /-a is supported only when archiving or removing/,
      });
    }),

    hsm('10a', 'the container has the content, and the file stays as it was', async (t, lab) => {
      const content = Buffer.alloc(300_000, 'content ');
      await lab.write('f', content);
      const shown = async (): Promise<unknown> => {
        const { size, blocks, mtimeNs, ctimeNs } = await stat(lab.at('f'), { bigint: true });
        return { size, blocks, mtimeNs, ctimeNs };
      };
      await shell('chown 7:8 "$1"; chmod 640 "$1"; touch -d @978261179 "$1"', [lab.at('f')]);
      const before = await shown();
      await lab.ok('hsm_archive', 'f');
      await lab.untilFlags('f', states.clean);
      t.same(await shown(), before);
      const { body, metadata } = await download(lab.container.container, lab.blobName('f'));
      t.ok(body.equals(content));
      t.match(metadata, {
        owner: '7',
        group: '8',
        permissions: '0640',
        modtime: '2000-12-31 11:12:59 +0000',
      });
      t.ok((await lab.read('f')).equals(content));
    }),

    hsm('10b', 'a file that is archived already needs no request', async (t, lab) => {
      await lab.clean('f', 'content');
      const { etag } = await lab.container.container.getBlobClient(lab.blobName('f')).getProperties();
      lab.storage.clearLog();
      await lab.ok('hsm_archive', 'f');
      await lab.ok('hsm_archive --archive 9', 'f');
      t.equal(await lab.action('f'), 'NOOP');
      await lab.released('f');
      await lab.ok('hsm_archive', 'f');
      t.equal(await lab.action('f'), 'NOOP');
      t.equal(lab.count('PUT', 'f'), 0);
      const after = await lab.container.container.getBlobClient(lab.blobName('f')).getProperties();
      t.equal(after.etag, etag);
    }),

    hsm('10c', 'a file that is marked never_archive is refused', async (t, lab) => {
      await lab.write('f', 'content');
      await lab.ok('hsm_set --noarchive', 'f');
      t.match(await lab.lfs('hsm_archive', 'f'), refused);
      t.equal(await lab.state('f'), '(0x00000020) never_archive');
      t.notOk(await lab.hasBlob('f'));
      await lab.ok('hsm_clear --noarchive', 'f');
      await lab.container.archived(lab.blobName('f'));
    }),

    hsm('37', 'a dirty file is archived again, with what it has now', async (t, lab) => {
      await lab.stub('f', 'content');
      t.equal(await lab.text('f'), 'content');
      await shell('printf more >> "$1"', [lab.at('f')]);
      t.equal(await lab.flags('f'), states.dirty);
      await lab.container.archived(lab.blobName('f'));
      t.equal((await lab.blob('f')).toString(), 'contentmore');
      await lab.released('f');
      t.equal(await lab.text('f'), 'contentmore');
    }),

    hsm('40', '100 files by 4 scripts at a time are all archived', async (t, lab) => {
      await shell(
        `cd "$1"
         for p in 1 2 3 4; do for i in $(seq 25); do echo $p.$i > $p.$i; done; done
         for p in 1 2 3 4; do (for i in $(seq 25); do "$2" hsm_archive $p.$i || echo failed; done) & done
         wait`,
        [lab.path, lfsPath],
      ).then((said) => t.equal(said, ''));
      const names = [1, 2, 3, 4].flatMap((p) => Array.from({ length: 25 }, (_, i) => `${p}.${i + 1}`));
      await until(
        async () => {
          const { stdout } = await lab.lfs('hsm_state', ...names);
          return stdout.split(': (0x00000009) exists archived, archive_id:1\n').length === names.length + 1;
        },
        { what: 'all to be archived' },
      );
      for (const name of names) t.equal(lab.count('PUT', name), 1);
      t.equal((await lab.blob('3.14')).toString(), '3.14\n');
    }),

    hsm('54', 'a write while a file is archived ends the archive, and the file is dirty', async (t, lab) => {
      await lab.write('f', Buffer.alloc(MiB / 2));
      const open = lab.hold('PUT', 'f');
      await lab.container.uploading(lab.blobName('f'));
      t.equal(await lab.flags('f'), archiving);
      const fid = await lab.fid('f');
      await shell('echo foo >> "$1"', [lab.at('f')]);
      open();
      await lab.untilFinished(fid, 'ARCHIVE', 'FAILED');
      t.equal(await lab.flags('f'), failed);
      await lab.container.archived(lab.blobName('f'));
      t.equal((await lab.blob('f')).subarray(-4).toString(), 'foo\n');
    }),

    hsm('55', 'so does a truncate', async (t, lab) => {
      await lab.write('f', Buffer.alloc(MiB / 2));
      const open = lab.hold('PUT', 'f');
      await lab.container.uploading(lab.blobName('f'));
      t.equal(await lab.flags('f'), archiving);
      const fid = await lab.fid('f');
      await ok('truncate', ['-s', '1024', lab.at('f')]);
      open();
      await lab.untilFinished(fid, 'ARCHIVE', 'FAILED');
      t.equal(await lab.flags('f'), failed);
      t.match(await lab.lfs('hsm_release', 'f'), refused);
    }),

    hsm('56', 'another mode and group do not disturb an archive', async (t, lab) => {
      await lab.write('f', Buffer.alloc(MiB / 2));
      const open = lab.hold('PUT', 'f');
      await lab.container.uploading(lab.blobName('f'));
      const fid = await lab.fid('f');
      await shell('chmod 0600 "$1"; chgrp 7 "$1"', [lab.at('f')]);
      open();
      await lab.untilFinished(fid, 'ARCHIVE', 'SUCCEED');
      t.equal(await lab.flags('f'), states.clean);
    }),

    hsm('3.5', 'nor do hsm_set and hsm_clear, which write nothing', async (t, lab) => {
      await lab.write('f', Buffer.alloc(MiB / 2));
      const open = lab.hold('PUT', 'f');
      await lab.container.uploading(lab.blobName('f'));
      const fid = await lab.fid('f');
      await lab.ok('hsm_set --norelease --noarchive', 'f');
      await lab.ok('hsm_clear --noarchive', 'f');
      open();
      await lab.untilFinished(fid, 'ARCHIVE', 'SUCCEED');
      t.equal(await lab.flags('f'), states.clean | HS.NORELEASE);
    }),

    hsm('57', 'what another process has written and not synced is archived', async (t, lab) => {
      const writer = lab.application();
      await lab.write('f', 'before');
      await writer.do(
        'fd = os.open(args[0], os.O_RDWR); os.pwrite(fd, b"after!", 0); os.close(fd)',
        lab.at('f'),
      );
      await lab.container.archived(lab.blobName('f'));
      t.equal((await lab.blob('f')).toString(), 'after!');
      await lab.released('f');
      t.equal(await lab.text('f'), 'after!');
    }),

    hsm('59', 'a file that was never written and has a size is archived and released', async (t, lab) => {
      await lab.write('f', '');
      await ok('truncate', ['-s', '42', lab.at('f')]);
      await lab.container.archived(lab.blobName('f'));
      await lab.released('f');
      t.equal(await lab.size('f'), 42);
      t.ok((await lab.read('f')).equals(Buffer.alloc(42)));
    }),

    hsm('60', 'hsm_action shows how much has been moved', async (t, lab) => {
      await lab.write('f', Buffer.alloc(3 * MiB));
      const open = lab.hold('PUT', 'f', { skip: 2 });
      await lab.container.uploading(lab.blobName('f'));
      await lab.arrived('PUT', 'f', 3);
      await lab.untilAction('f', /^ARCHIVE running \(2097152 bytes moved\)$/);
      open();
      await lab.untilFlags('f', states.clean);
      await lab.idle('f');
    }),

    hsm('61', 'an archive that waits fails when the file is removed', async (t, lab) => {
      for (const name of ['blocker', 'f']) await lab.write(name, name);
      const open = lab.hold('PUT', /^61\//);
      await lab.container.uploading(lab.blobName('blocker'));
      const fid = await lab.fid('f');
      await lab.ok('hsm_archive', 'f');
      t.equal(await lab.action('f'), 'ARCHIVE waiting (from 0 to EOF)');
      await rm(lab.at('f'));
      open();
      await lab.untilFinished(fid, 'ARCHIVE', 'FAILED');
      t.notOk(await lab.hasBlob('f'));
      await lab.untilFlags('blocker', states.clean);
    }),

    hsm('50', 'hundreds of archives whose files are gone end, and leave no blob', async (t, lab) => {
      await lab.write('blocker', 'blocker');
      const open = lab.hold('PUT', /^50\//);
      await lab.container.uploading(lab.blobName('blocker'));
      await shell(
        `cd "$1"; mkdir many; for i in $(seq 500); do : > many/$i; done
         find many -type f | xargs -n 50 "$2" hsm_archive`,
        [lab.path, lfsPath],
      );
      const waiting = async (): Promise<number> => {
        const { waiting } = (await lab.container.mount.status())?.hsm as {
          readonly waiting: { readonly archive: number };
        };
        return waiting.archive;
      };
      t.equal(await waiting(), 500);
      await rm(lab.at('many'), { recursive: true });
      open();
      await until(async () => (await waiting()) === 0, { what: 'the queue to be empty' });
      await lab.clean('after', 'after');
      t.equal(lab.storage.count({ method: 'PUT', blob: /^50\/many/ }), 0);
    }),

    hsm('3.1', 'a second archive while one runs does no harm', async (t, lab) => {
      await lab.write('f', 'content');
      const open = lab.hold('PUT', 'f');
      await lab.container.uploading(lab.blobName('f'));
      await lab.ok('hsm_archive', 'f');
      t.match(await lab.action('f'), /^ARCHIVE running/);
      open();
      await lab.idle('f');
      t.equal(await lab.flags('f'), states.clean);
      t.equal((await lab.blob('f')).toString(), 'content');
    }),

    hsm(
      '3.4',
      'an archive that a writer has open stays undone, and the file is never clean',
      async (t, lab) => {
        const writer = lab.application();
        await lab.write('f', 'content');
        await writer.do('fd = os.open(args[0], os.O_RDWR)', lab.at('f'));
        const fid = await lab.fid('f');
        await lab.ok('hsm_archive', 'f');
        await lab.untilFinished(fid, 'ARCHIVE', 'FAILED');
        await writer.do('os.pwrite(fd, b"C", 0)');
        t.notMatch(await lab.state('f'), 'archived');
        t.match(await lab.lfs('hsm_release', 'f'), refused);
        await writer.do('os.close(fd)');
        await lab.container.archived(lab.blobName('f'));
        t.equal((await lab.blob('f')).toString(), 'Content');
      },
    ),
  ],
};
