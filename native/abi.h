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

/* The kernel passes on what comes back alone: idv_flags (LL_DV_RD_FLUSH, LL_DV_WR_FLUSH) stays with
 * the caller, who writes back what is dirty before it asks. */
struct ioc_data_version {
  uint64_t idv_version;
  uint32_t idv_layout_version;
  uint32_t idv_flags;
};
#define LL_IOC_DATA_VERSION _IOR('f', 218, struct ioc_data_version)

/* The data version of a file that has its data here: each write moves mtime or ctime, and neither
 * an archive nor a restore moves those that are shown. Never 0, which is "no data". */
static inline uint64_t lustrite_data_version(uint64_t size, uint64_t mtime_ns, uint64_t ctime_ns) {
  const uint64_t parts[] = {size, mtime_ns, ctime_ns};
  uint64_t mixed = 0;
  for (int i = 0; i < 3; i++) { /* splitmix64 */
    mixed = (mixed ^ parts[i]) + 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    mixed ^= mixed >> 31;
  }
  return mixed == 0 ? 1 : mixed;
}

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

/* Lustre's OBD_IOC_FID2PATH has a size of its own each time, hence this one, to the root as well:
 * one name of an inode, which only root may ask for (CAP_DAC_READ_SEARCH in Lustre). ENODATA: it
 * has no such link. */
enum { LUSTRITE_PATH_BYTES = 4096 };
struct lustrite_fid2path {
  struct lu_fid fid;
  uint32_t link;                  /* which one, from 0 */
  uint32_t links;                 /* out: how many there are */
  char path[LUSTRITE_PATH_BYTES]; /* out: below the root, without a leading slash */
};
#define LUSTRITE_IOC_FID2PATH _IOWR('f', 241, struct lustrite_fid2path)

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
