// Tells the kernel what the store changed behind its back.
//
// A notification may wait for locks of the kernel that a request of ours holds, so they are sent
// from threads that serve nothing, and kinds that wait for different locks never wait for each
// other:
//   attributes  wait for nothing; readers are woken after them
//   sizes       kernel_size.h; readers of a changed size are woken after that
//   entries     wait for the directory's lock
//   pages       wait for page locks, which a held READ has: skipped then, and nobody waits for them
#ifndef LUSTRITE_FUSE_NOTIFIER_H_
#define LUSTRITE_FUSE_NOTIFIER_H_

#include <atomic>

#include "inodes.h"
#include "kernel_size.h"
#include "pool.h"

namespace lustrite::fuse {

class Notifier : public InodeObserver {
 public:
  Notifier(Device* device, Nodes* nodes, std::string mount_point)
      : device_(device), nodes_(nodes), kernel_size_(std::move(mount_point)) {}
  void Start();
  // Runs what is queued first: somebody waits for each `then`.
  void Stop();

  void InodeChanged(const std::shared_ptr<Inode>& inode, bool data, std::optional<uint64_t> size,
                    std::function<void(int error)> then) override;
  void EntryChanged(const Fid& directory, const std::string& name,
                    std::function<void()> then) override;

  // Grows with each changed entry: an answer to a lookup that began at another value must not be
  // cached.
  uint64_t entry_epoch() const { return entry_epoch_; }

 private:
  Device* const device_;
  Nodes* const nodes_;
  std::atomic<uint64_t> entry_epoch_{0};
  KernelSize kernel_size_;
  Sequence attributes_;
  Sequence sizes_;
  Sequence entries_;
  Sequence pages_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_NOTIFIER_H_
