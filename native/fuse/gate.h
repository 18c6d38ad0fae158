// Requests that wait for the data of their file. They are kept here, on no thread, until the store
// wakes them, their caller is interrupted, or their time is up.
#ifndef LUSTRITE_FUSE_GATE_H_
#define LUSTRITE_FUSE_GATE_H_

#include <array>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "inodes.h"
#include "pool.h"
#include "transport.h"

namespace lustrite::fuse {

class Gate : public std::enable_shared_from_this<Gate> {
 public:
  using Ask = std::function<Verdict(const RequestPtr&, Wake)>;
  using Go = std::function<void(const RequestPtr&)>;

  // A modifying request holds the kernel's lock of its inode, and with it everybody who wants to
  // remove the file or, after them, list its directory: it is not held for longer than
  // kModifyPatience, then it fails with ETIMEDOUT (the restore goes on).
  enum Patience : uint8_t { kForever, kModify };
  static constexpr std::chrono::seconds kModifyPatience{120};

  Gate(Pool* pool, size_t max_held) : pool_(pool), max_held_(max_held) {}
  ~Gate();

  // Asks whether the request may go on. kGo: `go` at once, on this thread. kWait: the request is
  // held and `ask` is called again, on a pool thread, when the store says so. Beyond the limit of
  // held requests: ENODATA.
  void Run(const RequestPtr& request, const NodePtr& node, Patience patience, Ask ask, Go go);

  // INTERRUPT: ends a held request with EINTR; one that is about to be held is ended when it is.
  void Interrupt(uint64_t unique);

  // Whether a request that nobody has held was interrupted; true once.
  bool WasInterrupted(uint64_t unique);

  // Ends every held request; later ones fail at once.
  void Close();

  size_t held();

 private:
  using Clock = std::chrono::steady_clock;
  struct Held {
    RequestPtr request;  // null until the store has said kWait
    NodePtr node;
    Ask ask;
    Go go;
    Patience patience = kForever;
    uint64_t ticket = 0;
    bool woken = false;
    bool taken = false;
    int error = 0;
    std::multimap<Clock::time_point, std::shared_ptr<Held>>::iterator deadline;
    bool has_deadline = false;
  };
  using HeldPtr = std::shared_ptr<Held>;

  void Woken(const HeldPtr& held, int error);
  void Resume(HeldPtr held);
  // The one place where a held request changes hands. Under mutex_.
  void Take(Held& held);
  // Ends a request that was taken before the store woke it.
  void End(const HeldPtr& held, int error);
  void WatchDeadlines();

  Pool* const pool_;
  const size_t max_held_;
  std::mutex mutex_;
  bool closed_ = false;
  std::unordered_map<uint64_t, HeldPtr> held_;
  // Interrupts that came before their request was held (another reader was faster): unique ids are
  // never used twice.
  std::array<uint64_t, 1024> early_{};
  size_t next_early_ = 0;
  std::multimap<Clock::time_point, HeldPtr> deadlines_;
  std::condition_variable deadlines_changed_;
  std::thread watch_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_GATE_H_
