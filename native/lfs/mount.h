/* Which mount a file is on. */
#ifndef LUSTRITE_LFS_MOUNT_H
#define LUSTRITE_LFS_MOUNT_H

#include <sys/types.h>

/* Opens the root directory of the lustrite mount with this st_dev. Answers the descriptor, or a
 * negative errno: -ENODEV if no such mount is a lustrite mount. */
int mount_open_root(dev_t device);

#endif
