/* lfs df: the space or the inodes of the targets of mounts, and their sum. Both targets are on the
 * disk of the store, and both show it; the sum counts it once, as Lustre's leaves MDTs out. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "lfs.h"
#include "target.h"

struct df {
  bool inodes;
  /* What sizes are divided by until they fit; 0: not at all. */
  unsigned base;
  bool mdt;
  bool ost;
};

struct amounts {
  uint64_t total;
  uint64_t used;
  uint64_t available;
};

static void print_amount(uint64_t amount, const struct df *options) {
  const char *suffixes = options->base == 1000 ? "kMGTPE" : "KMGTPE";
  double value = (double)amount;
  int steps = 0;
  for (; options->base != 0 && value > options->base; steps++) value /= options->base;
  if (steps == 0) {
    printf(" %11" PRIu64, amount);
  } else {
    char text[32];
    snprintf(text, sizeof(text), "%8.1f%c", value, suffixes[steps - 1]);
    printf(" %11s", text);
  }
}

/* Rounded up, as df(1) does. */
static int used_percent(const struct amounts *amounts) {
  const double whole = (double)amounts->used + (double)amounts->available;
  if (whole <= 0) return 0;
  const double percent = (double)amounts->used / whole * 100;
  return (int)percent + (percent > (int)percent);
}

/* Without the end of the line. */
static void print_row(const char *uuid, const struct amounts *amounts, const struct df *options,
                      const char *point) {
  printf("%-20s", uuid);
  print_amount(amounts->total, options);
  print_amount(amounts->used, options);
  print_amount(amounts->available, options);
  printf(" %3d%% %s", used_percent(amounts), point);
}

static void print_header(const struct df *options) {
  const char *format = "%-20s %11s %11s %11s %4s %s\n";
  if (options->inodes)
    printf(format, "UUID", "Inodes", "IUsed", "IFree", "IUse%", "Mounted on");
  else
    printf(format, "UUID", options->base != 0 ? "bytes" : "1K-blocks", "Used", "Available", "Use%",
           "Mounted on");
}

static struct amounts measure(const struct statvfs *disk, const struct df *options) {
  if (options->inodes)
    return (struct amounts){disk->f_files, disk->f_files - disk->f_ffree, disk->f_ffree};
  const uint64_t unit = options->base != 0 ? 1 : 1024;
  return (struct amounts){
      .total = disk->f_blocks * disk->f_frsize / unit,
      .used = (disk->f_blocks - disk->f_bfree) * disk->f_frsize / unit,
      .available = disk->f_bavail * disk->f_frsize / unit,
  };
}

static int show_mount(const struct mount *mount, void *with) {
  const struct df *options = with;
  struct statvfs disk;
  if (statvfs(mount->point, &disk) != 0) {
    int error = errno;
    fprintf(stderr, "%s: cannot open '%s': %s\n", program_invocation_short_name, mount->point,
            strerror(error));
    return error;
  }
  const struct amounts amounts = measure(&disk, options);
  print_header(options);
  const enum target_kind kinds[] = {TARGET_MDT, TARGET_OST};
  for (int i = 0; i < 2; i++) {
    if (!(kinds[i] == TARGET_MDT ? options->mdt : options->ost)) continue;
    char name[TARGET_TEXT];
    target_name(mount, kinds[i], name);
    strcat(name, "_UUID");
    print_row(name, &amounts, options, mount->point);
    printf("[%s:0]\n", target_kind_name(kinds[i]));
  }
  putchar('\n');
  print_row("filesystem_summary:", &amounts, options, mount->point);
  fputs("\n\n", stdout);
  return 0;
}

static int parse_options(int argc, char *argv[], struct df *chosen) {
  static const struct option options[] = {
      {"human-readable", no_argument, NULL, 'h'},
      {"si", no_argument, NULL, 'H'},
      {"inodes", no_argument, NULL, 'i'},
      {"lazy", no_argument, NULL, 'l'},
      {"mdt", optional_argument, NULL, 'm'},
      {"ost", optional_argument, NULL, 'o'},
      {"pool", required_argument, NULL, 'p'},
      {"verbose", no_argument, NULL, 'v'},
      {NULL, 0, NULL, 0},
  };
  for (int c; (c = getopt_long(argc, argv, "hHilm::o::p:v", options, NULL)) != -1;) {
    switch (c) {
      case 'h':
        chosen->base = 1024;
        break;
      case 'H':
        chosen->base = 1000;
        break;
      case 'i':
        chosen->inodes = true;
        break;
      case 'm':
        chosen->mdt = true;
        break;
      case 'o':
        chosen->ost = true;
        break;
      case 'l':
      case 'p':
      case 'v':
        break;
      default:
        return unrecognized_option(argv);
    }
  }
  if (!chosen->mdt && !chosen->ost) chosen->mdt = chosen->ost = true;
  return 0;
}

int df(int argc, char *argv[]) {
  struct df options = {0};
  int status = parse_options(argc, argv, &options);
  if (status != 0) return status;
  if (optind == argc) return mount_each(show_mount, &options);
  int first_error = 0;
  for (int i = optind; i < argc; i++) {
    int error = mount_of(argv[i], show_mount, &options);
    if (error == ENODEV) {
      fprintf(stderr, "%s:%s Not a Lustre filesystem\n", argv[0], argv[i]);
      error = EOPNOTSUPP;
    } else if (error == ENOENT || error == EACCES || error == ENOTDIR) {
      fprintf(stderr, "error: invalid path '%s': %s\n", argv[i], strerror(error));
    }
    if (first_error == 0) first_error = error;
  }
  return first_error;
}
