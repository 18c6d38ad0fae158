/** `hsm.actions`, `hsm.active_requests` and `hsm.agents` to the letter of a metadata server (lustre-hsm 5.2). */
import type { ListedRequest, TransferCounts } from './transfers.js';

/** Of a request for all of a file, which is what lfs sends. */
const wholeFile = '0x0-0xffffffffffffffff';

export interface ListingDefaults {
  /** Of who waits for a file that nobody has looked at yet. */
  readonly archiveId: number;
  /** Of the one copytool there is. */
  readonly agent: string;
}

/** One line a request that waits, runs or is over. */
export function actionsText(requests: readonly ListedRequest[], { archiveId }: ListingDefaults): string {
  return lines(requests, (request, at) =>
    [
      `lrh=[type=10680000 len=136 idx=1/${at + 1}]`,
      ...named(request, archiveId),
      `datalen=${request.data.length / 2}`,
      `status=${request.status}`,
      `data=[${shownData(request)}]`,
    ].join(' '),
  );
}

/** One line a request that runs. */
export function activeRequestsText(
  requests: readonly ListedRequest[],
  { archiveId, agent }: ListingDefaults,
): string {
  return lines(
    requests.filter(({ status }) => status === 'STARTED'),
    (request) =>
      [
        ...named(request, archiveId),
        `data=[${shownData(request)}]`,
        `canceled=${request.canceled ? 1 : 0}`,
        `uuid=${agent}`,
        `done=${request.moved}`,
      ].join(' '),
  );
}

/** The one copytool there is serves every archive. */
export function agentsText(counts: TransferCounts, { agent }: ListingDefaults): string {
  const { running, restored, archived, removed, failed } = counts;
  const current = running.implicit + running.explicit;
  const done = restored + archived + removed;
  return `uuid=${agent} archive_id=ANY requests=[current:${current} ok:${done} errors:${failed}]`;
}

function named({ fid, cookie, action, archiveId }: ListedRequest, defaultArchive: number): readonly string[] {
  return [
    `fid=${fid}`,
    `dfid=${fid}`,
    `compound/cookie=0x0/0x${cookie.toString(16)}`,
    `action=${action}`,
    `archive#=${archiveId || defaultArchive}`,
    'flags=0x0',
    `extent=${wholeFile}`,
    'gid=0x0',
  ];
}

/** The first five bytes, as Lustre prints them. */
function shownData({ data }: ListedRequest): string {
  return data.slice(0, 10).toUpperCase();
}

function lines<T>(items: readonly T[], line: (item: T, at: number) => string): string {
  return items.map(line).join('\n');
}
