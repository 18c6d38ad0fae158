// What the operations of a mounted session share.
#ifndef LUSTRITE_FUSE_CORE_H_
#define LUSTRITE_FUSE_CORE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "../store/credentials.h"
#include "../store/store.h"
#include "gate.h"
#include "handles.h"
#include "inodes.h"
#include "kernel.h"
#include "notifier.h"
#include "pool.h"
#include "transport.h"

namespace lustrite::fuse {

struct SessionOptions {
  std::string mount_point;
  std::string source;
  bool read_only = false;
  bool passthrough = true;
  int threads = 2;
  size_t max_held = 4096;
  bool partial_reads = true;
};

// Who sent a request, as the kernel says.
struct Caller {
  Credentials credentials;
  int32_t pid = 0;
};

struct HsmRequest {
  Caller caller;
  struct lustrite_request request = {};
};

struct HsmStateSet {
  Caller caller;
  Fid fid;
  struct hsm_state_set change = {};
};

// Which name of which inode; `fid` may be one that no inode of ours can have.
struct LinkAsked {
  struct lu_fid fid = {};
  uint32_t link = 0;
};

// Called on threads of the session; must not block.
struct SessionEvents {
  std::function<void(uint64_t id, HsmRequest)> request;
  std::function<void(uint64_t id, HsmStateSet)> state_set;
  std::function<void(uint64_t id, LinkAsked)> link_asked;
  std::function<void()> closed;
};

// ioctls that TypeScript answers.
class Questions {
 public:
  uint64_t Keep(const RequestPtr& request);
  RequestPtr Take(uint64_t id);
  RequestPtr TakeByUnique(uint64_t unique);
  std::vector<RequestPtr> TakeAll();
  size_t size();

 private:
  std::mutex mutex_;
  uint64_t last_ = 0;
  std::unordered_map<uint64_t, RequestPtr> kept_;
};

inline constexpr char kDotLustreName[] = ".lustre";

struct Core {
  Core(std::shared_ptr<Store> store, SessionOptions options, SessionEvents events, UniqueFd fd)
      : store(std::move(store)),
        options(std::move(options)),
        events(std::move(events)),
        device(std::move(fd)),
        gate(std::make_shared<Gate>(&pool, this->options.max_held)) {}

  const std::shared_ptr<Store> store;
  const SessionOptions options;
  const SessionEvents events;
  Device device;
  Buffers buffers;
  Backings backings{&device};
  Nodes nodes{&backings};
  DirectoryFds directories;
  Table<Handle> files;
  Table<DirHandle> listings;
  Pool pool;
  const std::shared_ptr<Gate> gate;
  Notifier notifier{&device, &nodes, options.mount_point};
  Questions questions;
  std::atomic<bool> passthrough{false};
  std::array<std::atomic<uint64_t>, kOpcodes> counts{};
};

// How long the kernel may keep what nobody but us can change.
inline constexpr uint64_t kLongSeconds = 86400;

// ---- helpers of the operations

// The node of a request; null when answered already (ESTALE).
NodePtr NodeOf(Core& core, const Request& request);

// The attributes of a node as shown, by any fd of its inode.
int Attributes(Node& node, int fd, struct fuse_attr* out, bool* stable);
uint64_t AttributeSeconds(const Node& node, bool stable);

// Fills an entry answer for the inode behind `fd` and counts the lookup. `epoch`: of the notifier,
// before the name was resolved.
int FillEntry(Core& core, int fd, uint64_t epoch, fuse_entry_out* out, NodePtr* node);
// Answers with an entry; undoes the lookup when nobody took the answer.
void ReplyEntry(Core& core, const RequestPtr& request, const fuse_entry_out& entry);

// O_PATH|O_NOFOLLOW fd of a name in a directory.
UniqueFd OpenName(int directory, const char* name, int* error);

// The inode at a name, for who wants to tell it of a change; null when there is none.
std::shared_ptr<Inode> InodeAt(Core& core, int directory, const char* name);

// "/proc/self/fd/N": the way to calls that take no O_PATH fd.
std::string ProcPath(int fd);

// chmod by an O_PATH fd.
int Chmod(int fd, mode_t mode);

// setuid, setgid (with group execute) and capabilities go, as the kernel does it at a write by
// somebody without CAP_FSETID.
void StripPrivileges(Inode& inode, int fd);

// The thread acts as the caller of a request: what it creates is the caller's, under the caller's
// umask.
class AsCaller {
 public:
  AsCaller(const fuse_in_header& caller, uint32_t umask);
  ~AsCaller();
  AsCaller(const AsCaller&) = delete;
  AsCaller& operator=(const AsCaller&) = delete;
};

// ---- operations, by area
void OnLookup(Core& core, const RequestPtr& request);
void OnForget(Core& core, const RequestPtr& request);
void OnBatchForget(Core& core, const RequestPtr& request);

void OnGetattr(Core& core, const RequestPtr& request);
void OnSetattr(Core& core, const RequestPtr& request);
void OnStatfs(Core& core, const RequestPtr& request);

void OnOpendir(Core& core, const RequestPtr& request);
void OnReaddir(Core& core, const RequestPtr& request);
void OnReleasedir(Core& core, const RequestPtr& request);
void OnFsyncdir(Core& core, const RequestPtr& request);

void OnMknod(Core& core, const RequestPtr& request);
void OnMkdir(Core& core, const RequestPtr& request);
void OnSymlink(Core& core, const RequestPtr& request);
void OnReadlink(Core& core, const RequestPtr& request);
void OnLink(Core& core, const RequestPtr& request);
void OnUnlink(Core& core, const RequestPtr& request);
void OnRmdir(Core& core, const RequestPtr& request);
void OnRename(Core& core, const RequestPtr& request);
void OnRename2(Core& core, const RequestPtr& request);

void OnOpen(Core& core, const RequestPtr& request);
void OnCreate(Core& core, const RequestPtr& request);
void OnTmpfile(Core& core, const RequestPtr& request);
void OnRelease(Core& core, const RequestPtr& request);
// The end of a handle, on whatever thread; by RELEASE or at the end of the session.
void CloseFile(Core& core, const std::shared_ptr<Handle>& handle);

void OnRead(Core& core, const RequestPtr& request);
void OnWrite(Core& core, const RequestPtr& request);
void OnFsync(Core& core, const RequestPtr& request);
void OnFallocate(Core& core, const RequestPtr& request);
void OnLseek(Core& core, const RequestPtr& request);
void OnCopyFileRange(Core& core, const RequestPtr& request);
void OnSyncfs(Core& core, const RequestPtr& request);

void OnSetxattr(Core& core, const RequestPtr& request);
void OnGetxattr(Core& core, const RequestPtr& request);
void OnListxattr(Core& core, const RequestPtr& request);
void OnRemovexattr(Core& core, const RequestPtr& request);

void OnIoctl(Core& core, const RequestPtr& request);
void OnInterrupt(Core& core, const RequestPtr& request);
// Keeps a request that TypeScript answers; no id when its caller has given up.
std::optional<uint64_t> Question(Core& core, const RequestPtr& request);
// TypeScript's answer to a question.
void AnswerQuestion(Core& core, uint64_t id, int error);
// The same for a LinkAsked that has an answer; `path` is shorter than LUSTRITE_PATH_BYTES.
void AnswerLink(Core& core, uint64_t id, uint32_t links, const std::string& path);

// dot_lustre.cc: whether a request was about `.lustre`, and was answered.
bool ServeDotLustre(Core& core, const RequestPtr& request);
// A LOOKUP in `.lustre/fid` of an inode that has a name in the namespace.
void AnswerLookup(Core& core, const RequestPtr& request);

// print.cc: one line a request on stderr.
const char* OpcodeName(uint32_t opcode);
void PrintRequest(const Request& request);

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_CORE_H_
