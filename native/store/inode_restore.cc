// Bringing the data of a released file back, under RELEASED until all of it is durable.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <algorithm>
#include <cerrno>

#include "crash_points.h"
#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {
namespace {

// A handle whose restore has just failed gets the same answer again for this long: the kernel
// retries a failed readahead page by page.
constexpr uint64_t kFailAgainNs = 1'000'000'000;

// ENOSPC for what can never fit: the allocation itself would fill the disk up to its last block
// before it failed, and everybody else would see that.
int CheckSpace(int fd, uint64_t size) {
  struct statfs fs = {};
  if (fstatfs(fd, &fs) != 0) return errno;
  return size / static_cast<uint64_t>(fs.f_bsize) > fs.f_bavail ? ENOSPC : 0;
}

}  // namespace

int PunchTo(int fd, uint64_t size, const struct timespec& mtime) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  // Through length 0 and not by punching: that frees what was allocated behind the end, too.
  if (st.st_blocks > 0 && ftruncate(fd, 0) != 0) return errno;
  if ((st.st_blocks > 0 || static_cast<uint64_t>(st.st_size) != size) &&
      ftruncate(fd, static_cast<off_t>(size)) != 0) {
    return errno;
  }
  const struct timespec times[2] = {{0, UTIME_OMIT}, mtime};
  return futimens(fd, times) == 0 ? 0 : errno;
}

int InodeImpl::BeginRestore(const std::optional<Copy>& copy, int* out_fd, uint64_t* out_size) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  const Busy busy(this, lock);
  const bool again = restore_ != nullptr && restore_->running;
  if (copy && !early_etag_.empty() && early_etag_ != copy->etag) return EBUSY;
  if (again) {
    if (!copy) return EALREADY;
    // With another version: from here on nobody is shown a byte before the end.
    restore_->copy = copy;
    restore_->watermark = 0;
    read_epoch_++;
  }
  if (!(record_.flags & HS_RELEASED)) {
    // Truncated to nothing, or restored, while the request was on its way.
    restore_.reset();
    WakeReaders(0);
    return EALREADY;
  }
  const Statement stated = *record_.statement;
  const uint64_t size = copy ? copy->size : stated.size;
  lock.unlock();
  error = again ? 0 : store_->JournalRestore(fid_);
  CRASH_POINT("restore.begun");
  UniqueFd fd;
  if (error == 0) fd = OpenBacking(O_RDWR | O_NONBLOCK, &error);
  if (error == 0) error = PunchTo(fd.get(), stated.size, stated.mtime);
  if (error == 0) error = CheckSpace(fd.get(), size);
  if (error == 0 && size > 0 &&
      fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) != 0 &&
      errno != EOPNOTSUPP) {
    error = errno;
    PunchTo(fd.get(), stated.size, stated.mtime);
  }
  CRASH_POINT("restore.allocated");
  lock.lock();
  if (error != 0) {
    // One that was running is still to be failed.
    if (!again) store_->UnjournalRestore(fid_);
    return error;
  }
  if (restore_ == nullptr) restore_ = std::make_unique<Restore>();
  restore_->running = true;
  restore_->copy = copy;
  restore_->fd = std::move(fd);
  *out_fd = restore_->fd.get();
  *out_size = size;
  return 0;
}

void InodeImpl::RestoreProgress(uint64_t bytes) {
  const Lock lock(mutex_);
  if (restore_ == nullptr || !restore_->running || bytes <= restore_->watermark) return;
  restore_->watermark = bytes;
  if (restore_->copy || !store_->partial_reads()) return;
  Post(TakeWaiters([bytes](const Waiter& waiter) {
         return waiter.kind == Waiter::kBytes && waiter.end <= bytes;
       }),
       0);
}

void InodeImpl::RestoreCanceled() {
  const Lock lock(mutex_);
  if (restore_ != nullptr) restore_->told = false;
}

void InodeImpl::FinishRestore(const Copy& copy, std::function<void(int)> done) {
  Lock lock(mutex_);
  BeginBusy(lock, false);
  int error = restore_ == nullptr || !restore_->running ? EINVAL : 0;
  int fd = -1;
  if (error == 0) {
    fd = restore_->fd.get();
    struct stat st = {};
    if (fstat(fd, &st) != 0) {
      error = errno;
    } else if (static_cast<uint64_t>(st.st_size) < copy.size) {
      error = EIO;  // not all bytes came, whatever the mover says
    } else if (static_cast<uint64_t>(st.st_size) > copy.size &&
               ftruncate(fd, static_cast<off_t>(copy.size)) != 0) {
      error = errno;
    }
    // Under the lock, so that it cannot undo a utimes that comes in between.
    const struct timespec times[2] = {{0, UTIME_OMIT}, record_.statement->mtime};
    if (error == 0 && futimens(fd, times) != 0) error = errno;
  }
  if (error != 0) {
    EndBusy(0);
    lock.unlock();
    done(error);
    return;
  }
  lock.unlock();
  CRASH_POINT("restore.data-written");
  store_->syncer().Sync(fd, [self = shared_from_this(), this, copy, done](int synced) {
    Restored(synced, copy, done);
  });
}

void InodeImpl::Restored(int error, const Copy& copy, const std::function<void(int)>& done) {
  bool told = true;
  {
    const Lock lock(mutex_);
    if (restore_ == nullptr) error = EINVAL;  // the store was closed
    if (error == 0) {
      CRASH_POINT("restore.data-durable");
      const bool resized = record_.statement->size != copy.size;
      const bool shrunk = record_.statement->size > copy.size;
      // Not durable yet, and readers need not wait for it: before anybody may write, the
      // suspension's fsync of this inode carries it along.
      error = Write(restore_->fd.get(), AfterRestore(record_, copy));
      if (error == 0) {
        CRASH_POINT("restore.recorded");
        // Before anybody is woken: who has read the file finds the record.
        store_->changes().Note({.kind = Change::kRestore, .fid = fid_});
        restored_etag_ = copy.etag;
        // Closes the fd before anybody is told: open for writing, it would refuse the lease of the
        // next suspension.
        restore_.reset();
        store_->UnjournalRestore(fid_);
        // The attributes alone: a released file has no pages.
        if (resized) {
          told = false;
          TellSize(false, copy.size, [this, shrunk, size = copy.size, done] {
            {
              const Lock inner(mutex_);
              Evidence now;
              if (shrunk && restore_ == nullptr) {
                FailBeyond(Look(&now) == 0 ? std::max(size, now.size) : size);
              }
            }
            done(0);
          });
          Post(TakeWaiters([](const Waiter& waiter) {
                 return waiter.kind == Waiter::kRestored && waiter.file == nullptr;
               }),
               0);
        } else {
          WakeReaders(0);
          store_->TellInodeChanged(shared_from_this(), false, {}, [](int) {});
        }
      }
    }
    EndBusy(0);
  }
  if (told) done(error);
}

// Under the lock. Nobody reads the file, or opens it, before the kernel has its size; `then` runs
// before they go on. Where the kernel does not take it over they fail: a short file without an
// error would be worse. Whoever changes the file does not wait: that itself tells the kernel, which
// takes no other size over meanwhile.
void InodeImpl::TellSize(bool data, uint64_t size, std::function<void()> then) {
  untold_sizes_++;
  if (handles_open()) resized_under_handles_ = true;
  store_->TellInodeChanged(shared_from_this(), data, size,
                           [self = shared_from_this(), this, then = std::move(then)](int error) {
                             then();
                             const Lock lock(mutex_);
                             untold_sizes_--;
                             size_missed_ = error != 0;
                             // ESTALE: none of them is here by way of the kernel's inode.
                             if (error == ESTALE || untold_sizes_ > 0) error = 0;
                             const bool readers = restore_ == nullptr;
                             Post(TakeWaiters([readers](const Waiter& waiter) {
                                    return waiter.kind == Waiter::kSize ||
                                           (readers && waiter.kind != Waiter::kIdle);
                                  }),
                                  error);
                             UpdatePin();
                           });
}

// Under the lock. A size that the kernel missed is told again.
int InodeImpl::TellMissedSize() {
  if (!size_missed_ || untold_sizes_ > 0) return 0;
  uint64_t size = record_.statement ? record_.statement->size : 0;
  if (!(record_.flags & HS_RELEASED)) {
    Evidence now;
    const int error = Look(&now);
    if (error != 0) return error;
    size = now.size;
  }
  TellSize(false, size, [] {});
  return 0;
}

// Under the lock, for who goes by the kernel's size of the file; nothing: the kernel has it.
std::optional<Verdict> InodeImpl::AwaitSize(Wake& wake, OpenFile* file, uint64_t end) {
  const int error = TellMissedSize();
  if (error != 0) return Verdict::Fail(error);
  if (untold_sizes_ == 0) return {};
  return Wait(Waiter::kSize, std::move(wake), file, end);
}

int InodeImpl::FailRestore(int error) {
  if (error < 0) error = ENODATA;
  Lock lock(mutex_);
  const Busy busy(this, lock);
  int punched = 0;
  if (restore_ != nullptr && restore_->running) {
    const Statement stated = *record_.statement;
    const int fd = restore_->fd.get();
    restore_->watermark = 0;
    read_epoch_++;
    lock.unlock();
    punched = PunchTo(fd, stated.size, stated.mtime);
    CRASH_POINT("restore.failed-punched");
    lock.lock();
    if (punched == 0) store_->UnjournalRestore(fid_);
  }
  restore_.reset();
  for (Waiter& waiter : waiters_) {
    if (error == 0 || waiter.kind == Waiter::kIdle || waiter.file == nullptr) continue;
    waiter.file->fail_until_ns = MonotonicNs() + kFailAgainNs;
    waiter.file->fail_error = error;
  }
  WakeReaders(error);
  return punched;
}

// A read that was sent under a larger size and answered after that changed: the kernel would fill
// it up with zeros. Its own repetition, or its caller's, is sent under the right one.
void InodeImpl::FailBeyond(uint64_t size) {
  Post(TakeWaiters([size](const Waiter& waiter) {
         return waiter.kind != Waiter::kIdle && waiter.file != nullptr && waiter.end > size;
       }),
       ENODATA);
}

void InodeImpl::WakeReaders(int error) {
  Post(TakeWaiters([](const Waiter& waiter) {
         return waiter.kind == Waiter::kRestored || waiter.kind == Waiter::kBytes;
       }),
       error);
  UpdatePin();
}

int InodeImpl::RecoverRestore() {
  const Lock lock(mutex_);
  int error = Loaded();
  if (error != 0 || !(record_.flags & HS_RELEASED)) return error;
  const UniqueFd fd = OpenBacking(O_RDWR | O_NONBLOCK, &error);
  if (error != 0) return error;
  return PunchTo(fd.get(), record_.statement->size, record_.statement->mtime);
}

}  // namespace lustrite
