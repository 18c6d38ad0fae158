// Group commit: many files are made durable by one syncfs.
#ifndef LUSTRITE_STORE_SYNCER_H_
#define LUSTRITE_STORE_SYNCER_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace lustrite {

class Syncer {
 public:
  explicit Syncer(int root) : root_(root), thread_([this] { Run(); }) {}
  ~Syncer() { Stop(); }

  // Calls `done` on its own thread once data and metadata of `fd` are durable, or with an errno.
  // The fd stays open until then. `done` must be quick: others wait behind it. After Stop:
  // ESHUTDOWN, on the caller's thread.
  void Sync(int fd, std::function<void(int error)> done);

  // Finishes what was asked for. Not from `done`.
  void Stop();

 private:
  struct Request {
    int fd;
    std::function<void(int)> done;
  };
  void Run();

  const int root_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::vector<Request> requests_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_SYNCER_H_
