/* The daemon's Unix socket, for mounts whose front end has no ioctl (fuse-native).
 *
 * One line of JSON each way, then the connection ends. A question has `op`, `path` (absolute, for
 * the log and for an inode without FID), `fid` where the mount tells it, and the fields of the
 * ioctl's struct:
 *   {"op":"state","path":"/mnt/f","fid":"[0x1:0x2:0x0]"}     ->
 * {"errno":0,"states":13,"archive_id":1}
 *   {"op":"action",...}          -> {"errno":0,"state":2,"action":11,"offset":0,"length":1048576}
 *   {"op":"set",...,"valid":1,"archive_id":0,"setmask":1,"clearmask":0}                ->
 * {"errno":0}
 *   {"op":"request","path":"/mnt","action":10,"archive_id":0,"fids":["[0x1:0x2:0x0]"],"data":"6869"}
 *                                              (data in hexadecimal)                   ->
 * {"errno":0} Numbers are integers, or integers in a string where JSON's own would lose digits. The
 * daemon knows who asks from SO_PEERCRED and checks the path and FID against its own mount.
 *
 * All functions answer 0 or an errno; ENOTTY where no daemon is behind the file, as the ioctl did;
 * ENOTCONN where its daemon is gone, as a system call on its mount would. */
#ifndef LUSTRITE_LFS_SOCKET_H
#define LUSTRITE_LFS_SOCKET_H

#include "../abi.h"

/* {"op":"fid2path","path":"/mnt","fid":"[0x1:0x2:0x0]","link":0}     ->
 * {"errno":0,"links":2,"path":"612f62"}, in hexadecimal
 * `fd` is any open file or directory of the mount. */
int socket_fid2path(int fd, const char *path, struct lustrite_fid2path *ask);

/* `fd` is the open file, `path` its name. */
int socket_state(int fd, const char *path, struct hsm_user_state *state);
int socket_action(int fd, const char *path, struct hsm_current_action *action);
int socket_set(int fd, const char *path, const struct hsm_state_set *change);

/* `fd` is any open file or directory of the mount. */
int socket_request(int fd, const char *path, const struct lustrite_request *request);

#endif
