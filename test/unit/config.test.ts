import t from 'tap';
import { settings } from '../../src/base/config-keys.js';
import { resolveSettings, toConfig, type ConfigInput } from '../../src/base/config.js';
import { messageChain } from '../../src/base/errors.js';
import { createLog, prettyLine, redact } from '../../src/base/log.js';

const nothing: ConfigInput = { flags: {}, env: {} };

function resolved(path: string, input: Partial<ConfigInput>) {
  const found = resolveSettings({ ...nothing, ...input }).find((one) => one.setting.path === path);
  return found === undefined ? undefined : { value: found.value, source: found.source, origin: found.origin };
}

const file = (content: unknown) => ({ path: '/etc/l.json', content });

t.test('a flag beats the environment, the environment the file, the file the default', (t) => {
  const all = {
    flags: { 'defaults.uid': '1' },
    env: { LUSTRITE_DEFAULTS_UID: '2' },
    file: file({ defaults: { uid: 3 } }),
  };
  t.same(resolved('defaults.uid', all), { value: 1, source: 'flag', origin: '--uid' });
  t.same(resolved('defaults.uid', { ...all, flags: {} }), {
    value: 2,
    source: 'environment',
    origin: 'LUSTRITE_DEFAULTS_UID',
  });
  t.same(resolved('defaults.uid', { file: all.file }), {
    value: 3,
    source: 'file',
    origin: '/etc/l.json: defaults.uid',
  });
  t.same(resolved('defaults.uid', {}), { value: 0, source: 'default', origin: 'default' });
  t.same(resolved('defaults.uid', { env: { LUSTRITE_DEFAULTS_UID: '' } }), {
    value: 0,
    source: 'default',
    origin: 'default',
  });
  t.end();
});

t.test('compat.strict changes the defaults and nothing that was said', (t) => {
  const strict = { file: file({ compat: { strict: true } }) };
  t.same(resolved('import.conflict', strict), {
    value: 'fail',
    source: 'strict default',
    origin: 'strict default',
  });
  t.equal(resolved('import.maxErrors', strict)?.value, 0);
  t.equal(resolved('hsm.maxRequests', strict)?.value, 3);
  t.equal(resolved('import.conflict', { ...strict, flags: { 'import.conflict': 'skip' } })?.value, 'skip');
  t.end();
});

t.test('texts of flags and variables become values', (t) => {
  const rows: readonly (readonly [string, string, unknown])[] = [
    ['defaults.fileMode', '0640', 0o640],
    ['defaults.fileMode', '1777', 0o1777],
    ['defaults.dirMode', '0o750', 0o750],
    ['readOnly', 'yes', true],
    ['readOnly', 'OFF', false],
    ['import.maxErrors', '-1', -1],
    ['import.prefixes', 'a,b', ['a', 'b']],
    ['import.prefixes', '["a,b"]', ['a,b']],
    ['log.level', 'debug', 'debug'],
  ];
  for (const [path, text, value] of rows) {
    t.same(resolved(path, { flags: { [path]: text } })?.value, value, `${path} ${text}`);
  }
  t.end();
});

t.test('a bad value is refused, naming where it was said and what is possible', (t) => {
  const rows: readonly (readonly [Partial<ConfigInput>, string])[] = [
    [{ flags: { 'defaults.uid': 'root' } }, "--uid: 'root' is not a whole number from 0 to 4294967294"],
    [{ flags: { 'defaults.uid': '-1' } }, '--uid: -1 is not a whole number from 0 to 4294967294'],
    [
      { flags: { 'import.conflict': 'overwrite' } },
      "--import-conflict: 'overwrite' is not one of fail, skip",
    ],
    [
      { env: { LUSTRITE_DEFAULTS_FILE_MODE: '0888' } },
      "LUSTRITE_DEFAULTS_FILE_MODE: '0888' is not octal permissions such as 0644 (a text in JSON), at most 1777",
    ],
    [
      { flags: { 'defaults.dirMode': '4755' } },
      '--dir-mode: 2541 is not octal permissions such as 0644 (a text in JSON), at most 1777',
    ],
    [
      { file: file({ defaults: { fileMode: 600 } }) },
      '/etc/l.json: defaults.fileMode: 600 is not octal permissions such as 0644 (a text in JSON), at most 1777',
    ],
    [{ env: { LUSTRITE_READ_ONLY: 'perhaps' } }, "LUSTRITE_READ_ONLY: 'perhaps' is not true or false"],
    [{ flags: { container: '' } }, "--container: '' is not a text"],
    [
      { file: file({ hsm: { maxRequests: '3' } }) },
      "/etc/l.json: hsm.maxRequests: '3' is not a whole number from 1 to 4096",
    ],
    [
      { file: file({ import: { prefixes: 'a' } }) },
      "/etc/l.json: import.prefixes: 'a' is not a list of texts (separated by commas, or a JSON array)",
    ],
    [
      { file: file({ import: { prefix: ['a'] } }) },
      "/etc/l.json: there is no setting 'import.prefix' (lustrite config show lists them)",
    ],
    [
      { file: file({ hydrate: 3 }) },
      "/etc/l.json: there is no setting 'hydrate' (lustrite config show lists them)",
    ],
    [{ file: file([]) }, "/etc/l.json: there is no setting '(top level)' (lustrite config show lists them)"],
  ];
  for (const [input, message] of rows) {
    t.throws(() => resolveSettings({ ...nothing, ...input }), { name: 'UserError', message }, message);
  }
  t.end();
});

t.test('every default satisfies its own setting, and no two settings share a name', (t) => {
  for (const setting of settings) {
    for (const value of [setting.default, setting.strict]) {
      if (value === undefined) continue;
      t.same(resolved(setting.path, { flags: { [setting.path]: value } })?.value, value, setting.path);
    }
  }
  for (const name of ['path', 'env', 'flag'] as const) {
    const names = settings.map((setting) => setting[name]).filter((one) => one !== undefined);
    t.equal(new Set(names).size, names.length, name);
  }
  t.end();
});

t.test('the nested configuration has what its type promises', (t) => {
  const config = toConfig(resolveSettings({ ...nothing, flags: { loggingContainer: 'logs' } }), {
    mountPoint: '/mnt',
    container: 'data',
    store: '/s',
  });
  t.same(config, {
    mountPoint: '/mnt',
    container: 'data',
    loggingContainer: 'logs',
    store: '/s',
    hierarchicalNamespace: 'auto',
    import: { prefixes: ['/'], maxPrefixes: 10, conflict: 'skip', maxErrors: -1, none: false },
    defaults: { uid: 0, gid: 0, fileMode: 0o644, dirMode: 0o755 },
    readOnly: false,
    frontEnd: 'native',
    passthrough: true,
    hydrate: {
      partialReads: true,
      verify: false,
      rangeBytes: 8388608,
      parallelRanges: 4,
    },
    hsm: { maxRequests: 64, defaultArchiveId: 1 },
    space: { highWatermark: 95, lowWatermark: 90 },
    transfer: { workers: 2, blockBytes: 8388608, parallelBlocks: 4, tries: 5, stallMs: 30_000 },
    export: { ifMatch: false },
    compat: { strict: false },
    log: { level: 'info' },
  });
  t.end();
});

t.test('a chain of causes says nothing twice', (t) => {
  const chain = (...messages: readonly string[]) =>
    messages.reduceRight<Error | undefined>((cause, text) => new Error(text, { cause }), undefined);
  t.equal(messageChain(chain('a', 'b', 'c')), 'a: b: c');
  t.equal(messageChain(chain('not listed: b: c', 'b', 'c')), 'not listed: b: c');
  t.equal(messageChain(chain('not listed: b', 'b', 'c')), 'not listed: b: c');
  t.equal(messageChain(chain('not listed: b.', 'b.')), 'not listed: b.');
  t.equal(messageChain(chain('club', 'b')), 'club: b', 'a part of a word is not the cause');
  t.end();
});

t.test('no secret gets into a log line', (t) => {
  const rows: readonly (readonly [string, string])[] = [
    ['https://a/c?sv=1&sig=abc%2Bd&se=2', 'https://a/c?sv=1&sig=***&se=2'],
    ['AccountName=a;AccountKey=Zm9v==;x=1', 'AccountName=a;AccountKey=***;x=1'],
    ['SharedAccessSignature=sv=1&x', 'SharedAccessSignature=***'],
    ['authorization: Bearer eyJhbGciOi.abc.def', 'authorization: Bearer ***'],
    ['SharedKey devstoreaccount1:AAAABBBB=', 'SharedKey ***'],
    ['AZURE_STORAGE_KEY=Zm9v==', 'AZURE_STORAGE_KEY=***'],
    ['a signal=9 is none', 'a signal=9 is none'],
    ['no answer (https://a/c?sig=abc%2Bd), again', 'no answer (https://a/c?sig=***), again'],
    ['(AccountKey=Zm9v==)', '(AccountKey=***)'],
  ];
  for (const [text, clean] of rows) t.equal(redact(text), clean);

  const lines: string[] = [];
  const errors: string[] = [];
  const log = createLog({
    level: 'info',
    pretty: false,
    destination: { write: (line) => lines.push(line) },
    onError: ({ message }) => errors.push(message),
  });
  log.debug('not shown');
  log.info({ url: 'http://h/c?sig=topsecret' }, 'listing');
  log.error({ err: new Error('x AccountKey=topsecret;') }, 'failed');
  t.equal(lines.length, 2);
  t.notMatch(lines.join(''), /topsecret/);
  t.same(errors, ['failed']);
  t.match(prettyLine(lines[0] ?? ''), /^\d\d:\d\d:\d\d info {2}listing url=http:\/\/h\/c\?sig=\*\*\*\n$/);
  t.end();
});
