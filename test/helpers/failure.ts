import { inspect } from 'node:util';
import type { Test } from 'tap';
import type { BlobErrorKind } from '../../src/base/errors.js';

export interface ExpectedFailure {
  readonly kind?: BlobErrorKind | RegExp;
  readonly status?: number;
  readonly errno?: number;
  readonly message?: string | RegExp;
}

/** Asserts that `promise` rejects with an error that matches; tap's own `rejects` knows only plain Errors. */
export async function fails(
  t: Test,
  promise: Promise<unknown>,
  expected: ExpectedFailure,
  title?: string,
): Promise<void> {
  const error: unknown = await promise.then(
    (value) => ({ resolved: value }),
    (reason: unknown) => reason,
  );
  t.match(error, expected, title ?? `fails with ${inspect(expected)}`);
}
