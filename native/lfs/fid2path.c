/* lfs fid2path: the names of inodes. Only root may ask: a name may lie where the caller cannot
 * look.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fid.h"
#include "lfs.h"
#include "link.h"
#include "mount.h"

struct fid2path {
  bool print_fid;
  bool print_link;
  bool only_name;
  char end;
  /* -1: all. */
  long link;
  /* What was named: the file system, or a path on its mount. */
  const char *place;
  bool absolute;
  /* Where that is. */
  int root;
  char *point;
};

static void print_link(const struct fid2path *options, const char *fid,
                       const struct lustrite_fid2path *found) {
  if (options->print_fid) printf("%s ", fid);
  if (options->print_link) printf("%" PRIu32 " ", found->link);
  const char *slash = strrchr(found->path, '/');
  if (options->only_name)
    fputs(slash == NULL ? found->path : slash + 1, stdout);
  else if (options->absolute)
    printf("%s/%s", options->point, found->path);
  else
    fputs(*found->path == '\0' ? "/" : found->path, stdout);
  /* Lustre ends the root with a slash of its own: "/mnt//". */
  if (options->absolute && !options->only_name && *found->path == '\0') putchar('/');
  putchar(options->end);
}

static int show(const struct fid2path *options, const char *text) {
  struct lustrite_fid2path ask = {.link = options->link < 0 ? 0 : (uint32_t)options->link};
  if (!fid_parse(text, &ask.fid)) {
    fprintf(stderr, "%s fid2path: invalid FID '%s'\n", program_invocation_short_name, text);
    return EINVAL;
  }
  const struct lu_fid fid = ask.fid;
  for (uint32_t link = ask.link;; link++) {
    ask.fid = fid;
    ask.link = link;
    int error = link_find(options->root, options->point, &ask);
    /* A name that went meanwhile is no failure after others. */
    if (error == ENODATA && options->link < 0 && link > 0) return 0;
    if (error != 0) {
      fprintf(stderr, "%s fid2path: cannot find %s %s: %s\n", program_invocation_short_name,
              options->place, text, strerror(error));
      return error;
    }
    ask.link = link;
    print_link(options, text, &ask);
    if (options->link >= 0 || link + 1 >= ask.links) return 0;
  }
}

static int take_mount(const struct mount *mount, void *with) {
  struct fid2path *options = with;
  if (!options->absolute && strcmp(mount->fsname, options->place) != 0) return 0;
  options->point = strdup(mount->point);
  options->root = mount_open_root(mount->device);
  /* Not 0, which would go on to the next mount. */
  return options->root < 0 ? -options->root : -1;
}

static int resolve(struct fid2path *options) {
  options->absolute = *options->place == '/';
  int error = options->absolute ? mount_of(options->place, take_mount, options)
                                : mount_each(take_mount, options);
  if (error < 0) return 0;
  if (error == 0) error = ENODEV;
  fprintf(stderr, "%s fid2path: cannot resolve mount point for '%s': %s\n",
          program_invocation_short_name, options->place, strerror(error));
  return error;
}

static bool parse_number(const char *text, long *number) {
  char *end;
  errno = 0;
  *number = strtol(text, &end, 10);
  return errno == 0 && end != text && *end == '\0' && *number >= 0 && *number <= INT_MAX;
}

static int parse_options(int argc, char *argv[], struct fid2path *chosen) {
  static const struct option options[] = {
      {"print0", no_argument, NULL, '0'},
      {"cur", no_argument, NULL, 'c'},
      {"current", no_argument, NULL, 'c'},
      {"print-link", no_argument, NULL, 'c'},
      {"print-fid", no_argument, NULL, 'f'},
      {"link", required_argument, NULL, 'l'},
      {"name", no_argument, NULL, 'n'},
      {"rec", required_argument, NULL, 'r'},
      {NULL, 0, NULL, 0},
  };
  long ignored;
  for (int c; (c = getopt_long(argc, argv, "0cfl:nr:", options, NULL)) != -1;) {
    switch (c) {
      case '0':
        chosen->end = '\0';
        break;
      case 'c':
        chosen->print_link = true;
        break;
      case 'f':
        chosen->print_fid = true;
        break;
      case 'n':
        chosen->only_name = true;
        break;
      case 'l':
      case 'r':
        if (parse_number(optarg, c == 'l' ? &chosen->link : &ignored)) break;
        fprintf(stderr, "%s fid2path: invalid %s '%s'\n", program_invocation_short_name,
                c == 'l' ? "linkno" : "recno", optarg);
        return SHOW_HELP;
      default:
        fprintf(stderr, "%s fid2path: unrecognized option '%s'\n", program_invocation_short_name,
                argv[optind - 1]);
        return SHOW_HELP;
    }
  }
  if (argc - optind >= 2) return 0;
  fprintf(stderr, "Usage: %s fid2path FSNAME|ROOT FID...\n", program_invocation_short_name);
  return SHOW_HELP;
}

int fid2path(int argc, char *argv[]) {
  struct fid2path options = {.end = '\n', .link = -1};
  int status = parse_options(argc, argv, &options);
  if (status != 0) return status;
  options.place = argv[optind++];
  status = resolve(&options);
  if (status != 0) return status;
  int first_error = 0;
  for (int i = optind; i < argc; i++) {
    int error = show(&options, argv[i]);
    if (first_error == 0) first_error = error;
  }
  free(options.point);
  close(options.root);
  return first_error;
}
