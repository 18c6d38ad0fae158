// Stands in for native/fuse where it is not linked: the addon then has a store and no front end.
#include <napi.h>

namespace lustrite {

__attribute__((weak)) void AddSession(Napi::Env, Napi::Object) {}

}  // namespace lustrite
