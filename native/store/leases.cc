#include "leases.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <chrono>
#include <csignal>

#include "threads.h"

namespace lustrite {
namespace {

// Sent to our own thread only, where it is blocked: sigwaitinfo takes it. The default SIGIO would
// end the process.
int BreakSignal() { return SIGRTMIN + 9; }

// With copies of descriptors all the time.
constexpr int kTries = 3;

}  // namespace

bool Copies::WereThere(uint64_t ended) {
  const uint64_t begun = begun_;
  if (begun == ended) return false;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  while (ended_ < begun && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  return true;
}

Lease::~Lease() {
  Drop();
  const std::lock_guard<std::mutex> lock(table_->mutex_);
  table_->live_.erase(fd_.get());
  fd_.reset();  // under the lock: the number must not be reused while the table has it
}

bool Lease::Held() const { return !dropped_ && fcntl(fd_.get(), F_GETLEASE) == type_; }

void Lease::Drop() {
  if (!dropped_.exchange(true)) fcntl(fd_.get(), F_SETLEASE, F_UNLCK);
}

Leases::Leases() {
  thread_ = std::thread([this] { Run(); });
  while (tid_ == 0) std::this_thread::yield();
}

Leases::~Leases() {
  stopping_ = true;
  syscall(SYS_tgkill, getpid(), tid_.load(), BreakSignal());
  thread_.join();
}

size_t Leases::Count() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return live_.size();
}

std::unique_ptr<Lease> Leases::Take(UniqueFd fd, int type, int* error) {
  const int raw = fd.get();
  auto lease = std::make_unique<Lease>(this, std::move(fd), type);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_[raw] = lease.get();
  }
  // Owner and signal first: a break may follow the grant at once.
  const struct f_owner_ex owner = {F_OWNER_TID, tid_};
  *error =
      fcntl(raw, F_SETSIG, BreakSignal()) != 0 || fcntl(raw, F_SETOWN_EX, &owner) != 0 ? errno : 0;
  for (int tries = 0; *error == 0; tries++) {
    const uint64_t ended = Copies::Ended();
    if (fcntl(raw, F_SETLEASE, type) == 0) return lease;
    const int refused = errno;
    if (refused != EAGAIN || tries == kTries || !Copies::WereThere(ended)) *error = refused;
  }
  lease->dropped_ = true;
  return nullptr;
}

void Leases::Broken(int fd) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [number, lease] : live_) {
    if ((fd < 0 || number == fd) && lease->type_ == F_RDLCK &&
        fcntl(number, F_GETLEASE) != F_RDLCK) {
      lease->Drop();
    }
  }
}

void Leases::Run() {
  EnterThread("lustrite-lease");
  tid_ = static_cast<int>(syscall(SYS_gettid));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, BreakSignal());
  sigaddset(&set, SIGIO);  // the kernel's fallback when its queue of signals is full
  while (!stopping_) {
    siginfo_t info = {};
    const int got = sigwaitinfo(&set, &info);
    if (stopping_) return;
    if (got > 0) Broken(got == SIGIO || info.si_code == SI_TKILL ? -1 : info.si_fd);
  }
}

}  // namespace lustrite
