/** What a front end cannot do, by the ids of the tests that need it, with the reason (`src/SEMANTICS.md`, at its end). */

export const frontEnds = ['native', 'fuse-native'] as const;
export type FrontEnd = (typeof frontEnds)[number];

interface Exclusion {
  readonly ids: readonly string[];
  readonly reason: string;
}

export const exclusions: Readonly<Record<FrontEnd, readonly Exclusion[]>> = {
  native: [],
  'fuse-native': [
    { ids: ['1A', '24b', '24c', '2.4'], reason: 'lfs is for root alone: the package does not tell who asks' },
    { ids: ['1.3f'], reason: 'the package makes no special files' },
    { ids: ['4.2'], reason: 'there are no extended attributes of users' },
    { ids: ['3.6f'], reason: 'the package has no fallocate' },
    { ids: ['4.3'], reason: 'the package has no ioctl: lfs asks over a socket' },
    { ids: ['12r'], reason: 'the package has no lseek: the kernel answers, and restores nothing' },
    { ids: ['34', '35', '36'], reason: 'libfuse keeps the name of a file while somebody reads it' },
    {
      ids: ['3.7h'],
      reason: 'the package has no KEEP_CACHE: an open waits for a page that a reader waits for',
    },
  ],
};

/** Why a front end does not run a test; undefined: it does. */
export function exclusion(frontEnd: FrontEnd, ids: readonly string[]): string | undefined {
  return exclusions[frontEnd].find((excluded) => excluded.ids.some((id) => ids.includes(id)))?.reason;
}
