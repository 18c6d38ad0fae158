/** What to do when an account refuses to serve, or does not answer. */
import { BlobError } from '../base/errors.js';
import type { ContainerConfig } from './port.js';

/** The failure of a request with what to do about it; `error` itself where nobody can tell. */
export function explained(error: unknown, config: ContainerConfig): unknown {
  if (!(error instanceof BlobError)) return error;
  const where = `container '${config.container}' of account '${config.account}'`;
  const advice = adviceFor(error, config, where);
  if (advice === undefined) return error;
  return new BlobError(error.kind, advice, {
    cause: error,
    status: error.status,
    serviceCode: error.serviceCode,
  });
}

function adviceFor(error: BlobError, config: ContainerConfig, where: string): string | undefined {
  const endpoint = new URL(config.url).origin;
  if (error.kind === 'unsupported' && error.status === 400) {
    return `${where}: the service does not know our API version; if it is Azurite, start it with --skipApiVersionCheck or take a newer one`;
  }
  switch (error.kind) {
    case 'missing':
      return `${where} does not exist: create it, or check the name`;
    case 'forbidden':
      switch (config.auth.kind) {
        case 'key':
          return `${where}: access refused (${error.serviceCode ?? 'no reason given'}): the account key or this host's clock is wrong, or the account allows no shared keys or not this host`;
        case 'sas':
          return `${where}: the SAS is wrong, expired, or lacks a permission (read, write, delete, list are needed)`;
        case 'entra':
          if (error.status === undefined) {
            return `${where}: no Entra ID token: sign in with 'az login', give this host a managed identity, or set AZURE_STORAGE_KEY`;
          }
          return `${where}: access refused (${error.serviceCode ?? 'no reason given'}): the identity needs the role Storage Blob Data Contributor`;
      }

    case 'unreachable':
      return `${where}: no answer from ${endpoint}`;
    case 'throttled':
      return `${where}: ${endpoint} is throttling requests`;
    default:
      return undefined;
  }
}

/** Whether the account has refused the request. Without a status nobody has asked it: there was no token. */
export function isRefused(error: unknown): error is BlobError {
  if (!(error instanceof BlobError) || error.status === undefined) return false;
  return error.kind === 'forbidden' || error.serviceCode === 'ContainerNotFound';
}
