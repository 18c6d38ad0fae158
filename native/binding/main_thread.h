// Back to JavaScript: closures that run on its thread, and promises settled from anywhere.
#ifndef LUSTRITE_BINDING_MAIN_THREAD_H_
#define LUSTRITE_BINDING_MAIN_THREAD_H_

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "../store/store_impl.h"
#include "store_object.h"

namespace lustrite {

// One an environment (the main thread, a worker thread).
class MainThread : public std::enable_shared_from_this<MainThread> {
 public:
  static std::shared_ptr<MainThread> Of(Napi::Env env);

  // From any thread; dropped once the environment is going down. Does not keep the process alive by
  // itself.
  void Post(std::function<void(Napi::Env)> task);
  // While somebody awaits something the event loop goes on. JavaScript's thread only.
  void Hold();
  void Drop();

 private:
  static void Call(napi_env env, napi_value, void*, void* data);

  std::mutex mutex_;
  napi_env env_ = nullptr;
  napi_threadsafe_function function_ = nullptr;
  bool closed_ = false;
  int held_ = 0;
};

// A promise of T: make it on JavaScript's thread, settle it once from any.
template <typename T>
class Promised {
 public:
  using Convert = std::function<Napi::Value(Napi::Env, T&)>;
  Promised(Napi::Env env, std::string what, Convert convert)
      : state_(std::make_shared<State>(State{MainThread::Of(env), Napi::Promise::Deferred::New(env),
                                             std::move(what), std::move(convert)})) {
    state_->main->Hold();
  }
  Napi::Value Promise() const { return state_->deferred.Promise(); }
  // error 0: resolves with `value`.
  void Settle(int error, T value) const {
    state_->main->Post(
        [state = state_, error, value = std::make_shared<T>(std::move(value))](Napi::Env env) {
          const Napi::HandleScope scope(env);
          if (error == 0) {
            state->deferred.Resolve(state->convert(env, *value));
          } else {
            state->deferred.Reject(ErrnoError(env, error, state->what).Value());
          }
          state->main->Drop();
        });
  }
  // Instead of "what: text" in the message.
  void Fail(int error, const std::string& what) const {
    state_->main->Post([state = state_, error, what](Napi::Env env) {
      const Napi::HandleScope scope(env);
      state->deferred.Reject(ErrnoError(env, error, what).Value());
      state->main->Drop();
    });
  }

 private:
  struct State {
    std::shared_ptr<MainThread> main;
    Napi::Promise::Deferred deferred;
    std::string what;
    Convert convert;
  };
  std::shared_ptr<State> state_;
};

struct Nothing {};
inline Napi::Value ToUndefined(Napi::Env env, Nothing&) { return env.Undefined(); }

// Runs `work` on the store's threads.
template <typename T>
Napi::Value RunOnPool(Napi::Env env, const std::shared_ptr<StoreImpl>& store, std::string what,
                      std::function<int(T&)> work, typename Promised<T>::Convert convert) {
  const Promised<T> promised(env, std::move(what), std::move(convert));
  const bool posted = store->pool().Post([promised, work = std::move(work)] {
    T value{};
    const int error = work(value);
    promised.Settle(error, std::move(value));
  });
  if (!posted) promised.Settle(ENOTCONN, T{});
  return promised.Promise();
}

}  // namespace lustrite

#endif  // LUSTRITE_BINDING_MAIN_THREAD_H_
