/** The one place where errors become HTTP answers: `{error: {code, message}}`, as Azure's. */
import { BlobError, FsError, messageChain, UserError } from '../base/errors.js';
import type { ErrorEnvelope } from '../base/control-api.js';
import { redact } from '../base/log.js';

export interface HttpError {
  readonly status: number;
  readonly body: ErrorEnvelope;
}

const fsStatus: Readonly<Record<string, number>> = {
  EINVAL: 400,
  ENOENT: 404,
  EBUSY: 409,
  EPERM: 403,
  EACCES: 403,
};

function shaped(status: number, code: string, message: string): HttpError {
  return { status, body: { error: { code, message: redact(message) } } };
}

export function toHttpError(error: unknown): HttpError {
  if (error instanceof UserError) return shaped(error.status, error.code, messageChain(error));
  if (error instanceof FsError) return shaped(fsStatus[error.code] ?? 500, error.code, messageChain(error));
  if (error instanceof BlobError) return shaped(502, `Blob.${error.kind}`, messageChain(error));
  // Fastify's own refusals (no such route, body too large, not JSON) and what the addon throws.
  const { statusCode, code } = error as { readonly statusCode?: number; readonly code?: string };
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return shaped(statusCode, statusCode === 404 ? 'NotFound' : 'InvalidParameter', messageChain(error));
  }
  if (code !== undefined && code in fsStatus) return shaped(fsStatus[code] ?? 500, code, messageChain(error));
  return shaped(500, code ?? 'InternalError', messageChain(error));
}
