/* One name of an inode, as the daemon knows it. */
#ifndef LUSTRITE_LFS_LINK_H
#define LUSTRITE_LFS_LINK_H

#include "../abi.h"

/* `root` is the open root directory of a mount, `path` a name on it for the daemon's log. Only for
 * root: EPERM. ENODATA: it has no such link. */
int link_find(int root, const char *path, struct lustrite_fid2path *ask);

#endif
