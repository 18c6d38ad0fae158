#include "fid.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

void fid_print(const struct lu_fid *fid, char text[FID_TEXT]) {
  snprintf(text, FID_TEXT, "[%#" PRIx64 ":0x%" PRIx32 ":0x%" PRIx32 "]", fid->f_seq, fid->f_oid,
           fid->f_ver);
}

/* One number of a FID and the character after it; moves `text` past both. */
static bool parse_part(const char **text, uint64_t max, char after, uint64_t *part) {
  /* strtoull would take blanks and a sign. */
  if (**text < '0' || **text > '9') return false;
  char *end;
  errno = 0;
  *part = strtoull(*text, &end, 0);
  if (errno != 0 || *part > max || *end != after) return false;
  *text = end + (after != '\0');
  return true;
}

bool fid_parse(const char *text, struct lu_fid *fid) {
  bool bracket = *text == '[';
  if (bracket) text++;
  uint64_t seq, oid, ver;
  if (!parse_part(&text, UINT64_MAX, ':', &seq) || !parse_part(&text, UINT32_MAX, ':', &oid) ||
      !parse_part(&text, UINT32_MAX, bracket ? ']' : '\0', &ver) || *text != '\0')
    return false;
  *fid = (struct lu_fid){.f_seq = seq, .f_oid = (uint32_t)oid, .f_ver = (uint32_t)ver};
  return true;
}

static int fid_result(ssize_t size) {
  if (size == sizeof(struct lu_fid)) return 0;
  /* Another size, or too large for us: somebody else's attribute. */
  if (size >= 0 || errno == ENODATA || errno == ERANGE || errno == ENOSYS) return ENOTSUP;
  return errno;
}

int fid_of_path(const char *path, struct lu_fid *fid) {
  return fid_result(lgetxattr(path, LUSTRITE_XATTR_FID, fid, sizeof(*fid)));
}

int fid_of_fd(int fd, struct lu_fid *fid) {
  return fid_result(fgetxattr(fd, LUSTRITE_XATTR_FID, fid, sizeof(*fid)));
}
