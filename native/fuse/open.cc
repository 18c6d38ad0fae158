// OPEN, CREATE, TMPFILE, RELEASE: handles, and the way each reaches its data (passthrough or
// cached).
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "core.h"

namespace lustrite::fuse {

namespace {

bool Writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

// Drops the pages of an earlier tenure before the first cached handle of this one is answered. Not
// by open flags without FOPEN_KEEP_CACHE: the kernel obeys them when the opener gets to run, and by
// then another opener's read may be held, with its page locked: the first one would wait for that
// page, unkillably. Here no handle is open, so no page is locked.
void EnterCached(Core& core, Handle& handle) {
  Node& node = *handle.node;
  const std::lock_guard lock(node.pages_mutex);
  if (node.cached_handles++ == 0 && node.may_have_pages) {
    fuse_notify_inval_inode_out out{node.id, 0, 0};
    core.device.Notify(FUSE_NOTIFY_INVAL_INODE, {{&out, sizeof(out)}});
  }
  node.may_have_pages = true;
  handle.cached = true;
}

void LeaveCached(Handle& handle) {
  if (!handle.cached) return;
  const std::lock_guard lock(handle.node->pages_mutex);
  handle.node->cached_handles--;
  handle.cached = false;
}

// What an answer to OPEN or CREATE says of an admitted handle; the handle is in the table
// afterwards.
int Attach(Core& core, const std::shared_ptr<Handle>& handle, OpenOut* out) {
  *out = {};
  Node& node = *handle->node;
  const bool passthrough = handle->file.mode == DataMode::kPassthrough;
  if (passthrough) {
    const int id = core.backings.Pin(node);
    if (id < 0) return -id;
    handle->pinned = true;
    out->open_flags = kOpenPassthrough | (handle->file.direct_io ? FOPEN_DIRECT_IO : 0);
    out->backing_id = id;
  } else {
    EnterCached(core, *handle);
    out->open_flags = FOPEN_KEEP_CACHE;
  }
  if (!passthrough || handle->file.writes) {
    // A writer has one from its open on also where the kernel writes by itself: an error of the
    // writeback is told once to each fd that was open then, so its fsync must not be asked of one
    // that was opened after somebody else had heard of it.
    // O_APPEND is the kernel's: it sends offsets. O_RDWR, since a writer's pages may have to be
    // read.
    int flags = handle->file.writes ? O_RDWR : O_RDONLY;
    flags |= handle->flags & (O_SYNC | O_DSYNC | O_NOATIME);
    int error = 0;
    handle->data = node.inode->OpenBacking(flags, &error);
    if (!handle->data.ok()) return error;
  }
  if (handle->file.writes) {
    node.writers++;
    if (passthrough) node.written = true;
  }
  out->fh = core.files.Add(handle);
  return 0;
}

// Gives back what Attach took, in the order that lets the store look at an inode without handles:
// our fd is closed before the store hears of it (a lease is refused while it is open).
void Detach(Core& core, Handle& handle) {
  handle.data.reset();
  LeaveCached(handle);
  if (handle.pinned) core.backings.Unpin(*handle.node);
  handle.pinned = false;
  handle.node->inode->CloseHandle(&handle.file);
}

// A handle that AdmitOpen has admitted, made ready. In the rare case that the kernel takes no
// backing file the inode is opened once more as a cached one.
int Finish(Core& core, const std::shared_ptr<Handle>& handle, OpenOut* out) {
  int error = Attach(core, handle, out);
  if (error == 0) return 0;
  const bool retry = handle->file.mode == DataMode::kPassthrough && !handle->pinned;
  Detach(core, *handle);
  if (!retry) return error;
  handle->file = {};
  Verdict verdict =
      handle->node->inode->AdmitOpen(handle->flags & ~O_TRUNC, 0, false, [](int) {}, &handle->file);
  if (verdict.what == Verdict::kWait) {
    handle->node->inode->Withdraw(verdict.ticket);
    return error;
  }
  if (verdict.what == Verdict::kFail) return verdict.error;
  error = handle->file.mode == DataMode::kPassthrough ? EIO : Attach(core, handle, out);
  if (error != 0) Detach(core, *handle);
  return error;
}

void Undo(Core& core, uint64_t fh) {
  if (auto handle = core.files.Remove(fh)) CloseFile(core, handle);
}

void Open(Core& core, const RequestPtr& request, const NodePtr& node) {
  auto handle = std::make_shared<Handle>();
  handle->node = node;
  handle->flags = static_cast<int>(request->in<fuse_open_in>().flags);
  core.gate->Run(
      request, node, Gate::kForever,
      [&core, handle](const RequestPtr& asking, Wake wake) {
        int error = 0;
        if (Writes(handle->flags) && !handle->waiting.ok()) {
          handle->waiting = handle->node->inode->OpenBacking(O_PATH, &error);
        }
        if (error != 0) return Verdict::Fail(error);
        return handle->node->inode->AdmitOpen(handle->flags, asking->pid(), core.passthrough,
                                              std::move(wake), &handle->file);
      },
      [&core, handle](const RequestPtr& admitted) {
        const auto& in = admitted->in<fuse_open_in>();
        if (in.open_flags & FUSE_OPEN_KILL_SUIDGID) {
          int ignored = 0;
          UniqueFd fd = handle->node->inode->OpenBacking(O_PATH, &ignored);
          if (fd.ok()) StripPrivileges(*handle->node->inode, fd.get());
        }
        OpenOut out;
        int error = Finish(core, handle, &out);
        handle->waiting.reset();
        if (error != 0) {
          admitted->ReplyError(error);
        } else if (admitted->Reply(out) != 0) {
          // Nobody took the answer, so no RELEASE will come.
          Undo(core, out.fh);
        }
      });
}

// A file was made and is behind `fd`: open it for its maker and answer with entry and handle.
void OpenCreated(Core& core, const RequestPtr& request, int fd, uint64_t epoch) {
  struct {
    fuse_entry_out entry;
    OpenOut open;
  } out = {};
  auto handle = std::make_shared<Handle>();
  int error = FillEntry(core, fd, epoch, &out.entry, &handle->node);
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  const auto& in = request->in<fuse_create_in>();
  handle->node->created_here = true;
  handle->flags = static_cast<int>(in.flags) & ~(O_CREAT | O_EXCL | O_TRUNC);
  // A new file has nothing to wait for.
  Verdict verdict = handle->node->inode->AdmitOpen(
      handle->flags, request->pid(), core.passthrough, [](int) {}, &handle->file);
  if (verdict.what == Verdict::kWait) {
    handle->node->inode->Withdraw(verdict.ticket);
    error = EBUSY;
  } else if (verdict.what == Verdict::kFail) {
    error = verdict.error;
  } else {
    error = Finish(core, handle, &out.open);
  }
  if (error != 0) {
    core.nodes.Forget(out.entry.nodeid, 1);
    request->ReplyError(error);
    return;
  }
  out.entry.attr_valid = AttributeSeconds(*handle->node, out.entry.attr_valid > 0);
  if (request->Reply(out) != 0) {
    Undo(core, out.open.fh);
    core.nodes.Forget(out.entry.nodeid, 1);
  }
}

}  // namespace

void CloseFile(Core& core, const std::shared_ptr<Handle>& handle) {
  if (handle->file.writes) handle->node->writers--;
  Detach(core, *handle);
}

void OnOpen(Core& core, const RequestPtr& request) {
  NodePtr node = NodeOf(core, *request);
  if (!node) {
    request->ReplyError(ESTALE);
    return;
  }
  const int flags = static_cast<int>(request->in<fuse_open_in>().flags);
  // The first writer of a clean file waits for the disk. Where there is no copy, or a writer
  // already, nothing does.
  const bool quick =
      !(flags & O_TRUNC) && (!Writes(flags) || node->writers > 0 || node->created_here);
  if (quick) return Open(core, request, node);
  request->Shrink();
  core.pool.Post([&core, request, node] { Open(core, request, node); });
}

void OnCreate(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_create_in>();
  NodePtr parent = NodeOf(core, *request);
  const char* name = request->Name(sizeof(in));
  int error = ESTALE;
  DirectoryFds::Fd directory;
  if (parent && name) directory = core.directories.Get(*parent, &error);
  if (!directory) {
    request->ReplyError(error);
    return;
  }
  const uint64_t epoch = core.notifier.entry_epoch();
  UniqueFd fd;
  {
    AsCaller caller(request->header(), in.umask);
    fd.reset(openat(directory->get(), name,
                    O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
                    in.mode & 07777));
    if (!fd.ok()) error = errno;
  }
  if (!fd.ok()) {
    // The kernel thought the name free. ESTALE makes it look again, and check permissions again.
    request->ReplyError(error == EEXIST && !(in.flags & O_EXCL) ? ESTALE : error);
    return;
  }
  OpenCreated(core, request, fd.get(), epoch);
}

void OnTmpfile(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_create_in>();
  NodePtr parent = NodeOf(core, *request);
  int error = ESTALE;
  DirectoryFds::Fd directory;
  if (parent) directory = core.directories.Get(*parent, &error);
  if (!directory) {
    request->ReplyError(error);
    return;
  }
  UniqueFd fd;
  {
    AsCaller caller(request->header(), in.umask);
    // O_EXCL would forbid a later linkat; the kernel keeps that rule for its own handle.
    fd.reset(openat(directory->get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, in.mode & 07777));
    if (!fd.ok()) error = errno;
  }
  if (!fd.ok()) {
    request->ReplyError(error);
    return;
  }
  OpenCreated(core, request, fd.get(), core.notifier.entry_epoch());
}

void OnRelease(Core& core, const RequestPtr& request) {
  auto handle = core.files.Remove(request->in<fuse_release_in>().fh);
  request->Reply();
  if (!handle) return;
  // The end of a writer is where a file may become clean again: that takes the disk.
  if (!handle->file.writes) return CloseFile(core, handle);
  core.pool.Post([&core, handle] { CloseFile(core, handle); });
}

}  // namespace lustrite::fuse
