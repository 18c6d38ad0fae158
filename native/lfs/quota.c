/* lfs quota: Lustre's table. Nobody accounts the store's space by owner and nothing limits it, so
 * limits are 0, "none", and usage is that of the whole file system, in the brackets by which Lustre
 * marks a number that is not exact. */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lfs.h"
#include "mount.h"

enum what { USAGE, GRACE_TIMES, DEFAULTS, EVERYBODY };

struct quota {
  enum what what;
  /* 'u', 'g', 'p'; 0: the caller and its group. */
  char type;
  bool human;
  bool quiet;
  /* What the current table is about. */
  const char *name;
  uint32_t id;
};

static const char *type_name(char type) {
  return type == 'u' ? "usr" : type == 'g' ? "grp" : "prj";
}

static void print_title(const struct quota *quota) {
  if (quota->quiet || quota->what == GRACE_TIMES) return;
  const char *type = type_name(quota->type);
  const char *used = quota->human ? "used" : "kbytes";
  switch (quota->what) {
    case EVERYBODY:
      printf("Disk %s quotas\n", type);
      printf("%16s %9s %7s %7s %7s %7s %7s %7s %7s %7s\n", "Filesystem", "quota_id", used, "quota",
             "limit", "grace", "files", "quota", "limit", "grace");
      return;
    case DEFAULTS:
      printf("Disk default %s quota:\n", type);
      printf("%16s %7s %7s %7s %7s %7s %7s\n", "Filesystem", "bquota", "blimit", "bgrace", "iquota",
             "ilimit", "igrace");
      return;
    default:
      printf("Disk quotas for %s %s (%cid %" PRIu32 "):\n", type, quota->name, *type, quota->id);
      printf("%16s %7s %7s %7s %7s %7s %7s %7s %7s\n", "Filesystem", used, "quota", "limit",
             "grace", "files", "quota", "limit", "grace");
  }
}

static void write_kbytes(uint64_t kbytes, bool human, char *text, size_t size) {
  const char *suffix = "MGTP";
  if (!human) {
    snprintf(text, size, "[%" PRIu64 "]", kbytes);
  } else if (kbytes < 1024) {
    snprintf(text, size, "[%" PRIu64 "k]", kbytes);
  } else {
    double value = (double)kbytes / 1024;
    for (; value >= 1024 && suffix[1] != '\0'; suffix++) value /= 1024;
    snprintf(text, size, "[%5.4g%c]", value, *suffix);
  }
}

static int print_usage_of(const struct mount *mount, const struct quota *quota) {
  struct statvfs disk;
  if (statvfs(mount->point, &disk) != 0) return errno;
  const char *none = quota->human ? "0k" : "0";
  char kbytes[40];
  char files[40];
  write_kbytes((disk.f_blocks - disk.f_bfree) * disk.f_frsize / 1024, quota->human, kbytes,
               sizeof(kbytes));
  snprintf(files, sizeof(files), "[%" PRIu64 "]", (uint64_t)(disk.f_files - disk.f_ffree));
  printf("%16s %7s  %6s %7s %7s %7s  %6s %7s %7s\n", mount->point, kbytes, none, none, "-", files,
         "0", "0", "-");
  if (!quota->quiet)
    puts(
        "Some errors happened when getting quota info. Some devices may be not working or "
        "deactivated. The data in \"[]\" is inaccurate.");
  return 0;
}

static int show_mount(const struct mount *mount, void *with) {
  const struct quota *quota = with;
  switch (quota->what) {
    case GRACE_TIMES:
      puts("Block grace time: 1w; Inode grace time: 1w");
      return 0;
    case DEFAULTS:
      printf("%16s %7s %7s %7s %7s %7s %7s\n", mount->point, "0", "0", "0", "0", "0", "0");
      return 0;
    case EVERYBODY:
      return 0;
    default:
      return print_usage_of(mount, quota);
  }
}

static int show_table(const struct quota *quota, char *const mounts[], int count) {
  print_title(quota);
  if (count == 0) return mount_each(show_mount, (void *)quota);
  for (int i = 0; i < count; i++) {
    int error = mount_of(mounts[i], show_mount, (void *)quota);
    if (error == 0) continue;
    fprintf(stderr, "%s quota: cannot resolve path '%s': %s\n", program_invocation_short_name,
            mounts[i], strerror(error));
    return error;
  }
  return 0;
}

static int take_id(struct quota *quota, const char *name) {
  const struct passwd *user = quota->type == 'u' ? getpwnam(name) : NULL;
  const struct group *group = quota->type == 'g' ? getgrnam(name) : NULL;
  quota->name = name;
  if (user != NULL || group != NULL) {
    quota->id = user != NULL ? user->pw_uid : group->gr_gid;
    return 0;
  }
  char *end;
  errno = 0;
  unsigned long id = strtoul(name, &end, 10);
  if (errno == 0 && *name >= '0' && *name <= '9' && *end == '\0' && id < UINT32_MAX) {
    quota->id = (uint32_t)id;
    return 0;
  }
  fprintf(stderr, "%s quota: invalid id '%s'\n", program_invocation_short_name, name);
  return SHOW_HELP;
}

static int parse_options(int argc, char *argv[], struct quota *chosen) {
  static const struct option options[] = {
      {"all", no_argument, NULL, 'a'},
      {"end-qid", required_argument, NULL, 'e'},
      {"group", no_argument, NULL, 'g'},
      {"default-grp", no_argument, NULL, 'G'},
      {"human-readable", no_argument, NULL, 'h'},
      {"mdt-index", required_argument, NULL, 'm'},
      {"mdt", required_argument, NULL, 'm'},
      {"ost-index", required_argument, NULL, 'o'},
      {"ost", required_argument, NULL, 'o'},
      {"pool", required_argument, NULL, 'x'},
      {"projid", no_argument, NULL, 'p'},
      {"default-prj", no_argument, NULL, 'P'},
      {"quiet", no_argument, NULL, 'q'},
      {"start-qid", required_argument, NULL, 's'},
      {"times", no_argument, NULL, 't'},
      {"user", no_argument, NULL, 'u'},
      {"default-usr", no_argument, NULL, 'U'},
      {"verbose", no_argument, NULL, 'v'},
      {NULL, 0, NULL, 0},
  };
  for (int c; (c = getopt_long(argc, argv, "ae:gGhi:I:m:o:pPqs:tuUv", options, NULL)) != -1;) {
    switch (c) {
      case 'a':
        chosen->what = EVERYBODY;
        break;
      case 't':
        chosen->what = GRACE_TIMES;
        break;
      case 'U':
      case 'G':
      case 'P':
        chosen->what = DEFAULTS;
        __attribute__((fallthrough));
      case 'u':
      case 'g':
      case 'p':
        if (chosen->type != 0) {
          fprintf(stderr, "%s quota: only one of -u, -g, or -p may be specified\n",
                  program_invocation_short_name);
          return SHOW_HELP;
        }
        chosen->type = (char)(c | 0x20);
        break;
      case 'h':
        chosen->human = true;
        break;
      case 'q':
        chosen->quiet = true;
        break;
      case '?':
        fprintf(stderr, "%s quota: unrecognized option '%s'\n", program_invocation_short_name,
                argv[optind - 1]);
        return SHOW_HELP;
      default:
        break;
    }
  }
  if (chosen->what == EVERYBODY && chosen->type == 0) {
    fprintf(stderr, "%s quota: no quota type to iterate\n", program_invocation_short_name);
    return SHOW_HELP;
  }
  return 0;
}

/* The tables of the caller: as a user and as a group. */
static int show_own(struct quota *quota, char *const mounts[], int count) {
  const struct passwd *user = getpwuid(geteuid());
  quota->type = 'u';
  quota->id = geteuid();
  quota->name = user == NULL ? "<unknown>" : user->pw_name;
  int status = show_table(quota, mounts, count);
  if (status != 0) return status;
  const struct group *group = getgrgid(getegid());
  quota->type = 'g';
  quota->id = getegid();
  quota->name = group == NULL ? "<unknown>" : group->gr_name;
  return show_table(quota, mounts, count);
}

int quota(int argc, char *argv[]) {
  struct quota chosen = {0};
  int status = parse_options(argc, argv, &chosen);
  if (status != 0) return status;
  if (chosen.what == USAGE && chosen.type == 0)
    return show_own(&chosen, argv + optind, argc - optind);
  if (chosen.what == USAGE) {
    if (optind == argc) {
      fprintf(stderr, "%s quota: u/g-name is required\n", program_invocation_short_name);
      return SHOW_HELP;
    }
    status = take_id(&chosen, argv[optind++]);
    if (status != 0) return status;
  }
  return show_table(&chosen, argv + optind, argc - optind);
}
