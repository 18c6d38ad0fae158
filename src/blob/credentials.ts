/**
 * Which container and with what right: the az CLI's environment names, or a file with the same NAME=value lines.
 * Secrets come in here only, and leave in ContainerConfig only.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { UserError } from '../base/errors.js';
import type { ContainerConfig } from './port.js';

type Environment = Readonly<Record<string, string | undefined>>;

export interface ContainerSource {
  readonly env: Environment;
  readonly container: string;
  /** Path of a file that replaces every AZURE_STORAGE_* name of `env`. */
  readonly credentialsFile?: string | undefined;
}

/** The storage emulator's published account; a constant of the protocol and no secret. */
const emulator = {
  account: 'devstoreaccount1',
  accountKey: 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==',
  endpoint: 'http://127.0.0.1:10000/devstoreaccount1',
};

/**
 * How to reach `container`: by AZURE_STORAGE_CONNECTION_STRING, else by AZURE_STORAGE_ACCOUNT (or
 * AZURE_STORAGE_SERVICE_ENDPOINT) with _KEY, else with _SAS_TOKEN, else by Entra ID. Throws a UserError that names
 * what is missing. Pure but for reading `credentialsFile`.
 */
export function resolveContainer({ env, container, credentialsFile }: ContainerSource): ContainerConfig {
  const names = credentialsFile === undefined ? env : readCredentialsFile(credentialsFile);
  const get = (name: string): string | undefined => {
    const value = names[name]?.trim();
    return value === undefined || value === '' ? undefined : value;
  };
  checkContainerName(container);
  const text = get('AZURE_STORAGE_CONNECTION_STRING');
  const parts = text === undefined ? {} : parseConnectionString(text);
  if (parts.developmentStorage === true) {
    const endpoint = endpointUrl(get('AZURE_STORAGE_SERVICE_ENDPOINT') ?? parts.proxy ?? emulator.endpoint);
    if (endpoint.pathname === '/') endpoint.pathname = `/${emulator.account}`;
    return config(endpoint, emulator.account, container, { kind: 'key', accountKey: emulator.accountKey });
  }
  const fromString = text !== undefined;
  const given = get('AZURE_STORAGE_SERVICE_ENDPOINT') ?? parts.blobEndpoint;
  const account = parts.account ?? (fromString ? undefined : get('AZURE_STORAGE_ACCOUNT'));
  if (given === undefined && account === undefined) {
    throw new UserError(
      'InvalidParameter',
      fromString
        ? 'AZURE_STORAGE_CONNECTION_STRING names neither AccountName nor BlobEndpoint'
        : 'no storage account: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN',
    );
  }
  const suffix = parts.endpointSuffix ?? 'core.windows.net';
  const endpoint = endpointUrl(given ?? `${parts.protocol ?? 'https'}://${account ?? ''}.blob.${suffix}`);
  const owner = account ?? accountOf(endpoint);
  const key = fromString ? parts.accountKey : get('AZURE_STORAGE_KEY');
  const sas = fromString ? parts.sas : get('AZURE_STORAGE_SAS_TOKEN');
  if (key !== undefined)
    return config(endpoint, owner, container, { kind: 'key', accountKey: checkedKey(key) });
  if (sas !== undefined) return config(endpoint, owner, container, { kind: 'sas', token: checkedSas(sas) });
  if (fromString) {
    throw new UserError(
      'InvalidParameter',
      'AZURE_STORAGE_CONNECTION_STRING has neither AccountKey nor SharedAccessSignature',
    );
  }
  if (endpoint.protocol !== 'https:') {
    throw new UserError(
      'InvalidParameter',
      `Entra ID tokens are not sent over http (${endpoint.origin}): set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or use https`,
    );
  }
  return config(endpoint, owner, container, { kind: 'entra' });
}

function config(
  endpoint: URL,
  account: string,
  container: string,
  auth: ContainerConfig['auth'],
): ContainerConfig {
  const base = endpoint.origin + endpoint.pathname.replace(/\/+$/, '');
  return { url: `${base}/${container}`, account, container, auth };
}

/** Rules of the service: 3-63 of a-z 0-9 and single dashes inside; the system containers start with '$'. */
function checkContainerName(name: string): void {
  if (/^\$(root|web|logs|blobchangefeed)$/.test(name)) return;
  if (!/^[a-z0-9](?:-?[a-z0-9]){2,62}$/.test(name) || name.length > 63) {
    throw new UserError(
      'InvalidParameter',
      `'${name}' is no container name: 3 to 63 lower-case letters, digits and single dashes, starting and ending with a letter or digit`,
    );
  }
}

function endpointUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new UserError(
      'InvalidParameter',
      'the blob endpoint is not a URL such as https://account.blob.core.windows.net',
    );
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new UserError('InvalidParameter', `the blob endpoint must be http or https, not ${url.protocol}`);
  }
  if (url.search !== '' || url.username !== '' || url.password !== '') {
    throw new UserError(
      'InvalidParameter',
      'the blob endpoint must not carry credentials: put a SAS into AZURE_STORAGE_SAS_TOKEN',
    );
  }
  return url;
}

/** `account.blob.core.windows.net`, or the first segment of the path where the host is no account (emulators). */
function accountOf(endpoint: URL): string {
  const [first] = endpoint.pathname.split('/').filter((s) => s !== '');
  return first ?? endpoint.hostname.split('.', 1)[0] ?? endpoint.hostname;
}

function checkedKey(key: string): string {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(key)) {
    throw new UserError('InvalidParameter', 'the storage account key is not base64');
  }
  return key;
}

function checkedSas(token: string): string {
  const bare = token.replace(/^\?/, '');
  if (!/(^|&)sig=/.test(bare))
    throw new UserError('InvalidParameter', 'the SAS token has no signature (sig=)');
  return bare;
}

interface ConnectionString {
  readonly developmentStorage?: boolean;
  readonly proxy?: string | undefined;
  readonly protocol?: string | undefined;
  readonly account?: string | undefined;
  readonly accountKey?: string | undefined;
  readonly sas?: string | undefined;
  readonly blobEndpoint?: string | undefined;
  readonly endpointSuffix?: string | undefined;
}

function parseConnectionString(text: string): ConnectionString {
  const values = new Map<string, string>();
  for (const part of text.split(';')) {
    if (part.trim() === '') continue;
    const at = part.indexOf('=');
    if (at <= 0)
      throw new UserError('InvalidParameter', 'AZURE_STORAGE_CONNECTION_STRING is not a list of Name=value;');
    values.set(part.slice(0, at).trim().toLowerCase(), part.slice(at + 1).trim());
  }
  return {
    developmentStorage: values.get('usedevelopmentstorage')?.toLowerCase() === 'true',
    proxy: emulatorProxy(values.get('developmentstorageproxyuri')),
    protocol: values.get('defaultendpointsprotocol'),
    account: values.get('accountname'),
    accountKey: values.get('accountkey'),
    sas: values.get('sharedaccesssignature'),
    blobEndpoint: values.get('blobendpoint'),
    endpointSuffix: values.get('endpointsuffix'),
  };
}

/** DevelopmentStorageProxyUri names a host; the emulator's blob port is fixed. */
function emulatorProxy(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = endpointUrl(text);
  return `${url.protocol}//${url.hostname}:${url.port === '' ? '10000' : url.port}/${emulator.account}`;
}

/** The NAME=value lines of a file that only its owner, who is the caller, can read. */
function readCredentialsFile(path: string): Environment {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new UserError('InvalidParameter', `cannot read the credentials file ${path}`, { cause: error });
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile())
      throw new UserError('InvalidParameter', `the credentials file ${path} is not a regular file`);
    if (stat.uid !== process.geteuid?.()) {
      throw new UserError(
        'InvalidParameter',
        `the credentials file ${path} must belong to the user that runs lustrite`,
      );
    }
    if ((stat.mode & 0o077) !== 0) {
      throw new UserError(
        'InvalidParameter',
        `the credentials file ${path} can be read by others: chmod 600 ${path}`,
      );
    }
    return parseCredentials(readFileSync(fd, 'utf8'), path);
  } finally {
    closeSync(fd);
  }
}

/** NAME=value lines; blank lines, `#` comments, a leading `export ` and quotes around the value are understood. */
export function parseCredentials(text: string, path: string): Environment {
  const values: Record<string, string> = {};
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const match = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/.exec(line);
    if (!match)
      throw new UserError('InvalidParameter', `${path}:${String(index + 1)}: not a NAME=value line`);
    const value = match[2] ?? '';
    values[match[1] ?? ''] = /^"(.*)"$/.exec(value)?.[1] ?? /^'(.*)'$/.exec(value)?.[1] ?? value;
  }
  return values;
}
