#include "stubs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "beneath.h"
#include "crash_points.h"

namespace lustrite {
namespace {

constexpr size_t kParents = 512;

std::string StagingName() {
  static std::atomic<uint64_t> next{0};
  return "stub-" + std::to_string(next++);
}

// A name in staging/ that is gone again unless it was moved away.
class Staged {
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
    CRASH_POINT("stub.built");
    if (renameat2(staging_, name_.c_str(), parent, name.c_str(), RENAME_NOREPLACE) != 0) {
      return errno;
    }
    moved_ = true;
    CRASH_POINT("stub.linked");
    return 0;
  }

 private:
  const int staging_;
  const bool directory_;
  const std::string name_;
  bool moved_ = false;
};

int Dress(const Stub& stub, int fd) {
  Record record;
  record.flags = HS_EXISTS | HS_ARCHIVED | HS_RELEASED;
  record.archive_id = 1;
  record.copy = stub.copy;
  record.statement = Statement{stub.size, stub.mtime, false, 0};
  if (fchown(fd, stub.uid, stub.gid) != 0) return errno;
  if (fchmod(fd, stub.mode & 07777) != 0) return errno;
  const int error = WriteRecord(fd, record);
  if (error != 0) return error;
  if (stub.size > 0 && ftruncate(fd, static_cast<off_t>(stub.size)) != 0) return errno;
  const struct timespec times[2] = {stub.mtime, stub.mtime};
  return futimens(fd, times) == 0 ? 0 : errno;
}

}  // namespace

StubResult StubMaker::Make(const Stub& stub) {
  StubResult result;
  result.error = CheckPath(stub.path);
  if (result.error == 0 && stub.kind == StubKind::kFile && !stub.copy) result.error = EINVAL;
  if (result.error == 0 && stub.size > INT64_MAX) result.error = EFBIG;
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
  result.error = stub.kind == StubKind::kFile ? MakeFile(stub, dir, name, &result.fid)
                                              : MakeOther(stub, dir, name, &result.fid);
  if (result.error == EEXIST) return Exists(dir, name);
  if (result.error != 0) return result;
  result.kind = StubResult::kCreated;
  if (store_.Observed()) store_.TellEntryChanged(parent->fid, name);
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
  const UniqueFd fd(openat(parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.ok()) {
    return errno == EOPNOTSUPP || errno == EISDIR ? MakeFileInStaging(stub, parent, name, fid)
                                                  : errno;
  }
  int error = Dress(stub, fd.get());
  if (error == 0) error = store_.handles().FidOf(fd.get(), fid);
  if (error != 0) return error;
  CRASH_POINT("stub.built");
  if (linkat(fd.get(), "", parent, name.c_str(), AT_EMPTY_PATH) != 0) return errno;
  CRASH_POINT("stub.linked");
  return 0;
}

int StubMaker::MakeFileInStaging(const Stub& stub, int parent, const std::string& name, Fid* fid) {
  Staged staged(store_.staging(), false);
  const UniqueFd fd(openat(store_.staging(), staged.name(),
                           O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.ok()) return errno;
  int error = Dress(stub, fd.get());
  if (error == 0) error = store_.handles().FidOf(fd.get(), fid);
  return error != 0 ? error : staged.MoveTo(parent, name);
}

int StubMaker::MakeOther(const Stub& stub, int parent, const std::string& name, Fid* fid) {
  const bool directory = stub.kind == StubKind::kDirectory;
  Staged staged(store_.staging(), directory);
  const int made = directory ? mkdirat(store_.staging(), staged.name(), 0700)
                             : symlinkat(stub.target.c_str(), store_.staging(), staged.name());
  if (made != 0) return errno;
  const UniqueFd fd(openat(store_.staging(), staged.name(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.ok()) return errno;
  if (fchownat(fd.get(), "", stub.uid, stub.gid, AT_EMPTY_PATH) != 0) return errno;
  if (directory && chmod(ProcPath(fd.get()).c_str(), stub.mode & 07777) != 0) return errno;
  if (stub.copy) {
    Record record;
    record.archive_id = 1;
    record.copy = stub.copy;
    const int error = WriteRecord(fd.get(), record);
    // File systems without attributes on symbolic links: the link itself is all that is needed.
    if (error != 0 && (directory || (error != EPERM && error != ENOTSUP))) return error;
  }
  const struct timespec times[2] = {stub.mtime, stub.mtime};
  if (utimensat(fd.get(), "", times, AT_EMPTY_PATH) != 0) return errno;
  const int error = store_.handles().FidOf(fd.get(), fid);
  return error != 0 ? error : staged.MoveTo(parent, name);
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
  error = MakeOther(stub, above->fd.get(), name, &fid);
  if (error == EEXIST) return 0;
  if (error == 0 && store_.Observed()) store_.TellEntryChanged(above->fid, name);
  return error;
}

int RemoveEntry(StoreImpl& store, const std::string& path, const Fid& fid) {
  int error = CheckPath(path);
  if (error != 0) return error;
  std::string parent_path;
  std::string name;
  SplitPath(path, &parent_path, &name);
  const UniqueFd parent = OpenBeneath(store.root(), parent_path, O_PATH | O_DIRECTORY, 0, &error);
  if (error != 0) return error;
  Fid parent_fid;
  error = store.handles().FidOf(parent.get(), &parent_fid);
  if (error != 0) return error;
  const UniqueFd fd(openat(parent.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.ok()) return errno;
  Fid now;
  error = store.handles().FidOf(fd.get(), &now);
  if (error != 0) return error;
  if (!(now == fid)) return ESTALE;
  const std::shared_ptr<InodeImpl> inode = store.GetImpl(fd.get(), &error);
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return errno;
  if (unlinkat(parent.get(), name.c_str(), S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) != 0) {
    return errno;
  }
  if (inode != nullptr && !S_ISDIR(st.st_mode)) inode->MetadataChanged();
  store.TellEntryChanged(parent_fid, name);
  if (inode != nullptr) store.TellInodeChanged(inode, false, [] {});
  return 0;
}

int SetAttributes(StoreImpl& store, const std::string& path, const Attributes& attributes) {
  int error = 0;
  const UniqueFd fd = OpenBeneath(store.root(), path, O_PATH, 0, &error);
  if (error != 0) return error;
  const std::shared_ptr<InodeImpl> inode = store.GetImpl(fd.get(), &error);
  if (inode == nullptr) return error;
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return errno;
  if ((attributes.uid || attributes.gid) &&
      fchownat(fd.get(), "", attributes.uid.value_or(static_cast<uid_t>(-1)),
               attributes.gid.value_or(static_cast<gid_t>(-1)), AT_EMPTY_PATH) != 0) {
    return errno;
  }
  // After the owner, whose change takes the setuid bits away.
  if (attributes.mode && !S_ISLNK(st.st_mode) &&
      chmod(ProcPath(fd.get()).c_str(), *attributes.mode & 07777) != 0) {
    return errno;
  }
  inode->MetadataChanged();
  if (attributes.mtime) {
    const struct timespec times[2] = {{0, UTIME_OMIT}, *attributes.mtime};
    error = inode->SetTimes(times);
  }
  store.TellInodeChanged(inode, false, [] {});
  return error;
}

}  // namespace lustrite
