/** What the changelog says of the requests, states and names of files. */
import { link, rename, rm } from 'node:fs/promises';
import { states } from '../helpers/lfs.js';
import { shell } from '../helpers/run.js';
import type { Lab } from './lab.js';
import { hsm, type Theme } from './theme.js';

const forbidden = { kind: 'status', status: 403, code: 'AuthorizationPermissionMismatch' } as const;
const missing = { kind: 'status', status: 404, code: 'ContainerNotFound' } as const;
/** What an archive of a new file says first: exists, then archived. */
const exists = 'HSM 0x280';
const archived = 'HSM 0x280';

/** What is said of the released file `f` when its restore is canceled. */
async function canceledRestore(lab: Lab): Promise<readonly string[]> {
  const fid = await lab.fid('f');
  const says = await lab.changelog();
  lab.hold('GET', 'f');
  await lab.ok('hsm_restore', 'f');
  await lab.arrived('GET', 'f');
  await lab.ok('hsm_cancel', 'f');
  await lab.untilFinished(fid, 'RESTORE', 'CANCELED');
  return says(fid);
}

export const changelog: Theme = {
  cases: [
    hsm('220A', 'an archive', async (t, lab) => {
      await lab.write('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.container.archived(lab.blobName('f'));
      t.same(await says(fid), [exists, archived, 'HSM 0x0']);
    }),

    hsm('220a', 'an archive that failed, and why', async (t, lab) => {
      await lab.write('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      lab.storage.inject({ method: 'PUT', blob: lab.blobName('f') }, missing);
      await lab.container.archive(lab.blobName('f'));
      t.same(await says(fid), [exists, 'HSM 0x2']);
      lab.storage.clear();
      lab.storage.inject({ method: 'PUT', blob: lab.blobName('f') }, forbidden);
      await lab.container.archive(lab.blobName('f'));
      t.same(await says(fid), [exists, 'HSM 0x2', 'HSM 0xd']);
    }),

    hsm('221', 'an archive that is canceled', async (t, lab) => {
      await lab.write('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      lab.hold('PUT', 'f');
      await lab.container.uploading(lab.blobName('f'));
      await lab.ok('hsm_cancel', 'f');
      await lab.untilFinished(fid, 'ARCHIVE', 'CANCELED');
      t.same(await says(fid), [exists, 'HSM 0x7d']);
    }),

    hsm(
      '6.1',
      'an archive of a file that is written meanwhile is busy, and the file dirty',
      async (t, lab) => {
        await lab.write('f', 'content');
        const fid = await lab.fid('f');
        const says = await lab.changelog();
        const open = lab.hold('PUT', 'f');
        await lab.container.uploading(lab.blobName('f'));
        await shell('printf more >> "$1"', [lab.at('f')]);
        open();
        await lab.untilFinished(fid, 'ARCHIVE', 'FAILED');
        await lab.untilFlags('f', 0x3);
        const said = await says(fid);
        t.equal(said[0], exists);
        t.same([...said.slice(1)].sort(), ['HSM 0x410', 'HSM 0x680'], 'whichever the daemon sees first');
      },
    ),

    hsm('222a', 'a restore that was asked for', async (t, lab) => {
      await lab.stub('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.ok('hsm_restore', 'f');
      await lab.untilFlags('f', states.clean);
      t.same(await says(fid), ['HSM 0x80']);
    }),

    hsm('222b', 'a restore for a reader, who finds it there', async (t, lab) => {
      await lab.stub('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      t.match(await lab.cat('f').ended, { code: 0, stdout: 'content' });
      t.same(await says(fid), ['HSM 0x80']);
    }),

    hsm('222c', 'a restore without a copy', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.deleteBlob('f');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.ok('hsm_restore', 'f');
      await lab.untilFinished(fid, 'RESTORE', 'FAILED');
      t.same(await says(fid), ['HSM 0x82']);
    }),

    hsm('3.7u', 'a restore of a file that is deleted before its turn', async (t, lab) => {
      await lab.stub('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.set('hsm_control=disabled');
      await lab.ok('hsm_restore', 'f');
      await rm(lab.at('f'));
      await lab.set('hsm_control=enabled');
      await lab.untilFinished(fid, 'RESTORE', 'FAILED');
      t.equal((await says(fid)).at(-1), 'HSM 0x82');
    }),

    hsm('222d', 'the same for a reader', async (t, lab) => {
      await lab.stub('f', 'content');
      await lab.deleteBlob('f');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      t.match(await lab.cat('f').ended, { code: 1, stderr: /No data available/ });
      await lab.untilFinished(fid, 'RESTORE', 'FAILED');
      t.match(await says(fid), ['HSM 0x82']);
    }),

    hsm(
      '223a',
      'a restore of an imported file that is canceled',
      async (t, lab) => {
        t.same(await canceledRestore(lab), ['HSM 0xfd']);
      },
      { blobs: { f: 'content' } },
    ),

    hsm('223b', 'a restore of a released file that is canceled', async (t, lab) => {
      await lab.stub('f', 'content');
      t.same(await canceledRestore(lab), ['HSM 0xfd']);
    }),

    hsm('224A', 'a remove, and the states on the way', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.ok('hsm_remove', 'f');
      await lab.untilFlags('f', states.new);
      await lab.idle('f');
      t.same(await says(fid), ['HSM 0x280', 'HSM 0x280', 'HSM 0x200']);
    }),

    hsm('224a', 'a remove that failed, and why', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      lab.storage.inject({ method: 'DELETE', blob: lab.blobName('f') }, forbidden);
      await lab.ok('hsm_remove', 'f');
      await lab.untilFinished(fid, 'REMOVE', 'FAILED');
      t.same(await says(fid), ['HSM 0x280', 'HSM 0x20d']);
    }),

    hsm('3.2', 'a remove whose blob is gone already has nothing left to do', async (t, lab) => {
      await lab.clean('f', 'content');
      await lab.deleteBlob('f');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.ok('hsm_remove', 'f');
      await lab.untilFinished(fid, 'REMOVE', 'SUCCEED');
      t.equal(await lab.flags('f'), states.new);
      t.match((await says(fid)).at(-1), 'HSM 0x200');
    }),

    hsm('226', 'a last name that goes, and whether a copy is left', async (t, lab) => {
      for (const name of ['removed', 'replaced']) await lab.clean(name, name);
      for (const name of ['new', 'newer']) await lab.write(name, name);
      const [removed, replaced, fresh, newer] = await Promise.all(
        ['removed', 'replaced', 'new', 'newer'].map((name) => lab.fid(name)),
      );
      const says = await lab.changelog();
      await link(lab.at('removed'), lab.at('other'));
      await rm(lab.at('other'));
      await rm(lab.at('removed'));
      t.same(await says(removed ?? ''), ['UNLNK 0x0', 'UNLNK 0x3']);
      await rename(lab.at('new'), lab.at('replaced'));
      t.same(await says(replaced ?? ''), ['RENME 0x3']);
      await rename(lab.at('newer'), lab.at('replaced'));
      t.same(await says(fresh ?? ''), ['RENME 0x1']);
      await rename(lab.at('replaced'), lab.at('last'));
      await rm(lab.at('last'));
      t.same(await says(newer ?? ''), ['UNLNK 0x1']);
      const lines = (await lab.changelogLines()).slice(-2);
      t.match(lines[0], / 08RENME .* 0x0 t=\[0:0x0:0x0\] p=\[\S+\] last s=\[\S+\] sp=\[\S+\] replaced$/);
      t.ok(lines[0]?.includes(` s=${newer ?? ''} `));
      t.match(lines[1], / 06UNLNK .* 0x1 t=\[\S+\] p=\[\S+\] last$/);
    }),

    hsm('227', 'each change of a flag, once', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      const expected: string[] = [];
      for (const flag of ['norelease', 'noarchive', 'dirty', 'lost']) {
        await lab.ok(`hsm_set --${flag}`, 'f');
        expected.push(flag === 'dirty' ? 'HSM 0x680' : 'HSM 0x280');
        t.same(await says(fid), expected, `set ${flag}`);
        await lab.ok(`hsm_set --${flag}`, 'f');
        t.same(await says(fid), expected, `${flag} again changes nothing`);
        await lab.ok(`hsm_clear --${flag}`, 'f');
        expected.push('HSM 0x280');
        t.same(await says(fid), expected, `clear ${flag}`);
      }
    }),

    hsm('6.2', 'a release, and what is written after it', async (t, lab) => {
      await lab.clean('f', 'content');
      const fid = await lab.fid('f');
      const says = await lab.changelog();
      await lab.released('f');
      t.same(await says(fid), ['HSM 0x180']);
      await shell('printf more >> "$1"', [lab.at('f')]);
      t.equal(await lab.flags('f'), 0xb);
      t.same(await says(fid), ['HSM 0x180', 'HSM 0x80', 'HSM 0x680']);
    }),
  ],
};
