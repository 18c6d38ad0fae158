#include "syncer.h"

#include <unistd.h>

#include <cerrno>

#include "threads.h"

namespace lustrite {
namespace {

// Below this many an fsync each is cheaper: syncfs also waits for everybody else's dirty data.
constexpr size_t kGroup = 3;

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
    // A failed syncfs says that some write failed, not which: then each file answers for itself.
    // fsync reports an error to every fd that was open when it happened, so none is missed after
    // syncfs saw it first.
    const bool together = group.size() >= kGroup && syncfs(root_) == 0;
    for (Request& request : group) {
      const int error = together || fsync(request.fd) == 0 ? 0 : errno;
      request.done(error);
      request.done = nullptr;
    }
    lock.lock();
  }
}

}  // namespace lustrite
