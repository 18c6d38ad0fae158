#include "walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "beneath.h"

namespace lustrite {
namespace {

constexpr size_t kBuffer = 64 * 1024;

struct Entry {  // linux_dirent64
  uint64_t ino;
  int64_t offset;
  unsigned short length;
  unsigned char type;
  char name[];
};

}  // namespace

int StateOf(StoreImpl& store, int fd, FileState* state) {
  Fid fid;
  int error = store.handles().FidOf(fd, &fid);
  if (error != 0) return error;
  std::shared_ptr<InodeImpl> inode = store.Find(fid);
  Record record;
  struct stat st = {};
  if (inode == nullptr) {
    error = ReadRecord(fd, store.id(), &record);
    if (error != 0) return error;
    if (fstat(fd, &st) != 0) return errno;
    const bool suspended = record.statement && record.statement->suspended;
    // Suspended by another daemon: worth an attempt to settle it.
    if (suspended && S_ISREG(st.st_mode)) inode = store.GetImpl(fd, &error);
    if (error != 0) return error;
  }
  if (inode != nullptr) return inode->State(state);
  state->fid = fid;
  state->archive_id = record.archive_id;
  state->copy = std::move(record.copy);
  state->allocated = static_cast<uint64_t>(st.st_blocks) * 512;
  if (S_ISREG(st.st_mode)) {
    record.copy = state->copy;
    const Content content = JudgeContent(record, EvidenceOf(st), nullptr, store.boot());
    state->flags = ShownFlags(record, content);
    state->modified = ShownModified(record, content);
    state->needs_archive = NeedsArchive(record, content);
    st.st_ctim = ShownCtime(record, st.st_ctim, std::nullopt);
    if (content == Content::kReleased) {
      st.st_size = static_cast<off_t>(record.statement->size);
      st.st_mtim = record.statement->mtime;
      st.st_blocks = st.st_size > 0 ? 1 : 0;
    }
  }
  state->st = st;
  return 0;
}

int ReadTarget(int fd, std::string* target) {
  char text[PATH_MAX];
  const ssize_t got = readlinkat(fd, "", text, sizeof text);
  if (got < 0) return errno;
  target->assign(text, static_cast<size_t>(got));
  return 0;
}

Walk::Walk(std::shared_ptr<StoreImpl> store, std::string path, bool changed)
    : store_(std::move(store)), start_(std::move(path)), changed_(changed) {}

int Walk::Enter(const Pending& directory) {
  int error = 0;
  fd_ = store_->handles().Open(directory.fid, O_RDONLY | O_DIRECTORY, &error);
  if (error == ESTALE) error = 0;  // removed meanwhile
  path_ = directory.path;
  at_ = end_ = 0;
  buffer_.resize(kBuffer);
  return error;
}

int Walk::Fill() {
  const long got = syscall(SYS_getdents64, fd_.get(), buffer_.data(), buffer_.size());
  at_ = 0;
  end_ = got > 0 ? static_cast<size_t>(got) : 0;
  return got < 0 && errno != ENOENT ? errno : 0;
}

int Walk::Look(const char* name, WalkEntry* entry, bool* wanted) {
  *wanted = false;
  const UniqueFd fd(openat(fd_.get(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.ok()) return errno == ENOENT ? 0 : errno;
  const int error = StateOf(*store_, fd.get(), &entry->state);
  if (error == ESTALE) {
    // Removed meanwhile, or with the record of another store: that cannot be read, and it is there.
    struct stat st = {};
    return fstat(fd.get(), &st) == 0 && st.st_nlink > 0 ? EIO : 0;
  }
  if (error != 0) return error;
  const mode_t mode = entry->state.st.st_mode;
  if (S_ISLNK(mode) && ReadTarget(fd.get(), &entry->target) != 0) return 0;
  // Special files too: an export says of them that blobs cannot hold them.
  *wanted = !changed_ || !S_ISREG(mode) || entry->state.needs_archive;
  return 0;
}

bool Walk::Next(size_t batch, std::vector<WalkEntry>* entries, int* error) {
  *error = 0;
  if (!started_) {
    started_ = true;
    Pending first = {store_->root_fid(), ""};
    if (!start_.empty()) {
      const UniqueFd fd = OpenBeneath(store_->root(), start_, O_PATH | O_DIRECTORY, 0, error);
      if (*error == 0) *error = store_->handles().FidOf(fd.get(), &first.fid);
      first.path = start_ + "/";
    }
    if (*error != 0) return false;
    pending_.push_back(std::move(first));
  }
  while (entries->size() < batch) {
    if (stopped_) return false;
    if (!fd_.ok()) {
      if (pending_.empty()) return !entries->empty();
      const Pending next = std::move(pending_.back());
      pending_.pop_back();
      *error = Enter(next);
      if (*error != 0) return true;
      if (!fd_.ok()) continue;
    }
    if (at_ == end_) {
      *error = Fill();
      if (at_ == end_) {  // its end, or no more to be had of it
        fd_.reset();
        for (; !found_.empty(); found_.pop_back()) pending_.push_back(std::move(found_.back()));
        if (*error != 0) return true;
        continue;
      }
    }
    const auto* item = reinterpret_cast<const Entry*>(buffer_.data() + at_);
    at_ += item->length;
    if (strcmp(item->name, ".") == 0 || strcmp(item->name, "..") == 0) continue;
    WalkEntry entry;
    bool wanted = false;
    *error = Look(item->name, &entry, &wanted);
    if (*error != 0) return true;
    if (!wanted) continue;
    entry.path = path_ + item->name;
    if (S_ISDIR(entry.state.st.st_mode)) found_.push_back({entry.state.fid, entry.path + "/"});
    entries->push_back(std::move(entry));
  }
  return true;
}

int Census(const std::shared_ptr<StoreImpl>& store, std::map<std::string, double>* counts) {
  static constexpr const char* kNames[] = {
      "files",         "directories", "symlinks",      "special",        "resident",
      "residentBytes", "released",    "releasedBytes", "dirty",          "dirtyBytes",
      "new",           "newBytes",    "bytes",         "allocatedBytes", "unreadable"};
  for (const char* name : kNames) (*counts)[name] = 0;
  Walk walk(store, "", false);
  std::vector<WalkEntry> entries;
  int error = 0;
  bool more = true;
  while (more) {
    entries.clear();
    more = walk.Next(1024, &entries, &error);
    if (error != 0) (*counts)["unreadable"]++;
    for (const WalkEntry& entry : entries) {
      const FileState& state = entry.state;
      const mode_t mode = state.st.st_mode;
      if (!S_ISREG(mode)) {
        (*counts)[S_ISDIR(mode) ? "directories" : S_ISLNK(mode) ? "symlinks" : "special"]++;
        continue;
      }
      const double size = static_cast<double>(state.st.st_size);
      (*counts)["files"]++;
      (*counts)["bytes"] += size;
      (*counts)["allocatedBytes"] += static_cast<double>(state.allocated);
      const bool released = (state.flags & HS_RELEASED) != 0;
      (*counts)[released ? "released" : "resident"]++;
      (*counts)[released ? "releasedBytes" : "residentBytes"] += size;
      if (released || !state.needs_archive) continue;
      const bool is_new = !state.copy;
      (*counts)[is_new ? "new" : "dirty"]++;
      (*counts)[is_new ? "newBytes" : "dirtyBytes"] += size;
    }
  }
  return 0;
}

}  // namespace lustrite
