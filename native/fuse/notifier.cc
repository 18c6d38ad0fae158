#include "notifier.h"

#include <fcntl.h>

#include "core.h"

namespace lustrite::fuse {

void Notifier::Start() {
  kernel_size_.Start();
  attributes_.Start();
  sizes_.Start();
  entries_.Start();
  pages_.Start();
}

void Notifier::Stop() {
  attributes_.Stop();
  sizes_.Stop();
  entries_.Stop();
  pages_.Stop();
}

void Notifier::InodeChanged(const std::shared_ptr<Inode>& inode, bool data,
                            std::optional<uint64_t> size, std::function<void(int error)> then) {
  NodePtr node = nodes_->Find(inode->fid());
  if (node && data) {
    pages_.Post([this, node] {
      if (node->held > 0) return;
      fuse_notify_inval_inode_out out{node->id, 0, 0};
      device_->Notify(FUSE_NOTIFY_INVAL_INODE, {{&out, sizeof(out)}});
    });
  }
  attributes_.Post([this, node = std::move(node), size, then = std::move(then)]() mutable {
    if (node) {
      fuse_notify_inval_inode_out out{node->id, -1, 0};
      device_->Notify(FUSE_NOTIFY_INVAL_INODE, {{&out, sizeof(out)}});
    }
    if (!node || !size) {
      if (then) then(0);
      return;
    }
    sizes_.Post([this, node = std::move(node), size = *size, then = std::move(then)] {
      then(kernel_size_.Become(node->id, [&node, size] {
        int error = 0;
        const UniqueFd fd = node->inode->OpenBacking(O_PATH, &error);
        fuse_attr now;
        bool stable = false;
        return fd.ok() && Attributes(*node, fd.get(), &now, &stable) == 0 ? now.size : size;
      }));
      kernel_size_.Bury();
    });
  });
}

void Notifier::EntryChanged(const Fid& directory, const std::string& name,
                            std::function<void()> then) {
  entry_epoch_++;
  NodePtr node = nodes_->Find(directory);
  if (!node) {
    // The kernel remembers no entry of a directory that it does not know. An import makes a
    // million of them.
    if (then) then();
    return;
  }
  node->listing_epoch++;
  node->listing_untold = true;
  entries_.Post([this, node = std::move(node), name, then = std::move(then)] {
    // Before the next notification, which waits for whoever is listing the directory: what he
    // caches without the name is there when it is dropped.
    const bool untold = node->listing_untold.exchange(false);
    fuse_notify_inval_entry_out out{node->id, static_cast<uint32_t>(name.size()), 0};
    device_->Notify(FUSE_NOTIFY_INVAL_ENTRY,
                    {{&out, sizeof(out)}, {const_cast<char*>(name.c_str()), name.size() + 1}});
    // That does nothing where the kernel has never looked the name up: a cached listing, and the
    // times of the directory, stay. Once for all names that have changed by now.
    if (untold) {
      fuse_notify_inval_inode_out listing{node->id, 0, 0};
      device_->Notify(FUSE_NOTIFY_INVAL_INODE, {{&listing, sizeof(listing)}});
    }
    if (then) then();
  });
}

}  // namespace lustrite::fuse
