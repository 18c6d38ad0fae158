// What HSM knows of an inode, and its bytes in the xattr `trusted.lustrite`.
//
// One xattr, so that one setxattr changes all of it atomically. Compact: a stub whose record fits
// into the spare room of an ext4 inode (64 bytes) costs no disk block of its own. What can be said
// shortly is (an ETag "0x8D..." as 8 bytes, a time of whole seconds as 4), what follows from
// something else is left out (a size equal to the copy's).
#ifndef LUSTRITE_STORE_RECORD_H_
#define LUSTRITE_STORE_RECORD_H_

#include <array>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <string_view>

namespace lustrite {

struct Copy {
  std::string blob;
  std::string etag;
  uint64_t size = 0;
  int64_t last_modified_ms = 0;
  std::optional<std::array<uint8_t, 16>> md5;
  bool operator==(const Copy&) const = default;
};

// "The content was what the record says when the file had this size and mtime." Released files:
// what to show.
struct Statement {
  uint64_t size = 0;
  struct timespec mtime = {};
  // Somebody may be writing; says nothing in another boot than `boot` (a power loss can keep new
  // data under an old mtime).
  bool suspended = false;
  uint64_t boot = 0;
};

struct Record {
  uint8_t flags = 0;  // HS_*
  // The content is not the copy's. HS_DIRTY is the users' view of it, which they may clear.
  bool modified = false;
  uint32_t archive_id = 0;
  std::optional<Copy> copy;
  std::optional<Statement> statement;
  // st_ctime as applications see it, where our own writes to the inode must not show.
  std::optional<struct timespec> ctime;
  // The store whose file it is; 0: made before records said so. A FID is good for every inode of
  // the file system, also for those of another store.
  uint32_t store = 0;
};

bool operator==(const Record& a, const Record& b);

inline bool SameTime(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// Bytes of a record that ext4 keeps inside a 256-byte inode.
inline constexpr size_t kRecordRoom = 64;
inline constexpr size_t kMaxRecord = 4000;

// The MD5 is left out where it would be what pushes the record beyond `room`. Empty when the record
// says nothing (then the xattr is to be removed); never longer than kMaxRecord, or nullopt (a blob
// name beyond all limits).
std::optional<std::string> EncodeRecord(const Record& record, size_t room = kRecordRoom);

// False for anything EncodeRecord did not make.
bool DecodeRecord(std::string_view bytes, Record* record);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_RECORD_H_
