/** A host with a mount as a user has it: `lustrite mount` in the background, in a folder of its own. */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { StatusReport } from '../../src/base/control-api.js';
import { lustrite, lustriteAsNobody } from './mount.js';
import { detachAll, mountAt } from './mounts.js';
import type { Ended } from './run.js';

/** False where uid 65534 can run this very lustrite; otherwise why not. */
export async function nobodyCannotRun(): Promise<string | false> {
  if (process.geteuid?.() !== 0) return 'needs root';
  const ran = await lustriteAsNobody(['--version']).catch(() => undefined);
  return ran?.code === 0 ? false : 'uid 65534 cannot read this clone';
}

export class Host {
  readonly folder: string;
  readonly mnt: string;
  readonly store: string;
  readonly env: Readonly<Record<string, string | undefined>>;

  private constructor(folder: string, env: Host['env']) {
    this.folder = folder;
    this.env = env;
    this.mnt = join(folder, 'mnt');
    this.store = join(folder, 'store');
  }

  static async create(t: Test, env: Host['env']): Promise<Host> {
    const host = new Host(await mkdtemp(join(tmpdir(), 'lustrite-life-')), env);
    await mkdir(host.mnt);
    t.teardown(async () => {
      if (mountAt(host.mnt) !== undefined) await host.lustrite('umount', host.mnt, '--lazy');
      if (!t.passing()) t.comment(`daemon.log:\n${await host.log()}`);
      if (await detachAll(host.folder)) await rm(host.folder, { recursive: true, force: true });
    });
    return host;
  }

  lustrite(...args: readonly string[]): Promise<Ended> {
    return lustrite(args, { env: this.env });
  }

  mount(...flags: readonly string[]): Promise<Ended> {
    return this.lustrite('mount', this.mnt, '--container', 'data', '--store', this.store, ...flags);
  }

  umount(...flags: readonly string[]): Promise<Ended> {
    return this.lustrite('umount', this.mnt, ...flags);
  }

  async status(): Promise<StatusReport> {
    const { stdout, stderr } = await this.lustrite('status', this.mnt, '--json');
    if (stdout === '') throw new Error(stderr);
    return JSON.parse(stdout) as StatusReport;
  }

  at(...parts: readonly string[]): string {
    return join(this.mnt, ...parts);
  }

  log(): Promise<string> {
    return readFile(join(this.store, 'daemon.log'), 'utf8').catch(() => '');
  }
}
