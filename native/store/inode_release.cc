// Giving up the data of a clean file: for its copy (release) or for another one (import over a
// resident file).
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>

#include "crash_points.h"
#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {

namespace {

// How long a release waits for handles that their owner has closed: RELEASE comes after close(2)
// has returned, and the kernel lets go of the backing file after that.
constexpr std::chrono::milliseconds kPatience(1000);
constexpr std::chrono::milliseconds kRetry(5);

}  // namespace

int InodeImpl::Release() {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  // What no waiting would change is answered at once.
  Evidence now;
  error = Look(&now);
  if (error != 0) return error;
  const int before = DecideRelease(record_, {Judge(now), 0, 0, false, restore_ != nullptr});
  if (before == EPERM) return EPERM;
  if (before == EALREADY) return 0;
  return WhenUnused(lock, [&] { return EmptyBusy(lock, nullptr, nullptr); });
}

int InodeImpl::ReplaceCopy(const NewCopy& with, const std::function<int()>& still) {
  Lock lock(mutex_);
  const int error = Loaded();
  return error != 0 ? error : WhenUnused(lock, [&] { return EmptyBusy(lock, &with, still); });
}

int InodeImpl::Displace(bool only_clean, const std::function<int()>& take) {
  Lock lock(mutex_);
  return WhenUnused(lock, [&] {
    const bool without_data = WithoutData();
    lock.unlock();
    int error = 0;
    UniqueFd fd = OpenBacking(O_RDWR | O_NONBLOCK, &error);
    std::unique_ptr<Lease> lease;
    if (error == 0) lease = store_->leases().Take(std::move(fd), F_WRLCK, &error);
    if (error == EAGAIN || error == ETXTBSY) return EBUSY;
    if (error == 0 && only_clean && !without_data) error = Sync(lease->fd());
    if (error != 0) return error;
    if (only_clean) {
      lock.lock();
      SettleUnder(lock, lease.get(), lease->fd());
      struct stat st = {};
      if (fstat(lease->fd(), &st) != 0) return errno;
      if (!InContainer(Judge(EvidenceOf(st)))) return ESTALE;
      lock.unlock();
    }
    return take();
  });
}

bool InodeImpl::WithoutData() {
  return Loaded() == 0 && (record_.flags & HS_RELEASED) != 0 && restore_ == nullptr;
}

bool InodeImpl::InContainer(Content content) const {
  if (content == Content::kReleased) return true;
  return content == Content::kAsStated && !record_.modified && record_.copy &&
         !(record_.flags & (HS_DIRTY | HS_LOST));
}

int InodeImpl::WhenUnused(Lock& lock, const std::function<int()>& act) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    idle_.wait_until(lock, deadline,
                     [this] { return !handles_open() && modifications_ == 0 && !busy_; });
    int error = 0;
    {
      const Busy busy(this, lock, true);
      const bool in_use =
          handles_open() || modifications_ > 0 || archive_ != nullptr || restore_ != nullptr;
      error = in_use ? EBUSY : act();
      if (!lock.owns_lock()) lock.lock();
    }
    if (error != EBUSY || std::chrono::steady_clock::now() >= deadline) return error;
    // Not busy in between: whoever wants to open the file goes first.
    idle_.wait_for(lock, kRetry);
  }
}

int InodeImpl::EmptyBusy(Lock& lock, const NewCopy* with, const std::function<int()>& still) {
  const bool without_data = WithoutData();
  lock.unlock();
  int error = 0;
  UniqueFd fd = OpenBacking(O_RDWR | O_NONBLOCK, &error);
  std::unique_ptr<Lease> lease;
  if (error == 0) lease = store_->leases().Take(std::move(fd), F_WRLCK, &error);
  if (error == EAGAIN || error == ETXTBSY) error = EBUSY;
  if (error == 0 && !without_data) error = Sync(lease->fd());
  // Before the mutex: whoever renames has the names and asks inodes.
  std::unique_lock<std::shared_mutex> names;
  if (error == 0 && still) {
    names = store_->StopNames();
    error = still();
  }
  lock.lock();
  if (error != 0) return error;
  SettleUnder(lock, lease.get(), lease->fd());
  struct stat st = {};
  if (fstat(lease->fd(), &st) != 0) return errno;
  const Content content = Judge(EvidenceOf(st));
  if (with == nullptr) {
    error = DecideRelease(record_, {content, 0, 0, false, false});
    if (error != 0) return error == EALREADY ? 0 : error;
  } else if (!InContainer(content)) {
    return ESTALE;
  }
  if (!lease->Held()) return EBUSY;

  const Record old = record_;
  Record record = record_;
  record.flags |= HS_RELEASED;
  record.statement->suspended = false;
  if (with != nullptr) {
    record.flags &= static_cast<uint8_t>(HS_NORELEASE | HS_NOARCHIVE);
    record.flags |= HS_EXISTS | HS_ARCHIVED | HS_RELEASED;
    if (with->lost) record.flags |= HS_LOST;
    if (record.archive_id == 0) record.archive_id = 1;
    record.copy = with->copy;
    record.statement = Statement{with->size, with->mtime, false, 0};
    record.ctime.reset();
    error = WriteExact(lease->fd(), record);
    if (names.owns_lock()) names.unlock();
    CRASH_POINT("replace.recorded");
  } else {
    error = Write(lease->fd(), record);
    CRASH_POINT("release.recorded");
  }
  if (error != 0) return error;
  const Statement stated = *record_.statement;
  lock.unlock();
  // The data goes only after the record that says where it is; without data the caller's barrier is
  // soon enough.
  // Not where it gives up the blob of another name, which another file may write then.
  const bool soon_enough = without_data && with != nullptr && !with->durable && old.copy &&
                           old.copy->blob == with->copy.blob;
  if (!soon_enough && fsync(lease->fd()) != 0) error = errno;
  if (error != 0) {
    lock.lock();
    WriteExact(lease->fd(), old);
    return error;
  }
  if (with != nullptr) {
    CRASH_POINT("replace.flags-durable");
    if (fchown(lease->fd(), with->uid, with->gid) != 0 || fchmod(lease->fd(), with->mode) != 0) {
      error = errno;
    } else {
      error = SetExtended(lease->fd(), with->extended);
    }
  } else {
    CRASH_POINT("release.flags-durable");
  }
  const int punched = PunchTo(lease->fd(), stated.size, stated.mtime);
  if (with != nullptr) {
    CRASH_POINT("replace.punched");
  } else {
    CRASH_POINT("release.punched");
  }
  lock.lock();
  sample_.reset();
  restored_etag_.clear();
  if (!(old.flags & HS_RELEASED)) store_->changes().Note({.kind = Change::kRelease, .fid = fid_});
  const uint64_t before =
      old.flags & HS_RELEASED ? old.statement->size : static_cast<uint64_t>(st.st_size);
  if (stated.size == before) {
    store_->TellInodeChanged(shared_from_this(), true, {}, [](int) {});
  } else {
    TellSize(true, stated.size, [] {});
  }
  return error != 0 ? error : punched;
}

}  // namespace lustrite
