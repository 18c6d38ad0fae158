// What a front end asks before it lets a request through.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {
namespace {

bool Writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0; }

}  // namespace

void InodeImpl::AskRestore(pid_t pid) {
  if (restore_ != nullptr && restore_->told) return;
  if (restore_ == nullptr) restore_ = std::make_unique<Restore>();
  restore_->told = true;
  UpdatePin();
  // Also where it was begun for somebody else, who may give it up.
  store_->NeedRestore(fid_, pid);
}

Verdict InodeImpl::WaitForRestore(Waiter::Kind kind, pid_t pid, Wake wake, OpenFile* file,
                                  uint64_t end) {
  AskRestore(pid);
  // lustre-hsm 3.8: it is restored, and whoever needs it now goes without.
  if (store_->non_blocking_restore()) return Verdict::Fail(ENODATA);
  return Wait(kind, std::move(wake), file, end);
}

// An archive that runs must not take what is coming for the file it sampled; our own lease must not
// stand in the way of the open that follows.
void InodeImpl::NobodyIsQuiet() {
  if (archive_ == nullptr) return;
  archive_->quiet = false;
  archive_->lease->Drop();
}

Verdict InodeImpl::PrepareModify(pid_t pid, Wake& wake) {
  const int error = Loaded();
  if (error != 0) return Verdict::Fail(error);
  if (busy_) return Wait(Waiter::kIdle, std::move(wake), nullptr, 0);
  if (record_.flags & HS_RELEASED) {
    return WaitForRestore(Waiter::kRestored, pid, std::move(wake), nullptr, 0);
  }
  const int untold = TellMissedSize();
  if (untold != 0) return Verdict::Fail(untold);
  if (unsynced_ || BeforeModify(record_) != Before::kNothing) {
    QueueSuspend();
    return Wait(Waiter::kIdle, std::move(wake), nullptr, 0);
  }
  NobodyIsQuiet();
  return Verdict::Go();
}

Verdict InodeImpl::AdmitOpen(int flags, pid_t pid, bool passthrough_ok, Wake wake, OpenFile* out) {
  const Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return Verdict::Fail(error);
  const bool writes = Writes(flags);
  const bool released = (record_.flags & HS_RELEASED) != 0;
  if (closed_to_readers_) return Wait(Waiter::kIdle, std::move(wake), nullptr, 0);
  // Passthrough and mapped I/O ask for nothing any more.
  if (auto verdict = AwaitSize(wake, nullptr, 0)) return *std::move(verdict);
  if (writes) {
    if (busy_) return Wait(Waiter::kIdle, std::move(wake), nullptr, 0);
    if (released && (flags & O_TRUNC) && restore_ == nullptr) {
      QueueTruncateReleased();
      return Wait(Waiter::kIdle, std::move(wake), nullptr, 0);
    }
    // Without O_NONBLOCK a writer waits here, where it can be interrupted and holds no lock of the
    // kernel.
    if (!released || !(flags & O_NONBLOCK) || (flags & (O_TRUNC | O_APPEND))) {
      const Verdict verdict = PrepareModify(pid, wake);
      if (verdict.what != Verdict::kGo) return verdict;
    }
  }
  UniqueFd own;
  const int fd = Borrow(&own, &error);
  if (error != 0) return Verdict::Fail(error);
  struct stat st = {};
  if (fstat(fd, &st) != 0) return Verdict::Fail(errno);
  if ((flags & O_TRUNC) && st.st_size > 0) {
    const UniqueFd data = OpenBacking(O_WRONLY | O_NONBLOCK, &error);
    if (error != 0) return Verdict::Fail(error);
    if (ftruncate(data.get(), 0) != 0) return Verdict::Fail(errno);
    store_->lost_writes().Emptied(fid_);
  } else if (flags & O_TRUNC) {
    // Nothing to cut, and still a modification (lustre-hsm 3.4): its time moves.
    const struct timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
    if (utimensat(AT_FDCWD, ProcPath(fd).c_str(), now, 0) != 0) return Verdict::Fail(errno);
  }
  if (!handles_open()) {
    store_->Opened(fid_, std::static_pointer_cast<InodeImpl>(shared_from_this()));
    const bool resident = !(record_.flags & HS_RELEASED) && restore_ == nullptr;
    mode_ = resident && passthrough_ok ? DataMode::kPassthrough : DataMode::kCached;
  }
  *out = OpenFile();
  out->writes = writes;
  out->mode = mode_;
  out->direct_io =
      mode_ == DataMode::kPassthrough && writes &&
      ((flags & (O_APPEND | O_DIRECT)) != 0 || (st.st_mode & (S_ISUID | S_ISGID)) != 0 ||
       getxattr(ProcPath(fd).c_str(), "security.capability", nullptr, 0) > 0);
  (writes ? writers_ : readers_)++;
  if (writes) modify_epoch_++;
  UpdatePin();
  return Verdict::Go();
}

void InodeImpl::CloseHandle(OpenFile* file) {
  const Lock lock(mutex_);
  if (file->mode == DataMode::kNone) return;
  file->mode = DataMode::kNone;
  (file->writes ? writers_ : readers_)--;
  if (!handles_open()) {
    mode_ = DataMode::kNone;
    resized_under_handles_ = false;
    early_etag_.clear();
    store_->Closed(fid_);
    if (nameless_ && HasCopy()) store_->FileIsGone(fid_, record_);
  }
  idle_.notify_all();
  if (file->writes && !being_written()) {
    no_settle_until_ns_ = 0;
    QueueSettle();
  }
  UpdatePin();
}

Verdict InodeImpl::AdmitRead(OpenFile* file, uint64_t offset, uint64_t length, pid_t pid,
                             Wake wake) {
  const Lock lock(mutex_);
  const int error = Loaded();
  if (error != 0) return Verdict::Fail(error);
  const uint64_t end = offset + length < offset ? UINT64_MAX : offset + length;
  if (!(record_.flags & HS_RELEASED)) {
    // The kernel would end the file where it still believes the end to be.
    if (auto verdict = AwaitSize(wake, file, end)) return *std::move(verdict);
    // Bytes of two versions must never meet in one reader.
    if (!file->pinned_etag.empty() && file->pinned_etag != restored_etag_) {
      return Verdict::Fail(ENODATA);
    }
    file->pinned_etag.clear();
    return Verdict::Go();
  }
  if (MonotonicNs() < file->fail_until_ns) return Verdict::Fail(file->fail_error);
  const bool running = restore_ != nullptr && restore_->running;
  if (running && !restore_->copy && !file->writes && store_->partial_reads() &&
      end < record_.statement->size && end <= restore_->watermark) {
    if (file->pinned_etag.empty()) file->pinned_etag = record_.copy->etag;
    if (file->pinned_etag != record_.copy->etag) return Verdict::Fail(ENODATA);
    early_etag_ = record_.copy->etag;
    return Verdict::Go();
  }
  const bool early = !file->writes && end < record_.statement->size;
  const auto kind = early ? Waiter::kBytes : Waiter::kRestored;
  return WaitForRestore(kind, pid, std::move(wake), file, end);
}

Verdict InodeImpl::AdmitModify(pid_t pid, Wake wake) {
  const Lock lock(mutex_);
  const Verdict verdict = PrepareModify(pid, wake);
  if (verdict.what == Verdict::kGo) {
    modifications_++;
    modify_epoch_++;
    UpdatePin();
  }
  return verdict;
}

void InodeImpl::EndModify() {
  const Lock lock(mutex_);
  modifications_--;
  idle_.notify_all();
  if (!being_written()) {
    no_settle_until_ns_ = 0;
    QueueSettle();
  }
  UpdatePin();
}

Verdict InodeImpl::AdmitSeek(pid_t pid, Wake wake) {
  const Lock lock(mutex_);
  const int error = Loaded();
  if (error != 0) return Verdict::Fail(error);
  if (record_.flags & HS_RELEASED) {
    return WaitForRestore(Waiter::kRestored, pid, std::move(wake), nullptr, 0);
  }
  // The kernel refuses to read where it does not know of anything yet.
  if (auto verdict = AwaitSize(wake, nullptr, 0)) return *std::move(verdict);
  return Verdict::Go();
}

Verdict InodeImpl::Truncate(off_t size, pid_t pid, Wake wake) {
  if (size < 0) return Verdict::Fail(EINVAL);
  {
    const Lock lock(mutex_);
    const int error = Loaded();
    if (error != 0) return Verdict::Fail(error);
    if (size == 0 && (record_.flags & HS_RELEASED) && restore_ == nullptr) {
      if (!busy_) QueueTruncateReleased();
      return Wait(Waiter::kIdle, std::move(wake), nullptr, 0);
    }
    const Verdict verdict = PrepareModify(pid, wake);
    if (verdict.what != Verdict::kGo) return verdict;
    modifications_++;
    modify_epoch_++;
    UpdatePin();
  }
  int error = 0;
  UniqueFd fd = OpenBacking(O_WRONLY | O_NONBLOCK, &error);
  if (error == 0 && ftruncate(fd.get(), size) != 0) error = errno;
  if (error == 0 && size == 0) store_->lost_writes().Emptied(fid_);
  fd.reset();  // before the settling that follows asks for a lease
  EndModify();
  return error == 0 ? Verdict::Go() : Verdict::Fail(error);
}

int InodeImpl::SetTimes(const struct timespec times[2]) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  // Of our own and not the pin: while a fold is synced, the last handle may be closed and the pin's
  // number be another file's.
  const UniqueFd own = OpenBacking(O_PATH, &error);
  if (error != 0) return error;
  const int fd = own.get();
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  const bool moves_mtime = times[1].tv_nsec != UTIME_OMIT;
  const bool stated = S_ISREG(st.st_mode) && record_.statement.has_value();
  const Content content = stated ? Judge(EvidenceOf(st)) : Content::kNew;
  if (stated && moves_mtime) {
    if (content == Content::kUnproven && sample_) return KeepTimes(fd, times);
    if (content == Content::kUnproven || content == Content::kChanged) {
      error = FoldDurably(lock, fd);
      UpdatePin();
      if (error != 0) return error;
    }
  }
  if (S_ISLNK(st.st_mode)) {
    if (utimensat(fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) return errno;
  } else if (utimensat(AT_FDCWD, ProcPath(fd).c_str(), times, 0) != 0) {
    return errno;
  }
  if (!stated || !record_.statement) return 0;
  if (fstat(fd, &st) != 0) return errno;
  Record record = record_;
  record.ctime = st.st_ctim;
  if (moves_mtime) {
    // Nobody writes but a restore, and that moves the times of what it fills.
    const bool asked = restore_ != nullptr && times[1].tv_nsec != UTIME_NOW;
    record.statement->mtime = asked ? times[1] : st.st_mtim;
  } else if (content == Content::kUnproven && Unwritten(EvidenceOf(st))) {
    sample_->ctime = st.st_ctim;
  }
  return WriteExact(fd, record);
}

// Somebody may be writing right now, so the evidence of it must stay: the inode on disk keeps its
// mtime, and a write goes on moving it. The new one is shown from here, and given when nobody
// writes any more.
int InodeImpl::KeepTimes(int fd, const struct timespec times[2]) {
  struct timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  const struct timespec others[2] = {times[0], {0, UTIME_OMIT}};
  const bool moves_atime = times[0].tv_nsec != UTIME_OMIT;
  if (moves_atime && utimensat(AT_FDCWD, ProcPath(fd).c_str(), others, 0) != 0) return errno;
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  if (!Unwritten(EvidenceOf(st))) return 0;  // after this utimes, as it were
  sample_->ctime = st.st_ctim;
  kept_mtime_ = times[1].tv_nsec == UTIME_NOW ? now : times[1];
  Record record = record_;
  record.ctime = now;
  const int error = WriteExact(fd, record);
  if (!being_written()) QueueSettle();
  return error;
}

}  // namespace lustrite
