#include "lost_writes.h"

#include <unistd.h>

#include <cerrno>

namespace lustrite {
namespace {

constexpr size_t kMost = 65536;

}  // namespace

int LostWrites::Sync(const Fid& fid, int fd, Hearer hearer, bool data_only) {
  if ((data_only ? fdatasync(fd) : fsync(fd)) == 0) return Take(fid, hearer);
  const int error = errno;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (lost_.size() >= kMost && !lost_.contains(fid)) lost_.erase(lost_.begin());
  lost_[fid] = {error, static_cast<uint8_t>((kApplication | kArchive) & ~hearer)};
  count_ = lost_.size();
  return error;
}

int LostWrites::Take(const Fid& fid, Hearer hearer) {
  if (count_ == 0 || hearer == kNobody) return 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = lost_.find(fid);
  if (found == lost_.end() || !(found->second.untold & hearer)) return 0;
  const int error = found->second.error;
  found->second.untold &= static_cast<uint8_t>(~hearer);
  if (found->second.untold == 0) lost_.erase(found);
  count_ = lost_.size();
  return error;
}

}  // namespace lustrite
