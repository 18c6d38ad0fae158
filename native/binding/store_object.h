// The JavaScript face of the store (NativeStore of src/native/binding.ts).
#ifndef LUSTRITE_BINDING_STORE_OBJECT_H_
#define LUSTRITE_BINDING_STORE_OBJECT_H_

#include <napi.h>

#include <memory>
#include <string>

#include "../store/store.h"

namespace lustrite {

// The store behind a NativeStore; null when the value is something else or was closed.
std::shared_ptr<Store> StoreOf(const Napi::Value& value);

// An Error with `errno` (positive) and `code` ("EBUSY"); the message is "CODE: what: text".
Napi::Error ErrnoError(Napi::Env env, int error, const std::string& what);

std::string ErrnoName(int error);

void AddStore(Napi::Env env, Napi::Object exports);

}  // namespace lustrite

#endif  // LUSTRITE_BINDING_STORE_OBJECT_H_
