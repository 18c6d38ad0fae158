/** Directories that only names of blobs imply go with the last of those blobs (DESIGN 12). */
import { constants } from 'node:os';
import { messageChain } from '../../base/errors.js';
import type { Container } from '../../blob/port.js';
import { errnoOf, hasErrno } from '../../hsm/movers.js';
import type { Fid, NativeStore } from '../../store/inodes.js';
import type { ImportDefaults } from '../import/blob-stub.js';
import { isImplied } from '../import/conflict.js';
import { ancestors } from '../import/import.js';
import type { JobLog } from '../job-log.js';
import { lookAt } from './look.js';

const { ENOENT, ENOTEMPTY, ESTALE } = constants.errno;

export interface ImpliedDirectoryOptions {
  readonly native: Pick<NativeStore, 'lookup' | 'remove' | 'walk'>;
  readonly container: Pick<Container, 'properties' | 'check' | 'namespace'>;
  readonly defaults: ImportDefaults;
  readonly log: Pick<JobLog, 'add'>;
  readonly signal: AbortSignal;
}

/**
 * Removes, bottom-up, the directories above `gone`, paths whose blobs are gone, that are empty, are as an import makes
 * them of names below and have no blob of their own, of whatever kind: one that is a conflict with the directory keeps it.
 * On a hierarchical account every directory is a blob. Rejects where the container cannot be asked.
 */
export async function removeImplied(options: ImpliedDirectoryOptions, gone: Iterable<string>): Promise<void> {
  const { native, container, defaults, log, signal } = options;
  if (container.namespace.hierarchical) return;
  const above = [...new Set([...gone].flatMap(ancestors))];
  const levels = new Map<number, { readonly path: string; readonly fid: Fid }[]>();
  for (const [at, state] of (await native.lookup(above)).entries()) {
    const path = above[at];
    if (path === undefined || state?.type !== 'directory' || !isImplied(state, defaults)) continue;
    const level = ancestors(path).length;
    const others = levels.get(level);
    if (others === undefined) levels.set(level, [{ path, fid: state.fid }]);
    else others.push({ path, fid: state.fid });
  }
  for (const [, directories] of [...levels].sort(([a], [b]) => b - a)) {
    const empty: typeof directories = [];
    for (const one of directories) if (await isEmpty(native, one.path)) empty.push(one);
    if (empty.length === 0) continue;
    const names = empty.flatMap(({ path }) => [path, `${path}/`]);
    const { present } = await lookAt(container, names, signal);
    const named = new Set(present.map(({ name }) => name));
    for (const { path, fid } of empty) {
      if (named.has(path) || named.has(`${path}/`)) continue;
      try {
        await native.remove(path, fid);
        log.add({ level: 'info', path, code: 'Delete', message: 'no blob names it any more' });
      } catch (error) {
        if (hasErrno(error, ENOTEMPTY, ENOENT, ESTALE)) continue;
        log.add({ level: 'warn', path, code: 'Delete', message: messageChain(error) });
      }
    }
  }
}

/** Of a directory; false, too, where it is gone or cannot be read. */
export async function isEmpty(native: Pick<NativeStore, 'walk'>, path: string): Promise<boolean> {
  const walk = native.walk({ path, select: 'all', batch: 1 });
  try {
    return (await walk.next()) === null;
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return false;
  } finally {
    walk.close();
  }
}
