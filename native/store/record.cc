#include "record.h"

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "../abi.h"

namespace lustrite {
namespace {

// Byte 0: format. Bytes 1-3: flags (bit 7: modified), then the shape of what follows,
// little-endian.
constexpr uint8_t kFormat = 1;
constexpr uint8_t kModifiedBit = 0x80;
enum Shape : uint16_t {
  kArchiveOne = 1 << 0,
  kArchiveWord = 1 << 1,
  kCopy = 1 << 2,
  kEtagText = 1 << 3,           // else 8 bytes, shown as "0x%X"
  kLastModifiedExact = 1 << 4,  // 8 bytes of milliseconds; else 4 of seconds
  kMd5 = 1 << 5,
  kStatement = 1 << 6,
  kSizeElided = 1 << 7,   // statement size = copy size
  kMtimeElided = 1 << 8,  // statement mtime = the copy's last-modified
  kMtimeExact = 1 << 9,   // 12 bytes; else 4 of seconds
  kSuspended = 1 << 10,
  kCtime = 1 << 11,
  kStore = 1 << 12,
};
constexpr uint16_t kAllShapes = (1 << 13) - 1;

class Writer {
 public:
  void Fixed(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) out_.push_back(static_cast<char>(value >> (8 * i)));
  }
  void Varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_.push_back(static_cast<char>(value | 0x80));
    out_.push_back(static_cast<char>(value));
  }
  void Bytes(std::string_view bytes) { out_.append(bytes); }
  void Time(const struct timespec& time) {
    Fixed(static_cast<uint64_t>(time.tv_sec), 8);
    Fixed(static_cast<uint64_t>(time.tv_nsec), 4);
  }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  bool ok() const { return ok_; }
  uint64_t Fixed(int bytes) {
    const std::string_view got = Bytes(static_cast<size_t>(bytes));
    uint64_t value = 0;
    for (size_t i = 0; i < got.size(); i++) {
      value |= static_cast<uint64_t>(static_cast<uint8_t>(got[i])) << (8 * i);
    }
    return value;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t byte = Fixed(1);
      value |= (byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) {
        // One spelling a number: no bits lost at the top, no padding.
        if ((shift == 63 && byte > 1) || (shift > 0 && byte == 0)) ok_ = false;
        return value;
      }
    }
    ok_ = false;
    return 0;
  }
  std::string_view Bytes(size_t count) {
    if (count > left_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view got = left_.substr(0, count);
    left_.remove_prefix(count);
    return got;
  }
  std::string_view Rest() { return Bytes(left_.size()); }
  struct timespec Time() {
    struct timespec time = {};
    time.tv_sec = static_cast<time_t>(Fixed(8));
    time.tv_nsec = static_cast<long>(Fixed(4));
    if (time.tv_nsec >= 1000000000) ok_ = false;
    return time;
  }

 private:
  std::string_view left_;
  bool ok_ = true;
};

// The usual ETag is 0x and upper-case hex digits without leading zeros.
bool EtagNumber(const std::string& etag, uint64_t* number) {
  if (etag.size() < 3 || etag.size() > 18 || etag.compare(0, 2, "0x") != 0) return false;
  uint64_t value = 0;
  for (size_t i = 2; i < etag.size(); i++) {
    const char c = etag[i];
    uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint64_t>(c - '0');
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint64_t>(c - 'A' + 10);
    } else {
      return false;
    }
    if (i == 2 && digit == 0) return false;
    value = value << 4 | digit;
  }
  *number = value;
  return true;
}

std::string EtagText(uint64_t number) {
  char text[24];
  snprintf(text, sizeof text, "0x%" PRIX64, number);
  return text;
}

struct timespec FromMs(int64_t ms) {
  int64_t seconds = ms / 1000;
  int64_t rest = ms % 1000;
  if (rest < 0) {
    seconds--;
    rest += 1000;
  }
  struct timespec time = {};
  time.tv_sec = seconds;
  time.tv_nsec = rest * 1000000;
  return time;
}

bool FitsSeconds(const struct timespec& time) {
  return time.tv_nsec == 0 && time.tv_sec >= 0 && time.tv_sec <= UINT32_MAX;
}

std::string Encode(const Record& record, bool with_md5) {
  uint16_t shape = 0;
  uint64_t etag = 0;
  const Copy* copy = record.copy ? &*record.copy : nullptr;
  const Statement* statement = record.statement ? &*record.statement : nullptr;
  if (record.archive_id == 1) shape |= kArchiveOne;
  if (record.archive_id > 1) shape |= kArchiveWord;
  if (copy != nullptr) {
    shape |= kCopy;
    if (!EtagNumber(copy->etag, &etag)) shape |= kEtagText;
    if (!FitsSeconds(FromMs(copy->last_modified_ms))) shape |= kLastModifiedExact;
    if (copy->md5 && with_md5) shape |= kMd5;
  }
  if (statement != nullptr) {
    shape |= kStatement;
    if (copy != nullptr && statement->size == copy->size) shape |= kSizeElided;
    if (copy != nullptr && SameTime(statement->mtime, FromMs(copy->last_modified_ms))) {
      shape |= kMtimeElided;
    } else if (!FitsSeconds(statement->mtime)) {
      shape |= kMtimeExact;
    }
    if (statement->suspended) shape |= kSuspended;
  }
  if (record.ctime) shape |= kCtime;
  if (record.store != 0) shape |= kStore;

  Writer out;
  out.Fixed(kFormat, 1);
  out.Fixed(static_cast<uint8_t>(record.flags | (record.modified ? kModifiedBit : 0)), 1);
  out.Fixed(shape, 2);
  if (shape & kStore) out.Fixed(record.store, 4);
  if (shape & kArchiveWord) out.Fixed(record.archive_id, 4);
  if (statement != nullptr) {
    if (!(shape & kSizeElided)) out.Varint(statement->size);
    if (shape & kMtimeExact) {
      out.Time(statement->mtime);
    } else if (!(shape & kMtimeElided)) {
      out.Fixed(static_cast<uint64_t>(statement->mtime.tv_sec), 4);
    }
    if (shape & kSuspended) out.Fixed(statement->boot, 8);
  }
  if (record.ctime) out.Time(*record.ctime);
  if (copy != nullptr) {
    out.Varint(copy->size);
    if (shape & kLastModifiedExact) {
      out.Fixed(static_cast<uint64_t>(copy->last_modified_ms), 8);
    } else {
      out.Fixed(static_cast<uint64_t>(copy->last_modified_ms / 1000), 4);
    }
    if (shape & kEtagText) {
      out.Varint(copy->etag.size());
      out.Bytes(copy->etag);
    } else {
      out.Fixed(etag, 8);
    }
    if (shape & kMd5) {
      out.Bytes({reinterpret_cast<const char*>(copy->md5->data()), copy->md5->size()});
    }
    out.Bytes(copy->blob);
  }
  return out.Take();
}

bool SaysNothing(const Record& record) {
  return record.flags == 0 && !record.modified && record.archive_id == 0 && !record.copy &&
         !record.statement && !record.ctime;
}

}  // namespace

bool operator==(const Record& a, const Record& b) {
  const auto same_statement = [](const std::optional<Statement>& x,
                                 const std::optional<Statement>& y) {
    if (x.has_value() != y.has_value()) return false;
    return !x || (x->size == y->size && SameTime(x->mtime, y->mtime) &&
                  x->suspended == y->suspended && x->boot == y->boot);
  };
  return a.flags == b.flags && a.modified == b.modified && a.archive_id == b.archive_id &&
         a.store == b.store && a.copy == b.copy && same_statement(a.statement, b.statement) &&
         a.ctime.has_value() == b.ctime.has_value() && (!a.ctime || SameTime(*a.ctime, *b.ctime));
}

std::optional<std::string> EncodeRecord(const Record& record, size_t room) {
  if (SaysNothing(record)) return std::string();
  std::string bytes = Encode(record, false);
  if (record.copy && record.copy->md5) {
    const size_t with = bytes.size() + record.copy->md5->size();
    if (with <= room || (bytes.size() > room && with <= kMaxRecord)) bytes = Encode(record, true);
  }
  if (bytes.size() > kMaxRecord) return std::nullopt;
  return bytes;
}

bool DecodeRecord(std::string_view bytes, Record* record) {
  *record = Record();
  if (bytes.empty()) return true;
  Reader in(bytes);
  if (in.Fixed(1) != kFormat) return false;
  const uint8_t flags = static_cast<uint8_t>(in.Fixed(1));
  const uint16_t shape = static_cast<uint16_t>(in.Fixed(2));
  if (!in.ok() || (shape & ~kAllShapes) != 0) return false;
  const bool has_copy = (shape & kCopy) != 0;
  const bool has_statement = (shape & kStatement) != 0;
  if (!has_copy && (shape & (kEtagText | kLastModifiedExact | kMd5 | kSizeElided | kMtimeElided))) {
    return false;
  }
  if (!has_statement && (shape & (kSizeElided | kMtimeElided | kMtimeExact | kSuspended))) {
    return false;
  }
  if ((shape & kMtimeElided) && (shape & kMtimeExact)) return false;
  if ((shape & kArchiveOne) && (shape & kArchiveWord)) return false;

  record->flags = flags & HSM_FLAGS_MASK;
  record->modified = (flags & kModifiedBit) != 0;
  if (shape & kStore) {
    record->store = static_cast<uint32_t>(in.Fixed(4));
    if (record->store == 0) return false;
  }
  if (shape & kArchiveOne) record->archive_id = 1;
  if (shape & kArchiveWord) record->archive_id = static_cast<uint32_t>(in.Fixed(4));
  Statement statement;
  if (has_statement) {
    if (!(shape & kSizeElided)) statement.size = in.Varint();
    if (shape & kMtimeExact) {
      statement.mtime = in.Time();
    } else if (!(shape & kMtimeElided)) {
      statement.mtime.tv_sec = static_cast<time_t>(in.Fixed(4));
    }
    statement.suspended = (shape & kSuspended) != 0;
    if (statement.suspended) statement.boot = in.Fixed(8);
  }
  if (shape & kCtime) record->ctime = in.Time();
  if (has_copy) {
    Copy copy;
    copy.size = in.Varint();
    if (shape & kLastModifiedExact) {
      copy.last_modified_ms = static_cast<int64_t>(in.Fixed(8));
    } else {
      copy.last_modified_ms = static_cast<int64_t>(in.Fixed(4)) * 1000;
    }
    copy.etag = (shape & kEtagText) ? std::string(in.Bytes(in.Varint())) : EtagText(in.Fixed(8));
    if (shape & kMd5) {
      const std::string_view md5 = in.Bytes(16);
      copy.md5.emplace();
      if (md5.size() == 16) memcpy(copy.md5->data(), md5.data(), 16);
    }
    if (shape & kSizeElided) statement.size = copy.size;
    if (shape & kMtimeElided) statement.mtime = FromMs(copy.last_modified_ms);
    copy.blob = std::string(in.Rest());
    record->copy = std::move(copy);
  } else if (!in.Rest().empty()) {
    return false;
  }
  if (has_statement) record->statement = statement;
  // A file whose data is nowhere must say at least how it is to be shown.
  if ((record->flags & HS_RELEASED) && !has_statement) return false;
  return in.ok();
}

}  // namespace lustrite
