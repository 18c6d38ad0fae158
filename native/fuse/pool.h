// A few threads for what may take long, so that a reader of the device never does.
#ifndef LUSTRITE_FUSE_POOL_H_
#define LUSTRITE_FUSE_POOL_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lustrite::fuse {

class Pool {
 public:
  void Start(int threads);
  // Dropped once Stop has begun.
  void Post(std::function<void()> task);
  // Runs what is queued, then ends the threads. Not from one of them.
  void Stop();
  size_t queued();

  // Whether the calling thread may block.
  static bool MayBlock();

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// One thread that runs tasks in order.
class Sequence {
 public:
  ~Sequence() { Stop(); }
  void Start() { pool_.Start(1); }
  void Post(std::function<void()> task) { pool_.Post(std::move(task)); }
  void Stop() { pool_.Stop(); }

 private:
  Pool pool_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_POOL_H_
