/** `lustrite hydrate PATH…` and `lustrite release PATH…`. */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { BulkView } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import { isWithin, lustriteMounts, resolvedPath } from '../base/mount-table.js';
import { registeredMounts } from '../base/registry.js';
import { bulkLine, resultText, Speed, underWay } from './bulk-text.js';
import { Exit, UsageError } from './failure.js';
import { note, say, sayJson } from './output.js';
import { deadText, refuseWithoutRoot, targetAt, type Target } from './target.js';
import { follow } from './wait.js';

interface Shown {
  readonly json?: boolean;
  readonly dryRun?: boolean;
}

export interface Hydrate extends Shown {
  readonly concurrency?: string;
}

export interface Release extends Shown {
  readonly olderThan?: string;
  /** Instead of paths, as `export create --path`. */
  readonly path?: readonly string[];
}

export async function hydrate(paths: readonly string[], options: Hydrate): Promise<void> {
  const { concurrency, dryRun = false } = options;
  if (concurrency !== undefined && !/^[1-9]\d{0,3}$/.test(concurrency))
    throw new UsageError(`--concurrency: '${concurrency}' is not a whole number from 1 to 4096`);
  const { target, inside } = located(paths);
  await bulk(target, '/v1/hydrate', options, {
    paths: inside,
    dryRun,
    ...(concurrency !== undefined && { concurrency: Number(concurrency) }),
  });
}

export async function release(paths: readonly string[], options: Release): Promise<void> {
  const { olderThan, dryRun = false } = options;
  const unusedForMs = olderThan === undefined ? undefined : ageMs(olderThan);
  const { target, inside } = located(withinMount(paths, options.path ?? []));
  await bulk(target, '/v1/release', options, {
    paths: inside,
    dryRun,
    ...(unusedForMs !== undefined && { unusedForMs }),
  });
}

/** `--path /results` of one mount is its directory results; a path that is in a mount already names that, and is meant as it is. */
function withinMount(mounts: readonly string[], named: readonly string[]): readonly string[] {
  if (named.length === 0) return mounts;
  const [mount, other] = mounts;
  if (other !== undefined) throw new UsageError('--path goes with one mount');
  refuseWithoutRoot();
  return named.map((path) => {
    const at = mount === undefined ? resolvedPath(path) : path;
    if (registeredMounts().some(({ mountPoint }) => isWithin(at, mountPoint))) return path;
    if (mount === undefined)
      throw new UsageError(`${path} is in no mount: lustrite release MNT --path ${path}, or a path that is`);
    return join(mount, path);
  });
}

const ages: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3600_000,
  d: 86_400_000,
  w: 604_800_000,
};

function ageMs(age: string): number {
  const [, number = '', unit = ''] = /^(\d{1,6})([smhdw])$/.exec(age) ?? [];
  const factor = ages[unit];
  if (factor !== undefined) return Number(number) * factor;
  throw new UsageError(`--older-than: '${age}' is not an age such as 90s, 30m, 12h, 30d or 4w`);
}

/** The mount that all of the paths are in, and what they are called there. */
function located(paths: readonly string[]): { readonly target: Target; readonly inside: readonly string[] } {
  if (paths.length === 0) throw new UsageError('no path is named: a file, a directory or the mount itself');
  refuseWithoutRoot();
  const resolved = paths.map((path) => ({ path, at: resolvedPath(path) }));
  const mounts = registeredMounts().map(({ mountPoint }) => mountPoint);
  const found = resolved.map(({ path, at }) => {
    const mount = mounts.filter((one) => isWithin(at, one)).sort((a, b) => b.length - a.length)[0];
    if (mount === undefined) {
      const dead = lustriteMounts().find(({ mountPoint }) => isWithin(at, mountPoint));
      if (dead !== undefined) throw new UserError('Unreachable', deadText(dead.mountPoint));
      throw new UserError('NotFound', `${path} is in no mount of lustrite; lustrite status lists them`);
    }
    refuseMissing(path, at);
    return { path, mount, inside: `/${at.slice(mount.length).replace(/^\/+/, '')}` };
  });
  const [first] = found;
  const stranger = found.find(({ mount }) => mount !== first?.mount);
  if (first === undefined || stranger !== undefined) {
    throw new UsageError(`${first?.path ?? ''} and ${stranger?.path ?? ''} are in two mounts: one at a time`);
  }
  return { target: targetAt(first.mount), inside: found.map(({ inside }) => inside) };
}

function refuseMissing(path: string, at: string): void {
  try {
    lstatSync(at);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new UserError(
      'NotFound',
      `${path}: ${isMissing ? 'no such file or directory' : messageChain(error)}`,
    );
  }
}

async function bulk(
  { client, mount }: Target,
  route: string,
  { json = false }: Shown,
  request: object,
): Promise<void> {
  const speed = new Speed();
  const followed = await follow(
    (signal) => client.follow<BulkView>(route, request, signal),
    (view) => {
      const seen = underWay(view);
      return bulkLine(seen, speed.add(Date.now(), seen.done));
    },
    ({ state }) => state === 'Done' || state === 'Stopped',
  );
  const { last } = followed;
  if (followed.kind === 'cut') {
    if (last !== undefined) note(resultText(last));
    throw new UserError(
      'Unreachable',
      `the daemon of ${mount.mountPoint} ended before it was through; what was done stays done`,
    );
  }
  if (last !== undefined) {
    if (json) sayJson(followed.kind === 'interrupted' ? { ...last, state: 'Stopped' } : last);
    else say(resultText(last));
    tellFailures(last, json);
  }
  if (followed.kind === 'interrupted') {
    note('stopped; the same command goes on where it was');
    throw new Exit(130);
  }
  if (followed.last.error !== undefined) {
    const { code, message } = followed.last.error;
    if (json) throw new Exit(1);
    throw new UserError(code, message);
  }
  const { failed, kept } = followed.last;
  if (failed > 0 || (kept['no_room'] ?? 0) > 0) throw new Exit(1);
}

function tellFailures({ failed, failures }: BulkView, json: boolean): void {
  if (json) return;
  for (const { path, cause } of failures) note(path === '' ? cause : `${path}: ${cause}`);
  if (failed > failures.length) note(`and ${failed - failures.length} more`);
}
