// The size of a file that the kernel has, which no notification sets.
//
// read(2) asks for the size of a file whose attributes are invalid; sendfile, copy_file_range and a
// read that is under way go by the one that the kernel has. It takes that over from an answer to
// GETATTR, and waits then, uninterruptibly, for the pages at the new end: which a READ holds that
// is to be answered only when the size is known. So a process of its own asks, which no one waits
// for and which holds nothing of the session when the daemon is killed.
#ifndef LUSTRITE_FUSE_KERNEL_SIZE_H_
#define LUSTRITE_FUSE_KERNEL_SIZE_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../store/unique_fd.h"

namespace lustrite::fuse {

// For one thread.
class KernelSize {
 public:
  KernelSize();
  // Waits for those who still ask.
  ~KernelSize();

  // `file`: an O_PATH fd of it through the mount. Returns when the kernel has this size, or cannot
  // be made to take it over.
  void Become(int file, uint64_t size);

 private:
  struct Asker;
  void Bury(int flags);

  std::vector<std::unique_ptr<Asker>> askers_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_KERNEL_SIZE_H_
