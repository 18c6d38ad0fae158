// The identity of an inode: its number and generation in the store's file system, written as a
// Lustre FID.
#ifndef LUSTRITE_STORE_FID_H_
#define LUSTRITE_STORE_FID_H_

#include <cstdint>
#include <functional>
#include <string>

#include "../abi.h"

namespace lustrite {

struct Fid {
  uint64_t ino = 0;
  uint32_t generation = 0;
  bool operator==(const Fid&) const = default;
};

// FID_SEQ_NORMAL, the first sequence Lustre gives to files.
inline constexpr uint64_t kFidSequence = 0x200000400;

// seq = kFidSequence + high half of the inode number, oid = its low half, ver = generation.
struct lu_fid ToLustre(const Fid& fid);
// False for a FID no inode of ours can have.
bool FromLustre(const struct lu_fid& lustre, Fid* fid);

// "[0x200000400:0x5:0x0]"; parsing accepts it without brackets too.
std::string ToString(const Fid& fid);
bool ParseFid(const std::string& text, Fid* fid);
// The same for one that perhaps no inode of ours can have.
bool ScanFid(const std::string& text, struct lu_fid* lustre);

struct FidHash {
  size_t operator()(const Fid& fid) const {
    return std::hash<uint64_t>()(fid.ino * 0x9e3779b97f4a7c15ull ^ fid.generation);
  }
};

}  // namespace lustrite

#endif  // LUSTRITE_STORE_FID_H_
