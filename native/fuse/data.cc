// READ, WRITE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE, SYNCFS: what reaches us where the kernel
// does not go to the backing file itself.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

#include "core.h"

namespace lustrite::fuse {

namespace {

using HandlePtr = std::shared_ptr<Handle>;

// The handle's own fd, or one opened into `opened` for a passthrough handle.
int DataFd(const Handle& handle, int flags, UniqueFd* opened, int* error) {
  *error = 0;
  if (handle.data.ok()) return handle.data.get();
  *opened = handle.node->inode->OpenBacking(flags, error);
  return opened->get();
}

HandlePtr HandleOf(Core& core, const RequestPtr& request, uint64_t fh) {
  HandlePtr handle = core.files.Find(fh);
  if (!handle) request->ReplyError(EBADF);
  return handle;
}

// Now when this thread may block, else on the pool.
template <class Task>
void WhereItMayBlock(Core& core, const RequestPtr& request, Task task) {
  if (Pool::MayBlock()) return task();
  request->Shrink();
  core.pool.Post(std::move(task));
}

// Answers a read with what was read, unless the restore that it was admitted to took the bytes away
// meanwhile.
void ReplyRead(Core& core, const Handle& handle, const RequestPtr& request, uint64_t epoch,
               char* bytes, size_t size) {
  if (handle.file.mode == DataMode::kCached && handle.node->inode->ReadEpoch() != epoch) {
    OnRead(core, request);
    return;
  }
  request->ReplyParts({{bytes, size}});
}

// A read that may block.
void ReadBlocking(Core& core, const Handle& handle, const RequestPtr& request, uint64_t epoch,
                  std::unique_ptr<char[]> bytes) {
  const auto& in = request->in<fuse_read_in>();
  size_t done = 0;
  while (done < in.size) {
    const ssize_t n = pread(handle.data.get(), bytes.get() + done, in.size - done,
                            static_cast<off_t>(in.offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && done == 0) {
      request->ReplyError(errno);
      return;
    }
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  ReplyRead(core, handle, request, epoch, bytes.get(), done);
}

// `epoch`: the inode's ReadEpoch() from before the read was admitted.
void Read(Core& core, const HandlePtr& handle, const RequestPtr& request, uint64_t epoch) {
  const auto& in = request->in<fuse_read_in>();
  // Only POSIX_FADV_WILLNEED and readahead(2) ask for a file that the kernel reads by itself: for
  // pages that no reader would see and no write change.
  const bool served = handle->file.mode == DataMode::kCached || handle->file.direct_io;
  if (!served || in.size > kMaxWrite) {
    request->ReplyError(served ? EINVAL : EBADF);
    return;
  }
  auto bytes = std::make_unique_for_overwrite<char[]>(in.size);
  if (Pool::MayBlock()) return ReadBlocking(core, *handle, request, epoch, std::move(bytes));
  // What is in memory is answered at once; what is not must not hold up this thread.
  iovec part{bytes.get(), in.size};
  const ssize_t n =
      preadv2(handle->data.get(), &part, 1, static_cast<off_t>(in.offset), RWF_NOWAIT);
  const size_t done = n > 0 ? static_cast<size_t>(n) : 0;
  struct stat st;
  const bool end = n >= 0 && fstat(handle->data.get(), &st) == 0 &&
                   in.offset + done >= static_cast<uint64_t>(st.st_size);
  if (done == in.size || end) {
    ReplyRead(core, *handle, request, epoch, bytes.get(), done);
    return;
  }
  request->Shrink();
  core.pool.Post([&core, handle, request, epoch] {
    auto whole = std::make_unique_for_overwrite<char[]>(request->in<fuse_read_in>().size);
    ReadBlocking(core, *handle, request, epoch, std::move(whole));
  });
}

void Write(const HandlePtr& handle, const RequestPtr& request) {
  const auto& in = request->in<fuse_write_in>();
  const char* data = request->after(sizeof(in));
  const size_t size = std::min<size_t>(in.size, request->after_size(sizeof(in)));
  int error = 0;
  UniqueFd opened;
  const int fd = DataFd(*handle, O_RDWR, &opened, &error);
  if (error == 0 && in.write_flags & FUSE_WRITE_KILL_SUIDGID) {
    StripPrivileges(*handle->node->inode, fd);
  }
  // A page of the kernel's cache has its place; an appending write goes to the end as it is now.
  const bool append = in.flags & O_APPEND && !(in.write_flags & FUSE_WRITE_CACHE);
  if (error == 0 && append && handle->cached) {
    // The kernel has the data in its pages already, where it took the end to be: of a stub that was
    // opened before O_APPEND was set, and has another size now. After an error it forgets them.
    struct stat st;
    if (fstat(fd, &st) != 0) {
      error = errno;
    } else if (static_cast<uint64_t>(st.st_size) != in.offset) {
      error = EAGAIN;
    }
  }
  size_t done = 0;
  while (error == 0 && done < size) {
    iovec part{const_cast<char*>(data) + done, size - done};
    const ssize_t n =
        pwritev2(fd, &part, 1, static_cast<off_t>(in.offset + done), append ? RWF_APPEND : 0);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n < 0 && errno != EINTR) {
      error = errno;
    } else if (n == 0) {
      error = EIO;
    }
  }
  handle->node->inode->EndModify();
  if (done == 0 && error != 0) {
    request->ReplyError(error);
    return;
  }
  request->Reply(fuse_write_out{static_cast<uint32_t>(done), 0});
}

}  // namespace

void OnRead(Core& core, const RequestPtr& request) {
  HandlePtr handle = HandleOf(core, request, request->in<fuse_read_in>().fh);
  if (!handle) return;
  if (handle->file.mode != DataMode::kCached) return Read(core, handle, request, 0);
  auto epoch = std::make_shared<uint64_t>();
  core.gate->Run(
      request, handle->node, Gate::kForever,
      [handle, epoch](const RequestPtr& asking, Wake wake) {
        const auto& in = asking->in<fuse_read_in>();
        *epoch = handle->node->inode->ReadEpoch();
        return handle->node->inode->AdmitRead(&handle->file, in.offset, in.size, asking->pid(),
                                              std::move(wake));
      },
      [&core, handle, epoch](const RequestPtr& admitted) { Read(core, handle, admitted, *epoch); });
}

void OnWrite(Core& core, const RequestPtr& request) {
  HandlePtr handle = HandleOf(core, request, request->in<fuse_write_in>().fh);
  if (!handle) return;
  WhereItMayBlock(core, request, [&core, handle, request] {
    core.gate->Run(
        request, handle->node, Gate::kModify,
        [handle](const RequestPtr& asking, Wake wake) {
          return handle->node->inode->AdmitModify(asking->pid(), std::move(wake));
        },
        [handle](const RequestPtr& admitted) { Write(handle, admitted); });
  });
}

void OnFsync(Core& core, const RequestPtr& request) {
  HandlePtr handle = HandleOf(core, request, request->in<fuse_fsync_in>().fh);
  if (!handle) return;
  WhereItMayBlock(core, request, [handle, request] {
    int error = 0;
    UniqueFd opened;
    const int fd = DataFd(*handle, O_RDONLY, &opened, &error);
    const bool data_only = request->in<fuse_fsync_in>().fsync_flags & FUSE_FSYNC_FDATASYNC;
    if (error == 0) error = handle->node->inode->Fsync(fd, data_only);
    request->ReplyError(error);
  });
}

void OnFallocate(Core& core, const RequestPtr& request) {
  HandlePtr handle = HandleOf(core, request, request->in<fuse_fallocate_in>().fh);
  if (!handle) return;
  WhereItMayBlock(core, request, [&core, handle, request] {
    core.gate->Run(
        request, handle->node, Gate::kModify,
        [handle](const RequestPtr& asking, Wake wake) {
          return handle->node->inode->AdmitModify(asking->pid(), std::move(wake));
        },
        [handle](const RequestPtr& admitted) {
          const auto& in = admitted->in<fuse_fallocate_in>();
          int error = 0;
          UniqueFd opened;
          const int fd = DataFd(*handle, O_RDWR, &opened, &error);
          if (error == 0 && fallocate(fd, static_cast<int>(in.mode), static_cast<off_t>(in.offset),
                                      static_cast<off_t>(in.length)) != 0) {
            error = errno;
          }
          handle->node->inode->EndModify();
          admitted->ReplyError(error);
        });
  });
}

void OnLseek(Core& core, const RequestPtr& request) {
  HandlePtr handle = HandleOf(core, request, request->in<fuse_lseek_in>().fh);
  if (!handle) return;
  core.gate->Run(
      request, handle->node, Gate::kForever,
      [handle](const RequestPtr& asking, Wake wake) {
        return handle->node->inode->AdmitSeek(asking->pid(), std::move(wake));
      },
      [handle](const RequestPtr& admitted) {
        const auto& in = admitted->in<fuse_lseek_in>();
        // An fd of our own: the position of the handle's is shared.
        int error = 0;
        UniqueFd fd = handle->node->inode->OpenBacking(O_RDONLY, &error);
        off_t offset = 0;
        if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) error = EINVAL;
        if (error == 0) {
          offset = lseek(fd.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
          if (offset < 0) error = errno;
        }
        if (error != 0) {
          admitted->ReplyError(error);
        } else {
          admitted->Reply(fuse_lseek_out{static_cast<uint64_t>(offset)});
        }
      });
}

namespace {

// Both ends are admitted; the destination's modification ends here.
void Copy(const HandlePtr& from, const HandlePtr& to, const RequestPtr& request) {
  // The caller comes back for more, and may be interrupted in between.
  constexpr uint64_t kAtOnce = 256u << 20;
  const auto& in = request->in<fuse_copy_file_range_in>();
  int error = 0;
  UniqueFd opened_from, opened_to;
  const int source = DataFd(*from, O_RDONLY, &opened_from, &error);
  const int target = error == 0 ? DataFd(*to, O_RDWR, &opened_to, &error) : -1;
  ssize_t copied = -1;
  if (error == 0) {
    auto offset_in = static_cast<off_t>(in.off_in);
    auto offset_out = static_cast<off_t>(in.off_out);
    copied = copy_file_range(source, &offset_in, target, &offset_out, std::min(in.len, kAtOnce), 0);
    if (copied < 0) error = errno;
  }
  to->node->inode->EndModify();
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  request->Reply(fuse_write_out{static_cast<uint32_t>(copied), 0});
}

}  // namespace

void OnCopyFileRange(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_copy_file_range_in>();
  HandlePtr from = HandleOf(core, request, in.fh_in);
  if (!from) return;
  HandlePtr to = HandleOf(core, request, in.fh_out);
  if (!to) return;
  auto modify = [&core, from, to](const RequestPtr& read) {
    core.gate->Run(
        read, to->node, Gate::kModify,
        [to](const RequestPtr& asking, Wake wake) {
          return to->node->inode->AdmitModify(asking->pid(), std::move(wake));
        },
        [from, to](const RequestPtr& admitted) { Copy(from, to, admitted); });
  };
  WhereItMayBlock(core, request, [&core, from, request, modify] {
    if (from->file.mode != DataMode::kCached) return modify(request);
    core.gate->Run(
        request, from->node, Gate::kModify,
        [from](const RequestPtr& asking, Wake wake) {
          // The whole of it: early bytes could be taken away between here and the copy.
          return from->node->inode->AdmitRead(&from->file, 0, UINT64_MAX, asking->pid(),
                                              std::move(wake));
        },
        modify);
  });
}

void OnSyncfs(Core& core, const RequestPtr& request) {
  WhereItMayBlock(core, request, [&core, request] {
    request->ReplyError(syncfs(core.store->root()) == 0 ? 0 : errno);
  });
}

}  // namespace lustrite::fuse
