// What is at which path, and what imports make of it.
#include <fcntl.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <utility>

#include "../store/beneath.h"
#include "../store/entries.h"
#include "../store/stubs.h"
#include "../store/walk.h"
#include "convert.h"
#include "main_thread.h"
#include "store_object_impl.h"

namespace lustrite {
namespace {

// "" where it does not fit.
std::string KernelPath(int fd) {
  char text[PATH_MAX + 64];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = readlink(link.c_str(), text, sizeof text);
  return size < 0 || size == sizeof text ? std::string() : std::string(text, size);
}

}  // namespace

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
        return Napi::Buffer<char>::Copy(env, target->data(), target->size());
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

Napi::Value StoreObject::Renames(const Info& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(store_->renames()));
}

Napi::Value StoreObject::EverRenamed(const Info& info) {
  return Napi::Boolean::New(info.Env(), store_->ever_renamed());
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
  nlink_t links = 0;
  if (info[2].IsObject()) {
    const Napi::Object options = info[2].As<Napi::Object>();
    with.lost = options.Get("lost").ToBoolean();
    const Napi::Value durable = options.Get("durable");
    with.durable = durable.IsUndefined() || durable.ToBoolean();
    const Napi::Value named = options.Get("links");
    if (named.IsNumber()) links = named.As<Napi::Number>().Uint32Value();
  }
  with.copy = *stub.copy;
  with.size = stub.size;
  with.mtime = stub.mtime;
  with.mode = stub.mode & 07777;
  with.uid = stub.uid;
  with.gid = stub.gid;
  with.extended = stub.extended;
  return OnInode(
      info, "replaceCopy", [with, links, path = stub.path](StoreImpl& store, InodeImpl& inode) {
        if (links == 0) return inode.ReplaceCopy(with);
        return inode.ReplaceCopy(with, [&] { return NamedStill(store, path, inode.fid(), links); });
      });
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

}  // namespace lustrite
