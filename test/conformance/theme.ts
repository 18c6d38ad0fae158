/** One definition of a conformance test, run on every front end: a theme is a table of them on one mount each. */
import { chmod, copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';
import { Azurite } from '../helpers/azurite.js';
import { lfsPath } from '../helpers/lfs.js';
import { MountedContainer, type Blobs } from '../helpers/mounted-container.js';
import { cannotMount } from '../helpers/mounts.js';
import { exclusion, frontEnds } from './front-ends.js';
import { Lab } from './lab.js';

export interface Case {
  /** Of sanity-hsm.sh; with a dot the section of lustre-hsm that no test of Lustre covers. */
  readonly ids: readonly string[];
  readonly title: string;
  readonly run: (t: Test, lab: Lab) => Promise<void>;
  /** In the container, and so stubs, when the test begins; below the folder of the test. */
  readonly blobs: Blobs;
  /** Lustre does so and lustrite does not: what is missing. */
  readonly todo?: string;
}

export interface Theme {
  readonly cases: readonly Case[];
}

/** A row of a theme; `ids` are separated by blanks. */
export function hsm(
  ids: string,
  title: string,
  run: Case['run'],
  options: Partial<Pick<Case, 'blobs' | 'todo'>> = {},
): Case {
  return { ids: ids.split(' '), title, run, blobs: {}, ...options };
}

/** Runs themes on a mount of every front end; `env`: settings of its daemon. */
export async function conform(
  t: Test,
  themes: readonly Theme[],
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  if (cannotMount !== false) {
    t.plan(0, cannotMount);
    return;
  }
  const cases = themes.flatMap((theme) => theme.cases);
  const azurite = await Azurite.start();
  t.teardown(() => azurite[Symbol.asyncDispose]());
  for (const frontEnd of frontEnds) {
    await t.test(frontEnd, async (t) => {
      const container = await MountedContainer.start(t, blobsOf(cases), { frontEnd, env, azurite });
      // Users get to the mount, and have a lfs that they may run.
      const folder = dirname(container.mount.path);
      await chmod(folder, 0o711);
      await copyFile(lfsPath, join(folder, 'lfs'));
      for (const { ids, title, run, todo } of cases) {
        const skip = exclusion(frontEnd, ids) ?? false;
        await t.test(`hsm: ${ids.join(' ')} ${title}`, { skip, ...(todo && { todo }) }, async (t) => {
          container.storage.clear();
          container.storage.clearLog();
          const lab = new Lab(t, container, folderOf(ids));
          await mkdir(lab.path, { recursive: true });
          await run(t, lab);
        });
      }
    });
  }
}

function blobsOf(cases: readonly Case[]): Blobs {
  return Object.fromEntries(
    cases.flatMap(({ ids, blobs }) =>
      Object.entries(blobs).map(([name, content]) => [`${folderOf(ids)}/${name}`, content]),
    ),
  );
}

function folderOf(ids: readonly string[]): string {
  return ids.join('+');
}
