#include "layout.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/xattr.h>

#include "fid.h"

enum { VERSION = 1 };

struct lustrite_layout layout_default(void) {
  return (struct lustrite_layout){
      .version = VERSION,
      .count = 1,
      .components = {{.end = UINT64_MAX, .pattern = PATTERN_RAID0, .stripe_offset = -1}},
  };
}

bool layout_is_composite(const struct lustrite_layout *layout) {
  return layout->count > 1 || layout->components[0].end != UINT64_MAX;
}

static size_t size_of(uint32_t count) {
  return offsetof(struct lustrite_layout, components) + count * sizeof(struct lustrite_component);
}

/* File systems of other kinds refuse names of this class, or have no attributes. */
static int not_ours(int fd, int error) {
  struct lu_fid fid;
  return fid_of_fd(fd, &fid) != 0 ? ENOTTY : error;
}

/* Anybody who may write the file may have made it up. */
static bool is_possible(const struct lustrite_component *component) {
  for (const char *c = component->pool; *c != '\0'; c++)
    if (*c < ' ' || *c > '~') return false;
  return component->stripe_count >= -32 && component->stripe_count <= 2000 &&
         component->stripe_offset >= -1 && component->stripe_offset <= UINT16_MAX;
}

int layout_read(int fd, struct lustrite_layout *layout) {
  ssize_t size = fgetxattr(fd, LUSTRITE_XATTR_LAYOUT, layout, sizeof(*layout));
  const int error = errno;
  bool whole = size >= (ssize_t)size_of(1) && layout->version == VERSION && layout->count >= 1 &&
               layout->count <= LUSTRITE_COMPONENTS && (size_t)size == size_of(layout->count);
  for (uint32_t i = 0; whole && i < layout->count; i++) {
    layout->components[i].pool[15] = '\0';
    whole = is_possible(&layout->components[i]);
  }
  if (whole) return 0;
  *layout = layout_default();
  return not_ours(fd, size >= 0 || error == ENODATA ? 0 : error);
}

int layout_write(int fd, const struct lustrite_layout *layout) {
  int result = layout == NULL
                   ? fremovexattr(fd, LUSTRITE_XATTR_LAYOUT)
                   : fsetxattr(fd, LUSTRITE_XATTR_LAYOUT, layout, size_of(layout->count), 0);
  if (result == 0 || (layout == NULL && errno == ENODATA)) return not_ours(fd, 0);
  return not_ours(fd, errno);
}
