#include "entries.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "beneath.h"
#include "inode_impl.h"

namespace lustrite {

int NamedStill(const StoreImpl& store, int directory, const std::string& name, const Fid& fid) {
  const UniqueFd fd(openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.ok()) return errno;
  Fid now;
  const int error = store.handles().FidOf(fd.get(), &now);
  return error != 0 ? error : now == fid ? 0 : ESTALE;
}

int NamedStill(const StoreImpl& store, const std::string& path, const Fid& fid, nlink_t links) {
  int error = CheckPath(path);
  if (error != 0) return error;
  const UniqueFd fd = OpenBeneath(store.root(), path, O_PATH, 0, &error);
  Fid now;
  if (error == 0) error = store.handles().FidOf(fd.get(), &now);
  struct stat st = {};
  if (error == 0 && fstat(fd.get(), &st) != 0) error = errno;
  if (error != 0) return error;
  return now == fid && st.st_nlink == links ? 0 : ESTALE;
}

int RemoveEntry(StoreImpl& store, const std::string& path, const Fid& fid, bool only_clean) {
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
  // What is looked at must be what is taken away: the name may be given back meanwhile.
  Fid found;
  error = store.handles().FidOf(fd.get(), &found);
  if (error != 0) return error;
  if (!(found == fid)) return ESTALE;
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return errno;
  const std::shared_ptr<InodeImpl> inode = store.GetImpl(fd.get(), &error);
  const auto take = [&] {
    const auto names = store.StopNames();
    const int other = NamedStill(store, parent.get(), name, fid);
    if (other != 0) return other;
    // How many names it has now.
    if (fstat(fd.get(), &st) != 0) return errno;
    const int flags = S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0;
    return unlinkat(parent.get(), name.c_str(), flags) == 0 ? 0 : errno;
  };
  if (only_clean && S_ISREG(st.st_mode)) {
    error = inode == nullptr ? error : inode->Displace(true, take);
  } else {
    error = take();
  }
  if (error != 0) return error;
  if (inode != nullptr && !S_ISDIR(st.st_mode)) {
    inode->MetadataChanged();
    const bool last = st.st_nlink == 1;
    store.changes().Note({.kind = Change::kUnlink,
                          .fid = fid,
                          .last = last,
                          .exists = last && store.changes().on() && inode->MayHaveCopy(),
                          .parent = parent_fid,
                          .name = name});
  }
  store.TellEntryChanged(parent_fid, name);
  if (inode != nullptr) store.TellInodeChanged(inode, false, {}, [](int) {});
  return 0;
}

int SetAttributes(StoreImpl& store, const std::string& path, const Attributes& attributes) {
  int error = 0;
  const UniqueFd fd = OpenBeneath(store.root(), path, O_PATH, 0, &error);
  if (error != 0) return error;
  const std::shared_ptr<InodeImpl> inode = store.GetImpl(fd.get(), &error);
  if (inode == nullptr) return error;
  if (attributes.fid && !(inode->fid() == *attributes.fid)) return ESTALE;
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return errno;
  // First: owner and mode tell whether it was cut off, and the mode has a say in what the ACL
  // shows.
  error = SetExtended(fd.get(), attributes.extended);
  if (error != 0) return error;
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
  store.TellInodeChanged(inode, false, {}, [](int) {});
  return error;
}

}  // namespace lustrite
