/* What `lfs setstripe` was told of a file or directory. It has no effect; getstripe shows it. */
#ifndef LUSTRITE_LFS_LAYOUT_H
#define LUSTRITE_LFS_LAYOUT_H

#include <stdbool.h>

#include "../abi.h"

/* lustre_user.h: LOV_PATTERN_*, and the least stripe size. */
enum { PATTERN_RAID0 = 0x1, PATTERN_MDT = 0x100, PATTERN_OVERSTRIPED = 0x200 };
enum { LEAST_STRIPE_SIZE = 65536, DEFAULT_STRIPE_SIZE = 1048576 };

/* One component without an end, of which nothing was said. */
struct lustrite_layout layout_default(void);

bool layout_is_composite(const struct lustrite_layout *layout);

/* Reads what is remembered of an open file; the default where nothing is. 0, ENOTTY for what is not
 * on a lustrite mount, or another errno. */
int layout_read(int fd, struct lustrite_layout *layout);

/* Remembers, or with NULL forgets. 0 or an errno, as layout_read. */
int layout_write(int fd, const struct lustrite_layout *layout);

#endif
