#include "store_object.h"

#include <cstring>

namespace lustrite {

std::shared_ptr<Store> StoreOf(const Napi::Value&) { return nullptr; }

Napi::Error ErrnoError(Napi::Env env, int error, const std::string& what) {
  const char* name = strerrorname_np(error);
  const std::string code = name != nullptr ? name : "E" + std::to_string(error);
  Napi::Error result = Napi::Error::New(env, code + ": " + what + ": " + strerror(error));
  result.Set("errno", Napi::Number::New(env, error));
  result.Set("code", Napi::String::New(env, code));
  return result;
}

void AddStore(Napi::Env, Napi::Object) {}

}  // namespace lustrite
