#include "session_binding.h"

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "../binding/store_object.h"
#include "session.h"

namespace lustrite {

namespace {

using fuse::HsmRequest;
using fuse::HsmStateSet;
using fuse::Session;

// Runs functions on JavaScript's thread, in order. It keeps the event loop alive until it is
// closed: a process that serves a mount does not end by itself.
class EventLoop {
 public:
  using Task = std::function<void(Napi::Env)>;

  explicit EventLoop(Napi::Env env) {
    const Napi::String name = Napi::String::New(env, "lustrite session");
    napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr,
                                    Run, &function_);
  }

  // Any thread. Dropped when the environment is going away.
  void Post(Task task) {
    auto owned = std::make_unique<Task>(std::move(task));
    if (napi_call_threadsafe_function(function_, owned.get(), napi_tsfn_nonblocking) == napi_ok) {
      owned.release();
    }
  }
  // After the last Post; what was posted still runs.
  void Close() { napi_release_threadsafe_function(function_, napi_tsfn_release); }

 private:
  static void Run(napi_env env, napi_value, void*, void* data) {
    std::unique_ptr<Task> task(static_cast<Task*>(data));
    if (env) (*task)(Napi::Env(env));
  }

  napi_threadsafe_function function_ = nullptr;
};

// What JavaScript wants to be told. Made, used and deleted on its thread.
struct Callbacks {
  Napi::ObjectReference events;

  void Call(Napi::Env env, const char* name, const std::vector<napi_value>& arguments) {
    const Napi::Object target = events.Value();
    const Napi::Value function = target.Get(name);
    if (!function.IsFunction()) return;
    function.As<Napi::Function>().Call(target, arguments);
    if (env.IsExceptionPending()) {
      // A throwing listener is a bug of ours; it must not take the session with it unseen.
      napi_fatal_exception(env, env.GetAndClearPendingException().Value());
    }
  }
};

Napi::Object ToJs(Napi::Env env, const fuse::Caller& caller) {
  Napi::Object object = Napi::Object::New(env);
  const Credentials& who = caller.credentials;
  object.Set("uid", Napi::Number::New(env, who.uid));
  object.Set("gid", Napi::Number::New(env, who.gid));
  object.Set("pid", Napi::Number::New(env, caller.pid));
  object.Set("capabilities", Napi::BigInt::New(env, who.capabilities));
  Napi::Array groups = Napi::Array::New(env, who.groups.size());
  for (size_t i = 0; i < who.groups.size(); i++) {
    groups.Set(static_cast<uint32_t>(i), Napi::Number::New(env, who.groups[i]));
  }
  object.Set("groups", groups);
  return object;
}

// FIDs that no inode of ours can have stay as text: whoever looks for them finds nothing.
Napi::String ToJs(Napi::Env env, const struct lu_fid& lustre) {
  Fid fid;
  if (FromLustre(lustre, &fid)) return Napi::String::New(env, ToString(fid));
  char text[64];
  snprintf(text, sizeof(text), "[0x%llx:0x%x:0x%x]", static_cast<unsigned long long>(lustre.f_seq),
           lustre.f_oid, lustre.f_ver);
  return Napi::String::New(env, text);
}

Napi::Object ToJs(Napi::Env env, const HsmRequest& ask) {
  const struct lustrite_request& request = ask.request;
  Napi::Object object = Napi::Object::New(env);
  object.Set("action", Napi::Number::New(env, request.action));
  object.Set("archiveId", Napi::Number::New(env, request.archive_id));
  Napi::Array fids = Napi::Array::New(env, request.count);
  for (uint32_t i = 0; i < request.count; i++) fids.Set(i, ToJs(env, request.fids[i]));
  object.Set("fids", fids);
  object.Set("data", Napi::Buffer<uint8_t>::Copy(env, request.data, request.data_len));
  object.Set("caller", ToJs(env, ask.caller));
  return object;
}

Napi::Object ToJs(Napi::Env env, const HsmStateSet& ask) {
  const struct hsm_state_set& change = ask.change;
  Napi::Object object = Napi::Object::New(env);
  const bool sets = change.hss_valid & HSS_SETMASK, clears = change.hss_valid & HSS_CLEARMASK;
  object.Set("fid", Napi::String::New(env, ToString(ask.fid)));
  object.Set("set", Napi::Number::New(env, sets ? static_cast<double>(change.hss_setmask) : 0));
  object.Set("clear",
             Napi::Number::New(env, clears ? static_cast<double>(change.hss_clearmask) : 0));
  if (change.hss_valid & HSS_ARCHIVE_ID) {
    object.Set("archiveId", Napi::Number::New(env, change.hss_archive_id));
  }
  object.Set("caller", ToJs(env, ask.caller));
  return object;
}

// What one mount() needs until `closed` has been delivered.
struct Mounted {
  explicit Mounted(Napi::Env env) : loop(env) {}
  EventLoop loop;
  // Not owned: deleted by EndIfDone, on JavaScript's thread, or never when its environment goes
  // away first.
  Callbacks* callbacks = nullptr;
  bool delivered = false;  // the promise is settled
  bool over = false;       // `closed` was delivered, or will never come

  // On JavaScript's thread, after either of the two.
  void EndIfDone() {
    if (!delivered || !over || !callbacks) return;
    delete std::exchange(callbacks, nullptr);
    loop.Close();
  }
};
using MountedPtr = std::shared_ptr<Mounted>;

fuse::SessionEvents EventsOf(const MountedPtr& mounted) {
  fuse::SessionEvents events;
  events.request = [mounted](uint64_t id, HsmRequest ask) {
    mounted->loop.Post([mounted, id, ask = std::move(ask)](Napi::Env env) {
      mounted->callbacks->Call(env, "request",
                               {Napi::Number::New(env, static_cast<double>(id)), ToJs(env, ask)});
    });
  };
  events.state_set = [mounted](uint64_t id, HsmStateSet ask) {
    mounted->loop.Post([mounted, id, ask = std::move(ask)](Napi::Env env) {
      mounted->callbacks->Call(env, "stateSet",
                               {Napi::Number::New(env, static_cast<double>(id)), ToJs(env, ask)});
    });
  };
  events.link_asked = [mounted](uint64_t id, fuse::LinkAsked ask) {
    mounted->loop.Post([mounted, id, ask](Napi::Env env) {
      mounted->callbacks->Call(env, "linkAsked",
                               {Napi::Number::New(env, static_cast<double>(id)), ToJs(env, ask.fid),
                                Napi::Number::New(env, ask.link)});
    });
  };
  events.closed = [mounted] {
    mounted->loop.Post([mounted](Napi::Env env) {
      mounted->over = true;
      mounted->callbacks->Call(env, "closed", {});
      mounted->EndIfDone();
    });
  };
  return events;
}

// umount2 waits for the last answer: it has a thread of its own.
Napi::Value Unmount(Napi::Env env, const std::shared_ptr<Session>& session, bool lazy) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  auto loop = std::make_shared<EventLoop>(env);
  std::thread([session, deferred, loop, lazy] {
    fuse::PrepareServingThread();
    const int error = session->Unmount(lazy);
    loop->Post([deferred, loop, error](Napi::Env env) {
      loop->Close();
      if (error == 0) {
        deferred.Resolve(env.Undefined());
      } else {
        deferred.Reject(ErrnoError(env, error, "umount").Value());
      }
    });
  }).detach();
  return deferred.Promise();
}

Napi::Object SessionObject(Napi::Env env, const std::shared_ptr<Session>& session) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("passthrough", Napi::Boolean::New(env, session->passthrough()));
  object.Set("answer", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) {
               const double id = info[0].ToNumber().DoubleValue();
               session->Answer(static_cast<uint64_t>(id), info[1].ToNumber().Int32Value());
             }));
  object.Set("answerLink", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) {
               const double id = info[0].ToNumber().DoubleValue();
               const auto path = info[2].As<Napi::Buffer<char>>();
               session->AnswerLink(static_cast<uint64_t>(id), info[1].ToNumber().Uint32Value(),
                                   std::string(path.Data(), path.Length()));
             }));
  object.Set("unmount", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) {
               return Unmount(info.Env(), session, info[0].ToBoolean().Value());
             }));
  object.Set("stats", Napi::Function::New(env, [session](const Napi::CallbackInfo& info) {
               Napi::Object stats = Napi::Object::New(info.Env());
               for (const auto& [name, value] : session->Stats()) {
                 stats.Set(name, Napi::Number::New(info.Env(), static_cast<double>(value)));
               }
               return stats;
             }));
  return object;
}

fuse::SessionOptions OptionsOf(const Napi::Object& from) {
  fuse::SessionOptions options;
  options.mount_point = from.Get("mountPoint").ToString();
  options.source = from.Get("source").ToString();
  options.read_only = from.Get("readOnly").ToBoolean();
  options.passthrough = from.Get("passthrough").ToBoolean();
  options.threads = from.Get("threads").ToNumber().Int32Value();
  options.max_held = from.Get("maxHeld").ToNumber().Uint32Value();
  options.partial_reads = from.Get("partialReads").ToBoolean();
  return options;
}

// mount(store, options, events): Promise<NativeSession>
Napi::Value Mount(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<Store> store = StoreOf(info[0]);
  if (!store || !info[1].IsObject() || !info[2].IsObject()) {
    Napi::TypeError::New(env, "mount(store, options, events)").ThrowAsJavaScriptException();
    return env.Undefined();
  }
  auto mounted = std::make_shared<Mounted>(env);
  mounted->callbacks = new Callbacks{Napi::Persistent(info[2].As<Napi::Object>())};
  const auto deferred = Napi::Promise::Deferred::New(env);
  std::thread([mounted, deferred, store = std::move(store),
               options = OptionsOf(info[1].As<Napi::Object>())] {
    fuse::PrepareServingThread();
    int error = 0;
    std::string what;
    auto session = Session::Mount(store, options, EventsOf(mounted), &error, &what);
    mounted->loop.Post([mounted, deferred, session, error, what](Napi::Env env) {
      mounted->delivered = true;
      if (!session) mounted->over = true;
      if (error == 0) {
        deferred.Resolve(SessionObject(env, session));
      } else {
        deferred.Reject(ErrnoError(env, error, "mount " + what).Value());
      }
      mounted->EndIfDone();
    });
  }).detach();
  return deferred.Promise();
}

}  // namespace

void AddSession(Napi::Env env, Napi::Object exports) {
  exports.Set("mount", Napi::Function::New(env, Mount, "mount"));
}

}  // namespace lustrite
