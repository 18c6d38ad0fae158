/** One table from what the SDK and the transport throw to BlobError. */
import { BlobError } from '../base/errors.js';
import type { BlobErrorKind } from '../base/errors.js';

const kindByStatus: Readonly<Record<number, BlobErrorKind>> = {
  304: 'changed',
  401: 'forbidden',
  403: 'forbidden',
  404: 'missing',
  408: 'unreachable',
  412: 'changed',
  416: 'changed', // the blob is shorter than the version that was asked for
  429: 'throttled',
  500: 'unreachable',
  502: 'unreachable',
  503: 'throttled',
  504: 'unreachable',
};

/** Codes that say more than the status they come with (409, 412 and 400 mean many things). */
const kindByCode: readonly (readonly [RegExp, BlobErrorKind])[] = [
  [/^Lease/, 'leased'],
  [/^(BlobArchived|BlobBeingRehydrated|BlobNotFoundInOnlineTier)$/, 'archived'],
  [/^(BlobAlreadyExists|ContainerAlreadyExists|UnauthorizedBlobOverwrite)$/, 'exists'],
  // A file where a hierarchical account has a directory, or the other way round.
  [/^ResourceTypeMismatch$/, 'exists'],
  [/^(InvalidBlobType|BlobTypeNotSupported|FeatureNotSupported|InvalidBlobOrBlock)$/, 'unsupported'],
  [/^(Md5Mismatch|Crc64Mismatch)$/, 'corrupt'],
  [/^ContainerBeingDeleted$/, 'missing'],
];

interface HttpFailure {
  readonly name?: string;
  readonly message?: string;
  readonly code?: string;
  readonly statusCode?: number;
  readonly details?: { readonly errorCode?: string; readonly Code?: string; readonly code?: string };
  readonly response?: { readonly headers?: { get(name: string): string | undefined } };
}

/** The kind of an HTTP answer: by the service's code where that is unambiguous, else by status. */
export function kindOfStatus(status: number, serviceCode?: string): BlobErrorKind {
  if (status !== 403 && status !== 401 && status !== 404) {
    for (const [pattern, kind] of kindByCode) if (pattern.test(serviceCode ?? '')) return kind;
  }
  return kindByStatus[status] ?? 'other';
}

/** Removes what must never be logged: SAS signatures, account keys, bearer tokens. */
export function withoutSecrets(text: string): string {
  return text
    .replace(/\bsig=[^&\s"'<>()]+/gi, 'sig=***')
    .replace(/((?:Account|SharedAccess)(?:Key|Signature)\s*[=:]\s*)[^;\s"']+/gi, '$1***')
    .replace(/(SharedKey(?:Lite)?\s+[a-z0-9]+:)[A-Za-z0-9+/=]+/gi, '$1***')
    .replace(/(Bearer\s+)[A-Za-z0-9._~+/=-]+/gi, '$1***');
}

/** Only the first line: the service appends RequestId and Time lines, Azurite a whole stack. */
function firstLine(text: string | undefined): string {
  return withoutSecrets((text ?? '').split(/\r?\n/, 1)[0] ?? '').slice(0, 400);
}

/**
 * The BlobError for whatever a blob call threw. `what` names the call and the blob ("read of a/b"). `signal` is the
 * caller's own: only it makes an `aborted`; a deadline of ours is `unreachable`.
 */
export function toBlobError(error: unknown, what: string, signal?: AbortSignal): BlobError {
  if (error instanceof BlobError) return error;
  if (signal?.aborted === true) return new BlobError('aborted', `${what}: cancelled`);
  const failure = (
    typeof error === 'object' && error !== null ? error : { message: String(error) }
  ) as HttpFailure;
  const status = failure.statusCode;
  if (status !== undefined && status > 0) {
    const serviceCode =
      failure.details?.errorCode ??
      failure.response?.headers?.get('x-ms-error-code') ??
      failure.details?.Code ??
      failure.code;
    const kind = kindOfStatus(status, serviceCode);
    const text = firstLine(failure.message);
    const shown = text === '' || text === serviceCode ? '' : `: ${text}`;
    return new BlobError(kind, `${what}: ${String(status)} ${serviceCode ?? ''}`.trimEnd() + shown, {
      status,
      serviceCode,
    });
  }
  const text = firstLine(failure.message);
  if (
    /^(AuthenticationError|AuthenticationRequiredError|CredentialUnavailableError|AggregateAuthenticationError|ChainedTokenCredential)/.test(
      failure.name ?? '',
    )
  ) {
    return new BlobError('forbidden', `${what}: no Entra ID token: ${text}`);
  }
  if (failure.name === 'AbortError' || failure.name === 'TimeoutError') {
    return new BlobError('unreachable', `${what}: no answer in time`);
  }
  if (
    failure.name === 'RestError' ||
    (failure.code !== undefined && /^(E[A-Z]|UND_|REQUEST_SEND)/.test(failure.code))
  ) {
    return new BlobError(
      'unreachable',
      `${what}: ${text}${failure.code !== undefined && !text.includes(failure.code) ? ` (${failure.code})` : ''}`,
    );
  }
  return new BlobError('other', `${what}: ${text}`);
}
