#include "kernel_size.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace lustrite::fuse {
namespace {

// The kernel drops an answer that a notification has overtaken.
constexpr int kAnswers = 8;
constexpr size_t kStack = 32 << 10;

bool Has(int file, uint64_t size, int sync) {
  struct statx found = {};
  return statx(file, "", AT_EMPTY_PATH | sync, STATX_SIZE, &found) == 0 && found.stx_size == size;
}

}  // namespace

struct KernelSize::Asker {
  int file;
  uint64_t size;
  std::atomic<bool> over{false};
  pid_t pid = -1;
  alignas(64) std::byte stack[kStack];

  // With this memory, and without these descriptors: as long as a copy of the device's is open, the
  // session does not end with its daemon.
  static int Run(void* argument) {
    auto* self = static_cast<Asker*>(argument);
    const auto file = static_cast<unsigned>(self->file);
    if (file > 0) syscall(SYS_close_range, 0U, file - 1, 0U);
    syscall(SYS_close_range, file + 1, ~0U, 0U);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int answers = 0; answers < kAnswers; answers++) {
      if (Has(self->file, self->size, AT_STATX_FORCE_SYNC)) break;
    }
    self->over = true;
    syscall(SYS_exit, 0);
    return 0;
  }
};

KernelSize::KernelSize() = default;

KernelSize::~KernelSize() { Bury(0); }

void KernelSize::Become(int file, uint64_t size) {
  Bury(WNOHANG);
  if (Has(file, size, AT_STATX_DONT_SYNC)) return;
  auto asker = std::make_unique<Asker>();
  asker->file = file;
  asker->size = size;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // The handlers are the daemon's.
  pthread_sigmask(SIG_BLOCK, &all, &before);
  asker->pid = clone(Asker::Run, asker->stack + kStack, CLONE_VM, asker.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (asker->pid < 0) return;
  const std::atomic<bool>& over = asker->over;
  while (!over && !Has(file, size, AT_STATX_DONT_SYNC)) {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  askers_.push_back(std::move(asker));
}

void KernelSize::Bury(int flags) {
  std::erase_if(askers_, [flags](const std::unique_ptr<Asker>& asker) {
    return waitpid(asker->pid, nullptr, __WALL | flags) != 0;
  });
}

}  // namespace lustrite::fuse
