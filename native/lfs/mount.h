/* Which mount a file is on, and which mounts there are. */
#ifndef LUSTRITE_LFS_MOUNT_H
#define LUSTRITE_LFS_MOUNT_H

#include <sys/types.h>

/* Opens the root directory of the lustrite mount with this st_dev. Answers the descriptor, or a
 * negative errno: -ENODEV if no such mount is a lustrite mount. */
int mount_open_root(dev_t device);

struct mount {
  dev_t device;
  const char *point;
  /* Account and container, and what plays Lustre's file system name: the container. */
  const char *source;
  const char *fsname;
};

/* Anything but 0 ends a walk and is its result. */
typedef int (*mount_visitor)(const struct mount *mount, void *with);

/* Visits all lustrite mounts. */
int mount_each(mount_visitor visit, void *with);

/* Visits the lustrite mount that `path` is on; ENODEV if it is on none, or the errno of a look at
 * it. A mount without a daemon is found by its mount point. */
int mount_of(const char *path, mount_visitor visit, void *with);

#endif
