// GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR: the file's own attributes pass through; what HSM
// keeps or shows there follows lustre-hsm 4.
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "../store/extended_attributes.h"
#include "core.h"

namespace lustrite::fuse {

namespace {

constexpr size_t kLargest = XATTR_SIZE_MAX;

enum class Kind {
  kOwn,      // the file's
  kSecret,   // the record, the store's id and the daemon's socket: not there
  kShown,    // a view of the record: readable by name, not listed, cannot be changed
  kFid,      // the same, for the inode's identity
  kLayout,   // what `lfs setstripe` was told: the file's own, under another name, not listed
  kIgnored,  // setting it does nothing, as in Lustre (llite: the bare name "hsm" in any namespace)
};

Kind KindOf(std::string_view name) {
  if (name.starts_with("trusted.lustrite") || name.starts_with("user.lustrite")) {
    return Kind::kSecret;
  }
  if (name == "trusted.hsm" || name == "trusted.lhsm_uuid" || name == "trusted.lhsm_url" ||
      name == "user.hsm.state" || name == "user.hsm.blob" || name == "user.hsm.etag") {
    return Kind::kShown;
  }
  if (name == LUSTRITE_XATTR_FID) return Kind::kFid;
  if (name == LUSTRITE_XATTR_LAYOUT) return Kind::kLayout;
  const size_t dot = name.find('.');
  if (dot != std::string_view::npos && name.substr(dot + 1) == "hsm") return Kind::kIgnored;
  return Kind::kOwn;
}

// What is a file's own, and may be set.
bool IsKept(Kind kind) { return kind == Kind::kOwn || kind == Kind::kLayout; }

// The name on the backing inode.
const char* BackingName(const char* name) {
  return KindOf(name) == Kind::kLayout ? kLayoutXattr : name;
}

// O_PATH fd of the inode a request is about; not ok when it was answered.
UniqueFd OpenInode(const RequestPtr& request, const NodePtr& node) {
  int error = ESTALE;
  UniqueFd fd;
  if (node) fd = node->inode->OpenBacking(O_PATH | O_NOFOLLOW, &error);
  if (!fd.ok()) request->ReplyError(error);
  return fd;
}

// A value as getxattr and listxattr answer it: its size alone when `size` is 0.
void ReplyValue(Request& request, std::string_view value, uint32_t size) {
  if (size == 0) {
    request.Reply(fuse_getxattr_out{static_cast<uint32_t>(value.size()), 0});
  } else if (value.size() > size) {
    request.ReplyError(ERANGE);
  } else {
    request.ReplyParts({{const_cast<char*>(value.data()), value.size()}});
  }
}

}  // namespace

void OnGetxattr(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_getxattr_in>();
  const char* name = request->Name(sizeof(in));
  NodePtr node = NodeOf(core, *request);
  if (!name || !node) {
    request->ReplyError(name ? ESTALE : EINVAL);
    return;
  }
  switch (KindOf(name)) {
    case Kind::kSecret:
      request->ReplyError(ENODATA);
      return;
    case Kind::kFid: {
      const struct lu_fid fid = ToLustre(node->fid);
      return ReplyValue(*request, {reinterpret_cast<const char*>(&fid), sizeof(fid)}, in.size);
    }
    case Kind::kShown:
      // What is shown is computed now, which may take the disk (is a closed file clean again?).
      request->Shrink();
      core.pool.Post([request, node] {
        const auto& in = request->in<fuse_getxattr_in>();
        std::string value;
        const int error = node->inode->ShowXattr(request->Name(sizeof(in)), &value);
        if (error != 0) {
          request->ReplyError(error);
        } else {
          ReplyValue(*request, value, in.size);
        }
      });
      return;
    case Kind::kIgnored:
    case Kind::kLayout:
    case Kind::kOwn:
      break;
  }
  UniqueFd fd = OpenInode(request, node);
  if (!fd.ok()) return;
  std::vector<char> value(std::min<size_t>(in.size, kLargest));
  const ssize_t size =
      getxattr(ProcPath(fd.get()).c_str(), BackingName(name), value.data(), value.size());
  if (size < 0) {
    request->ReplyError(errno);
  } else if (in.size == 0) {
    request->Reply(fuse_getxattr_out{static_cast<uint32_t>(size), 0});
  } else {
    request->ReplyParts({{value.data(), static_cast<size_t>(size)}});
  }
}

void OnListxattr(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_getxattr_in>();
  UniqueFd fd = OpenInode(request, NodeOf(core, *request));
  if (!fd.ok()) return;
  std::vector<char> names(XATTR_LIST_MAX);
  const ssize_t size = listxattr(ProcPath(fd.get()).c_str(), names.data(), names.size());
  if (size < 0) {
    request->ReplyError(errno);
    return;
  }
  std::string shown;
  for (const char* at = names.data(); at < names.data() + size; at += strlen(at) + 1) {
    const std::string_view name(at);
    if (KindOf(name) != Kind::kOwn) continue;
    if (name.starts_with("trusted.") && request->header().uid != 0) continue;
    shown.append(name).push_back(0);
  }
  ReplyValue(*request, shown, in.size);
}

// As the VFS has it for `user.`: not on what anybody may write because it has no data, nor on the
// directories where everybody's files are.
bool MayHaveLayout(int fd, uid_t caller) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return false;
  if (S_ISREG(st.st_mode)) return true;
  return S_ISDIR(st.st_mode) && (!(st.st_mode & S_ISVTX) || caller == 0 || caller == st.st_uid);
}

void OnSetxattr(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_setxattr_in>();
  const char* name = request->Name(sizeof(in));
  if (!name) {
    request->ReplyError(EINVAL);
    return;
  }
  const size_t before = sizeof(in) + strlen(name) + 1;
  if (request->after_size(before) < in.size) {
    request->ReplyError(EINVAL);
    return;
  }
  if (!IsKept(KindOf(name))) {
    // So that tar --xattrs -x, rsync -X and cp -a of another mount's file succeed.
    request->Reply();
    return;
  }
  if (KindOf(name) == Kind::kLayout && in.size > sizeof(struct lustrite_layout)) {
    request->ReplyError(EINVAL);
    return;
  }
  NodePtr node = NodeOf(core, *request);
  UniqueFd fd = OpenInode(request, node);
  if (!fd.ok()) return;
  if (KindOf(name) == Kind::kLayout && !MayHaveLayout(fd.get(), request->header().uid)) {
    request->ReplyError(EPERM);
    return;
  }
  if (setxattr(ProcPath(fd.get()).c_str(), BackingName(name), request->after(before), in.size,
               static_cast<int>(in.flags)) != 0) {
    request->ReplyError(errno);
    return;
  }
  if (in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) {
    struct stat st;
    if (fstat(fd.get(), &st) == 0 && st.st_mode & S_ISGID) {
      Chmod(fd.get(), st.st_mode & ~static_cast<mode_t>(S_ISGID));
    }
  }
  node->inode->MetadataChanged();
  request->Reply();
}

void OnRemovexattr(Core& core, const RequestPtr& request) {
  const char* name = request->Name(0);
  if (!name) {
    request->ReplyError(EINVAL);
    return;
  }
  if (!IsKept(KindOf(name))) {
    request->Reply();
    return;
  }
  NodePtr node = NodeOf(core, *request);
  UniqueFd fd = OpenInode(request, node);
  if (!fd.ok()) return;
  if (removexattr(ProcPath(fd.get()).c_str(), BackingName(name)) != 0) {
    request->ReplyError(errno);
    return;
  }
  node->inode->MetadataChanged();
  request->Reply();
}

}  // namespace lustrite::fuse
