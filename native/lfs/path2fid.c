/* lfs path2fid [--parents] PATH...: works on anything that has a name, symlinks not followed. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fid.h"
#include "lfs.h"
#include "link.h"
#include "mount.h"

/* Splits `path` into the directory that holds the name and the name itself. A path that ends in no
 * name
 * ("dir/", ".", "..") is resolved first. */
static int split(const char *path, char directory[PATH_MAX], char name[NAME_MAX + 1]) {
  char whole[PATH_MAX];
  const char *slash = strrchr(path, '/');
  const char *last = slash == NULL ? path : slash + 1;
  if (*last == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
    if (realpath(path, whole) == NULL) return errno;
  } else if (snprintf(whole, sizeof(whole), slash == NULL ? "./%s" : "%s", path) >=
             (int)sizeof(whole)) {
    return ENAMETOOLONG;
  }
  char *cut = strrchr(whole, '/');
  if (strlen(cut + 1) > NAME_MAX) return ENAMETOOLONG;
  strcpy(name, cut + 1);
  cut[cut == whole] = '\0';
  return realpath(whole, directory) == NULL ? errno : 0;
}

static int print_parent(FILE *to, const char *directory, const char *name) {
  struct lu_fid fid;
  int error = fid_of_path(directory, &fid);
  if (error != 0) return error;
  char text[FID_TEXT];
  fid_print(&fid, text);
  fprintf(to, "%s%s/%s", ftell(to) > 0 ? "\t" : "", text, name);
  return 0;
}

/* All names of the inode, below the open root directory of its mount. */
static int print_links(FILE *to, int root, const char *path, const struct lu_fid *fid) {
  for (uint32_t link = 0;; link++) {
    struct lustrite_fid2path ask = {.fid = *fid, .link = link};
    int error = link_find(root, path, &ask);
    /* A name that went meanwhile is no failure after others. */
    if (error == ENODATA && link > 0) return 0;
    if (error != 0) return error;
    char *slash = strrchr(ask.path, '/');
    if (slash != NULL) *slash = '\0';
    char directory[sizeof(ask.path) + 32];
    snprintf(directory, sizeof(directory), "/proc/self/fd/%d/%s", root,
             slash == NULL ? "." : ask.path);
    error = print_parent(to, directory, slash == NULL ? ask.path : slash + 1);
    if (error != 0) return error;
    if (link + 1 >= ask.links) return 0;
  }
}

/* "[FID of the parent]/name" of each link, as far as the caller may know them: that of `path` at
 * least. */
static int print_parents(FILE *to, const char *path, const struct lu_fid *fid) {
  char directory[PATH_MAX];
  char name[NAME_MAX + 1];
  struct stat st;
  int error = split(path, directory, name);
  if (error != 0) return error;
  if (lstat(path, &st) != 0) return errno;
  if (st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
    int root = mount_open_root(st.st_dev);
    error = root < 0 ? -root : print_links(to, root, path, fid);
    if (root >= 0) close(root);
    if (error == 0 || ftell(to) > 0) return error;
  }
  return print_parent(to, directory, name);
}

/* What is said of one path; the caller frees it. */
static int describe(const char *path, bool parents, char **text) {
  struct lu_fid fid;
  int error = fid_of_path(path, &fid);
  if (error != 0) return error;
  size_t size;
  FILE *to = open_memstream(text, &size);
  if (to == NULL) return errno;
  if (parents) {
    error = print_parents(to, path, &fid);
  } else {
    char fid_text[FID_TEXT];
    fid_print(&fid, fid_text);
    fputs(fid_text, to);
  }
  if (fclose(to) != 0 && error == 0) error = errno;
  return error;
}

int path2fid(int argc, char *argv[]) {
  static const struct option options[] = {
      {"help", no_argument, NULL, 'h'}, {"parents", no_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
  bool parents = false;
  for (int c; (c = getopt_long(argc, argv, "hp", options, NULL)) != -1;) {
    if (c == 'h') return SHOW_HELP;
    if (c != 'p') return unrecognized_option(argv);
    parents = true;
  }
  if (optind == argc) return SHOW_HELP;

  const bool several = argc - optind > 1;
  int first_error = 0;
  for (int i = optind; i < argc; i++) {
    char *text = NULL;
    int error = describe(argv[i], parents, &text);
    if (error != 0) {
      fprintf(stderr, "%s %s: cannot get fid for '%s': %s\n", program_invocation_short_name,
              argv[0], argv[i], strerror(error));
      if (first_error == 0) first_error = error;
    } else if (several) {
      printf("%s: %s\n", argv[i], text);
    } else {
      puts(text);
    }
    free(text);
  }
  return first_error;
}
