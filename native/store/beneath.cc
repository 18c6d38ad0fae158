#include "beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#include <cerrno>
#include <climits>

namespace lustrite {

int CheckPath(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) return EINVAL;
  if (path.size() >= PATH_MAX) return ENAMETOOLONG;
  size_t from = 0;
  while (from <= path.size()) {
    size_t to = path.find('/', from);
    if (to == std::string::npos) to = path.size();
    const size_t length = to - from;
    if (length == 0 || path.compare(from, length, ".") == 0 ||
        path.compare(from, length, "..") == 0) {
      return EINVAL;
    }
    if (length > NAME_MAX) return ENAMETOOLONG;
    from = to + 1;
  }
  return 0;
}

void SplitPath(const std::string& path, std::string* parent, std::string* name) {
  const size_t slash = path.rfind('/');
  *parent = slash == std::string::npos ? "" : path.substr(0, slash);
  *name = slash == std::string::npos ? path : path.substr(slash + 1);
}

UniqueFd OpenBeneath(int root, const std::string& path, int flags, mode_t mode, int* error) {
  if (!path.empty()) {
    *error = CheckPath(path);
    if (*error != 0) return UniqueFd();
  }
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(static_cast<unsigned>(flags | O_CLOEXEC | O_NOFOLLOW));
  how.mode = (flags & (O_CREAT | O_TMPFILE)) ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  // With O_PATH a link as the last component is what was asked for, and RESOLVE_NO_SYMLINKS allows
  // that.
  const char* name = path.empty() ? "." : path.c_str();
  UniqueFd fd;
  // EAGAIN: something was renamed during the walk, the kernel asks to try again.
  for (int attempt = 0; attempt < 64; attempt++) {
    fd.reset(static_cast<int>(syscall(SYS_openat2, root, name, &how, sizeof how)));
    if (fd.ok() || errno != EAGAIN) break;
  }
  *error = fd.ok() ? 0 : errno;
  return fd;
}

}  // namespace lustrite
