import { isUtf8 } from 'node:buffer';
import t from 'tap';
import { blobOfPath, encodeBlobName, pathOfBlob } from '../../src/blob/names.js';
import { blobCells, namesIn } from '../helpers/names.js';

t.test('a blob name becomes a path, or is refused with a reason', (t) => {
  for (const { what, name, size, path, refused } of blobCells()) {
    const wanted = refused ? { refused } : { path, directoryMarker: name.endsWith('/') };
    t.match(pathOfBlob(name, size), wanted, what);
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
