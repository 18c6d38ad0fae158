// The size of a file that the kernel has, which no notification sets.
//
// read(2) asks for the size of a file whose attributes are invalid; sendfile, copy_file_range and a
// read that is under way go by the one that the kernel has. It takes that over from an answer to
// GETATTR, and waits then, uninterruptibly, for the pages at the new end: which a READ holds that
// is to be answered only when the size is known. So a process of its own asks, which nobody waits
// for and which has none of the session's descriptors, or it would outlive a daemon that is killed.
#ifndef LUSTRITE_FUSE_KERNEL_SIZE_H_
#define LUSTRITE_FUSE_KERNEL_SIZE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lustrite::fuse {

// For one thread.
class KernelSize {
 public:
  explicit KernelSize(std::string mount_point);
  // Once the session is over.
  ~KernelSize();

  // Returns when the kernel has this size of the file, or cannot be made to take it over: the mount
  // was taken away, or nobody answers for seconds. Nothing is looked up for it.
  void Become(uint64_t node, uint64_t size);

 private:
  struct Asker;

  const std::string mount_point_;
  // Those that still wait for pages.
  std::vector<std::unique_ptr<Asker>> askers_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_KERNEL_SIZE_H_
