#include "notifier.h"

#include <fcntl.h>
#include <sys/stat.h>

namespace lustrite::fuse {

void Notifier::Start() {
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

// Nothing where it cannot be looked up by its FID: the mount was taken away, or there is no
// privilege for that. Whoever asks next learns the size then.
std::shared_ptr<const UniqueFd> Notifier::Watch(const Fid& fid) {
  if (!nodes_->Find(fid)) return nullptr;
  const std::string path = by_fid_ + "/" + ToString(fid);
  UniqueFd file(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct statx found = {};
  constexpr int flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  if (!file.ok() || statx(file.get(), "", flags, STATX_INO, &found) != 0) return nullptr;
  if (found.stx_ino != fid.ino) return nullptr;
  return std::make_shared<const UniqueFd>(std::move(file));
}

void Notifier::InodeChanged(const std::shared_ptr<Inode>& inode, bool data,
                            std::optional<NewSize> size, std::function<void()> then) {
  NodePtr node = nodes_->Find(inode->fid());
  if (node && data) {
    pages_.Post([this, node] {
      if (node->held > 0) return;
      fuse_notify_inval_inode_out out{node->id, 0, 0};
      device_->Notify(FUSE_NOTIFY_INVAL_INODE, {{&out, sizeof(out)}});
    });
  }
  attributes_.Post(
      [this, node = std::move(node), size = std::move(size), then = std::move(then)]() mutable {
        if (node) {
          fuse_notify_inval_inode_out out{node->id, -1, 0};
          device_->Notify(FUSE_NOTIFY_INVAL_INODE, {{&out, sizeof(out)}});
        }
        if (!size || !size->watched) return then();
        sizes_.Post([this, size = std::move(*size), then = std::move(then)] {
          kernel_size_.Become(size.watched->get(), size.bytes);
          then();
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
  entries_.Post([this, node = std::move(node), name, then = std::move(then)] {
    fuse_notify_inval_entry_out out{node->id, static_cast<uint32_t>(name.size()), 0};
    device_->Notify(FUSE_NOTIFY_INVAL_ENTRY,
                    {{&out, sizeof(out)}, {const_cast<char*>(name.c_str()), name.size() + 1}});
    if (then) then();
  });
}

}  // namespace lustrite::fuse
