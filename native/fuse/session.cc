#include "session.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace lustrite::fuse {

namespace {

constexpr int kPoolThreads = 8;

using Operation = void (*)(Core&, const RequestPtr&);

struct Entry {
  Operation operation = nullptr;
  size_t fixed = 0;  // bytes a message must have behind its header
};

// No entry: ENOSYS, after which the kernel does without (access, flush, statx, locks stay its own).
constexpr std::array<Entry, kOpcodes> kOperations = [] {
  std::array<Entry, kOpcodes> table = {};
  table[FUSE_LOOKUP] = {OnLookup, 1};
  table[FUSE_FORGET] = {OnForget, sizeof(fuse_forget_in)};
  table[FUSE_BATCH_FORGET] = {OnBatchForget, sizeof(fuse_batch_forget_in)};
  table[FUSE_GETATTR] = {OnGetattr, sizeof(fuse_getattr_in)};
  table[FUSE_SETATTR] = {OnSetattr, sizeof(fuse_setattr_in)};
  table[FUSE_STATFS] = {OnStatfs, 0};
  table[FUSE_OPENDIR] = {OnOpendir, sizeof(fuse_open_in)};
  table[FUSE_READDIR] = {OnReaddir, sizeof(fuse_read_in)};
  table[FUSE_READDIRPLUS] = {OnReaddir, sizeof(fuse_read_in)};
  table[FUSE_RELEASEDIR] = {OnReleasedir, sizeof(fuse_release_in)};
  table[FUSE_FSYNCDIR] = {OnFsyncdir, sizeof(fuse_fsync_in)};
  table[FUSE_MKNOD] = {OnMknod, sizeof(fuse_mknod_in)};
  table[FUSE_MKDIR] = {OnMkdir, sizeof(fuse_mkdir_in)};
  table[FUSE_SYMLINK] = {OnSymlink, 1};
  table[FUSE_READLINK] = {OnReadlink, 0};
  table[FUSE_LINK] = {OnLink, sizeof(fuse_link_in)};
  table[FUSE_UNLINK] = {OnUnlink, 1};
  table[FUSE_RMDIR] = {OnRmdir, 1};
  table[FUSE_RENAME] = {OnRename, sizeof(fuse_rename_in)};
  table[FUSE_RENAME2] = {OnRename2, sizeof(fuse_rename2_in)};
  table[FUSE_OPEN] = {OnOpen, sizeof(fuse_open_in)};
  table[FUSE_CREATE] = {OnCreate, sizeof(fuse_create_in)};
  table[FUSE_TMPFILE] = {OnTmpfile, sizeof(fuse_create_in)};
  table[FUSE_RELEASE] = {OnRelease, sizeof(fuse_release_in)};
  table[FUSE_READ] = {OnRead, sizeof(fuse_read_in)};
  table[FUSE_WRITE] = {OnWrite, sizeof(fuse_write_in)};
  table[FUSE_FSYNC] = {OnFsync, sizeof(fuse_fsync_in)};
  table[FUSE_FALLOCATE] = {OnFallocate, sizeof(fuse_fallocate_in)};
  table[FUSE_LSEEK] = {OnLseek, sizeof(fuse_lseek_in)};
  table[FUSE_COPY_FILE_RANGE] = {OnCopyFileRange, sizeof(fuse_copy_file_range_in)};
  table[FUSE_SYNCFS] = {OnSyncfs, 0};
  table[FUSE_SETXATTR] = {OnSetxattr, sizeof(fuse_setxattr_in)};
  table[FUSE_GETXATTR] = {OnGetxattr, sizeof(fuse_getxattr_in)};
  table[FUSE_LISTXATTR] = {OnListxattr, sizeof(fuse_getxattr_in)};
  table[FUSE_REMOVEXATTR] = {OnRemovexattr, 1};
  table[FUSE_IOCTL] = {OnIoctl, sizeof(fuse_ioctl_in)};
  table[FUSE_INTERRUPT] = {OnInterrupt, sizeof(fuse_interrupt_in)};
  return table;
}();

// Directories and cached handles cost an fd each.
void RaiseFdLimit() {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int MountDevice(const SessionOptions& options, int fd) {
  const std::string data = "fd=" + std::to_string(fd) +
                           ",rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other";
  // Who can write to the container must not be able to plant a device or a setuid root program.
  const unsigned long flags = MS_NODEV | MS_NOSUID | (options.read_only ? MS_RDONLY : 0);
  return mount(options.source.c_str(), options.mount_point.c_str(), "fuse." LUSTRITE_FSTYPE, flags,
               data.c_str()) == 0
             ? 0
             : errno;
}

}  // namespace

Session::Session(std::shared_ptr<Store> store, SessionOptions options, SessionEvents events,
                 UniqueFd fd)
    : core_(std::move(store), std::move(options), std::move(events), std::move(fd)),
      readers_(&core_.device, &core_.buffers),
      debug_(getenv("LUSTRITE_FUSE_DEBUG") != nullptr) {}

std::shared_ptr<Session> Session::Mount(std::shared_ptr<Store> store, SessionOptions options,
                                        SessionEvents events, int* error, std::string* what) {
  *what = "/dev/fuse";
  UniqueFd fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fd.ok()) {
    *error = errno;
    return nullptr;
  }
  std::shared_ptr<Inode> root = store->Get(store->root(), error);
  if (!root) {
    *what = "the store's root";
    return nullptr;
  }
  RaiseFdLimit();
  std::shared_ptr<Session> session(
      new Session(std::move(store), std::move(options), std::move(events), std::move(fd)));
  Core& core = session->core_;
  core.nodes.AddRoot(std::move(root));
  *what = core.options.mount_point;
  *error = MountDevice(core.options, core.device.fd());
  if (*error != 0) return nullptr;
  core.store->SetPartialReads(core.options.partial_reads);
  core.notifier.Start();
  core.pool.Start(kPoolThreads);
  core.store->SetObserver(&core.notifier);
  session->readers_.Start(
      std::max(1, core.options.threads),
      [&session = *session](const RequestPtr& request) { session.Serve(request); },
      [&session = *session] {
        std::lock_guard lock(session.mutex_);
        session.over_ = true;
        session.changed_.notify_all();
      });
  // Keeps the session until everything is given back, whoever else forgets it.
  std::thread([session] { session->End(); }).detach();
  *error = session->WaitUntilReady() ? 0 : ENOTCONN;
  return session;
}

bool Session::WaitUntilReady() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_ || ended_; });
  return ready_;
}

void Session::Serve(const RequestPtr& request) {
  const uint32_t opcode = request->opcode();
  if (debug_) PrintRequest(*request);
  if (opcode == FUSE_INIT) return OnInit(request);
  if (opcode == FUSE_DESTROY) {
    request->Reply();
    return;
  }
  const Entry entry = opcode < kOpcodes ? kOperations[opcode] : Entry{};
  if (opcode < kOpcodes) core_.counts[opcode].fetch_add(1, std::memory_order_relaxed);
  if (entry.operation && request->body_size() >= entry.fixed) {
    if (!ServeDotLustre(core_, request)) entry.operation(core_, request);
    return;
  }
  request->ReplyError(entry.operation ? EINVAL : ENOSYS);
}

void Session::OnInit(const RequestPtr& request) {
  // Short messages of old kernels end before flags2.
  fuse_init_in in = {};
  memcpy(&in, request->body(), std::min(sizeof(in), request->body_size()));
  InitOut out = {};
  out.major = FUSE_KERNEL_VERSION;
  if (in.major > FUSE_KERNEL_VERSION) {
    request->Reply(out);  // the kernel asks again with our version
    return;
  }
  if (in.major < FUSE_KERNEL_VERSION || in.minor < 31) {
    request->ReplyError(EPROTO);
    return;
  }
  constexpr uint64_t kWanted =
      FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DONT_MASK |
      FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
      FUSE_POSIX_ACL | FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
      FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT;
  const uint64_t offered =
      in.flags | (in.flags & FUSE_INIT_EXT ? static_cast<uint64_t>(in.flags2) << 32 : 0);
  uint64_t flags = offered & kWanted;
  if (core_.options.passthrough && offered & kInitPassthrough) {
    flags |= kInitPassthrough;
    // 1: lets overlayfs stack on the mount. 0 and 3 switch passthrough off without a word.
    out.max_stack_depth = 1;
  }
  out.minor = std::min<uint32_t>(in.minor, 45);
  out.max_readahead = in.max_readahead;
  out.flags = static_cast<uint32_t>(flags);
  out.flags2 = static_cast<uint32_t>(flags >> 32);
  // The kernel counts held reads as background requests; at its limit RELEASE and reads of other
  // files stop arriving.
  out.max_background = 65535;
  out.congestion_threshold = 65535;
  out.max_write = kMaxWrite;
  out.max_pages = kMaxWrite / 4096;
  out.time_gran = 1;
  request->Reply(out);
  // Registering a backing file needs CAP_SYS_ADMIN. A directory is refused, too, but for what it is
  // (EISDIR).
  if (flags & kInitPassthrough) {
    core_.passthrough = core_.device.OpenBacking(core_.store->root()) == -EISDIR;
  }
  std::lock_guard lock(mutex_);
  ready_ = true;
  changed_.notify_all();
}

int Session::Unmount(bool lazy) {
  const int flags = UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0);
  std::unique_lock lock(mutex_);
  if (!over_) {
    lock.unlock();
    const int error = umount2(core_.options.mount_point.c_str(), flags) == 0 ? 0 : errno;
    lock.lock();
    // EINVAL: somebody else unmounted it meanwhile.
    if (error != 0 && !over_) return error;
  }
  changed_.wait(lock, [this] { return ended_; });
  return 0;
}

void Session::End() {
  PrepareServingThread();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return over_; });
  }
  core_.device.SetEnded();
  readers_.Join();
  core_.store->SetObserver(nullptr);
  core_.gate->Close();
  for (const RequestPtr& question : core_.questions.TakeAll()) question->ReplyError(ENOTCONN);
  core_.store->FailWaiters(ENOTCONN);
  core_.pool.Stop();
  core_.notifier.Stop();
  for (const auto& handle : core_.files.RemoveAll()) CloseFile(core_, handle);
  core_.listings.RemoveAll();
  core_.directories.Clear();
  core_.nodes.Clear();
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  core_.events.closed();
}

std::map<std::string, uint64_t> Session::Stats() {
  std::map<std::string, uint64_t> stats;
  for (uint32_t opcode = 0; opcode < kOpcodes; opcode++) {
    const uint64_t count = core_.counts[opcode];
    if (count == 0) continue;
    const char* name = OpcodeName(opcode);
    stats["requests." + (name ? std::string(name) : std::to_string(opcode))] = count;
  }
  stats["held"] = core_.gate->held();
  stats["questions"] = core_.questions.size();
  stats["queued"] = core_.pool.queued();
  stats["nodes"] = core_.nodes.size();
  stats["backings"] = core_.backings.size();
  stats["handles"] = core_.files.size();
  stats["listings"] = core_.listings.size();
  stats["directoryFds"] = core_.directories.size();
  return stats;
}

}  // namespace lustrite::fuse
