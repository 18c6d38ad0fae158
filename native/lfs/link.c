#include "link.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "socket.h"

int link_find(int root, const char *path, struct lustrite_fid2path *ask) {
  int error = ioctl(root, LUSTRITE_IOC_FID2PATH, ask) == 0 ? 0 : errno;
  if (error == ENOTTY || error == ENOSYS) {
    error = socket_fid2path(root, path, ask);
    /* The socket is root's. */
    if (error == EACCES) error = EPERM;
  }
  ask->path[sizeof(ask->path) - 1] = '\0';
  return error;
}
