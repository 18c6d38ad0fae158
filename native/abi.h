/* What `lfs` and the mount say to each other: ioctl numbers, structs, xattr names. Plain C, shared
 * by native/lfs (a stand-alone program) and native/fuse (the server side).
 *
 * State, set and action are Lustre's own numbers and layouts (lustre-hsm 4.3), so that a genuine
 * `lfs` works for them. Lustre's request ioctl carries a payload that a restricted FUSE ioctl
 * cannot (its size is not in the number), hence LUSTRITE_IOC_REQUEST, sent to the mount's root
 * directory. */
#ifndef LUSTRITE_ABI_H
#define LUSTRITE_ABI_H

#include <linux/ioctl.h>
#include <stdint.h>

/* lustre_user.h: enum hsm_states */
enum {
  HS_EXISTS = 0x01,
  HS_DIRTY = 0x02,
  HS_RELEASED = 0x04,
  HS_ARCHIVED = 0x08,
  HS_NORELEASE = 0x10,
  HS_NOARCHIVE = 0x20,
  HS_LOST = 0x40,
  HSM_USER_MASK = 0x32,
  HSM_FLAGS_MASK = 0x7f
};

/* lustre_user.h: enum hsm_user_action, enum hsm_progress_states */
enum {
  HUA_NONE = 1,
  HUA_ARCHIVE = 10,
  HUA_RESTORE = 11,
  HUA_RELEASE = 12,
  HUA_REMOVE = 13,
  HUA_CANCEL = 14
};
enum { HPS_NONE = 0, HPS_WAITING = 1, HPS_RUNNING = 2, HPS_DONE = 3 };

struct lu_fid {
  uint64_t f_seq;
  uint32_t f_oid;
  uint32_t f_ver;
};

struct hsm_user_state {
  uint32_t hus_states;
  uint32_t hus_archive_id;
  uint32_t hus_in_progress_state;
  uint32_t hus_in_progress_action;
  uint64_t hus_extent_offset;
  uint64_t hus_extent_length;
};

enum { HSS_SETMASK = 1, HSS_CLEARMASK = 2, HSS_ARCHIVE_ID = 4 };
struct hsm_state_set {
  uint32_t hss_valid;
  uint32_t hss_archive_id;
  uint64_t hss_setmask;
  uint64_t hss_clearmask;
};

struct hsm_current_action {
  uint32_t hca_state;
  uint32_t hca_action;
  uint64_t hca_offset;
  uint64_t hca_length;
};

#define LL_IOC_HSM_STATE_GET _IOR('f', 211, struct hsm_user_state)
#define LL_IOC_HSM_STATE_SET _IOW('f', 212, struct hsm_state_set)
#define LL_IOC_HSM_ACTION _IOR('f', 220, struct hsm_current_action)

/* llite/dir.c refuses requests of 5120/3 bytes and more; with its 24-byte header and 32 bytes a
 * file that is 52 files (lustre-hsm 2.3). */
enum { LUSTRITE_REQUEST_FILES = 52, LUSTRITE_REQUEST_DATA = 1706 };
struct lustrite_request {
  uint32_t action; /* HUA_* */
  uint32_t archive_id;
  uint32_t count;
  uint32_t data_len;
  struct lu_fid fids[LUSTRITE_REQUEST_FILES];
  uint8_t data[LUSTRITE_REQUEST_DATA];
  uint8_t pad[6];
};
#define LUSTRITE_IOC_REQUEST _IOW('f', 240, struct lustrite_request)

/* The FID of an inode, readable by whoever can name it (as Lustre's path2fid needs no read
 * permission): 16 bytes, a struct lu_fid. The "system." class is the one the VFS passes on
 * unchecked. */
#define LUSTRITE_XATTR_FID "system.lustrite.fid"

/* Where the front end has no ioctl: the path of the daemon's Unix socket, which answers the same
 * requests (native/lfs/socket.h). On the mount's root, and on every file that its reader asks. */
#define LUSTRITE_XATTR_SOCKET "user.lustrite.socket"

/* What `lfs setstripe` was told of a file or directory: remembered, shown and without effect. Needs
 * write permission to set and read permission to get, as the VFS asks for a class that it does not
 * know. The mount keeps the value without looking into it. */
#define LUSTRITE_XATTR_LAYOUT "lustre.lustrite.layout"
enum { LUSTRITE_COMPONENTS = 16 };
struct lustrite_component {
  uint64_t end;          /* where the next one begins; UINT64_MAX: the end of the file */
  uint32_t pattern;      /* LOV_PATTERN_* of Lustre */
  uint32_t stripe_size;  /* 0: the default, 1 MiB */
  int32_t stripe_count;  /* 0: the default, 1; -1: all */
  int32_t stripe_offset; /* index of the first OST; -1: any */
  char pool[16];
};
/* Only the first `count` components are stored; none that ends before the file: not composite. */
struct lustrite_layout {
  uint32_t version; /* 1 */
  uint32_t count;
  struct lustrite_component components[LUSTRITE_COMPONENTS];
};

/* st_fstype of the mount in /proc/self/mountinfo: "fuse.lustrite". */
#define LUSTRITE_FSTYPE "lustrite"

#endif
