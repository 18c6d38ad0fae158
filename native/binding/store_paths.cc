// Files by path, for the front end that has nothing but paths (fuse-native).
#include <array>
#include <utility>

#include "convert.h"
#include "main_thread.h"
#include "store_object_impl.h"

namespace lustrite {

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

}  // namespace lustrite
