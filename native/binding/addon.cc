// Entry point of the addon: what belongs to neither the store nor the session.
#include <fcntl.h>
#include <napi.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../store/crash_points.h"
#include "../store/unique_fd.h"
#include "store_object.h"

namespace lustrite {

void AddSession(Napi::Env env, Napi::Object exports);  // native/fuse/session_binding.cc

namespace {

std::string PathArgument(const Napi::CallbackInfo& info) {
  return info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : std::string();
}

Napi::Value Fail(Napi::Env env, int error, const std::string& what) {
  ErrnoError(env, error, what).ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Value LockFile(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = PathArgument(info);
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.ok()) return Fail(env, errno, path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return Fail(env, errno, path);
  // Released on purpose: a lock whose JavaScript object was collected is still held.
  auto held = std::make_shared<int>(fd.release());
  Napi::Object lock = Napi::Object::New(env);
  lock.Set("unlock", Napi::Function::New(env, [held](const Napi::CallbackInfo&) {
             if (*held >= 0) close(std::exchange(*held, -1));
           }));
  return lock;
}

Napi::Value Detach(const Napi::CallbackInfo& info) {
  const std::string path = PathArgument(info);
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return Fail(info.Env(), errno, path);
  }
  return info.Env().Undefined();
}

Napi::Value SyncDirectory(const Napi::CallbackInfo& info) {
  const std::string path = PathArgument(info);
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok() || fsync(fd.get()) != 0) return Fail(info.Env(), errno, path);
  return info.Env().Undefined();
}

Napi::Value HardenProcess(const Napi::CallbackInfo& info) {
  const struct rlimit none = {0, 0};
  if (prctl(PR_SET_DUMPABLE, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0) {
    return Fail(info.Env(), errno, "prctl");
  }
  return info.Env().Undefined();
}

Napi::Value ListCrashPoints(const Napi::CallbackInfo& info) {
  const std::vector<std::string_view> names = CrashPoints();
  Napi::Array list = Napi::Array::New(info.Env(), names.size());
  for (uint32_t i = 0; i < names.size(); i++) {
    list.Set(i, Napi::String::New(info.Env(), names[i].data(), names[i].size()));
  }
  return list;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", Napi::Number::New(env, 1));
  exports.Set("lockFile", Napi::Function::New(env, LockFile, "lockFile"));
  exports.Set("detach", Napi::Function::New(env, Detach, "detach"));
  exports.Set("syncDirectory", Napi::Function::New(env, SyncDirectory, "syncDirectory"));
  exports.Set("hardenProcess", Napi::Function::New(env, HardenProcess, "hardenProcess"));
  exports.Set("crashPoints", Napi::Function::New(env, ListCrashPoints, "crashPoints"));
  AddStore(env, exports);
  AddSession(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(lustrite, Init)

}  // namespace lustrite
