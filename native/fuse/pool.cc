#include "pool.h"

#include "transport.h"

namespace lustrite::fuse {

namespace {
thread_local bool may_block = false;
}

bool Pool::MayBlock() { return may_block; }

void Pool::Start(int threads) {
  for (int i = 0; i < threads; i++) threads_.emplace_back([this] { Work(); });
}

void Pool::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
  }
  ready_.notify_one();
}

void Pool::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t Pool::queued() {
  std::lock_guard lock(mutex_);
  return tasks_.size();
}

void Pool::Work() {
  PrepareServingThread();
  may_block = true;
  std::unique_lock lock(mutex_);
  for (;;) {
    ready_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

}  // namespace lustrite::fuse
