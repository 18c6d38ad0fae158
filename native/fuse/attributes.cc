// GETATTR, SETATTR, STATFS.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>

#include "core.h"

namespace lustrite::fuse {

namespace {

void ReplyAttributes(Node& node, int fd, Request& request) {
  fuse_attr_out out = {};
  bool stable = false;
  int error = Attributes(node, fd, &out.attr, &stable);
  if (error != 0) {
    request.ReplyError(error);
    return;
  }
  out.attr_valid = AttributeSeconds(node, stable);
  request.Reply(out);
}

int ChangeOwner(Node& node, int fd, const fuse_setattr_in& in) {
  const uid_t uid = in.valid & FATTR_UID ? in.uid : static_cast<uid_t>(-1);
  const gid_t gid = in.valid & FATTR_GID ? in.gid : static_cast<gid_t>(-1);
  // The backing file system strips suid and sgid as it does for everybody.
  if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0) return errno;
  node.inode->MetadataChanged();
  return 0;
}

int ChangeTimes(Node& node, const fuse_setattr_in& in) {
  auto time = [&in](uint32_t set, uint32_t now, uint64_t seconds, uint32_t nanoseconds) {
    struct timespec value = {0, UTIME_OMIT};
    if (in.valid & now) {
      value.tv_nsec = UTIME_NOW;
    } else if (in.valid & set) {
      value.tv_sec = static_cast<time_t>(seconds);
      value.tv_nsec = nanoseconds;
    }
    return value;
  };
  const struct timespec times[2] = {
      time(FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
      time(FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec),
  };
  return node.inode->SetTimes(times);
}

// Whether the kernel wants setuid and setgid gone. Before a write, fallocate or copy_file_range
// that it does not leave to us, and at a chown that names nobody, it asks for nothing else, and
// fuse_setattr leaves nothing of that in `valid` (FUSE_HANDLE_KILLPRIV_V2).
bool StripsPrivileges(uint32_t valid) {
  constexpr uint32_t kSaysHow = FATTR_FH | FATTR_LOCKOWNER;
  return valid & FATTR_KILL_SUIDGID || !(valid & ~kSaysHow);
}

// All but the size, which comes first: what follows must not be undone by it (suid, mtime).
void SetOthers(const NodePtr& node, const RequestPtr& request) {
  const auto& in = request->in<fuse_setattr_in>();
  int error = 0;
  UniqueFd fd = node->inode->OpenBacking(O_PATH, &error);
  if (error == 0 && StripsPrivileges(in.valid)) StripPrivileges(*node->inode, fd.get());
  if (error == 0 && in.valid & (FATTR_UID | FATTR_GID)) error = ChangeOwner(*node, fd.get(), in);
  if (error == 0 && in.valid & FATTR_MODE) {
    error = Chmod(fd.get(), in.mode);
    if (error == 0) node->inode->MetadataChanged();
  }
  if (error == 0 && in.valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)) {
    error = ChangeTimes(*node, in);
  }
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  ReplyAttributes(*node, fd.get(), *request);
}

}  // namespace

void OnGetattr(Core& core, const RequestPtr& request) {
  NodePtr node = NodeOf(core, *request);
  if (!node) {
    request->ReplyError(ESTALE);
    return;
  }
  const auto& in = request->in<fuse_getattr_in>();
  if (in.getattr_flags & FUSE_GETATTR_FH) {
    auto handle = core.files.Find(in.fh);
    if (handle && handle->node == node && handle->data.ok()) {
      return ReplyAttributes(*node, handle->data.get(), *request);
    }
  }
  if (auto directory = core.directories.Peek(*node)) {
    return ReplyAttributes(*node, directory->get(), *request);
  }
  int error = 0;
  UniqueFd fd = node->inode->OpenBacking(O_PATH, &error);
  if (!fd.ok()) {
    request->ReplyError(error);
    return;
  }
  ReplyAttributes(*node, fd.get(), *request);
}

void OnSetattr(Core& core, const RequestPtr& request) {
  NodePtr node = NodeOf(core, *request);
  if (!node) {
    request->ReplyError(ESTALE);
    return;
  }
  request->Shrink();
  core.pool.Post([&core, request, node] {
    const auto& in = request->in<fuse_setattr_in>();
    if (!(in.valid & FATTR_SIZE)) return SetOthers(node, request);
    core.gate->Run(
        request, node, Gate::kModify,
        [node](const RequestPtr& asking, Wake wake) {
          const auto size = static_cast<off_t>(asking->in<fuse_setattr_in>().size);
          return node->inode->Truncate(size, asking->pid(), std::move(wake));
        },
        [node](const RequestPtr& admitted) { SetOthers(node, admitted); });
  });
}

void OnStatfs(Core& core, const RequestPtr& request) {
  struct statvfs fs;
  if (fstatvfs(core.store->root(), &fs) != 0) {
    request->ReplyError(errno);
    return;
  }
  fuse_statfs_out out = {};
  out.st.blocks = fs.f_blocks;
  out.st.bfree = fs.f_bfree;
  out.st.bavail = fs.f_bavail;
  out.st.files = fs.f_files;
  out.st.ffree = fs.f_ffree;
  out.st.bsize = static_cast<uint32_t>(fs.f_bsize);
  out.st.frsize = static_cast<uint32_t>(fs.f_frsize);
  out.st.namelen = static_cast<uint32_t>(fs.f_namemax);
  request->Reply(out);
}

}  // namespace lustrite::fuse
