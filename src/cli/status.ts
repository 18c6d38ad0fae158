/** `lustrite status [MNT]`. */
import type { StatusReport } from '../base/control-api.js';
import { messageChain } from '../base/errors.js';
import { registeredMounts } from '../base/registry.js';
import { DaemonClient } from './client.js';
import { Exit } from './failure.js';
import { fieldsOf, jobLine } from './job-text.js';
import { bytesText, note, say, sayJson, table } from './output.js';
import { refuseWithoutRoot, targetAt } from './target.js';

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
  for (const mount of registeredMounts()) {
    try {
      reports.push(await new DaemonClient(mount).get<StatusReport>('/v1/status'));
    } catch (error) {
      note(messageChain(error));
      failed = true;
    }
  }
  if (json === true) sayJson(reports);
  else say(reports.length === 0 && !failed ? 'nothing is mounted' : reports.map(text).join('\n\n'));
  if (failed) throw new Exit(1);
}

function text(report: StatusReport): string {
  const { census, lastError } = report;
  const files = ['released', 'resident', 'dirty', 'new'].map((state) => {
    const bytes = census[`${state}Bytes`];
    return `${census[state] ?? 0} ${state}${bytes === undefined ? '' : ` (${bytesText(bytes)})`}`;
  });
  const entries = ['files', 'directories', 'symlinks'].map((type) => `${census[type] ?? 0} ${type}`);
  const rows: readonly (readonly [string, string])[] = [
    ['container', report.container],
    ['logs of jobs', report.loggingContainer ?? 'in the store only'],
    ['store', report.store],
    ['daemon', `pid ${report.pid}, lustrite ${report.version}, since ${report.startedAt}`],
    [
      'front end',
      `${report.frontEnd}, passthrough ${report.passthrough ? 'on' : 'off'}${report.readOnly ? ', read-only' : ''}`,
    ],
    ['entries', entries.join(', ')],
    ['files', files.join(', ')],
    ['job', jobText(report)],
    ['held requests', String(report.heldRequests)],
    ['last error', lastError === null ? 'none' : `${lastError.time} ${lastError.message}`],
  ];
  return `${report.mountPoint}\n${table(rows.map(([name, value]) => [`  ${name}`, value]))}`;
}

/** The running job, or else how the last one ended, and when. */
function jobText({ runningJob, lastJob }: StatusReport): string {
  if (runningJob !== null) return `${runningJob.kind} ${jobLine(runningJob)}`;
  if (lastJob === undefined || lastJob === null) return 'none is running';
  const ended = fieldsOf(lastJob.properties.status)['lastCompletionTime'];
  const when = typeof ended === 'string' ? `${ended} ` : '';
  return `none is running; the last one: ${when}${lastJob.kind} ${jobLine(lastJob)}`;
}
