/* What `lfs find` looks for: one condition on an entry. */
#ifndef LUSTRITE_LFS_PREDICATE_H
#define LUSTRITE_LFS_PREDICATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

enum test { NAME, TYPE, SIZE, BLOCKS, ATIME, MTIME, CTIME, LAYOUT, UID, GID, LINKS };

/* The bits of a file's layout, as lustre_user.h has them: a released file is still raid0. */
enum { LAYOUT_RAID0 = 0x1, LAYOUT_MDT = 0x100, LAYOUT_RELEASED = 0x80000000u };

/* One predicate. All of them must hold. */
struct predicate {
  enum test test;
  bool negated;
  const char *pattern;
  mode_t type;
  uint64_t value;
  /* -1: less, 0: equal, +1: more than `value`, of which equal is a range this wide. */
  int sign;
  uint64_t margin;
};

/* What an entry is found to be. */
struct entry {
  const char *name;
  struct stat st;
  uint32_t layout;
};

/* Negation aside. */
bool predicate_holds(const struct predicate *predicate, const struct entry *entry, time_t now);

/* Reads what a predicate of this kind is told, which may be changed meanwhile. 0, SHOW_HELP or an
 * errno, and a message then. */
int predicate_parse(struct predicate *predicate, enum test test, bool negated, char *text);

/* "0", "12", "0x10": digits only, and no more than `max`. */
bool number_parse(const char *text, uint64_t max, uint64_t *number);

#endif
