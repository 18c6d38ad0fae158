/** Where a store was mounted last, STORE/last-mount.json: so that `lustrite mount MNT` alone finds its store again. */
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where stores are that no `--store` names: one directory each, <account>-<container>. */
export const standardStores = '/var/lib/lustrite';

const fileName = 'last-mount.json';

/** Remembers, atomically; it need not be durable. */
export function writeLastMount(store: string, mountPoint: string): void {
  const file = join(store, fileName);
  writeFileSync(`${file}.new`, `${JSON.stringify({ mountPoint })}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

function lastMountPoint(store: string): unknown {
  try {
    const content = JSON.parse(readFileSync(join(store, fileName), 'utf8')) as {
      readonly mountPoint?: unknown;
    };
    return content.mountPoint;
  } catch {
    return undefined; // never mounted, not a store, or not ours to read
  }
}

/** The stores in `folder` that were last mounted at `mountPoint`, in alphabetical order. */
export function storesLastMountedAt(mountPoint: string, folder = standardStores): readonly string[] {
  let names: readonly string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names
    .map((name) => join(folder, name))
    .filter((store) => lastMountPoint(store) === mountPoint)
    .sort();
}
