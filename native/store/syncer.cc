#include "syncer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "threads.h"

namespace lustrite {
namespace {

// Below this many an fsync each is cheaper: syncfs also waits for everybody else's dirty data.
constexpr size_t kGroup = 3;

// Of what is on the disk by now, as far as the disk took it. syncfs reports a failed write once,
// whoever asks first: with an earlier group, or before this file was to be synced. Each fd that was
// open then has it still, and this does not write or flush anything.
int LostWrites(int fd) {
  return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE) == 0 ? 0 : errno;
}

}  // namespace

void Syncer::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  wanted_.notify_one();
  thread_.join();
}

void Syncer::Sync(int fd, std::function<void(int)> done) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!stopping_) {
      requests_.push_back({fd, std::move(done)});
      wanted_.notify_one();
      return;
    }
  }
  done(ESHUTDOWN);
}

void Syncer::Run() {
  EnterThread("lustrite-sync");
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [this] { return stopping_ || !requests_.empty(); });
    if (requests_.empty()) return;
    std::vector<Request> group;
    group.swap(requests_);
    lock.unlock();
    // A failed syncfs says that some write failed, not which.
    const bool together = group.size() >= kGroup && syncfs(root_) == 0;
    for (Request& request : group) {
      const int lost = together ? LostWrites(request.fd) : 0;
      const int error = together || fsync(request.fd) == 0 ? lost : errno;
      request.done(error);
      request.done = nullptr;
    }
    lock.lock();
  }
}

}  // namespace lustrite
