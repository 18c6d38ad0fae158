#include "inode_impl.h"

#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "store_impl.h"

namespace lustrite {
namespace {

constexpr char kXattr[] = "trusted.lustrite";

}  // namespace

uint64_t MonotonicNs() {
  struct timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

Evidence EvidenceOf(const struct stat& st) {
  return {static_cast<uint64_t>(st.st_size), st.st_mtim, st.st_ctim};
}

std::string ProcPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

int ReadRecord(int fd, uint32_t store, Record* record) {
  char bytes[kMaxRecord];
  ssize_t got = fgetxattr(fd, kXattr, bytes, sizeof bytes);
  if (got < 0 && errno == EBADF) {  // O_PATH
    got = getxattr(ProcPath(fd).c_str(), kXattr, bytes, sizeof bytes);
  }
  *record = Record();
  if (got < 0) return errno == ENODATA || errno == ENOTSUP ? 0 : errno == ERANGE ? EIO : errno;
  if (!DecodeRecord({bytes, static_cast<size_t>(got)}, record)) return EIO;
  if (record->store == 0 || record->store == store) return 0;
  *record = Record();
  // Nobody's data: a directory that came from another store is one without a blob here, and what
  // lies in it is seen.
  struct stat st = {};
  return fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) ? 0 : ESTALE;
}

int WriteRecord(int fd, uint32_t store, Record record) {
  record.store = store;
  const std::optional<std::string> bytes = EncodeRecord(record);
  if (!bytes) return E2BIG;
  int rc = 0;
  if (bytes->empty()) {
    rc = fremovexattr(fd, kXattr);
    if (rc != 0 && errno == EBADF) rc = removexattr(ProcPath(fd).c_str(), kXattr);
    return rc == 0 || errno == ENODATA ? 0 : errno;
  }
  rc = fsetxattr(fd, kXattr, bytes->data(), bytes->size(), 0);
  if (rc != 0 && errno == EBADF) {
    rc = setxattr(ProcPath(fd).c_str(), kXattr, bytes->data(), bytes->size(), 0);
  }
  return rc == 0 ? 0 : errno;
}

InodeImpl::InodeImpl(std::shared_ptr<StoreImpl> store, const Fid& fid)
    : store_(std::move(store)), fid_(fid) {}

InodeImpl::~InodeImpl() { store_->Forget(fid_); }

UniqueFd InodeImpl::OpenBacking(int flags, int* error) {
  return store_->handles().Open(fid_, flags, error);
}

int InodeImpl::Load(int fd) {
  const Lock lock(mutex_);
  if (loaded_) return load_error_;
  load_error_ = ReadRecord(fd, store_->id(), &record_);
  loaded_ = load_error_ == 0 || load_error_ == EIO;
  return load_error_;
}

int InodeImpl::Borrow(UniqueFd* own, int* error) const {
  *error = 0;
  if (pin_.ok()) return pin_.get();
  *own = store_->handles().Open(fid_, O_PATH, error);
  return own->get();
}

int InodeImpl::Loaded() {
  if (loaded_) return load_error_;
  UniqueFd own;
  int error = 0;
  const int fd = Borrow(&own, &error);
  if (error != 0) return error;
  load_error_ = ReadRecord(fd, store_->id(), &record_);
  loaded_ = load_error_ == 0 || load_error_ == EIO;
  return load_error_;
}

int InodeImpl::Sync(int fd, LostWrites::Hearer hearer) {
  return store_->lost_writes().Sync(fid_, fd, hearer);
}

int InodeImpl::Fsync(int fd, bool data_only) {
  return store_->lost_writes().Sync(fid_, fd, LostWrites::kApplication, data_only);
}

int InodeImpl::WriteExact(int fd, const Record& record) {
  if (!record.statement || !record.statement->suspended) {
    const int error = GiveMtime(fd);
    if (error != 0) return error;
  }
  struct stat before = {};
  if (fstat(fd, &before) != 0) return errno;
  const int error = WriteRecord(fd, store_->id(), record);
  if (error != 0) return error;
  // Release and restore say so themselves, at their end.
  const uint8_t moved = (record_.flags ^ record.flags) & static_cast<uint8_t>(~HS_RELEASED);
  if (moved != 0) {
    store_->changes().Note({.kind = Change::kState, .fid = fid_, .flags = record.flags});
  }
  record_ = record;
  struct stat after = {};
  if (fstat(fd, &after) != 0) {
    our_ctime_.reset();
    return 0;
  }
  our_ctime_ = after.st_ctim;
  // What we did ourselves is no evidence of a write, what came before it still is.
  if (sample_ && SameTime(sample_->ctime, before.st_ctim)) sample_->ctime = after.st_ctim;
  return 0;
}

int InodeImpl::Write(int fd, Record record) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  const bool bare = record.flags == 0 && !record.modified && record.archive_id == 0 &&
                    !record.copy && !record.statement;
  record.ctime.reset();
  if (!bare) {
    const struct timespec shown = ShownCtime(record_, st.st_ctim, our_ctime_);
    // A released file without one shows its mtime.
    const bool elided = (record.flags & HS_RELEASED) && SameTime(shown, record.statement->mtime);
    if (!elided) record.ctime = shown;
  }
  return WriteExact(fd, record);
}

int InodeImpl::Look(Evidence* evidence) {
  UniqueFd own;
  int error = 0;
  const int fd = Borrow(&own, &error);
  if (error != 0) return error;
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  *evidence = EvidenceOf(st);
  return 0;
}

Content InodeImpl::Judge(const Evidence& now) const {
  return JudgeContent(record_, now, sample_ ? &*sample_ : nullptr, store_->boot());
}

bool InodeImpl::Unwritten(const Evidence& now) const {
  return sample_ && now.size == sample_->size && SameTime(now.mtime, sample_->mtime);
}

int InodeImpl::GiveMtime(int fd) {
  if (!kept_mtime_) return 0;
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  if (Unwritten(EvidenceOf(st))) {
    const struct timespec times[2] = {{0, UTIME_OMIT}, *kept_mtime_};
    if (utimensat(AT_FDCWD, ProcPath(fd).c_str(), times, 0) != 0) return errno;
    const bool ours = our_ctime_ && SameTime(*our_ctime_, st.st_ctim);
    if (ours && fstat(fd, &st) == 0) our_ctime_ = st.st_ctim;
  }
  kept_mtime_.reset();
  return 0;
}

void InodeImpl::UpdatePin() {
  const bool wanted = handles_open() || modifications_ > 0 || busy_ || restore_ != nullptr ||
                      archive_ != nullptr || sample_.has_value() || !waiters_.empty();
  if (!wanted) {
    pin_.reset();
    self_.reset();
  } else if (self_ == nullptr) {
    self_ = shared_from_this();
    int error = 0;
    pin_ = store_->handles().Open(fid_, O_PATH, &error);
  }
}

void InodeImpl::BeginBusy(Lock& lock, bool closed_to_readers) {
  idle_.wait(lock, [this] { return !busy_; });
  busy_ = true;
  closed_to_readers_ = closed_to_readers;
  UpdatePin();
}

void InodeImpl::EndBusy(int error) {
  busy_ = false;
  closed_to_readers_ = false;
  idle_.notify_all();
  Post(TakeWaiters([](const Waiter& waiter) { return waiter.kind == Waiter::kIdle; }), error);
  UpdatePin();
}

Verdict InodeImpl::Wait(Waiter::Kind kind, Wake wake, OpenFile* file, uint64_t end) {
  const uint64_t ticket = store_->NextTicket();
  waiters_.push_back({ticket, std::move(wake), kind, file, end});
  UpdatePin();
  return Verdict::Wait(ticket);
}

bool InodeImpl::Withdraw(uint64_t ticket) {
  Wake dropped;  // destroyed after the lock
  const Lock lock(mutex_);
  const auto found = std::find_if(waiters_.begin(), waiters_.end(),
                                  [ticket](const Waiter& w) { return w.ticket == ticket; });
  if (found == waiters_.end()) return false;
  dropped = std::move(found->wake);
  waiters_.erase(found);
  UpdatePin();
  return true;
}

std::vector<Wake> InodeImpl::TakeWaiters(const std::function<bool(const Waiter&)>& which) {
  std::vector<Wake> taken;
  std::vector<Waiter> left;
  for (Waiter& waiter : waiters_) {
    if (which(waiter)) {
      taken.push_back(std::move(waiter.wake));
    } else {
      left.push_back(std::move(waiter));
    }
  }
  waiters_ = std::move(left);
  return taken;
}

void InodeImpl::Post(std::vector<Wake> wakes, int error) {
  if (wakes.empty()) return;
  store_->Dispatch([wakes = std::move(wakes), error] {
    for (const Wake& wake : wakes) wake(error);
  });
}

void InodeImpl::FailWaiters(int error) {
  const Lock lock(mutex_);
  Post(TakeWaiters([](const Waiter&) { return true; }), error);
  UpdatePin();
}

void InodeImpl::Abandon() {
  const std::shared_ptr<Inode> keep = shared_from_this();
  Lock lock(mutex_);
  restore_.reset();
  archive_.reset();
  waiters_.clear();
  if (kept_mtime_) {
    no_settle_until_ns_ = 0;
    if (MaySettle()) Settle(lock);
    // Somebody still has it open: the mtime counts, and the file will pass for written.
    UniqueFd own;
    int error = 0;
    const int fd = Borrow(&own, &error);
    if (error == 0) GiveMtime(fd);
    kept_mtime_.reset();
  }
  sample_.reset();
  pin_.reset();
  self_.reset();
}

void InodeImpl::Show(struct stat* st, bool* stable) {
  const Lock lock(mutex_);
  *stable = true;
  if (!S_ISREG(st->st_mode) || Loaded() != 0) return;
  // While somebody may be storing through a mapping the kernel hears nothing of new times.
  *stable = restore_ == nullptr && archive_ == nullptr && !being_written() &&
            !resized_under_handles_ && !(record_.statement && record_.statement->suspended);
  const bool settled = record_.statement && !record_.statement->suspended;
  const bool ours = !our_ctime_ || SameTime(*our_ctime_, st->st_ctim);
  if (settled && !(ours && SameTime(st->st_mtim, record_.statement->mtime))) {
    // The caller's look may be from before the end of a suspension, which gave the inode its mtime.
    Evidence now;
    if (Look(&now) == 0) {
      st->st_size = static_cast<off_t>(now.size);
      st->st_mtim = now.mtime;
      st->st_ctim = now.ctime;
    }
  }
  if (kept_mtime_ && Unwritten(EvidenceOf(*st))) st->st_mtim = *kept_mtime_;
  st->st_ctim = ShownCtime(record_, st->st_ctim, our_ctime_);
  if (!(record_.flags & HS_RELEASED)) return;
  st->st_size = static_cast<off_t>(record_.statement->size);
  st->st_mtim = record_.statement->mtime;
  // One block, or tar takes the file for a hole (lustre-hsm 3.6).
  st->st_blocks = st->st_size > 0 ? 1 : 0;
}

int InodeImpl::State(FileState* state) {
  Lock lock(mutex_);
  int error = Loaded();
  if (error != 0) return error;
  if (MaySettle()) Settle(lock);
  UniqueFd own;
  const int fd = Borrow(&own, &error);
  if (error != 0) return error;
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  state->fid = fid_;
  state->allocated = static_cast<uint64_t>(st.st_blocks) * 512;
  state->archive_id = record_.archive_id;
  state->copy = record_.copy;
  state->writers = writers_;
  state->readers = readers_;
  state->restoring = restore_ != nullptr && restore_->running;
  if (S_ISREG(st.st_mode)) {
    const Content content = Judge(EvidenceOf(st));
    state->flags = ShownFlags(record_, content);
    state->modified = ShownModified(record_, content);
    state->needs_archive = NeedsArchive(record_, content);
    if (kept_mtime_ && Unwritten(EvidenceOf(st))) st.st_mtim = *kept_mtime_;
    st.st_ctim = ShownCtime(record_, st.st_ctim, our_ctime_);
    if (record_.flags & HS_RELEASED) {
      st.st_size = static_cast<off_t>(record_.statement->size);
      st.st_mtim = record_.statement->mtime;
      st.st_blocks = st.st_size > 0 ? 1 : 0;
    }
  }
  state->st = st;
  return 0;
}

struct hsm_user_state InodeImpl::HsmState() {
  struct hsm_user_state shown = {};
  FileState state;
  if (State(&state) != 0) return shown;
  shown.hus_states = state.flags;
  shown.hus_archive_id = state.archive_id;
  return shown;
}

struct hsm_current_action InodeImpl::HsmAction() { return store_->ShownAction(fid_); }

namespace {

// The words in Lustre's order (lustre-hsm 1.2).
std::string FlagWords(uint8_t flags) {
  static constexpr struct {
    uint8_t flag;
    const char* word;
  } kWords[] = {
      {HS_RELEASED, "released"}, {HS_EXISTS, "exists"},           {HS_DIRTY, "dirty"},
      {HS_ARCHIVED, "archived"}, {HS_NORELEASE, "never_release"}, {HS_NOARCHIVE, "never_archive"},
      {HS_LOST, "lost_from_hsm"}};
  std::string words;
  for (const auto& [flag, word] : kWords) {
    if (!(flags & flag)) continue;
    if (!words.empty()) words += ' ';
    words += word;
  }
  return words;
}

}  // namespace

int InodeImpl::ShowXattr(const std::string& name, std::string* value) {
  FileState state;
  const int error = State(&state);
  if (error != 0) return error;
  const bool known = state.flags != 0 || state.archive_id != 0 || state.copy;
  if (!S_ISREG(state.st.st_mode) || !known) return ENODATA;
  if (name == "trusted.hsm") {
    // struct hsm_attrs (lustre-hsm 4.1); the data version is the copy's age, 0 where nothing was
    // archived.
    const struct {
      uint32_t compat, flags;
      uint64_t archive_id, version;
    } attributes = {0, state.flags, state.archive_id,
                    state.copy ? static_cast<uint64_t>(state.copy->last_modified_ms) : 0};
    static_assert(sizeof attributes == 24);
    value->assign(reinterpret_cast<const char*>(&attributes), sizeof attributes);
    return 0;
  }
  if (name == "user.hsm.state") {
    *value = FlagWords(state.flags);
    return value->empty() ? ENODATA : 0;
  }
  if (!state.copy) return ENODATA;
  if (name == "user.hsm.blob" || name == "trusted.lhsm_uuid") {
    *value = state.copy->blob;
    return 0;
  }
  if (name == "user.hsm.etag") {
    *value = state.copy->etag;
    return 0;
  }
  return ENODATA;
}

void InodeImpl::LosesLastName() {
  const Lock lock(mutex_);
  if (Loaded() == 0 && HasCopy()) store_->unlinked().Note(fid_, record_);
}

bool InodeImpl::MayHaveCopy() {
  const Lock lock(mutex_);
  return Loaded() == 0 && (record_.flags & HS_EXISTS) != 0;
}

void InodeImpl::LostLastName() {
  const Lock lock(mutex_);
  if (!HasCopy()) return;
  nameless_ = true;
  if (!handles_open()) store_->FileIsGone(fid_, record_);
}

void InodeImpl::MetadataChanged() {
  const Lock lock(mutex_);
  if (Loaded() != 0 || !record_.statement) return;
  UniqueFd own;
  int error = 0;
  const int fd = Borrow(&own, &error);
  struct stat st = {};
  if (error != 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return;
  // The change time moved for a reason that is no write; size and mtime go on being evidence.
  if (Unwritten(EvidenceOf(st))) sample_->ctime = st.st_ctim;
  Record record = record_;
  record.ctime = st.st_ctim;
  WriteExact(fd, record);
}

InodeImpl::Gauges InodeImpl::Count() {
  const Lock lock(mutex_);
  Gauges gauges;
  gauges.handles = readers_ + writers_;
  gauges.waiting = static_cast<int>(waiters_.size());
  gauges.suspended = sample_.has_value();
  gauges.restoring = restore_ != nullptr;
  gauges.archiving = archive_ != nullptr;
  return gauges;
}

}  // namespace lustrite
