/* lfs path2fid [--parents] PATH...: works on anything that has a name, symlinks not followed. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fid.h"
#include "lfs.h"

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

/* "[FID of the parent]/name", or the FID itself. */
static int describe(const char *path, bool parents, char text[FID_TEXT + NAME_MAX + 1]) {
  struct lu_fid fid;
  int error = fid_of_path(path, &fid);
  if (error != 0) return error;
  char name[NAME_MAX + 1] = "";
  if (parents) {
    char directory[PATH_MAX];
    error = split(path, directory, name);
    if (error == 0) error = fid_of_path(directory, &fid);
    if (error != 0) return error;
  }
  char fid_text[FID_TEXT];
  fid_print(&fid, fid_text);
  snprintf(text, FID_TEXT + NAME_MAX + 1, parents ? "%s/%s" : "%s%s", fid_text, name);
  return 0;
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
    char text[FID_TEXT + NAME_MAX + 1];
    int error = describe(argv[i], parents, text);
    if (error != 0) {
      fprintf(stderr, "%s %s: cannot get fid for '%s': %s\n", program_invocation_short_name,
              argv[0], argv[i], strerror(error));
      if (first_error == 0) first_error = error;
    } else if (several) {
      printf("%s: %s\n", argv[i], text);
    } else {
      puts(text);
    }
  }
  return first_error;
}
