#include "size.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* llapi_parse_size: "b" is a block of 512 bytes, "c" a byte. */
static bool unit_of(char letter, uint64_t *unit) {
  static const char powers[] = "kmgtpe";
  const char lower = (char)tolower((unsigned char)letter);
  if (lower == 'b' || lower == 'c') {
    *unit = lower == 'b' ? 512 : 1;
    return true;
  }
  const char *at = lower == '\0' ? NULL : strchr(powers, lower);
  if (at == NULL) return false;
  *unit = UINT64_C(1) << (10 * (at - powers + 1));
  return true;
}

bool size_parse(const char *text, uint64_t *size, uint64_t *unit) {
  if (*text < '0' || *text > '9') return false;
  char *end;
  errno = 0;
  const uint64_t whole = strtoull(text, &end, 0);
  if (errno != 0) return false;
  double fraction = 0;
  if (*end == '.') {
    double digit = 0.1;
    for (end++; isdigit((unsigned char)*end); end++, digit /= 10) fraction += (*end - '0') * digit;
  }
  if (*end != '\0') {
    if (!unit_of(*end, unit)) return false;
    const char *rest = end + 1;
    if (strcasecmp(rest, "") != 0 && strcasecmp(rest, "b") != 0 && strcasecmp(rest, "i") != 0 &&
        strcasecmp(rest, "ib") != 0)
      return false;
  }
  if (whole > UINT64_MAX / *unit) return false;
  *size = whole * *unit + (uint64_t)(fraction * (double)*unit);
  return true;
}
