// Changes of the flags that somebody asked for: hsm_set, hsm_clear, hsm_remove, a blob that got
// another owner.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "crash_points.h"
#include "inode_impl.h"
#include "store_impl.h"

namespace lustrite {

int InodeImpl::ChangeFlags(uint8_t set, uint8_t clear, uint32_t archive_id) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  const Busy busy(this, lock);
  lock.unlock();
  UniqueFd fd = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
  lock.lock();
  if (error != 0) return error;
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return errno;
  if (!S_ISREG(st.st_mode)) return ENOTTY;
  const bool released = (record_.flags & HS_RELEASED) != 0;
  set &= static_cast<uint8_t>(released ? ~(HS_RELEASED | HS_DIRTY) : ~HS_RELEASED);
  clear &= static_cast<uint8_t>(~HS_RELEASED);

  // What was written until now belongs to the flags that are about to change.
  if (Judge(EvidenceOf(st)) == Content::kChanged) {
    Record folded = record_;
    Fold(&folded);
    error = Write(fd.get(), folded);
    if (error != 0) return error;
    sample_.reset();
    CRASH_POINT("state-set.dirty-recorded");
  }
  Record record = record_;
  record.flags = static_cast<uint8_t>((record.flags | set) & ~clear);
  if (archive_id != 0) record.archive_id = archive_id;

  bool sampling = false;
  const bool vouched = (record.flags & (HS_EXISTS | HS_ARCHIVED)) && !(record.flags & HS_DIRTY);
  if (!released && vouched && !record.statement) {
    // The user says that this content counts as clean. It is still in no copy, so it is never
    // released; but the next write shows.
    lock.unlock();
    UniqueFd other = OpenBacking(O_RDONLY | O_NONBLOCK, &error);
    std::unique_ptr<Lease> lease;
    if (error == 0) lease = store_->leases().Take(std::move(other), F_RDLCK, &error);
    if (const int synced = Sync(fd.get()); synced != 0) error = synced;
    lock.lock();
    if (error != 0 && error != EAGAIN) return error;
    if (fstat(fd.get(), &st) != 0) return errno;
    sampling = lease == nullptr || being_written();
    record.modified = true;
    record.statement = Statement{static_cast<uint64_t>(st.st_size), st.st_mtim, sampling,
                                 sampling ? store_->boot() : 0};
  }
  error = Write(fd.get(), record);
  if (error != 0) return error;
  CRASH_POINT("state-set.recorded");
  if (sampling) {
    if (fstat(fd.get(), &st) != 0) return errno;
    sample_ = EvidenceOf(st);
  }
  return SyncRecord(lock, fd.get());
}

int InodeImpl::MarkModified() {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  const Busy busy(this, lock);
  if (record_.flags & HS_RELEASED) return ENODATA;
  UniqueFd own;
  const int fd = Borrow(&own, &error);
  if (error != 0) return error;
  Record record = record_;
  record.copy.reset();
  Fold(&record);
  error = Write(fd, record);
  if (error != 0) return error;
  sample_.reset();
  return SyncRecord(lock, fd);
}

int InodeImpl::RecordCopy(const Copy& copy) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  const Busy busy(this, lock);
  UniqueFd own;
  const int fd = Borrow(&own, &error);
  struct stat st = {};
  if (error == 0 && fstat(fd, &st) != 0) error = errno;
  if (error != 0) return error;
  if (!S_ISLNK(st.st_mode)) return EINVAL;
  Record record = record_;
  record.archive_id = 1;
  record.copy = copy;
  error = WriteRecord(fd, store_->id(), record);
  if (error == 0) record_ = record;
  return error;
}

int InodeImpl::BeginRemove() {
  return Disclaim([](Record* record) {
    // What a remove needs to be allowed again.
    if (record->flags & HS_ARCHIVED) record->flags |= HS_EXISTS;
    record->flags &= static_cast<uint8_t>(~(HS_ARCHIVED | HS_LOST));
    record->modified = true;
  });
}

int InodeImpl::ForgetCopy() {
  return Disclaim([](Record* record) {
    record->flags &= static_cast<uint8_t>(~(HS_ARCHIVED | HS_EXISTS | HS_LOST));
    record->copy.reset();
    record->statement.reset();
    record->modified = false;
  });
}

int InodeImpl::Disclaim(const std::function<void(Record*)>& change) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  const Busy busy(this, lock);
  if (record_.flags & HS_RELEASED) return EPERM;
  UniqueFd own;
  const int fd = Borrow(&own, &error);
  struct stat st = {};
  if (error == 0 && fstat(fd, &st) != 0) error = errno;
  if (error != 0) return error;
  Record record = record_;
  if (S_ISREG(st.st_mode) && Judge(EvidenceOf(st)) == Content::kChanged) Fold(&record);
  change(&record);
  error = Write(fd, record);
  if (error != 0) return error;
  if (!record.statement) sample_.reset();
  return SyncRecord(lock, fd);
}

}  // namespace lustrite
