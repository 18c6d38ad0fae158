import { AbortError } from '@azure/abort-controller';
import { RestError } from '@azure/core-rest-pipeline';
import t from 'tap';
import { BlobError } from '../../src/base/errors.js';
import type { BlobErrorKind } from '../../src/base/errors.js';
import { kindOfStatus, toBlobError, withoutSecrets } from '../../src/blob/azure-errors.js';

const statuses: readonly [status: number, code: string | undefined, kind: BlobErrorKind][] = [
  [304, undefined, 'changed'],
  [400, 'InvalidHeaderValue', 'other'],
  [400, 'Md5Mismatch', 'corrupt'],
  [400, 'InvalidBlobOrBlock', 'unsupported'],
  [401, 'NoAuthenticationInformation', 'forbidden'],
  [403, 'AuthenticationFailed', 'forbidden'],
  [403, undefined, 'forbidden'],
  [404, 'BlobNotFound', 'missing'],
  [404, undefined, 'missing'],
  [409, 'BlobAlreadyExists', 'exists'],
  [409, 'BlobArchived', 'archived'],
  [409, 'BlobBeingRehydrated', 'archived'],
  [409, 'LeaseIdMismatchWithBlobOperation', 'leased'],
  [409, 'InvalidBlobType', 'unsupported'],
  [409, 'SnapshotsPresent', 'other'],
  [409, 'ContainerBeingDeleted', 'missing'],
  [412, 'ConditionNotMet', 'changed'],
  [412, 'LeaseIdMissing', 'leased'],
  [412, undefined, 'changed'],
  [416, 'InvalidRange', 'changed'],
  [429, undefined, 'throttled'],
  [500, 'InternalError', 'unreachable'],
  [503, 'ServerBusy', 'throttled'],
  [504, undefined, 'unreachable'],
];

t.test('the kind of an answer follows its status, then its code', (t) => {
  for (const [status, code, kind] of statuses) {
    t.equal(kindOfStatus(status, code), kind, `${String(status)} ${code ?? ''}`);
    const error = toBlobError(
      new RestError('said the service\nRequestId:1', {
        statusCode: status,
        ...(code !== undefined && { code }),
      }),
      'read of a',
    );
    t.match(error, { kind, status, serviceCode: code });
    t.equal(
      error.message,
      `read of a: ${String(status)}${code === undefined ? '' : ` ${code}`}: said the service`,
    );
  }
  t.end();
});

t.test('failures without an answer', (t) => {
  const aborted = AbortSignal.abort();
  const kinds: readonly [string, unknown, AbortSignal | undefined, BlobErrorKind][] = [
    ['our own signal', new AbortError('x'), aborted, 'aborted'],
    ['whatever came after our own signal', new Error('x'), aborted, 'aborted'],
    ['an abort that was not ours', new AbortError('x'), undefined, 'unreachable'],
    ['a deadline', Object.assign(new Error('x'), { name: 'TimeoutError' }), undefined, 'unreachable'],
    [
      'a reset connection',
      new RestError('other side closed', { code: 'ECONNRESET' }),
      undefined,
      'unreachable',
    ],
    [
      'a refused connection',
      Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }),
      undefined,
      'unreachable',
    ],
    [
      'undici',
      Object.assign(new Error('terminated'), { code: 'UND_ERR_BODY_TIMEOUT' }),
      undefined,
      'unreachable',
    ],
    [
      'no token',
      Object.assign(new Error('no az login'), { name: 'AggregateAuthenticationError' }),
      undefined,
      'forbidden',
    ],
    ['a bug', new TypeError('x is not a function'), undefined, 'other'],
    ['a string', 'x', undefined, 'other'],
  ];
  for (const [title, error, signal, kind] of kinds)
    t.equal(toBlobError(error, 'read of a', signal).kind, kind, title);
  const own = new BlobError('corrupt', 'x');
  t.equal(toBlobError(own, 'read of a', aborted), own, 'a BlobError stays what it is');
  t.end();
});

t.test('secrets never reach a message', (t) => {
  const secrets: readonly [string, string][] = [
    ['GET https://a.blob.core.windows.net/c/b?sv=1&sig=c2VjcmV0%3D&se=2', 'c2VjcmV0'],
    ['AccountName=a;AccountKey=c2VjcmV0==;EndpointSuffix=x', 'c2VjcmV0'],
    ['SharedAccessSignature=sv=1&sig=c2VjcmV0', 'c2VjcmV0'],
    ['authorization: SharedKey acct:c2VjcmV0=', 'c2VjcmV0'],
    ['authorization: Bearer c2VjcmV0.abc-def', 'c2VjcmV0'],
  ];
  for (const [text, secret] of secrets) {
    t.notMatch(withoutSecrets(text), new RegExp(secret), text);
    t.notMatch(toBlobError(new Error(text), 'read of a').message, new RegExp(secret));
    t.notMatch(
      toBlobError(new RestError(text, { statusCode: 403 }), 'read of a').message,
      new RegExp(secret),
    );
  }
  t.end();
});
