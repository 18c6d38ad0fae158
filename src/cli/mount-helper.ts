/**
 * `mount.lustrite CONTAINER MNT -o …`: what mount(8) runs for `mount -t lustrite` and for a line of /etc/fstab. Exit codes
 * are mount's: 1 the call is wrong, 32 the mount failed.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { StatusReport } from '../base/control-api.js';
import { messageChain, UserError } from '../base/errors.js';
import { redact } from '../base/log.js';
import { resolvedPath } from '../base/mount-table.js';
import { registeredMount } from '../base/registry.js';
import { mountConfiguration } from './configuration.js';
import { Exit, UsageError } from './failure.js';
import { mount } from './mount.js';
import { mountRequest, type MountRequest } from './mount-options.js';
import { note } from './output.js';
import { targetAt } from './target.js';

const Code = { usage: 1, failed: 32 } as const;

/** Of mount(8): -f, -s, -v, and -o, all of them together. */
export interface HelperOptions {
  readonly fake?: true;
  readonly sloppy?: true;
  readonly verbose?: true;
  readonly options?: readonly string[];
}

/** What fstab has for a file system that is nowhere: the store, or where it was mounted last, says which container. */
const unnamed: readonly string[] = ['none', 'lustrite'];

export async function mountHelper(container: string, path: string, options: HelperOptions): Promise<void> {
  try {
    const request = mountRequest((options.options ?? []).join(','), { sloppy: options.sloppy === true });
    if (request.remount) await remount(path, request, options);
    else await mountAsAsked(container, path, request, options);
  } catch (error) {
    if (!(error instanceof Exit)) note(redact(messageChain(error)));
    throw new Exit(error instanceof UsageError ? Code.usage : Code.failed);
  }
}

async function mountAsAsked(
  container: string,
  path: string,
  { flags, config, readOnly, attributes }: MountRequest,
  { fake, verbose }: HelperOptions,
): Promise<void> {
  const named = unnamed.includes(container) ? {} : { container };
  const { container: said } = flags;
  if (named.container !== undefined && typeof said === 'string' && said !== container) {
    throw new UsageError(
      `-o container=${said}: the container to mount is '${container}' already; say it once`,
    );
  }
  const all = { ...flags, ...named, ...(readOnly && { readOnly }) };
  if (fake === true) {
    await mountConfiguration(resolvedPath(path), all, config);
    return;
  }
  await mount(path, all, { quiet: verbose !== true, ...(config !== undefined && { config }) });
  try {
    await setAttributes(path, attributes);
  } catch (error) {
    // Nobody is served without what he has asked for.
    await targetAt(path).client.post('/v1/umount', { lazy: true });
    throw error;
  }
}

/** Rejects with a UserError when there is no such mount, or it was mounted read-only and is to be written. */
async function remount(path: string, request: MountRequest, { fake }: HelperOptions): Promise<void> {
  const { readOnly, attributes, flags, config } = request;
  const mountPoint = resolvedPath(path);
  if (registeredMount(mountPoint) === undefined)
    throw new UserError('NotFound', `no lustrite is mounted on ${mountPoint}: there is nothing to remount`);
  const status = await targetAt(path).client.get<StatusReport>('/v1/status');
  if (status.readOnly && !readOnly) {
    const again = `umount ${mountPoint} and mount it with rw`;
    throw new UserError(
      'Conflict',
      `${mountPoint} was mounted read-only, and its daemon takes no change: ${again}`,
    );
  }
  if (config !== undefined || Object.keys(flags).length > 0)
    note(
      `${mountPoint}: a remount changes ro, rw, exec, atime and their like; settings stay as they were mounted`,
    );
  if (fake !== true) await setAttributes(path, [readOnly ? 'ro' : 'rw', ...attributes]);
}

/** By mount(8) itself, for this mount alone: the daemon has no part in them. */
async function setAttributes(path: string, attributes: readonly string[]): Promise<void> {
  if (attributes.length === 0) return;
  const options = ['remount', 'bind', 'nosuid', 'nodev', ...attributes].join(',');
  await promisify(execFile)('mount', ['-i', '-o', options, '--', resolvedPath(path)]).catch(
    (error: unknown) => {
      const said = (error as { readonly stderr?: string }).stderr?.trim() ?? '';
      throw new UserError(
        'MountFailed',
        `mount -o ${options} ${path}: ${said === '' ? messageChain(error) : said}`,
      );
    },
  );
}
