/** /proc/self/mountinfo, which can be read without touching any mount. */

/** Whether a FUSE file system is mounted at exactly this path. */
export function isMounted(mountinfo: string, mountPoint: string): boolean {
  return mountinfo.split('\n').some((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const path = unescapeMount(before.split(' ')[4] ?? '');
    return path === mountPoint && after.startsWith('fuse');
  });
}

/** `\040` and its kind as the characters they stand for. */
export function unescapeMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
