// The size of a file that the kernel has, which no notification sets.
//
// read(2) asks for the size of a file whose attributes are invalid; sendfile, copy_file_range and a
// read that is under way go by the one that the kernel has. It takes that over from an answer to
// GETATTR, and waits then, uninterruptibly, for the pages at the new end: which a READ holds that
// is to be answered only when the size is known. A daemon that waits like this cannot even be
// killed, so no thread of it uses its own mount: two tasks without any of the session's descriptors
// do, one that asks and one that looks whether the kernel has the answer.
#ifndef LUSTRITE_FUSE_KERNEL_SIZE_H_
#define LUSTRITE_FUSE_KERNEL_SIZE_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
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

  // Once the mount is there, and before anything can be mounted over it.
  void Start();

  // Returns 0 when the kernel has the size of the file, which is asked for as it may change
  // meanwhile; ESTALE when it does not know the file, or not yet; ENODATA when it cannot be made to
  // take the size over: the mount was taken away or mounted over, or nobody answers for seconds.
  // Nothing is looked up for it.
  int Become(uint64_t node, const std::function<uint64_t()>& size);

  // Waits for the tasks of the last sizes, which end when the pages they wait for are given back:
  // not for long.
  void Bury();

 private:
  struct Question;

  const std::string mount_point_;
  dev_t device_ = 0;
  // Those whose tasks still wait for pages.
  std::vector<std::unique_ptr<Question>> questions_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_KERNEL_SIZE_H_
