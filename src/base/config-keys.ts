/**
 * The table of settings: flags, environment variables, the JSON file, `config show` and the documentation derive from
 * it. Plain data without zod, so that the command line can build its options in no time.
 */
export type SettingKind = 'text' | 'path' | 'texts' | 'integer' | 'mode' | 'switch';

export interface Setting {
  /** Where it sits in Config and in the JSON file. */
  readonly path: string;
  readonly kind: SettingKind;
  /** Commander's notation; absent for what only the environment and the file can set. */
  readonly flag?: string;
  readonly env: string;
  /** Undefined: not set. */
  readonly default?: SettingValue;
  /** The default under `compat.strict`, where Azure Managed Lustre's own differs. */
  readonly strict?: SettingValue;
  readonly choices?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  /** Decided by the first mount of a store; a later one that says otherwise is refused. */
  readonly firstMount?: true;
  readonly description: string;
}

export type SettingValue = string | number | boolean | readonly string[];

const MiB = 1024 * 1024;

export const settings: readonly Setting[] = [
  {
    path: 'container',
    kind: 'text',
    flag: '--container <name>',
    env: 'LUSTRITE_CONTAINER',
    firstMount: true,
    description: 'blob container to mount',
  },
  {
    path: 'loggingContainer',
    kind: 'text',
    flag: '--logging-container <name>',
    env: 'LUSTRITE_LOGGING_CONTAINER',
    firstMount: true,
    description:
      'container of the same account that receives the logs of jobs (without it they stay in the store)',
  },
  {
    path: 'store',
    kind: 'path',
    flag: '--store <dir>',
    env: 'LUSTRITE_STORE',
    description: 'directory for data and state (default: /var/lib/lustrite/<account>-<container>)',
  },
  {
    path: 'credentialsFile',
    kind: 'path',
    flag: '--credentials-file <file>',
    env: 'LUSTRITE_CREDENTIALS_FILE',
    description: 'file of AZURE_STORAGE_*=value lines, readable by its owner only',
  },
  {
    path: 'hierarchicalNamespace',
    kind: 'text',
    flag: '--hierarchical-namespace <auto|on|off>',
    env: 'LUSTRITE_HIERARCHICAL_NAMESPACE',
    default: 'auto',
    choices: ['auto', 'on', 'off'],
    description: 'the account has a hierarchical namespace (ADLS Gen2); auto: it is asked',
  },
  {
    path: 'import.prefixes',
    kind: 'texts',
    flag: '--import-prefix <prefix>',
    env: 'LUSTRITE_IMPORT_PREFIXES',
    default: ['/'],
    firstMount: true,
    description:
      'import only blobs whose names begin with this (repeatable); with a hierarchical namespace a path',
  },
  {
    path: 'import.maxPrefixes',
    kind: 'integer',
    env: 'LUSTRITE_IMPORT_MAX_PREFIXES',
    default: 10,
    minimum: 1,
    maximum: 100,
    description: 'prefixes that one import or auto-import may have',
  },
  {
    path: 'import.conflict',
    kind: 'text',
    flag: '--import-conflict <mode>',
    env: 'LUSTRITE_IMPORT_CONFLICT',
    default: 'skip',
    strict: 'fail',
    choices: ['fail', 'skip'],
    firstMount: true,
    description: 'what the first import does about a conflict',
  },
  {
    path: 'import.maxErrors',
    kind: 'integer',
    flag: '--import-max-errors <count>',
    env: 'LUSTRITE_IMPORT_MAX_ERRORS',
    default: -1,
    strict: 0,
    minimum: -1,
    maximum: 2 ** 31 - 1,
    firstMount: true,
    description: 'errors that the first import tolerates; -1: any number',
  },
  {
    path: 'import.none',
    kind: 'switch',
    flag: '--no-import',
    env: 'LUSTRITE_IMPORT_NONE',
    default: false,
    firstMount: true,
    description: 'start with an empty namespace',
  },
  {
    path: 'defaults.uid',
    kind: 'integer',
    flag: '--uid <uid>',
    env: 'LUSTRITE_DEFAULTS_UID',
    default: 0,
    minimum: 0,
    maximum: 2 ** 32 - 2,
    description: 'owner of blobs without POSIX metadata',
  },
  {
    path: 'defaults.gid',
    kind: 'integer',
    flag: '--gid <gid>',
    env: 'LUSTRITE_DEFAULTS_GID',
    default: 0,
    minimum: 0,
    maximum: 2 ** 32 - 2,
    description: 'group of blobs without POSIX metadata',
  },
  {
    path: 'defaults.fileMode',
    kind: 'mode',
    flag: '--file-mode <octal>',
    env: 'LUSTRITE_DEFAULTS_FILE_MODE',
    default: 0o644,
    description: 'permissions of files without POSIX metadata',
  },
  {
    path: 'defaults.dirMode',
    kind: 'mode',
    flag: '--dir-mode <octal>',
    env: 'LUSTRITE_DEFAULTS_DIR_MODE',
    default: 0o755,
    description: 'permissions of directories without POSIX metadata',
  },
  {
    path: 'readOnly',
    kind: 'switch',
    flag: '--read-only',
    env: 'LUSTRITE_READ_ONLY',
    default: false,
    description: 'refuse every change with EROFS',
  },
  {
    path: 'frontEnd',
    kind: 'text',
    flag: '--front-end <name>',
    env: 'LUSTRITE_FRONT_END',
    default: 'native',
    choices: ['native', 'fuse-native'],
    description: 'how the kernel is served',
  },
  {
    path: 'passthrough',
    kind: 'switch',
    env: 'LUSTRITE_PASSTHROUGH',
    default: true,
    description: 'FUSE passthrough for resident files where the kernel has it',
  },
  {
    path: 'hydrate.partialReads',
    kind: 'switch',
    env: 'LUSTRITE_HYDRATE_PARTIAL_READS',
    default: true,
    strict: false,
    description: 'answer a read as soon as its bytes have arrived',
  },
  {
    path: 'hydrate.verify',
    kind: 'switch',
    env: 'LUSTRITE_HYDRATE_VERIFY',
    default: false,
    description: 'check the MD5 of the whole blob, where it has one, before a byte is shown',
  },
  {
    path: 'hydrate.rangeBytes',
    kind: 'integer',
    env: 'LUSTRITE_HYDRATE_RANGE_BYTES',
    default: 8 * MiB,
    minimum: 64 * 1024,
    maximum: 256 * MiB,
    description: 'bigger blobs are downloaded in ranges of this size',
  },
  {
    path: 'hydrate.parallelRanges',
    kind: 'integer',
    env: 'LUSTRITE_HYDRATE_PARALLEL_RANGES',
    default: 4,
    minimum: 1,
    maximum: 64,
    description: 'ranges of one blob in flight',
  },
  {
    path: 'hsm.maxRequests',
    kind: 'integer',
    env: 'LUSTRITE_HSM_MAX_REQUESTS',
    default: 64,
    strict: 3,
    minimum: 1,
    maximum: 4096,
    description: 'explicit HSM requests that run at the same time; reads never wait behind them',
  },
  {
    path: 'hsm.defaultArchiveId',
    kind: 'integer',
    env: 'LUSTRITE_HSM_DEFAULT_ARCHIVE_ID',
    default: 1,
    minimum: 1,
    maximum: 32,
    description: 'archive id of files that name none',
  },
  {
    path: 'space.highWatermark',
    kind: 'integer',
    env: 'LUSTRITE_SPACE_HIGH_WATERMARK',
    default: 95,
    strict: 0,
    minimum: 0,
    maximum: 100,
    description:
      "percent of the store's disk from which clean files are released, least recently used first; 0: never",
  },
  {
    path: 'space.lowWatermark',
    kind: 'integer',
    env: 'LUSTRITE_SPACE_LOW_WATERMARK',
    default: 90,
    minimum: 0,
    maximum: 100,
    description: 'percent down to which they are released; no more than the high one',
  },
  {
    path: 'transfer.workers',
    kind: 'integer',
    env: 'LUSTRITE_TRANSFER_WORKERS',
    default: 2,
    minimum: 1,
    maximum: 64,
    description: 'threads that move the bytes',
  },
  {
    path: 'transfer.blockBytes',
    kind: 'integer',
    env: 'LUSTRITE_TRANSFER_BLOCK_BYTES',
    default: 8 * MiB,
    minimum: 64 * 1024,
    maximum: 4000 * MiB,
    description: 'bigger files are uploaded in blocks of this size (more where 50,000 blocks would not do)',
  },
  {
    path: 'transfer.parallelBlocks',
    kind: 'integer',
    env: 'LUSTRITE_TRANSFER_PARALLEL_BLOCKS',
    default: 4,
    minimum: 1,
    maximum: 64,
    description: 'blocks of one file in flight',
  },
  {
    path: 'transfer.tries',
    kind: 'integer',
    env: 'LUSTRITE_TRANSFER_TRIES',
    default: 5,
    minimum: 1,
    maximum: 20,
    description: 'times that a request is sent to the blob service before it counts as failed',
  },
  {
    path: 'transfer.stallMs',
    kind: 'integer',
    env: 'LUSTRITE_TRANSFER_STALL_MS',
    default: 30_000,
    minimum: 100,
    maximum: 600_000,
    description: 'milliseconds without a byte after which a request counts as stalled and is repeated',
  },
  {
    path: 'export.ifMatch',
    kind: 'switch',
    env: 'LUSTRITE_EXPORT_IF_MATCH',
    default: false,
    description: 'do not overwrite a blob that somebody else changed since it was imported or exported',
  },
  {
    path: 'compat.strict',
    kind: 'switch',
    env: 'LUSTRITE_COMPAT_STRICT',
    default: false,
    description: 'the behaviour and the defaults of Azure Managed Lustre also where they are inconvenient',
  },
  {
    path: 'log.level',
    kind: 'text',
    env: 'LUSTRITE_LOG_LEVEL',
    default: 'info',
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
    description: 'least severe lines in the log',
  },
];

/** `--import-prefix` of `--import-prefix <prefix>`; what an error message calls the setting on the command line. */
export function flagName(setting: Setting): string | undefined {
  return setting.flag?.split(' ')[0];
}
