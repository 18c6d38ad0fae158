#include "gate.h"

#include <algorithm>
#include <cerrno>
#include <vector>

namespace lustrite::fuse {

Gate::~Gate() { Close(); }

void Gate::Run(const RequestPtr& request, const NodePtr& node, Patience patience, Ask ask, Go go) {
  auto held = std::make_shared<Held>();
  Verdict verdict =
      ask(request, [gate = shared_from_this(), held](int error) { gate->Woken(held, error); });
  if (verdict.what == Verdict::kGo) return go(request);
  if (verdict.what == Verdict::kFail) {
    request->ReplyError(verdict.error);
    return;
  }
  request->Shrink();
  int refusal = 0;
  {
    std::lock_guard lock(mutex_);
    held->request = request;
    held->node = node;
    held->ask = std::move(ask);
    held->go = std::move(go);
    held->patience = patience;
    held->ticket = verdict.ticket;
    auto early = std::find(early_.begin(), early_.end(), request->unique());
    if (closed_) {
      refusal = ENOTCONN;
    } else if (early != early_.end()) {
      *early = 0;
      refusal = EINTR;
    } else if (held_.size() >= max_held_ && !held->woken) {
      refusal = ENODATA;
    }
    held->taken = refusal != 0 || held->woken;
    if (!held->taken) {
      held_.emplace(request->unique(), held);
      node->held++;
      if (patience == kModify) {
        held->deadline = deadlines_.emplace(Clock::now() + kModifyPatience, held);
        held->has_deadline = true;
        if (!watch_.joinable()) watch_ = std::thread([this] { WatchDeadlines(); });
        deadlines_changed_.notify_one();
      }
      return;
    }
  }
  if (refusal != 0) return End(held, refusal);
  Resume(held);
}

void Gate::Take(Held& held) {
  held.taken = true;
  held_.erase(held.request->unique());
  held.node->held--;
  if (held.has_deadline) deadlines_.erase(held.deadline);
  held.has_deadline = false;
}

void Gate::End(const HeldPtr& held, int error) {
  // Whether the store still calls its Wake no longer matters: the request is taken.
  held->node->inode->Withdraw(held->ticket);
  held->request->ReplyError(error);
  held->request = nullptr;
  held->ask = nullptr;
  held->go = nullptr;
}

void Gate::Woken(const HeldPtr& held, int error) {
  {
    std::lock_guard lock(mutex_);
    if (held->taken) return;
    held->woken = true;
    held->error = error;
    if (!held->request) return;  // Run is still on its way
    Take(*held);
  }
  Resume(held);
}

void Gate::Resume(HeldPtr held) {
  // Never on the stack of who woke it: `ask` and `go` take the inode's lock, and may take long.
  pool_->Post([gate = shared_from_this(), held = std::move(held)] {
    RequestPtr request = std::move(held->request);
    if (held->error != 0) {
      request->ReplyError(held->error);
      return;
    }
    gate->Run(request, held->node, held->patience, std::move(held->ask), std::move(held->go));
  });
}

void Gate::Interrupt(uint64_t unique) {
  HeldPtr held;
  {
    std::lock_guard lock(mutex_);
    auto at = held_.find(unique);
    if (at == held_.end()) {
      early_[next_early_++ % early_.size()] = unique;
      return;
    }
    held = at->second;
    Take(*held);
  }
  End(held, EINTR);
}

bool Gate::WasInterrupted(uint64_t unique) {
  std::lock_guard lock(mutex_);
  auto early = std::find(early_.begin(), early_.end(), unique);
  if (early == early_.end()) return false;
  *early = 0;
  return true;
}

void Gate::Close() {
  std::vector<HeldPtr> all;
  std::thread watch;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    while (!held_.empty()) {
      all.push_back(held_.begin()->second);
      Take(*all.back());
    }
    watch.swap(watch_);
  }
  deadlines_changed_.notify_all();
  for (const HeldPtr& held : all) End(held, ENOTCONN);
  if (watch.joinable()) watch.join();
}

size_t Gate::held() {
  std::lock_guard lock(mutex_);
  return held_.size();
}

void Gate::WatchDeadlines() {
  PrepareServingThread();
  std::unique_lock lock(mutex_);
  while (!closed_) {
    if (deadlines_.empty()) {
      deadlines_changed_.wait(lock);
      continue;
    }
    auto [when, held] = *deadlines_.begin();
    if (Clock::now() < when) {
      deadlines_changed_.wait_until(lock, when);
      continue;
    }
    Take(*held);
    lock.unlock();
    End(held, ETIMEDOUT);
    lock.lock();
  }
}

}  // namespace lustrite::fuse
