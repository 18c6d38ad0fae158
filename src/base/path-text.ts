/** Paths for people: on one line and unambiguous, whatever is in a name. */

/** C0 and C1, DEL, and the two that some take for line ends. */
const control = /[\x00-\x1f\x7f-\x9f\u2028\u2029]/;
/** Those of them that JSON leaves as they are. */
const raw = /[\x7f-\x9f\u2028\u2029]/g;

/**
 * A path as it is when that is plain; otherwise in double quotes with JSON's escapes, and `\xNN` for each byte that is not
 * part of UTF-8. What is in quotes has `\` doubled, so that no other name reads the same.
 */
export function pathText(path: string | Buffer): string {
  const parts = typeof path === 'string' ? [path] : utf8Parts(path);
  const plain = parts.every((part) => typeof part === 'string' && !control.test(part) && !/["\\]/.test(part));
  if (plain) return parts.join('');
  const escaped = parts.map((part) =>
    typeof part === 'string' ? escapedText(part) : `\\x${part.toString(16).padStart(2, '0')}`,
  );
  return `"${escaped.join('')}"`;
}

function escapedText(text: string): string {
  return JSON.stringify(text)
    .slice(1, -1)
    .replaceAll(raw, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Runs of UTF-8 as texts, other bytes as numbers. */
function utf8Parts(bytes: Buffer): readonly (string | number)[] {
  const parts: (string | number)[] = [];
  let text = 0;
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes, at);
    if (length === 0) {
      if (at > text) parts.push(bytes.toString('utf8', text, at));
      parts.push(bytes[at] ?? 0);
      text = at + 1;
    }
    at += Math.max(1, length);
  }
  if (bytes.length > text) parts.push(bytes.toString('utf8', text));
  return parts;
}

/** Of the character that begins at `at`; 0 when none does. */
function sequenceLength(bytes: Buffer, at: number): number {
  const lead = bytes[at] ?? 0;
  const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  const character = bytes.subarray(at, at + length);
  // Overlong forms and halves of surrogate pairs do not come back as they were.
  return Buffer.from(character.toString('utf8')).equals(character) ? length : 0;
}
