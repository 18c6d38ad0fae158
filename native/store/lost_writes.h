// Writes that the disk has lost, for who has not heard of it. The kernel tells an error of the
// writeback once: to each fd that is open then, else to the first that asks. The store's own fsyncs
// ask, too, and an application's fsync must not keep the error from the archive.
//
// For as long as the daemon lives, and for the latest of very many.
#ifndef LUSTRITE_STORE_LOST_WRITES_H_
#define LUSTRITE_STORE_LOST_WRITES_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "fid.h"

namespace lustrite {

class LostWrites {
 public:
  // Bits.
  enum Hearer : uint8_t { kNobody = 0, kApplication = 1, kArchive = 2 };

  // fsync of a file of the store, heard by `hearer`. Returns an errno.
  int Sync(const Fid& fid, int fd, Hearer hearer, bool data_only = false);

  // Its archive need not hear of what is no more.
  void Emptied(const Fid& fid) { Take(fid, kArchive); }

 private:
  // An errno that `hearer` has not heard of.
  int Take(const Fid& fid, Hearer hearer);

  struct Lost {
    int error = 0;
    uint8_t untold = 0;
  };
  std::mutex mutex_;
  std::unordered_map<Fid, Lost, FidHash> lost_;
  std::atomic<size_t> count_{0};
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_LOST_WRITES_H_
