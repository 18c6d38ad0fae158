// Paths of the namespace, resolved by the kernel so that they cannot leave it: relative, no "..",
// no symbolic link on the way, whatever somebody swaps meanwhile.
#ifndef LUSTRITE_STORE_BENEATH_H_
#define LUSTRITE_STORE_BENEATH_H_

#include <sys/types.h>

#include <string>

#include "unique_fd.h"

namespace lustrite {

// 0, or EINVAL ('', absolute, '.', '..', empty component, NUL), ENAMETOOLONG.
int CheckPath(const std::string& path);

// "a/b/c" -> "a/b", "c"; "c" -> "", "c".
void SplitPath(const std::string& path, std::string* parent, std::string* name);

// flags as open(2), O_CLOEXEC and O_NOFOLLOW added. "" is the root itself. ELOOP: a symbolic link
// on the way.
UniqueFd OpenBeneath(int root, const std::string& path, int flags, mode_t mode, int* error);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_BENEATH_H_
