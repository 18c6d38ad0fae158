// IOCTL: what `lfs` says (native/abi.h), and INTERRUPT. State and action are answered here; what
// changes something is TypeScript's to decide, and its caller waits meanwhile.
#include <fcntl.h>

#include <cerrno>

#include "core.h"

namespace lustrite::fuse {

namespace {

// A genuine `lfs` knows no other numbers (lustre-hsm 4.3).
static_assert(LL_IOC_HSM_STATE_GET == 0x802066d3);
static_assert(LL_IOC_HSM_STATE_SET == 0x401866d4);
static_assert(LL_IOC_HSM_ACTION == 0x801866dc);

Caller CallerOf(const Request& request) {
  const auto& header = request.header();
  return {CredentialsOf(header.uid, header.gid, request.pid()), request.pid()};
}

template <class Out>
void ReplyIoctl(Request& request, const Out& out) {
  fuse_ioctl_out head = {};
  request.ReplyParts({{&head, sizeof(head)}, {const_cast<Out*>(&out), sizeof(out)}});
}

// Whether the message carries the argument that the ioctl's number promises.
bool Carries(const Request& request, size_t size) {
  const auto& in = request.in<fuse_ioctl_in>();
  return in.in_size == size && request.after_size(sizeof(in)) >= size;
}

void StateSet(Core& core, const RequestPtr& request, const NodePtr& node) {
  const auto& in = request->in<fuse_ioctl_in>();
  auto handle = core.files.Find(in.fh);
  if (!handle || !Carries(*request, sizeof(struct hsm_state_set))) {
    request->ReplyError(handle ? EINVAL : EBADF);
    return;
  }
  HsmStateSet set{CallerOf(*request), node->fid, {}};
  memcpy(&set.change, request->after(sizeof(in)), sizeof(set.change));
  if (const auto id = Question(core, request)) core.events.state_set(*id, std::move(set));
}

void HsmAsk(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_ioctl_in>();
  HsmRequest ask{CallerOf(*request), {}};
  if (!Carries(*request, sizeof(ask.request))) {
    request->ReplyError(EINVAL);
    return;
  }
  memcpy(&ask.request, request->after(sizeof(in)), sizeof(ask.request));
  if (ask.request.count > LUSTRITE_REQUEST_FILES || ask.request.data_len > LUSTRITE_REQUEST_DATA) {
    request->ReplyError(EINVAL);
    return;
  }
  if (const auto id = Question(core, request)) core.events.request(*id, std::move(ask));
}

void LinkAsk(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_ioctl_in>();
  struct lustrite_fid2path ask;
  if (!Carries(*request, sizeof(ask)) || in.out_size < sizeof(ask)) {
    request->ReplyError(EINVAL);
    return;
  }
  if (request->header().uid != 0) {
    request->ReplyError(EPERM);
    return;
  }
  memcpy(&ask, request->after(sizeof(in)), sizeof(ask));
  const auto id = Question(core, request);
  if (id) core.events.link_asked(*id, LinkAsked{ask.fid, ask.link});
}

// The number that lustre-hsm 8 asks for: equal numbers, equal data; 0 without data.
void DataVersion(const RequestPtr& request, const NodePtr& node) {
  int error = 0;
  const UniqueFd fd = node->inode->OpenBacking(O_PATH | O_NOFOLLOW, &error);
  struct stat st;
  if (fd.ok() && fstat(fd.get(), &st) != 0) error = errno;
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  bool stable = false;
  node->inode->Show(&st, &stable);
  struct ioc_data_version version = {};
  const uint32_t states = node->inode->HsmState().hus_states;
  const auto ns = [](const struct timespec& time) {
    return static_cast<uint64_t>(time.tv_sec) * 1000000000u + static_cast<uint64_t>(time.tv_nsec);
  };
  if (!(states & HS_RELEASED) && (st.st_size > 0 || states != 0)) {
    version.idv_version =
        lustrite_data_version(static_cast<uint64_t>(st.st_size), ns(st.st_mtim), ns(st.st_ctim));
  }
  ReplyIoctl(*request, version);
}

}  // namespace

void OnIoctl(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_ioctl_in>();
  NodePtr node = NodeOf(core, *request);
  if (!node) {
    request->ReplyError(ESTALE);
    return;
  }
  const bool directory = in.flags & FUSE_IOCTL_DIR;
  const unsigned long command = in.cmd;
  if (command == LUSTRITE_IOC_REQUEST && directory && node->id == FUSE_ROOT_ID) {
    return HsmAsk(core, request);
  }
  if (command == LUSTRITE_IOC_FID2PATH && directory && node->id == FUSE_ROOT_ID) {
    return LinkAsk(core, request);
  }
  if (command == LL_IOC_HSM_STATE_SET && !directory) return StateSet(core, request, node);
  if (command == LL_IOC_DATA_VERSION && !directory) {
    if (in.out_size < sizeof(struct ioc_data_version)) {
      request->ReplyError(EINVAL);
      return;
    }
    request->Shrink();
    core.pool.Post([request, node] { DataVersion(request, node); });
    return;
  }
  const bool state = command == LL_IOC_HSM_STATE_GET;
  const size_t size = state ? sizeof(struct hsm_user_state) : sizeof(struct hsm_current_action);
  if (directory || (!state && command != LL_IOC_HSM_ACTION)) {
    request->ReplyError(ENOTTY);
    return;
  }
  if (in.out_size < size) {
    request->ReplyError(EINVAL);
    return;
  }
  if (!state) return ReplyIoctl(*request, node->inode->HsmAction());
  request->Shrink();
  core.pool.Post([request, node] { ReplyIoctl(*request, node->inode->HsmState()); });
}

void AnswerQuestion(Core& core, uint64_t id, int error) {
  RequestPtr request = core.questions.Take(id);
  if (!request) return;
  if (error != 0) {
    request->ReplyError(error);
  } else {
    request->Reply(fuse_ioctl_out{});
  }
}

void AnswerLink(Core& core, uint64_t id, uint32_t links, const std::string& path) {
  RequestPtr request = core.questions.Take(id);
  if (!request) return;
  if (request->opcode() == FUSE_LOOKUP) {
    core.pool.Post([&core, request] { AnswerLookup(core, request); });
    return;
  }
  struct lustrite_fid2path answer = {};
  if (path.size() >= sizeof(answer.path)) {
    request->ReplyError(ENAMETOOLONG);
    return;
  }
  answer.links = links;
  memcpy(answer.path, path.data(), path.size());
  ReplyIoctl(*request, answer);
}

void OnInterrupt(Core& core, const RequestPtr& request) {
  request->NoReply();
  const uint64_t unique = request->in<fuse_interrupt_in>().unique;
  // In this order: whoever keeps the question looks for the interrupt behind that.
  core.gate->Interrupt(unique);
  if (RequestPtr question = core.questions.TakeByUnique(unique)) question->ReplyError(EINTR);
}

std::optional<uint64_t> Question(Core& core, const RequestPtr& request) {
  const uint64_t unique = request->unique();
  const uint64_t id = core.questions.Keep(request);
  if (!core.gate->WasInterrupted(unique)) return id;
  if (RequestPtr question = core.questions.Take(id)) question->ReplyError(EINTR);
  return std::nullopt;
}

}  // namespace lustrite::fuse
