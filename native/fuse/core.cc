#include "core.h"

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cerrno>

namespace lustrite::fuse {

uint64_t Questions::Keep(const RequestPtr& request) {
  request->Shrink();
  std::lock_guard lock(mutex_);
  kept_.emplace(++last_, request);
  return last_;
}

RequestPtr Questions::Take(uint64_t id) {
  std::lock_guard lock(mutex_);
  auto at = kept_.find(id);
  if (at == kept_.end()) return nullptr;
  RequestPtr request = std::move(at->second);
  kept_.erase(at);
  return request;
}

RequestPtr Questions::TakeByUnique(uint64_t unique) {
  std::lock_guard lock(mutex_);
  for (auto at = kept_.begin(); at != kept_.end(); ++at) {
    if (at->second->unique() != unique) continue;
    RequestPtr request = std::move(at->second);
    kept_.erase(at);
    return request;
  }
  return nullptr;
}

std::vector<RequestPtr> Questions::TakeAll() {
  std::lock_guard lock(mutex_);
  std::vector<RequestPtr> all;
  for (auto& [id, request] : kept_) all.push_back(std::move(request));
  kept_.clear();
  return all;
}

size_t Questions::size() {
  std::lock_guard lock(mutex_);
  return kept_.size();
}

NodePtr NodeOf(Core& core, const Request& request) { return core.nodes.Find(request.nodeid()); }

namespace {

// new_encode_dev of the kernel.
uint32_t EncodeDevice(dev_t device) {
  const uint32_t high = major(device), low = minor(device);
  return (low & 0xff) | (high << 8) | ((low & ~0xffu) << 12);
}

}  // namespace

int Attributes(Node& node, int fd, struct fuse_attr* out, bool* stable) {
  struct stat st;
  if (fstat(fd, &st) != 0) return errno;
  *stable = true;
  node.inode->Show(&st, stable);
  *out = {};
  out->ino = st.st_ino;
  out->size = static_cast<uint64_t>(st.st_size);
  out->blocks = static_cast<uint64_t>(st.st_blocks);
  out->atime = static_cast<uint64_t>(st.st_atim.tv_sec);
  out->mtime = static_cast<uint64_t>(st.st_mtim.tv_sec);
  out->ctime = static_cast<uint64_t>(st.st_ctim.tv_sec);
  out->atimensec = static_cast<uint32_t>(st.st_atim.tv_nsec);
  out->mtimensec = static_cast<uint32_t>(st.st_mtim.tv_nsec);
  out->ctimensec = static_cast<uint32_t>(st.st_ctim.tv_nsec);
  out->mode = st.st_mode;
  out->nlink = static_cast<uint32_t>(st.st_nlink);
  out->uid = st.st_uid;
  out->gid = st.st_gid;
  out->rdev = EncodeDevice(st.st_rdev);
  out->blksize = static_cast<uint32_t>(st.st_blksize);
  return 0;
}

uint64_t AttributeSeconds(const Node& node, bool stable) {
  if (!stable || node.writers > 0) return 0;
  return node.written ? 1 : kLongSeconds;
}

int FillEntry(Core& core, int fd, uint64_t epoch, fuse_entry_out* out, NodePtr* node_out) {
  int error = 0;
  std::shared_ptr<Inode> inode = core.store->Get(fd, &error);
  if (!inode) return error;
  NodePtr node = core.nodes.LookUp(inode);
  bool stable = false;
  *out = {};
  error = Attributes(*node, fd, &out->attr, &stable);
  if (error != 0) {
    core.nodes.Forget(node->id, 1);
    return error;
  }
  out->nodeid = node->id;
  out->attr_valid = AttributeSeconds(*node, stable);
  out->entry_valid = epoch == core.notifier.entry_epoch() ? kLongSeconds : 0;
  if (node_out) *node_out = std::move(node);
  return 0;
}

void ReplyEntry(Core& core, const RequestPtr& request, const fuse_entry_out& entry) {
  if (request->Reply(entry) != 0) core.nodes.Forget(entry.nodeid, 1);
}

UniqueFd OpenName(int directory, const char* name, int* error) {
  UniqueFd fd(openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  *error = fd.ok() ? 0 : errno;
  return fd;
}

std::shared_ptr<Inode> InodeAt(Core& core, int directory, const char* name) {
  int error = 0;
  UniqueFd fd = OpenName(directory, name, &error);
  return fd.ok() ? core.store->Get(fd.get(), &error) : nullptr;
}

std::string ProcPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

int Chmod(int fd, mode_t mode) {
  return chmod(ProcPath(fd).c_str(), mode & 07777) == 0 ? 0 : errno;
}

void StripPrivileges(Inode& inode, int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return;
  mode_t mode = st.st_mode & ~static_cast<mode_t>(S_ISUID);
  if (mode & S_IXGRP) mode &= ~static_cast<mode_t>(S_ISGID);
  bool changed = false;
  if (mode != st.st_mode) changed = Chmod(fd, mode) == 0;
  if (removexattr(ProcPath(fd).c_str(), "security.capability") == 0) changed = true;
  if (changed) inode.MetadataChanged();
}

AsCaller::AsCaller(const fuse_in_header& caller, uint32_t mask) {
  umask(mask & 0777);
  if (caller.gid != 0) setfsgid(caller.gid);
  if (caller.uid != 0) setfsuid(caller.uid);
}

AsCaller::~AsCaller() {
  setfsuid(0);
  setfsgid(0);
  umask(0);
}

}  // namespace lustrite::fuse
