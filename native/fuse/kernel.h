// The FUSE kernel protocol: linux/fuse.h of Debian 12 (7.38) and what newer kernels added to it.
#ifndef LUSTRITE_FUSE_KERNEL_H_
#define LUSTRITE_FUSE_KERNEL_H_

#include <linux/fuse.h>
#include <sys/ioctl.h>

#include <cstdint>

namespace lustrite::fuse {

// 7.39 and later.
inline constexpr uint32_t kOpStatx = 52;
inline constexpr uint32_t kOpCopyFileRange64 = 53;
inline constexpr uint32_t kOpcodes = 64;

// 7.40: FUSE_PASSTHROUGH, FOPEN_PASSTHROUGH, backing files.
inline constexpr uint64_t kInitPassthrough = 1ull << 37;
inline constexpr uint32_t kOpenPassthrough = 1u << 7;

struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
inline constexpr unsigned long kIocBackingOpen = _IOW(FUSE_DEV_IOC_MAGIC, 1, BackingMap);
inline constexpr unsigned long kIocBackingClose = _IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t);

// fuse_init_out with the fields that 7.38 calls unused.
struct InitOut {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;
  uint32_t unused[6];
};
static_assert(sizeof(InitOut) == sizeof(fuse_init_out));

// fuse_open_out whose padding became the backing id.
struct OpenOut {
  uint64_t fh;
  uint32_t open_flags;
  int32_t backing_id;
};
static_assert(sizeof(OpenOut) == sizeof(fuse_open_out));

inline constexpr uint32_t kMaxWrite = 1u << 20;

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_KERNEL_H_
