/* lfs find: the entries of directory trees that match. Nothing is restored: the layout comes from
 * the HSM state. What cannot be looked at is reported, and the walk goes on. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../abi.h"
#include "hsm_state.h"
#include "lfs.h"
#include "predicate.h"

enum { MAX_PREDICATES = 64 };

struct find {
  struct predicate predicates[MAX_PREDICATES];
  int count;
  bool needs_stat;
  bool needs_layout;
  long min_depth;
  /* -1: any. */
  long max_depth;
  char end;
  time_t now;
  int first_error;
};

/* A growing path that is the walk's current entry. */
struct path {
  char *text;
  size_t length;
  size_t room;
};

static void complain(struct find *find, const char *path, int error) {
  fprintf(stderr, "%s find: cannot look at '%s': %s\n", program_invocation_short_name, path,
          strerror(error));
  if (find->first_error == 0) find->first_error = error;
}

static bool append(struct path *path, const char *name) {
  const size_t length = strlen(name);
  const bool slash = path->length > 0 && path->text[path->length - 1] != '/';
  if (path->length + slash + length + 1 > path->room) {
    const size_t room = 2 * (path->length + length) + 256;
    char *text = realloc(path->text, room);
    if (text == NULL) return false;
    path->text = text;
    path->room = room;
  }
  if (slash) path->text[path->length++] = '/';
  memcpy(path->text + path->length, name, length + 1);
  path->length += length;
  return true;
}

static void cut(struct path *path, size_t length) {
  path->length = length;
  path->text[length] = '\0';
}

/* Whether the predicates hold that need no layout, or those that do. */
static bool all_hold(const struct find *find, const struct entry *entry, bool layout) {
  for (int i = 0; i < find->count; i++) {
    const struct predicate *predicate = &find->predicates[i];
    if ((predicate->test == LAYOUT) != layout) continue;
    if (predicate_holds(predicate, entry, find->now) == predicate->negated) return false;
  }
  return true;
}

/* 0 in `*layout`: neither file nor directory, and no predicate of layout holds, negated or not. */
static int layout_of(int directory, const char *name, const char *path, mode_t mode,
                     uint32_t *layout) {
  *layout = S_ISDIR(mode) || S_ISREG(mode) ? LAYOUT_RAID0 : 0;
  if (!S_ISREG(mode)) return 0;
  int fd = openat(directory, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  struct hsm_user_state state = {0};
  int error = hsm_state_of(fd, path, &state);
  close(fd);
  if (error == 0 && state.hus_states & HS_RELEASED) *layout |= LAYOUT_RELEASED;
  return error;
}

static void consider(struct find *find, int directory, const char *at, const struct path *path,
                     const struct stat *st, long depth) {
  if (depth < find->min_depth) return;
  const char *slash = strrchr(path->text, '/');
  struct entry entry = {.name = slash == NULL ? path->text : slash + 1, .st = *st};
  if (!all_hold(find, &entry, false)) return;
  if (find->needs_layout) {
    int error = layout_of(directory, at, path->text, st->st_mode, &entry.layout);
    if (error != 0) return complain(find, path->text, error);
    if (entry.layout == 0 || !all_hold(find, &entry, true)) return;
  }
  fputs(path->text, stdout);
  putchar(find->end);
}

/* The type of a directory entry as a mode; 0 where a stat has to tell. */
static mode_t mode_of(const struct find *find, const struct dirent *dirent) {
  if (find->needs_stat || dirent->d_type == DT_UNKNOWN) return 0;
  return DTTOIF(dirent->d_type);
}

static void walk(struct find *find, int fd, struct path *path, long depth);

static void visit(struct find *find, int directory, const char *at, struct path *path,
                  const struct stat *st, long depth) {
  consider(find, directory, at, path, st, depth);
  if (!S_ISDIR(st->st_mode) || depth == find->max_depth) return;
  int fd = openat(directory, at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0)
    complain(find, path->text, errno);
  else
    walk(find, fd, path, depth + 1);
}

static void walk(struct find *find, int fd, struct path *path, long depth) {
  DIR *listing = fdopendir(fd);
  if (listing == NULL) {
    complain(find, path->text, errno);
    close(fd);
    return;
  }
  const size_t length = path->length;
  for (;;) {
    errno = 0;
    const struct dirent *dirent = readdir(listing);
    if (dirent == NULL) break;
    if (strcmp(dirent->d_name, ".") == 0 || strcmp(dirent->d_name, "..") == 0) continue;
    if (!append(path, dirent->d_name)) break;
    struct stat st = {.st_mode = mode_of(find, dirent)};
    if (st.st_mode != 0 || fstatat(fd, dirent->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
      visit(find, fd, dirent->d_name, path, &st, depth);
    else if (errno != ENOENT)
      complain(find, path->text, errno);
    cut(path, length);
  }
  if (errno != 0) complain(find, path->text, errno);
  closedir(listing);
}

/* Where a tree begins a symlink to a directory is followed. */
static int start(struct find *find, const char *text) {
  struct path path = {0};
  struct stat st;
  if (!append(&path, text)) return ENOMEM;
  int error = 0;
  int fd = open(text, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
  if (fd >= 0 && fstat(fd, &st) == 0) {
    consider(find, fd, ".", &path, &st, 0);
    if (find->max_depth == 0)
      close(fd);
    else
      walk(find, fd, &path, 1);
  } else if (fd < 0 && errno != ENOTDIR && errno != ENOENT) {
    error = errno;
  } else if (lstat(text, &st) != 0) {
    error = errno;
  } else {
    consider(find, AT_FDCWD, text, &path, &st, 0);
  }
  free(path.text);
  return error;
}

static int take_depth(const char *what, const char *text, long *depth) {
  uint64_t number;
  if (!number_parse(text, INT32_MAX, &number)) {
    fprintf(stderr, "error: bad %s '%s'\n", what, text);
    return SHOW_HELP;
  }
  *depth = (long)number;
  return 0;
}

/* -1: not a predicate. */
static int test_of(int option) {
  static const struct {
    int option;
    enum test test;
  } tests[] = {{'n', NAME},  {'t', TYPE},  {'s', SIZE},   {'b', BLOCKS}, {'A', ATIME},
               {'M', MTIME}, {'C', CTIME}, {'L', LAYOUT}, {'u', UID},    {'U', UID},
               {'g', GID},   {'G', GID},   {'k', LINKS}};
  for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
    if (tests[i].option == option) return (int)tests[i].test;
  return -1;
}

static int add_predicate(struct find *find, enum test test, bool negated, char *text) {
  if (find->count == MAX_PREDICATES) return E2BIG;
  if (test == LAYOUT)
    find->needs_layout = true;
  else if (test != NAME && test != TYPE)
    find->needs_stat = true;
  return predicate_parse(&find->predicates[find->count++], test, negated, text);
}

/* Where the paths stand in argv: before all options or behind them. */
struct range {
  int from;
  int to;
};

static int parse_options(int argc, char *argv[], struct find *find, struct range *paths) {
  static const struct option options[] = {
      {"print0", no_argument, NULL, '0'},         {"atime", required_argument, NULL, 'A'},
      {"blocks", required_argument, NULL, 'b'},   {"ctime", required_argument, NULL, 'C'},
      {"mindepth", required_argument, NULL, 'd'}, {"maxdepth", required_argument, NULL, 'D'},
      {"gid", required_argument, NULL, 'g'},      {"group", required_argument, NULL, 'G'},
      {"help", no_argument, NULL, 'h'},           {"links", required_argument, NULL, 'k'},
      {"lazy", no_argument, NULL, 'l'},           {"layout", required_argument, NULL, 'L'},
      {"mtime", required_argument, NULL, 'M'},    {"name", required_argument, NULL, 'n'},
      {"print", no_argument, NULL, 'P'},          {"size", required_argument, NULL, 's'},
      {"type", required_argument, NULL, 't'},     {"uid", required_argument, NULL, 'u'},
      {"user", required_argument, NULL, 'U'},     {NULL, 0, NULL, 0},
  };
  /* A '!' is about the option right behind it. */
  int negation = 0;
  int previous = optind;
  *paths = (struct range){-1, -1};
  for (int c; (c = getopt_long_only(argc, argv, "-0A:b:C:d:D:g:G:hlL:M:n:Pps:t:u:U:", options,
                                    NULL)) != -1;) {
    if (negation > 0) negation--;
    const bool is_path = c == 1 && strcmp(optarg, "!") != 0;
    if (is_path && paths->to >= 0) {
      fprintf(stderr, "err: %s: filename|dirname must either precede options or follow options\n",
              argv[0]);
      return SHOW_HELP;
    }
    if (is_path && paths->from < 0) paths->from = previous;
    if (!is_path && paths->from >= 0 && paths->to < 0) paths->to = previous;
    previous = optind;
    int status = 0;
    const int test = test_of(c);
    if (test >= 0)
      status = add_predicate(find, (enum test)test, negation > 0, optarg);
    else if (c == 1 && !is_path)
      negation = 2;
    /* -p is print0, and -P the print that is always done. */
    else if (c == '0' || c == 'p')
      find->end = '\0';
    else if (c == 'd')
      status = take_depth("mindepth", optarg, &find->min_depth);
    else if (c == 'D')
      status = take_depth("maxdepth", optarg, &find->max_depth);
    else if (c == 'h')
      status = SHOW_HELP;
    else if (c == '?')
      status = unrecognized_option(argv);
    if (status != 0) return status;
  }
  if (paths->from < 0) {
    /* getopt stops at "--", and leaves what is behind it. */
    *paths = (struct range){optind, argc};
  } else if (paths->to < 0) {
    paths->to = argc;
  }
  return paths->from < paths->to ? 0 : SHOW_HELP;
}

int find(int argc, char *argv[]) {
  struct find find = {.max_depth = -1, .end = '\n', .now = time(NULL)};
  struct range paths;
  int status = parse_options(argc, argv, &find, &paths);
  if (status != 0) return status;
  for (int i = paths.from; i < paths.to; i++) {
    int error = start(&find, argv[i]);
    if (error == 0) continue;
    fprintf(stderr, "%s: failed for '%s': %s\n", program_invocation_short_name, argv[i],
            strerror(error));
    if (find.first_error == 0) find.first_error = error;
  }
  return find.first_error;
}
