// Threads that run closures: a pool for what touches the disk, and with one thread an ordered
// dispatcher.
#ifndef LUSTRITE_STORE_THREADS_H_
#define LUSTRITE_STORE_THREADS_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace lustrite {

using Task = std::function<void()>;

// Threads are started as work waits, up to `most`, and kept. They block every signal: signals
// belong to the host program's own threads.
class Threads {
 public:
  Threads(std::string name, size_t most) : name_(std::move(name)), most_(most) {}
  ~Threads() { Stop(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  // False after Stop: the task was dropped.
  bool Post(Task task);
  // Runs what was posted, then joins. Not from one of its own threads.
  void Stop();
  size_t Waiting();

 private:
  void Run();

  const std::string name_;
  const size_t most_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<Task> tasks_;
  size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// Blocks every signal in the calling thread and names it.
void EnterThread(const std::string& name);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_THREADS_H_
