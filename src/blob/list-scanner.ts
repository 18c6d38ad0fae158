/**
 * A scanner for the XML of List Blobs. The SDK's parser costs 200 us a blob and blocks the event loop for a second a
 * page; this one walks the text once. Offsets in the latin1 view of a page are byte offsets of the page, so that
 * every kept value is a small string of its own and no page outlives its blobs.
 */
import { BlobError } from '../base/errors.js';
import { accountKindOf, accountPosixOf, type AccountAttributes } from './account-attributes.js';
import type { ListedBlob } from './port.js';

export interface ListPage {
  readonly blobs: readonly ListedBlob[];
  /** What a listing with a delimiter leaves out: how the names begin, with the delimiter. */
  readonly prefixes: readonly string[];
  /** Where the next page starts; absent after the last one. A page may be empty and have one. */
  readonly nextMarker: string | undefined;
}

const slash = 0x2f;
const entity = /&(?:#x([0-9a-f]+)|#(\d+)|([a-z]+));/gi;
const namedEntities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function decodeEntities(text: string): string {
  return text.replace(entity, (whole, hex?: string, decimal?: string, named?: string) => {
    if (named !== undefined) return namedEntities[named] ?? whole;
    const code = hex !== undefined ? Number.parseInt(hex, 16) : Number(decimal);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

/** Service names with characters that XML cannot carry come percent-encoded (since 2021-02-12). */
function percentDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The few metadata keys of a container repeat a million times. */
const knownKeys = new Map<string, string>();
const knownKeysLimit = 1000;

function lowerKey(tag: string): string {
  const known = knownKeys.get(tag);
  if (known !== undefined) return known;
  const key = Buffer.from(tag, 'latin1').toString('latin1').toLowerCase();
  if (knownKeys.size < knownKeysLimit) knownKeys.set(Buffer.from(tag, 'latin1').toString('latin1'), key);
  return key;
}

/**
 * One page of a listing. Throws a BlobError when the text is not the whole of one. `accountFirst` as in
 * account-attributes.ts.
 */
export function scanListPage(body: Buffer, accountFirst = false): ListPage {
  const text = body.toString('latin1');
  const scan = new Scan(body, text, accountFirst);
  const blobs: ListedBlob[] = [];
  const prefixes: string[] = [];
  const end = text.lastIndexOf('</EnumerationResults>');
  if (end < 0 || !text.includes('<EnumerationResults')) throw incomplete();
  let at = text.indexOf('<Blobs>');
  if (at >= 0) {
    // The last one: metadata keys may be called like the elements of a page.
    const stop = text.lastIndexOf('</Blobs>', end);
    at += 7;
    while (at < stop) {
      const start = text.indexOf('<Blob', at);
      if (start < 0 || start >= stop) break;
      if (text.startsWith('>', start + 5)) at = scan.blob(start + 6, blobs);
      else if (text.startsWith('Prefix>', start + 5)) at = scan.blobPrefix(start + 12, prefixes);
      else at = start + 5;
    }
  }
  const open = text.indexOf('<NextMarker>', at < 0 ? 0 : at);
  const close = open < 0 ? -1 : text.indexOf('</NextMarker>', open);
  const marker = close < 0 ? '' : scan.value(open + 12, close);
  return { blobs, prefixes, nextMarker: marker === '' ? undefined : marker };
}

class Scan {
  readonly #body: Buffer;
  readonly #text: string;
  readonly #accountFirst: boolean;

  constructor(body: Buffer, text: string, accountFirst: boolean) {
    this.#body = body;
    this.#text = text;
    this.#accountFirst = accountFirst;
  }

  /** The decoded UTF-8 text between two offsets, as a string that does not keep the page. */
  value(from: number, to: number): string {
    const text = this.#body.toString('utf8', from, to);
    return text.includes('&') ? decodeEntities(text) : text;
  }

  /** The element's attributes (between its name and '>'), without keeping the page. */
  #ascii(from: number, to: number): string {
    return this.#body.toString('latin1', from, to);
  }

  /** Reads the name of a prefix that starts after `<BlobPrefix>`, appends it, returns the offset behind the name. */
  blobPrefix(from: number, prefixes: string[]): number {
    const open = this.#text.indexOf('<Name', from);
    const close = open < 0 ? -1 : this.#text.indexOf('>', open);
    const stop = close < 0 ? -1 : this.#text.indexOf('<', close);
    if (stop < 0) throw incomplete();
    const name = this.value(close + 1, stop);
    prefixes.push(this.#ascii(open, close).includes('Encoded="true"') ? percentDecode(name) : name);
    return stop;
  }

  /** Reads one blob that starts after `<Blob>`, appends it, returns the offset after `</Blob>`. */
  blob(from: number, blobs: ListedBlob[]): number {
    const text = this.#text;
    let name: string | undefined;
    let size = 0;
    let etag = '';
    let lastModifiedMs = 0;
    let md5: string | undefined;
    let tier: string | undefined;
    let inferred = false;
    const account: { -readonly [Key in keyof AccountAttributes]: AccountAttributes[Key] } = {};
    let metadata: Record<string, string> = {};
    let at = from;
    for (;;) {
      const open = text.indexOf('<', at);
      const close = open < 0 ? -1 : text.indexOf('>', open + 1);
      if (close < 0) throw incomplete();
      if (text.charCodeAt(open + 1) === slash) {
        at = close + 1;
        if (text.startsWith('/Blob>', open + 1)) break;
        continue;
      }
      const empty = text.charCodeAt(close - 1) === slash;
      const tag = text.slice(open + 1, empty ? close - 1 : close);
      at = close + 1;
      if (tag === 'Properties') continue; // its children are read as if they were the blob's own
      if (empty) continue;
      if (tag.startsWith('Metadata')) {
        metadata = {};
        at = this.#metadata(at, metadata);
        continue;
      }
      const stop = text.indexOf('<', at);
      if (stop < 0) throw incomplete();
      switch (tag) {
        case 'Name':
          name = this.value(at, stop);
          break;
        case 'Content-Length':
          size = Number(text.slice(at, stop));
          break;
        case 'Etag':
          etag = bareEtag(this.value(at, stop));
          break;
        case 'Last-Modified':
          lastModifiedMs = httpDate(text, at, stop);
          break;
        case 'Content-MD5':
          md5 = this.#ascii(at, stop);
          break;
        case 'AccessTier':
          tier = this.#ascii(at, stop);
          break;
        case 'AccessTierInferred':
          inferred = text.startsWith('true', at);
          break;
        case 'Owner':
          account.owner = this.value(at, stop);
          break;
        case 'Group':
          account.group = this.value(at, stop);
          break;
        case 'Permissions':
          account.permissions = this.#ascii(at, stop);
          break;
        case 'Acl':
          account.acl = this.value(at, stop);
          break;
        case 'ResourceType':
          account.resourceType = this.#ascii(at, stop);
          break;
        default:
          if (tag.startsWith('Name ')) {
            name = this.value(at, stop);
            if (/\bEncoded="true"/i.test(tag)) name = percentDecode(name);
          } else if (
            tag === 'Snapshot' ||
            tag === 'VersionId' ||
            tag === 'Deleted' ||
            tag === 'Tags' ||
            tag === 'OrMetadata'
          ) {
            // Not asked for; skipped whole, since the last two nest.
            const over = text.indexOf(`</${tag}>`, at);
            at = over < 0 ? stop : over;
            continue;
          }
      }
      at = stop;
    }
    if (name === undefined) throw new BlobError('corrupt', 'the blob listing has a blob without a name');
    const blob: { -readonly [Key in keyof ListedBlob]: ListedBlob[Key] } = {
      name,
      kind: accountKindOf(account, metadata, size),
      size,
      etag,
      lastModifiedMs,
      posix: accountPosixOf(account, metadata, this.#accountFirst),
      metadata,
    };
    if (md5 !== undefined && md5 !== '') blob.md5 = md5;
    if (tier !== undefined && !inferred) blob.tier = tier;
    blobs.push(blob);
    return at;
  }

  /** Fills `metadata` from the children that start at `from`; returns the offset after the closing tag. */
  #metadata(from: number, metadata: Record<string, string>): number {
    const text = this.#text;
    let at = from;
    for (;;) {
      const open = text.indexOf('<', at);
      const close = open < 0 ? -1 : text.indexOf('>', open + 1);
      if (close < 0) throw incomplete();
      at = close + 1;
      if (text.charCodeAt(open + 1) === slash) return at;
      if (text.charCodeAt(close - 1) === slash) {
        metadata[lowerKey(text.slice(open + 1, close - 1).trimEnd())] = '';
        continue;
      }
      const stop = text.indexOf('<', at);
      if (stop < 0) throw incomplete();
      metadata[lowerKey(text.slice(open + 1, close))] = this.value(at, stop);
      at = text.indexOf('>', stop) + 1;
      if (at === 0) throw incomplete();
    }
  }
}

function incomplete(): BlobError {
  return new BlobError('corrupt', 'the blob listing is incomplete');
}

/** An ETag without quotes: listings give it bare, HEAD and GET quoted. */
export function bareEtag(etag: string): string {
  return etag.replace(/^(?:W\/)?"(.*)"$/, '$1');
}

const months: Readonly<Record<string, number>> = {
  Jan: 0,
  Feb: 1,
  Mar: 2,
  Apr: 3,
  May: 4,
  Jun: 5,
  Jul: 6,
  Aug: 7,
  Sep: 8,
  Oct: 9,
  Nov: 10,
  Dec: 11,
};

/** "Tue, 24 Nov 2026 13:17:00 GMT" in milliseconds; by hand, since Date.parse costs as much as the rest of a blob. */
function httpDate(text: string, from: number, to: number): number {
  const month = months[text.slice(from + 8, from + 11)];
  if (to - from !== 29 || month === undefined) return Date.parse(text.slice(from, to)) || 0;
  const digits = (at: number): number => (text.charCodeAt(at) - 48) * 10 + text.charCodeAt(at + 1) - 48;
  const year = digits(from + 12) * 100 + digits(from + 14);
  return Date.UTC(year, month, digits(from + 5), digits(from + 17), digits(from + 20), digits(from + 23));
}
