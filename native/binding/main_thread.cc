#include "main_thread.h"

#include <map>

namespace lustrite {
namespace {

std::mutex all_mutex;
std::map<napi_env, std::shared_ptr<MainThread>>& All() {
  static auto* all = new std::map<napi_env, std::shared_ptr<MainThread>>();
  return *all;
}

}  // namespace

std::shared_ptr<MainThread> MainThread::Of(Napi::Env env) {
  const std::lock_guard<std::mutex> lock(all_mutex);
  std::shared_ptr<MainThread>& main = All()[env];
  if (main != nullptr) return main;
  main = std::make_shared<MainThread>();
  main->env_ = env;
  napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "lustrite"), 0, 1,
                                  nullptr, nullptr, nullptr, Call, &main->function_);
  napi_unref_threadsafe_function(env, main->function_);
  napi_add_env_cleanup_hook(
      env,
      [](void* data) {
        std::shared_ptr<MainThread> gone;
        const std::lock_guard<std::mutex> guard(all_mutex);
        const auto found = All().find(static_cast<napi_env>(data));
        if (found == All().end()) return;
        gone = std::move(found->second);
        All().erase(found);
        const std::lock_guard<std::mutex> inner(gone->mutex_);
        gone->closed_ = true;
      },
      static_cast<napi_env>(env));
  return main;
}

void MainThread::Post(std::function<void(Napi::Env)> task) {
  auto owned = std::make_unique<std::function<void(Napi::Env)>>(std::move(task));
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) {
    // What the closure holds belongs to an engine that is going down: not even destroyed.
    static_cast<void>(owned.release());
    return;
  }
  if (napi_call_threadsafe_function(function_, owned.get(), napi_tsfn_nonblocking) == napi_ok) {
    static_cast<void>(owned.release());
  }
}

void MainThread::Call(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<std::function<void(Napi::Env)>> task(
      static_cast<std::function<void(Napi::Env)>*>(data));
  if (env == nullptr) return;
  const Napi::HandleScope scope(env);
  (*task)(Napi::Env(env));
}

void MainThread::Hold() {
  if (held_++ == 0) napi_ref_threadsafe_function(env_, function_);
}

void MainThread::Drop() {
  if (--held_ == 0) napi_unref_threadsafe_function(env_, function_);
}

}  // namespace lustrite
