/** What a blob keeps when the mount's version of it is exported over it. */
import {
  appendFile,
  lstat,
  mkdir,
  readFile,
  rename,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import t, { type Test } from 'tap';
import { MountedContainer } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';

const headers = {
  contentType: 'text/x-test',
  contentEncoding: 'gzip',
  contentLanguage: 'de',
  contentDisposition: 'attachment',
  cacheControl: 'no-cache',
};
const none = {
  contentType: 'application/octet-stream',
  contentEncoding: undefined,
  contentLanguage: undefined,
  contentDisposition: undefined,
  cacheControl: undefined,
};
/** Of somebody's program, and of the dialects of attributes. */
const theirs = { project: 'x', _y1: 'z' };
const attributes = { posix_owner: '7', hdi_permission: '{}', uid: '9', linux_btime: '1' };

interface Row {
  readonly what: string;
  readonly body?: string | Buffer;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly edit: (path: string) => Promise<void>;
  /** What was there is something else than what is written. */
  readonly other?: true;
}

const rows: readonly Row[] = [
  { what: 'appended', edit: (path) => appendFile(path, 'more') },
  { what: 'emptied', edit: (path) => truncate(path, 0) },
  { what: 'in blocks', body: Buffer.alloc(200_000, 'x'), edit: (path) => appendFile(path, 'more') },
  {
    what: 'replaced as editors do',
    async edit(path) {
      await writeFile(`${path}~`, 'new');
      await rename(`${path}~`, path);
    },
  },
  {
    what: 'directory',
    body: '',
    metadata: { hdi_isfolder: 'true' },
    edit: (path) => writeFile(`${path}/new`, 'x'),
  },
  {
    what: 'symlink',
    body: 'target',
    metadata: { is_symlink: 'true' },
    async edit(path) {
      await unlink(path);
      await symlink('other', path);
    },
  },
  {
    what: 'file that was a symlink',
    body: 'target',
    metadata: { is_symlink: 'true' },
    async edit(path) {
      await unlink(path);
      await writeFile(path, 'a file');
    },
    other: true,
  },
  {
    what: 'directory that was an empty file',
    body: '',
    async edit(path) {
      await unlink(path);
      await mkdir(path);
      await writeFile(`${path}/in`, 'x');
    },
    other: true,
  },
];

t.test('a blob that is written again', { skip: cannotMount }, async (t) => {
  for (const strict of [false, true]) {
    const env = { LUSTRITE_COMPAT_STRICT: String(strict), LUSTRITE_TRANSFER_BLOCK_BYTES: '65536' };
    const lab = await MountedContainer.start(t, { plain: 'of the tier of its account' }, { env });
    for (const { what, body = 'content', metadata = {} } of rows) {
      await lab.container.getBlockBlobClient(what).upload(body, body.length, {
        blobHTTPHeaders: {
          blobContentType: headers.contentType,
          blobContentEncoding: headers.contentEncoding,
          blobContentLanguage: headers.contentLanguage,
          blobContentDisposition: headers.contentDisposition,
          blobCacheControl: headers.cacheControl,
        },
        metadata: { ...theirs, ...attributes, ...metadata },
        tier: 'Cool',
      });
    }
    t.equal(await lab.import(), 'Completed');
    t.equal(
      await readFile(lab.at('appended'), 'utf8'),
      'content',
      'bytes as they are, whatever their encoding',
    );
    await appendFile(lab.at('plain'), '!');
    for (const { what, edit } of rows) await edit(lab.at(what));
    t.equal(await lab.export(''), 'Completed');
    for (const { what, other } of rows) {
      const kept = !strict && other !== true;
      const found = await lab.container.getBlobClient(what).getProperties();
      const title = `${what}${strict ? ', compat.strict' : ''}`;
      t.match(found, kept ? { ...headers, accessTier: 'Cool' } : { ...none, accessTier: 'Hot' }, title);
      const { metadata = {} } = found;
      for (const [key, value] of Object.entries(theirs))
        t.equal(metadata[key], kept ? value : undefined, key);
      for (const key of Object.keys(attributes)) t.notOk(key in metadata, `${title}: ${key} is not left`);
      t.equal(metadata['owner'], String((await lstat(lab.at(what))).uid), title);
    }
    const plain = await lab.container.getBlobClient('plain').getProperties();
    t.equal(plain.accessTierInferred, true, 'no tier was chosen for it');
    await t.test(`a renamed stub${strict ? ', compat.strict' : ''}`, (t) => renamed(t, lab, strict));
  }
});

/** Production looks for its blob at the new path. */
async function renamed(t: Test, lab: MountedContainer, strict: boolean): Promise<void> {
  const moved = lab.at('moved');
  t.equal(await lab.lfs('hsm_release', 'plain'), 0);
  await rename(lab.at('plain'), moved);
  if (strict) {
    await t.rejects(readFile(moved), { code: 'ENODATA' });
    await lab.container.getBlockBlobClient('moved').upload('what is there', 13);
  }
  const whole = strict ? 'what is there' : 'of the tier of its account!';
  t.equal(await readFile(moved, 'utf8'), whole);
  t.equal((await lstat(moved)).size, whole.length);
}
