// /dev/fuse: requests in, answers and notifications out. Knows the framing of the protocol and no
// operation.
#ifndef LUSTRITE_FUSE_TRANSPORT_H_
#define LUSTRITE_FUSE_TRANSPORT_H_

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../store/unique_fd.h"
#include "kernel.h"

namespace lustrite::fuse {

// Serving threads act as their callers when they create files: their umask and capabilities must be
// their own. Blocks every signal (a lease broken on us must never hit one), gives the thread a
// umask of its own and keeps its capabilities across setfsuid, so that the backing file system does
// not repeat, with fewer groups, the permission checks that the kernel has made already
// (default_permissions).
void PrepareServingThread();

// The device. Answers may be sent from any thread.
class Device {
 public:
  explicit Device(UniqueFd fd) : fd_(std::move(fd)) {}

  int fd() const { return fd_.get(); }

  // The kernel has ended the connection: nobody waits for answers any more.
  void SetEnded() { ended_ = true; }
  bool ended() const { return ended_; }

  // ENOENT: the request was given up by its caller, what was opened or looked up for it must be
  // undone.
  int Reply(uint64_t unique, int error, std::initializer_list<iovec> parts);
  int Notify(int code, std::initializer_list<iovec> parts);

  // A backing id for an O_PATH fd, or a negative errno.
  int OpenBacking(int fd);
  void CloseBacking(int id);

 private:
  UniqueFd fd_;
  std::atomic<bool> ended_{false};
};

class Buffers;

// One message of the kernel. Owned by whoever will answer it; answered exactly once.
class Request {
 public:
  Request(Device* device, Buffers* buffers, std::unique_ptr<char[]> data, size_t size);
  ~Request();
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  const fuse_in_header& header() const {
    return *reinterpret_cast<const fuse_in_header*>(data_.get());
  }
  uint64_t unique() const { return header().unique; }
  uint64_t nodeid() const { return header().nodeid; }
  pid_t pid() const { return static_cast<pid_t>(header().pid); }
  uint32_t opcode() const { return header().opcode; }

  const char* body() const { return data_.get() + sizeof(fuse_in_header); }
  size_t body_size() const { return size_ - sizeof(fuse_in_header); }
  // The fixed part; the dispatcher has checked that it is there.
  template <class In>
  const In& in() const {
    return *reinterpret_cast<const In*>(body());
  }
  // What follows the fixed part.
  const char* after(size_t fixed) const { return body() + fixed; }
  size_t after_size(size_t fixed) const { return body_size() - fixed; }

  // The `index`th of the NUL-terminated strings after `fixed` bytes; null when the message has no
  // such string.
  const char* Name(size_t fixed, int index = 0) const;

  // For requests that wait: gives a large read buffer back and keeps a copy of the message.
  void Shrink();

  int Reply() { return ReplyParts({}); }
  template <class Out>
  int Reply(const Out& out) {
    return ReplyParts({{const_cast<Out*>(&out), sizeof(out)}});
  }
  int ReplyParts(std::initializer_list<iovec> parts);
  int ReplyError(int error);
  // FORGET, INTERRUPT: there is no answer.
  void NoReply() { answered_.store(true, std::memory_order_relaxed); }

 private:
  Device* const device_;
  Buffers* const buffers_;
  std::unique_ptr<char[]> data_;
  size_t size_;
  bool pooled_ = true;
  std::atomic<bool> answered_{false};
};
using RequestPtr = std::shared_ptr<Request>;

// Read buffers, recycled.
class Buffers {
 public:
  static constexpr size_t kSize = kMaxWrite + 8192;
  std::unique_ptr<char[]> Take();
  void Give(std::unique_ptr<char[]> buffer);

 private:
  static constexpr size_t kKept = 16;
  std::mutex mutex_;
  std::vector<std::unique_ptr<char[]>> free_;
};

// N threads that read ONE device fd and hand each message to `serve`. `ended` runs on the last of
// them to stop: the kernel has ended the connection.
class Readers {
 public:
  Readers(Device* device, Buffers* buffers) : device_(device), buffers_(buffers) {}
  void Start(int threads, std::function<void(RequestPtr)> serve, std::function<void()> ended);
  // Not from one of the threads.
  void Join();

 private:
  void Read();

  Device* const device_;
  Buffers* const buffers_;
  std::function<void(RequestPtr)> serve_;
  std::function<void()> ended_;
  std::atomic<int> running_{0};
  std::vector<std::thread> threads_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_TRANSPORT_H_
