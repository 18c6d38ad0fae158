// LOOKUP, FORGET.
#include <cerrno>

#include "core.h"

namespace lustrite::fuse {

void OnLookup(Core& core, const RequestPtr& request) {
  const char* name = request->Name(0);
  NodePtr parent = NodeOf(core, *request);
  if (!name || !parent) {
    request->ReplyError(ESTALE);
    return;
  }
  int error = 0;
  const uint64_t epoch = core.notifier.entry_epoch();
  DirectoryFds::Fd directory = core.directories.Get(*parent, &error);
  UniqueFd fd;
  if (directory) fd = OpenName(directory->get(), name, &error);
  fuse_entry_out entry = {};
  if (error == 0) error = FillEntry(core, fd.get(), epoch, &entry, nullptr);
  if (error == 0) return ReplyEntry(core, request, entry);
  if (error != ENOENT && error != ESTALE) {
    request->ReplyError(error);
    return;
  }
  // Node id 0: the kernel remembers that the name is free.
  entry = {};
  entry.entry_valid = epoch == core.notifier.entry_epoch() ? kLongSeconds : 0;
  request->Reply(entry);
}

void OnForget(Core& core, const RequestPtr& request) {
  request->NoReply();
  core.nodes.Forget(request->nodeid(), request->in<fuse_forget_in>().nlookup);
  if (!core.nodes.Find(request->nodeid())) core.directories.Forget(request->nodeid());
}

void OnBatchForget(Core& core, const RequestPtr& request) {
  request->NoReply();
  const uint32_t count = request->in<fuse_batch_forget_in>().count;
  const auto* ones =
      reinterpret_cast<const fuse_forget_one*>(request->after(sizeof(fuse_batch_forget_in)));
  if (request->after_size(sizeof(fuse_batch_forget_in)) / sizeof(*ones) < count) return;
  for (uint32_t i = 0; i < count; i++) {
    core.nodes.Forget(ones[i].nodeid, ones[i].nlookup);
    if (!core.nodes.Find(ones[i].nodeid)) core.directories.Forget(ones[i].nodeid);
  }
}

}  // namespace lustrite::fuse
