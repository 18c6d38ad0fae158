/** What serves the mount. The two kinds serve the same store by the same rules and differ in what they can do. */
import type { Config } from '../base/config.js';
import type { Log } from '../base/log.js';
import type { Coordinator } from '../hsm/coordinator.js';
import type { Addon } from '../native/binding.js';
import type { Store } from '../store/store.js';

export interface FrontEnd {
  readonly name: Config['frontEnd'];
  /** Resident files are read and written by the kernel alone. */
  readonly passthrough: boolean;
  /** Resolves when the mount is gone, whoever took it away. */
  readonly closed: Promise<void>;
  /** FsError EBUSY while somebody uses the mount, unless lazy. Resolves when the kernel has let go. */
  unmount(options: { readonly lazy: boolean }): Promise<void>;
  stats(): Readonly<Record<string, number>>;
}

export interface FrontEndOptions {
  readonly store: Pick<Store, 'native' | 'meta' | 'path'>;
  readonly coordinator: Pick<Coordinator, 'request' | 'stateSet' | 'shownAction'>;
  readonly addon: Addon;
  readonly mountPoint: string;
  readonly config: Pick<Config, 'readOnly' | 'passthrough' | 'hydrate'>;
  readonly log: Log;
}
