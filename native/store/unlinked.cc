#include "unlinked.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

namespace lustrite {
namespace {

std::string Hex(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

std::string LineOf(const Fid& fid, const Record& record) {
  const Copy& copy = *record.copy;
  return ToString(fid) + ' ' + std::to_string(record.archive_id) + ' ' + std::to_string(copy.size) +
         ' ' + std::to_string(copy.last_modified_ms) + ' ' + Hex(copy.etag) + ' ' + Hex(copy.blob) +
         '\n';
}

}  // namespace

int Unlinked::Open(int store) {
  if (mkdirat(store, "unlinked", 0700) != 0 && errno != EEXIST) return errno;
  directory_.reset(openat(store, "unlinked", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory_.ok()) return errno;
  // A full disk keeps no store from opening: the next note tries again.
  const int error = Renew();
  return error == ENOSPC || error == EDQUOT ? 0 : error;
}

int Unlinked::Renew() {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
  log_.reset(openat(directory_.get(), "log", flags, 0600));
  struct stat st = {};
  if (!log_.ok() || fstat(log_.get(), &st) != 0) return errno;
  size_ = st.st_size;
  return 0;
}

void Unlinked::Note(const Fid& fid, const Record& record) {
  const std::string line = LineOf(fid, record);
  const std::lock_guard lock(mutex_);
  if (log_.ok() && size_ >= kMostBytes) {
    log_.reset();
    if (renameat(directory_.get(), "log", directory_.get(), "log.old") != 0) return;
  }
  if (!log_.ok() && Renew() != 0) return;
  // Of a line that was cut short a reader makes nothing, nor of the next one, which it runs into.
  const ssize_t written = write(log_.get(), line.data(), line.size());
  if (written > 0) size_ += written;
}

}  // namespace lustrite
