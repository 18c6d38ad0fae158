// The pure parts of the store, row by row; prints TAP (test/unit/native-rules.test.ts runs it).
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "beneath.h"
#include "fid.h"
#include "record.h"
#include "rules.h"

namespace lustrite {
namespace {

int tests = 0;
int failures = 0;

void Test(const char* title, const std::function<std::string()>& body) {
  const std::string problem = body();
  tests++;
  if (!problem.empty()) failures++;
  printf("%sok %d - %s\n", problem.empty() ? "" : "not ", tests, title);
  if (!problem.empty()) printf("# %s\n", problem.c_str());
}

constexpr uint64_t kBoot = 77;
constexpr struct timespec kThen = {1700000000, 0};
constexpr struct timespec kLater = {1700000001, 5};

Copy SomeCopy() { return {"dir/file.bin", "0x8DC0123456789AB", 4096, 1700000000000, {}}; }

// 0x09, as an import and a restore leave it.
Record Clean() {
  Record record;
  record.flags = HS_EXISTS | HS_ARCHIVED;
  record.archive_id = 1;
  record.copy = SomeCopy();
  record.statement = Statement{4096, kThen, false, 0};
  return record;
}

Record With(Record record, const std::function<void(Record&)>& change) {
  change(record);
  return record;
}

Record Released() {
  return With(Clean(), [](Record& r) { r.flags |= HS_RELEASED; });
}
Record Suspended(uint64_t boot = kBoot) {
  return With(Clean(), [boot](Record& r) {
    r.statement->suspended = true;
    r.statement->boot = boot;
  });
}
Record Dirty() {
  return With(Clean(), [](Record& r) { Fold(&r); });
}

const Evidence kSame = {4096, kThen, {1700000002, 0}};

std::string Hex(uint64_t number) {
  char text[32];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(number));
  return text;
}

std::string RoundTrips() {
  const std::array<uint8_t, 16> md5 = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  const std::vector<Record> rows = {
      Record(),
      Clean(),
      Released(),
      Suspended(),
      Dirty(),
      With(Clean(), [](Record& r) { r.archive_id = 0; }),
      With(Clean(), [](Record& r) { r.archive_id = 4000000000u; }),
      With(Clean(), [](Record& r) { r.copy->etag = "opaque \"tag\""; }),
      With(Clean(), [](Record& r) { r.copy->etag = "0x8dc"; }),
      With(Clean(), [](Record& r) { r.copy->etag = "0x08DC"; }),
      With(Clean(), [](Record& r) { r.copy->etag = "0xFFFFFFFFFFFFFFFF"; }),
      With(Clean(), [](Record& r) { r.copy->etag = "0x1FFFFFFFFFFFFFFFF"; }),
      With(Clean(), [](Record& r) { r.copy->etag = ""; }),
      With(Clean(), [](Record& r) { r.copy->last_modified_ms = 1700000000123; }),
      With(Clean(), [](Record& r) { r.copy->last_modified_ms = -5; }),
      With(Clean(), [](Record& r) { r.copy->last_modified_ms = 1ll << 50; }),
      With(Clean(), [](Record& r) { r.copy->size = UINT64_MAX; }),
      With(Clean(), [](Record& r) { r.copy->blob = std::string(3000, 'b'); }),
      With(Clean(), [](Record& r) { r.copy->blob = ""; }),
      With(Clean(), [](Record& r) { r.statement->size = 1ull << 63; }),
      With(Clean(), [](Record& r) { r.statement->mtime = {-1, 999999999}; }),
      With(Clean(), [](Record& r) { r.statement->mtime = {1ll << 33, 0}; }),
      With(Clean(), [](Record& r) { r.statement->mtime = kLater; }),
      With(Clean(), [](Record& r) { r.ctime = kLater; }),
      With(Clean(), [](Record& r) { r.copy.reset(); }),
      With(Released(), [](Record& r) { r.flags = HSM_FLAGS_MASK; }),
      With(Record(), [](Record& r) { r.archive_id = 1; }),
      With(Record(), [](Record& r) { r.modified = true; }),
  };
  for (size_t i = 0; i < rows.size(); i++) {
    const auto bytes = EncodeRecord(rows[i]);
    Record back;
    if (!bytes || !DecodeRecord(*bytes, &back) || !(back == rows[i]))
      return "row " + std::to_string(i);
  }
  Record record = Clean();
  record.copy->md5 = md5;
  Record back;
  if (!DecodeRecord(*EncodeRecord(record), &back) || !(back == record)) return "md5";
  return "";
}

std::string Sizes() {
  Record record = Released();
  record.copy->blob = std::string(43, 'n');
  if (EncodeRecord(record)->size() > kRecordRoom) return "43 characters, one time: no room";
  record.statement->mtime = {1600000000, 0};
  record.copy->blob = std::string(35, 'n');
  const size_t bare = EncodeRecord(record)->size();
  if (bare > kRecordRoom) return std::to_string(bare) + " bytes for 35 characters";
  record.copy->md5.emplace();
  if (EncodeRecord(record)->size() != bare) return "an MD5 that does not fit was kept";
  record.copy->blob = "short";
  if (EncodeRecord(record)->size() <= 32) return "an MD5 that fits was dropped";
  record.copy->blob = std::string(200, 'n');
  if (EncodeRecord(record)->size() < 216) return "an MD5 in a block of its own was dropped";
  record.copy->blob = std::string(5000, 'n');
  if (EncodeRecord(record)) return "an endless name was accepted";
  return "";
}

std::string Garbage() {
  std::mt19937 random(1);
  const std::string good = *EncodeRecord(With(Suspended(), [](Record& r) {
    r.ctime = kLater;
    r.copy->etag = "text";
    r.copy->md5.emplace();
  }));
  Record record;
  for (size_t length = 1; length < good.size() - SomeCopy().blob.size(); length++) {
    if (DecodeRecord(std::string_view(good).substr(0, length), &record)) {
      return "accepted the first " + std::to_string(length) + " bytes";
    }
  }
  for (int i = 0; i < 200000; i++) {
    std::string bytes = good;
    for (int n = static_cast<int>(random() % 4) + 1; n > 0; n--) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 3 == 0) bytes.resize(random() % bytes.size());
    if (!DecodeRecord(bytes, &record)) continue;
    // Whatever is accepted says the same again.
    const auto again = EncodeRecord(record);
    Record back;
    if (again && (!DecodeRecord(*again, &back) || !(back == record))) return "unstable";
  }
  if (DecodeRecord("\x02", &record)) return "accepted another format";
  Record nowhere;
  nowhere.flags = HS_RELEASED | HS_EXISTS;
  nowhere.archive_id = 1;
  if (DecodeRecord(*EncodeRecord(nowhere), &record)) return "accepted RELEASED without a size";
  return "";
}

struct ContentRow {
  const char* what;
  Record record;
  Evidence now;
  bool sampled;
  Content content;
  uint8_t shown;
};

std::string Contents() {
  const Evidence grown = {4097, kThen, kSame.ctime};
  const Evidence touched = {4096, kLater, kSame.ctime};
  const Evidence changed_ctime = {4096, kThen, kLater};
  const std::vector<ContentRow> rows = {
      {"new", Record(), kSame, false, Content::kNew, 0},
      {"clean", Clean(), kSame, false, Content::kAsStated, 0x09},
      {"clean, ctime moved by us", Clean(), changed_ctime, false, Content::kAsStated, 0x09},
      {"clean, grown behind our back", Clean(), grown, false, Content::kChanged, 0x0b},
      {"clean, written behind our back", Clean(), touched, false, Content::kChanged, 0x0b},
      {"released is never dirty", Released(), grown, false, Content::kReleased, 0x0d},
      {"suspended, as sampled", Suspended(), kSame, true, Content::kUnproven, 0x09},
      {"suspended, grown", Suspended(), grown, true, Content::kChanged, 0x0b},
      {"suspended, written", Suspended(), touched, true, Content::kChanged, 0x0b},
      {"suspended, times put back", Suspended(), changed_ctime, true, Content::kChanged, 0x0b},
      {"suspended by a killed daemon, as stated", Suspended(), changed_ctime, false,
       Content::kUnproven, 0x09},
      {"suspended by a killed daemon, written", Suspended(), touched, false, Content::kChanged,
       0x0b},
      {"suspended in another boot", Suspended(kBoot + 1), kSame, false, Content::kChanged, 0x0b},
      {"dirty", Dirty(), kSame, false, Content::kChanged, 0x0b},
      {"exists without a statement", With(Clean(), [](Record& r) { r.statement.reset(); }), kSame,
       false, Content::kChanged, 0x0b},
      {"archived only, written", With(Suspended(), [](Record& r) { r.flags = HS_ARCHIVED; }), grown,
       true, Content::kChanged, 0x08},
      {"no archive, new", With(Record(), [](Record& r) { r.flags = HS_NOARCHIVE; }), kSame, false,
       Content::kNew, 0x20},
  };
  for (const ContentRow& row : rows) {
    const Content content =
        JudgeContent(row.record, row.now, row.sampled ? &kSame : nullptr, kBoot);
    if (content != row.content) return std::string(row.what) + ": content";
    const uint8_t shown = ShownFlags(row.record, content);
    if (shown != row.shown) return std::string(row.what) + ": " + Hex(shown);
  }
  return "";
}

std::string BeforeModifications() {
  const struct {
    const char* what;
    Record record;
    Before before;
  } rows[] = {
      {"new", Record(), Before::kNothing},
      {"clean", Clean(), Before::kSuspend},
      {"suspended", Suspended(), Before::kNothing},
      {"dirty", Dirty(), Before::kNothing},
      {"dirty by a user over clean data", With(Clean(), [](Record& r) { r.flags |= HS_DIRTY; }),
       Before::kModified},
      {"being archived for the first time",
       With(Clean(),
            [](Record& r) {
              r.flags = HS_EXISTS;
              r.copy.reset();
              r.modified = true;
            }),
       Before::kSuspend},
      {"a copy and no statement", With(Clean(), [](Record& r) { r.statement.reset(); }),
       Before::kModified},
      {"archived partly",
       With(Clean(),
            [](Record& r) {
              r.flags |= HS_DIRTY;
              r.modified = true;
            }),
       Before::kSuspend},
      {"modified, cleared by a user", With(Clean(), [](Record& r) { r.modified = true; }),
       Before::kSuspend},
      {"archived only", With(Clean(), [](Record& r) { r.flags = HS_ARCHIVED; }), Before::kSuspend},
      {"no archive, new", With(Record(), [](Record& r) { r.flags = HS_NOARCHIVE; }),
       Before::kNothing},
  };
  for (const auto& row : rows) {
    if (BeforeModify(row.record) != row.before) return row.what;
  }
  return "";
}

std::string Settling() {
  const struct {
    const char* what;
    Record record;
    Content content;
    bool lease;
    Settle settle;
  } rows[] = {
      {"unchanged under a lease", Suspended(), Content::kUnproven, true, Settle::kClean},
      {"unchanged, a mapping left", Suspended(), Content::kUnproven, false, Settle::kStaySuspended},
      {"changed", Suspended(), Content::kChanged, true, Settle::kFold},
      {"changed, a mapping left", Suspended(), Content::kChanged, false, Settle::kFold},
      {"clean", Clean(), Content::kAsStated, true, Settle::kNothing},
      {"new", Record(), Content::kNew, true, Settle::kNothing},
      {"dirty", Dirty(), Content::kChanged, true, Settle::kNothing},
      {"released", Released(), Content::kReleased, true, Settle::kNothing},
  };
  for (const auto& row : rows) {
    if (DecideSettle(row.record, row.content, row.lease) != row.settle) return row.what;
  }
  return "";
}

std::string Releasing() {
  const auto flags = [](uint8_t flags) {
    return With(Clean(), [flags](Record& r) { r.flags = flags; });
  };
  const struct {
    const char* what;
    Record record;
    ReleaseFacts facts;
    int error;
  } rows[] = {
      {"new", Record(), {}, EPERM},
      {"clean", Clean(), {Content::kAsStated}, 0},
      {"dirty", Dirty(), {Content::kChanged}, EPERM},
      {"dirty by a user", flags(0x0b), {Content::kAsStated}, EPERM},
      {"exists only", flags(0x01), {Content::kAsStated}, EPERM},
      {"dirty only", flags(0x02), {Content::kAsStated}, EPERM},
      {"exists, dirty", flags(0x03), {Content::kChanged}, EPERM},
      {"archived only", flags(0x08), {Content::kAsStated}, 0},
      {"noarchive only", flags(0x20), {Content::kAsStated}, EPERM},
      {"norelease", flags(0x19), {Content::kAsStated}, EPERM},
      {"lost", flags(0x49), {Content::kAsStated}, EPERM},
      {"noarchive", flags(0x29), {Content::kAsStated}, 0},
      {"released", Released(), {Content::kReleased}, EALREADY},
      {"released, being restored", Released(), {Content::kReleased, 0, 0, false, true}, EBUSY},
      {"released, noarchive", flags(0x2d), {Content::kReleased}, EALREADY},
      {"released, norelease", flags(0x1d), {Content::kReleased}, EPERM},
      {"released, lost", flags(0x4d), {Content::kReleased}, EPERM},
      {"written since", Clean(), {Content::kChanged}, EPERM},
      {"written since, open", Clean(), {Content::kChanged, 1}, EPERM},
      {"modified, cleared by a user",
       With(Clean(), [](Record& r) { r.modified = true; }),
       {Content::kAsStated},
       EPERM},
      {"no copy", With(Clean(), [](Record& r) { r.copy.reset(); }), {Content::kAsStated}, EPERM},
      {"open", Clean(), {Content::kAsStated, 1}, EBUSY},
      {"being modified", Clean(), {Content::kAsStated, 0, 1}, EBUSY},
      {"being archived", Clean(), {Content::kAsStated, 0, 0, true}, EBUSY},
      {"suspended and unproven", Suspended(), {Content::kUnproven}, EBUSY},
  };
  for (const auto& row : rows) {
    const int error = DecideRelease(row.record, row.facts);
    if (error != row.error) return std::string(row.what) + ": " + std::to_string(error);
  }
  return "";
}

std::string Archiving() {
  Copy fresh = SomeCopy();
  fresh.etag = "0x9";
  const Evidence now = {4096, kLater, kLater};
  const Record clean = AfterArchive(Dirty(), fresh, true, now);
  if (clean.flags != 0x09 || clean.modified || clean.copy->etag != "0x9") return "quiet: not clean";
  if (!SameTime(clean.statement->mtime, kLater) || clean.statement->suspended) return "statement";
  const Record lost =
      AfterArchive(With(Dirty(), [](Record& r) { r.flags |= HS_LOST; }), fresh, true, now);
  if (lost.flags & HS_LOST) return "LOST is kept";
  const Record torn = AfterArchive(Suspended(), fresh, false, now);
  if (torn.flags != 0x0b || !torn.modified || torn.statement)
    return "not quiet: " + Hex(torn.flags);
  if (torn.copy->etag != "0x9") return "not quiet: the upload is not recorded";
  const Record first =
      AfterArchive(With(Record(), [](Record& r) { r.flags = HS_EXISTS; }), fresh, false, now);
  return first.flags == 0x03 ? "" : "a new file written meanwhile: " + Hex(first.flags);
}

std::string Restoring() {
  Copy other = SomeCopy();
  other.size = 10;
  other.etag = "0x9";
  const Record record =
      AfterRestore(With(Released(), [](Record& r) { r.flags |= HS_NORELEASE; }), other);
  if (record.flags != 0x19) return Hex(record.flags);
  if (record.copy != other || record.statement->size != 10) return "size and copy";
  return SameTime(record.statement->mtime, kThen) ? "" : "mtime";
}

std::string ChangeTimes() {
  const Record with = With(Clean(), [](Record& r) { r.ctime = kLater; });
  const auto shows = [](const Record& record, const struct timespec& backing,
                        std::optional<struct timespec> ours, const struct timespec& wanted) {
    return SameTime(ShownCtime(record, backing, ours), wanted);
  };
  const struct timespec other = {5, 5};
  if (!shows(Record(), other, {}, other)) return "new";
  if (!shows(with, other, {}, kLater)) return "clean";
  if (!shows(with, other, other, kLater)) return "moved by us";
  if (!shows(with, other, kThen, other)) return "moved by the application";
  if (!shows(Released(), other, {}, kThen)) return "released, elided";
  if (!shows(With(Released(), [](Record& r) { r.ctime = kLater; }), other, kThen, kLater)) {
    return "released";
  }
  return shows(With(Suspended(), [](Record& r) { r.ctime = kLater; }), other, {}, other)
             ? ""
             : "suspended, not known who moved it";
}

std::string Fids() {
  for (const Fid fid : {Fid{2, 0}, Fid{0xffffffff, 0xffffffff}, Fid{1ull << 40 | 7, 3}}) {
    Fid back;
    if (!ParseFid(ToString(fid), &back) || !(back == fid)) return ToString(fid);
    const std::string bare = ToString(fid).substr(1, ToString(fid).size() - 2);
    if (!ParseFid(bare, &back) || !(back == fid)) return bare;
  }
  if (ToString({5, 1}) != "[0x200000400:0x5:0x1]") return ToString({5, 1});
  Fid fid;
  for (const char* text : {"", "[", "[]", "0x1:0x2:0x3", "[0x200000400:0x5:0x0",
                           "0x200000400:0x5:0x0]", "[0x200000400:0x5:0x0]x",
                           "[0x200000400:0x0:0x0]", "200000400:5:0", "[0x300000400:0x5:0x0]"}) {
    if (ParseFid(text, &fid)) return text;
  }
  return "";
}

std::string Paths() {
  for (const char* path : {"a", "a/b", "..a", "a../b", ".hidden", "a b/\n"}) {
    if (CheckPath(path) != 0) return path;
  }
  for (const char* path : {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b"}) {
    if (CheckPath(path) != EINVAL) return std::string("accepted ") + path;
  }
  if (CheckPath(std::string("a\0b", 3)) != EINVAL) return "NUL";
  if (CheckPath(std::string(255, 'x')) != 0) return "255 bytes";
  if (CheckPath(std::string(256, 'x')) != ENAMETOOLONG) return "256 bytes";
  return "";
}

}  // namespace
}  // namespace lustrite

int main() {
  using namespace lustrite;
  Test("a record reads back as it was written", RoundTrips);
  Test("a stub's record fits into its inode, and the MD5 goes first when it does not", Sizes);
  Test("bytes that are no record are refused, whatever they are", Garbage);
  Test("rule 1, 3, 4: the content is judged by statement, sample and boot", Contents);
  Test("rule 1: a clean file is suspended before it may be modified", BeforeModifications);
  Test("rule 2: only a lease makes an unchanged file clean again", Settling);
  Test("rule 7: release refuses in Lustre's order", Releasing);
  Test("rule 2: an archive that was not left alone leaves the file dirty", Archiving);
  Test("a restore keeps the record's mtime and takes the copy's size", Restoring);
  Test("st_ctime is the application's", ChangeTimes);
  Test("a FID reads back as it was written", Fids);
  Test("a path that could leave the namespace is refused", Paths);
  printf("1..%d\n", tests);
  return failures == 0 ? 0 : 1;
}
