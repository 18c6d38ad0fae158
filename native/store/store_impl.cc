#include "store_impl.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

namespace lustrite {
namespace {

struct JournalSlot {
  uint64_t ino;
  uint32_t generation;
  uint32_t used;
};
static_assert(sizeof(JournalSlot) == 16);

std::string FileSystemName(int fd) {
  struct statfs fs = {};
  if (fstatfs(fd, &fs) != 0) return "unknown";
  switch (static_cast<unsigned long>(fs.f_type)) {
    case EXT4_SUPER_MAGIC:
      return "ext4";
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case TMPFS_MAGIC:
      return "tmpfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    default: {
      char name[32];
      snprintf(name, sizeof name, "0x%lx", static_cast<unsigned long>(fs.f_type));
      return name;
    }
  }
}

// Whether there is one journal for the whole file system, in the order of the changes, so that any
// fsync is a barrier. btrfs writes what an fsync is about into a log of its own, ahead of the rest;
// ext2, and ext4 without a journal, write no more than that.
bool JournalKeepsOrder(const std::string& file_system, int fd) {
  if (file_system == "xfs") return true;
  struct stat st = {};
  if (file_system != "ext4" || fstat(fd, &st) != 0) return false;
  const std::string device =
      "/sys/dev/block/" + std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev));
  char target[PATH_MAX];
  const ssize_t length = readlink(device.c_str(), target, sizeof target);
  if (length <= 0) return false;
  const std::string link(target, static_cast<size_t>(length));
  const std::string task = "/sys/fs/ext4/" + link.substr(link.rfind('/') + 1) + "/journal_task";
  const UniqueFd file(open(task.c_str(), O_RDONLY | O_CLOEXEC));
  char pid = 0;
  return file.ok() && read(file.get(), &pid, 1) == 1 && pid >= '1' && pid <= '9';
}

uint64_t BootId() {
  const UniqueFd fd(open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  char text[64] = {};
  const ssize_t got = fd.ok() ? read(fd.get(), text, sizeof text) : 0;
  uint64_t hash = 0xcbf29ce484222325;
  for (ssize_t i = 0; i < got; i++) hash = (hash ^ static_cast<uint8_t>(text[i])) * 0x100000001b3;
  if (got > 0) return hash;
  // Nobody knows which boot this is: then no two are the same.
  struct timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

constexpr char kIdName[] = "trusted.lustrite.store";

bool IsFull(int error) { return error == ENOSPC || error == EDQUOT; }

// Whether a write after a look always moves the times (multigrain timestamps: Linux 6.13, by file
// system). Measured: ext2 and ext3 have the magic number of ext4 and the kernel's tick.
bool TimesTellWrites(int fd) {
  for (int tries = 0; tries < 16; tries++) {
    struct stat before = {};
    struct stat after = {};
    if (fstat(fd, &before) != 0) return false;
    // Longer each time, which takes no block: a disk that is full now need not stay so.
    if (pwrite(fd, "x", 1, 0) != 1 && ftruncate(fd, tries + 1) != 0) return false;
    if (fstat(fd, &after) != 0 || SameTime(before.st_mtim, after.st_mtim)) return false;
  }
  return true;
}

// Inodes of 128 bytes have no room for more than the second.
bool TimesHaveNanoseconds(int fd) {
  const struct timespec times[2] = {{1, 1}, {1, 1}};
  struct stat st = {};
  return futimens(fd, times) == 0 && fstat(fd, &st) == 0 && SameTime(st.st_mtim, times[1]);
}

void EmptyDirectory(int dir) {
  const int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = copy < 0 ? nullptr : fdopendir(copy);
  if (stream == nullptr) return;
  while (const struct dirent* entry = readdir(stream)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (unlinkat(dir, entry->d_name, 0) != 0) unlinkat(dir, entry->d_name, AT_REMOVEDIR);
  }
  closedir(stream);
}

}  // namespace

std::shared_ptr<StoreImpl> StoreImpl::Open(const std::string& path, RestoreNeeded restore_needed,
                                           FileGone file_gone, std::function<void()> changed,
                                           int* error, std::string* why) {
  auto store = std::make_shared<StoreImpl>();
  store->restore_needed_ = std::move(restore_needed);
  store->file_gone_ = std::move(file_gone);
  store->changes_.Listen(std::move(changed));
  *error = store->Prepare(path, why);
  if (*error == 0) *error = store->Recover();
  if (*error == 0) return store;
  store->Close();
  return nullptr;
}

StoreImpl::~StoreImpl() = default;

int StoreImpl::Prepare(const std::string& path, std::string* why) {
  dir_.reset(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir_.ok()) return errno;
  if (mkdirat(dir_.get(), "ns", 0755) != 0 && errno != EEXIST) return errno;
  if (mkdirat(dir_.get(), "staging", 0700) != 0 && errno != EEXIST) return errno;
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  root_.reset(openat(dir_.get(), "ns", flags));
  if (!root_.ok()) return errno;
  staging_.reset(openat(dir_.get(), "staging", flags));
  if (!staging_.ok()) return errno;
  journal_.reset(openat(dir_.get(), "restores", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!journal_.ok()) return errno;
  const int opened = unlinked_.Open(dir_.get());
  if (opened != 0) return opened;
  ever_renamed_ = faccessat(dir_.get(), "renamed", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  EmptyDirectory(staging_.get());
  boot_ = BootId();
  const int error = Probe(why);
  return error != 0 ? error : Identify();
}

// Of a disk without room for a try: whether it was good enough for a store before.
bool StoreImpl::TrustAsBefore() {
  uint64_t id = 0;
  if (fgetxattr(root_.get(), kIdName, &id, sizeof id) != static_cast<ssize_t>(sizeof id)) {
    errno = ENOSPC;
    return false;
  }
  probe_.privileged = probe_.punch_hole = probe_.leases = true;
  return true;
}

// Kept where the records are: a copy of the namespace with its attributes is whole.
int StoreImpl::Identify() {
  const ssize_t got = fgetxattr(root_.get(), kIdName, &id_, sizeof id_);
  if (got == static_cast<ssize_t>(sizeof id_) && id_ != 0) return 0;
  if (got < 0 && errno != ENODATA) return errno;
  do {
    if (getrandom(&id_, sizeof id_, 0) != static_cast<ssize_t>(sizeof id_)) return EIO;
  } while (id_ == 0);
  if (fsetxattr(root_.get(), kIdName, &id_, sizeof id_, 0) != 0) return errno;
  // Before the first record that needs it.
  return fsync(root_.get()) == 0 ? 0 : errno;
}

int StoreImpl::Barrier() {
  if (ordered_) return 0;
  return syncfs(root_.get()) == 0 ? 0 : errno;
}

int StoreImpl::Probe(std::string* why) {
  probe_.file_system = FileSystemName(root_.get());
  ordered_ = JournalKeepsOrder(probe_.file_system, root_.get());
  leases_ = std::make_unique<Leases>();
  syncer_ = std::make_unique<Syncer>(root_.get());
  const auto lacks = [&](const std::string& what) {
    *why = "a store cannot live on this file system (" + probe_.file_system + "): " + what;
    return ENOTSUP;
  };
  std::string reason;
  const int error = handles_.Learn(root_.get(), &reason);
  if (error != 0) return error == ENOTSUP ? lacks(reason) : error;
  probe_.handles = true;
  const int learnt = handles_.FidOf(root_.get(), &root_fid_);
  if (learnt != 0) return learnt;

  const char* name = "probe";
  unlinkat(staging_.get(), name, 0);
  UniqueFd fd(openat(staging_.get(), name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.ok()) return IsFull(errno) && TrustAsBefore() ? 0 : errno;
  unlinkat(staging_.get(), name, 0);
  struct stat before = {};
  struct stat after = {};
  const std::string sample(kRecordRoom, 'x');
  fstat(fd.get(), &before);
  if (fsetxattr(fd.get(), "trusted.lustrite", sample.data(), sample.size(), 0) != 0) {
    if (IsFull(errno) && TrustAsBefore()) return 0;
    return lacks(errno == EPERM
                     ? "trusted.* attributes take root's CAP_SYS_ADMIN"
                     : "it keeps no trusted.* attributes (" + std::string(strerror(errno)) + ")");
  }
  probe_.privileged = true;
  if (!TimesHaveNanoseconds(fd.get())) return lacks("its file times have no nanoseconds");
  fine_times_ = TimesTellWrites(fd.get());
  fstat(fd.get(), &after);
  probe_.xattr_room = after.st_blocks == before.st_blocks ? kRecordRoom : 0;
  probe_.punch_hole = ftruncate(fd.get(), 8192) == 0 &&
                      fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
  int lease_error = 0;
  probe_.leases = leases_->Take(std::move(fd), F_WRLCK, &lease_error) != nullptr;
  if (!probe_.leases) {
    return lacks("it grants no leases (" + std::string(strerror(lease_error)) + ")");
  }
  return 0;
}

int StoreImpl::Recover() {
  struct stat st = {};
  if (fstat(journal_.get(), &st) != 0) return errno;
  for (off_t at = 0; at + static_cast<off_t>(sizeof(JournalSlot)) <= st.st_size;
       at += sizeof(JournalSlot)) {
    JournalSlot slot = {};
    if (pread(journal_.get(), &slot, sizeof slot, at) != sizeof slot) return errno;
    if (slot.used == 0) continue;
    int error = 0;
    const std::shared_ptr<InodeImpl> inode = GetImpl(Fid{slot.ino, slot.generation}, &error);
    // What cannot be punched stays RELEASED all the same: it costs space, and the next restore
    // begins with a punch.
    if (inode != nullptr) inode->RecoverRestore();
  }
  // What stays punches only what is released all the same.
  return ftruncate(journal_.get(), 0) == 0 || IsFull(errno) ? 0 : errno;
}

int StoreImpl::JournalRestore(const Fid& fid) {
  const std::lock_guard<std::mutex> lock(journal_mutex_);
  size_t at = 0;
  while (at < journal_slots_.size() && journal_slots_[at].ino != 0) at++;
  if (at == journal_slots_.size()) journal_slots_.emplace_back();
  const JournalSlot slot = {fid.ino, fid.generation, 1};
  if (pwrite(journal_.get(), &slot, sizeof slot, static_cast<off_t>(at * sizeof slot)) !=
      static_cast<ssize_t>(sizeof slot)) {
    return errno != 0 ? errno : EIO;
  }
  journal_slots_[at] = fid;
  return 0;
}

void StoreImpl::UnjournalRestore(const Fid& fid) {
  const std::lock_guard<std::mutex> lock(journal_mutex_);
  for (size_t at = 0; at < journal_slots_.size(); at++) {
    if (!(journal_slots_[at] == fid)) continue;
    const JournalSlot slot = {};
    // If this fails, the next start punches nothing that is not RELEASED.
    [[maybe_unused]] const ssize_t written =
        pwrite(journal_.get(), &slot, sizeof slot, static_cast<off_t>(at * sizeof slot));
    journal_slots_[at] = Fid();
  }
}

void StoreImpl::Close() {
  closed_ = true;
  SetObserver(nullptr);
  FailWaiters(ENOTCONN);
  pool_.Stop();
  if (syncer_) syncer_->Stop();
  dispatcher_.Stop();
  for (const std::shared_ptr<InodeImpl>& inode : All()) inode->Abandon();
}

std::shared_ptr<InodeImpl> StoreImpl::Find(const Fid& fid) {
  const std::lock_guard<std::mutex> lock(table_mutex_);
  const auto found = table_.find(fid);
  return found == table_.end() ? nullptr : found->second.lock();
}

std::shared_ptr<InodeImpl> StoreImpl::GetImpl(int fd, int* error) {
  if (closed_) {
    *error = ENOTCONN;
    return nullptr;
  }
  Fid fid;
  *error = handles_.FidOf(fd, &fid);
  if (*error != 0) return nullptr;
  std::shared_ptr<InodeImpl> inode = Find(fid);
  if (inode != nullptr) return inode;
  // Made outside the table's lock: the loser of a race is destroyed, which takes that lock.
  auto made = std::make_shared<InodeImpl>(shared_from_this(), fid);
  {
    const std::lock_guard<std::mutex> lock(table_mutex_);
    std::weak_ptr<InodeImpl>& slot = table_[fid];
    inode = slot.lock();
    if (inode == nullptr) {
      slot = made;
      inode = made;
    }
  }
  inode->Load(fd);
  return inode;
}

std::shared_ptr<InodeImpl> StoreImpl::GetImpl(const Fid& fid, int* error) {
  *error = closed_ ? ENOTCONN : 0;
  if (*error != 0) return nullptr;
  std::shared_ptr<InodeImpl> inode = Find(fid);
  if (inode != nullptr) return inode;
  const UniqueFd fd = handles_.Open(fid, O_PATH, error);
  if (*error == ESTALE) *error = ENOENT;
  if (*error != 0) return nullptr;
  inode = GetImpl(fd.get(), error);
  if (inode == nullptr || inode->fid() == fid) return inode;
  // Handles are not exact: ext4 opens the inode whatever its generation where the handle's is 0,
  // and looks at 32 bits of its number.
  *error = ENOENT;
  return nullptr;
}

void StoreImpl::Forget(const Fid& fid) {
  const std::lock_guard<std::mutex> lock(table_mutex_);
  const auto found = table_.find(fid);
  if (found != table_.end() && found->second.expired()) table_.erase(found);
}

std::vector<std::shared_ptr<InodeImpl>> StoreImpl::All() {
  std::vector<std::shared_ptr<InodeImpl>> all;
  const std::lock_guard<std::mutex> lock(table_mutex_);
  for (const auto& [fid, weak] : table_) {
    if (std::shared_ptr<InodeImpl> inode = weak.lock()) all.push_back(std::move(inode));
  }
  return all;
}

void StoreImpl::Opened(const Fid& fid, std::weak_ptr<InodeImpl> inode) {
  const std::lock_guard<std::mutex> lock(open_mutex_);
  open_[fid] = std::move(inode);
}

void StoreImpl::Closed(const Fid& fid) {
  const std::lock_guard<std::mutex> lock(open_mutex_);
  open_.erase(fid);
}

std::vector<std::shared_ptr<InodeImpl>> StoreImpl::Open() {
  std::vector<std::shared_ptr<InodeImpl>> open;
  const std::lock_guard<std::mutex> lock(open_mutex_);
  for (const auto& [fid, weak] : open_) {
    if (std::shared_ptr<InodeImpl> inode = weak.lock()) open.push_back(std::move(inode));
  }
  return open;
}

int StoreImpl::NoteRename() {
  renames_++;
  if (ever_renamed_) return 0;
  const std::lock_guard<std::mutex> lock(rename_mutex_);
  if (ever_renamed_) return 0;
  const UniqueFd fd(
      openat(dir_.get(), "renamed", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.ok() || fsync(fd.get()) != 0 || fsync(dir_.get()) != 0) return errno;
  ever_renamed_ = true;
  return 0;
}

void StoreImpl::SetObserver(InodeObserver* observer) {
  const std::lock_guard<std::mutex> lock(observer_mutex_);
  observer_ = observer;
}

void StoreImpl::TellInodeChanged(std::shared_ptr<Inode> inode, bool data,
                                 std::optional<uint64_t> size,
                                 std::function<void(int error)> then) {
  Dispatch([this, inode = std::move(inode), data, size, then = std::move(then)] {
    {
      const std::lock_guard<std::mutex> lock(observer_mutex_);
      if (observer_ != nullptr) {
        observer_->InodeChanged(inode, data, size, then);
        return;
      }
    }
    then(0);
  });
}

void StoreImpl::TellEntryChanged(const Fid& directory, std::string name) {
  Dispatch([this, directory, name = std::move(name)] {
    const std::lock_guard<std::mutex> lock(observer_mutex_);
    if (observer_ != nullptr) observer_->EntryChanged(directory, name, [] {});
  });
}

bool StoreImpl::Observed() {
  const std::lock_guard<std::mutex> lock(observer_mutex_);
  return observer_ != nullptr;
}

void StoreImpl::FailWaiters(int error) {
  for (const std::shared_ptr<InodeImpl>& inode : All()) inode->FailWaiters(error);
}

void StoreImpl::ShowAction(const Fid& fid, const struct hsm_current_action* action) {
  const std::lock_guard<std::mutex> lock(actions_mutex_);
  if (action == nullptr) {
    actions_.erase(fid);
  } else {
    actions_[fid] = *action;
  }
}

struct hsm_current_action StoreImpl::ShownAction(const Fid& fid) {
  const std::lock_guard<std::mutex> lock(actions_mutex_);
  const auto found = actions_.find(fid);
  if (found != actions_.end()) return found->second;
  struct hsm_current_action none = {};
  none.hca_action = HUA_NONE;
  return none;
}

std::map<std::string, double> StoreImpl::Stats() {
  std::map<std::string, double> stats;
  const std::vector<std::shared_ptr<InodeImpl>> all = All();
  int handles = 0, waiting = 0, suspended = 0, restoring = 0, archiving = 0;
  for (const std::shared_ptr<InodeImpl>& inode : all) {
    const InodeImpl::Gauges gauges = inode->Count();
    handles += gauges.handles;
    waiting += gauges.waiting;
    suspended += gauges.suspended ? 1 : 0;
    restoring += gauges.restoring ? 1 : 0;
    archiving += gauges.archiving ? 1 : 0;
  }
  stats["inodes"] = static_cast<double>(all.size());
  stats["handles"] = handles;
  stats["waiting"] = waiting;
  stats["suspended"] = suspended;
  stats["restoring"] = restoring;
  stats["archiving"] = archiving;
  stats["leases"] = static_cast<double>(leases_->Count());
  stats["queued"] = static_cast<double>(pool_.Waiting());
  return stats;
}

}  // namespace lustrite
