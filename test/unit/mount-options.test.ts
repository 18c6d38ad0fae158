/** What a line of fstab(5) says, option by option. */
import t from 'tap';
import { UsageError } from '../../src/cli/failure.js';
import { mountRequest, type MountRequest } from '../../src/cli/mount-options.js';

const plain = { flags: {}, config: undefined, readOnly: false, attributes: [], remount: false };

const meant: readonly (readonly [options: string, Partial<MountRequest>, title: string])[] = [
  ['', {}, 'nothing'],
  [
    'defaults,noauto,nofail,_netdev,x-systemd.requires=network-online.target,comment=a',
    {},
    'what is for others',
  ],
  ['user,owner,group,nouser,users,nousers,user=joe,auto,async,silent', {}, 'who may mount, and when'],
  ['rw,nosuid,nodev,relatime', { attributes: ['relatime'] }, 'what a mount is anyway'],
  ['user_id=0,group_id=0,default_permissions,allow_other', {}, 'what the kernel shows of it'],
  ['ro', { readOnly: true }, 'ro'],
  ['ro,rw', { readOnly: false }, 'the last of two that exclude each other'],
  ['noatime,atime,noexec', { attributes: ['atime', 'noexec'] }, 'the last of an attribute and its opposite'],
  ['remount,ro', { remount: true, readOnly: true }, 'a remount'],
  ['config=/etc/lustrite.json', { config: '/etc/lustrite.json' }, 'the file of settings'],
  ['store=/a=b', { flags: { store: '/a=b' } }, 'a value with =, by the name of its flag'],
  ['loggingContainer=logs', { flags: { loggingContainer: 'logs' } }, 'a setting by its JSON key'],
  ['space.highWatermark=80', { flags: { 'space.highWatermark': '80' } }, 'a setting without a flag'],
  ['no-import', { flags: { 'import.none': true } }, 'a switch'],
  ['compat.strict=off', { flags: { 'compat.strict': 'off' } }, 'a switch with a value'],
  [
    'import-prefix=in/,uid=1,uid=1000,import-prefix=ref/',
    { flags: { 'import.prefixes': ['in/', 'ref/'], 'defaults.uid': '1000' } },
    'each of the prefixes, and the last of what is one',
  ],
];

t.test('an option of mount(8) is a setting, an attribute of the mount, or for somebody else', (t) => {
  for (const [options, request, title] of meant)
    t.same(mountRequest(options), { ...plain, ...request }, `${title}: ${options}`);
  t.end();
});

const refused: readonly (readonly [options: string, message: RegExp])[] = [
  ['tsore=/a', /-o tsore=\/a: no such option.*config=FILE/],
  ['sync', /-o sync: no such option/],
  ['suid', /-o suid: a mount is always nosuid/],
  ['dev', /-o dev: a mount is always nodev/],
  ['store', /-o store: needs a value, store=…/],
  ['store=', /-o store=: needs a value, store=…/],
  ['config', /-o config: needs a value/],
  ['read-only', /this is ro/],
  ['__proto__=1', /no such option/],
  ['constructor', /no such option/],
];

t.test('an option that nobody knows or that cannot be had is named', (t) => {
  for (const [options, message] of refused)
    t.throws(() => mountRequest(options), { constructor: UsageError, message }, options);
  t.same(mountRequest('tsore=/a,sync', { sloppy: true }), plain, 'mount -s');
  t.end();
});
