// The JavaScript face of the FUSE session: mount() and NativeSession of src/native/binding.ts.
#ifndef LUSTRITE_FUSE_SESSION_BINDING_H_
#define LUSTRITE_FUSE_SESSION_BINDING_H_

#include <napi.h>

namespace lustrite {

void AddSession(Napi::Env env, Napi::Object exports);

}  // namespace lustrite

#endif  // LUSTRITE_FUSE_SESSION_BINDING_H_
