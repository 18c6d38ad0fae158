#include "transport.h"

#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <cassert>
#include <cerrno>
#include <csignal>
#include <cstdio>

namespace lustrite::fuse {

void PrepareServingThread() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  unshare(CLONE_FS);
  umask(0);
  prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
}

namespace {

constexpr size_t kMaxParts = 4;

int Write(int fd, fuse_out_header header, std::initializer_list<iovec> parts) {
  iovec iov[kMaxParts + 1];
  iov[0] = {&header, sizeof(header)};
  size_t count = 1;
  size_t length = sizeof(header);
  assert(parts.size() <= kMaxParts);
  for (const iovec& part : parts) {
    length += part.iov_len;
    iov[count++] = part;
  }
  header.len = static_cast<uint32_t>(length);
  return writev(fd, iov, static_cast<int>(count)) < 0 ? errno : 0;
}

}  // namespace

int Device::Reply(uint64_t unique, int error, std::initializer_list<iovec> parts) {
  return Write(fd_.get(), {0, -error, unique}, parts);
}

int Device::Notify(int code, std::initializer_list<iovec> parts) {
  return Write(fd_.get(), {0, code, 0}, parts);
}

int Device::OpenBacking(int fd) {
  BackingMap map{fd, 0, 0};
  int id = ioctl(fd_.get(), kIocBackingOpen, &map);
  return id < 0 ? -errno : id;
}

void Device::CloseBacking(int id) {
  uint32_t value = static_cast<uint32_t>(id);
  ioctl(fd_.get(), kIocBackingClose, &value);
}

Request::Request(Device* device, Buffers* buffers, std::unique_ptr<char[]> data, size_t size)
    : device_(device), buffers_(buffers), data_(std::move(data)), size_(size) {}

Request::~Request() {
  // A handler that forgot its request would leave its caller hanging for ever.
  assert(answered_.load() || device_->ended());
  if (!answered_.load()) ReplyError(EIO);
  if (pooled_) buffers_->Give(std::move(data_));
}

const char* Request::Name(size_t fixed, int index) const {
  if (body_size() < fixed) return nullptr;
  const char* at = after(fixed);
  const char* end = body() + body_size();
  for (;; index--) {
    const void* nul = memchr(at, 0, static_cast<size_t>(end - at));
    if (!nul) return nullptr;
    if (index == 0) return at;
    at = static_cast<const char*>(nul) + 1;
  }
}

void Request::Shrink() {
  constexpr size_t kSmall = 16384;
  if (!pooled_ || size_ > kSmall) return;
  auto copy = std::make_unique_for_overwrite<char[]>(size_);
  memcpy(copy.get(), data_.get(), size_);
  buffers_->Give(std::exchange(data_, std::move(copy)));
  pooled_ = false;
}

int Request::ReplyParts(std::initializer_list<iovec> parts) {
  [[maybe_unused]] bool twice = answered_.exchange(true);
  assert(!twice);
  return device_->Reply(unique(), 0, parts);
}

int Request::ReplyError(int error) {
  [[maybe_unused]] bool twice = answered_.exchange(true);
  assert(!twice);
  return device_->Reply(unique(), error, {});
}

std::unique_ptr<char[]> Buffers::Take() {
  {
    std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      auto buffer = std::move(free_.back());
      free_.pop_back();
      return buffer;
    }
  }
  return std::make_unique_for_overwrite<char[]>(kSize);
}

void Buffers::Give(std::unique_ptr<char[]> buffer) {
  std::lock_guard lock(mutex_);
  if (free_.size() < kKept) free_.push_back(std::move(buffer));
}

void Readers::Start(int threads, std::function<void(RequestPtr)> serve,
                    std::function<void()> ended) {
  serve_ = std::move(serve);
  ended_ = std::move(ended);
  running_ = threads;
  for (int i = 0; i < threads; i++) threads_.emplace_back([this] { Read(); });
}

void Readers::Join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Readers::Read() {
  PrepareServingThread();
  auto buffer = buffers_->Take();
  for (;;) {
    ssize_t size = read(device_->fd(), buffer.get(), Buffers::kSize);
    if (size < 0) {
      // ENOENT: the request was interrupted before we had it.
      if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
      // ENODEV: unmounted; ECONNABORTED: aborted through /sys/fs/fuse/connections.
      if (errno != ENODEV && errno != ECONNABORTED) perror("lustrite: reading /dev/fuse");
      break;
    }
    if (static_cast<size_t>(size) < sizeof(fuse_in_header)) continue;
    serve_(
        std::make_shared<Request>(device_, buffers_, std::move(buffer), static_cast<size_t>(size)));
    buffer = buffers_->Take();
  }
  buffers_->Give(std::move(buffer));
  if (--running_ == 0) ended_();
}

}  // namespace lustrite::fuse
