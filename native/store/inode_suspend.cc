// Between "clean" and "somebody may be writing": suspension before the first write, settling after
// the last.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "crash_points.h"
#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {
namespace {

// How long one who asked for a suspension has to come back before a query may settle it again.
constexpr uint64_t kGraceNs = 2'000'000'000;

// Where file times have the resolution of the kernel's tick, a write within the tick of the stated
// mtime would not move it.
void OutliveTick(const struct timespec& mtime) {
  constexpr int64_t kTickNs = 20'000'000;
  struct timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  const int64_t seconds = now.tv_sec - mtime.tv_sec;
  if (seconds > 1 || seconds < -1) return;
  const int64_t age = seconds * 1'000'000'000 + now.tv_nsec - mtime.tv_nsec;
  if (age > kTickNs || age < -kTickNs) return;
  const struct timespec wait = {0, static_cast<long>(2 * kTickNs)};
  nanosleep(&wait, nullptr);
}

}  // namespace

void InodeImpl::QueueSuspend() {
  if (suspend_queued_) return;
  suspend_queued_ = store_->pool().Post([self = shared_from_this(), this] { Suspend(); });
}

void InodeImpl::Suspend() {
  Lock lock(mutex_);
  Busy busy(this, lock);
  suspend_queued_ = false;
  if (busy.Fail(SuspendBusy(lock)) == 0) no_settle_until_ns_ = MonotonicNs() + kGraceNs;
}

int InodeImpl::SuspendBusy(Lock& lock) {
  int error = Loaded();
  if (error != 0) return error;
  if (record_.flags & HS_RELEASED) return 0;
  const Before before = BeforeModify(record_);
  if (before == Before::kNothing && !unsynced_) return 0;
  NobodyIsQuiet();

  lock.unlock();
  UniqueFd fd = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
  lock.lock();
  if (error != 0) return error;
  if (before == Before::kNothing) return SyncRecord(lock, fd.get());
  if (before == Before::kModified) return FoldDurably(lock, fd.get());

  lock.unlock();
  const std::unique_ptr<Lease> lease = store_->leases().Take(std::move(fd), F_RDLCK, &error);
  if (lease == nullptr) {
    // Somebody writes whom we do not know: nothing he does could be told from what was there.
    fd = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
    lock.lock();
    return error != 0 ? error : FoldDurably(lock, fd.get());
  }
  lock.lock();
  struct stat st = {};
  if (fstat(lease->fd(), &st) != 0) return errno;
  if (Judge(EvidenceOf(st)) != Content::kAsStated) return FoldDurably(lock, lease->fd());
  Record record = record_;
  record.statement->suspended = true;
  record.statement->boot = store_->boot();
  error = Write(lease->fd(), record);
  if (error != 0) return error;
  CRASH_POINT("suspend.recorded");
  error = SyncRecord(lock, lease->fd());
  if (error != 0) return error;
  CRASH_POINT("suspend.durable");
  lock.unlock();
  if (!store_->fine_times()) OutliveTick(st.st_mtim);
  lock.lock();
  if (!record_.statement || !record_.statement->suspended) return 0;  // folded by a utimes
  if (fstat(lease->fd(), &st) != 0) return errno;
  sample_ = EvidenceOf(st);
  return 0;
}

int InodeImpl::SyncRecord(Lock& lock, int fd) {
  unsynced_ = true;
  lock.unlock();
  UniqueFd own;
  int error = 0;
  if (fcntl(fd, F_GETFL) & O_PATH) {
    own = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
    fd = own.get();
  }
  if (error == ELOOP) {
    // A symbolic link: nothing can be opened whose fsync would be its own.
    error = syncfs(store_->root()) == 0 ? 0 : errno;
  } else if (error == 0) {
    error = Sync(fd);
  }
  lock.lock();
  if (error == 0) unsynced_ = false;
  return error;
}

int InodeImpl::FoldDurably(Lock& lock, int fd) {
  Record record = record_;
  Fold(&record);
  record.ctime = record_.ctime;
  const bool news = !(record == record_);
  // With the sample: it tells whether a kept mtime still counts.
  const int error = news ? Write(fd, record) : 0;
  if (error != 0) return error;
  sample_.reset();
  if (news) {
    CRASH_POINT("settle.dirty-recorded");
  } else if (!unsynced_) {
    return 0;
  }
  return SyncRecord(lock, fd);
}

bool InodeImpl::MaySettle() const {
  return loaded_ && !busy_ && !being_written() && archive_ == nullptr && record_.statement &&
         record_.statement->suspended && !(record_.flags & HS_RELEASED) &&
         MonotonicNs() >= no_settle_until_ns_;
}

void InodeImpl::QueueSettle() {
  if (settle_queued_ || !record_.statement || !record_.statement->suspended) return;
  settle_queued_ = store_->pool().Post([self = shared_from_this(), this] {
    Lock lock(mutex_);
    settle_queued_ = false;
    if (MaySettle()) Settle(lock);
  });
}

void InodeImpl::Settle(Lock& lock) {
  const Busy busy(this, lock);
  if (being_written() || archive_ != nullptr) return;
  lock.unlock();
  int error = 0;
  UniqueFd fd = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
  std::unique_ptr<Lease> lease;
  if (error == 0) {
    // The lease first: what is synced and sampled under it cannot change any more.
    lease = store_->leases().Take(std::move(fd), F_RDLCK, &error);
    if (lease == nullptr) fd = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
  }
  const int raw = lease ? lease->fd() : fd.get();
  // Without a lease a mapping is still there: the sync makes its next store to an already dirty
  // page move the times.
  if (error == 0) error = Sync(raw);
  lock.lock();
  if (error == 0) SettleUnder(lock, lease.get(), raw);
}

void InodeImpl::SettleUnder(Lock& lock, const Lease* lease, int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return;
  const bool held = lease != nullptr && lease->Held();
  switch (DecideSettle(record_, Judge(EvidenceOf(st)), held)) {
    case Settle::kNothing:
    case Settle::kStaySuspended:
      return;
    case Settle::kFold:
      FoldDurably(lock, fd);
      return;
    case Settle::kClean: {
      if (GiveMtime(fd) != 0 || fstat(fd, &st) != 0) return;
      Record record = record_;
      record.statement->mtime = st.st_mtim;
      record.statement->suspended = false;
      record.statement->boot = 0;
      CRASH_POINT("settle.mtime-given");
      // Not durable, and need not be: after a power loss the file would only be suspended again.
      if (Write(fd, record) != 0) return;
      sample_.reset();
      CRASH_POINT("settle.clean-recorded");
      return;
    }
  }
}

void InodeImpl::QueueTruncateReleased() {
  if (truncate_queued_) return;
  truncate_queued_ = store_->pool().Post([self = shared_from_this(), this] {
    Lock lock(mutex_);
    Busy busy(this, lock);
    truncate_queued_ = false;
    busy.Fail(TruncateReleasedBusy(lock));
  });
}

int InodeImpl::TruncateReleasedBusy(Lock& lock) {
  if (!(record_.flags & HS_RELEASED) || restore_ != nullptr) return 0;
  lock.unlock();
  int error = 0;
  const UniqueFd fd = OpenBacking(O_RDWR | O_NONBLOCK, &error);
  if (error == 0 && ftruncate(fd.get(), 0) != 0) error = errno;
  if (error == 0) store_->lost_writes().Emptied(fid_);
  CRASH_POINT("truncate.emptied");
  lock.lock();
  if (error != 0) return error;
  Record record = record_;
  record.flags &= static_cast<uint8_t>(~HS_RELEASED);
  Fold(&record);
  error = Write(fd.get(), record);
  if (error != 0) return error;
  CRASH_POINT("truncate.recorded");
  error = SyncRecord(lock, fd.get());
  store_->TellInodeChanged(shared_from_this(), true, {}, [](int) {});
  return error;
}

}  // namespace lustrite
