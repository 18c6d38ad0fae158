#include "path_handles.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "../store/beneath.h"

namespace lustrite {
namespace {

// Whether a name is the only one of a regular file.
bool IsLastName(int directory, const std::string& name) {
  struct stat st = {};
  return fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
         st.st_nlink == 1;
}

}  // namespace

void PathHandles::Repeat(Ask ask, Done done) {
  const Verdict verdict = ask([self = shared_from_this(), ask, done](int error) {
    if (error != 0) {
      done(error);
      return;
    }
    if (!self->store_->pool().Post([self, ask, done] { self->Repeat(ask, done); })) {
      done(ENOTCONN);
    }
  });
  if (verdict.what == Verdict::kGo) done(0);
  if (verdict.what == Verdict::kFail) done(verdict.error);
}

std::shared_ptr<InodeImpl> PathHandles::InodeAt(const std::string& path, int* error) {
  const UniqueFd fd = OpenBeneath(store_->root(), path, O_PATH, 0, error);
  return *error != 0 ? nullptr : store_->GetImpl(fd.get(), error);
}

std::shared_ptr<PathHandles::Handle> PathHandles::Find(double handle) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = handles_.find(handle);
  return found == handles_.end() ? nullptr : found->second;
}

size_t PathHandles::Count() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return handles_.size();
}

void PathHandles::Open(const std::string& path, int flags, mode_t mode, Opened opened) {
  int error = 0;
  auto handle = std::make_shared<Handle>();
  handle->inode = InodeAt(path, &error);
  if (error == ENOENT && (flags & O_CREAT)) {
    const UniqueFd made =
        OpenBeneath(store_->root(), path, O_CREAT | O_EXCL | O_RDONLY, mode & 07777, &error);
    if (error == 0 || error == EEXIST) handle->inode = InodeAt(path, &error);
  } else if (error == 0 && (flags & O_EXCL) && (flags & O_CREAT)) {
    error = EEXIST;
  }
  if (error != 0) {
    opened(error, 0, -1);
    return;
  }
  const int asked = flags & ~(O_CREAT | O_EXCL);
  Repeat(
      [handle, asked](Wake wake) {
        return handle->inode->AdmitOpen(asked, 0, false, std::move(wake), &handle->file);
      },
      [self = shared_from_this(), handle, asked, opened](int failed) {
        if (failed != 0) {
          opened(failed, 0, -1);
          return;
        }
        int open_error = 0;
        handle->fd =
            handle->inode->OpenBacking((asked & ~(O_TRUNC | O_NOFOLLOW)) | O_NONBLOCK, &open_error);
        if (open_error != 0) {
          handle->inode->CloseHandle(&handle->file);
          opened(open_error, 0, -1);
          return;
        }
        double id = 0;
        {
          const std::lock_guard<std::mutex> lock(self->mutex_);
          id = self->next_++;
          self->handles_[id] = handle;
        }
        opened(0, id, handle->fd.get());
      });
}

void PathHandles::AdmitRead(double handle, uint64_t offset, uint64_t length, Done done) {
  const std::shared_ptr<Handle> found = Find(handle);
  if (found == nullptr) {
    done(EBADF);
    return;
  }
  Repeat(
      [found, offset, length](Wake wake) {
        return found->inode->AdmitRead(&found->file, offset, length, 0, std::move(wake));
      },
      std::move(done));
}

void PathHandles::AdmitWrite(double handle, Done done) {
  const std::shared_ptr<Handle> found = Find(handle);
  if (found == nullptr) {
    done(EBADF);
    return;
  }
  Repeat(
      [found](Wake wake) {
        const Verdict verdict = found->inode->AdmitModify(0, std::move(wake));
        // The handle itself keeps the file from being settled or released from here on.
        if (verdict.what == Verdict::kGo) found->inode->EndModify();
        return verdict;
      },
      std::move(done));
}

int PathHandles::Close(double handle) {
  std::shared_ptr<Handle> closing;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = handles_.find(handle);
    if (found == handles_.end()) return EBADF;
    closing = std::move(found->second);
    handles_.erase(found);
  }
  closing->fd.reset();
  closing->inode->CloseHandle(&closing->file);
  return 0;
}

void PathHandles::Truncate(const std::string& path, off_t size, Done done) {
  int error = 0;
  const std::shared_ptr<InodeImpl> inode = InodeAt(path, &error);
  if (inode == nullptr) {
    done(error);
    return;
  }
  Repeat([inode, size](Wake wake) { return inode->Truncate(size, 0, std::move(wake)); },
         std::move(done));
}

int PathHandles::SetTimes(const std::string& path, const struct timespec times[2]) {
  int error = 0;
  const std::shared_ptr<InodeImpl> inode = InodeAt(path, &error);
  return inode == nullptr ? error : inode->SetTimes(times);
}

int PathHandles::Rename(const std::string& from, const std::string& to) {
  int error = CheckPath(from);
  if (error == 0) error = CheckPath(to);
  if (error != 0) return error;
  std::string from_parent, from_name, to_parent, to_name;
  SplitPath(from, &from_parent, &from_name);
  SplitPath(to, &to_parent, &to_name);
  const int flags = O_PATH | O_DIRECTORY;
  const UniqueFd from_dir = OpenBeneath(store_->root(), from_parent, flags, 0, &error);
  if (error != 0) return error;
  const UniqueFd to_dir = OpenBeneath(store_->root(), to_parent, flags, 0, &error);
  if (error != 0) return error;
  error = store_->NoteRename();
  if (error != 0) return error;
  // Around the look, too: a job gives names to other inodes.
  auto names = store_->HoldNames();
  const std::shared_ptr<InodeImpl> moved = InodeAt(from, &error);
  if (moved == nullptr) return error;
  int ignored = 0;
  const std::shared_ptr<InodeImpl> replaced = InodeAt(to, &ignored);
  const bool over = replaced != nullptr && replaced != moved;
  const bool last = over && IsLastName(to_dir.get(), to_name);
  if (last) replaced->LosesLastName();
  if (renameat(from_dir.get(), from_name.c_str(), to_dir.get(), to_name.c_str()) != 0) return errno;
  names.unlock();
  // A walk that began in between has seen what was.
  store_->NoteRename();
  moved->MetadataChanged();
  if (last)
    replaced->LostLastName();
  else if (over)
    replaced->MetadataChanged();
  if (moved == replaced || !store_->changes().on()) return 0;
  Change change = {.kind = Change::kRename,
                   .last = last,
                   .exists = last && replaced->MayHaveCopy(),
                   .name = to_name,
                   .moved = moved->fid(),
                   .moved_name = from_name};
  if (over) change.fid = replaced->fid();
  store_->handles().FidOf(to_dir.get(), &change.parent);
  store_->handles().FidOf(from_dir.get(), &change.moved_parent);
  store_->changes().Note(std::move(change));
  return 0;
}

int PathHandles::Unlink(const std::string& path) {
  int error = CheckPath(path);
  if (error != 0) return error;
  std::string parent, name;
  SplitPath(path, &parent, &name);
  const UniqueFd dir = OpenBeneath(store_->root(), parent, O_PATH | O_DIRECTORY, 0, &error);
  if (error != 0) return error;
  auto names = store_->HoldNames();
  const std::shared_ptr<InodeImpl> inode = InodeAt(path, &error);
  if (inode == nullptr) return error;
  const bool last = IsLastName(dir.get(), name);
  struct stat st = {};
  fstatat(dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW);
  if (last) inode->LosesLastName();
  if (unlinkat(dir.get(), name.c_str(), 0) != 0) return errno;
  names.unlock();
  if (last)
    inode->LostLastName();
  else
    inode->MetadataChanged();
  if (!store_->changes().on()) return 0;
  const bool was_last = st.st_nlink == 1;
  Change change = {.kind = Change::kUnlink,
                   .fid = inode->fid(),
                   .last = was_last,
                   .exists = was_last && inode->MayHaveCopy(),
                   .name = name};
  store_->handles().FidOf(dir.get(), &change.parent);
  store_->changes().Note(std::move(change));
  return 0;
}

int PathHandles::Link(const std::string& from, const std::string& to) {
  int error = CheckPath(to);
  if (error != 0) return error;
  std::string parent, name;
  SplitPath(to, &parent, &name);
  const UniqueFd dir = OpenBeneath(store_->root(), parent, O_PATH | O_DIRECTORY, 0, &error);
  if (error != 0) return error;
  const UniqueFd fd = OpenBeneath(store_->root(), from, O_PATH, 0, &error);
  if (error != 0) return error;
  const std::shared_ptr<InodeImpl> inode = store_->GetImpl(fd.get(), &error);
  if (inode == nullptr) return error;
  error = store_->NoteRename();
  if (error != 0) return error;
  {
    const auto names = store_->HoldNames();
    if (linkat(fd.get(), "", dir.get(), name.c_str(), AT_EMPTY_PATH) != 0) return errno;
  }
  // A walk that began in between does not have it.
  store_->NoteRename();
  inode->MetadataChanged();
  return 0;
}

int PathHandles::Stat(const std::string& path, struct stat* st) {
  int error = 0;
  const UniqueFd fd = OpenBeneath(store_->root(), path, O_PATH, 0, &error);
  if (error != 0) return error;
  if (fstat(fd.get(), st) != 0) return errno;
  const std::shared_ptr<InodeImpl> inode = store_->GetImpl(fd.get(), &error);
  if (inode == nullptr) return error;
  bool stable = false;
  inode->Show(st, &stable);
  return 0;
}

}  // namespace lustrite
