/**
 * The error types of lustrite. Each layer throws its own and converts the one below at its border; nothing throws
 * strings, everything keeps its `cause`.
 */
import { constants } from 'node:os';

const errnoByName = constants.errno as Readonly<Record<string, number>>;
const nameByErrno = new Map(Object.entries(errnoByName).map(([name, value]) => [value, name]));

/** `ENOENT` for 2; `E123` for a number this libc does not name. */
export function errnoName(errno: number): string {
  return nameByErrno.get(errno) ?? `E${String(errno)}`;
}

/** An operation on the file system failed; `errno` is what the caller of the system call sees. */
export class FsError extends Error {
  override readonly name = 'FsError';
  readonly errno: number;
  readonly code: string;
  constructor(errno: number | keyof typeof constants.errno, message: string, options?: ErrorOptions) {
    super(message, options);
    this.errno = typeof errno === 'number' ? errno : (errnoByName[errno] ?? 5);
    this.code = errnoName(this.errno);
  }
}

export type BlobErrorKind =
  | 'missing' // 404
  | 'changed' // 412, 304: the pinned version is gone
  | 'exists' // 409 BlobAlreadyExists
  | 'archived' // archive tier
  | 'leased'
  | 'forbidden' // 401, 403
  | 'throttled' // 429, 503
  | 'unreachable' // no connection, timeout, stalled or cut body
  | 'unsupported' // page/append blob where a block blob is needed, unaddressable name, API version
  | 'corrupt' // length or MD5 does not match
  | 'aborted' // our own signal
  | 'other';

/** A blob call failed. `blob` is named in the message; secrets never are. */
export class BlobError extends Error {
  override readonly name = 'BlobError';
  readonly kind: BlobErrorKind;
  readonly status: number | undefined;
  /** The service's error code, e.g. `ConditionNotMet`. */
  readonly serviceCode: string | undefined;
  constructor(
    kind: BlobErrorKind,
    message: string,
    options?: ErrorOptions & { status?: number | undefined; serviceCode?: string | undefined },
  ) {
    super(message, options);
    this.kind = kind;
    this.status = options?.status;
    this.serviceCode = options?.serviceCode;
  }
}

/** An account that does not answer now says nothing of one blob: whoever goes on later asks again. */
export function isOutage(error: unknown): boolean {
  return error instanceof BlobError && (error.kind === 'unreachable' || error.kind === 'throttled');
}

/** The disk, or somebody's share of it, has no room. */
export function isDiskFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** A command or request was refused: what is wrong and what to do, ready to print. */
export class UserError extends Error {
  override readonly name = 'UserError';
  /** ARM-like code: `Conflict`, `InvalidParameter`, … */
  readonly code: string;
  readonly status: number;
  constructor(code: string, message: string, options?: ErrorOptions & { status?: number }) {
    super(message, options);
    this.code = code;
    this.status = options?.status ?? (code === 'Conflict' ? 409 : code === 'NotFound' ? 404 : 400);
  }
}

/** The message of whatever was thrown, with its causes. */
export function messageChain(error: unknown): string {
  const parts: string[] = [];
  for (let at = error, depth = 0; at !== undefined && depth < 5; depth++) {
    const text = at instanceof Error ? at.message : typeof at === 'string' ? at : JSON.stringify(at);
    // Whoever wrapped an error may have put its message into his own.
    if (!`: ${parts.join(': ')}: `.includes(`: ${text}: `)) parts.push(text);
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(': ');
}
