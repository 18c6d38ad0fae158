/** Lines of the store's own logs, `<crc32 in hex> <json>`: one that was torn or lost a page is told from one that is whole. */
import { crc32 } from 'node:zlib';

/** A value as a line, with its end. */
export function checkedLine(value: unknown): string {
  const json = JSON.stringify(value);
  return `${checksum(json)} ${json}\n`;
}

/** The value of a line without its end; undefined where it does not match its checksum. */
export function checkedValue(text: string): unknown {
  const json = text.slice(9);
  if (text[8] !== ' ' || text.slice(0, 8) !== checksum(json)) return undefined;
  return JSON.parse(json) as unknown;
}

function checksum(json: string): string {
  return crc32(json).toString(16).padStart(8, '0');
}
