/** What to know about the file system that a store is on. */
import type { Probe } from '../native/binding.js';

/** Those that every test runs on; ext3 (and ext2) call themselves ext4. */
const known = ['ext4', 'xfs', 'btrfs'];

/** A warning for whoever mounts; undefined where there is nothing to say. */
export function storeWarning(path: string, { fileSystem }: Pick<Probe, 'fileSystem'>): string | undefined {
  if (known.includes(fileSystem)) return undefined;
  if (fileSystem === 'tmpfs' || fileSystem === 'ramfs') {
    return `the store ${path} is on ${fileSystem}: changes that were not exported do not survive a reboot`;
  }
  return `the store ${path} is on a file system (${fileSystem}) that lustrite is not tested on; take ${known.join(', ')}`;
}
