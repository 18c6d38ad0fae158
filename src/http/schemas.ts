/** Shapes of what clients send. */
import { z } from 'zod';

/** Azure's rule for names of file systems and jobs. */
export const jobName = z
  .string()
  .regex(
    /^[0-9a-zA-Z][-0-9a-zA-Z_]{0,78}[0-9a-zA-Z]$/,
    'must be 2 to 80 letters, digits, dashes and underscores, with a letter or digit at both ends',
  );

export const jobParams = z.object({ name: jobName });

export const jobsQuery = z.object({
  kind: z.enum(['import', 'export', 'auto-import', 'auto-export']).optional(),
});

export const importBody = z.strictObject({
  name: jobName.optional(),
  prefixes: z
    .array(
      z
        .string()
        .min(1, 'a prefix that is empty; / is everything')
        .max(1024, 'longer than a blob name, 1,024 characters'),
    )
    .min(1)
    .max(100)
    .default(['/']),
  conflictResolutionMode: z.enum(['Fail', 'Skip', 'OverwriteIfDirty', 'OverwriteAlways']).optional(),
  maximumErrors: z
    .number()
    .int()
    .min(-1)
    .max(2 ** 31 - 1)
    .optional(),
});

/** Milliseconds; a day at most. */
const pollIntervalMs = z
  .number()
  .int()
  .min(100, 'the shortest interval is 100ms')
  .max(24 * 3600_000, 'the longest interval is 24h');

export const autoImportBody = importBody.extend({
  enableDeletions: z.boolean().default(false),
  changeSource: z.enum(['feed', 'listing']).optional(),
  pollIntervalMs: pollIntervalMs.default(5000),
});

const path = z
  .string()
  .min(1, 'a path that is empty; / is everything')
  .max(4096, 'longer than a path, 4,096 bytes');

export const autoExportBody = z.strictObject({
  name: jobName.optional(),
  prefixes: z.array(path).max(1).default(['/']),
  pollIntervalMs: pollIntervalMs.default(5000),
});

export const exportBody = z.strictObject({
  name: jobName.optional(),
  filesystemPath: path.default('/'),
});

export const unmountBody = z.strictObject({ lazy: z.boolean().default(false) });

export const dirtyQuery = z.object({ limit: z.coerce.number().int().min(0).max(1000).default(20) });

export const hsmParams = z.object({ verb: z.enum(['state', 'archive', 'restore', 'release']) });

export const hsmBody = z.strictObject({ path: z.string().min(1).max(4096) });

const pattern = z.string().min(1).max(256);

export const parametersQuery = z.object({
  pattern: z.union([pattern.transform((one) => [one]), z.array(pattern).max(100)]),
});

export const parametersBody = z.strictObject({
  assignments: z
    .array(z.strictObject({ pattern, value: z.string().max(1024) }))
    .min(1)
    .max(100),
  persistent: z.boolean().default(false),
});

const recordIndex = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
/** Coercion alone takes nothing, and blanks, for 0. */
const recordIndexText = z.string().regex(/^\d+$/, 'must be a number').transform(Number).pipe(recordIndex);

export const changelogQuery = z.object({
  start: recordIndexText.default(0),
  end: recordIndexText.default(Number.MAX_SAFE_INTEGER),
  limit: z.coerce.number().int().min(1).max(10_000).default(10_000),
});

export const readerParams = z.object({
  id: z.string().regex(/^cl[1-9][0-9]{0,15}$/, 'a reader is called cl1, cl2, …'),
});

export const clearBody = z.strictObject({ end: recordIndex });

const paths = z.array(path).min(1);

export const hydrateBody = z.strictObject({
  paths,
  concurrency: z.number().int().min(1).max(4096).optional(),
  dryRun: z.boolean().default(false),
});

export const releaseBody = z.strictObject({
  paths,
  unusedForMs: z.number().int().min(0).max(1e15).optional(),
  dryRun: z.boolean().default(false),
});
