#include "store_object.h"

#include <sys/statfs.h>

#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "convert.h"
#include "main_thread.h"
#include "store_object_impl.h"

namespace lustrite {
namespace {

constexpr napi_type_tag kStoreTag = {0x6c757374726974e5, 0x73746f7265000001};

// So many as the event loop can do without hesitation.
constexpr size_t kChangesAtATime = 10'000;

Napi::FunctionReference& Constructor(Napi::Env env) {
  // One for each environment that loads the addon; they live as long as it does.
  static std::mutex mutex;
  static auto* all = new std::map<napi_env, Napi::FunctionReference>();
  const std::lock_guard<std::mutex> lock(mutex);
  return (*all)[env];
}

}  // namespace

Napi::Value Throw(Napi::Env env, int error, const std::string& what) {
  ErrnoError(env, error, what).ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Function StoreObject::Define(Napi::Env env) {
  using S = StoreObject;
  return DefineClass(env, "NativeStore",
                     {InstanceMethod<&S::Stats>("stats"),
                      InstanceMethod<&S::Close>("close"),
                      InstanceMethod<&S::FidOf>("fidOf"),
                      InstanceMethod<&S::State>("state"),
                      InstanceMethod<&S::Lookup>("lookup"),
                      InstanceMethod<&S::Statfs>("statfs"),
                      InstanceMethod<&S::CreateStubs>("createStubs"),
                      InstanceMethod<&S::SetAttributes>("setAttributes"),
                      InstanceMethod<&S::Extended>("extended"),
                      InstanceMethod<&S::ReplaceCopy>("replaceCopy"),
                      InstanceMethod<&S::Barrier>("barrier"),
                      InstanceMethod<&S::Remove>("remove"),
                      InstanceMethod<&S::StartWalk>("walk"),
                      InstanceMethod<&S::StartCensus>("census"),
                      InstanceMethod<&S::PathOf>("pathOf"),
                      InstanceMethod<&S::Readlink>("readlink"),
                      InstanceMethod<&S::BeginRestore>("beginRestore"),
                      InstanceMethod<&S::RestoreProgress>("restoreProgress"),
                      InstanceMethod<&S::RestoreCanceled>("restoreCanceled"),
                      InstanceMethod<&S::FinishRestore>("finishRestore"),
                      InstanceMethod<&S::FailRestore>("failRestore"),
                      InstanceMethod<&S::BeginArchive>("beginArchive"),
                      InstanceMethod<&S::ArchiveQuiet>("archiveQuiet"),
                      InstanceMethod<&S::FinishArchive>("finishArchive"),
                      InstanceMethod<&S::AbortArchive>("abortArchive"),
                      InstanceMethod<&S::Release>("release"),
                      InstanceMethod<&S::MayWrite>("mayWrite"),
                      InstanceMethod<&S::ChangeFlags>("changeFlags"),
                      InstanceMethod<&S::MarkModified>("markModified"),
                      InstanceMethod<&S::BeginRemove>("beginRemove"),
                      InstanceMethod<&S::ForgetCopy>("forgetCopy"),
                      InstanceMethod<&S::ShowAction>("showAction"),
                      InstanceMethod<&S::ReplaceEntry>("replaceEntry"),
                      InstanceMethod<&S::Renames>("renames"),
                      InstanceMethod<&S::SetNonBlockingRestore>("setNonBlockingRestore"),
                      InstanceMethod<&S::EverRenamed>("everRenamed"),
                      InstanceMethod<&S::Orphans>("orphans"),
                      InstanceMethod<&S::OpenBeneathPath>("openBeneath"),
                      InstanceMethod<&S::OpenHandle>("openHandle"),
                      InstanceMethod<&S::AdmitRead>("admitRead"),
                      InstanceMethod<&S::AdmitWrite>("admitWrite"),
                      InstanceMethod<&S::CloseHandle>("closeHandle"),
                      InstanceMethod<&S::Truncate>("truncate"),
                      InstanceMethod<&S::SetTimes>("setTimes"),
                      InstanceMethod<&S::Rename>("rename"),
                      InstanceMethod<&S::UnlinkName>("unlinkName"),
                      InstanceMethod<&S::SetTellGone>("setTellGone"),
                      InstanceMethod<&S::SetTellChanges>("setTellChanges"),
                      InstanceMethod<&S::TakeChanges>("takeChanges"),
                      InstanceMethod<&S::Link>("link"),
                      InstanceMethod<&S::Stat>("stat")});
}

Napi::Value StoreObject::Wrap(Napi::Env env, std::shared_ptr<StoreImpl> store) {
  Napi::Object object = Constructor(env).New({});
  object.TypeTag(&kStoreTag);
  StoreObject* self = Unwrap(object);
  self->store_ = std::move(store);
  self->handles_ = std::make_shared<PathHandles>(self->store_);
  const ProbeResult& probe = self->store_->probe();
  Napi::Object shown = Napi::Object::New(env);
  shown.Set("fileSystem", probe.file_system);
  shown.Set("handles", probe.handles);
  shown.Set("leases", probe.leases);
  shown.Set("punchHole", probe.punch_hole);
  shown.Set("xattrRoom", static_cast<double>(probe.xattr_room));
  shown.Set("privileged", probe.privileged);
  object.Set("probe", shown);
  return object;
}

Napi::Value StoreObject::OnInode(const Info& info, const char* what,
                                 std::function<int(StoreImpl&, InodeImpl&)> work) {
  Fid fid;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  return RunOnPool<Nothing>(
      info.Env(), store_, what + (" " + ToString(fid)),
      [store = store_, fid, work = std::move(work)](Nothing&) {
        int error = 0;
        const std::shared_ptr<InodeImpl> inode = store->GetImpl(fid, &error);
        return inode == nullptr ? error : work(*store, *inode);
      },
      ToUndefined);
}

Napi::Value StoreObject::OnPath(const Info& info, const std::string& what,
                                std::function<int()> work) {
  return RunOnPool<Nothing>(
      info.Env(), store_, what, [work = std::move(work)](Nothing&) { return work(); }, ToUndefined);
}

Napi::Value StoreObject::Stats(const Info& info) {
  Napi::Object stats = Napi::Object::New(info.Env());
  for (const auto& [name, value] : store_->Stats()) stats.Set(name, value);
  stats.Set("pathHandles", static_cast<double>(handles_->Count()));
  return stats;
}

Napi::Value StoreObject::Close(const Info& info) {
  const Promised<Nothing> promised(info.Env(), "close", ToUndefined);
  closed_ = true;
  // Not on a thread of the store, whose threads it joins.
  std::thread([store = store_, promised] {
    store->Close();
    promised.Settle(0, {});
  }).detach();
  return promised.Promise();
}

Napi::Value StoreObject::Statfs(const Info& info) {
  const Napi::Env env = info.Env();
  struct statfs fs = {};
  if (fstatfs(store_->root(), &fs) != 0) return Throw(env, errno, "statfs");
  Napi::Object object = Napi::Object::New(env);
  object.Set("bsize", static_cast<double>(fs.f_bsize));
  object.Set("blocks", Napi::BigInt::New(env, static_cast<uint64_t>(fs.f_blocks)));
  object.Set("bfree", Napi::BigInt::New(env, static_cast<uint64_t>(fs.f_bfree)));
  object.Set("bavail", Napi::BigInt::New(env, static_cast<uint64_t>(fs.f_bavail)));
  object.Set("files", Napi::BigInt::New(env, static_cast<uint64_t>(fs.f_files)));
  object.Set("ffree", Napi::BigInt::New(env, static_cast<uint64_t>(fs.f_ffree)));
  return object;
}

Napi::Value StoreObject::Barrier(const Info& info) {
  return OnPath(info, "barrier", [store = store_] { return store->Barrier(); });
}

Napi::Value StoreObject::SetTellGone(const Info& info) {
  store_->SetTellGone(info[0].ToBoolean());
  return info.Env().Undefined();
}

Napi::Value StoreObject::SetTellChanges(const Info& info) {
  store_->changes().SetOn(info[0].ToBoolean());
  return info.Env().Undefined();
}

Napi::Value StoreObject::TakeChanges(const Info& info) {
  const Napi::Env env = info.Env();
  uint64_t lost = 0;
  const std::vector<Change> taken = store_->changes().Take(kChangesAtATime, &lost);
  Napi::Array changes = Napi::Array::New(env, taken.size());
  for (uint32_t i = 0; i < taken.size(); i++) {
    const Napi::HandleScope scope(env);
    changes.Set(i, ToJs(env, taken[i]));
  }
  Napi::Object all = Napi::Object::New(env);
  all.Set("changes", changes);
  all.Set("lost", static_cast<double>(lost));
  return all;
}

namespace {

Napi::Value OpenStore(const Info& info) {
  const Napi::Env env = info.Env();
  std::string path;
  if (!TextFromJs(info[0], &path) || !info[1].IsObject()) {
    return env.IsExceptionPending() ? env.Undefined() : Throw(env, EINVAL, "openStore");
  }
  using Opened = std::shared_ptr<StoreImpl>;
  // Only ever used on JavaScript's thread; the store's threads pass it along without touching it.
  auto* events = new Napi::ObjectReference(Napi::Persistent(info[1].As<Napi::Object>()));
  events->SuppressDestruct();
  const std::shared_ptr<MainThread> main = MainThread::Of(env);
  const auto tell = [events](const char* name, const std::vector<napi_value>& arguments) {
    const Napi::Object target = events->Value();
    const Napi::Value callback = target.Get(name);
    if (callback.IsFunction()) callback.As<Napi::Function>().Call(target, arguments);
  };
  RestoreNeeded needed = [main, tell](const Fid& fid, pid_t pid) {
    main->Post([tell, fid, pid](Napi::Env inner) {
      tell("restoreNeeded", {ToJs(inner, fid), Napi::Number::New(inner, static_cast<double>(pid))});
    });
  };
  FileGone gone = [main, tell](const Fid& fid, const Record& record) {
    main->Post([tell, fid, copy = *record.copy, archive = record.archive_id](Napi::Env inner) {
      tell("fileGone", {ToJs(inner, fid), ToJs(inner, copy), Napi::Number::New(inner, archive)});
    });
  };
  std::function<void()> changed = [main, tell] {
    main->Post([tell](Napi::Env) { tell("changed", {}); });
  };
  const Promised<Opened> promised(env, path, [](Napi::Env inner, Opened& store) {
    return StoreObject::Wrap(inner, std::move(store));
  });
  std::thread([path, needed = std::move(needed), gone = std::move(gone),
               changed = std::move(changed), promised] {
    EnterThread("lustrite-open");
    int error = 0;
    std::string why;
    Opened store = StoreImpl::Open(path, needed, gone, changed, &error, &why);
    if (error != 0 && !why.empty()) {
      promised.Fail(error, path + ": " + why);
    } else {
      promised.Settle(error, std::move(store));
    }
  }).detach();
  return promised.Promise();
}

}  // namespace

std::shared_ptr<Store> StoreOf(const Napi::Value& value) {
  if (!value.IsObject()) return nullptr;
  const Napi::Object object = value.As<Napi::Object>();
  if (!object.CheckTypeTag(&kStoreTag)) return nullptr;
  return StoreObject::Unwrap(object)->store();
}

std::string ErrnoName(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : "E" + std::to_string(error);
}

Napi::Error ErrnoError(Napi::Env env, int error, const std::string& what) {
  const std::string code = ErrnoName(error);
  Napi::Error result = Napi::Error::New(env, code + ": " + what + ": " + strerror(error));
  result.Set("errno", Napi::Number::New(env, error));
  result.Set("code", Napi::String::New(env, code));
  return result;
}

void AddStore(Napi::Env env, Napi::Object exports) {
  Constructor(env) = Napi::Persistent(StoreObject::Define(env));
  Constructor(env).SuppressDestruct();
  exports.Set("openStore", Napi::Function::New(env, OpenStore, "openStore"));
}

}  // namespace lustrite
