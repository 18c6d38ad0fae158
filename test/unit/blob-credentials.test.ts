import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { UserError } from '../../src/base/errors.js';
import { parseCredentials, resolveContainer } from '../../src/blob/credentials.js';
import type { ContainerConfig } from '../../src/blob/port.js';
import { RenewedCredential } from '../../src/blob/entra-credential.js';

const key = 'c2VjcmV0LWtleQ==';
const sas = 'sv=2025-01-05&ss=b&srt=co&sp=rwdl&sig=c2lnbmF0dXJl%3D';
const emulatorKey =
  'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

type Case = readonly [title: string, env: Record<string, string>, expected: ContainerConfig | RegExp];

const azure = (
  auth: ContainerConfig['auth'],
  url = 'https://acct.blob.core.windows.net/data',
  account = 'acct',
): ContainerConfig => ({
  url,
  account,
  container: 'data',
  auth,
});
const byKey = { kind: 'key', accountKey: key } as const;
const bySas = { kind: 'sas', token: sas } as const;

const cases: readonly Case[] = [
  [
    'a connection string with a key',
    {
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=${key};EndpointSuffix=core.windows.net`,
    },
    azure(byKey),
  ],
  [
    'a connection string without a suffix',
    { AZURE_STORAGE_CONNECTION_STRING: `AccountName=acct;AccountKey=${key}` },
    azure(byKey),
  ],
  [
    'a connection string of another cloud',
    {
      AZURE_STORAGE_CONNECTION_STRING: `AccountName=acct;AccountKey=${key};EndpointSuffix=core.chinacloudapi.cn;`,
    },
    azure(byKey, 'https://acct.blob.core.chinacloudapi.cn/data'),
  ],
  [
    'a connection string with an endpoint, as Azurite prints it',
    {
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=http;AccountName=acct;AccountKey=${key};BlobEndpoint=http://127.0.0.1:10000/acct;`,
    },
    azure(byKey, 'http://127.0.0.1:10000/acct/data'),
  ],
  [
    'a connection string with a SAS and an endpoint only',
    {
      AZURE_STORAGE_CONNECTION_STRING: `BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature=${sas}`,
    },
    azure(bySas),
  ],
  [
    'names in any case',
    { AZURE_STORAGE_CONNECTION_STRING: `accountname=acct;ACCOUNTKEY=${key}` },
    azure(byKey),
  ],
  [
    'the emulator',
    { AZURE_STORAGE_CONNECTION_STRING: 'UseDevelopmentStorage=true' },
    azure(
      { kind: 'key', accountKey: emulatorKey },
      'http://127.0.0.1:10000/devstoreaccount1/data',
      'devstoreaccount1',
    ),
  ],
  [
    'the emulator elsewhere',
    {
      AZURE_STORAGE_CONNECTION_STRING: 'UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite',
    },
    azure(
      { kind: 'key', accountKey: emulatorKey },
      'http://azurite:10000/devstoreaccount1/data',
      'devstoreaccount1',
    ),
  ],
  [
    'the emulator on another port, by the service endpoint',
    {
      AZURE_STORAGE_CONNECTION_STRING: 'UseDevelopmentStorage=true;',
      AZURE_STORAGE_SERVICE_ENDPOINT: 'http://127.0.0.1:11000',
    },
    azure(
      { kind: 'key', accountKey: emulatorKey },
      'http://127.0.0.1:11000/devstoreaccount1/data',
      'devstoreaccount1',
    ),
  ],
  ['account and key', { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_KEY: key }, azure(byKey)],
  ['account and SAS', { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_SAS_TOKEN: sas }, azure(bySas)],
  ["a SAS with its '?'", { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_SAS_TOKEN: `?${sas}` }, azure(bySas)],
  [
    'the key goes before the SAS',
    { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_KEY: key, AZURE_STORAGE_SAS_TOKEN: sas },
    azure(byKey),
  ],
  ['an account alone means Entra ID', { AZURE_STORAGE_ACCOUNT: 'acct' }, azure({ kind: 'entra' })],
  [
    'an endpoint alone means Entra ID',
    { AZURE_STORAGE_SERVICE_ENDPOINT: 'https://acct.blob.core.windows.net/' },
    azure({ kind: 'entra' }),
  ],
  [
    'an endpoint goes before the name of the account',
    {
      AZURE_STORAGE_ACCOUNT: 'acct',
      AZURE_STORAGE_KEY: key,
      AZURE_STORAGE_SERVICE_ENDPOINT: 'http://localhost:10000/acct',
    },
    azure(byKey, 'http://localhost:10000/acct/data'),
  ],
  [
    'the account is read from an emulator-style endpoint',
    { AZURE_STORAGE_SERVICE_ENDPOINT: 'http://localhost:10000/acct', AZURE_STORAGE_KEY: key },
    azure(byKey, 'http://localhost:10000/acct/data'),
  ],
  [
    'the connection string goes before everything else',
    {
      AZURE_STORAGE_CONNECTION_STRING: `AccountName=acct;AccountKey=${key}`,
      AZURE_STORAGE_ACCOUNT: 'other',
      AZURE_STORAGE_SAS_TOKEN: sas,
    },
    azure(byKey),
  ],
  [
    'empty values count as absent',
    { AZURE_STORAGE_CONNECTION_STRING: '', AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_KEY: ' ' },
    azure({ kind: 'entra' }),
  ],
  ['nothing at all', {}, /no storage account: set AZURE_STORAGE_CONNECTION_STRING/],
  [
    'a connection string of nothing',
    { AZURE_STORAGE_CONNECTION_STRING: 'AccountKey=x' },
    /neither AccountName nor BlobEndpoint/,
  ],
  [
    'a connection string without a right',
    { AZURE_STORAGE_CONNECTION_STRING: 'AccountName=acct' },
    /neither AccountKey nor SharedAccessSignature/,
  ],
  [
    'a connection string that is none',
    { AZURE_STORAGE_CONNECTION_STRING: 'hello' },
    /not a list of Name=value/,
  ],
  ['a key that is none', { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_KEY: 'not base64!' }, /not base64/],
  [
    'a SAS without a signature',
    { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_SAS_TOKEN: 'sv=1' },
    /no signature/,
  ],
  [
    'Entra ID over http',
    { AZURE_STORAGE_SERVICE_ENDPOINT: 'http://localhost:10000/acct' },
    /not sent over http/,
  ],
  ['an endpoint that is no URL', { AZURE_STORAGE_SERVICE_ENDPOINT: 'acct' }, /not a URL/],
  ['an endpoint of another protocol', { AZURE_STORAGE_SERVICE_ENDPOINT: 'ftp://acct' }, /http or https/],
  [
    'an endpoint with a SAS in it',
    { AZURE_STORAGE_SERVICE_ENDPOINT: `https://acct.blob.core.windows.net/?${sas}` },
    /must not carry credentials/,
  ],
];

t.test('the container is reached as the az CLI would', (t) => {
  for (const [title, env, expected] of cases) {
    if (expected instanceof RegExp) {
      t.throws(
        () => resolveContainer({ env, container: 'data' }),
        { name: 'UserError', message: expected },
        title,
      );
    } else {
      t.same(resolveContainer({ env, container: 'data' }), expected, title);
    }
  }
  t.end();
});

t.test('no refusal repeats a secret', (t) => {
  for (const [title, env] of cases) {
    try {
      resolveContainer({ env, container: 'data' });
    } catch (error) {
      t.ok(error instanceof UserError);
      t.notMatch((error as Error).message, /c2VjcmV0|c2lnbmF0dXJl|not base64!/, title);
    }
  }
  t.end();
});

t.test('container names follow the rules of the service', (t) => {
  const env = { AZURE_STORAGE_ACCOUNT: 'acct', AZURE_STORAGE_KEY: key };
  const bad = ['', 'ab', 'Data', 'a_b', '-ab', 'ab-', 'a--b', 'a'.repeat(64), 'a/b', '../x', '$x'];
  for (const container of bad) t.throws(() => resolveContainer({ env, container }), UserError, container);
  for (const container of ['abc', 'a-b-c', '000', 'a'.repeat(63), '$web', '$logs', '$root']) {
    t.equal(resolveContainer({ env, container }).container, container);
  }
  t.end();
});

t.test('a credentials file replaces the environment and must be private', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'lustrite-credentials-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, 'credentials');
  await writeFile(
    file,
    `# for tests\n\nexport AZURE_STORAGE_ACCOUNT="acct"\r\nAZURE_STORAGE_KEY = ${key}\n`,
    { mode: 0o600 },
  );
  const source = {
    env: { AZURE_STORAGE_SAS_TOKEN: sas, AZURE_STORAGE_ACCOUNT: 'other' },
    container: 'data',
    credentialsFile: file,
  };
  t.same(resolveContainer(source), azure(byKey));
  for (const mode of [0o640, 0o604, 0o620, 0o660]) {
    await chmod(file, mode);
    t.throws(() => resolveContainer(source), { name: 'UserError', message: /chmod 600/ }, mode.toString(8));
  }
  await chmod(file, 0o400);
  t.same(resolveContainer(source), azure(byKey));
  t.throws(() => resolveContainer({ ...source, credentialsFile: join(dir, 'none') }), {
    name: 'UserError',
    message: /cannot read/,
  });
  t.throws(() => resolveContainer({ ...source, credentialsFile: dir }), {
    name: 'UserError',
    message: /not a regular file/,
  });
});

t.test('lines of a credentials file', (t) => {
  t.same(parseCredentials("A=1\n  B = 'x y' \nexport C=a=b;c\n#D=1\n", 'f'), {
    A: '1',
    B: 'x y',
    C: 'a=b;c',
  });
  t.throws(() => parseCredentials('A=1\nsecret\n', 'f'), { message: 'f:2: not a NAME=value line' });
  t.end();
});

t.test('a token that cannot be renewed is an outage, the first one a refusal', async (t) => {
  const tokens: (Error | undefined)[] = [
    new Error('not logged in'),
    undefined,
    new Error('IMDS\nno route'),
    new Error('invalid_client: AADSTS7000222: the secret has expired'),
  ];
  const credential = new RenewedCredential({
    getToken() {
      const failure = tokens.shift();
      if (failure !== undefined) return Promise.reject(failure);
      return Promise.resolve({ token: 't', expiresOnTimestamp: 0 });
    },
  });
  await t.rejects(credential.getToken('scope'), new Error('not logged in'));
  t.match(await credential.getToken('scope'), { token: 't' });
  await t.rejects(credential.getToken('scope'), {
    kind: 'unreachable',
    message: 'no new Entra ID token: IMDS',
  });
  await t.rejects(credential.getToken('scope'), /AADSTS7000222/, 'and so is one that the service gives');
});
