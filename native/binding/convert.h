// The types of src/native/binding.ts <-> those of the store.
#ifndef LUSTRITE_BINDING_CONVERT_H_
#define LUSTRITE_BINDING_CONVERT_H_

#include <napi.h>

#include <optional>
#include <string>
#include <vector>

#include "../store/changes.h"
#include "../store/credentials.h"
#include "../store/entries.h"
#include "../store/inode_impl.h"
#include "../store/stubs.h"
#include "../store/walk.h"

namespace lustrite {

Napi::Value ToJs(Napi::Env env, const Fid& fid);
Napi::Value ToJs(Napi::Env env, const Copy& copy);
Napi::Value ToJs(Napi::Env env, const Change& change);
Napi::Value ToNs(Napi::Env env, const struct timespec& time);
// FileState[] or WalkEntry[], made by one call of JavaScript for the whole batch.
Napi::Value StatesToJs(Napi::Env env, const std::vector<const FileState*>& states);
Napi::Value WalkToJs(Napi::Env env, const std::vector<WalkEntry>& entries);
Napi::Value ShownStatToJs(Napi::Env env, const struct stat& st);

// False, with a TypeError thrown, for what is not of the type.
bool FromJs(const Napi::Value& value, Fid* fid);
bool FromJs(const Napi::Value& value, Copy* copy);
bool FromJs(const Napi::Value& value, Credentials* who);
bool FromJs(const Napi::Value& value, Stub* stub);
bool FromJs(const Napi::Value& value, StubDefaults* defaults);
bool FromJs(const Napi::Value& value, Attributes* attributes);
bool TimeFromJs(const Napi::Value& value, struct timespec* time);
bool TextFromJs(const Napi::Value& value, std::string* text);
bool NumberFromJs(const Napi::Value& value, double* number);

}  // namespace lustrite

#endif  // LUSTRITE_BINDING_CONVERT_H_
