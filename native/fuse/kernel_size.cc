#include "kernel_size.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "../store/leases.h"

namespace lustrite::fuse {
namespace {

using std::chrono::microseconds;
using Clock = std::chrono::steady_clock;

// The kernel drops an answer that a notification has overtaken, and any while it changes the size
// itself: an append may wait for the very page that a READ holds until the size is known. So not
// for longer than the tenth of a second that these take.
constexpr int kAnswers = 100;
constexpr size_t kStack = 32 << 10;
constexpr auto kPatience = std::chrono::seconds(5);
constexpr auto kBurial = std::chrono::milliseconds(10);
constexpr auto kFarewell = std::chrono::seconds(1);
// Each holds pages that nobody gives back.
constexpr size_t kMostQuestions = 64;

// Calls `done` until it is true, or the time is over, which it returns false for.
template <typename Done>
bool PollUntil(Clock::time_point deadline, Done done) {
  auto pause = microseconds(20);
  while (!done()) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, microseconds(1000));
  }
  return true;
}

// What the kernel knows without asking us.
std::optional<struct statx> Known(int at, const char* path, int flags) {
  struct statx found = {};
  if (statx(at, path, flags | AT_STATX_DONT_SYNC, STATX_SIZE, &found) != 0) return {};
  return found;
}

dev_t DeviceOf(const struct statx& found) {
  return makedev(found.stx_dev_major, found.stx_dev_minor);
}

// The root of the mount, or -1 where something else is there by now.
int OpenRoot(const char* mount_point, dev_t device) {
  const int path = open(mount_point, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (path < 0) return -1;
  const auto found = Known(path, "", AT_EMPTY_PATH);
  const bool ours = found && DeviceOf(*found) == device;
  const int root = ours ? openat(path, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  close(path);
  return root;
}

// The file of a node that the kernel knows, by its handle and not by a name: a look-up would wait
// for directories that are locked. The layout is fs/fuse/inode.c's, FILEID_INO64_GEN; our
// generations are 0. ESTALE: the kernel has forgotten it.
int OpenNode(int root, uint64_t node) {
  constexpr unsigned kBytes = 12;
  alignas(struct file_handle) unsigned char bytes[sizeof(struct file_handle) + kBytes] = {};
  auto* handle = reinterpret_cast<struct file_handle*>(bytes);
  handle->handle_type = 0x81;
  handle->handle_bytes = kBytes;
  const uint32_t words[] = {static_cast<uint32_t>(node >> 32), static_cast<uint32_t>(node), 0};
  memcpy(bytes + offsetof(struct file_handle, f_handle), words, sizeof words);
  return open_by_handle_at(root, handle, O_PATH | O_CLOEXEC);
}

}  // namespace

// Its tasks have this memory, and one table of descriptors that is not ours. Their `errno` is that
// of the thread that started them: the one look at it can only take one refusal for another.
struct KernelSize::Question {
  const char* mount_point;
  dev_t device;
  uint64_t node;
  // What it has by now.
  std::atomic<uint64_t> size;

  // An errno.
  std::atomic<int> answer{kNone};
  static constexpr int kNone = -1;
  int file = -1;
  std::atomic<bool> asked{false};
  std::atomic<bool> copies{true};
  pid_t looking = -1;
  pid_t asking = -1;
  alignas(64) std::byte looking_stack[kStack];
  alignas(64) std::byte asking_stack[kStack];

  static int Look(void* argument) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto* self = static_cast<Question*>(argument);
    // Of our descriptors the kernel copies the first 64 all the same.
    const bool closed = syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_UNSHARE) == 0;
    self->EndCopies();
    self->answer = closed ? self->Taken() : ENODATA;
    syscall(SYS_exit, 0);
    return 0;
  }

  static int Ask(void* argument) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto* self = static_cast<Question*>(argument);
    int answers = 0;
    PollUntil(Clock::now() + kPatience, [self, &answers] {
      if (self->Has() || answers++ == kAnswers) return true;
      struct statx found = {};
      if (statx(self->file, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &found) != 0)
        return true;
      return self->Has();
    });
    self->asked = true;
    syscall(SYS_exit, 0);
    return 0;
  }

  int Taken() {
    const int root = OpenRoot(mount_point, device);
    if (root < 0) return ENODATA;
    file = OpenNode(root, node);
    if (file < 0) return errno == ESTALE ? ESTALE : ENODATA;
    if (Has()) return 0;
    // A child of ours, not of this task, which does not wait for it.
    if (clone(Ask, asking_stack + kStack,
              CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID, this, &asking) < 0) {
      return ENODATA;
    }
    PollUntil(Clock::now() + kPatience, [this] { return Has() || asked; });
    return Has() ? 0 : ENODATA;
  }

  bool Has() const {
    const auto found = Known(file, "", AT_EMPTY_PATH);
    return found && found->stx_size == size;
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
    const bool started = clone(Look, looking_stack + kStack,
                               CLONE_VM | CLONE_FILES | CLONE_PARENT_SETTID, this, &looking) >= 0;
    if (!started) EndCopies();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
  }

  // Whether its tasks are gone.
  bool Over() {
    if (!Gone(&looking)) return false;
    EndCopies();
    return Gone(&asking);
  }

  void Kill() {
    for (const pid_t task : {looking, asking}) {
      if (task > 0) kill(task, SIGKILL);
    }
  }

  static bool Gone(pid_t* task) {
    if (*task > 0 && waitpid(*task, nullptr, __WALL | WNOHANG) == 0) return false;
    *task = -1;
    return true;
  }
};

KernelSize::KernelSize(std::string mount_point) : mount_point_(std::move(mount_point)) {}

KernelSize::~KernelSize() {
  const auto deadline = Clock::now() + kFarewell;
  for (auto& question : questions_) {
    const auto gone = [&question] {
      question->Kill();
      return question->Over();
    };
    // It hangs in what was mounted over the mount, on a stack of this memory.
    if (!PollUntil(deadline, gone)) static_cast<void>(question.release());
  }
}

void KernelSize::Start() {
  const auto found = Known(AT_FDCWD, mount_point_.c_str(), AT_SYMLINK_NOFOLLOW);
  if (found) device_ = DeviceOf(*found);
}

int KernelSize::Become(uint64_t node, const std::function<uint64_t()>& size) {
  Bury();
  if (questions_.size() >= kMostQuestions) return ENODATA;
  auto question = std::make_unique<Question>();
  question->mount_point = mount_point_.c_str();
  question->device = device_;
  question->node = node;
  question->size = size();
  if (!question->Start()) return ENODATA;
  Question& started = *question;
  questions_.push_back(std::move(question));
  // It is late itself where nobody opens the root for it.
  PollUntil(Clock::now() + 2 * kPatience, [&started, &size] {
    started.size = size();
    return started.answer != Question::kNone || Question::Gone(&started.looking);
  });
  const int answer = started.answer;
  return answer == Question::kNone ? ENODATA : answer;
}

void KernelSize::Bury() {
  PollUntil(Clock::now() + kBurial, [this] {
    std::erase_if(questions_, [](const auto& question) { return question->Over(); });
    return questions_.empty();
  });
}

}  // namespace lustrite::fuse
