// STORE/unlinked: the copies of files whose last name is gone, so that a later hsm_remove by FID
// still finds the blob (lustre-hsm 3.1; DESIGN 4). One line a file, the newest of a FID counts:
//
//   FID archive-id size last-modified-ms etag blob     (etag and blob in hexadecimal digits)
//
// Bounded: a log that is full makes place by taking the place of the one before it.
#ifndef LUSTRITE_STORE_UNLINKED_H_
#define LUSTRITE_STORE_UNLINKED_H_

#include <mutex>

#include "fid.h"
#include "record.h"
#include "unique_fd.h"

namespace lustrite {

class Unlinked {
 public:
  static constexpr off_t kMostBytes = 16 << 20;

  // In the directory of the store. An errno.
  int Open(int store);

  // Before the last name goes: a line too many costs nothing, a missing one a blob that stays. What
  // cannot be written, say on a full disk, is not: nobody is kept from deleting files for it.
  void Note(const Fid& fid, const Record& record);

 private:
  int Renew();

  std::mutex mutex_;
  UniqueFd directory_;
  UniqueFd log_;
  off_t size_ = 0;
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_UNLINKED_H_
