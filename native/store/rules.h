// The HSM rules as pure decisions: which state is shown, what has to happen before a change, when a
// file is clean again, what may be released. No I/O here; inode_*.cc gathers the facts and carries
// the decisions out.
#ifndef LUSTRITE_STORE_RULES_H_
#define LUSTRITE_STORE_RULES_H_

#include <cstdint>
#include <ctime>
#include <optional>

#include "../abi.h"
#include "record.h"

namespace lustrite {

// What statx said of the backing inode.
struct Evidence {
  uint64_t size = 0;
  struct timespec mtime = {};
  struct timespec ctime = {};
};

// How an inode's content stands to its record.
enum class Content : uint8_t {
  kNew,       // no statement was ever made
  kReleased,  // nowhere but in the copy
  kAsStated,  // proven: nobody wrote since the statement
  kUnproven,  // suspended, and nothing speaks for a change
  kChanged,   // something was written since the statement, or may have been
};

// `now`: what statx says, `sample`: what it said right after the suspension (null: it was another
// daemon that suspended), `boot`: this boot.
Content JudgeContent(const Record& record, const Evidence& now, const Evidence* sample,
                     uint64_t boot);

// HS_* as every surface shows them (lustre-hsm 3.4): a change shows as HS_DIRTY on files with
// HS_EXISTS.
uint8_t ShownFlags(const Record& record, Content content);
bool ShownModified(const Record& record, Content content);

// A change folded into the record: HS_DIRTY where it has HS_EXISTS, modified, no statement.
void Fold(Record* record);

// What must be durable before the content of a resident inode may change.
enum class Before : uint8_t {
  kNothing,  // new, or said to be modified with no statement that a write could belie, or suspended
  kSuspend,  // say that somebody may be writing
  kModified  // HS_DIRTY was set by a user over unchanged data: that it is changed now has to be
             // noted by itself
};
Before BeforeModify(const Record& record);

// After the last writer, or at a query without writers. `lease`: a read lease was granted before
// `content` was judged on fsynced evidence, so no writer and no mapping is left anywhere.
enum class Settle : uint8_t { kNothing, kFold, kClean, kStaySuspended };
Settle DecideSettle(const Record& record, Content content, bool lease);

// lustre-hsm 3.3 steps 1, 7 and 8: 0 = may be released, EALREADY = nothing to do, EPERM, EBUSY.
struct ReleaseFacts {
  Content content = Content::kNew;
  int handles = 0;
  int modifications = 0;
  bool archiving = false;
  bool restoring = false;
};
int DecideRelease(const Record& record, const ReleaseFacts& facts);

// The end of an archive: the record it leaves. `quiet`: the lease was held throughout and nobody
// asked to write.
Record AfterArchive(const Record& record, const Copy& copy, bool quiet, const Evidence& now);

// The end of a restore.
Record AfterRestore(const Record& record, const Copy& copy);

// An export would copy this file.
bool NeedsArchive(const Record& record, Content content);

// st_ctime for applications: the record's, unless the backing inode's was moved by somebody else
// than us. `ours`: the backing ctime our last own change left, where it is known.
struct timespec ShownCtime(const Record& record, const struct timespec& backing,
                           const std::optional<struct timespec>& ours);

}  // namespace lustrite

#endif  // LUSTRITE_STORE_RULES_H_
