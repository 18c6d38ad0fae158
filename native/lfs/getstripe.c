/* lfs getstripe: the layout that setstripe was told, or the default one, as Lustre shows it, with
 * the objects that a file would have. A released file has the layout "released" and no objects. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fid.h"
#include "hsm_state.h"
#include "layout.h"
#include "lfs.h"

enum field {
  COUNT = 1,
  SIZE = 2,
  PATTERN = 4,
  GENERATION = 8,
  OFFSET = 16,
  POOL = 32,
  OBJECTS = 64,
  FID = 128,
  MDT = 256,
  COMPONENT_COUNT = 512,
  MIRROR_COUNT = 1024,
  DETAIL = 2048,
  USUAL = COUNT | SIZE | PATTERN | GENERATION | OFFSET | POOL | OBJECTS
};

struct getstripe {
  unsigned fields;
  bool yaml;
  bool raw;
  bool recursive;
  /* A directory stands for itself, not for what it holds. */
  bool directory_only;
  bool show_paths;
  int first_error;
};

/* What is shown of one file or directory. */
struct shown {
  bool directory;
  bool released;
  off_t size;
  struct lu_fid fid;
  struct lustrite_layout layout;
};

static const char *pattern_name(const struct lustrite_component *component, bool released) {
  if (released) return "released";
  switch (component->pattern) {
    case PATTERN_MDT:
      return "mdt";
    case PATTERN_RAID0 | PATTERN_OVERSTRIPED:
      return "raid0,overstriped";
    default:
      return "raid0";
  }
}

/* What a default one, or as many as there are, comes to; a directory shows what it was told. */
static int stripe_count(const struct lustrite_component *component, bool directory, bool raw) {
  if (component->pattern == PATTERN_MDT) return 0;
  if (directory && raw) return component->stripe_count;
  if (component->stripe_count == 0) return 1;
  return component->stripe_count < 0 && !directory ? 1 : component->stripe_count;
}

static uint32_t stripe_size(const struct lustrite_component *component, bool raw) {
  return component->stripe_size == 0 && !raw ? DEFAULT_STRIPE_SIZE : component->stripe_size;
}

/* A place where fields are written: one below the other, or behind each other. */
struct sheet {
  const struct getstripe *options;
  const char *indent;
  const char *prefix;
  const char *between;
  bool any;
};

/* A field that is the only one wanted has no label. */
static bool begin(struct sheet *sheet, unsigned field, const char *label) {
  if (!(sheet->options->fields & field)) return false;
  if (sheet->any) fputs(sheet->between, stdout);
  sheet->any = true;
  if (sheet->options->fields & ~field) printf("%s%s%s", sheet->indent, sheet->prefix, label);
  return true;
}

static void print_objects(const struct lustrite_component *component, const struct shown *shown,
                          const char *indent, bool yaml) {
  const int first = component->stripe_offset < 0 ? 0 : component->stripe_offset;
  const int count = stripe_count(component, false, false);
  if (yaml || *indent != '\0')
    printf("%slmm_objects:\n", indent);
  else
    puts("\tobdidx\t\t objid\t\t objid\t\t group");
  for (int i = 0; i < count; i++) {
    const int index = first + i;
    const struct lu_fid fid = {.f_seq = UINT64_C(0x100000000) | (uint64_t)index << 16,
                               .f_oid = shown->fid.f_oid};
    char text[FID_TEXT];
    fid_print(&fid, text);
    if (yaml)
      printf("      - l_ost_idx: %d\n        l_fid:     %.*s\n", index, (int)strlen(text) - 2,
             text + 1);
    else if (*indent != '\0')
      printf("      - %3d: { l_ost_idx: %3d, l_fid: %s }\n", i, index, text);
    else
      printf("\t%6d\t%14" PRIu32 "\t%#13" PRIx32 "\t%14d\n", index, shown->fid.f_oid,
             shown->fid.f_oid, 0);
  }
}

/* `indent`: of a component; "" where there are none. `used`: the component has objects. */
static void print_component(const struct lustrite_component *component, const struct shown *shown,
                            const struct getstripe *options, const char *indent, bool used) {
  const bool inline_fields = shown->directory && !options->yaml;
  struct sheet sheet = {options, indent, shown->directory ? "" : "lmm_", inline_fields ? " " : "\n",
                        false};
  char fid[FID_TEXT];
  fid_print(&shown->fid, fid);
  if (options->fields & DETAIL && !shown->directory)
    printf("%slmm_magic:         0x0BD10BD0\n%slmm_seq:           %#" PRIx64
           "\n%slmm_object_id:     %#" PRIx32 "\n",
           indent, indent, shown->fid.f_seq, indent, shown->fid.f_oid);
  if (options->fields & (DETAIL | FID)) {
    if (options->fields & ~(unsigned)FID) printf("%slmm_fid:           ", indent);
    puts(fid);
  }
  const int count = stripe_count(component, shown->directory, options->raw);
  if (begin(&sheet, COUNT, "stripe_count:  ")) printf("%d", count);
  if (begin(&sheet, SIZE, "stripe_size:   "))
    printf("%" PRIu32, stripe_size(component, shown->directory && options->raw));
  if (begin(&sheet, PATTERN, "pattern:       "))
    fputs(pattern_name(component, shown->released), stdout);
  if (!shown->directory && begin(&sheet, GENERATION, "layout_gen:    ")) putchar('0');
  if (begin(&sheet, OFFSET, "stripe_offset: "))
    printf("%d", used && component->stripe_offset < 0 ? 0 : component->stripe_offset);
  if (*component->pool != '\0' && begin(&sheet, POOL, "pool:          "))
    fputs(component->pool, stdout);
  if (sheet.any) putchar('\n');
  if (options->fields & OBJECTS && used && !shown->released && component->pattern != PATTERN_MDT)
    print_objects(component, shown, indent, options->yaml);
  if (!options->yaml) putchar('\n');
}

static uint64_t start_of(const struct lustrite_layout *layout, uint32_t index) {
  return index == 0 ? 0 : layout->components[index - 1].end;
}

static void print_components(const struct shown *shown, const struct getstripe *options) {
  const struct lustrite_layout *layout = &shown->layout;
  const char *indent = options->yaml ? "" : "  ";
  printf("%slcm_layout_gen:    %d\n%slcm_mirror_count:  1\n%slcm_entry_count:   %" PRIu32 "\n",
         indent, shown->directory ? 0 : (int)layout->count, indent, indent, layout->count);
  if (options->yaml || options->fields & DETAIL) puts("components:");
  for (uint32_t i = 0; i < layout->count; i++) {
    const struct lustrite_component *component = &layout->components[i];
    /* A file gets the objects of a component when it grows into it. */
    const uint64_t start = start_of(layout, i);
    const bool used = !shown->directory && (i == 0 || (uint64_t)shown->size > start);
    printf("%slcme_id:             ", options->yaml || options->fields & DETAIL ? "  - " : "    ");
    if (shown->directory)
      puts("N/A\n    lcme_mirror_id:      N/A");
    else
      printf("%" PRIu32 "\n    lcme_mirror_id:      0\n", i + 1);
    printf("    lcme_flags:          %s\n    lcme_extent.e_start: %" PRIu64 "\n",
           used ? "init" : "0", start);
    if (component->end == UINT64_MAX)
      puts("    lcme_extent.e_end:   EOF");
    else
      printf("    lcme_extent.e_end:   %" PRIu64 "\n", component->end);
    if (options->yaml || options->fields & DETAIL) puts("    sub_layout:");
    print_component(component, shown, options, "      ", used);
  }
}

/* What a single field of a composite file is about: the last component that is used. */
static const struct lustrite_component *last_used(const struct shown *shown) {
  uint32_t last = 0;
  for (uint32_t i = 1; i < shown->layout.count; i++)
    if (!shown->directory && (uint64_t)shown->size > start_of(&shown->layout, i)) last = i;
  return &shown->layout.components[last];
}

static void print_layout(const char *path, const struct shown *shown,
                         const struct getstripe *options) {
  if (options->show_paths && !options->yaml) puts(path);
  if (options->fields & (MDT | COMPONENT_COUNT | MIRROR_COUNT)) {
    const uint32_t count = layout_is_composite(&shown->layout) ? shown->layout.count : 0;
    printf("%" PRIu32 "\n", options->fields & MDT               ? 0
                            : options->fields & COMPONENT_COUNT ? count
                                                                : 1);
  } else if (layout_is_composite(&shown->layout) && (options->fields & USUAL) == USUAL) {
    print_components(shown, options);
  } else {
    print_component(last_used(shown), shown, options, "", !shown->directory);
  }
}

static int look(const char *path, int fd, const struct stat *st, struct shown *shown) {
  *shown = (struct shown){.directory = S_ISDIR(st->st_mode), .size = st->st_size};
  int error = layout_read(fd, &shown->layout);
  if (error == 0) error = fid_of_fd(fd, &shown->fid);
  struct hsm_user_state state = {0};
  if (error == 0 && !shown->directory) error = hsm_state_of(fd, path, &state);
  shown->released = state.hus_states & HS_RELEASED;
  return error;
}

static void fail(struct getstripe *options, const char *path, int error) {
  fprintf(stderr, "%s: getstripe for '%s' failed: %s\n", program_invocation_short_name, path,
          strerror(error));
  if (options->first_error == 0) options->first_error = error;
}

static void show(struct getstripe *options, int directory, const char *at, const char *path,
                 int depth);

static void show_entries(struct getstripe *options, int fd, const char *path, int depth) {
  int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *listing = again < 0 ? NULL : fdopendir(again);
  if (listing == NULL) {
    fail(options, path, errno);
    if (again >= 0) close(again);
    return;
  }
  for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    struct stat st;
    if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) continue;
    char *below;
    const bool slash = path[strlen(path) - 1] != '/';
    if (asprintf(&below, "%s%s%s", path, slash ? "/" : "", entry->d_name) < 0) break;
    show(options, fd, entry->d_name, below, depth + 1);
    free(below);
  }
  closedir(listing);
}

static void show(struct getstripe *options, int directory, const char *at, const char *path,
                 int depth) {
  const int no_follow = depth > 0 ? O_NOFOLLOW : 0;
  int fd = openat(directory, at, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | no_follow);
  if (fd < 0) return fail(options, path, errno);
  struct stat st;
  struct shown shown;
  int error = fstat(fd, &st) != 0 ? errno : look(path, fd, &st, &shown);
  if (error != 0) {
    fail(options, path, error);
  } else {
    print_layout(path, &shown, options);
    if (shown.directory && !options->directory_only && (depth == 0 || options->recursive))
      show_entries(options, fd, path, depth);
  }
  close(fd);
}

static int parse_options(int argc, char *argv[], struct getstripe *chosen) {
  static const struct option options[] = {
      {"comp-count", no_argument, NULL, 'K'},
      {"component-count", no_argument, NULL, 'K'},
      {"comp-flags", optional_argument, NULL, 'l'},
      {"component-flags", optional_argument, NULL, 'l'},
      {"comp-start", optional_argument, NULL, 'l'},
      {"component-start", optional_argument, NULL, 'l'},
      {"comp-end", optional_argument, NULL, 'E'},
      {"component-end", optional_argument, NULL, 'E'},
      {"comp-id", optional_argument, NULL, 'I'},
      {"component-id", optional_argument, NULL, 'I'},
      {"mirror-index", required_argument, NULL, 'l'},
      {"mirror-id", required_argument, NULL, 'l'},
      {"stripe-count", no_argument, NULL, 'c'},
      {"stripe_count", no_argument, NULL, 'c'},
      {"directory", no_argument, NULL, 'd'},
      {"default", no_argument, NULL, 'D'},
      {"fid", no_argument, NULL, 'F'},
      {"generation", no_argument, NULL, 'g'},
      {"help", no_argument, NULL, 'h'},
      {"hex-idx", no_argument, NULL, 'l'},
      {"no-follow", no_argument, NULL, 'l'},
      {"stripe-index", no_argument, NULL, 'i'},
      {"stripe_index", no_argument, NULL, 'i'},
      {"layout", no_argument, NULL, 'L'},
      {"mdt", no_argument, NULL, 'm'},
      {"mdt-index", no_argument, NULL, 'm'},
      {"mdt_index", no_argument, NULL, 'm'},
      {"mirror-count", no_argument, NULL, 'N'},
      {"obd", required_argument, NULL, 'O'},
      {"ost", required_argument, NULL, 'O'},
      {"pool", no_argument, NULL, 'p'},
      {"quiet", no_argument, NULL, 'q'},
      {"recursive", no_argument, NULL, 'r'},
      {"raw", no_argument, NULL, 'R'},
      {"stripe-size", no_argument, NULL, 'S'},
      {"stripe_size", no_argument, NULL, 'S'},
      {"verbose", no_argument, NULL, 'v'},
      {"yaml", no_argument, NULL, 'y'},
      {"extension-size", no_argument, NULL, 'z'},
      {"ext-size", no_argument, NULL, 'z'},
      {NULL, 0, NULL, 0},
  };
  static const struct {
    char option;
    unsigned field;
  } fields[] = {
      {'c', COUNT}, {'F', FID},          {'g', GENERATION}, {'i', OFFSET}, {'L', PATTERN},
      {'m', MDT},   {'N', MIRROR_COUNT}, {'p', POOL},       {'S', SIZE},   {'K', COMPONENT_COUNT}};
  bool verbose = false;
  for (int c; (c = getopt_long(argc, argv, "cdDE::FghiI::LmNO:pqrRsSvyz", options, NULL)) != -1;) {
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
      if (fields[i].option == c) chosen->fields |= fields[i].field;
    switch (c) {
      case 'd':
        chosen->directory_only = true;
        break;
      case 'r':
        chosen->recursive = true;
        break;
      case 'R':
        chosen->raw = true;
        break;
      case 'y':
        chosen->yaml = true;
        break;
      case 'v':
        verbose = true;
        break;
      case 'h':
        return SHOW_HELP;
      case '?':
        return unrecognized_option(argv);
      default:
        break;
    }
  }
  if (optind == argc) {
    fprintf(stderr, "error: %s: no filename|pathname\n", argv[0]);
    return SHOW_HELP;
  }
  /* One value is wanted of what is named. */
  if (chosen->fields != 0 && !chosen->recursive) chosen->directory_only = true;
  if (verbose)
    chosen->fields = USUAL | DETAIL;
  else if (chosen->fields == 0)
    chosen->fields = USUAL;
  chosen->show_paths = !chosen->directory_only;
  return 0;
}

int getstripe(int argc, char *argv[]) {
  struct getstripe options = {0};
  int status = parse_options(argc, argv, &options);
  if (status != 0) return status;
  for (int i = optind; i < argc; i++) show(&options, AT_FDCWD, argv[i], argv[i], 0);
  return options.first_error;
}
