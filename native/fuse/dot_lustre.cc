// .lustre/fid/FID: every inode of the namespace by its FID, for whoever may look anywhere
// (lustre-hsm 8). The two directories are nowhere but here: not listed, nothing in them is listed,
// nothing can be changed in them. What is found is the inode itself, under the node id that its
// names have.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "core.h"

namespace lustrite::fuse {

namespace {

// Node ids that no inode gets.
constexpr uint64_t kDotLustre = UINT64_MAX - 1;
constexpr uint64_t kByFid = UINT64_MAX;

bool IsOurs(uint64_t id) { return id >= kDotLustre; }

struct fuse_attr VirtualAttributes(Core& core, uint64_t id) {
  struct stat st = {};
  fstat(core.store->root(), &st);
  struct fuse_attr attr = {};
  attr.ino = id;
  // As in Lustre: without CAP_DAC_READ_SEARCH the kernel refuses to look anything up in `fid`,
  // also to an owner who has given it up.
  attr.mode = S_IFDIR | (id == kByFid ? 0 : 0555);
  attr.nlink = 2;
  attr.blksize = static_cast<uint32_t>(st.st_blksize);
  attr.atime = attr.mtime = attr.ctime = static_cast<uint64_t>(st.st_ctim.tv_sec);
  return attr;
}

void ReplyVirtual(Core& core, Request& request, uint64_t id) {
  fuse_entry_out entry = {};
  entry.nodeid = id;
  entry.entry_valid = entry.attr_valid = kLongSeconds;
  entry.attr = VirtualAttributes(core, id);
  request.Reply(entry);
}

// An O_PATH fd of an inode that has a name. ENOENT.
UniqueFd OpenFid(Core& core, const Fid& fid, std::shared_ptr<Inode>* inode, int* error) {
  *inode = core.store->Get(fid, error);
  UniqueFd fd;
  if (*inode) fd = (*inode)->OpenBacking(O_PATH | O_NOFOLLOW, error);
  struct stat st = {};
  if (fd.ok() && fstat(fd.get(), &st) != 0) *error = errno;
  if (fd.ok() && *error == 0 && st.st_nlink == 0) *error = ENOENT;
  if (*error == ESTALE || *error == EINVAL) *error = ENOENT;
  return fd;
}

void LookUpFid(Core& core, const RequestPtr& request) {
  const char* name = request->Name(0);
  struct lu_fid lustre = {};
  if (!name || !ScanFid(name, &lustre)) {
    request->ReplyError(EINVAL);
    return;
  }
  Fid fid;
  int error = FromLustre(lustre, &fid) ? 0 : ENOENT;
  // The kernel takes no directory twice on one path.
  if (error == 0 && fid == core.store->root_fid()) error = ELOOP;
  std::shared_ptr<Inode> inode;
  UniqueFd fd;
  if (error == 0) fd = OpenFid(core, fid, &inode, &error);
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  // A FID is good for the whole file system that the store is on: of what the kernel does not know
  // by a name of ours TypeScript has to find one. A copy in the container proves nothing: a copy of
  // the store's files has the attributes, too.
  if (core.nodes.Find(fid)) return AnswerLookup(core, request);
  if (const auto id = Question(core, request)) core.events.link_asked(*id, LinkAsked{lustre, 0});
}

void ServeVirtual(Core& core, const RequestPtr& request) {
  const uint64_t id = request->nodeid();
  switch (request->opcode()) {
    case FUSE_FORGET:
      request->NoReply();
      return;
    case FUSE_LOOKUP: {
      const char* name = request->Name(0);
      if (id == kByFid) return LookUpFid(core, request);
      if (name && strcmp(name, "fid") == 0) return ReplyVirtual(core, *request, kByFid);
      request->ReplyError(ENOENT);
      return;
    }
    case FUSE_GETATTR: {
      fuse_attr_out out = {};
      out.attr_valid = kLongSeconds;
      out.attr = VirtualAttributes(core, id);
      request->Reply(out);
      return;
    }
    case FUSE_OPENDIR:
      request->Reply(fuse_open_out{});
      return;
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
      request->Reply();
      return;
    case FUSE_GETXATTR:
      request->ReplyError(ENODATA);
      return;
    case FUSE_LISTXATTR:
      if (request->in<fuse_getxattr_in>().size == 0) {
        request->Reply(fuse_getxattr_out{});
      } else {
        request->Reply();
      }
      return;
    case FUSE_STATFS:
      return OnStatfs(core, request);
    case FUSE_IOCTL:
      request->ReplyError(ENOTTY);
      return;
    default:
      request->ReplyError(EPERM);
  }
}

bool IsReserved(uint64_t directory, const char* name) {
  return directory == FUSE_ROOT_ID && name && strcmp(name, kDotLustreName) == 0;
}

// Where the name begins in requests that make or take away one.
std::optional<size_t> BeforeName(uint32_t opcode) {
  switch (opcode) {
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_SYMLINK:
      return 0;
    case FUSE_MKDIR:
      return sizeof(fuse_mkdir_in);
    case FUSE_MKNOD:
      return sizeof(fuse_mknod_in);
    case FUSE_LINK:
      return sizeof(fuse_link_in);
    case FUSE_CREATE:
      return sizeof(fuse_create_in);
    default:
      return std::nullopt;
  }
}

bool TouchesOurs(const Request& request) {
  if (const std::optional<size_t> before = BeforeName(request.opcode())) {
    return IsReserved(request.nodeid(), request.Name(*before));
  }
  const bool first = request.opcode() == FUSE_RENAME;
  if (!first && request.opcode() != FUSE_RENAME2) return false;
  const size_t before = first ? sizeof(fuse_rename_in) : sizeof(fuse_rename2_in);
  const uint64_t to = request.in<fuse_rename_in>().newdir;
  return IsOurs(to) || IsReserved(request.nodeid(), request.Name(before)) ||
         IsReserved(to, request.Name(before, 1));
}

}  // namespace

bool ServeDotLustre(Core& core, const RequestPtr& request) {
  if (IsOurs(request->nodeid())) {
    ServeVirtual(core, request);
    return true;
  }
  if (request->opcode() == FUSE_LOOKUP) {
    if (!IsReserved(request->nodeid(), request->Name(0))) return false;
    ReplyVirtual(core, *request, kDotLustre);
    return true;
  }
  if (!TouchesOurs(*request)) return false;
  request->ReplyError(EPERM);
  return true;
}

void AnswerLookup(Core& core, const RequestPtr& request) {
  Fid fid;
  std::shared_ptr<Inode> inode;
  int error = ParseFid(request->Name(0), &fid) ? 0 : ENOENT;
  UniqueFd fd;
  if (error == 0) fd = OpenFid(core, fid, &inode, &error);
  fuse_entry_out entry = {};
  if (error == 0) error = FillEntry(core, fd.get(), core.notifier.entry_epoch(), &entry, nullptr);
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  // Asked again each time: its last name may go meanwhile.
  entry.entry_valid = 0;
  ReplyEntry(core, request, entry);
}

}  // namespace lustrite::fuse
