import { setTimeout as delay } from 'node:timers/promises';
import { inspect } from 'node:util';

export interface UntilOptions {
  /** What is being waited for, for the message of a failure. */
  readonly what: string;
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
}

/**
 * Resolves with the first truthy value of `condition`, asked every 50 ms for at most 60 s. An exception of the condition
 * counts as "not yet" and is the cause of the failure when the time is up.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: UntilOptions,
): Promise<Exclude<T, false | undefined | null | 0 | ''>> {
  const { what, timeoutMs = 60_000, intervalMs = 50 } = options;
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  let cause: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value as Exclude<T, false | undefined | null | 0 | ''>;
      last = value;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() >= deadline) {
      const seen = cause instanceof Error ? cause.message : `the last answer was ${inspect(last)}`;
      throw new Error(`waited ${timeoutMs / 1000} s for ${what}: ${seen}`, { cause });
    }
    await delay(intervalMs);
  }
}
