#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include <csignal>

namespace lustrite {

void EnterThread(const std::string& name) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}

bool Threads::Post(Task task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return false;
  tasks_.push_back(std::move(task));
  if (idle_ < tasks_.size() && threads_.size() < most_) {
    threads_.emplace_back([this] { Run(); });
  } else {
    wanted_.notify_one();
  }
  return true;
}

size_t Threads::Waiting() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return tasks_.size();
}

void Threads::Run() {
  EnterThread(name_);
  // An umask of this thread's own: modes of what the store creates are those that were asked for.
  if (unshare(CLONE_FS) == 0) umask(0);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    idle_++;
    wanted_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    idle_--;
    if (tasks_.empty()) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

void Threads::Stop() {
  std::vector<std::thread> threads;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  wanted_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace lustrite
