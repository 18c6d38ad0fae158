/** POSIX ACLs as the kernel gives them, for people. */
import { execFileSync } from 'node:child_process';

const letters: Readonly<Record<number, string>> = { 1: 'u', 2: 'u', 4: 'g', 8: 'g', 16: 'm', 32: 'o' };
const noId = 0xffff_ffff;

/** `u=6 u1000=5 g=4 m=5 o=0` for the value of the extended attribute; null for null. */
export function aclText(value: Buffer | null): string | null {
  if (value === null) return null;
  const entries: string[] = [];
  for (let at = 4; at < value.length; at += 8) {
    const [tag, bits, id] = [value.readUInt16LE(at), value.readUInt16LE(at + 2), value.readUInt32LE(at + 4)];
    entries.push(`${letters[tag] ?? '?'}${id === noId ? '' : id}=${bits}`);
  }
  return entries.join(' ');
}

/** What a file or directory has; null: nothing but its mode. */
export function aclOf(path: string, kind: 'access' | 'default' = 'access'): string | null {
  const script = `
import errno, os, sys
try:
    print(os.getxattr(sys.argv[1], 'system.posix_acl_' + sys.argv[2], follow_symlinks=False).hex())
except OSError as error:
    if error.errno != errno.ENODATA: raise`;
  const hex = execFileSync('python3', ['-c', script, path, kind], { encoding: 'utf8' }).trim();
  return hex === '' ? null : aclText(Buffer.from(hex, 'hex'));
}
