#include "store_object.h"

#include <fcntl.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

#include "../store/beneath.h"
#include "../store/entries.h"
#include "../store/stubs.h"
#include "../store/walk.h"
#include "convert.h"
#include "main_thread.h"
#include "path_handles.h"

namespace lustrite {
namespace {

constexpr napi_type_tag kStoreTag = {0x6c757374726974e5, 0x73746f7265000001};

using Info = Napi::CallbackInfo;

// So many as the event loop can do without hesitation.
constexpr size_t kChangesAtATime = 10'000;

// "" where it does not fit.
std::string KernelPath(int fd) {
  char text[PATH_MAX + 64];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = readlink(link.c_str(), text, sizeof text);
  return size < 0 || size == sizeof text ? std::string() : std::string(text, size);
}

class StoreObject : public Napi::ObjectWrap<StoreObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  static Napi::Value Wrap(Napi::Env env, std::shared_ptr<StoreImpl> store);
  explicit StoreObject(const Info& info) : ObjectWrap(info) {}
  ~StoreObject() override {
    if (store_ != nullptr) store_->Close();
  }
  std::shared_ptr<StoreImpl> store() const { return closed_ ? nullptr : store_; }

 private:
  Napi::Value Stats(const Info& info);
  Napi::Value Close(const Info& info);
  Napi::Value FidOf(const Info& info);
  Napi::Value PathOf(const Info& info);
  Napi::Value State(const Info& info);
  Napi::Value Lookup(const Info& info);
  Napi::Value Statfs(const Info& info);
  Napi::Value CreateStubs(const Info& info);
  Napi::Value SetAttributes(const Info& info);
  Napi::Value Extended(const Info& info);
  Napi::Value ReplaceCopy(const Info& info);
  Napi::Value Barrier(const Info& info);
  Napi::Value Remove(const Info& info);
  Napi::Value StartWalk(const Info& info);
  Napi::Value StartCensus(const Info& info);
  Napi::Value Readlink(const Info& info);
  Napi::Value BeginRestore(const Info& info);
  Napi::Value RestoreProgress(const Info& info);
  Napi::Value FinishRestore(const Info& info);
  Napi::Value FailRestore(const Info& info);
  Napi::Value BeginArchive(const Info& info);
  Napi::Value ArchiveQuiet(const Info& info);
  Napi::Value FinishArchive(const Info& info);
  Napi::Value AbortArchive(const Info& info);
  Napi::Value Release(const Info& info);
  Napi::Value MayWrite(const Info& info);
  Napi::Value ChangeFlags(const Info& info);
  Napi::Value MarkModified(const Info& info);
  Napi::Value BeginRemove(const Info& info);
  Napi::Value ForgetCopy(const Info& info);
  Napi::Value ShowAction(const Info& info);
  Napi::Value ReplaceEntry(const Info& info);
  Napi::Value Renames(const Info& info);
  Napi::Value SetNonBlockingRestore(const Info& info);
  Napi::Value EverRenamed(const Info& info);
  Napi::Value Orphans(const Info& info);
  Napi::Value OpenBeneathPath(const Info& info);
  Napi::Value OpenHandle(const Info& info);
  Napi::Value AdmitRead(const Info& info);
  Napi::Value AdmitWrite(const Info& info);
  Napi::Value CloseHandle(const Info& info);
  Napi::Value Truncate(const Info& info);
  Napi::Value SetTimes(const Info& info);
  Napi::Value Rename(const Info& info);
  Napi::Value UnlinkName(const Info& info);
  Napi::Value SetTellGone(const Info& info);
  Napi::Value SetTellChanges(const Info& info);
  Napi::Value TakeChanges(const Info& info);
  Napi::Value Link(const Info& info);
  Napi::Value Stat(const Info& info);

  // A promise of nothing: `work` on the inode of the FID in argument 0, on a thread of the store.
  Napi::Value OnInode(const Info& info, const char* what,
                      std::function<int(StoreImpl&, InodeImpl&)> work);
  // A promise of nothing without an inode.
  Napi::Value OnPath(const Info& info, const std::string& what, std::function<int()> work);

  std::shared_ptr<StoreImpl> store_;
  std::shared_ptr<PathHandles> handles_;
  bool closed_ = false;
  // Running archives by token; only JavaScript's thread looks into it.
  struct Archives {
    double next = 1;
    std::map<double, std::shared_ptr<InodeImpl>> inodes;
  };
  const std::shared_ptr<Archives> archives_ = std::make_shared<Archives>();
};

Napi::FunctionReference& Constructor(Napi::Env env) {
  // One for each environment that loads the addon; they live as long as it does.
  static std::mutex mutex;
  static auto* all = new std::map<napi_env, Napi::FunctionReference>();
  const std::lock_guard<std::mutex> lock(mutex);
  return (*all)[env];
}

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

Napi::Value StoreObject::FidOf(const Info& info) {
  std::string path;
  if (!TextFromJs(info[0], &path)) return info.Env().Undefined();
  int error = 0;
  Fid fid;
  const UniqueFd fd = OpenBeneath(store_->root(), path, O_PATH, 0, &error);
  if (error == 0) error = store_->handles().FidOf(fd.get(), &fid);
  if (error != 0) return Throw(info.Env(), error, path);
  return ToJs(info.Env(), fid);
}

Napi::Value StoreObject::State(const Info& info) {
  Fid fid;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  return RunOnPool<FileState>(
      info.Env(), store_, "state " + ToString(fid),
      [store = store_, fid](FileState& state) {
        int error = 0;
        const std::shared_ptr<InodeImpl> inode = store->GetImpl(fid, &error);
        if (inode != nullptr) error = inode->State(&state);
        return error == ESTALE ? ENOENT : error;
      },
      [](Napi::Env env, FileState& state) {
        return StatesToJs(env, {&state}).As<Napi::Array>().Get(0u);
      });
}

Napi::Value StoreObject::Lookup(const Info& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArray()) return Throw(env, EINVAL, "lookup");
  const Napi::Array given = info[0].As<Napi::Array>();
  std::vector<std::string> paths(given.Length());
  for (uint32_t i = 0; i < given.Length(); i++) {
    if (!TextFromJs(given.Get(i), &paths[i])) return env.Undefined();
  }
  using States = std::vector<std::optional<FileState>>;
  return RunOnPool<States>(
      env, store_, "lookup",
      [store = store_, paths = std::move(paths)](States& states) {
        for (const std::string& path : paths) {
          int error = 0;
          const UniqueFd fd = OpenBeneath(store->root(), path, O_PATH, 0, &error);
          FileState state;
          if (error == 0) error = StateOf(*store, fd.get(), &state);
          switch (error) {
            case 0:
              states.emplace_back(std::move(state));
              break;
            case ENOENT:
            case ENOTDIR:
            case ELOOP:
            case ESTALE:
            case EINVAL:
            case ENAMETOOLONG:
              states.emplace_back();
              break;
            default:
              return error;
          }
        }
        return 0;
      },
      [](Napi::Env inner, States& states) -> Napi::Value {
        std::vector<const FileState*> found;
        for (const std::optional<FileState>& state : states) {
          if (state) found.push_back(&*state);
        }
        const Napi::Array built = StatesToJs(inner, found).As<Napi::Array>();
        Napi::Array all = Napi::Array::New(inner, states.size());
        uint32_t next = 0;
        for (uint32_t i = 0; i < states.size(); i++) {
          all.Set(i, states[i] ? built.Get(next++) : inner.Undefined());
        }
        return all;
      });
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

Napi::Value StoreObject::CreateStubs(const Info& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsArray()) return Throw(env, EINVAL, "createStubs");
  const Napi::Array given = info[0].As<Napi::Array>();
  std::vector<Stub> stubs(given.Length());
  for (uint32_t i = 0; i < given.Length(); i++) {
    const Napi::HandleScope scope(env);
    if (!FromJs(given.Get(i), &stubs[i])) return env.Undefined();
  }
  StubDefaults defaults;
  if (!FromJs(info[1], &defaults)) return env.Undefined();
  using Results = std::vector<StubResult>;
  return RunOnPool<Results>(
      env, store_, "createStubs",
      [store = store_, stubs = std::move(stubs), defaults](Results& results) {
        StubMaker maker(*store, defaults);
        results.reserve(stubs.size());
        for (const Stub& stub : stubs) results.push_back(maker.Make(stub));
        return 0;
      },
      [](Napi::Env inner, Results& results) -> Napi::Value {
        Napi::Array all = Napi::Array::New(inner, results.size());
        std::vector<const FileState*> existing;
        for (const StubResult& result : results) {
          if (result.kind == StubResult::kExists) existing.push_back(&result.state);
        }
        const Napi::Array states = StatesToJs(inner, existing).As<Napi::Array>();
        uint32_t next = 0;
        for (uint32_t i = 0; i < results.size(); i++) {
          const Napi::HandleScope scope(inner);
          const StubResult& result = results[i];
          Napi::Object object = Napi::Object::New(inner);
          switch (result.kind) {
            case StubResult::kCreated:
              object.Set("kind", "created");
              object.Set("fid", ToJs(inner, result.fid));
              break;
            case StubResult::kExists:
              object.Set("kind", "exists");
              object.Set("state", states.Get(next++));
              break;
            case StubResult::kFailed:
              object.Set("kind", "failed");
              object.Set("errno", result.error);
              object.Set("code", ErrnoName(result.error));
              break;
          }
          all.Set(i, object);
        }
        return all;
      });
}

Napi::Value StoreObject::SetAttributes(const Info& info) {
  std::string path;
  Attributes attributes;
  if (!TextFromJs(info[0], &path) || !FromJs(info[1], &attributes)) return info.Env().Undefined();
  return OnPath(info, path, [store = store_, path, attributes] {
    return lustrite::SetAttributes(*store, path, attributes);
  });
}

Napi::Value StoreObject::Extended(const Info& info) {
  std::string path, name;
  if (!TextFromJs(info[0], &path) || !TextFromJs(info[1], &name)) return info.Env().Undefined();
  using Value = std::optional<std::string>;
  return RunOnPool<Value>(
      info.Env(), store_, path,
      [store = store_, path, name](Value& value) {
        int error = 0;
        const UniqueFd fd = OpenBeneath(store->root(), path, O_PATH, 0, &error);
        if (error != 0) return error;
        std::string found;
        error = GetExtended(fd.get(), name, &found);
        if (error == 0) value = std::move(found);
        return error == ENODATA ? 0 : error;
      },
      [](Napi::Env env, Value& value) -> Napi::Value {
        if (!value) return env.Undefined();
        return Napi::Buffer<char>::Copy(env, value->data(), value->size());
      });
}

Napi::Value StoreObject::ReplaceCopy(const Info& info) {
  Stub stub;
  if (!FromJs(info[1], &stub)) return info.Env().Undefined();
  if (stub.kind == StubKind::kDirectory || !stub.copy) {
    return Throw(info.Env(), EINVAL, "replaceCopy " + stub.path);
  }
  if (stub.kind == StubKind::kSymlink) {
    return OnInode(info, "replaceCopy", [copy = *stub.copy](StoreImpl&, InodeImpl& inode) {
      return inode.RecordCopy(copy);
    });
  }
  NewCopy with;
  if (info[2].IsObject()) {
    const Napi::Object options = info[2].As<Napi::Object>();
    with.lost = options.Get("lost").ToBoolean();
    const Napi::Value durable = options.Get("durable");
    with.durable = durable.IsUndefined() || durable.ToBoolean();
  }
  with.copy = *stub.copy;
  with.size = stub.size;
  with.mtime = stub.mtime;
  with.mode = stub.mode & 07777;
  with.uid = stub.uid;
  with.gid = stub.gid;
  with.extended = stub.extended;
  return OnInode(info, "replaceCopy",
                 [with](StoreImpl&, InodeImpl& inode) { return inode.ReplaceCopy(with); });
}

Napi::Value StoreObject::Barrier(const Info& info) {
  return OnPath(info, "barrier", [store = store_] { return store->Barrier(); });
}

Napi::Value StoreObject::ReplaceEntry(const Info& info) {
  Fid fid;
  Stub stub;
  if (!FromJs(info[0], &fid) || !FromJs(info[1], &stub)) return info.Env().Undefined();
  return RunOnPool<Fid>(
      info.Env(), store_, "replaceEntry " + stub.path,
      [store = store_, fid, stub](Fid& made) {
        const StubResult result = StubMaker(*store, {}).Replace(stub, fid);
        made = result.fid;
        return result.error;
      },
      [](Napi::Env inner, Fid& made) -> Napi::Value { return ToJs(inner, made); });
}

Napi::Value StoreObject::Remove(const Info& info) {
  std::string path;
  Fid fid;
  if (!TextFromJs(info[0], &path) || !FromJs(info[1], &fid)) return info.Env().Undefined();
  const bool only_clean =
      info[2].IsObject() && info[2].As<Napi::Object>().Get("onlyClean").ToBoolean();
  return OnPath(info, path, [store = store_, path, fid, only_clean] {
    return RemoveEntry(*store, path, fid, only_clean);
  });
}

Napi::Value StoreObject::StartWalk(const Info& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) return Throw(env, EINVAL, "walk");
  const Napi::Object options = info[0].As<Napi::Object>();
  std::string path;
  std::string select;
  double batch = 0;
  if (!options.Get("path").IsUndefined() && !TextFromJs(options.Get("path"), &path)) {
    return env.Undefined();
  }
  if (!TextFromJs(options.Get("select"), &select) || !NumberFromJs(options.Get("batch"), &batch)) {
    return env.Undefined();
  }
  struct Walking {
    Walking(std::shared_ptr<StoreImpl> store, const std::string& from, bool changed)
        : walk(std::move(store), from, changed) {}
    std::mutex mutex;
    Walk walk;
    int held_back = 0;  // an error that came after entries
    bool ended = false;
  };
  auto walking = std::make_shared<Walking>(store_, path, select == "changed");
  const size_t most = batch < 1 ? 1 : batch > 65536 ? 65536 : static_cast<size_t>(batch);
  Napi::Object object = Napi::Object::New(env);
  object.Set("next", Napi::Function::New(env, [walking, most, store = store_](const Info& call) {
               using Entries = std::vector<WalkEntry>;
               return RunOnPool<Entries>(
                   call.Env(), store, "walk",
                   [walking, most](Entries& entries) {
                     const std::lock_guard<std::mutex> lock(walking->mutex);
                     if (walking->held_back != 0) return std::exchange(walking->held_back, 0);
                     // Empty batches between two directories are no end.
                     while (!walking->ended && entries.empty()) {
                       int error = 0;
                       walking->ended = !walking->walk.Next(most, &entries, &error);
                       if (error != 0 && entries.empty()) return error;
                       walking->held_back = error;
                     }
                     return 0;
                   },
                   [](Napi::Env inner, Entries& entries) -> Napi::Value {
                     if (entries.empty()) return inner.Null();
                     return WalkToJs(inner, entries);
                   });
             }));
  object.Set("close", Napi::Function::New(env, [walking](const Info&) { walking->walk.Stop(); }));
  return object;
}

Napi::Value StoreObject::StartCensus(const Info& info) {
  using Counts = std::map<std::string, double>;
  return RunOnPool<Counts>(
      info.Env(), store_, "census",
      [store = store_](Counts& counts) { return Census(store, &counts); },
      [](Napi::Env env, Counts& counts) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        for (const auto& [name, value] : counts) object.Set(name, value);
        return object;
      });
}

Napi::Value StoreObject::PathOf(const Info& info) {
  Fid fid;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  using Path = std::optional<std::string>;
  return RunOnPool<Path>(
      info.Env(), store_, "path of " + ToString(fid),
      [store = store_, fid](Path& path) {
        int error = 0;
        const UniqueFd fd = store->handles().Open(fid, O_PATH | O_NOFOLLOW, &error);
        if (error == ESTALE || error == ENOENT) return 0;
        if (error != 0) return error;
        // What the kernel remembers of the name: perhaps nothing, perhaps an old one.
        const std::string known = KernelPath(fd.get());
        const std::string root = KernelPath(store->root()) + "/";
        if (root.size() < 2 || known.compare(0, root.size(), root) != 0) return 0;
        const std::string relative = known.substr(root.size());
        const UniqueFd there = OpenBeneath(store->root(), relative, O_PATH, 0, &error);
        Fid found;
        if (error != 0 || store->handles().FidOf(there.get(), &found) != 0) return 0;
        if (found == fid) path = relative;
        return 0;
      },
      [](Napi::Env env, Path& path) -> Napi::Value {
        if (!path) return env.Undefined();
        return Napi::Buffer<char>::Copy(env, path->data(), path->size());
      });
}

Napi::Value StoreObject::Readlink(const Info& info) {
  Fid fid;
  if (!FromJs(info[0], &fid)) return info.Env().Undefined();
  using Target = std::optional<std::string>;
  return RunOnPool<Target>(
      info.Env(), store_, "readlink " + ToString(fid),
      [store = store_, fid](Target& target) {
        int error = 0;
        const UniqueFd fd = store->handles().Open(fid, O_PATH | O_NOFOLLOW, &error);
        if (error == ESTALE || error == ENOENT) return 0;
        if (error != 0) return error;
        std::string text;
        error = ReadTarget(fd.get(), &text);
        if (error == EINVAL || error == ENOENT) return 0;
        if (error == 0) target = std::move(text);
        return error;
      },
      [](Napi::Env env, Target& target) -> Napi::Value {
        if (!target) return env.Null();
        return Napi::String::New(env, *target);
      });
}

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
  const auto found = archives_->inodes.find(token);
  const Promised<bool> promised(info.Env(), "finishArchive",
                                [](Napi::Env env, bool& clean) -> Napi::Value {
                                  return Napi::String::New(env, clean ? "clean" : "dirty");
                                });
  if (found == archives_->inodes.end()) {
    promised.Settle(EINVAL, false);
    return promised.Promise();
  }
  const std::shared_ptr<InodeImpl> inode = std::move(found->second);
  archives_->inodes.erase(found);
  const bool posted = store_->pool().Post([inode, copy, promised] {
    inode->FinishArchive(copy,
                         [promised](int error, bool clean) { promised.Settle(error, clean); });
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
  const bool keep_copy =
      info[1].IsObject() && info[1].As<Napi::Object>().Get("keepCopy").ToBoolean().Value();
  return OnInode(info, "markModified", [keep_copy](StoreImpl&, InodeImpl& inode) {
    return inode.MarkModified(keep_copy);
  });
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

Napi::Value StoreObject::Renames(const Info& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(store_->renames()));
}

Napi::Value StoreObject::EverRenamed(const Info& info) {
  return Napi::Boolean::New(info.Env(), store_->ever_renamed());
}

Napi::Value StoreObject::Orphans(const Info& info) {
  using States = std::vector<FileState>;
  return RunOnPool<States>(
      info.Env(), store_, "orphans",
      [store = store_](States& states) {
        for (const std::shared_ptr<InodeImpl>& inode : store->Open()) {
          int error = 0;
          const UniqueFd fd = inode->OpenBacking(O_PATH, &error);
          struct stat st = {};
          FileState state;
          if (fd.ok() && fstat(fd.get(), &st) == 0 && st.st_nlink == 0 &&
              inode->State(&state) == 0) {
            states.push_back(std::move(state));
          }
        }
        return 0;
      },
      [](Napi::Env env, States& states) {
        std::vector<const FileState*> pointers;
        for (const FileState& state : states) pointers.push_back(&state);
        return StatesToJs(env, pointers);
      });
}

Napi::Value StoreObject::OpenBeneathPath(const Info& info) {
  std::string path;
  double flags = 0, mode = 0;
  if (!TextFromJs(info[0], &path) || !NumberFromJs(info[1], &flags) ||
      !NumberFromJs(info[2], &mode)) {
    return info.Env().Undefined();
  }
  return RunOnPool<int>(
      info.Env(), store_, path,
      [store = store_, path, flags, mode](int& fd) {
        int error = 0;
        fd = OpenBeneath(store->root(), path, static_cast<int>(flags), static_cast<mode_t>(mode),
                         &error)
                 .release();
        return error;
      },
      [](Napi::Env env, int& fd) -> Napi::Value { return Napi::Number::New(env, fd); });
}

Napi::Value StoreObject::OpenHandle(const Info& info) {
  std::string path;
  double flags = 0, mode = 0;
  if (!TextFromJs(info[0], &path) || !NumberFromJs(info[1], &flags) ||
      !NumberFromJs(info[2], &mode)) {
    return info.Env().Undefined();
  }
  using Opened = std::pair<double, int>;
  const Promised<Opened> promised(info.Env(), path,
                                  [](Napi::Env env, Opened& opened) -> Napi::Value {
                                    Napi::Object object = Napi::Object::New(env);
                                    object.Set("handle", opened.first);
                                    object.Set("fd", opened.second);
                                    return object;
                                  });
  const bool posted = store_->pool().Post([handles = handles_, path, flags, mode, promised] {
    handles->Open(
        path, static_cast<int>(flags), static_cast<mode_t>(mode),
        [promised](int error, double handle, int fd) { promised.Settle(error, {handle, fd}); });
  });
  if (!posted) promised.Settle(ENOTCONN, {});
  return promised.Promise();
}

Napi::Value StoreObject::AdmitRead(const Info& info) {
  double handle = 0, offset = 0, length = 0;
  if (!NumberFromJs(info[0], &handle) || !NumberFromJs(info[1], &offset) ||
      !NumberFromJs(info[2], &length)) {
    return info.Env().Undefined();
  }
  const Promised<Nothing> promised(info.Env(), "read", ToUndefined);
  const bool posted = store_->pool().Post([handles = handles_, handle, offset, length, promised] {
    handles->AdmitRead(handle, static_cast<uint64_t>(offset), static_cast<uint64_t>(length),
                       [promised](int error) { promised.Settle(error, {}); });
  });
  if (!posted) promised.Settle(ENOTCONN, {});
  return promised.Promise();
}

Napi::Value StoreObject::AdmitWrite(const Info& info) {
  double handle = 0;
  if (!NumberFromJs(info[0], &handle)) return info.Env().Undefined();
  const Promised<Nothing> promised(info.Env(), "write", ToUndefined);
  const bool posted = store_->pool().Post([handles = handles_, handle, promised] {
    handles->AdmitWrite(handle, [promised](int error) { promised.Settle(error, {}); });
  });
  if (!posted) promised.Settle(ENOTCONN, {});
  return promised.Promise();
}

Napi::Value StoreObject::CloseHandle(const Info& info) {
  double handle = 0;
  if (!NumberFromJs(info[0], &handle)) return info.Env().Undefined();
  return OnPath(info, "close", [handles = handles_, handle] { return handles->Close(handle); });
}

Napi::Value StoreObject::Truncate(const Info& info) {
  std::string path;
  double size = 0;
  if (!TextFromJs(info[0], &path) || !NumberFromJs(info[1], &size)) return info.Env().Undefined();
  const Promised<Nothing> promised(info.Env(), path, ToUndefined);
  const bool posted = store_->pool().Post([handles = handles_, path, size, promised] {
    handles->Truncate(path, static_cast<off_t>(size),
                      [promised](int error) { promised.Settle(error, {}); });
  });
  if (!posted) promised.Settle(ENOTCONN, {});
  return promised.Promise();
}

Napi::Value StoreObject::SetTimes(const Info& info) {
  std::string path;
  if (!TextFromJs(info[0], &path)) return info.Env().Undefined();
  std::array<struct timespec, 2> times = {{{0, UTIME_OMIT}, {0, UTIME_OMIT}}};
  for (size_t i = 0; i < 2; i++) {
    if (!info[i + 1].IsNull() && !TimeFromJs(info[i + 1], &times[i])) {
      return info.Env().Undefined();
    }
  }
  return OnPath(info, path, [handles = handles_, path, times] {
    return handles->SetTimes(path, times.data());
  });
}

Napi::Value StoreObject::Rename(const Info& info) {
  std::string from, to;
  if (!TextFromJs(info[0], &from) || !TextFromJs(info[1], &to)) return info.Env().Undefined();
  return OnPath(info, from, [handles = handles_, from, to] { return handles->Rename(from, to); });
}

Napi::Value StoreObject::UnlinkName(const Info& info) {
  std::string path;
  if (!TextFromJs(info[0], &path)) return info.Env().Undefined();
  return OnPath(info, path, [handles = handles_, path] { return handles->Unlink(path); });
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

Napi::Value StoreObject::Link(const Info& info) {
  std::string from, to;
  if (!TextFromJs(info[0], &from) || !TextFromJs(info[1], &to)) return info.Env().Undefined();
  return OnPath(info, from, [handles = handles_, from, to] { return handles->Link(from, to); });
}

Napi::Value StoreObject::Stat(const Info& info) {
  std::string path;
  if (!TextFromJs(info[0], &path)) return info.Env().Undefined();
  return RunOnPool<struct stat>(
      info.Env(), store_, path,
      [handles = handles_, path](struct stat& st) { return handles->Stat(path, &st); },
      [](Napi::Env env, struct stat& st) { return ShownStatToJs(env, st); });
}

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
