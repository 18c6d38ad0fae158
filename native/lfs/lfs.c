/* lfs: the commands of Lustre's `lfs` that HSM scripts use, for a lustrite mount.
 *
 * Scripts start it once a file, 10^5 times in a row: no dependency but libc, no locale, no
 * configuration, no system call that the command does not need. Grammar, output and exit status are
 * Lustre's. */
#include "lfs.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command {
  const char *name;
  int (*run)(int argc, char *argv[]);
  const char *usage;
  const char *about;
};

#define FLAGS                                                                \
  "[--norelease|-r] [--noarchive|-a] [--dirty|-d] [--exists|-e]\n          " \
  "[--archived|-A] [--lost|-l] [--archive-id|-i NUM] <file> ..."
#define REQUEST "[--filelist|-l FILELIST] [--data|-D DATA] [--mntpath|-m MOUNT]"
#define REQUEST_ARCHIVE REQUEST "\n          [--archive|-a NUM]"

#define DIRSTRIPE                                                             \
  "[--mdt-count|-c N] [--mdt-index|-i N[,N...]] [--mdt-hash|-H HASH]\n      " \
  "    [--mode|-o MODE] [--max-inherit|-X N] <directory> ..."

static const struct command commands[] = {
    {"hsm_state", hsm_state, "<file> ...", "Show the HSM flags and the archive id of files."},
    {"hsm_action", hsm_action, "<file> ...", "Show the HSM request in progress on files."},
    {"hsm_set", hsm_set, FLAGS,
     "Set HSM flags of files. Only root may set exists, archived and lost."},
    {"hsm_clear", hsm_clear, FLAGS,
     "Clear HSM flags of files. Only root may clear exists, archived and lost."},
    {"hsm_archive", hsm_archive, REQUEST_ARCHIVE " <file|FID> ...",
     "Ask for files to be copied to the container; returns when the request is queued."},
    {"hsm_restore", hsm_restore, REQUEST " <file|FID> ...",
     "Ask for the data of released files; returns when the request is queued."},
    {"hsm_release", hsm_release, REQUEST " <file|FID> ...",
     "Free the space of archived files; they stay visible."},
    {"hsm_remove", hsm_remove, REQUEST_ARCHIVE " <file|FID> ...",
     "Ask for the copies of files in the container to be removed."},
    {"hsm_cancel", hsm_cancel, REQUEST " <file|FID> ...", "Cancel the requests on files."},
    {"path2fid", path2fid, "[--parents] <path> ...", "Show the FID of files and directories."},
    {"fid2path", fid2path,
     "[--print0|-0] [--print-fid|-f] [--print-link|-c] [--link|-l N] [--name|-n]\n"
     "          <fsname|root> <FID> ...",
     "Show the paths of FIDs, each name on a line. Only for root."},
    {"data_version", data_version, "[--nosync|-n|--read|-r|--write|-w] [--set-hsm|-s] <file>",
     "Show a number that changes with the data of a file; 0: it has none here."},
    {"setstripe", setstripe,
     "[--stripe-count|-c N] [--stripe-size|-S N[kMG]] [--stripe-index|-i N]\n"
     "          [--ost|-o N[,N-N...]] [--pool|-p POOL] [--layout|-L {raid0|mdt}]\n"
     "          [--overstripe-count|-C N] [--component-end|-E N[kMGT]|-1 ...] [--mode MODE]\n"
     "          [--mirror-count|-N[N]] [--copy FILE] <file|directory> ...\n"
     "        setstripe -d <directory> ...\n"
     " example: setstripe -c 4 -S 4M /mnt/lustre/results",
     "Create files with a layout, or give directories a default one. It is shown and has no\n"
     "effect."},
    {"getstripe", getstripe,
     "[--stripe-count|-c] [--stripe-size|-S] [--stripe-index|-i] [--pool|-p]\n"
     "          [--layout|-L] [--mdt-index|-m] [--fid|-F] [--generation|-g] [--component-count]\n"
     "          [--directory|-d] [--recursive|-r] [--raw|-R] [--verbose|-v] [--yaml|-y]\n"
     "          <file|directory> ...",
     "Show the layout of files and of what directories hold; -L tells released files."},
    {"setdirstripe", setdirstripe, DIRSTRIPE, "Make directories, as mkdir does."},
    {"getdirstripe", getdirstripe, "[-c] [-i] [-H] [-F] [-D] [-r] [-v] [-y] <directory> ...",
     "Show on which MDTs directories are: on the only one."},
    {"mkdir", setdirstripe, DIRSTRIPE, "Make directories."},
    {"find", find,
     "<path> ... [[!] --layout|-L {released|raid0|mdt}] [[!] --type|-t {b|c|d|f|l|p|s}]\n"
     "          [[!] --size|-s [+-]N[bkMGTPE]] [[!] --blocks|-b [+-]N[bkMGTPE]]\n"
     "          [[!] --mtime|-M [+-]N[smhdwy]] [[!] --atime|-A ...] [[!] --ctime|-C ...]\n"
     "          [[!] --name|-n PATTERN] [[!] --links [+-]N] [[!] {--uid|-u|--user|-U} ID|NAME]\n"
     "          [[!] {--gid|-g|--group|-G} ID|NAME] [--mindepth|-d N] [--maxdepth|-D N]\n"
     "          [--print|-P] [--print0|-0] [--lazy|-l]\n"
     " example: find /mnt/lustre --type f ! --layout released --size +1M -print0",
     "Find the entries of directory trees that match. Restores nothing."},
    {"osts", osts, "[<path>]", "List the OST of each mount, or of the one that a path is on."},
    {"mdts", mdts, "[<path>]", "List the MDT of each mount, or of the one that a path is on."},
    {"check", check, "{mgts|osts|mdts|all|servers} [<path>]",
     "Show whether the servers of mounts answer."},
    {"df", df,
     "[--inodes|-i] [--human-readable|-h] [--si|-H] [--lazy|-l] [--mdt|-m] [--ost|-o]\n"
     "          [--pool|-p POOL] [--verbose|-v] [<path> ...]",
     "Show the space or the inodes of mounts."},
    {"quota", quota,
     "[-q] [-v] [-h] [-o OST|-m MDT] [{-u|-g|-p} NAME|ID] [<mount> ...]\n"
     "        quota -t {-u|-g|-p} [<mount> ...]\n"
     "        quota [-q] [-v] [-h] {-U|-G|-P} [<mount> ...]\n"
     "        quota -a {-u|-g|-p} [-s ID] [-e ID] [<mount> ...]",
     "Show usage and limits. There are no limits, and usage is that of the whole file system."},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

bool compat_2_15(void) {
  const char *version = getenv("LUSTRITE_LFS_COMPAT");
  return version != NULL && strcmp(version, "2.15") == 0;
}

int unrecognized_option(char *const argv[]) {
  fprintf(stderr, "%s: unrecognized option '%s'\n", program_invocation_short_name,
          argv[optind - 1]);
  return SHOW_HELP;
}

static const struct command *find_command(const char *name) {
  for (int i = 0; i < COMMANDS; i++)
    if (strcmp(commands[i].name, name) == 0) return &commands[i];
  return NULL;
}

static void print_usage(FILE *to, const struct command *command) {
  fprintf(to, "%s\n usage: %s %s\n", command->about, command->name, command->usage);
}

/* Since Lustre 2.17 `lfs hsm state` is `lfs hsm_state`; answers NULL for no such command. */
static const struct command *find_hsm_command(const char *word) {
  const size_t prefix = strlen("hsm_");
  for (int i = 0; i < COMMANDS; i++)
    if (strncmp(commands[i].name, "hsm_", prefix) == 0 &&
        strcmp(commands[i].name + prefix, word) == 0)
      return &commands[i];
  return NULL;
}

/* Where the command's own words begin in argv. */
struct found {
  const struct command *command;
  int at;
};

static struct found find_words(int argc, char *argv[]) {
  if (strcmp(argv[1], "hsm") != 0) return (struct found){find_command(argv[1]), 1};
  return (struct found){argc > 2 ? find_hsm_command(argv[2]) : NULL, 2};
}

static int unknown_command(const char *name) {
  fprintf(stderr, "%s: '%s' is not a valid command. See '%s --list-commands'.\n",
          program_invocation_short_name, name, program_invocation_short_name);
  return 1;
}

static int list_commands(void) {
  for (int i = 0; i < COMMANDS; i++) puts(commands[i].name);
  return 0;
}

static int print_help(FILE *to, const char *name) {
  if (name != NULL) {
    const struct command *command = find_command(name);
    if (command == NULL) return unknown_command(name);
    print_usage(to, command);
    return 0;
  }
  fprintf(to, " usage: %s <command> ...\n", program_invocation_short_name);
  for (int i = 0; i < COMMANDS; i++)
    fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].about);
  fprintf(to, "  %-12s %s\n", "help", "Show this, or how to use one command.");
  fprintf(to, "  %-12s %s\n", "--version", "Show the Lustre release that this program behaves as.");
  return 0;
}

static int dispatch(int argc, char *argv[]) {
  if (argc < 2) {
    print_help(stderr, NULL);
    return SHOW_HELP;
  }
  const char *name = argv[1];
  if (strcmp(name, "--version") == 0) {
    printf("%s %s (lustrite)\n", program_invocation_short_name,
           compat_2_15() ? "2.15.8" : "2.16.1");
    return 0;
  }
  if (strcmp(name, "--list-commands") == 0) return list_commands();
  if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) return print_help(stdout, argv[2]);

  const struct found found = find_words(argc, argv);
  if (found.command == NULL) {
    if (found.at == 1) return unknown_command(name);
    if (argc > 2) return unknown_command(argv[2]);
    print_help(stderr, NULL);
    return SHOW_HELP;
  }
  /* Messages name the command in as many words as the caller did. */
  if (found.at == 2) program_invocation_short_name = "lfs hsm";
  opterr = 0;
  int status = found.command->run(argc - found.at, argv + found.at);
  if (status == SHOW_HELP) print_usage(stderr, found.command);
  return status;
}

int main(int argc, char *argv[]) {
  /* A reader of the pipe sees each file when it is known, in step with the errors on stderr. */
  setvbuf(stdout, NULL, _IOLBF, 0);
  int status = dispatch(argc, argv);
  /* The errno of a line that could not be written is long gone. */
  bool lost = fflush(stdout) != 0 || ferror(stdout);
  return lost && status == 0 ? EIO : status;
}
