/** Tokens of Microsoft Entra ID. */
import type { AccessToken, GetTokenOptions, TokenCredential } from '@azure/core-auth';
import { BlobError, messageChain } from '../base/errors.js';
import { withoutSecrets } from './azure-errors.js';

/** The credential that the environment names. */
export async function entraCredential(): Promise<TokenCredential> {
  return new RenewedCredential(await chain());
}

/**
 * Whoever has had a token is entitled to one: that there is no new one is an outage, and no refusal. Rejects with a
 * BlobError `unreachable` then.
 */
export class RenewedCredential implements TokenCredential {
  readonly #source: TokenCredential;
  #entitled = false;

  constructor(source: TokenCredential) {
    this.#source = source;
  }

  async getToken(scopes: string | string[], options?: GetTokenOptions): Promise<AccessToken | null> {
    try {
      const token = await this.#source.getToken(scopes, options);
      this.#entitled ||= token !== null;
      return token;
    } catch (cause) {
      if (!this.#entitled || options?.abortSignal?.aborted === true) throw cause;
      const [why] = withoutSecrets(messageChain(cause)).split('\n');
      // The service has answered: the application, its secret or the tenant is no more.
      if (/\bAADSTS\d/.test(messageChain(cause))) throw cause;
      throw new BlobError('unreachable', `no new Entra ID token: ${why ?? ''}`);
    }
  }
}

/** AZURE_TOKEN_CREDENTIALS steers the SDK's default chain; without it a short explicit one, which fails fast. */
async function chain(): Promise<TokenCredential> {
  const identity = await import('@azure/identity');
  if (process.env['AZURE_TOKEN_CREDENTIALS'] !== undefined) return new identity.DefaultAzureCredential();
  const clientId = process.env['AZURE_CLIENT_ID'];
  const sources: TokenCredential[] = [new identity.EnvironmentCredential()];
  if (process.env['AZURE_FEDERATED_TOKEN_FILE'] !== undefined)
    sources.push(new identity.WorkloadIdentityCredential());
  sources.push(
    clientId === undefined
      ? new identity.ManagedIdentityCredential()
      : new identity.ManagedIdentityCredential({ clientId }),
    new identity.AzureCliCredential(),
  );
  return new identity.ChainedTokenCredential(...sources);
}
