// What happens to files, for the changelog (lustre-hsm 6): noted where it happens, taken away by
// JavaScript. Nothing is noted, and next to nothing is spent, while nobody wants to know.
#ifndef LUSTRITE_STORE_CHANGES_H_
#define LUSTRITE_STORE_CHANGES_H_

#include <time.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "fid.h"

namespace lustrite {

struct Change {
  enum Kind : uint8_t { kState, kRelease, kRestore, kUnlink, kRename };
  Kind kind = kState;
  // kRename: of what was at the new name; 0:0 where nothing was.
  Fid fid = {};
  // kState: the HSM flags that it has now.
  uint8_t flags = 0;
  // kUnlink, kRename: `fid` had no other name; the container may have a copy of it.
  bool last = false;
  bool exists = false;
  // The name that went, or the new one.
  Fid parent = {};
  std::string name = {};
  // kRename.
  Fid moved = {};
  Fid moved_parent = {};
  std::string moved_name = {};
  // Set by Note.
  struct timespec at = {};
};

class Changes {
 public:
  // More that nobody takes away are lost, and counted.
  static constexpr size_t kMost = 1 << 18;

  // `told`: there is something to take where there was nothing. Any thread, locks held: must only
  // pass the message on. Before the first Note.
  void Listen(std::function<void()> told) { told_ = std::move(told); }
  void SetOn(bool on);
  bool on() const { return on_; }
  void Note(Change change);
  // Up to `most`, in order; `lost`: how many were, behind the last one.
  std::vector<Change> Take(size_t most, uint64_t* lost);

 private:
  std::function<void()> told_;
  std::atomic<bool> on_{false};
  // Innermost: nothing else is locked under it.
  std::mutex mutex_;
  std::deque<Change> noted_;
  uint64_t lost_ = 0;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_CHANGES_H_
