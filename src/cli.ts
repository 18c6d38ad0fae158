#!/usr/bin/env node
/** The `lustrite` command. Starts in milliseconds: each command is imported when it runs, the daemon only by `mount`. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { messageChain, UserError } from './base/errors.js';
import { version } from './base/version.js';
import { Exit, UsageError } from './cli/failure.js';
import type { Kind } from './cli/jobs.js';
import { note, sayJson, tolerateClosedPipes } from './cli/output.js';
import { addSettings, flagsOf } from './cli/settings.js';

function example(...lines: readonly string[]): string {
  return `\n${lines.length > 1 ? 'Examples' : 'Example'}:\n${lines.map((line) => `  $ lustrite ${line}`).join('\n')}`;
}

/** For an option of which only one can be meant. */
function once(value: string, former: string | undefined): string {
  if (former === undefined) return value;
  throw new InvalidArgumentError(`A job has one: '${former}' or '${value}'?`);
}

/** For an option that may be given again. */
function all(value: string, former: readonly string[] | undefined): readonly string[] {
  return [...(former ?? []), value];
}

function recordIndex(text: string): number {
  const index = Number(text);
  if (/^[0-9]+$/.test(text) && Number.isSafeInteger(index)) return index;
  throw new InvalidArgumentError('Records are numbered from 1.');
}

const program = new Command('lustrite')
  .description('Azurite for Azure Managed Lustre: a blob container as a file system of HSM stubs')
  .version(version)
  .addHelpText(
    'after',
    example('mount /mnt/lustre --container data', 'export create /mnt/lustre --wait', 'umount /mnt/lustre'),
  );

const json = (): Option => new Option('--json', 'print JSON');

addSettings(program.command('mount'))
  .description('mount a container; returns when the mount is usable')
  .argument('<mnt>', 'directory to mount on')
  .option('--config <file>', 'JSON file of settings (or LUSTRITE_CONFIG)')
  .option('--foreground', 'stay in the foreground, logs on stderr')
  .option('--wait', 'return when the first import has ended; exit code 1 unless it completed')
  .addOption(json())
  .addHelpText(
    'after',
    example(
      'mount /mnt/lustre --container data --logging-container logs',
      'mount /mnt/lustre --container data --import-prefix in/ --import-prefix ref/ --wait',
    ) +
      '\n\nCredentials: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or' +
      '\nAZURE_STORAGE_SAS_TOKEN, or neither for Entra ID; from the environment or --credentials-file.',
  )
  .action(async (path: string, options: object, command: Command) => {
    await (await import('./cli/mount.js')).mount(path, flagsOf(command), options);
  });

program
  .command('umount')
  .description('unmount; returns when the daemon is gone. Changed files stay in the store and are listed')
  .argument('<mnt>', 'where it is mounted')
  .option('--lazy', 'also while files are open: they stay usable until they are closed')
  .addOption(json())
  .addHelpText('after', example('umount /mnt/lustre'))
  .action(async (path: string, options: object) => {
    await (await import('./cli/umount.js')).umount(path, options);
  });

program
  .command('status')
  .description('what is mounted, files and bytes by state, the running job, the last error')
  .argument('[mnt]', 'only this mount')
  .addOption(json())
  .addHelpText('after', example('status', 'status /mnt/lustre --json'))
  .action(async (path: string | undefined, options: object) => {
    await (await import('./cli/status.js')).status(path, options);
  });

function jobCommands(kind: Kind, description: string): Command {
  const group = program.command(kind).description(description);
  group
    .command('list')
    .description(`all ${kind} jobs of a mount`)
    .argument('<mnt>', 'where it is mounted')
    .addOption(json())
    .addHelpText('after', example(`${kind} list /mnt/lustre`))
    .action(async (path: string, options: object) => {
      await (await import('./cli/jobs.js')).listJobs(path, kind, options);
    });
  const auto = kind === 'auto-import' || kind === 'auto-export';
  const stop = group
    .command(auto ? 'disable' : 'cancel')
    .description(auto ? 'end a job that is enabled' : 'cancel a running job');
  if (auto) stop.alias('cancel');
  stop.option(
    '--wait',
    auto
      ? 'return when the job has ended; exit code 1 unless it is Disabled'
      : 'return when the job has ended; exit code 1 if it failed',
  );
  const show = group.command('show').description('settings and counters of a job');
  for (const [command, verb] of [
    [show, 'show'],
    [stop, stop.name()],
  ] as const) {
    command
      .argument('<mnt>', 'where it is mounted')
      .argument('[name]', 'the job (the running one, or else the latest)')
      .addOption(json())
      .addHelpText('after', example(`${kind} ${verb} /mnt/lustre`))
      .action(async (path: string, name: string | undefined, options: object) => {
        const jobs = await import('./cli/jobs.js');
        await (verb === 'show' ? jobs.showJob : jobs.cancelJob)(path, kind, name, options);
      });
  }
  group
    .command('delete')
    .description('forget a job that is over: its record and its log in the store')
    .argument('<mnt>', 'where it is mounted')
    .argument('<name>', 'the job')
    .addOption(json())
    .addHelpText('after', example(`${kind} delete /mnt/lustre ${kind}-20260131T120000Z`))
    .action(async (path: string, name: string, options: object) => {
      await (await import('./cli/jobs.js')).deleteJob(path, kind, name, options);
    });
  return group;
}

jobCommands('import', 'bring names and attributes of blobs into the namespace')
  .command('create')
  .description('start an import job')
  .argument('<mnt>', 'where it is mounted')
  .option('--name <name>', 'name of the job, 2 to 80 letters, digits, dashes and underscores', once)
  .option(
    '--prefix <prefix>',
    'only blobs whose names begin with this (repeatable); with a hierarchical namespace a path',
    (value: string, former: readonly string[] | undefined) => [...(former ?? []), value],
  )
  .option(
    '--conflict <mode>',
    'what to do where something else has the name: fail, skip, overwrite-dirty (clean files keep their data) or overwrite-always (default: skip; fail under compat.strict)',
    once,
  )
  .option(
    '--max-errors <count>',
    'errors to tolerate; -1: any number (default: -1; 0 under compat.strict)',
    once,
  )
  .option('--wait', 'return when the job has ended; exit code 1 unless it completed')
  .addOption(json())
  .addHelpText('after', example('import create /mnt/lustre --prefix in/ --wait'))
  .action(async (path: string, options: object) => {
    await (await import('./cli/jobs.js')).createImport(path, options);
  });

jobCommands('auto-import', 'bring in what changes in the container, as long as it is enabled')
  .command('create')
  .description(
    'import everything, then follow the container; no other job runs meanwhile, and lfs hsm_* changes nothing',
  )
  .argument('<mnt>', 'where it is mounted')
  .option('--name <name>', 'name of the job, 2 to 80 letters, digits, dashes and underscores', once)
  .option(
    '--prefix <prefix>',
    'only blobs whose names begin with this (repeatable); with a hierarchical namespace a path',
    (value: string, former: readonly string[] | undefined) => [...(former ?? []), value],
  )
  .option(
    '--conflict <mode>',
    'what to do where the name is taken, also by an older version of the blob: fail, skip (it stays), overwrite-dirty or overwrite-always (default: skip)',
    once,
  )
  .option('--enable-deletions', 'files whose blobs are deleted from now on go, too')
  .option(
    '--source <source>',
    "how changes are found: feed (the account's change feed) or listing (default: the feed where the account has one)",
    once,
  )
  .option('--max-errors <count>', 'errors to tolerate; -1: any number (default: -1)', once)
  .option(
    '--poll-interval <time>',
    'pause between two looks at the container, 100ms to 24h (default: 5s)',
    once,
  )
  .option('--wait', 'return when everything that is there now is imported')
  .addOption(json())
  .addHelpText('after', example('auto-import create /mnt/lustre --enable-deletions --wait'))
  .action(async (path: string, options: object) => {
    await (await import('./cli/jobs.js')).createAutoImport(path, options);
  });

jobCommands('auto-export', 'write new and changed files to the container again and again')
  .command('create')
  .description('export whatever is new or changed, as long as it is enabled; no other job runs meanwhile')
  .argument('<mnt>', 'where it is mounted')
  .option('--name <name>', 'name of the job, 2 to 80 letters, digits, dashes and underscores', once)
  .option('--path <prefix>', 'only files whose paths in the mount begin with this (default: /)', once)
  .option('--poll-interval <time>', 'pause between two iterations, 100ms to 24h (default: 5s)', once)
  .option('--wait', 'return when the job is disabled; exit code 1 unless it exported everything')
  .addOption(json())
  .addHelpText('after', example('auto-export create /mnt/lustre --path /results'))
  .action(async (path: string, options: object) => {
    await (await import('./cli/jobs.js')).createAutoExport(path, options);
  });

jobCommands('export', 'write new and changed files to the container')
  .command('create')
  .description('start an export job')
  .argument('<mnt>', 'where it is mounted')
  .option(
    '--path <prefix>',
    'only files whose paths in the mount begin with this, e.g. /results (default: /)',
    once,
  )
  .option('--name <name>', 'name of the job, 2 to 80 letters, digits, dashes and underscores', once)
  .option('--wait', 'return when the job has ended; exit code 1 unless it completed')
  .addOption(json())
  .addHelpText(
    'after',
    example('export create /mnt/lustre --wait', 'export create /mnt/lustre --path /results'),
  )
  .action(async (path: string, options: object) => {
    await (await import('./cli/jobs.js')).createExport(path, options);
  });

program
  .command('hydrate')
  .description('restore everything below some paths; what is here already stays as it is')
  .argument('<path...>', 'files and directories of one mount')
  .option(
    '--concurrency <count>',
    'files at a time at most, 1 to 4096 (default: 7/8 of hsm.max_requests)',
    once,
  )
  .option('--dry-run', 'only count')
  .addOption(json())
  .addHelpText('after', example('hydrate /mnt/lustre/in /mnt/lustre/ref', 'hydrate /mnt/lustre --dry-run'))
  .action(async (paths: readonly string[], options: object) => {
    await (await import('./cli/bulk.js')).hydrate(paths, options);
  });

program
  .command('release')
  .description('give the disk space of clean files back; new, changed, open and never_release ones stay')
  .argument('[path...]', 'files and directories of one mount')
  .option('--older-than <age>', 'only what was neither read nor changed for so long: 12h, 30d', once)
  .option(
    '--path <path>',
    'below this path of the mount (repeatable): release MNT --path /results is release MNT/results',
    (value: string, former: readonly string[] | undefined) => [...(former ?? []), value],
  )
  .option('--dry-run', 'only count')
  .addOption(json())
  .addHelpText(
    'after',
    example('release /mnt/lustre/in', 'release /mnt/lustre --path /results --older-than 30d --dry-run'),
  )
  .action(async (paths: readonly string[], options: object) => {
    await (await import('./cli/bulk.js')).release(paths, options);
  });

const changelog = program
  .command('changelog')
  .description('what happened to files, as lfs changelog has it; recorded while a reader is registered')
  .argument('<mnt>', 'where it is mounted')
  .argument('[start]', 'first record (default: the first that some reader has not cleared)', recordIndex)
  .argument('[end]', 'last record (default: the last there is)', recordIndex)
  .addOption(json())
  .addHelpText(
    'after',
    example('changelog register /mnt/lustre', 'changelog /mnt/lustre', 'changelog clear /mnt/lustre cl1 120'),
  )
  .action(async (path: string, start: number | undefined, end: number | undefined, options: object) => {
    await (await import('./cli/changelog.js')).readChangelog(path, start, end, options);
  });
changelog
  .command('register')
  .description('a new reader: prints its name, as lctl changelog_register')
  .argument('<mnt>', 'where it is mounted')
  .addOption(json())
  .addHelpText('after', example('changelog register /mnt/lustre'))
  .action(async (path: string, _: object, command: Command) => {
    await (await import('./cli/changelog.js')).registerReader(path, command.optsWithGlobals());
  });
changelog
  .command('deregister')
  .description('a reader that wants no more records; without any, nothing is recorded or kept')
  .argument('<mnt>', 'where it is mounted')
  .argument('<reader>', 'cl1, …')
  .addOption(json())
  .addHelpText('after', example('changelog deregister /mnt/lustre cl1'))
  .action(async (path: string, reader: string, _: object, command: Command) => {
    await (await import('./cli/changelog.js')).deregisterReader(path, reader, command.optsWithGlobals());
  });
changelog
  .command('clear')
  .description('a reader needs no record up to this one; records that nobody needs are dropped')
  .argument('<mnt>', 'where it is mounted')
  .argument('<reader>', 'cl1, …')
  .argument('<end>', 'the last one; 0: all that there are', recordIndex)
  .addOption(json())
  .addHelpText('after', example('changelog clear /mnt/lustre cl1 120'))
  .action(async (path: string, reader: string, end: number, _: object, command: Command) => {
    await (await import('./cli/changelog.js')).clearRecords(path, reader, end, command.optsWithGlobals());
  });
changelog
  .command('readers')
  .description('who is registered, and how far they are')
  .argument('<mnt>', 'where it is mounted')
  .addOption(json())
  .addHelpText('after', example('changelog readers /mnt/lustre'))
  .action(async (path: string, _: object, command: Command) => {
    await (await import('./cli/changelog.js')).listReaders(path, command.optsWithGlobals());
  });

const hsm = program.command('hsm').description('the HSM coordinator: what lctl does on a metadata server');
hsm
  .command('get-param')
  .description('parameters of the coordinator; hsm.actions lists the requests')
  .argument('<mnt>', 'where it is mounted')
  .argument('[name...]', "lctl's names, also patterns or only the end of one (default: all)")
  .option('-n, --only-values', 'no names')
  .addOption(json())
  .addHelpText(
    'after',
    example('hsm get-param /mnt/lustre', "hsm get-param /mnt/lustre -n 'mdt.*.hsm.max_requests'"),
  )
  .action(async (path: string, names: readonly string[], options: object) => {
    await (await import('./cli/hsm.js')).getParameters(path, names, options);
  });
hsm
  .command('set-param')
  .description(
    'change parameters of the coordinator; hsm_control takes enabled, disabled, shutdown and purge',
  )
  .argument('<mnt>', 'where it is mounted')
  .argument('<name=value...>', "as lctl's set_param")
  .option('-P, --persistent', 'also for the next daemons of the store')
  .addOption(json())
  .addHelpText(
    'after',
    example(
      'hsm set-param /mnt/lustre hsm.max_requests=10',
      "hsm set-param /mnt/lustre 'hsm.policy=+NBR'",
      'hsm set-param /mnt/lustre hsm_control=disabled',
    ),
  )
  .action(async (path: string, assignments: readonly string[], options: object) => {
    await (await import('./cli/hsm.js')).setParameters(path, assignments, options);
  });

program
  .command('jobs')
  .description('jobs of every kind')
  .command('list', { isDefault: true })
  .description('all jobs of a mount')
  .argument('<mnt>', 'where it is mounted')
  .addOption(json())
  .addHelpText('after', example('jobs list /mnt/lustre'))
  .action(async (path: string, options: object) => {
    await (await import('./cli/jobs.js')).listJobs(path, undefined, options);
  });

addSettings(program.command('config').description('settings').command('show'))
  .description('every setting with its value, where that was said and where it can be said')
  .option('--config <file>', 'JSON file of settings (or LUSTRITE_CONFIG)')
  .addOption(json())
  .addHelpText('after', example('config show', 'config show --config /etc/lustrite.json --json'))
  .action(async (options: { readonly config?: string; readonly json?: boolean }, command: Command) => {
    const { showConfig } = await import('./cli/configuration.js');
    await showConfig(flagsOf(command), options.config, options.json === true);
  });

program
  .command('mount-helper', { hidden: true })
  .description('what mount(8) calls: mount -t lustrite CONTAINER MNT, or a line of /etc/fstab')
  .argument('<container>', "the container; 'none': the one of the store, or that was mounted there last")
  .argument('<mnt>', 'directory to mount on')
  .addOption(new Option('-o, --options <list>', 'settings and mount options').argParser(all))
  .option('-f, --fake', 'everything but the mount')
  .option('-s, --sloppy', 'tolerate options that nobody knows')
  .option('-n, --no-mtab', 'nothing is written there anyway')
  .option('-v, --verbose', 'say what was done')
  .option('-t, --types <type>', 'the type that was asked for')
  .action(async (container: string, path: string, options: object) => {
    await (await import('./cli/mount-helper.js')).mountHelper(container, path, options);
  });

program
  .command('daemon', { hidden: true })
  .argument('[mnt]')
  .action(async () => {
    await (await import('./cli/daemon-process.js')).daemonProcess();
  });

/** For scripts, which read stdout: the same that people read on stderr. */
function sayError(code: string, message: string): void {
  if (process.argv.includes('--json')) sayJson({ error: { code, message } });
}

function exitCodeOf(error: unknown): number {
  // Commander has printed its own message, or the help that was asked for.
  if (error instanceof CommanderError) {
    if (error.exitCode !== 0) sayError('Usage', error.message.replace(/^error: /, ''));
    return error.exitCode === 0 ? 0 : 2;
  }
  if (error instanceof Exit) return error.exitCode;
  note(messageChain(error));
  sayError(
    error instanceof UsageError ? 'Usage' : error instanceof UserError ? error.code : 'Internal',
    messageChain(error),
  );
  return error instanceof UsageError ? 2 : 1;
}

/** What all commands do about arguments that they do not know: `name` is the whole command. */
function refuse(command: Command, name: string): void {
  command.exitOverride();
  command.showHelpAfterError(`(${name} --help explains)`);
  for (const sub of command.commands) refuse(sub, `${name} ${sub.name()}`);
}

tolerateClosedPipes();
refuse(program, 'lustrite');
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = exitCodeOf(error);
}
