/** Blob names and paths of the mount: pure rules, each refusal with its reason. */

/** Limits of the Blob service for a blob name. */
const maxNameChars = 1024;
const maxNameSegments = 254;
/** NAME_MAX of every file system a store can be on. */
const maxComponentBytes = 255;
/** PATH_MAX without the terminating NUL. */
const maxPathBytes = 4095;

/** Characters that XML 1.0 cannot carry: a listing with such a name in it can no longer be parsed by most clients. */

const unlistable = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/;

/** With the u flag a surrogate matches only where it is not half of a pair. */
const loneSurrogate = /[\ud800-\udfff]/u;

export type Refusal = { readonly refused: string };
export type BlobPath =
  { readonly path: string; /** The name ended in '/'. */ readonly directoryMarker: boolean } | Refusal;
export type BlobName = { readonly name: string } | Refusal;

/**
 * The path, relative to the mount and without slashes at its ends, that a blob of this name has. An empty blob `dir/`
 * (rclone's directory marker) is the directory `dir`; every other unusual slash is refused with the reason.
 */
export function pathOfBlob(name: string, size: number): BlobPath {
  if (name === '') return { refused: 'the name is empty' };
  if (name.includes('\0')) return { refused: 'the name has a NUL character' };
  if (name.includes('\\')) return { refused: "the name has a '\\', which the service reads as '/'" };
  const directoryMarker = name.endsWith('/');
  if (directoryMarker && size > 0) return { refused: "the name ends in '/' and the blob is not empty" };
  const path = directoryMarker ? name.slice(0, -1) : name;
  if (path.startsWith('/') || path === '') return { refused: "the name starts with '/'" };
  if (path.endsWith('/')) return { refused: "the name ends in more than one '/'" };
  if (loneSurrogate.test(path)) return { refused: 'the name is not valid Unicode' };
  if (/^\.lustre(\/|$)/.test(path)) return { refused: "'.lustre' in the root is the mount's own" };
  for (const component of path.split('/')) {
    if (component === '') return { refused: "the name has an empty component ('//')" };
    if (component === '.' || component === '..')
      return { refused: `the name has a component '${component}'` };
    if (component.length * 3 > maxComponentBytes && Buffer.byteLength(component) > maxComponentBytes) {
      return { refused: `a component of the name is longer than ${String(maxComponentBytes)} bytes` };
    }
  }
  if (path.length * 3 > maxPathBytes && Buffer.byteLength(path) > maxPathBytes) {
    return { refused: `the path is longer than ${String(maxPathBytes)} bytes` };
  }
  return { path, directoryMarker };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The blob name under which a file of this path (relative to the mount; raw bytes or text) can be exported. */
export function blobOfPath(path: string | Uint8Array): BlobName {
  let name: string;
  if (typeof path === 'string') {
    name = path;
  } else {
    try {
      name = utf8.decode(path);
    } catch {
      return { refused: 'the path is not valid UTF-8, which blob names are' };
    }
  }
  const refused = unaddressable(name);
  if (refused !== undefined) return { refused };
  if (name.startsWith('/') || name.endsWith('/') || name.includes('//')) {
    return { refused: 'the path has an empty component' };
  }
  const found = unlistable.exec(name);
  if (found) {
    const code = found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
    return { refused: `the path has the character U+${code}, which a blob listing cannot carry` };
  }
  // The service drops it, as its own clients do, and `a.` would be written over `a`.
  if (/\.(\/|$)/.test(name))
    return { refused: "a component of the path ends in '.', which the service drops" };
  if (name.length > maxNameChars)
    return { refused: `the path is longer than ${String(maxNameChars)} characters` };
  if (name.split('/').length > maxNameSegments) {
    return { refused: `the path has more than ${String(maxNameSegments)} components` };
  }
  return { name };
}

/** Why a request for this name would reach another blob or none; undefined when it reaches this one. */
export function unaddressable(name: string): string | undefined {
  if (name === '') return 'the name is empty';
  if (name.includes('\0')) return 'the name has a NUL character';
  if (loneSurrogate.test(name)) return 'the name is not valid Unicode';
  // The client's URL handling folds '.' and '..' away, and the service turns '\' into '/'.
  if (name.includes('\\')) return "the name has a '\\', which the service reads as '/'";
  if (name.split('/').some((s) => s === '.' || s === '..')) return "the name has a component '.' or '..'";
  return undefined;
}

/** The name as a URL path, percent-encoded component by component. */
export function encodeBlobName(name: string): string {
  return /^[\w/~.-]*$/.test(name) ? name : name.split('/').map(encodeURIComponent).join('/');
}
