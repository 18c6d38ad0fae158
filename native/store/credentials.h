// Whom somebody acts for, and what the kernel lets him do.
#ifndef LUSTRITE_STORE_CREDENTIALS_H_
#define LUSTRITE_STORE_CREDENTIALS_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace lustrite {

struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  // Bits of capabilities(7), of our user namespace.
  uint64_t capabilities = 0;
};

// Of a process that makes a system call with this file system uid: its groups and effective
// capabilities, none when it is gone. Those of another user namespace are nothing here. What cannot
// be looked at, in another PID namespace (pid 0), goes by its uid.
Credentials CredentialsOf(uid_t uid, gid_t gid, pid_t pid);

// 0 where `who` may write the inode behind `fd` (O_PATH is enough), else the errno that open(2)
// would have for him: mode, ACLs and capabilities are the kernel's to judge.
int MayWrite(int fd, const Credentials& who);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_CREDENTIALS_H_
