// IOCTL: what `lfs` says (native/abi.h), and INTERRUPT. State and action are answered here; what
// changes something is TypeScript's to decide, and its caller waits meanwhile.
#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "core.h"

namespace lustrite::fuse {

namespace {

// The kernel's numbers of the calling task's groups; none when it is gone.
std::vector<uint32_t> GroupsOf(pid_t pid) {
  std::vector<uint32_t> groups;
  const std::string path = "/proc/" + std::to_string(pid) + "/status";
  FILE* file = fopen(path.c_str(), "re");
  if (!file) return groups;
  char* line = nullptr;
  size_t room = 0;
  while (getline(&line, &room, file) > 0) {
    if (strncmp(line, "Groups:", 7) != 0) continue;
    char* at = line + 7;
    for (;;) {
      char* end = nullptr;
      const unsigned long group = strtoul(at, &end, 10);
      if (end == at) break;
      groups.push_back(static_cast<uint32_t>(group));
      at = end;
    }
    break;
  }
  free(line);
  fclose(file);
  return groups;
}

Caller CallerOf(const Request& request) {
  const auto& header = request.header();
  return {header.uid, header.gid, static_cast<int32_t>(header.pid), GroupsOf(request.pid())};
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
  // lustre-hsm 2.2: setting and clearing flags needs write permission on the file.
  if ((handle->flags & O_ACCMODE) == O_RDONLY) {
    request->ReplyError(EPERM);
    return;
  }
  HsmStateSet set{CallerOf(*request), node->fid, {}};
  memcpy(&set.change, request->after(sizeof(in)), sizeof(set.change));
  core.events.state_set(core.questions.Keep(request), std::move(set));
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
  core.events.request(core.questions.Keep(request), std::move(ask));
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
  if (command == LL_IOC_HSM_STATE_SET && !directory) return StateSet(core, request, node);
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

void OnInterrupt(Core& core, const RequestPtr& request) {
  request->NoReply();
  const uint64_t unique = request->in<fuse_interrupt_in>().unique;
  if (RequestPtr question = core.questions.TakeByUnique(unique)) {
    question->ReplyError(EINTR);
    return;
  }
  core.gate->Interrupt(unique);
}

}  // namespace lustrite::fuse
