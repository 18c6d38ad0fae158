#include "changes.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lustrite {

void Changes::SetOn(bool on) {
  const std::lock_guard lock(mutex_);
  on_ = on;
  if (on) return;
  noted_.clear();
  lost_ = 0;
}

void Changes::Note(Change change) {
  if (!on_) return;
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (!on_) return;
    if (noted_.size() >= kMost) {
      lost_++;
      return;
    }
    // Under the lock: later ones are not older.
    clock_gettime(CLOCK_REALTIME, &change.at);
    first = noted_.empty();
    noted_.push_back(std::move(change));
  }
  if (first && told_) told_();
}

std::vector<Change> Changes::Take(size_t most, uint64_t* lost) {
  const std::lock_guard lock(mutex_);
  const auto end = noted_.begin() + static_cast<ptrdiff_t>(std::min(most, noted_.size()));
  std::vector<Change> taken(std::make_move_iterator(noted_.begin()), std::make_move_iterator(end));
  noted_.erase(noted_.begin(), end);
  // They came after all that were kept.
  *lost = noted_.empty() ? std::exchange(lost_, 0) : 0;
  return taken;
}

}  // namespace lustrite
