// MKNOD, MKDIR, SYMLINK, READLINK, LINK, UNLINK, RMDIR, RENAME.
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstdio>

#include "core.h"

namespace lustrite::fuse {

namespace {

struct Place {
  DirectoryFds::Fd directory;
  Fid fid;
  const char* name = nullptr;
};

// The directory and name a request is about; false when it was answered.
bool FindPlace(Core& core, const RequestPtr& request, size_t fixed, Place* place) {
  int error = ESTALE;
  NodePtr parent = NodeOf(core, *request);
  place->name = request->Name(fixed);
  if (parent && place->name) place->directory = core.directories.Get(*parent, &error);
  if (place->directory) place->fid = parent->inode->fid();
  if (!place->directory) request->ReplyError(error);
  return place->directory != nullptr;
}

// Whether a name is the only one of a regular file.
bool IsLastName(int directory, const char* name) {
  struct stat st = {};
  return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
         st.st_nlink == 1;
}

// Makes something at a place as the caller, then answers with its entry.
template <class MakeIt>
void Make(Core& core, const RequestPtr& request, size_t fixed, uint32_t umask, MakeIt make) {
  Place place;
  if (!FindPlace(core, request, fixed, &place)) return;
  int error = 0;
  {
    AsCaller caller(request->header(), umask);
    if (make(place.directory->get(), place.name) != 0) error = errno;
  }
  const uint64_t epoch = core.notifier.entry_epoch();
  UniqueFd fd;
  if (error == 0) fd = OpenName(place.directory->get(), place.name, &error);
  fuse_entry_out entry = {};
  if (error == 0) error = FillEntry(core, fd.get(), epoch, &entry, nullptr);
  if (error == 0) return ReplyEntry(core, request, entry);
  request->ReplyError(error);
}

void Remove(Core& core, const RequestPtr& request, int flags) {
  Place place;
  if (!FindPlace(core, request, 0, &place)) return;
  struct stat st = {};
  std::shared_ptr<Inode> left, last, other;
  auto names = core.store->HoldNames();
  if (flags == 0 && fstatat(place.directory->get(), place.name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    const bool noted = core.store->changes().on();
    if (S_ISREG(st.st_mode)) {
      (st.st_nlink > 1 ? left : last) = InodeAt(core, place.directory->get(), place.name);
    } else if (noted) {
      other = InodeAt(core, place.directory->get(), place.name);
    }
  }
  if (last) last->LosesLastName();
  const std::shared_ptr<Inode>& unlinked = last ? last : left ? left : other;
  int error = 0;
  if (unlinkat(place.directory->get(), place.name, flags) != 0) error = errno;
  names.unlock();
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  if (left) left->MetadataChanged();
  if (last) last->LostLastName();
  if (unlinked && core.store->changes().on()) {
    const bool was_last = st.st_nlink == 1;
    core.store->changes().Note({.kind = Change::kUnlink,
                                .fid = unlinked->fid(),
                                .last = was_last,
                                .exists = was_last && unlinked->MayHaveCopy(),
                                .parent = place.fid,
                                .name = place.name});
  }
  request->Reply();
}

void Rename(Core& core, const RequestPtr& request, size_t fixed, uint64_t new_directory,
            uint32_t flags) {
  Place from;
  if (!FindPlace(core, request, fixed, &from)) return;
  int error = ESTALE;
  const char* to = request->Name(fixed, 1);
  NodePtr parent = core.nodes.Find(new_directory);
  DirectoryFds::Fd directory;
  if (to && parent) directory = core.directories.Get(*parent, &error);
  if (directory) error = core.store->NoteRename();
  if (!directory || error != 0) {
    request->ReplyError(error);
    return;
  }
  // Around the look, too: a job gives names to other inodes.
  auto names = core.store->HoldNames();
  std::shared_ptr<Inode> moved = InodeAt(core, from.directory->get(), from.name);
  std::shared_ptr<Inode> replaced = InodeAt(core, directory->get(), to);
  const Fid to_fid = parent->inode->fid();
  // Of two names of one inode, rename(2) does nothing.
  const bool last = replaced && replaced != moved &&
                    !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)) &&
                    IsLastName(directory->get(), to);
  if (last) replaced->LosesLastName();
  if (renameat2(from.directory->get(), from.name, directory->get(), to, flags) != 0) {
    error = errno;
  }
  names.unlock();
  if (error != 0) {
    request->ReplyError(error);
    return;
  }
  // Again: who looked between the first note and the rename has not seen it.
  core.store->NoteRename();
  if (moved) moved->MetadataChanged();
  if (last)
    replaced->LostLastName();
  else if (replaced)
    replaced->MetadataChanged();
  if (moved && moved != replaced && core.store->changes().on()) {
    const bool exchange = (flags & RENAME_EXCHANGE) != 0;
    Change change = {.kind = Change::kRename,
                     .last = last,
                     .exists = last && replaced->MayHaveCopy(),
                     .parent = to_fid,
                     .name = to,
                     .moved = moved->fid(),
                     .moved_parent = from.fid,
                     .moved_name = from.name};
    if (replaced && !exchange) change.fid = replaced->fid();
    core.store->changes().Note(std::move(change));
    if (exchange && replaced) {
      core.store->changes().Note({.kind = Change::kRename,
                                  .parent = from.fid,
                                  .name = from.name,
                                  .moved = replaced->fid(),
                                  .moved_parent = to_fid,
                                  .moved_name = to});
    }
  }
  request->Reply();
}

}  // namespace

void OnMknod(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_mknod_in>();
  const dev_t device =
      makedev((in.rdev & 0xfff00) >> 8, (in.rdev & 0xff) | ((in.rdev >> 12) & 0xfff00));
  Make(core, request, sizeof(in), in.umask,
       [&](int directory, const char* name) { return mknodat(directory, name, in.mode, device); });
}

void OnMkdir(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_mkdir_in>();
  Make(core, request, sizeof(in), in.umask,
       [&](int directory, const char* name) { return mkdirat(directory, name, in.mode & 07777); });
}

void OnSymlink(Core& core, const RequestPtr& request) {
  const char* target = request->Name(0, 1);
  if (!target) {
    request->ReplyError(EINVAL);
    return;
  }
  Make(core, request, 0, 0,
       [&](int directory, const char* name) { return symlinkat(target, directory, name); });
}

void OnReadlink(Core& core, const RequestPtr& request) {
  NodePtr node = NodeOf(core, *request);
  int error = ESTALE;
  UniqueFd fd;
  if (node) fd = node->inode->OpenBacking(O_PATH | O_NOFOLLOW, &error);
  if (!fd.ok()) {
    request->ReplyError(error);
    return;
  }
  char target[PATH_MAX];
  const ssize_t size = readlinkat(fd.get(), "", target, sizeof(target));
  if (size < 0) {
    request->ReplyError(errno);
    return;
  }
  request->ReplyParts({{target, static_cast<size_t>(size)}});
}

void OnLink(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_link_in>();
  Place place;
  if (!FindPlace(core, request, sizeof(in), &place)) return;
  int error = ESTALE;
  NodePtr node = core.nodes.Find(in.oldnodeid);
  UniqueFd fd;
  if (node) fd = node->inode->OpenBacking(O_PATH | O_NOFOLLOW, &error);
  if (fd.ok()) error = core.store->NoteRename();
  const uint64_t epoch = core.notifier.entry_epoch();
  auto names = core.store->HoldNames();
  if (error == 0 && linkat(fd.get(), "", place.directory->get(), place.name, AT_EMPTY_PATH) != 0) {
    error = errno;
  }
  names.unlock();
  fuse_entry_out entry = {};
  if (error == 0) {
    core.store->NoteRename();
    node->inode->MetadataChanged();
    error = FillEntry(core, fd.get(), epoch, &entry, nullptr);
  }
  if (error == 0) return ReplyEntry(core, request, entry);
  request->ReplyError(error);
}

void OnUnlink(Core& core, const RequestPtr& request) { Remove(core, request, 0); }

void OnRmdir(Core& core, const RequestPtr& request) { Remove(core, request, AT_REMOVEDIR); }

void OnRename(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_rename_in>();
  Rename(core, request, sizeof(in), in.newdir, 0);
}

void OnRename2(Core& core, const RequestPtr& request) {
  const auto& in = request->in<fuse_rename2_in>();
  Rename(core, request, sizeof(in), in.newdir, in.flags);
}

}  // namespace lustrite::fuse
