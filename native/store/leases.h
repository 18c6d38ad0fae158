// fcntl(2) leases: the kernel's word that nobody else has a file open (for writing), handles and
// mappings that outlived their daemon included.
#ifndef LUSTRITE_STORE_LEASES_H_
#define LUSTRITE_STORE_LEASES_H_

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "unique_fd.h"

namespace lustrite {

// Processes of ours that have copies of our descriptors, for some microseconds each: while they do
// there is a writer of what we have closed.
class Copies {
 public:
  static void Begin() { begun_++; }
  static void End() { ended_++; }
  static uint64_t Ended() { return ended_; }
  // Whether there was one since Ended() was `ended`; it is over then.
  static bool WereThere(uint64_t ended);

 private:
  static inline std::atomic<uint64_t> begun_{0};
  static inline std::atomic<uint64_t> ended_{0};
};

class Leases;

// A lease and the one fd it hangs on; fsync, punch and xattr writes under it go through that fd.
class Lease {
 public:
  Lease(Leases* table, UniqueFd fd, int type) : table_(table), fd_(std::move(fd)), type_(type) {}
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int fd() const { return fd_.get(); }
  // Held without a gap since it was granted.
  bool Held() const;
  // Gives the lease back and keeps the fd. Never again held.
  void Drop();

 private:
  friend class Leases;
  Leases* const table_;
  UniqueFd fd_;
  const int type_;
  std::atomic<bool> dropped_{false};
};

// The table of live leases and the thread that the kernel tells of an opener who waits: read leases
// are dropped at once, so that he does not wait for lease-break-time (45 s). Write leases live for
// the few milliseconds of a release and are not dropped in the middle of it.
class Leases {
 public:
  Leases();
  ~Leases();

  // type: F_RDLCK (fd opened O_RDONLY) or F_WRLCK. Null with *error: EAGAIN = somebody has it open
  // (for writing).
  std::unique_ptr<Lease> Take(UniqueFd fd, int type, int* error);
  size_t Count();

 private:
  friend class Lease;
  void Run();
  void Broken(int fd);

  std::mutex mutex_;
  std::map<int, Lease*> live_;
  std::atomic<int> tid_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_LEASES_H_
