/* lfs setstripe: creates files with a layout and gives directories a default one. What it takes is
 * checked as Lustre does and remembered; there is one disk, and it has no effect. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"
#include "lfs.h"
#include "size.h"

enum { MOST_STRIPES = 2000, MOST_OSTS = 65535, LEAST_OVERSTRIPES = -32 };

/* Options without a letter. */
enum { ADD = 256, DELETE_COMPONENT, SET, FLAGS, FOREIGN, MIRROR_ID, MODE, COPY, NO_VERIFY };

struct setstripe {
  struct lustrite_layout layout;
  /* What the options speak of now; its end is 0 before the first -E. */
  struct lustrite_component component;
  /* Anything about stripes was said. */
  bool specified;
  bool delete;
  /* --component-add, -del, -set: about a layout that is there. */
  bool edit;
  const char *copy;
  mode_t mode;
};

static int refuse(const char *what, const char *text) {
  fprintf(stderr, "%s setstripe: invalid %s '%s'\n", program_invocation_short_name, what, text);
  return SHOW_HELP;
}

static bool parse_long(const char *text, long least, long most, int32_t *number) {
  char *end;
  errno = 0;
  const long value = strtol(text, &end, 0);
  *number = (int32_t)value;
  return errno == 0 && end != text && *end == '\0' && value >= least && value <= most;
}

/* "4", "0-3,5": only the first is of interest, and how many there are. */
static int take_osts(struct setstripe *chosen, const char *text) {
  int32_t count = 0;
  for (const char *at = text;;) {
    char *end;
    errno = 0;
    const long from = strtol(at, &end, 0);
    long to = from;
    bool good = errno == 0 && end != at && *at != '-';
    if (good && *end == '-') {
      at = end + 1;
      to = strtol(at, &end, 0);
      good = errno == 0 && end != at && *at != '-';
    }
    if (!good || from < 0 || to < from || to > MOST_OSTS || (*end != ',' && *end != '\0'))
      return refuse("OST target(s)", text);
    if (count == 0) chosen->component.stripe_offset = (int32_t)from;
    count += (int32_t)(to - from) + 1;
    if (count > MOST_STRIPES) return refuse("OST target(s)", text);
    if (*end == '\0') break;
    at = end + 1;
  }
  chosen->component.stripe_count = count;
  return 0;
}

/* Sizes too small to be meant in bytes are in KiB. */
static bool parse_kib(const char *text, uint64_t *size) {
  uint64_t unit = 1;
  if (!size_parse(text, size, &unit)) return false;
  if (*size < 4096) *size *= 1024;
  return *size % LEAST_STRIPE_SIZE == 0;
}

static int take_stripe_size(struct setstripe *chosen, const char *text) {
  uint64_t size;
  if (!parse_kib(text, &size) || size > UINT32_MAX) return refuse("stripe size", text);
  chosen->component.stripe_size = (uint32_t)size;
  return 0;
}

/* Ends the component that the options spoke of. The next one is as it was until told otherwise. */
static int end_component(struct setstripe *chosen) {
  struct lustrite_layout *layout = &chosen->layout;
  const uint64_t start = layout->count == 0 ? 0 : layout->components[layout->count - 1].end;
  if (layout->count == LUSTRITE_COMPONENTS || chosen->component.end <= start) {
    fprintf(stderr, "%s setstripe: invalid layout\n", program_invocation_short_name);
    return SHOW_HELP;
  }
  layout->components[layout->count++] = chosen->component;
  chosen->component.pattern = PATTERN_RAID0;
  return 0;
}

static int take_end(struct setstripe *chosen, const char *text) {
  if (chosen->component.end != 0) {
    int status = end_component(chosen);
    if (status != 0) return status;
  }
  if (strcmp(text, "-1") == 0 || strcasecmp(text, "eof") == 0)
    chosen->component.end = UINT64_MAX;
  else if (!parse_kib(text, &chosen->component.end) || chosen->component.end == 0)
    return refuse("component end", text);
  return 0;
}

static int take_pattern(struct setstripe *chosen, const char *text) {
  if (strcmp(text, "raid0") == 0) return 0;
  if (strcmp(text, "mdt") != 0) {
    fprintf(stderr, "error: layout '%s' is unknown, supported layouts are: 'mdt', 'raid0'\n", text);
    return EINVAL;
  }
  if (chosen->layout.count > 0) {
    fprintf(stderr, "error: 'mdt' layout can be only the first one\n");
    return EINVAL;
  }
  chosen->component.pattern = PATTERN_MDT;
  return 0;
}

static int take_pool(struct setstripe *chosen, const char *text) {
  if (strlen(text) >= sizeof(chosen->component.pool)) return refuse("pool name", text);
  memset(chosen->component.pool, 0, sizeof(chosen->component.pool));
  memcpy(chosen->component.pool, text, strlen(text));
  return 0;
}

static int take_mode(struct setstripe *chosen, const char *text) {
  char *end;
  const unsigned long mode = strtoul(text, &end, 8);
  if (*text < '0' || *text > '7' || *end != '\0' || mode > 07777) {
    fprintf(stderr, "%s setstripe: bad mode '%s'\n", program_invocation_short_name, text);
    return SHOW_HELP;
  }
  chosen->mode = (mode_t)mode;
  umask(0);
  return 0;
}

static int only_for_migrate(int option) {
  fprintf(stderr, "%s setstripe: -%c is valid only for migrate command\n",
          program_invocation_short_name, option);
  return SHOW_HELP;
}

static int unsupported(const char *option) {
  fprintf(stderr, "%s setstripe: %s: %s\n", program_invocation_short_name, option,
          strerror(EOPNOTSUPP));
  return EOPNOTSUPP;
}

static int take_option(struct setstripe *chosen, int option, char *argv[]) {
  uint64_t ignored;
  int32_t number;
  chosen->specified |= option < 256 && strchr("cCiopLSEz", option) != NULL;
  switch (option) {
    case 'C':
      chosen->component.pattern = PATTERN_RAID0 | PATTERN_OVERSTRIPED;
      __attribute__((fallthrough));
    case 'c':
      return parse_long(optarg, option == 'C' ? LEAST_OVERSTRIPES : -1, MOST_STRIPES,
                        &chosen->component.stripe_count)
                 ? 0
                 : refuse("stripe count", optarg);
    case 'i':
      return parse_long(optarg, -1, MOST_OSTS, &chosen->component.stripe_offset)
                 ? 0
                 : refuse("stripe offset", optarg);
    case 'S':
      return take_stripe_size(chosen, optarg);
    case 'o':
      return take_osts(chosen, optarg);
    case 'p':
      return take_pool(chosen, optarg);
    case 'L':
      return take_pattern(chosen, optarg);
    case 'E':
      return take_end(chosen, optarg);
    case 'z':
      return parse_kib(optarg, &ignored) ? 0 : refuse("extension size", optarg);
    case 'd':
      chosen->delete = true;
      return 0;
    case 'I':
      return parse_long(optarg, 1, INT32_MAX, &number) ? 0 : refuse("component ID", optarg);
    case MIRROR_ID:
      return parse_long(optarg, 1, 65535, &number) ? 0 : refuse("mirror ID", optarg);
    case 'N':
      return optarg == NULL || parse_long(optarg, 1, 16, &number) ? 0
                                                                  : refuse("mirror count", optarg);
    case MODE:
      return take_mode(chosen, optarg);
    case COPY:
      chosen->copy = optarg;
      return 0;
    case ADD:
    case DELETE_COMPONENT:
    case SET:
      chosen->edit = true;
      return 0;
    case FLAGS:
    case NO_VERIFY:
    case 'x':
      return 0;
    case 'b':
    case 'D':
    case 'H':
    case 'm':
    case 'n':
    case 'v':
    case 'W':
      return only_for_migrate(option);
    case FOREIGN:
      return unsupported("--foreign");
    case 'y':
      return unsupported("--yaml");
    case 'h':
      return SHOW_HELP;
    default:
      fprintf(stderr, "%s setstripe: unrecognized option '%s'\n", program_invocation_short_name,
              argv[optind - 1]);
      return SHOW_HELP;
  }
}

static int parse_options(int argc, char *argv[], struct setstripe *chosen) {
  static const struct option options[] = {
      {"block", no_argument, NULL, 'b'},
      {"comp-add", no_argument, NULL, ADD},
      {"component-add", no_argument, NULL, ADD},
      {"comp-del", no_argument, NULL, DELETE_COMPONENT},
      {"component-del", no_argument, NULL, DELETE_COMPONENT},
      {"comp-set", no_argument, NULL, SET},
      {"component-set", no_argument, NULL, SET},
      {"comp-flags", required_argument, NULL, FLAGS},
      {"component-flags", required_argument, NULL, FLAGS},
      {"flags", required_argument, NULL, FLAGS},
      {"no-verify", no_argument, NULL, NO_VERIFY},
      {"foreign", optional_argument, NULL, FOREIGN},
      {"mirror-id", required_argument, NULL, MIRROR_ID},
      {"mode", required_argument, NULL, MODE},
      {"copy", required_argument, NULL, COPY},
      {"stripe-count", required_argument, NULL, 'c'},
      {"stripe_count", required_argument, NULL, 'c'},
      {"overstripe-count", required_argument, NULL, 'C'},
      {"delete", no_argument, NULL, 'd'},
      {"destroy", no_argument, NULL, 'd'},
      {"non-direct", no_argument, NULL, 'D'},
      {"comp-end", required_argument, NULL, 'E'},
      {"component-end", required_argument, NULL, 'E'},
      {"help", no_argument, NULL, 'h'},
      {"mdt-hash", required_argument, NULL, 'H'},
      {"stripe-index", required_argument, NULL, 'i'},
      {"stripe_index", required_argument, NULL, 'i'},
      {"comp-id", required_argument, NULL, 'I'},
      {"component-id", required_argument, NULL, 'I'},
      {"layout", required_argument, NULL, 'L'},
      {"mdt", required_argument, NULL, 'm'},
      {"mdt-index", required_argument, NULL, 'm'},
      {"non-block", no_argument, NULL, 'n'},
      {"mirror-count", optional_argument, NULL, 'N'},
      {"ost", required_argument, NULL, 'o'},
      {"ost-list", required_argument, NULL, 'o'},
      {"ost_list", required_argument, NULL, 'o'},
      {"pool", required_argument, NULL, 'p'},
      {"stripe-size", required_argument, NULL, 'S'},
      {"stripe_size", required_argument, NULL, 'S'},
      {"verbose", no_argument, NULL, 'v'},
      {"bandwidth", required_argument, NULL, 'W'},
      {"xattr", required_argument, NULL, 'x'},
      {"yaml", required_argument, NULL, 'y'},
      {"ext-size", required_argument, NULL, 'z'},
      {"extension-size", required_argument, NULL, 'z'},
      {NULL, 0, NULL, 0},
  };
  for (int c; (c = getopt_long(argc, argv, "bc:C:dDE:hH:i:I:m:N::no:p:L:S:vx:W:y:z:", options,
                               NULL)) != -1;) {
    int status = take_option(chosen, c, argv);
    if (status != 0) return status;
  }
  const char *wrong = NULL;
  if (optind == argc)
    wrong = "FILE must be specified";
  else if (chosen->delete && (chosen->specified || chosen->edit))
    wrong = "option -d is mutually exclusive with -s, -c, -o, -p, -I, -F and -E options";
  else if (chosen->copy != NULL && chosen->specified)
    wrong = "can't specify --yaml or --copy with -c, -S, -i, -o, -p or -E options.";
  if (wrong != NULL) {
    fprintf(stderr, "%s setstripe: %s\n", program_invocation_short_name, wrong);
    return SHOW_HELP;
  }
  if (chosen->component.end != 0) return end_component(chosen);
  chosen->component.end = UINT64_MAX;
  chosen->layout.components[0] = chosen->component;
  chosen->layout.count = 1;
  return 0;
}

static int load_copy(const char *path, struct lustrite_layout *layout) {
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  int error = fd < 0 ? errno : layout_read(fd, layout);
  if (fd >= 0) close(fd);
  if (error != 0)
    fprintf(stderr, "%s setstripe: can't create composite layout from file %s: %s\n",
            program_invocation_short_name, path, strerror(error));
  return error;
}

static int fail(const char *path, int error) {
  const char *text = error == EEXIST   ? "stripe already set"
                     : error == ENOTTY ? "not on a Lustre filesystem"
                                       : strerror(error);
  fprintf(stderr, "%s setstripe: setstripe error for '%s': %s\n", program_invocation_short_name,
          path, text);
  return error;
}

static int set_directory(const char *path, const struct setstripe *chosen) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail(path, errno);
  int error = layout_write(fd, chosen->delete ? NULL : &chosen->layout);
  close(fd);
  return error == 0 ? 0 : fail(path, error);
}

static int create_file(const char *path, const struct setstripe *chosen) {
  /* By its directory: what is taken back is what was made, whatever the path leads to by then. */
  const char *slash = strrchr(path, '/');
  const char *name = slash == NULL ? path : slash + 1;
  char parent[PATH_MAX] = ".";
  if (slash != NULL) {
    const size_t length = slash == path ? 1 : (size_t)(slash - path);
    if (length >= sizeof(parent)) return fail(path, ENAMETOOLONG);
    memcpy(parent, path, length);
    parent[length] = '\0';
  }
  int directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return fail(path, errno);
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC;
  int fd = openat(directory, name, flags, chosen->mode);
  int error = fd < 0 ? errno : layout_write(fd, &chosen->layout);
  if (fd >= 0) close(fd);
  if (fd >= 0 && error != 0) unlinkat(directory, name, 0);
  close(directory);
  return error == 0 ? 0 : fail(path, error);
}

static int set_one(const char *path, const struct setstripe *chosen) {
  struct stat st;
  const bool there = stat(path, &st) == 0;
  if (there && S_ISDIR(st.st_mode)) return set_directory(path, chosen);
  if (chosen->delete) {
    if (!there) return fail(path, ENOENT);
    fprintf(stderr, "%s setstripe: cannot delete the layout of a file: '%s'\n",
            program_invocation_short_name, path);
    return EINVAL;
  }
  /* Nothing of a single component is remembered. */
  if (chosen->edit) return there ? 0 : fail(path, ENOENT);
  return create_file(path, chosen);
}

int setstripe(int argc, char *argv[]) {
  struct setstripe chosen = {.layout = layout_default(), .mode = 0666};
  chosen.component = chosen.layout.components[0];
  chosen.component.end = 0;
  chosen.layout.count = 0;
  int status = parse_options(argc, argv, &chosen);
  if (status == 0 && chosen.copy != NULL) status = load_copy(chosen.copy, &chosen.layout);
  if (status != 0) return status;
  int first_error = 0;
  for (int i = optind; i < argc; i++) {
    int error = set_one(argv[i], &chosen);
    if (first_error == 0) first_error = error;
  }
  return first_error;
}
