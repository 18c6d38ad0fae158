// Copying a file's data out: under a read lease from before the first sample until the statement is
// written.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "crash_points.h"
#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {
namespace {

// How long an archive waits for handles that their owner has closed: RELEASE comes after close(2)
// has returned. A writer that stays is not waited for.
constexpr std::chrono::milliseconds kPatience(1000);
constexpr int kTries = 20;
constexpr std::chrono::milliseconds kRetry(5);

}  // namespace

int InodeImpl::BeginArchive(uint32_t archive_id, ArchivePlan* plan) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  idle_.wait_for(lock, kPatience, [this] { return !being_written() && !busy_; });
  const Busy busy(this, lock);
  if (record_.flags & HS_RELEASED) return ENODATA;
  if (being_written() || archive_ != nullptr) return EBUSY;
  lock.unlock();
  // An upload is no access of the application's (lustre-hsm 7, test 24a).
  const auto open = [this, &error] {
    UniqueFd fd = OpenBacking(O_RDONLY | O_NONBLOCK | O_NOATIME, &error);
    return error == EPERM ? OpenBacking(O_RDONLY | O_NONBLOCK, &error) : std::move(fd);
  };
  UniqueFd fd = open();
  struct stat st = {};
  if (error == 0 && fstat(fd.get(), &st) != 0) error = errno;
  if (error == 0 && !S_ISREG(st.st_mode)) error = EINVAL;
  std::unique_ptr<Lease> lease;
  for (int tries = 0; error == 0 && lease == nullptr; tries++) {
    lease = store_->leases().Take(std::move(fd), F_RDLCK, &error);
    if (error != EAGAIN || tries == kTries) break;
    // No handle of ours is open for writing: either a mapping, or the kernel has not yet let go of
    // the last one.
    std::this_thread::sleep_for(kRetry);
    fd = open();
  }
  if (error == EAGAIN) error = EBUSY;
  if (error == 0) error = Sync(lease->fd(), LostWrites::kArchive);
  lock.lock();
  if (error != 0) return error;
  SettleUnder(lock, lease.get(), lease->fd());
  if (fstat(lease->fd(), &st) != 0) return errno;

  Record record = record_;
  if (!record.statement && !record.modified && !record.copy && !(record.flags & HS_DIRTY)) {
    // A new file: from here on a write shows (0x01 -> 0x03, lustre-hsm 3.5), and the data is in no
    // copy.
    record.statement = Statement{static_cast<uint64_t>(st.st_size), st.st_mtim, false, 0};
    record.modified = true;
  }
  record.flags |= HS_EXISTS;
  record.archive_id = archive_id;
  error = Write(lease->fd(), record);
  if (error != 0) return error;
  CRASH_POINT("archive.begun");
  archive_ = std::make_unique<Archive>();
  archive_->sample = EvidenceOf(st);
  archive_->lease = std::move(lease);
  plan->fd = archive_->lease->fd();
  plan->st = st;
  plan->copy = record_.copy;
  return 0;
}

bool InodeImpl::ArchiveQuiet() {
  const Lock lock(mutex_);
  return archive_ != nullptr && archive_->quiet && archive_->lease->Held();
}

void InodeImpl::FinishArchive(const Copy& copy, bool partly, std::function<void(int, bool)> done) {
  Lock lock(mutex_);
  BeginBusy(lock, false);
  int error = archive_ == nullptr ? EINVAL : 0;
  bool quiet = false;
  int fd = -1;
  if (error == 0) {
    fd = archive_->lease->fd();
    struct stat st = {};
    if (fstat(fd, &st) != 0) error = errno;
    const Evidence now = EvidenceOf(st);
    quiet = error == 0 && archive_->quiet && !being_written() && archive_->lease->Held() &&
            now.size == archive_->sample.size && now.size == copy.size;
    const auto after = [&] {
      Record record = AfterArchive(record_, copy, quiet, now);
      if (!partly) return record;
      // The statement stays: it tells our own changes of ctime from a writer's, also when the inode
      // was forgotten meanwhile.
      record.modified = true;
      record.flags |= HS_DIRTY;
      return record;
    };
    if (error == 0) error = Write(fd, after());
    if (error == 0) sample_.reset();
    if (error == 0 && quiet && !archive_->lease->Held()) {
      quiet = false;
      error = Write(fd, after());
    }
  }
  if (error != 0) {
    archive_.reset();
    EndBusy(0);
    lock.unlock();
    done(error, false);
    return;
  }
  CRASH_POINT("archive.recorded");
  lock.unlock();
  store_->syncer().Sync(fd, [self = shared_from_this(), this, quiet, done](int synced) {
    Archived(synced, quiet, done);
  });
}

void InodeImpl::Archived(int error, bool quiet, const std::function<void(int, bool)>& done) {
  {
    const Lock lock(mutex_);
    if (error == 0) CRASH_POINT("archive.durable");
    archive_.reset();
    EndBusy(0);
  }
  done(error, quiet);
}

void InodeImpl::AbortArchive() {
  Lock lock(mutex_);
  const Busy busy(this, lock);
  archive_.reset();
}

}  // namespace lustrite
