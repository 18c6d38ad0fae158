/** `lustrite changelog`: what `lfs changelog` and `lctl changelog_register` do with Lustre's. */
import type { ChangelogReadersView, ChangelogReaderView, ChangelogView } from '../base/control-api.js';
import type { DaemonClient } from './client.js';
import { counted, note, say, sayJson, table } from './output.js';
import { targetAt } from './target.js';

interface JsonOption {
  readonly json?: boolean;
}

const readers = '/v1/changelog/readers';

/** With `json` one array, otherwise a line a record. */
export async function readChangelog(
  path: string,
  start: number | undefined,
  end: number | undefined,
  { json }: JsonOption,
): Promise<void> {
  const { client } = targetAt(path);
  const all: object[] = [];
  for await (const { value, missing } of pages(client, start, end)) {
    noteMissing(missing);
    if (json === true) all.push(...value.map(({ text: _, ...record }) => record));
    else if (value.length > 0) say(value.map(({ text }) => text).join('\n'));
  }
  if (json === true) sayJson(all);
  const { value } = await client.get<ChangelogReadersView>(readers);
  if (value.length === 0) note(`nothing is recorded without a reader: lustrite changelog register ${path}`);
}

export async function registerReader(path: string, { json }: JsonOption): Promise<void> {
  const { id, cleared } = await targetAt(path).client.post<ChangelogReaderView>(readers);
  if (json === true) sayJson({ id, cleared });
  else say(id);
}

export async function deregisterReader(path: string, id: string, { json }: JsonOption): Promise<void> {
  await targetAt(path).client.delete(`${readers}/${encodeURIComponent(id)}`);
  if (json === true) sayJson({ id });
}

export async function clearRecords(
  path: string,
  id: string,
  end: number,
  { json }: JsonOption,
): Promise<void> {
  const { client } = targetAt(path);
  const reader = await client.post<ChangelogReaderView>(`${readers}/${encodeURIComponent(id)}/clear`, {
    end,
  });
  noteMissing(reader.missing);
  if (json === true) sayJson(reader);
}

export async function listReaders(path: string, { json }: JsonOption): Promise<void> {
  const { currentIndex, value } = await targetAt(path).client.get<ChangelogReadersView>(readers);
  if (json === true) {
    sayJson({ currentIndex, value });
    return;
  }
  say(`current_index: ${currentIndex}`);
  const rows = value.map(({ id, cleared, missing }) => [id, String(cleared), String(missing)]);
  say(table([['ID', 'cleared', 'missing'], ...rows]));
}

async function* pages(
  client: DaemonClient,
  start = 0,
  end: number | undefined,
): AsyncGenerator<ChangelogView> {
  for (let from: number | undefined = start; from !== undefined;) {
    const range: string = `start=${from}${end === undefined ? '' : `&end=${end}`}`;
    const page: ChangelogView = await client.get<ChangelogView>(`/v1/changelog?${range}`);
    yield page;
    from = page.next;
  }
}

/** An idle reader is told that it cannot know everything. */
function noteMissing(missing: number): void {
  if (missing > 0) note(`${counted(missing, 'record')} went before they were cleared: there were too many`);
}
