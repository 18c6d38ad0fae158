#include "predicate.h"

#include <errno.h>
#include <fnmatch.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lfs.h"
#include "size.h"

/* liblustreapi.c: find_value_cmp; `value` itself ends the range of what is equal to it. */
static bool compare(uint64_t actual, const struct predicate *wanted) {
  if (wanted->sign > 0) return actual > wanted->value;
  const bool below = actual + wanted->margin <= wanted->value;
  return wanted->sign < 0 ? below : actual <= wanted->value && !below;
}

static bool compare_time(time_t actual, const struct predicate *wanted, time_t now) {
  /* An age grows as its time shrinks. */
  const int64_t limit = (int64_t)now - (int64_t)wanted->value;
  const bool older = actual + (int64_t)wanted->margin <= limit;
  if (wanted->sign > 0) return older;
  return wanted->sign < 0 ? actual > limit : actual <= limit && !older;
}

bool predicate_holds(const struct predicate *predicate, const struct entry *entry, time_t now) {
  switch (predicate->test) {
    case NAME:
      return fnmatch(predicate->pattern, entry->name, 0) == 0;
    case TYPE:
      return (entry->st.st_mode & S_IFMT) == predicate->type;
    case SIZE:
      return compare((uint64_t)entry->st.st_size, predicate);
    case BLOCKS:
      return compare((uint64_t)entry->st.st_blocks * 512, predicate);
    case ATIME:
      return compare_time(entry->st.st_atime, predicate, now);
    case MTIME:
      return compare_time(entry->st.st_mtime, predicate, now);
    case CTIME:
      return compare_time(entry->st.st_ctime, predicate, now);
    case UID:
      return entry->st.st_uid == predicate->value;
    case GID:
      return entry->st.st_gid == predicate->value;
    case LINKS:
      return compare(entry->st.st_nlink, predicate);
    case LAYOUT:
      return (entry->layout & predicate->value) != 0;
  }
  return false;
}

/* "+5", "-5", "5": takes the sign off. */
static int take_sign(const char **text) {
  const int sign = **text == '+' ? 1 : **text == '-' ? -1 : 0;
  if (sign != 0) ++*text;
  return sign;
}

static int take_size(struct predicate *predicate, const char *text) {
  predicate->sign = take_sign(&text);
  predicate->margin = 512;
  if (size_parse(text, &predicate->value, &predicate->margin)) return 0;
  fprintf(stderr, "error: bad file size '%s'\n", text);
  return EINVAL;
}

/* "3", "2w1d", "90m": days without a unit. What is equal is so to the smallest unit, or to the day.
 */
static int take_time(struct predicate *predicate, const char *text) {
  static const struct {
    char letter;
    uint64_t seconds;
  } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}, {'y', 31536000}};
  predicate->sign = take_sign(&text);
  predicate->margin = 86400;
  const char *at = text;
  do {
    char *end;
    const uint64_t number = strtoull(at, &end, 10);
    uint64_t seconds = *end == '\0' ? 86400 : 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
      if (*end == units[i].letter) seconds = units[i].seconds;
    /* strtoull would take blanks and a sign. */
    if (*at < '0' || *at > '9' || seconds == 0 || number > UINT32_MAX) {
      fprintf(stderr, "%s find: bad time string '%s': %s\n", program_invocation_short_name, text,
              strerror(EINVAL));
      return EINVAL;
    }
    predicate->value += number * seconds;
    if (seconds < predicate->margin) predicate->margin = seconds;
    at = end + (*end != '\0');
  } while (*at != '\0');
  return 0;
}

static int take_layout(struct predicate *predicate, char *text) {
  for (char *name; (name = strsep(&text, ",")) != NULL;) {
    if (strcmp(name, "released") == 0)
      predicate->value |= LAYOUT_RELEASED;
    else if (strcmp(name, "raid0") == 0)
      predicate->value |= LAYOUT_RAID0;
    else if (strcmp(name, "mdt") == 0)
      predicate->value |= LAYOUT_MDT;
    else if (strcmp(name, "overstriping") != 0 && strcmp(name, "foreign") != 0) {
      fprintf(stderr, "error: bad layout '%s'\n", name);
      return EINVAL;
    }
  }
  return 0;
}

static int take_type(struct predicate *predicate, const char *text) {
  static const struct {
    char letter;
    mode_t type;
  } types[] = {{'b', S_IFBLK}, {'c', S_IFCHR}, {'d', S_IFDIR}, {'f', S_IFREG},
               {'l', S_IFLNK}, {'p', S_IFIFO}, {'s', S_IFSOCK}};
  for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
    if (types[i].letter == *text) predicate->type = types[i].type;
  if (predicate->type != 0) return 0;
  fprintf(stderr, "%s: bad type '%s'\n", program_invocation_short_name, text);
  return SHOW_HELP;
}

bool number_parse(const char *text, uint64_t max, uint64_t *number) {
  char *end;
  errno = 0;
  *number = strtoul(text, &end, 0);
  return *text >= '0' && *text <= '9' && errno == 0 && *end == '\0' && *number <= max;
}

static int take_owner(struct predicate *predicate, const char *text) {
  const struct passwd *user = predicate->test == UID ? getpwnam(text) : NULL;
  const struct group *group = predicate->test == GID ? getgrnam(text) : NULL;
  if (user != NULL || group != NULL) {
    predicate->value = user != NULL ? user->pw_uid : group->gr_gid;
    return 0;
  }
  if (number_parse(text, UINT32_MAX, &predicate->value)) return 0;
  fprintf(stderr, "%s is not an ID or name of a %s\n", text,
          predicate->test == UID ? "user" : "group");
  return EINVAL;
}

static int take_links(struct predicate *predicate, const char *text) {
  predicate->sign = take_sign(&text);
  predicate->margin = 1;
  if (number_parse(text, UINT32_MAX, &predicate->value) && predicate->value > 0) return 0;
  fprintf(stderr, "error: bad link count '%s'\n", text);
  return EINVAL;
}

int predicate_parse(struct predicate *predicate, enum test test, bool negated, char *text) {
  *predicate = (struct predicate){.test = test, .negated = negated, .pattern = text};
  switch (test) {
    case TYPE:
      return take_type(predicate, text);
    case SIZE:
    case BLOCKS:
      return take_size(predicate, text);
    case ATIME:
    case MTIME:
    case CTIME:
      return take_time(predicate, text);
    case LAYOUT:
      return take_layout(predicate, text);
    case UID:
    case GID:
      return take_owner(predicate, text);
    case LINKS:
      return take_links(predicate, text);
    case NAME:
      break;
  }
  return 0;
}
