import { readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';
import { Application } from '../helpers/application.js';
import { runAs, type User } from '../helpers/as-user.js';
import type { ChangelogReaderView, ChangelogView, HsmParameterList } from '../../src/base/control-api.js';
import type { Match } from '../helpers/fault-server.js';
import { hsmFlags, lfs, lfsPath, states, untilFlags } from '../helpers/lfs.js';
import type { MountedContainer } from '../helpers/mounted-container.js';
import { until } from '../helpers/poll.js';
import { ok, start, type Ended, type Running } from '../helpers/run.js';

/** How a request ended, as the daemon's history has it. */
export interface Finished {
  readonly fid: string;
  readonly action: string;
  readonly result: 'SUCCEED' | 'FAILED' | 'CANCELED';
}

/** The folder of one test on a mount. Names are below that folder, of files as of blobs. */
export class Lab {
  readonly container: MountedContainer;
  /** Of the folder. */
  readonly path: string;
  readonly #t: Test;
  readonly #folder: string;
  readonly #opens: (() => void)[] = [];
  /** Parameters that go back to what they were. */
  readonly #set = new Set<string>();

  constructor(t: Test, container: MountedContainer, folder: string) {
    this.#t = t;
    this.container = container;
    this.#folder = folder;
    this.path = container.at(folder);
  }

  get storage(): MountedContainer['storage'] {
    return this.container.storage;
  }

  at(name: string): string {
    return join(this.path, name);
  }

  blobName(name: string): string {
    return `${this.#folder}/${name}`;
  }

  /** `lfs COMMAND FILE…`; options of the command follow it after blanks. */
  lfs(command: string, ...names: readonly string[]): Promise<Ended> {
    return lfs([...command.split(' '), ...names.map((name) => this.at(name))]);
  }

  /** The same for one that has to succeed, which prints nothing. */
  async ok(command: string, ...names: readonly string[]): Promise<void> {
    const { code, stdout, stderr } = await this.lfs(command, ...names);
    if (code !== 0 || stdout !== '' || stderr !== '')
      throw new Error(`lfs ${command} ${names.join(' ')}: ${String(code)} ${stdout}${stderr}`);
  }

  /** The same for a user. */
  lfsAs(user: User, command: string, ...names: readonly string[]): Promise<Ended> {
    const program = join(dirname(this.container.mount.path), 'lfs');
    return runAs(user, program, [...command.split(' '), ...names.map((name) => this.at(name))]);
  }

  flags(name: string): Promise<number> {
    return hsmFlags(this.at(name));
  }

  untilFlags(name: string, flags: number): Promise<void> {
    return untilFlags(this.at(name), flags);
  }

  /** What hsm_state prints behind the name. */
  async state(name: string): Promise<string> {
    return this.#behind(name, await ok(lfsPath, ['hsm_state', this.at(name)]));
  }

  /** What hsm_action prints behind the name. */
  async action(name: string): Promise<string> {
    return this.#behind(name, await ok(lfsPath, ['hsm_action', this.at(name)]));
  }

  #behind(name: string, line: string): string {
    const before = `${this.at(name)}: `;
    if (!line.startsWith(before) || !line.endsWith('\n')) throw new Error(`not a line of ${name}: ${line}`);
    return line.slice(before.length, -1);
  }

  async fid(name: string): Promise<string> {
    return (await ok(lfsPath, ['path2fid', this.at(name)])).trim();
  }

  /** Waits until no request of the file waits or runs. */
  async idle(name: string): Promise<void> {
    await until(async () => (await this.action(name)) === 'NOOP', { what: `the requests of ${name} to end` });
  }

  async untilAction(name: string, action: RegExp): Promise<void> {
    await until(async () => action.test(await this.action(name)), {
      what: `${name} to show ${String(action)}`,
    });
  }

  /** The requests of a file that have ended, newest last. */
  async finished(fid: string): Promise<readonly Pick<Finished, 'action' | 'result'>[]> {
    const hsm = (await this.container.mount.status())?.hsm as
      { readonly recent: readonly Finished[] } | undefined;
    return (hsm?.recent ?? [])
      .filter((request) => request.fid === fid)
      .map(({ action, result }) => ({ action, result }));
  }

  /** Waits until the last request of a file has ended, and so. */
  async untilFinished(fid: string, action: string, result: Finished['result']): Promise<void> {
    let last: Pick<Finished, 'action' | 'result'> | undefined;
    await until(
      async () => {
        last = (await this.finished(fid)).at(-1);
        return last?.action === action && last.result === result;
      },
      { what: `${action} of ${fid} to be ${result}` },
    );
  }

  /** A new file. */
  async write(name: string, content: string | Buffer): Promise<void> {
    await writeFile(this.at(name), content);
  }

  /** A new file that is archived. */
  async clean(name: string, content: string | Buffer): Promise<void> {
    await this.write(name, content);
    await this.container.archived(this.blobName(name));
  }

  /** A new file that is archived and released. */
  async stub(name: string, content: string | Buffer): Promise<void> {
    await this.clean(name, content);
    await this.released(name);
  }

  /** Releases it as soon as nobody has it open. */
  async released(name: string): Promise<void> {
    await this.container.released(this.blobName(name));
    if ((await this.flags(name)) !== states.stub) throw new Error(`${name} is not released`);
  }

  read(name: string): Promise<Buffer> {
    return readFile(this.at(name));
  }

  async text(name: string): Promise<string> {
    return (await this.read(name)).toString();
  }

  /** A program that reads it and may wait. */
  cat(name: string): Running {
    return start('cat', [this.at(name)]);
  }

  async size(name: string): Promise<number> {
    return (await stat(this.at(name))).size;
  }

  /** A process that uses files step by step. */
  application(): Application {
    const made = new Application();
    this.#t.teardown(() => made[Symbol.asyncDispose]());
    return made;
  }

  async blob(name: string): Promise<Buffer> {
    return this.container.container.getBlockBlobClient(this.blobName(name)).downloadToBuffer();
  }

  async hasBlob(name: string): Promise<boolean> {
    return this.container.container.getBlockBlobClient(this.blobName(name)).exists();
  }

  /** Another client makes or replaces a blob. */
  async put(name: string, content: string): Promise<void> {
    await this.container.upload({ [this.blobName(name)]: content });
  }

  /** Another client deletes a blob. */
  async deleteBlob(name: string): Promise<void> {
    await this.container.container.getBlockBlobClient(this.blobName(name)).delete();
  }

  /** Requests of the daemon for a blob since the test began. */
  count(method: string, name: string, query?: string): number {
    return this.storage.count({ method, blob: this.blobName(name), ...(query !== undefined && { query }) });
  }

  /** Such requests wait from now on, until the function that is returned has been called or the test is over. */
  hold(method: string, name: string | RegExp, match: Pick<Match, 'skip' | 'query'> = {}): () => void {
    const blob = typeof name === 'string' ? this.blobName(name) : name;
    const open = this.container.hold({ method, blob, ...match });
    this.#opens.push(open);
    this.#t.teardown(open);
    return () => {
      // Later ones of the test pass at once.
      this.storage.clear();
      open();
    };
  }

  /** Whatever waits in the storage passes. */
  openAll(): void {
    this.storage.clear();
    for (const open of this.#opens.splice(0)) open();
  }

  /** A parameter of the coordinator. */
  async parameter(name: string): Promise<string> {
    const { value } = (await this.container.mount.control(
      'GET',
      `/v1/hsm/parameters?pattern=${name}`,
    )) as HsmParameterList;
    return value[0]?.value ?? '';
  }

  /** `NAME=VALUE`; it is as before when the test is over. */
  async set(text: string): Promise<void> {
    const [name = '', value = ''] = text.split('=');
    const before = await this.parameter(name);
    const put = (to: string): Promise<unknown> =>
      this.container.mount.control('PUT', '/v1/hsm/parameters', {
        assignments: [{ pattern: name, value: to }],
      });
    await put(value);
    if (this.#set.has(name)) return;
    this.#set.add(name);
    this.#t.teardown(() => put(name === 'hsm.policy' ? 'NRA' : before));
  }

  /**
   * From now on, until the test is over, what happens is recorded; the function that is returned answers what the
   * changelog says of a FID: `HSM 0x280`.
   */
  async changelog(): Promise<(fid: string) => Promise<readonly string[]>> {
    const { mount } = this.container;
    const { id } = (await mount.control('POST', '/v1/changelog/readers', {})) as ChangelogReaderView;
    this.#t.teardown(() => mount.control('DELETE', `/v1/changelog/readers/${id}`));
    return async (fid) =>
      (await this.#changelog())
        .filter(({ target }) => target === fid)
        .map(({ type, flags }) => `${type} 0x${flags.toString(16)}`);
  }

  /** As `lfs changelog` prints them. */
  async changelogLines(): Promise<readonly string[]> {
    return (await this.#changelog()).map(({ text }) => text);
  }

  async #changelog(): Promise<ChangelogView['value']> {
    return ((await this.container.mount.control('GET', '/v1/changelog')) as ChangelogView).value;
  }

  /** Waits until such a request has arrived. */
  arrived(method: string, name: string, count = 1): Promise<void> {
    return this.container.arrived({ method, blob: this.blobName(name) }, count);
  }
}
