/** `lustrite status [MNT]`. */
import type { SpaceView, StatusReport } from '../base/control-api.js';
import { messageChain } from '../base/errors.js';
import { lustriteMounts } from '../base/mount-table.js';
import { lingeringDaemons, registeredMounts, type RegisteredMount } from '../base/registry.js';
import { DaemonClient } from './client.js';
import { isDead } from './dead-mount.js';
import { Exit } from './failure.js';
import { endedAt, jobLine, outageText } from './job-text.js';
import { bytesText, counted, note, say, sayJson, table } from './output.js';
import { deadText, refuseWithoutRoot, targetAt } from './target.js';

export async function status(path: string | undefined, { json }: { readonly json?: boolean }): Promise<void> {
  if (path !== undefined) {
    const report = await targetAt(path).client.get<StatusReport>('/v1/status');
    if (json === true) sayJson(report);
    else say(text(report));
    return;
  }
  refuseWithoutRoot();
  const reports: StatusReport[] = [];
  let failed = false;
  const mounts = registeredMounts();
  for (const mount of [...mounts, ...lingeringDaemons()]) {
    try {
      reports.push(await new DaemonClient(mount).get<StatusReport>('/v1/status'));
    } catch (error) {
      note(messageChain(error));
      failed = true;
    }
  }
  const dead = await deadMounts(mounts);
  for (const mountPoint of dead) note(deadText(mountPoint));
  if (json === true) sayJson([...reports, ...dead.map((mountPoint) => ({ mountPoint, dead: true }))]);
  else if (reports.length > 0) say(reports.map(text).join('\n\n'));
  else if (!failed && dead.length === 0) say('nothing is mounted');
  if (failed) throw new Exit(1);
}

async function deadMounts(alive: readonly RegisteredMount[]): Promise<readonly string[]> {
  const unknown = lustriteMounts()
    .map(({ mountPoint }) => mountPoint)
    .filter((mountPoint) => !alive.some((mount) => mount.mountPoint === mountPoint));
  const dead = await Promise.all(unknown.map(isDead));
  return unknown.filter((_, at) => dead[at] === true);
}

function text(report: StatusReport): string {
  const { census, lastError } = report;
  const of = (state: string): string => {
    const bytes = census[`${state}Bytes`];
    return `${census[state] ?? 0} ${state}${bytes === undefined ? '' : ` (${bytesText(bytes)})`}`;
  };
  const files = `${of('released')}, ${of('resident')}; of these ${of('dirty')}, ${of('new')}`;
  const entries = ['files', 'directories', 'symlinks'].map((type) => `${census[type] ?? 0} ${type}`);
  const rows: readonly (readonly [string, string])[] = [
    ['container', `${report.container}${outageText(report.storageOutage)}`],
    ['namespace', namespaceText(report)],
    ['logs of jobs', report.loggingContainer ?? 'in the store only'],
    ['store', report.store],
    ['daemon', `pid ${report.pid}, lustrite ${report.version}, since ${report.startedAt}`],
    [
      'front end',
      `${report.frontEnd}, passthrough ${report.passthrough ? 'on' : 'off'}${report.readOnly ? ', read-only' : ''}`,
    ],
    ['entries', entries.join(', ')],
    ['files', files],
    ['job', jobText(report)],
    ...(report.space === undefined ? [] : [['disk', spaceText(report.space)] as const]),
    ...coordinatorRow(report),
    ['held requests', String(report.heldRequests)],
    ['last error', lastError === null ? 'none' : `${lastError.time} ${lastError.message}`],
  ];
  const how = report.lingering === true ? ' (unmounted lazily; files are still open)' : '';
  return `${report.mountPoint}${how}\n${table(rows.map(([name, value]) => [`  ${name}`, value]))}`;
}

/** Only where readers wait for somebody to turn it on again, or are refused. */
function coordinatorRow({ hsm, mountPoint }: StatusReport): readonly (readonly [string, string])[] {
  const { control = 'enabled' } = hsm;
  if (control === 'enabled') return [];
  const what =
    control === 'stopped'
      ? 'shutdown: nothing is restored, reads of released files are refused'
      : 'disabled: requests, and reads of released files, wait';
  return [['coordinator', `${what}; lustrite hsm set-param ${mountPoint} hsm_control=enabled`]];
}

function spaceText(space: SpaceView): string {
  const { usedPercent, freeBytes, highWatermark, lowWatermark, releasedFiles, releasedBytes, full } = space;
  const released = `${counted(releasedFiles, 'file')} (${bytesText(releasedBytes)}) released so far`;
  return [
    `${Math.ceil(usedPercent)} % used, ${bytesText(freeBytes)} free`,
    highWatermark === 0
      ? 'nothing is released by itself'
      : `clean files are released from ${highWatermark} % down to ${lowWatermark} %: ${released}`,
    ...(full ? ['too little is left to release'] : []),
  ].join('; ');
}

function namespaceText({ namespace }: StatusReport): string {
  if (namespace === undefined) return 'unknown';
  const saidBy = {
    account: 'as the account says',
    setting: 'as --hierarchical-namespace says',
    nobody: 'assumed: these credentials may not ask',
  } as const;
  return `${namespace.hierarchical ? 'hierarchical' : 'flat'}, ${saidBy[namespace.source]}`;
}

/** The running job, or else how the last one ended, and when. */
function jobText({ runningJob, lastJob }: StatusReport): string {
  if (runningJob !== null) {
    const refused =
      runningJob.kind === 'auto-import' ? '; lfs hsm_* is answered EBUSY until it is disabled' : '';
    return `${runningJob.kind} ${jobLine(runningJob)}${refused}`;
  }
  if (lastJob === undefined || lastJob === null) return 'none is running';
  const ended = endedAt(lastJob);
  return `none is running; the last one: ${ended === undefined ? '' : `${ended} `}${lastJob.kind} ${jobLine(lastJob)}`;
}
