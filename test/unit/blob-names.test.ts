import { isUtf8 } from 'node:buffer';
import t from 'tap';
import { blobOfPath, encodeBlobName, pathOfBlob } from '../../src/blob/names.js';
import { namesIn } from '../helpers/names.js';

const long = 'x'.repeat(255);

t.test('a blob name becomes a path, or is refused with a reason', (t) => {
  const cases: readonly [name: string, size: number, expected: string | RegExp][] = [
    ['a', 1, 'a'],
    ['a/b/c', 1, 'a/b/c'],
    ['dir/', 0, 'dir'],
    ['a/dir/', 0, 'a/dir'],
    ['with space', 1, 'with space'],
    ['tab\tnew\nline"quote\'', 1, 'tab\tnew\nline"quote\''],
    ['%25?#+&<>', 1, '%25?#+&<>'],
    ['trailing.', 1, 'trailing.'],
    ['...', 1, '...'],
    ['.hidden/..x', 1, '.hidden/..x'],
    ['\u00e4', 1, '\u00e4'],
    ['a\u0308', 1, 'a\u0308'],
    ['\ud83d\ude00', 1, '\ud83d\ude00'],
    [long, 1, long],
    ['\u20ac'.repeat(85), 1, '\u20ac'.repeat(85)],
    ['.lustre.d/fid', 1, '.lustre.d/fid'],
    ['a/.lustre/fid', 1, 'a/.lustre/fid'],
    ['.lustre', 1, /mount's own/],
    ['.lustre/', 0, /mount's own/],
    ['.lustre/fid/x', 1, /mount's own/],
    ['', 1, /empty/],
    ['/', 0, /starts with/],
    ['/a', 1, /starts with/],
    ['//', 0, /starts with/],
    ['dir/', 1, /not empty/],
    ['dir//', 0, /more than one/],
    ['a//b', 1, /empty component/],
    ['.', 1, /component '\.'/],
    ['..', 1, /component '\.\.'/],
    ['a/../b', 1, /component '\.\.'/],
    ['a/./b', 1, /component '\.'/],
    ['../', 0, /component '\.\.'/],
    ['a\0b', 1, /NUL/],
    ['a\\b', 1, /'\\'/],
    ['\ud800', 1, /Unicode/],
    [`${long}x`, 1, /longer than 255 bytes/],
    ['\u20ac'.repeat(86), 1, /longer than 255 bytes/],
    [`${`${long}/`.repeat(16)}x`, 1, /longer than 4095 bytes/],
  ];
  for (const [name, size, expected] of cases) {
    const result = pathOfBlob(name, size);
    const title = JSON.stringify(name.length > 40 ? `${name.slice(0, 40)}...` : name);
    if (typeof expected === 'string')
      t.same(result, { path: expected, directoryMarker: name.endsWith('/') }, title);
    else t.match(result, { refused: expected }, title);
  }
  t.end();
});

t.test('a path becomes a blob name, or is refused with a reason', (t) => {
  for (const { what, path, refused } of namesIn('in/a/folder')) {
    const wanted = refused ? { refused } : { name: path.toString() };
    t.match(blobOfPath(path), wanted, what);
    if (isUtf8(path)) t.match(blobOfPath(path.toString()), wanted, `${what}, as text`);
  }
  // What no path of a mount can be.
  const cases: readonly [path: string | Buffer, refused: RegExp][] = [
    ['a/../b', /'\.' or '\.\.'/],
    ['.', /'\.' or '\.\.'/],
    ['\udc00', /Unicode/],
    ['a\0b', /NUL/],
    ['/a', /empty component/],
    ['a//b', /empty component/],
    ['a/', /empty component/],
    ['', /empty/],
  ];
  for (const [path, refused] of cases) t.match(blobOfPath(path), { refused }, JSON.stringify(path));
  t.end();
});

t.test('an encoded name decodes to itself and leaves no character that a URL gives a meaning', (t) => {
  for (const name of ['a/b.c', 'a b/%25?#+&', '\u00e4/\ud83d\ude00', 'new\nline', "it's(1)*!~"]) {
    const encoded = encodeBlobName(name);
    t.equal(decodeURIComponent(encoded), name);
    t.notMatch(encoded, /[?#\s&+]/);
    t.equal(new URL(`http://h/c/${encoded}`).pathname, `/c/${encoded}`);
  }
  t.end();
});
