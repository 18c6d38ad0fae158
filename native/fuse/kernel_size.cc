#include "kernel_size.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>
#include <utility>

#include "../store/leases.h"
#include "../store/unique_fd.h"

namespace lustrite::fuse {
namespace {

using std::chrono::microseconds;

// The kernel drops an answer that a notification has overtaken.
constexpr int kAnswers = 8;
constexpr size_t kStack = 32 << 10;
constexpr auto kPatience = std::chrono::seconds(5);

// The file of a node that the kernel knows, by its handle and not by a name: a look-up would wait
// for directories that are locked. The layout is fs/fuse/inode.c's, FILEID_INO64_GEN; our
// generations are 0.
int OpenNode(const char* mount_point, uint64_t node) {
  const int root = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -1;
  constexpr unsigned kBytes = 12;
  alignas(struct file_handle) unsigned char bytes[sizeof(struct file_handle) + kBytes] = {};
  auto* handle = reinterpret_cast<struct file_handle*>(bytes);
  handle->handle_type = 0x81;
  handle->handle_bytes = kBytes;
  const uint32_t words[] = {static_cast<uint32_t>(node >> 32), static_cast<uint32_t>(node), 0};
  memcpy(bytes + offsetof(struct file_handle, f_handle), words, sizeof words);
  const int file = open_by_handle_at(root, handle, O_PATH | O_CLOEXEC);
  close(root);
  return file;
}

bool Has(int file, uint64_t size, int sync) {
  struct statx found = {};
  return statx(file, "", AT_EMPTY_PATH | sync, STATX_SIZE, &found) == 0 && found.stx_size == size;
}

}  // namespace

struct KernelSize::Asker {
  const char* mount_point;
  uint64_t node;
  uint64_t size;
  std::atomic<bool> over{false};
  std::atomic<bool> copies{true};
  pid_t pid = -1;
  alignas(64) std::byte stack[kStack];

  // With this memory, and without our descriptors, of which the kernel copies the first 64 all the
  // same.
  static int Run(void* argument) {
    auto* self = static_cast<Asker*>(argument);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const bool closed = syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_UNSHARE) == 0;
    self->EndCopies();
    if (closed) {
      const int file = OpenNode(self->mount_point, self->node);
      for (int answers = 0; file >= 0 && answers < kAnswers; answers++) {
        if (Has(file, self->size, AT_STATX_FORCE_SYNC)) break;
      }
    }
    self->over = true;
    syscall(SYS_exit, 0);
    return 0;
  }

  void EndCopies() {
    if (copies.exchange(false)) Copies::End();
  }

  bool Start() {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    // The handlers are the daemon's.
    pthread_sigmask(SIG_BLOCK, &all, &before);
    Copies::Begin();
    pid = clone(Run, stack + kStack, CLONE_VM | CLONE_FILES, this);
    if (pid < 0) EndCopies();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return pid >= 0;
  }

  // Whether it has ended; `flags` of waitpid.
  bool Ended(int flags) {
    if (pid < 0) return true;
    pid_t ended = 0;
    do ended = waitpid(pid, nullptr, __WALL | flags);
    while (ended < 0 && errno == EINTR);
    if (ended == 0) return false;
    EndCopies();
    pid = -1;
    return true;
  }
};

KernelSize::KernelSize(std::string mount_point) : mount_point_(std::move(mount_point)) {}

KernelSize::~KernelSize() {
  for (const auto& asker : askers_) {
    kill(asker->pid, SIGKILL);
    asker->Ended(0);
  }
}

void KernelSize::Become(uint64_t node, uint64_t size) {
  const UniqueFd file(OpenNode(mount_point_.c_str(), node));
  if (file.ok() && !Has(file.get(), size, AT_STATX_DONT_SYNC)) {
    auto asker = std::make_unique<Asker>();
    asker->mount_point = mount_point_.c_str();
    asker->node = node;
    asker->size = size;
    if (asker->Start()) {
      const auto deadline = std::chrono::steady_clock::now() + kPatience;
      auto pause = microseconds(20);
      while (!Has(file.get(), size, AT_STATX_DONT_SYNC) && !asker->over && !asker->Ended(WNOHANG) &&
             std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(pause);
        pause = std::min(pause * 2, microseconds(1000));
      }
      askers_.push_back(std::move(asker));
    }
  }
  std::erase_if(askers_, [](const std::unique_ptr<Asker>& asker) { return asker->Ended(WNOHANG); });
}

}  // namespace lustrite::fuse
