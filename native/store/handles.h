// Inodes by number and generation: the file handles of the store's file system, taken apart and put
// together.
#ifndef LUSTRITE_STORE_HANDLES_H_
#define LUSTRITE_STORE_HANDLES_H_

#include <cstdint>
#include <string>

#include "fid.h"
#include "unique_fd.h"

namespace lustrite {

// The layout of a file system's handles, learnt from the handle of the namespace's root.
// Thread-safe after Learn.
class Handles {
 public:
  // ENOTSUP, and in `*why` what is missing: no handles (overlayfs), no right to open by them,
  // unknown layout.
  int Learn(int root, std::string* why);

  // EXDEV: another file system is mounted there.
  int FidOf(int fd, Fid* fid) const;
  // `name` relative to `dir`, a symlink itself.
  int FidAt(int dir, const char* name, Fid* fid) const;
  // flags as open(2); O_CLOEXEC is added. ESTALE: gone.
  UniqueFd Open(const Fid& fid, int flags, int* error) const;

 private:
  int Parse(const void* handle, int mount, Fid* fid) const;

  int root_ = -1;
  int mount_ = 0;
  int type_ = 0;
  unsigned bytes_ = 0;
  // Offsets within the handle; width of the inode number. The rest is the same in every handle
  // (btrfs: the subvolume).
  int ino_at_ = 0;
  int ino_bytes_ = 0;
  int generation_at_ = 0;
  unsigned char template_[128] = {};
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_HANDLES_H_
