/* lfs mkdir, setdirstripe: directories as mkdir(1) makes them, and lfs getdirstripe. There is one
 * MDT; how a directory would be spread over others is checked, and that is all. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fid.h"
#include "lfs.h"

enum { MOST_STRIPES = 2000, INHERIT_RR = 256, FLAGS, FOREIGN };

struct dirstripe {
  /* -D, -d: about the default of directories that are there. */
  bool of_existing;
  bool mode_given;
  mode_t mode;
};

static int refuse(const char *command, const char *what, const char *text) {
  fprintf(stderr, "%s %s: invalid %s '%s'\n", program_invocation_short_name, command, what, text);
  return SHOW_HELP;
}

static bool is_number(const char *text, long least, long most) {
  char *end;
  errno = 0;
  const long number = strtol(text, &end, 0);
  return errno == 0 && end != text && *end == '\0' && number >= least && number <= most;
}

static bool is_hash(const char *text) {
  static const char *const names[] = {"all_char", "fnv_1a_64", "crush", "crush2"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    if (strcmp(text, names[i]) == 0) return true;
  return is_number(text, 1, 4);
}

/* "0", "-1", "0,1", "0-3". */
static bool are_indices(const char *text) {
  if (is_number(text, -1, 65535)) return true;
  return *text != '\0' && strspn(text, "0123456789,-") == strlen(text) && *text != '-';
}

static int take_option(struct dirstripe *chosen, int option, char *argv[]) {
  char *end;
  switch (option) {
    case 'c':
    case 'C':
    case 'T':
      return is_number(optarg, option == 'C' ? -32 : -1, MOST_STRIPES)
                 ? 0
                 : refuse(argv[0], "stripe count", optarg);
    case 'i':
    case 'm':
      return are_indices(optarg) ? 0 : refuse(argv[0], "MDT target(s)", optarg);
    case 'H':
    case 't':
      return is_hash(optarg) ? 0 : refuse(argv[0], "directory hash type", optarg);
    case 'X':
    case INHERIT_RR:
      return is_number(optarg, -2, 250) ? 0 : refuse(argv[0], "max-inherit", optarg);
    case 'o':
      chosen->mode = (mode_t)strtoul(optarg, &end, 8);
      chosen->mode_given = true;
      return *optarg >= '0' && *optarg <= '7' && *end == '\0' && chosen->mode <= 07777
                 ? 0
                 : refuse(argv[0], "MODE", optarg);
    case 'd':
    case 'D':
      chosen->of_existing = true;
      return 0;
    case 'x':
    case FLAGS:
      return 0;
    case FOREIGN:
      fprintf(stderr, "%s %s: %s: %s\n", program_invocation_short_name, argv[0], "--foreign",
              strerror(EOPNOTSUPP));
      return EOPNOTSUPP;
    case 'h':
      return SHOW_HELP;
    default:
      return unrecognized_option(argv);
  }
}

/* mkdir takes no sticky bit and the like. Of the directory that was just made: who may rename in
 * its parent may have put something else there meanwhile. */
static int set_mode(const char *path, mode_t mode) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  if (fd < 0) return errno;
  int error = fstat(fd, &st) != 0      ? errno
              : st.st_uid != geteuid() ? EPERM
              : fchmod(fd, mode) != 0  ? errno
                                       : 0;
  close(fd);
  return error;
}

static int change(const char *path, const struct dirstripe *chosen) {
  if (!chosen->of_existing) {
    if (mkdir(path, chosen->mode) != 0) return errno;
    return chosen->mode_given ? set_mode(path, chosen->mode) : 0;
  }
  struct stat st;
  if (stat(path, &st) != 0) return errno;
  return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

int setdirstripe(int argc, char *argv[]) {
  static const struct option options[] = {
      {"count", required_argument, NULL, 'c'},
      {"mdt-count", required_argument, NULL, 'c'},
      {"mdt-overcount", required_argument, NULL, 'C'},
      {"delete", no_argument, NULL, 'd'},
      {"default", no_argument, NULL, 'D'},
      {"default_stripe", no_argument, NULL, 'D'},
      {"flags", required_argument, NULL, FLAGS},
      {"foreign", optional_argument, NULL, FOREIGN},
      {"help", no_argument, NULL, 'h'},
      {"mdt-hash", required_argument, NULL, 'H'},
      {"hash-type", required_argument, NULL, 't'},
      {"index", required_argument, NULL, 'i'},
      {"mdt-index", required_argument, NULL, 'i'},
      {"mode", required_argument, NULL, 'o'},
      {"xattr", required_argument, NULL, 'x'},
      {"max-inherit", required_argument, NULL, 'X'},
      {"max-inherit-rr", required_argument, NULL, INHERIT_RR},
      {NULL, 0, NULL, 0},
  };
  struct dirstripe chosen = {.mode = 0777};
  for (int c; (c = getopt_long(argc, argv, "c:C:dDi:hH:m:o:t:T:x:X:", options, NULL)) != -1;) {
    int status = take_option(&chosen, c, argv);
    if (status != 0) return status;
  }
  if (optind == argc) {
    fprintf(stderr, "%s %s: DIR must be specified\n", program_invocation_short_name, argv[0]);
    return SHOW_HELP;
  }
  int first_error = 0;
  for (int i = optind; i < argc; i++) {
    int error = change(argv[i], &chosen);
    if (error == 0) continue;
    fprintf(stderr, "%s %s: dirstripe error on '%s': %s\n", program_invocation_short_name, argv[0],
            argv[i], strerror(error));
    if (first_error == 0) first_error = error;
  }
  return first_error;
}

static int show(const char *path, int field) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  struct lu_fid fid;
  int error = fid_of_fd(fd, &fid);
  close(fd);
  if (error != 0) return error == ENOTSUP ? ENOTTY : error;
  char text[FID_TEXT];
  fid_print(&fid, text);
  if (field == 0)
    puts("lmv_stripe_count: 0 lmv_stripe_offset: 0 lmv_hash_type: none");
  else
    puts(field == 'F' ? text : field == 'H' ? "none" : "0");
  return 0;
}

int getdirstripe(int argc, char *argv[]) {
  static const struct option options[] = {
      {"default", no_argument, NULL, 'D'},
      {"fid", no_argument, NULL, 'F'},
      {"help", no_argument, NULL, 'h'},
      {"hex-idx", no_argument, NULL, 'r'},
      {"mdt-count", no_argument, NULL, 'c'},
      {"mdt-hash", no_argument, NULL, 'H'},
      {"mdt-index", no_argument, NULL, 'i'},
      {"obd", required_argument, NULL, 'O'},
      {"recursive", no_argument, NULL, 'r'},
      {"raw", no_argument, NULL, 'R'},
      {"verbose", no_argument, NULL, 'v'},
      {"max-inherit", no_argument, NULL, 'X'},
      {"max-inherit-rr", no_argument, NULL, 'X'},
      {"yaml", no_argument, NULL, 'y'},
      {NULL, 0, NULL, 0},
  };
  int field = 0;
  for (int c; (c = getopt_long(argc, argv, "cDFhHimO:rRtTvXy", options, NULL)) != -1;) {
    if (c == '?') return unrecognized_option(argv);
    if (c == 'h') return SHOW_HELP;
    if (strchr("cTimHtF", c) != NULL) field = c == 't' ? 'H' : c;
  }
  if (optind == argc) return SHOW_HELP;
  int first_error = 0;
  for (int i = optind; i < argc; i++) {
    int error = show(argv[i], field);
    if (error == 0) continue;
    fprintf(stderr, "%s: %s for '%s' failed: %s\n", program_invocation_short_name, argv[0], argv[i],
            strerror(error));
    if (first_error == 0) first_error = error;
  }
  return first_error;
}
