// The states of files, and what movers do to them.
#include <fcntl.h>

#include <utility>

#include "convert.h"
#include "main_thread.h"
#include "store_object_impl.h"

namespace lustrite {

Napi::Value StoreObject::BeginRestore(const Info& info) {
  Fid fid;
  std::optional<Copy> copy;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  if (info[1].IsObject() && !FromJs(info[1], &copy.emplace())) return info.Env().Undefined();
  struct Plan {
    int fd = -1;
    uint64_t size = 0;
  };
  return RunOnPool<Plan>(
      info.Env(), store_, "beginRestore " + ToString(fid),
      [store = store_, fid, copy = std::move(copy)](Plan& plan) {
        int error = 0;
        const std::shared_ptr<InodeImpl> inode = store->GetImpl(fid, &error);
        if (inode != nullptr) error = inode->BeginRestore(copy, &plan.fd, &plan.size);
        return error == ESTALE ? ENOENT : error;
      },
      [](Napi::Env env, Plan& plan) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("fd", plan.fd);
        object.Set("size", static_cast<double>(plan.size));
        return object;
      });
}

Napi::Value StoreObject::RestoreProgress(const Info& info) {
  Fid fid;
  double bytes = 0;
  if (!FromJs(info[0], &fid) || !NumberFromJs(info[1], &bytes)) return info.Env().Undefined();
  if (const std::shared_ptr<InodeImpl> inode = store_->Find(fid)) {
    inode->RestoreProgress(static_cast<uint64_t>(bytes));
  }
  return info.Env().Undefined();
}

Napi::Value StoreObject::RestoreCanceled(const Info& info) {
  Fid fid;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  if (const std::shared_ptr<InodeImpl> inode = store_->Find(fid)) inode->RestoreCanceled();
  return info.Env().Undefined();
}

Napi::Value StoreObject::FinishRestore(const Info& info) {
  Fid fid;
  Copy copy;
  if (!FromJs(info[0], &fid) || !FromJs(info[1], &copy)) return info.Env().Undefined();
  const Promised<Nothing> promised(info.Env(), "finishRestore " + ToString(fid), ToUndefined);
  const bool posted = store_->pool().Post([store = store_, fid, copy, promised] {
    int error = 0;
    const std::shared_ptr<InodeImpl> inode = store->GetImpl(fid, &error);
    if (inode == nullptr) {
      promised.Settle(error, {});
      return;
    }
    inode->FinishRestore(copy, [promised](int failed) { promised.Settle(failed, {}); });
  });
  if (!posted) promised.Settle(ENOTCONN, {});
  return promised.Promise();
}

Napi::Value StoreObject::FailRestore(const Info& info) {
  double error = 0;
  if (!NumberFromJs(info[1], &error)) return info.Env().Undefined();
  return OnInode(info, "failRestore", [error](StoreImpl&, InodeImpl& inode) {
    return inode.FailRestore(static_cast<int>(error));
  });
}

Napi::Value StoreObject::BeginArchive(const Info& info) {
  Fid fid;
  double archive_id = 0;
  if (!FromJs(info[0], &fid) || !NumberFromJs(info[1], &archive_id)) {
    return info.Env().Undefined();
  }
  struct Begun {
    ArchivePlan plan;
    std::shared_ptr<InodeImpl> inode;
  };
  return RunOnPool<Begun>(
      info.Env(), store_, "beginArchive " + ToString(fid),
      [store = store_, fid, archive_id](Begun& begun) {
        int error = 0;
        begun.inode = store->GetImpl(fid, &error);
        if (begun.inode != nullptr) {
          error = begun.inode->BeginArchive(static_cast<uint32_t>(archive_id), &begun.plan);
        }
        return error == ESTALE ? ENOENT : error;
      },
      [archives = archives_](Napi::Env env, Begun& begun) -> Napi::Value {
        const double token = archives->next++;
        archives->inodes[token] = begun.inode;
        const struct stat& st = begun.plan.st;
        Napi::Object object = Napi::Object::New(env);
        object.Set("token", token);
        object.Set("fd", begun.plan.fd);
        object.Set("size", static_cast<double>(st.st_size));
        object.Set("mode", static_cast<double>(st.st_mode & 07777));
        object.Set("uid", static_cast<double>(st.st_uid));
        object.Set("gid", static_cast<double>(st.st_gid));
        object.Set("mtimeNs", ToNs(env, st.st_mtim));
        if (begun.plan.copy) object.Set("copy", ToJs(env, *begun.plan.copy));
        return object;
      });
}

Napi::Value StoreObject::ArchiveQuiet(const Info& info) {
  double token = 0;
  if (!NumberFromJs(info[0], &token)) return info.Env().Undefined();
  const auto found = archives_->inodes.find(token);
  const bool quiet = found != archives_->inodes.end() && found->second->ArchiveQuiet();
  return Napi::Boolean::New(info.Env(), quiet);
}

Napi::Value StoreObject::FinishArchive(const Info& info) {
  double token = 0;
  Copy copy;
  if (!NumberFromJs(info[0], &token) || !FromJs(info[1], &copy)) return info.Env().Undefined();
  const bool partly =
      info[2].IsObject() && info[2].As<Napi::Object>().Get("partly").ToBoolean().Value();
  const auto found = archives_->inodes.find(token);
  const Promised<bool> promised(
      info.Env(), "finishArchive", [partly](Napi::Env env, bool& quiet) -> Napi::Value {
        return Napi::String::New(env, !quiet ? "dirty" : partly ? "partly" : "clean");
      });
  if (found == archives_->inodes.end()) {
    promised.Settle(EINVAL, false);
    return promised.Promise();
  }
  const std::shared_ptr<InodeImpl> inode = std::move(found->second);
  archives_->inodes.erase(found);
  const bool posted = store_->pool().Post([inode, copy, partly, promised] {
    inode->FinishArchive(copy, partly,
                         [promised](int error, bool quiet) { promised.Settle(error, quiet); });
  });
  if (!posted) promised.Settle(ENOTCONN, false);
  return promised.Promise();
}

Napi::Value StoreObject::AbortArchive(const Info& info) {
  double token = 0;
  if (!NumberFromJs(info[0], &token)) return info.Env().Undefined();
  const auto found = archives_->inodes.find(token);
  std::shared_ptr<InodeImpl> inode;
  if (found != archives_->inodes.end()) {
    inode = std::move(found->second);
    archives_->inodes.erase(found);
  }
  return OnPath(info, "abortArchive", [inode] {
    if (inode != nullptr) inode->AbortArchive();
    return 0;
  });
}

Napi::Value StoreObject::Release(const Info& info) {
  return OnInode(info, "release", [](StoreImpl&, InodeImpl& inode) { return inode.Release(); });
}

Napi::Value StoreObject::MayWrite(const Info& info) {
  Credentials who;
  if (!FromJs(info[1], &who)) return info.Env().Undefined();
  return OnInode(info, "mayWrite", [who = std::move(who)](StoreImpl&, InodeImpl& inode) {
    int error = 0;
    const UniqueFd fd = inode.OpenBacking(O_PATH | O_NOFOLLOW, &error);
    return error != 0 ? error : lustrite::MayWrite(fd.get(), who);
  });
}

Napi::Value StoreObject::ChangeFlags(const Info& info) {
  double set = 0, clear = 0, archive_id = 0;
  if (!NumberFromJs(info[1], &set) || !NumberFromJs(info[2], &clear) ||
      !NumberFromJs(info[3], &archive_id)) {
    return info.Env().Undefined();
  }
  if (set > 0x7f || clear > 0x7f) return Throw(info.Env(), EINVAL, "flags");
  return OnInode(info, "changeFlags", [set, clear, archive_id](StoreImpl&, InodeImpl& inode) {
    return inode.ChangeFlags(static_cast<uint8_t>(set), static_cast<uint8_t>(clear),
                             static_cast<uint32_t>(archive_id));
  });
}

Napi::Value StoreObject::MarkModified(const Info& info) {
  return OnInode(info, "markModified",
                 [](StoreImpl&, InodeImpl& inode) { return inode.MarkModified(); });
}

Napi::Value StoreObject::BeginRemove(const Info& info) {
  return OnInode(info, "beginRemove",
                 [](StoreImpl&, InodeImpl& inode) { return inode.BeginRemove(); });
}

Napi::Value StoreObject::ForgetCopy(const Info& info) {
  return OnInode(info, "forgetCopy",
                 [](StoreImpl&, InodeImpl& inode) { return inode.ForgetCopy(); });
}

Napi::Value StoreObject::ShowAction(const Info& info) {
  Fid fid;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  if (!info[1].IsObject()) {
    store_->ShowAction(fid, nullptr);
    return info.Env().Undefined();
  }
  const Napi::Object object = info[1].As<Napi::Object>();
  double state = 0, action = 0;
  if (!NumberFromJs(object.Get("state"), &state) || !NumberFromJs(object.Get("action"), &action)) {
    return info.Env().Undefined();
  }
  bool lossless = false;
  struct hsm_current_action shown = {};
  shown.hca_state = static_cast<uint32_t>(state);
  shown.hca_action = static_cast<uint32_t>(action);
  const Napi::Value offset = object.Get("offset");
  const Napi::Value length = object.Get("length");
  if (offset.IsBigInt()) shown.hca_offset = offset.As<Napi::BigInt>().Uint64Value(&lossless);
  if (length.IsBigInt()) shown.hca_length = length.As<Napi::BigInt>().Uint64Value(&lossless);
  store_->ShowAction(fid, &shown);
  return info.Env().Undefined();
}

Napi::Value StoreObject::SetNonBlockingRestore(const Info& info) {
  store_->SetNonBlockingRestore(info[0].ToBoolean());
  return info.Env().Undefined();
}

}  // namespace lustrite
