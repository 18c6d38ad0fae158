// What the kernel has open.
#ifndef LUSTRITE_FUSE_HANDLES_H_
#define LUSTRITE_FUSE_HANDLES_H_

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "inodes.h"

namespace lustrite::fuse {

// A regular file. Passthrough handles that do not write need no fd of ours: the kernel has its own.
struct Handle {
  NodePtr node;
  int flags = 0;
  OpenFile file;
  UniqueFd data;
  bool pinned = false;  // holds the node's backing id
  bool cached = false;  // counted in the node's cached_handles
  // While OPEN waits: the inode stays though its last name goes meanwhile, as for any open of a
  // file.
  UniqueFd waiting;
};

// A directory being listed. Positions are the backing file system's own cookies, so that a reader
// may come back to any of them while entries come and go; what was read ahead is used only by who
// continues where it ends.
struct DirHandle {
  NodePtr node;
  UniqueFd fd;
  bool caches = false;
  std::mutex mutex;
  std::vector<char> ahead;
  size_t begin = 0;
  size_t end = 0;
  uint64_t next = 0;  // the cookie at `begin`
};

template <class T>
class Table {
 public:
  uint64_t Add(std::shared_ptr<T> entry) {
    std::lock_guard lock(mutex_);
    entries_.emplace(++last_, std::move(entry));
    return last_;
  }
  std::shared_ptr<T> Find(uint64_t id) {
    std::lock_guard lock(mutex_);
    auto at = entries_.find(id);
    return at == entries_.end() ? nullptr : at->second;
  }
  std::shared_ptr<T> Remove(uint64_t id) {
    std::lock_guard lock(mutex_);
    auto at = entries_.find(id);
    if (at == entries_.end()) return nullptr;
    auto entry = std::move(at->second);
    entries_.erase(at);
    return entry;
  }
  std::vector<std::shared_ptr<T>> RemoveAll() {
    std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<T>> all;
    for (auto& [id, entry] : entries_) all.push_back(std::move(entry));
    entries_.clear();
    return all;
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<T>> entries_;
  uint64_t last_ = 0;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_HANDLES_H_
