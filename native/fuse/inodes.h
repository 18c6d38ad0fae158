// What the kernel knows: node ids, how often it looked each up, and what is kept for an inode while
// it does.
#ifndef LUSTRITE_FUSE_INODES_H_
#define LUSTRITE_FUSE_INODES_H_

#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "../store/inode.h"
#include "../store/unique_fd.h"
#include "transport.h"

namespace lustrite::fuse {

// An inode the kernel has a reference to. No fd is kept for it.
struct Node {
  Node(uint64_t id, std::shared_ptr<Inode> inode)
      : id(id), fid(inode->fid()), inode(std::move(inode)) {}

  const uint64_t id;
  const Fid fid;
  const std::shared_ptr<Inode> inode;

  // Requests of this inode that wait in the gate: its pages may be locked.
  std::atomic<int> held{0};
  // Open cached handles, and whether the kernel may still have pages of earlier ones.
  std::mutex pages_mutex;
  int cached_handles = 0;
  bool may_have_pages = false;
  // Open handles that can write past us; stores through their mappings change times that nobody
  // tells the kernel.
  std::atomic<int> writers{0};
  std::atomic<bool> written{false};
  // A write-open would have to make something durable first, unless it was created here.
  std::atomic<bool> created_here{false};
  // Directories: one open handle at most fills and reads the kernel's cache of the listing
  // (directories.cc).
  std::atomic<bool> listing_cached{false};
  // Grows with each name that the store has made or taken away; what it was when the kernel began
  // to fill that cache; whether the kernel is still to be told.
  std::atomic<uint64_t> listing_epoch{1};
  std::atomic<uint64_t> cached_epoch{0};
  std::atomic<bool> listing_untold{false};

 private:
  friend class Nodes;
  friend class Backings;
  uint64_t lookups_ = 0;  // under Nodes' mutex
  // Under Backings' mutex.
  int backing_id_ = 0;
  int backing_pins_ = 0;
  bool backing_doomed_ = false;
  std::list<Node*>::iterator backing_idle_;
};
using NodePtr = std::shared_ptr<Node>;

// The backing files registered for passthrough: one an inode, made at its first open, kept until
// the kernel forgets the inode (a third of the cost of an open) or until too many are idle.
class Backings {
 public:
  explicit Backings(Device* device) : device_(device) {}

  // A pinned id (> 0) or a negative errno. Pin = an open handle or an answer under way: never
  // closed meanwhile.
  int Pin(Node& node);
  void Unpin(Node& node);
  // The kernel forgot the inode.
  void Drop(Node& node);
  size_t size();

 private:
  static constexpr size_t kIdle = 16384;
  void Close(Node& node);

  Device* const device_;
  std::mutex mutex_;
  std::list<Node*> idle_;  // front = used last
  size_t open_ = 0;
};

// Behind the root's, and behind all that another session has given away.
uint64_t FirstId();

class Nodes {
 public:
  explicit Nodes(Backings* backings) : backings_(backings) {}

  // The root has id 1 and is never forgotten.
  void AddRoot(std::shared_ptr<Inode> inode);
  NodePtr Find(uint64_t id);
  // The node the kernel knows for an inode, if any.
  NodePtr Find(const Fid& fid);
  // Counts one lookup by the kernel; undone by Forget(id, 1) when the answer did not reach it.
  NodePtr LookUp(const std::shared_ptr<Inode>& inode);
  void Forget(uint64_t id, uint64_t lookups);
  void Clear();
  // Without the root.
  size_t size();

 private:
  Backings* const backings_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, NodePtr> by_id_;
  std::unordered_map<Fid, Node*, FidHash> by_fid_;
  // A file handle has the id in it, and outlives the session that made it (name_to_handle_at(2)):
  // no file of another session may have the same.
  uint64_t next_id_ = FirstId();
};

// fds of directories that were used lately, for the *at calls.
class DirectoryFds {
 public:
  using Fd = std::shared_ptr<const UniqueFd>;
  // O_RDONLY|O_DIRECTORY; null with *error set.
  Fd Get(const Node& node, int* error);
  // Only if it is kept already.
  Fd Peek(const Node& node);
  void Forget(uint64_t id);
  void Clear();
  size_t size();

 private:
  static constexpr size_t kKept = 512;
  struct Entry {
    Fd fd;
    std::list<uint64_t>::iterator used;
  };
  std::mutex mutex_;
  std::list<uint64_t> order_;  // front = used last
  std::unordered_map<uint64_t, Entry> fds_;
};

}  // namespace lustrite::fuse

#endif  // LUSTRITE_FUSE_INODES_H_
