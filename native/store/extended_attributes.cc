#include "extended_attributes.h"

#include <linux/limits.h>
#include <sys/xattr.h>

#include <cerrno>

#include "inode_impl.h"

namespace lustrite {

int GetExtended(int fd, const std::string& name, std::string* value) {
  value->resize(XATTR_SIZE_MAX);
  const ssize_t size = getxattr(ProcPath(fd).c_str(), name.c_str(), value->data(), value->size());
  if (size < 0) return errno;
  value->resize(static_cast<size_t>(size));
  return 0;
}

int SetExtended(int fd, const std::vector<ExtendedAttribute>& attributes) {
  if (attributes.empty()) return 0;
  const std::string path = ProcPath(fd);
  for (const auto& [name, value] : attributes) {
    if (value) {
      if (setxattr(path.c_str(), name.c_str(), value->data(), value->size(), 0) != 0) return errno;
    } else if (removexattr(path.c_str(), name.c_str()) != 0 && errno != ENODATA &&
               errno != ENOTSUP) {
      return errno;
    }
  }
  return 0;
}

}  // namespace lustrite
