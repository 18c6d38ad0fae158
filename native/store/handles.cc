#include "handles.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>

namespace lustrite {
namespace {

constexpr int kRenumberedTries = 20;

struct Buffer {
  alignas(struct file_handle) unsigned char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
  struct file_handle* get() { return reinterpret_cast<struct file_handle*>(bytes); }
  // f_handle, of which the compiler thinks that it has no room.
  unsigned char* payload() { return bytes + offsetof(struct file_handle, f_handle); }
};

int Name(int dir, const char* name, int flags, Buffer* buffer, int* mount) {
  buffer->get()->handle_bytes = MAX_HANDLE_SZ;
  return name_to_handle_at(dir, name, buffer->get(), mount, flags) == 0 ? 0 : errno;
}

struct Layout {
  int type;
  unsigned bytes;
  int ino_at;
  int ino_bytes;
  int generation_at;
};

// include/linux/exportfs.h; fs/xfs/xfs_export.c; fs/btrfs/export.h (FILEID_BTRFS_WITHOUT_PARENT);
// mm/shmem.c.
constexpr Layout kLayouts[] = {
    {0x01, 8, 0, 4, 4},    // FILEID_INO32_GEN: ext4, f2fs, xfs with 32-bit inodes
    {0x81, 12, 0, 8, 8},   // xfs
    {0x4d, 20, 0, 8, 16},  // btrfs
    {0x01, 12, 4, 8, 0},   // tmpfs
};

}  // namespace

int Handles::Learn(int root, std::string* why) {
  Buffer buffer;
  int error = Name(root, "", AT_EMPTY_PATH, &buffer, &mount_);
  if (error != 0) {
    *why =
        "the file system has no file handles (name_to_handle_at: " + std::string(strerror(error)) +
        ")";
    return ENOTSUP;
  }
  struct stat st = {};
  if (fstat(root, &st) != 0) return errno;
  root_ = root;
  const struct file_handle* handle = buffer.get();
  for (const Layout& layout : kLayouts) {
    if (layout.type != handle->handle_type || layout.bytes != handle->handle_bytes) continue;
    uint64_t ino = 0;
    memcpy(&ino, handle->f_handle + layout.ino_at, static_cast<size_t>(layout.ino_bytes));
    if (ino != st.st_ino) continue;
    type_ = layout.type;
    bytes_ = layout.bytes;
    ino_at_ = layout.ino_at;
    ino_bytes_ = layout.ino_bytes;
    generation_at_ = layout.generation_at;
    memcpy(template_, handle->f_handle, bytes_);
    memset(template_ + ino_at_, 0, static_cast<size_t>(ino_bytes_));
    memset(template_ + generation_at_, 0, 4);
    Fid fid;
    error = FidOf(root, &fid);
    if (error == 0 && !Open(fid, O_RDONLY | O_DIRECTORY, &error).ok()) {
      *why = "files cannot be opened by their handles (open_by_handle_at: " +
             std::string(strerror(error)) + "; it takes root's CAP_DAC_READ_SEARCH)";
      return ENOTSUP;
    }
    return error;
  }
  *why = "its file handles have an unknown layout (type " + std::to_string(handle->handle_type) +
         ", " + std::to_string(handle->handle_bytes) + " bytes); ext4, xfs and btrfs are known";
  return ENOTSUP;
}

int Handles::Parse(const void* raw, int mount, Fid* fid) const {
  const auto* handle = static_cast<const struct file_handle*>(raw);
  if (mount != mount_ || handle->handle_type != type_ || handle->handle_bytes != bytes_) {
    return EXDEV;
  }
  unsigned char rest[sizeof template_];
  memcpy(rest, handle->f_handle, bytes_);
  fid->ino = 0;
  memcpy(&fid->ino, rest + ino_at_, static_cast<size_t>(ino_bytes_));
  memcpy(&fid->generation, rest + generation_at_, 4);
  memset(rest + ino_at_, 0, static_cast<size_t>(ino_bytes_));
  memset(rest + generation_at_, 0, 4);
  return memcmp(rest, template_, bytes_) == 0 ? 0 : EXDEV;
}

int Handles::FidOf(int fd, Fid* fid) const { return FidAt(fd, "", fid); }

int Handles::FidAt(int dir, const char* name, Fid* fid) const {
  Buffer buffer;
  int mount = 0;
  const int error = Name(dir, name, *name == '\0' ? AT_EMPTY_PATH : 0, &buffer, &mount);
  return error != 0 ? error : Parse(buffer.get(), mount, fid);
}

UniqueFd Handles::Open(const Fid& fid, int flags, int* error) const {
  Buffer buffer;
  struct file_handle* handle = buffer.get();
  handle->handle_type = type_;
  handle->handle_bytes = bytes_;
  memcpy(buffer.payload(), template_, bytes_);
  memcpy(buffer.payload() + ino_at_, &fid.ino, static_cast<size_t>(ino_bytes_));
  memcpy(buffer.payload() + generation_at_, &fid.generation, 4);
  for (int tries = 0;; tries++) {
    UniqueFd fd(open_by_handle_at(root_, handle, flags | O_CLOEXEC));
    *error = fd.ok() ? 0 : errno;
    // Also what the kernel says while the inode's number is given to a new file (iget_locked,
    // I_CREATING): a moment later the handle is stale.
    if (*error != ENOMEM || tries == kRenumberedTries) return fd;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace lustrite
