/** What bulk verbs have come to, for people. */
import type { BulkView } from '../base/control-api.js';
import { bytesText, counted } from './output.js';

/** What is measured over. */
const windowMs = 10_000;

/** Of the last seconds; undefined while there is nothing to tell from. */
export interface Rate {
  readonly filesPerSecond: number;
  readonly bytesPerSecond: number;
}

interface Sample {
  readonly atMs: number;
  readonly files: number;
  readonly bytes: number;
}

/** How fast it goes, over a window that moves. */
export class Speed {
  #samples: readonly Sample[] = [];

  add(atMs: number, { files, bytes }: BulkView['done']): Rate | undefined {
    const recent = this.#samples.filter((sample) => sample.atMs >= atMs - windowMs);
    this.#samples = [...recent, { atMs, files, bytes }];
    const [first] = this.#samples;
    if (first === undefined || atMs - first.atMs < 1000) return undefined;
    const seconds = (atMs - first.atMs) / 1000;
    return {
      filesPerSecond: Math.max(0, files - first.files) / seconds,
      bytesPerSecond: Math.max(0, bytes - first.bytes) / seconds,
    };
  }
}

/** Seconds that are left at that rate, by files or by bytes, whichever takes longer; undefined: nobody knows. */
export function secondsLeft({ total, done }: BulkView, rate: Rate | undefined): number | undefined {
  if (rate === undefined) return undefined;
  const left = [
    [total.files - done.files, rate.filesPerSecond],
    [total.bytes - done.bytes, rate.bytesPerSecond],
  ].map(([rest = 0, speed = 0]) => (rest <= 0 ? 0 : rest / speed));
  const seconds = Math.max(...left);
  return Number.isFinite(seconds) ? Math.ceil(seconds) : undefined;
}

/** `5s`, `2m 05s`, `3h 04m`, `2d 05h`. */
export function durationText(seconds: number): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit));
  if (!minutes) return `${seconds}s`;
  if (!hours) return `${minutes}m ${two(seconds % 60)}s`;
  if (!days) return `${hours}h ${two(minutes % 60)}m`;
  return `${days}d ${two(hours % 24)}h`;
}

/** With what has come of files that are not whole yet: the progress of one that stays unfinished is no result. */
export function underWay(view: BulkView): BulkView {
  const { done, movedBytes } = view;
  return { ...view, done: { ...done, bytes: done.bytes + movedBytes } };
}

/** One line of progress: `hydrate: 12 of 40 files, 3.0 MiB of 10.0 MiB (30 %), 1.0 MiB/s, 4 files/s, 7s left`. */
export function bulkLine(view: BulkView, rate: Rate | undefined): string {
  const { verb, state, total, done, failed } = view;
  if (state === 'Counting') return `${verb}: counting, ${counted(total.files, 'file')} so far`;
  const share = total.bytes > 0 ? done.bytes / total.bytes : total.files > 0 ? done.files / total.files : 1;
  const left = secondsLeft(view, rate);
  return [
    `${verb}: ${done.files} of ${counted(total.files, 'file')}`,
    `${bytesText(done.bytes)} of ${bytesText(total.bytes)} (${Math.min(100, Math.floor(share * 100))} %)`,
    ...(rate === undefined
      ? []
      : [`${bytesText(Math.round(rate.bytesPerSecond))}/s`, `${Math.round(rate.filesPerSecond)} files/s`]),
    ...(failed === 0 ? [] : [`${failed} failed`]),
    ...(left === undefined ? [] : [`${durationText(left)} left`]),
  ].join(', ');
}

const keptTexts: Readonly<Record<string, string>> = {
  recent: 'used recently',
  lost_from_hsm: 'lost_from_hsm',
  no_room: 'for which the disk has no room',
};

/** `12 files restored (3.0 MiB), 3 were here already, 1 failed`. */
export function resultText({ verb, dryRun, state, total, done, there, kept, failed }: BulkView): string {
  const what = verb === 'hydrate' ? 'restored' : 'released';
  const { files, bytes } = dryRun ? total : done;
  const already = verb === 'hydrate' ? 'here already' : 'released already';
  const reasons = Object.entries(kept).map(([reason, count]) => `${count} ${keptTexts[reason] ?? reason}`);
  return [
    ...(state === 'Counting' ? ['not counted to the end'] : []),
    `${counted(files, 'file')} ${dryRun ? 'would be ' : ''}${what} (${bytesText(bytes)})`,
    ...(there === 0 ? [] : [`${there} ${already}`]),
    ...(reasons.length === 0 ? [] : [`left alone: ${reasons.join(', ')}`]),
    ...(failed === 0 ? [] : [`${failed} failed`]),
  ].join(', ');
}
