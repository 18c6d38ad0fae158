/** Names of files and what becomes of them where blobs are, and names of blobs and what becomes of them here: both tables. */

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

/** What a blob of this name is in the mount. */
export interface BlobCell {
  readonly what: string;
  readonly name: string;
  readonly size: 0 | 1;
  /** Its path; absent where it has none. */
  readonly path?: string;
  readonly refused?: RegExp;
  /** No client could write it, or no listing of an emulator would tell it: only a listing that is made up has it. */
  readonly listedOnly?: true;
}

const componentBytes = 255;
const pathBytes = 4095;

/** Names that blobs can have, none of which is in the way of another. */
export function blobCells(): readonly BlobCell[] {
  const full = 'x'.repeat(componentBytes);
  const wide = '\u20ac'.repeat(componentBytes / 3);
  const deep = `deep/${`${full}/`.repeat(15)}`.padEnd(pathBytes + 1, 'y');
  const kept = (what: string, name: string): BlobCell => ({ what, name, size: 1, path: name });
  const listed = (cell: BlobCell): BlobCell => ({ ...cell, listedOnly: true });
  const refused = (what: string, name: string, reason: RegExp, size: 0 | 1 = 1): BlobCell => ({
    what,
    name,
    size,
    refused: reason,
  });
  // prettier-ignore
  return [
    kept('plain', 'plain'),
    kept('nested', 'nested/in/file'),
    { what: 'a directory marker', name: 'marker/', size: 0, path: 'marker' },
    { what: 'a nested directory marker', name: 'in/marker/', size: 0, path: 'in/marker' },
    kept('spaces at both ends', ' spaces '),
    kept('what URLs and XML give a meaning', `%25%2F?#[]@!$&'()*+,;=:<>"|^\`{}~`),
    kept('an escape that is no UTF-8', '%FF%zz'),
    kept('tab and newline', 'tab\tand\nnewline'),
    kept('a quote', 'line"quote\''),
    kept('DEL', 'del\u007f'),
    kept('composed', '\u00e4'),
    kept('decomposed', 'a\u0308'),
    kept('beyond the BMP', '\u{1f600}'),
    kept('a byte order mark', '\ufeffbom'),
    kept('U+FFFD', '\ufffd'),
    kept('dots in front', '.hidden/..x'),
    listed(kept('a dot behind', 'trailing.')),
    listed(kept('three dots', '...')),
    kept('255 bytes', full),
    kept('255 bytes of longer characters', wide),
    kept('what begins like the reserved name', '.lustre.d/fid'),
    kept('the reserved name below the root', 'a/.lustre/fid'),
    listed(kept('carriage return', 'Icon\r')),
    listed(kept('U+0001', 'one\u0001')),
    listed(kept('U+001F', 'last\u001f')),
    listed(kept('U+FFFE', 'fffe\ufffe')),
    listed(kept('U+FFFF', 'ffff\uffff')),
    kept('1,024 characters', `long/${filled(maxChars - 5)}`),
    listed(refused('4,096 bytes', deep, /longer than 4095 bytes/)),
    listed(refused('no name', '', /empty/)),
    refused('only a slash', '/', /starts with '\/'/, 0),
    refused('a slash in front', '/leading', /starts with '\/'/),
    refused('two slashes', '//', /starts with '\/'/, 0),
    refused('a slash behind, with content', 'full/', /ends in '\/' and the blob is not empty/),
    refused('two slashes behind', 'twice//', /more than one '\/'/, 0),
    refused('two slashes within', 'b//c', /empty component/),
    listed(refused('.', '.', /component '\.'/)),
    listed(refused('..', '..', /component '\.\.'/)),
    listed(refused('a directory marker of ..', '../', /component '\.\.'/, 0)),
    listed(refused('.. in front', '../../etc/passwd', /component '\.\.'/)),
    listed(refused('.. within', 'up/../b', /component '\.\.'/)),
    listed(refused('.. behind', 'up/..', /component '\.\.'/)),
    listed(refused('. within', 'here/./b', /component '\.'/)),
    listed(refused('NUL', 'nul\0', /NUL/)),
    listed(refused('a backslash', 'back\\slash', /'\\'/)),
    listed(refused('half a surrogate pair', 'half\ud800', /Unicode/)),
    refused('256 bytes', `${full}x`, /longer than 255 bytes/),
    refused('258 bytes of longer characters', `${wide}\u20ac`, /longer than 255 bytes/),
    refused('a directory of 256 bytes', `${full}x/file`, /longer than 255 bytes/),
    refused('the reserved name', '.lustre', /mount's own/),
    refused('a directory marker of the reserved name', '.lustre/', /mount's own/, 0),
    refused('below the reserved name', '.lustre/fid/x', /mount's own/),
  ];
}
