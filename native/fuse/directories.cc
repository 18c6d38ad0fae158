// OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "core.h"

namespace lustrite::fuse {

namespace {

constexpr size_t kAhead = 32768;

struct KernelDirent {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

bool IsDots(const char* name) {
  return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

// The entry at `position`, or null at the end or with *error. Under the handle's mutex.
const KernelDirent* EntryAt(DirHandle& handle, uint64_t position, int* error) {
  *error = 0;
  // Offset 0 is opendir or rewinddir: the directory is read afresh.
  if (position == 0 || position != handle.next) {
    handle.begin = handle.end = 0;
    if (lseek(handle.fd.get(), static_cast<off_t>(position), SEEK_SET) < 0) {
      *error = errno;
      return nullptr;
    }
    handle.next = position;
  }
  if (handle.begin == handle.end) {
    handle.ahead.resize(kAhead);
    const long size =
        syscall(SYS_getdents64, handle.fd.get(), handle.ahead.data(), handle.ahead.size());
    if (size < 0) *error = errno;
    handle.begin = 0;
    handle.end = size > 0 ? static_cast<size_t>(size) : 0;
    if (size <= 0) return nullptr;
  }
  return reinterpret_cast<const KernelDirent*>(handle.ahead.data() + handle.begin);
}

void Advance(DirHandle& handle, const KernelDirent& entry) {
  handle.begin += entry.reclen;
  handle.next = static_cast<uint64_t>(entry.off);
}

void PutDirent(char* at, const KernelDirent& entry, uint64_t ino, size_t name_size) {
  auto* out = reinterpret_cast<fuse_dirent*>(at);
  out->ino = ino;
  out->off = static_cast<uint64_t>(entry.off);
  out->namelen = static_cast<uint32_t>(name_size);
  out->type = entry.type;
  memcpy(out->name, entry.name, name_size);
}

}  // namespace

void OnOpendir(Core& core, const RequestPtr& request) {
  NodePtr node = NodeOf(core, *request);
  if (!node) {
    request->ReplyError(ESTALE);
    return;
  }
  int error = 0;
  UniqueFd fd = node->inode->OpenBacking(O_RDONLY | O_DIRECTORY, &error);
  if (!fd.ok()) {
    request->ReplyError(error);
    return;
  }
  auto handle = std::make_shared<DirHandle>();
  handle->node = node;
  handle->fd = std::move(fd);
  // The kernel's cache of a listing knows positions only as entries: a reader that comes back to
  // the position of an entry which is gone from a newer cache would see the end of the directory
  // (fuse_readdir_cached). So only one handle of a directory at a time uses the cache; the others
  // are asked of us.
  handle->caches = !node->listing_cached.exchange(true);
  fuse_open_out out = {};
  // Without FOPEN_KEEP_CACHE the kernel forgets what it has.
  out.open_flags = FOPEN_KEEP_CACHE;
  if (handle->caches) {
    // Before anything is read: what changes from here on may be missing in it.
    const uint64_t epoch = node->listing_epoch;
    out.open_flags = node->cached_epoch.exchange(epoch) == epoch
                         ? FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE
                         : FOPEN_CACHE_DIR;
  }
  out.fh = core.listings.Add(handle);
  if (request->Reply(out) != 0) {
    core.listings.Remove(out.fh);
    if (handle->caches) {
      node->cached_epoch = 0;
      node->listing_cached = false;
    }
  }
}

void OnReleasedir(Core& core, const RequestPtr& request) {
  auto handle = core.listings.Remove(request->in<fuse_release_in>().fh);
  if (handle && handle->caches) handle->node->listing_cached = false;
  request->Reply();
}

void OnReaddir(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_read_in>();
  auto handle = core.listings.Find(in.fh);
  if (!handle) {
    request->ReplyError(EBADF);
    return;
  }
  const bool plus = request->opcode() == FUSE_READDIRPLUS;
  const size_t limit = std::min<size_t>(in.size, kMaxWrite);
  std::vector<char> out(limit);
  std::vector<uint64_t> looked_up;
  size_t used = 0;
  int error = 0;
  std::lock_guard lock(handle->mutex);
  uint64_t position = in.offset;
  while (const KernelDirent* entry = EntryAt(*handle, position, &error)) {
    if (handle->node->id == FUSE_ROOT_ID && strcmp(entry->name, kDotLustreName) == 0) {
      // Of a store that has one from elsewhere: its name leads to ours.
      position = static_cast<uint64_t>(entry->off);
      Advance(*handle, *entry);
      continue;
    }
    const size_t name_size = strlen(entry->name);
    const size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    const size_t size = FUSE_DIRENT_ALIGN(head + name_size);
    if (used + size > limit) break;
    memset(out.data() + used, 0, size);
    uint64_t ino = entry->ino;
    // What lies above the root of the mount is the store's business.
    if (handle->node->id == FUSE_ROOT_ID && IsDots(entry->name)) ino = handle->node->fid.ino;
    if (plus) {
      auto* direntplus = reinterpret_cast<fuse_direntplus*>(out.data() + used);
      if (!IsDots(entry->name)) {
        const uint64_t epoch = core.notifier.entry_epoch();
        int ignored = 0;
        UniqueFd fd = OpenName(handle->fd.get(), entry->name, &ignored);
        // Gone meanwhile: shown without attributes (node id 0), as getdents would.
        if (fd.ok() && FillEntry(core, fd.get(), epoch, &direntplus->entry_out, nullptr) == 0) {
          looked_up.push_back(direntplus->entry_out.nodeid);
        } else {
          direntplus->entry_out = {};
        }
      }
      PutDirent(reinterpret_cast<char*>(&direntplus->dirent), *entry, ino, name_size);
    } else {
      PutDirent(out.data() + used, *entry, ino, name_size);
    }
    used += size;
    position = static_cast<uint64_t>(entry->off);
    Advance(*handle, *entry);
  }
  if (error != 0 && used == 0) {
    request->ReplyError(error);
    return;
  }
  if (request->ReplyParts({{out.data(), used}}) != 0) {
    for (uint64_t id : looked_up) core.nodes.Forget(id, 1);
  }
}

void OnFsyncdir(Core& core, const RequestPtr& request) {
  core.pool.Post([&core, request] {
    const auto& in = request->in<fuse_fsync_in>();
    auto handle = core.listings.Find(in.fh);
    const bool data_only = in.fsync_flags & FUSE_FSYNC_FDATASYNC;
    if (!handle) {
      request->ReplyError(EBADF);
    } else if ((data_only ? fdatasync(handle->fd.get()) : fsync(handle->fd.get())) != 0) {
      request->ReplyError(errno);
    } else {
      request->Reply();
    }
  });
}

}  // namespace lustrite::fuse
