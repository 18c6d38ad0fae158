/** `lustrite mount MNT`: starts the daemon, or becomes it, and returns when the mount is usable. */
import { fork, type ChildProcess } from 'node:child_process';
import { closeSync, lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { finalStates, firstImportName, type JobView, type StatusReport } from '../base/control-api.js';
import type { Config } from '../base/config.js';
import { messageChain, UserError } from '../base/errors.js';
import { credentialVariables, type Launch, type LaunchReport } from '../base/launch.js';
import { redact } from '../base/log.js';
import { isWithin, resolvedPath } from '../base/mount-table.js';
import { ensurePrivateDirectory, openPrivateLog, removeMade } from '../base/private-directory.js';
import { lingeringDaemons, registeredMount, registeredMounts } from '../base/registry.js';
import { unknownVariables } from '../base/variables.js';
import { mountConfiguration } from './configuration.js';
import { healMountPoint } from './dead-mount.js';
import { Exit, UsageError } from './failure.js';
import { obstacles } from './holders.js';
import { fieldsOf } from './job-text.js';
import { tellEnd } from './jobs.js';
import { note, say, sayJson } from './output.js';
import type { Flags } from './settings.js';
import { lingeringText, targetAt } from './target.js';
import { untilFinal } from './wait.js';

const logName = 'daemon.log';

export interface MountOptions {
  readonly config?: string;
  readonly foreground?: boolean;
  readonly wait?: boolean;
  readonly json?: boolean;
  /** Nothing is said of a mount that succeeded, but for notices. */
  readonly quiet?: boolean;
}

export async function mount(path: string, flags: Flags, options: MountOptions): Promise<void> {
  if (options.foreground === true && options.wait === true) {
    throw new UsageError(
      '--foreground and --wait exclude each other: a daemon in the foreground never returns',
    );
  }
  const mountPoint = resolvedPath(path);
  if (process.geteuid?.() !== 0) {
    throw new UserError('Forbidden', 'lustrite mount needs root: sudo --preserve-env lustrite mount …');
  }
  const { config, firstMount } = await mountConfiguration(mountPoint, flags, options.config);
  for (const warning of unknownVariables(process.env)) note(warning);
  await prepareMountPoint(config);
  const made = ensurePrivateDirectory(config.store, 'the store');
  const launch: Launch = { config, firstMount, env: credentialVariables(process.env) };
  // A container that does not exist, say: nothing was stored, and the cause is told here.
  const forget = (): void => {
    if (made !== undefined) removeMade(config.store, made, [logName]);
  };
  if (options.foreground === true) {
    await inForeground(launch, forget);
    return;
  }
  for (const notice of await startDaemon(launch, forget)) note(notice);
  if (options.quiet !== true) await tellMounted(config, options);
}

/** Refuses what would hide, double or deadlock a mount; takes away what a dead daemon left. */
async function prepareMountPoint({ mountPoint, store }: Config): Promise<void> {
  const there = registeredMount(mountPoint);
  if (there !== undefined) {
    throw new UserError(
      'Conflict',
      `${mountPoint} is mounted already: ${there.container}, store ${there.store}, pid ${there.pid}; lustrite umount ${mountPoint} first`,
    );
  }
  const at = resolvedPath(store);
  const sharing = registeredMounts().find((mount) => resolvedPath(mount.store) === at);
  if (sharing !== undefined) {
    throw new UserError(
      'Conflict',
      `the store ${store} is in use by the mount ${sharing.mountPoint} (pid ${sharing.pid})`,
    );
  }
  const lingering = lingeringDaemons().find((daemon) => resolvedPath(daemon.store) === at);
  if (lingering !== undefined) {
    throw new UserError('Conflict', `the store ${store} is in use: ${lingeringText(lingering)}`);
  }
  if (isWithin(at, mountPoint)) {
    throw new UserError(
      'InvalidParameter',
      `the store ${store} would be inside its own mount ${mountPoint}: choose another --store`,
    );
  }
  if (isWithin(mountPoint, at)) {
    throw new UserError(
      'InvalidParameter',
      `the mount point ${mountPoint} is inside the store ${store}: choose another one`,
    );
  }
  const around = registeredMounts().find((mount) => isWithin(at, mount.mountPoint));
  if (around !== undefined) {
    throw new UserError(
      'InvalidParameter',
      `the store ${store} is inside the mount ${around.mountPoint}: choose another --store`,
    );
  }
  if (await healMountPoint(mountPoint))
    note(`${mountPoint}: removed the dead mount of a daemon that is gone`);
  refuseUnlessDirectory(mountPoint);
}

function refuseUnlessDirectory(mountPoint: string): void {
  let directory: boolean;
  try {
    directory = lstatSync(mountPoint).isDirectory();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const advice = code === 'ENOENT' ? `does not exist: mkdir -p ${mountPoint}` : messageChain(error);
    throw new UserError('InvalidParameter', `the mount point ${mountPoint} ${advice}`);
  }
  if (!directory) throw new UserError('InvalidParameter', `the mount point ${mountPoint} is not a directory`);
}

async function inForeground(launch: Launch, forget: () => void): Promise<void> {
  for (const name of Object.keys(launch.env)) Reflect.deleteProperty(process.env, name);
  const { runDaemon } = await import('../daemon.js');
  const { container, mountPoint } = launch.config;
  try {
    await runDaemon(launch, {
      pretty: process.stderr.isTTY,
      tellsFailure: true,
      busy: () => {
        const found = obstacles(mountPoint);
        note(
          [
            `${mountPoint} is in use; close what uses it, or Ctrl-C again unmounts lazily:`,
            ...(found.length > 0 ? found : ['a process that cannot be seen from here']).map(
              (one) => `  ${one}`,
            ),
          ].join('\n'),
        );
      },
      lingering: () => {
        note(
          `${mountPoint} is unmounted; files are still open, and are served until they are closed. Ctrl-C again ends it at once`,
        );
      },
      ready: (notices) => {
        for (const notice of notices) note(notice);
        note(`${container} is mounted on ${mountPoint}; Ctrl-C unmounts`);
      },
    });
  } catch (error) {
    note(redact(messageChain(error)));
    forget();
    process.exit(1);
  }
  // Whatever a library still keeps open must not keep a daemon that has stopped.
  process.exit(0);
}

/** Resolves with the daemon's notices when the mount is usable; otherwise throws its cause, and no daemon is left. */
async function startDaemon(launch: Launch, forget: () => void): Promise<readonly string[]> {
  const logFile = join(launch.config.store, logName);
  const log = openPrivateLog(logFile);
  const env = { ...process.env };
  for (const name of Object.keys(launch.env)) Reflect.deleteProperty(env, name);
  const daemon = fork(
    fileURLToPath(new URL('../cli.js', import.meta.url)),
    ['daemon', launch.config.mountPoint],
    {
      cwd: '/',
      detached: true,
      env,
      execArgv: [],
      stdio: ['ignore', log, log, 'ipc'],
    },
  );
  closeSync(log);
  // The daemon is in a session of its own: Ctrl-C reaches this process only.
  const stop = (): void => {
    daemon.kill('SIGTERM');
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    const report = await firstReport(daemon, launch, logFile);
    if (report.kind === 'ready') return report.notices;
    await ended(daemon);
    forget();
    throw new UserError('MountFailed', report.message);
  } finally {
    process.removeListener('SIGINT', stop);
    process.removeListener('SIGTERM', stop);
    if (daemon.connected) daemon.disconnect();
    daemon.unref();
  }
}

function firstReport(daemon: ChildProcess, launch: Launch, logFile: string): Promise<LaunchReport> {
  return new Promise((resolve, reject) => {
    daemon.once('message', (message) => {
      resolve(message as LaunchReport);
    });
    daemon.once('error', reject);
    daemon.once('exit', (code, signal) => {
      const how = signal ?? `exit code ${code ?? '?'}`;
      reject(
        new UserError(
          'MountFailed',
          `the daemon ended (${how}) before the mount was usable${logTail(logFile)}`,
        ),
      );
    });
    daemon.send(launch, (error) => {
      // Its end is the better story.
      if (error !== null && daemon.exitCode === null && daemon.signalCode === null) return;
    });
  });
}

function ended(daemon: ChildProcess): Promise<void> {
  if (daemon.exitCode !== null || daemon.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    daemon.once('exit', () => {
      resolve();
    });
  });
}

function logTail(logFile: string): string {
  try {
    const lines = readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-5);
    return `; the end of ${logFile}:\n${lines.map((line) => `  ${line}`).join('\n')}`;
  } catch {
    return `; see ${logFile}`;
  }
}

async function tellMounted(config: Config, { wait, json }: MountOptions): Promise<void> {
  const target = targetAt(config.mountPoint);
  if (wait !== true) {
    const report = await target.client.get<StatusReport>('/v1/status');
    if (json === true) sayJson(report);
    else say(`${config.container} is mounted on ${config.mountPoint} (store ${config.store})`);
    const { runningJob } = report;
    if (json === true || runningJob === null) return;
    if (runningJob.kind === 'import')
      say(`the import is running; lustrite status ${config.mountPoint} shows how far it is`);
    else say(`the ${runningJob.kind} ${runningJob.name} goes on`);
    return;
  }
  const [{ startedAt }, { value }] = await Promise.all([
    target.client.get<StatusReport>('/v1/status'),
    target.client.get<{ readonly value: readonly JobView[] }>('/v1/jobs?kind=import'),
  ]);
  const first = value.find((job) => job.name === firstImportName);
  // Of an earlier daemon: how that ended was told then.
  if (first === undefined || isOver(first, startedAt)) {
    if (json === true) sayJson(null);
    else {
      const resumed = value.find(({ properties }) => !finalStates.includes(properties.status.state));
      const imports = resumed === undefined ? 'nothing was imported' : `the import ${resumed.name} goes on`;
      say(`${config.container} is mounted on ${config.mountPoint} (store ${config.store}); ${imports}`);
    }
    return;
  }
  const job = await untilFinal(target, firstImportName);
  if (json !== true) say(`${config.container} is mounted on ${config.mountPoint} (store ${config.store})`);
  try {
    tellEnd(target, job, { json: json === true });
  } catch (error) {
    if (error instanceof Exit)
      note(`the mount stays; lustrite import show ${config.mountPoint} has the details`);
    throw error;
  }
}

/** Whether the job was over when the daemon started. */
function isOver(job: JobView, daemonStartedAt: string): boolean {
  const { lastCompletionTime } = fieldsOf(job.properties.status);
  const { state } = job.properties.status;
  return finalStates.includes(state) && String(lastCompletionTime) < daemonStartedAt;
}
