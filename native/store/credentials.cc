#include "credentials.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "threads.h"

namespace lustrite {

namespace {

// Empty with errno.
std::string UserNamespace(const std::string& process) {
  char text[64];
  const ssize_t size = readlink(("/proc/" + process + "/ns/user").c_str(), text, sizeof(text));
  return size < 0 ? std::string() : std::string(text, static_cast<size_t>(size));
}

constexpr uint64_t kAll = ~uint64_t{0};

std::vector<gid_t> Numbers(const char* at) {
  std::vector<gid_t> numbers;
  for (;;) {
    char* end = nullptr;
    const unsigned long number = strtoul(at, &end, 10);
    if (end == at) return numbers;
    numbers.push_back(static_cast<gid_t>(number));
    at = end;
  }
}

// Of the calling thread alone: the functions of libc change all threads of a process.
int Become(const Credentials& who) {
  if (syscall(SYS_setgroups, who.groups.size(), who.groups.data()) != 0) return errno;
  // They say what was, and never that they failed.
  setfsgid(who.gid);
  setfsuid(who.uid);
  if (setfsgid(static_cast<gid_t>(-1)) != static_cast<int>(who.gid)) return EPERM;
  if (setfsuid(static_cast<uid_t>(-1)) != static_cast<int>(who.uid)) return EPERM;
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  for (int half = 0; half < _LINUX_CAPABILITY_U32S_3; half++) {
    data[half].effective =
        data[half].permitted & static_cast<uint32_t>(who.capabilities >> (32 * half));
  }
  return syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

}  // namespace

Credentials CredentialsOf(uid_t uid, gid_t gid, pid_t pid) {
  Credentials who{uid, gid, {}, 0};
  if (pid == 0) {
    if (uid == 0) who.capabilities = kAll;
    return who;
  }
  const std::string process = std::to_string(pid);
  FILE* file = fopen(("/proc/" + process + "/status").c_str(), "re");
  if (!file) return who;
  // Another process may have the number by now.
  bool still = false;
  char* line = nullptr;
  size_t room = 0;
  while (getline(&line, &room, file) > 0) {
    // proc(5): real, effective, saved, file system.
    if (strncmp(line, "Uid:", 4) == 0) {
      const std::vector<gid_t> ids = Numbers(line + 4);
      still = ids.size() == 4 && ids[3] == uid;
    }
    if (strncmp(line, "Groups:", 7) == 0) who.groups = Numbers(line + 7);
    if (strncmp(line, "CapEff:", 7) == 0) who.capabilities = strtoull(line + 7, nullptr, 16);
  }
  free(line);
  fclose(file);
  if (!still) return {uid, gid, {}, 0};
  if (who.capabilities == 0) return who;
  const std::string theirs = UserNamespace(process);
  // A daemon with fewer capabilities than its caller may not look.
  if (theirs.empty() && (errno == EACCES || errno == EPERM)) {
    who.capabilities = uid == 0 ? kAll : 0;
  } else if (theirs != UserNamespace("self")) {
    who.capabilities = 0;
  }
  return who;
}

int MayWrite(int fd, const Credentials& who) {
  struct Question {
    int fd;
    const Credentials& who;
    int error;
  } question{fd, who, 0};
  // What it becomes it stays, so it is of no further use.
  pthread_t thread;
  const int started = pthread_create(
      &thread, nullptr,
      [](void* argument) -> void* {
        auto* asked = static_cast<Question*>(argument);
        EnterThread("lustrite-access");
        asked->error = Become(asked->who);
        const int flags = AT_EACCESS | AT_EMPTY_PATH;
        if (asked->error == 0 && syscall(SYS_faccessat2, asked->fd, "", W_OK, flags) != 0) {
          asked->error = errno;
        }
        return nullptr;
      },
      &question);
  if (started != 0) return started;
  pthread_join(thread, nullptr);
  return question.error;
}

}  // namespace lustrite
