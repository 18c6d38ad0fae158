import t from 'tap';
import { accountKindOf, accountPosixOf, type AccountAttributes } from '../../src/blob/account-attributes.js';
import { compareListed, isListedBehind, isUnderPrefix } from '../../src/blob/listing-order.js';
import type { PosixAttributes } from '../../src/blob/port.js';
import { posixAclsOf } from '../../src/blob/posix-acl.js';
import { aclText } from '../helpers/acl.js';

const objectId = '5d0c4b1f-8d47-4a3c-9d0e-0f1c2b3a4d5e';

const permissions: readonly (readonly [text: string, mode: number | undefined])[] = [
  ['---------', 0],
  ['rwxrwxrwx', 0o777],
  ['rw-r-----', 0o640],
  ['rwxr-x---', 0o750],
  ['r--------', 0o400],
  ['-w-------', 0o200],
  ['--x------', 0o100],
  ['---r-----', 0o040],
  ['----w----', 0o020],
  ['-----x---', 0o010],
  ['------r--', 0o004],
  ['-------w-', 0o002],
  ['--------x', 0o001],
  ['rwxrwxrwt', 0o1777],
  ['rwxrwxrwT', 0o1776],
  ['rwxr-x--T', 0o1750],
  ['rw-rw----+', 0o660],
  ['rwxr-x--t+', 0o1751],
  ['', undefined],
  ['rwx', undefined],
  ['0750', undefined],
  ['rwxr-x--q', undefined],
];

t.test('permissions of the account are modes, with the sticky bit and without the mark of an ACL', (t) => {
  for (const [text, mode] of permissions) {
    t.same(accountPosixOf({ permissions: text }, {}, false), mode === undefined ? {} : { mode }, `'${text}'`);
  }
  t.end();
});

const acls: readonly (readonly [
  text: string,
  access: string | null,
  inherited: string | null,
  mode: number | undefined,
  unmapped?: string,
])[] = [
  ['user::rwx,group::r-x,other::---', null, null, undefined],
  ['user::rw-,group::r--,mask::r--,other::---', 'u=6 g=4 m=4 o=0', null, 0o640],
  [
    'user::rwx,user:1000:r-x,user:7:rw-,group::r-x,group:100:--x,mask::rwx,other::--t',
    'u=7 u7=6 u1000=5 g=5 g100=1 m=7 o=1',
    null,
    0o771,
  ],
  ['user::rwx,user:$superuser:rwx,group::---,mask::rwx,other::---', 'u=7 u0=7 g=0 m=7 o=0', null, 0o770],
  [
    `user::rwx,user:${objectId}:rwx,group::r-x,mask::rwx,other::---`,
    'u=7 g=5 m=7 o=0',
    null,
    0o770,
    `user:${objectId}:rwx`,
  ],
  [
    'user::rwx,group::r-x,other::---,default:user::rwx,default:user:5:r-x,default:group::---,default:mask::r-x,default:other::---',
    null,
    'u=7 u5=5 g=0 m=5 o=0',
    undefined,
  ],
  ...[
    'user::rwx,group::r-x',
    'user::rwx,user::rwx,group::r-x,other::---',
    'user::rwx,user:5:r-x,group::r-x,other::---',
    'user::rwx,group::r-x,other::---,default:user::rwx',
    'user::rwx,group::r-x,other:5:---',
    'user::7,group::5,other::0',
    'user:4294967295:rwx',
    'nonsense',
  ].map((text) => [text, null, null, undefined, text] as const),
];

t.test('ACLs of the account are those of Linux, but for entries of names and texts that are none', (t) => {
  for (const [text, access, inherited, mode, unmapped] of acls) {
    const found = posixAclsOf(text);
    t.same([aclText(found.access), aclText(found.default)], [access, inherited], text);
    t.same([found.mode, found.unmapped], [mode, unmapped], text);
  }
  t.end();
});

t.test('an access ACL belongs to the permissions of the account and has its say in them', (t) => {
  const acl = 'user::rw-,user:5:rwx,group::r--,mask::r-x,other::---';
  const account = { permissions: 'rwxrwx--T+', acl };
  const read = accountPosixOf(account, {}, false);
  t.equal(read.mode, 0o1650);
  t.equal(aclText(read.acls?.access ?? null), 'u=6 u5=7 g=4 m=5 o=0');
  t.same(accountPosixOf(account, { permissions: '0700' }, false), {
    mode: 0o700,
    acls: { access: null, default: null },
  });
  t.end();
});

const owners: readonly (readonly [
  title: string,
  account: AccountAttributes,
  metadata: Readonly<Record<string, string>>,
  expected: PosixAttributes,
])[] = [
  ['a flat account', {}, {}, {}],
  ['numbers', { owner: '1000', group: '100' }, {}, { uid: 1000, gid: 100 }],
  ['the account itself is root', { owner: '$superuser', group: '$superuser' }, {}, { uid: 0, gid: 0 }],
  ['an object id', { owner: objectId, group: '100' }, {}, { gid: 100, unmapped: objectId }],
  ['two names: the first is told', { owner: 'a@b.c', group: objectId }, {}, { unmapped: 'a@b.c' }],
  ['no name', { owner: '', group: '' }, {}, {}],
  ['the number that chown does not take', { owner: '4294967295' }, {}, { unmapped: '4294967295' }],
  ['a negative number', { owner: '-1' }, {}, { unmapped: '-1' }],
  [
    'metadata goes before the account, key by key',
    { owner: objectId, group: '100', permissions: 'rw-r-----' },
    { owner: '5', permissions: '0755', modtime: '5000000000' },
    { uid: 5, gid: 100, mode: 0o755, mtimeNs: 5_000_000_000n },
  ],
  [
    'a name in the metadata says nothing, so the account does',
    { owner: '7', group: '8' },
    { owner: 'hive', group: '$superuser' },
    { uid: 7, gid: 8 },
  ],
];

t.test('owners of the account are ids where they are numbers, and are named where they are not', (t) => {
  for (const [title, account, metadata, expected] of owners)
    t.same(accountPosixOf(account, metadata, false), expected, title);
  t.end();
});

t.test('what the account says can go before metadata, which then counts where the account is silent', (t) => {
  const metadata = { owner: '5', group: '6', permissions: '0755', modtime: '5000000000' };
  const rows: readonly (readonly [AccountAttributes, PosixAttributes])[] = [
    [{}, { uid: 5, gid: 6, mode: 0o755, mtimeNs: 5_000_000_000n }],
    [
      { owner: '$superuser', group: '100', permissions: 'rw-r-----' },
      { uid: 0, gid: 100, mode: 0o640, mtimeNs: 5_000_000_000n },
    ],
    [{ owner: objectId }, { gid: 6, mode: 0o755, mtimeNs: 5_000_000_000n, unmapped: objectId }],
  ];
  for (const [account, expected] of rows)
    t.same(accountPosixOf(account, metadata, true), expected, JSON.stringify(account));
  t.end();
});

t.test('a directory is what the account calls one, or what metadata does', (t) => {
  const kinds = [
    [{ resourceType: 'directory' }, {}, 0, 'directory'],
    [{ resourceType: 'directory' }, { hdi_isfolder: 'true' }, 0, 'directory'],
    [{ resourceType: 'file' }, {}, 0, 'file'],
    [{ resourceType: 'file' }, { is_symlink: 'true' }, 4, 'symlink'],
    [{}, { hdi_isfolder: 'true' }, 0, 'directory'],
    [{}, {}, 0, 'file'],
  ] as const;
  for (const [account, metadata, size, expected] of kinds)
    t.equal(accountKindOf(account, metadata, size), expected, JSON.stringify([account, metadata]));
  t.end();
});

/** The same names in the order of each kind of account. */
const orders = {
  flat: ['a', 'a!', 'a-b', 'a.txt', 'a/', 'a/b', 'a/b!', 'a/b/c', 'a/c', 'a0', 'ab', 'b'],
  hierarchical: ['a', 'a/', 'a/b', 'a/b/c', 'a/b!', 'a/c', 'a!', 'a-b', 'a.txt', 'a0', 'ab', 'b'],
} as const;

t.test('names are in the order of the account', (t) => {
  for (const [kind, names] of Object.entries(orders)) {
    const hierarchical = kind === 'hierarchical';
    t.same(
      [...names].reverse().sort((a, b) => compareListed(a, b, hierarchical)),
      names,
      kind,
    );
    for (const [at, directory] of names.entries()) {
      for (const [now, name] of names.entries()) {
        if (now <= at) continue;
        const below = names.slice(now).some((later) => later.startsWith(`${directory}/`));
        if (!below)
          t.ok(isListedBehind(name, directory, hierarchical), `${kind}: ${directory} is over at ${name}`);
        else t.notOk(isListedBehind(name, directory, hierarchical), `${kind}: ${directory} at ${name}`);
      }
    }
  }
  t.end();
});

t.test('a prefix is a string on flat accounts and a path on hierarchical ones', (t) => {
  const rows = [
    ['data', 'data', true, true],
    ['data/x', 'data', true, true],
    ['data2', 'data', true, false],
    ['data-2/x', 'data', true, false],
    ['dat', 'data', false, false],
    ['anything', '', true, true],
  ] as const;
  for (const [name, prefix, asString, asPath] of rows) {
    t.equal(isUnderPrefix(name, prefix, false), asString, `${name} begins with '${prefix}'`);
    t.equal(isUnderPrefix(name, prefix, true), asPath, `${name} is '${prefix}' or below`);
  }
  t.end();
});
