#include "inodes.h"

#include <fcntl.h>
#include <sys/random.h>

#include <cerrno>

namespace lustrite::fuse {

int Backings::Pin(Node& node) {
  std::lock_guard lock(mutex_);
  if (node.backing_id_ > 0) {
    if (node.backing_pins_++ == 0) idle_.erase(node.backing_idle_);
    return node.backing_id_;
  }
  // O_PATH is enough: the kernel opens the file itself for each open, with the caller's flags.
  int error = 0;
  UniqueFd fd = node.inode->OpenBacking(O_PATH, &error);
  if (!fd.ok()) return -error;
  int id = device_->OpenBacking(fd.get());
  if (id <= 0) return id < 0 ? id : -EIO;
  node.backing_id_ = id;
  node.backing_pins_ = 1;
  open_++;
  return id;
}

void Backings::Unpin(Node& node) {
  std::lock_guard lock(mutex_);
  if (--node.backing_pins_ > 0) return;
  if (node.backing_doomed_) return Close(node);
  idle_.push_front(&node);
  node.backing_idle_ = idle_.begin();
  if (idle_.size() > kIdle) {
    Node* oldest = idle_.back();
    idle_.pop_back();
    Close(*oldest);
  }
}

void Backings::Drop(Node& node) {
  std::lock_guard lock(mutex_);
  node.backing_doomed_ = true;
  if (node.backing_id_ == 0 || node.backing_pins_ > 0) return;
  idle_.erase(node.backing_idle_);
  Close(node);
}

size_t Backings::size() {
  std::lock_guard lock(mutex_);
  return open_;
}

void Backings::Close(Node& node) {
  device_->CloseBacking(node.backing_id_);
  node.backing_id_ = 0;
  open_--;
}

void Nodes::AddRoot(std::shared_ptr<Inode> inode) {
  std::lock_guard lock(mutex_);
  auto node = std::make_shared<Node>(FUSE_ROOT_ID, std::move(inode));
  node->lookups_ = 1;
  by_fid_[node->fid] = node.get();
  by_id_[FUSE_ROOT_ID] = std::move(node);
}

NodePtr Nodes::Find(uint64_t id) {
  std::lock_guard lock(mutex_);
  auto at = by_id_.find(id);
  return at == by_id_.end() ? nullptr : at->second;
}

NodePtr Nodes::Find(const Fid& fid) {
  std::lock_guard lock(mutex_);
  auto at = by_fid_.find(fid);
  return at == by_fid_.end() ? nullptr : by_id_.at(at->second->id);
}

uint64_t FirstId() {
  uint32_t session = 0;
  // Never fails or is short for so few bytes (getrandom(2)).
  (void)!getrandom(&session, sizeof session, 0);
  return (static_cast<uint64_t>(session >> 1) << 32) + FUSE_ROOT_ID + 1;
}

NodePtr Nodes::LookUp(const std::shared_ptr<Inode>& inode) {
  std::lock_guard lock(mutex_);
  auto [at, added] = by_fid_.try_emplace(inode->fid(), nullptr);
  if (!added) {
    at->second->lookups_++;
    return by_id_.at(at->second->id);
  }
  auto node = std::make_shared<Node>(next_id_++, inode);
  node->lookups_ = 1;
  at->second = node.get();
  by_id_.emplace(node->id, node);
  return node;
}

void Nodes::Forget(uint64_t id, uint64_t lookups) {
  NodePtr gone;
  {
    std::lock_guard lock(mutex_);
    auto at = by_id_.find(id);
    if (at == by_id_.end() || id == FUSE_ROOT_ID) return;
    Node& node = *at->second;
    node.lookups_ -= std::min(lookups, node.lookups_);
    if (node.lookups_ > 0) return;
    gone = std::move(at->second);
    by_fid_.erase(gone->fid);
    by_id_.erase(at);
  }
  backings_->Drop(*gone);
}

void Nodes::Clear() {
  std::unordered_map<uint64_t, NodePtr> gone;
  {
    std::lock_guard lock(mutex_);
    by_fid_.clear();
    gone.swap(by_id_);
  }
  for (auto& [id, node] : gone) backings_->Drop(*node);
}

size_t Nodes::size() {
  std::lock_guard lock(mutex_);
  return by_id_.empty() ? 0 : by_id_.size() - 1;
}

DirectoryFds::Fd DirectoryFds::Peek(const Node& node) {
  std::lock_guard lock(mutex_);
  auto at = fds_.find(node.id);
  if (at == fds_.end()) return nullptr;
  order_.splice(order_.begin(), order_, at->second.used);
  return at->second.fd;
}

DirectoryFds::Fd DirectoryFds::Get(const Node& node, int* error) {
  if (Fd kept = Peek(node)) return kept;
  UniqueFd opened = node.inode->OpenBacking(O_RDONLY | O_DIRECTORY, error);
  if (!opened.ok()) return nullptr;
  auto fd = std::make_shared<const UniqueFd>(std::move(opened));
  Fd evicted;
  std::lock_guard lock(mutex_);
  auto [at, added] = fds_.try_emplace(node.id);
  if (!added) return at->second.fd;
  order_.push_front(node.id);
  at->second = {fd, order_.begin()};
  if (fds_.size() > kKept) {
    auto last = fds_.find(order_.back());
    evicted = std::move(last->second.fd);
    fds_.erase(last);
    order_.pop_back();
  }
  return fd;
}

void DirectoryFds::Forget(uint64_t id) {
  Fd gone;
  std::lock_guard lock(mutex_);
  auto at = fds_.find(id);
  if (at == fds_.end()) return;
  gone = std::move(at->second.fd);
  order_.erase(at->second.used);
  fds_.erase(at);
}

void DirectoryFds::Clear() {
  std::lock_guard lock(mutex_);
  fds_.clear();
  order_.clear();
}

size_t DirectoryFds::size() {
  std::lock_guard lock(mutex_);
  return fds_.size();
}

}  // namespace lustrite::fuse
