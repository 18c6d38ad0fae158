/** Names that files can have here, and what becomes of them where blobs are: the whole table. */

export interface Name {
  readonly what: string;
  /** Below the mount. */
  readonly path: Buffer;
  /** Why no blob can have it; absent where one can. */
  readonly refused?: RegExp;
  /** It has the length that it is about, and no further component. */
  readonly exact?: true;
}

const maxChars = 1024;
const maxSegments = 254;

/** The table below `folder`, which is plain ASCII. Every name is another one, also without regard to what is refused. */
export function namesIn(folder: string): readonly Name[] {
  const at = (name: string): Buffer => Buffer.from(`${folder}/${name}`);
  const raw = (...bytes: readonly number[]): Buffer => Buffer.from([...at('raw'), ...bytes]);
  const depth = folder.split('/').length;
  const chars = (count: number): Buffer => at(filled(count - folder.length - 1));
  const segments = (count: number): Buffer => at(`${'s/'.repeat(count - depth - 1)}of ${String(count)}`);
  // prettier-ignore
  return [
    { what: 'plain', path: at('plain') },
    { what: 'spaces at both ends', path: at(' spaces ') },
    { what: 'what URLs and XML give a meaning', path: at(`%25%2F?#[]@!$&'()*+,;=:<>"|^\`{}~`) },
    { what: 'tab and newline', path: at('tab\tand\nnewline') },
    { what: 'carriage return', path: at('Icon\r') },
    { what: 'DEL', path: at('del\u007f') },
    { what: 'composed', path: at('\u00e4') },
    { what: 'decomposed', path: at('a\u0308') },
    { what: 'beyond the BMP', path: at('\u{1f600}') },
    { what: 'a byte order mark', path: at('\ufeffbom') },
    { what: 'dots in front', path: at('..dots') },
    { what: 'dots within', path: at('a..b/c.d') },
    { what: '1,024 characters', path: chars(maxChars), exact: true },
    { what: '254 segments', path: segments(maxSegments), exact: true },
    { what: 'a backslash', path: at('back\\slash'), refused: /'\\'/ },
    { what: 'only a backslash', path: at('\\'), refused: /'\\'/ },
    { what: 'a backslash in a directory', path: at('in\\side/file'), refused: /'\\'/ },
    { what: 'a dot behind', path: at('plain.'), refused: /ends in '\.'/ },
    { what: 'dots behind', path: at('plain...'), refused: /ends in '\.'/ },
    { what: 'dots only', path: at('...'), refused: /ends in '\.'/ },
    { what: 'a dot behind a directory', path: at('inside./file'), refused: /ends in '\.'/ },
    { what: 'U+0001', path: at('\u0001'), refused: /U\+0001/ },
    { what: 'U+001F', path: at('\u001f'), refused: /U\+001F/ },
    { what: 'U+FFFE', path: at('\ufffe'), refused: /U\+FFFE/ },
    { what: 'U+FFFF', path: at('\uffff'), refused: /U\+FFFF/ },
    { what: 'a byte of no character', path: raw(0xff), refused: /not valid UTF-8/ },
    { what: 'half a character', path: raw(0xe2, 0x82), refused: /not valid UTF-8/ },
    { what: 'half a surrogate pair', path: raw(0xed, 0xa0, 0x80), refused: /not valid UTF-8/ },
    { what: '1,025 characters', path: chars(maxChars + 1), refused: /1024 characters/, exact: true },
    { what: '255 segments', path: segments(maxSegments + 1), refused: /254 components/, exact: true },
  ];
}

/** Components of the greatest length in bytes, until there are `count` characters. */
function filled(count: number): string {
  const component = '\u20ac'.repeat(85);
  return `${component}/`.repeat(Math.ceil(count / 86)).slice(0, count - 1) + 'e';
}
