#include "stubs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "beneath.h"
#include "crash_points.h"
#include "entries.h"

namespace lustrite {
namespace {

constexpr size_t kParents = 512;
constexpr size_t kUntold = 64;

std::string StagingName() {
  static std::atomic<uint64_t> next{0};
  return "stub-" + std::to_string(next++);
}

}  // namespace

// A name in staging/ that is gone again unless it was moved away.
class StubMaker::Staged {
 public:
  Staged(int staging, bool directory)
      : staging_(staging), directory_(directory), name_(StagingName()) {}
  ~Staged() {
    if (!moved_) unlinkat(staging_, name_.c_str(), directory_ ? AT_REMOVEDIR : 0);
  }
  Staged(const Staged&) = delete;
  Staged& operator=(const Staged&) = delete;
  const char* name() const { return name_.c_str(); }
  int MoveTo(int parent, const std::string& name) {
    const int error = Move(parent, name, RENAME_NOREPLACE);
    if (error == 0) CRASH_POINT("stub.linked");
    return error;
  }
  // In one step, and what had the name (no directory) is gone.
  int TakeNameOf(int parent, const std::string& name) {
    const int error = Move(parent, name, RENAME_EXCHANGE);
    if (error != 0) return error;
    CRASH_POINT("stub.exchanged");
    // What stays in staging/ goes at the next start.
    unlinkat(staging_, name_.c_str(), 0);
    return 0;
  }

 private:
  int Move(int parent, const std::string& name, unsigned flags) {
    CRASH_POINT("stub.built");
    if (renameat2(staging_, name_.c_str(), parent, name.c_str(), flags) != 0) return errno;
    moved_ = true;
    return 0;
  }

  const int staging_;
  const bool directory_;
  const std::string name_;
  bool moved_ = false;
};

namespace {

// Owner and mode of a file that was created with the mode that it shall have: each call that can be
// left out is a journal transaction less.
int SetOwner(const Stub& stub, int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return errno;
  if (st.st_uid != stub.uid || st.st_gid != stub.gid) {
    if (fchown(fd, stub.uid, stub.gid) != 0) return errno;
    st.st_mode &= static_cast<mode_t>(~(S_ISUID | S_ISGID));
  }
  const mode_t mode = stub.mode & 07777;
  // A parent's default ACL has taken bits away, or the change of the owner has.
  return (st.st_mode & 07777) == mode || fchmod(fd, mode) == 0 ? 0 : errno;
}

int Dress(const Stub& stub, uint32_t store, int fd) {
  Record record;
  record.flags = HS_EXISTS | HS_ARCHIVED | HS_RELEASED;
  record.archive_id = 1;
  record.copy = stub.copy;
  record.statement = Statement{stub.size, stub.mtime, false, 0};
  int error = SetOwner(stub, fd);
  if (error == 0) error = SetExtended(fd, stub.extended);
  if (error == 0) error = WriteRecord(fd, store, record);
  if (error != 0) return error;
  if (stub.size > 0 && ftruncate(fd, static_cast<off_t>(stub.size)) != 0) return errno;
  const struct timespec times[2] = {stub.mtime, stub.mtime};
  return futimens(fd, times) == 0 ? 0 : errno;
}

int Check(const Stub& stub) {
  const int error = CheckPath(stub.path);
  if (error != 0) return error;
  if (stub.kind == StubKind::kFile && !stub.copy) return EINVAL;
  return stub.size > INT64_MAX ? EFBIG : 0;
}

}  // namespace

StubMaker::StubMaker(StoreImpl& store, const StubDefaults& defaults)
    : store_(store), defaults_(defaults), names_changed_(store.names_changed()) {}

StubMaker::~StubMaker() {
  if (store_.names_changed() != names_changed_) store_.NoteLate();
  Tell();
}

StubResult StubMaker::Make(const Stub& stub) {
  StubResult result;
  result.error = Check(stub);
  if (result.error != 0) return result;
  std::string parent_path;
  std::string name;
  SplitPath(stub.path, &parent_path, &name);
  const Directory* parent = Parent(parent_path, &result.error);
  if (parent == nullptr) return result;
  const int dir = parent->fd.get();
  struct stat st = {};
  if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return Exists(dir, name);
  if (errno != ENOENT) {
    result.error = errno;
    return result;
  }
  const Move move = [&](Staged& staged) { return staged.MoveTo(dir, name); };
  result.error = stub.kind == StubKind::kFile ? MakeFile(stub, dir, name, &result.fid)
                                              : MakeOther(stub, move, &result.fid);
  if (result.error == EEXIST) return Exists(dir, name);
  if (result.error != 0) return result;
  result.kind = StubResult::kCreated;
  Made(parent->fid, name);
  return result;
}

StubResult StubMaker::Replace(const Stub& stub, const Fid& fid) {
  StubResult result;
  int& error = result.error;
  error = Check(stub);
  if (error != 0) return result;
  std::string parent_path;
  std::string name;
  SplitPath(stub.path, &parent_path, &name);
  const UniqueFd parent = OpenBeneath(store_.root(), parent_path, O_PATH | O_DIRECTORY, 0, &error);
  Fid parent_fid;
  if (error == 0) error = store_.handles().FidOf(parent.get(), &parent_fid);
  if (error != 0) return result;
  const UniqueFd old(openat(parent.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat st = {};
  if (!old.ok() || fstat(old.get(), &st) != 0) error = errno;
  Fid found;
  if (error == 0) error = store_.handles().FidOf(old.get(), &found);
  // Not a second look at the name: what is displaced must be what is replaced.
  if (error == 0 && !(found == fid)) error = ESTALE;
  if (error != 0) return result;
  const std::shared_ptr<InodeImpl> displaced = store_.GetImpl(old.get(), &error);
  if (displaced == nullptr) return result;

  const Move move = [&](Staged& staged) {
    const auto take = [&] {
      const auto names = store_.StopNames();
      const int other = NamedStill(store_, parent.get(), name, fid);
      if (other != 0) return other;
      // How many names it has now.
      if (fstat(old.get(), &st) != 0) return errno;
      if (!S_ISDIR(st.st_mode)) return staged.TakeNameOf(parent.get(), name);
      if (unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) != 0) return errno;
      return staged.MoveTo(parent.get(), name);
    };
    return S_ISREG(st.st_mode) ? displaced->Displace(false, take) : take();
  };
  error = stub.kind == StubKind::kFile ? MakeFileInStaging(stub, move, &result.fid)
                                       : MakeOther(stub, move, &result.fid);
  if (error != 0) return result;
  result.kind = StubResult::kCreated;
  if (S_ISREG(st.st_mode)) displaced->MetadataChanged();
  if (!S_ISDIR(st.st_mode)) {
    const bool last = st.st_nlink == 1;
    store_.changes().Note({.kind = Change::kUnlink,
                           .fid = fid,
                           .last = last,
                           .exists = last && store_.changes().on() && displaced->MayHaveCopy(),
                           .parent = parent_fid,
                           .name = name});
  }
  store_.TellEntryChanged(parent_fid, name);
  store_.TellInodeChanged(displaced, false, {}, [](int) {});
  return result;
}

StubResult StubMaker::Exists(int parent, const std::string& name) {
  StubResult result;
  const UniqueFd fd(openat(parent, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.ok()) {
    result.error = errno;
    return result;
  }
  const std::shared_ptr<InodeImpl> inode = store_.GetImpl(fd.get(), &result.error);
  if (inode == nullptr) return result;
  result.error = inode->State(&result.state);
  if (result.error == 0) result.kind = StubResult::kExists;
  return result;
}

int StubMaker::MakeFile(const Stub& stub, int parent, const std::string& name, Fid* fid) {
  const UniqueFd fd(openat(parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, stub.mode & 07777));
  if (!fd.ok()) {
    if (errno != EOPNOTSUPP && errno != EISDIR) return errno;
    return MakeFileInStaging(
        stub, [&](Staged& staged) { return staged.MoveTo(parent, name); }, fid);
  }
  int error = Dress(stub, store_.id(), fd.get());
  if (error == 0) error = store_.handles().FidOf(fd.get(), fid);
  if (error != 0) return error;
  CRASH_POINT("stub.built");
  if (linkat(fd.get(), "", parent, name.c_str(), AT_EMPTY_PATH) != 0) return errno;
  CRASH_POINT("stub.linked");
  return 0;
}

int StubMaker::MakeFileInStaging(const Stub& stub, const Move& move, Fid* fid) {
  Staged staged(store_.staging(), false);
  const UniqueFd fd(openat(store_.staging(), staged.name(),
                           O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, stub.mode & 07777));
  if (!fd.ok()) return errno;
  int error = Dress(stub, store_.id(), fd.get());
  if (error == 0) error = store_.handles().FidOf(fd.get(), fid);
  return error != 0 ? error : move(staged);
}

int StubMaker::MakeOther(const Stub& stub, const Move& move, Fid* fid) {
  const bool directory = stub.kind == StubKind::kDirectory;
  Staged staged(store_.staging(), directory);
  const int made = directory ? mkdirat(store_.staging(), staged.name(), 0700)
                             : symlinkat(stub.target.c_str(), store_.staging(), staged.name());
  if (made != 0) return errno;
  const UniqueFd fd(openat(store_.staging(), staged.name(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.ok()) return errno;
  if (fchownat(fd.get(), "", stub.uid, stub.gid, AT_EMPTY_PATH) != 0) return errno;
  if (directory && chmod(ProcPath(fd.get()).c_str(), stub.mode & 07777) != 0) return errno;
  int error = directory ? SetExtended(fd.get(), stub.extended) : 0;
  if (error != 0) return error;
  if (stub.copy) {
    Record record;
    record.archive_id = 1;
    record.copy = stub.copy;
    error = WriteRecord(fd.get(), store_.id(), record);
    // File systems without attributes on symbolic links: the link itself is all that is needed.
    if (error != 0 && (directory || (error != EPERM && error != ENOTSUP))) return error;
  }
  const struct timespec times[2] = {stub.mtime, stub.mtime};
  if (utimensat(fd.get(), "", times, AT_EMPTY_PATH) != 0) return errno;
  error = store_.handles().FidOf(fd.get(), fid);
  return error != 0 ? error : move(staged);
}

const StubMaker::Directory* StubMaker::Parent(const std::string& path, int* error) {
  const auto known = parents_.find(path);
  if (known != parents_.end()) {
    recent_.splice(recent_.begin(), recent_, known->second);
    return &known->second->second;
  }
  Directory directory;
  const int flags = O_PATH | O_DIRECTORY;
  directory.fd = OpenBeneath(store_.root(), path, flags, 0, error);
  if (*error == ENOENT) {
    *error = MakeParent(path);
    if (*error != 0) return nullptr;
    directory.fd = OpenBeneath(store_.root(), path, flags, 0, error);
  }
  if (*error == 0) *error = store_.handles().FidOf(directory.fd.get(), &directory.fid);
  if (*error != 0) return nullptr;
  recent_.emplace_front(path, std::move(directory));
  parents_[path] = recent_.begin();
  if (recent_.size() > kParents) {
    parents_.erase(recent_.back().first);
    recent_.pop_back();
  }
  return &recent_.front().second;
}

int StubMaker::MakeParent(const std::string& path) {
  std::string above_path;
  std::string name;
  SplitPath(path, &above_path, &name);
  int error = 0;
  const Directory* above = Parent(above_path, &error);
  if (above == nullptr) return error;
  Stub stub;
  stub.kind = StubKind::kDirectory;
  stub.mode = defaults_.dir_mode;
  stub.uid = defaults_.uid;
  stub.gid = defaults_.gid;
  stub.mtime = defaults_.mtime;
  Fid fid;
  const int dir = above->fd.get();
  error = MakeOther(stub, [&](Staged& staged) { return staged.MoveTo(dir, name); }, &fid);
  if (error == EEXIST) return 0;
  if (error == 0) Made(above->fid, name);
  return error;
}

void StubMaker::Made(const Fid& directory, const std::string& name) {
  untold_.emplace_back(directory, name);
  if (untold_.size() >= kUntold) Tell();
}

void StubMaker::Tell() {
  if (untold_.empty() || !store_.Observed()) {
    untold_.clear();
    return;
  }
  store_.Dispatch([&store = store_, untold = std::move(untold_)] {
    for (const auto& [directory, name] : untold) store.TellEntryChanged(directory, name);
  });
  untold_.clear();
}

}  // namespace lustrite
